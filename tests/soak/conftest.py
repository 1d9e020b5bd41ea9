"""A model and a gateway for each long test, and the sizes at which it runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.live.harness import Gateway

from .children import MockLLM
from .gateways import config

SCALE = float(os.environ.get("KONGAI_SOAK_SCALE", "1"))
"""The share of the full size: of seconds, of trials. A try-out takes 0.1."""

StartGateway = Callable[..., Gateway]


def seconds(full: float) -> float:
    """How long, at the size that is asked for."""
    return max(3.0, full * SCALE)


def times(full: int) -> int:
    """How often, at the size that is asked for."""
    return max(2, round(full * SCALE))


def report(test: str, figures: str) -> None:
    """One line that docs/reliability.md is made of; `pytest -rA` shows it."""
    print(f"{test}: {figures}")  # noqa: T201


@pytest.fixture
def model(tmp_path: Path) -> Iterator[MockLLM]:
    """The upstream."""
    with MockLLM(tmp_path) as model:
        yield model


@pytest.fixture
def start(model: MockLLM) -> Iterator[StartGateway]:
    """Starts gateways in front of it: arguments of the command, settings by name."""
    with ExitStack() as stack:

        def start(*args: str, **settings: Any) -> Gateway:
            gateway = Gateway(config(model.url, **settings), *args)
            return stack.enter_context(gateway)

        yield start

"""Other gateways, for the table: each is installed when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.gateways import Gateway
from benchmarks.peers import litellm, portkey
from benchmarks.stage import Stage


@dataclass(frozen=True)
class Kind:
    """A gateway that can be compared.

    Args:
        install: brings it into the cache, unless it is there; told what to say what it
            does with; returns the command that starts it.
        start: starts it in front of the stage's upstream, given that command.
    """

    install: Callable[[Callable[[str], None]], Sequence[str]]
    start: Callable[[Stage, Sequence[str]], Gateway]


PEERS: Mapping[str, Kind] = {
    "portkey": Kind(portkey.install, portkey.start),
    "litellm": Kind(litellm.install, litellm.start),
}

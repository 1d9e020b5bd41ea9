"""What the options of the commands may be, where click has no word for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

import click

DEFAULT_HOST = "127.0.0.1"
STATUS_PORT = 8100


def processes(context: click.Context, option: click.Parameter, text: str) -> int:
    """How many processes: a number, or one for each processor."""
    if text == "auto":
        return os.cpu_count() or 1
    if not _is_number(text) or not 1 <= int(text) <= 1024:
        raise click.BadParameter(f"{text!r} is neither `auto` nor 1 to 1024.")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def status_address(
    context: click.Context, option: click.Parameter, text: str
) -> tuple[str, int] | None:
    """Where the status is served: `off`, `on`, a port, or host and port."""
    if text in ("off", "on"):
        return (DEFAULT_HOST, STATUS_PORT) if text == "on" else None
    host, colon, port = text.rpartition(":")
    if not _is_number(port) or int(port) > 65535 or (colon and not host):
        raise click.BadParameter(f"{text!r} is neither `on`, `off` nor [HOST:]PORT.")
    return host.strip("[]") or DEFAULT_HOST, int(port)


class Seconds(click.FloatRange):
    """A time that a computer can wait for."""

    name = "seconds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """A number within the bounds, which nan would pass."""
        seconds = super().convert(value, param, ctx)
        if seconds != seconds:
            self.fail(f"{value!r} is not a number.", param, ctx)
        return seconds


SECONDS = Seconds(0, 1_000_000, min_open=True)


def host(context: click.Context, option: click.Parameter, text: str) -> str:
    """An address to serve, brackets or not."""
    if not text:
        raise click.BadParameter("an address or a name is needed; 0.0.0.0 is all.")
    return text.strip("[]")


def addresses(values: Sequence[str]) -> list[str]:
    """Addresses and networks, those between commas taken apart."""
    found = [text.strip() for value in values for text in value.split(",")]
    for text in found:
        try:
            ip_network(text, strict=False)
        except ValueError:
            raise click.BadParameter(f"{text!r} is no IP address or network.") from None
    return found

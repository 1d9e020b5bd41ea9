"""What a server puts up with: how slow a client may be, and how many there may be."""

from __future__ import annotations

from dataclasses import dataclass

GRACE_SECONDS = 30.0
"""How long a server that stops waits for answers that are under way."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of one server process. Beyond them clients are refused or let go."""

    idle: float = 75.0
    """Seconds that a connection may be silent between requests."""
    head: float = 10.0
    """Seconds from the first byte of a request to the end of its head."""
    body: float = 30.0
    """Seconds of silence within a request's body."""
    body_rate: int = 1024
    """Bytes a second that a body has to bring on average. A client that sends a byte
    now and then is not silent, but not serious."""
    body_grace: float = 10.0
    """Seconds of waiting for a body before that counts."""
    write: float = 60.0
    """Seconds in which a client takes nothing of what it is sent."""
    connections: int = 16384
    """Connections at a time."""
    exchanges: int = 8192
    """Requests that are answered at a time, streams above all."""

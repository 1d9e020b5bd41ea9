"""Where the hosts of upstreams are: the system's look-ups, remembered and bounded.

The system's own way to look a name up can't be told how long it may take, and under
gevent all look-ups share a few threads. So there is one look-up at a time for a name,
however many wait for it, on a thread of its own; those who wait do so as long as they
like, and an address that is known or numeric keeps nobody waiting.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from kongai.errors import UpstreamError

AddressInfo: TypeAlias = tuple[Any, Any, int, str, tuple[Any, ...]]
"""An address as `socket.getaddrinfo` describes it."""
LookUp: TypeAlias = Callable[[str], list[AddressInfo]]

MAX_LOOK_UP = 5.0
"""Seconds for finding out a name's addresses, which is part of connecting."""
FRESH_SECONDS = 30.0
"""How long an answer is used without asking again."""
STALE_SECONDS = 300.0
"""How old an answer may be when no newer one can be had."""
_PATIENCE_SECONDS = 1.0
"""How long a look-up may take before an older answer has to do."""
_PAUSE_SECONDS = 5.0
"""After a look-up that has failed, an older answer is used so long without asking."""
_MAX_NAMES = 1000


class NameNotResolved(OSError):
    """A name has no address, or none that could be found out in time."""


def no_address() -> UpstreamError:
    """What becomes of a request to a host that has no address."""
    return UpstreamError(
        "name resolution failed", status=503, ended="dns", sent=False, hopeless=True
    )


@dataclass(slots=True)
class _Asking:
    """A look-up that is under way."""

    began: float
    done: threading.Event = field(default_factory=threading.Event)
    found: list[AddressInfo] | None = None
    """The answer; None if there is none, or not yet."""


@dataclass(slots=True)
class _Known:
    """An answer, and when to ask again."""

    found: list[AddressInfo]
    since: float
    ask_at: float


class Names:
    """Looks up names, and remembers for a while what it was told.

    Args:
        look_up: gives the addresses of a name; the system's own way when None. It may
            raise `OSError` or `UnicodeError`.
        fresh: seconds in which an answer is not asked for again.
        stale: seconds in which an answer may be used if there is no newer one.
    """

    def __init__(
        self,
        look_up: LookUp | None = None,
        *,
        fresh: float = FRESH_SECONDS,
        stale: float = STALE_SECONDS,
    ) -> None:
        self._look_up = look_up or _ask_the_system
        self._fresh, self._stale = fresh, stale
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._asking: dict[str, _Asking] = {}

    def addresses(self, host: str, port: int, timeout: float) -> list[AddressInfo]:
        """The addresses of a host, in the order in which they are to be tried.

        Args:
            host: a name, or an address, for which nothing is looked up.
            port: the port to put into them.
            timeout: seconds to wait for an answer.

        Raises:
            NameNotResolved: there is none, or it did not come in time.
        """
        found = _numeric(host)
        if found is None:
            found = self._named(host.lower(), timeout)
        return [
            (family, kind, protocol, "", (address[0], port, *address[2:]))
            for family, kind, protocol, _, address in found
        ]

    def _named(self, name: str, timeout: float) -> list[AddressInfo]:
        now = time.monotonic()
        with self._lock:
            known = self._known.get(name)
            if known is not None and now < known.ask_at:
                return known.found
            if known is not None and now - known.since > self._stale:
                del self._known[name]
                known = None
            asking = self._asking.get(name)
            if asking is None:
                asking = self._asking[name] = _Asking(now)
                self._start(name, asking)
        if known is None:
            asking.done.wait(timeout)
        else:
            patience = min(timeout, asking.began + _PATIENCE_SECONDS - now)
            asking.done.wait(max(patience, 0))
        if asking.found is not None:
            return asking.found
        if known is not None:
            return known.found
        raise NameNotResolved("name resolution failed")

    def _start(self, name: str, asking: _Asking) -> None:
        thread = threading.Thread(
            target=self._ask, args=(name, asking), name="kongai-names", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no more threads can be had
            self._end(name, asking)

    def _ask(self, name: str, asking: _Asking) -> None:
        try:
            # A name that can't even be asked for is a UnicodeError.
            with suppress(OSError, UnicodeError):
                asking.found = self._look_up(name) or None
        finally:
            with self._lock:
                self._end(name, asking)

    def _end(self, name: str, asking: _Asking) -> None:
        now = time.monotonic()
        if asking.found is not None:
            self._known.pop(name, None)  # so that the order is that of their age
            self._known[name] = _Known(asking.found, now, now + self._fresh)
            if len(self._known) > _MAX_NAMES:
                del self._known[next(iter(self._known))]
        elif name in self._known:
            self._known[name].ask_at = now + _PAUSE_SECONDS
        del self._asking[name]
        asking.done.set()


def first_that_answers(
    found: Sequence[AddressInfo], timeout: float | None, options: Iterable[Any] = ()
) -> socket.socket:
    """A connection to the first of the addresses that takes one.

    Args:
        found: the addresses, which are tried one after the other.
        timeout: seconds to wait for each.
        options: what to set with `setsockopt` beforehand.

    Raises:
        OSError: none takes it; what the last of them said.
    """
    *others, last = found
    for address in others:
        with suppress(OSError):
            return _connection(address, timeout, options)
    return _connection(last, timeout, options)


def _connection(
    found: AddressInfo, timeout: float | None, options: Iterable[Any]
) -> socket.socket:
    family, kind, protocol, _, address = found
    sock = socket.socket(family, kind, protocol)
    try:
        for option in options:
            sock.setsockopt(*option)
        sock.settimeout(timeout)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _numeric(host: str) -> list[AddressInfo] | None:
    """The address that a host is; None if it is a name."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
        zone = getattr(address, "scope_id", None)
        if zone is not None:
            zone = int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)
    except (ValueError, OSError):
        return None
    text = str(address).partition("%")[0]
    if address.version == 4:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (text, 0))]
    return [(socket.AF_INET6, socket.SOCK_STREAM, 0, "", (text, 0, 0, zone or 0))]


def _ask_the_system(name: str) -> list[AddressInfo]:
    return socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)

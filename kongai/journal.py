"""What is under way, written down: no exchange is forgotten with a killed process.

Beside the log stands a journal for each process that writes it, ``LOG.wal.PID``. An
exchange is noted there before an upstream is asked, and crossed out once its record is
in the log. The journal is locked as long as its process lives; what is found unlocked
and not crossed out, the next process brings into the log: see `kongai.recovery`.

Others may write to the directory, too, if it is ``/tmp`` for example: nothing of theirs
is read, and no link followed.

The lines of a journal::

    B ID INTENT      begun; the intent is JSON: an `Intent`
    E ID             ended: its record is in the log
    R PLACE RECORD   a record that could not be written; the place is JSON
"""

from __future__ import annotations

import atexit
import errno
import itertools
import logging
import os
import time
from _thread import RLock
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakSet

import msgspec

from kongai import redact
from kongai.forks import forget_in_children
from kongai.incoming import mount_point
from kongai.log_file import Folder, Place, is_named, let_go, no_space, try_lock
from kongai.logged import request_id_of
from kongai.recovery import Asked, Intent, recover
from kongai.shown import shown
from kongai.sinks import encode

if TYPE_CHECKING:
    from kongai.entities import Consumer, Route, Service
    from kongai.exchange import Exchange
    from kongai.router import Match

    _Matched = tuple[Route, Service | None, msgspec.Raw, msgspec.Raw | None]

MAX_BYTES = 1024 * 1024
"""A journal that is longer is made shorter."""
MAX_OPEN = 100_000
"""The most exchanges that outlast that. One whose record was lost has no end, and those
must not add up for ever; no server has so many under way."""
MAX_OPEN_BYTES = 64 * 1024 * 1024
"""And the most bytes of them."""
MAX_URI = 2000
"""The most characters of a request's target that are noted."""
MAX_MODEL = 256
"""And of a model's name."""

_LOOK_SECONDS = 0.1
_RETRY_SECONDS = 1.0
_SAY_SECONDS = 60.0
# What somebody else has put there, such as a link, is not opened.
_NEW = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW

_logger = logging.getLogger("kongai")


class Journal:
    """The exchanges that one process has begun and not ended, as a file.

    What goes wrong with it never hurts traffic, and is not raised; it is counted, and
    logged once a minute. A log that is a device or a pipe has no journal.

    Args:
        log_path: the log.
        place: a place of the log behind which later records are.
    """

    _descriptor: int | None = None
    _path: str
    _open: dict[str, bytes]
    """The lines of what is under way, by the requests' ids."""
    _size: int
    _limit: int
    """The size above which it is made shorter."""
    _wanted: bool
    _closing: bool
    _kept: bool
    """Whether it holds whole records."""
    _torn: bool
    _log_end: msgspec.Raw
    """A place of the log, as JSON, that was its end not long ago."""
    _look_at: float
    _retry_at: float
    _silent_until: float

    def __init__(self, log_path: str, place: Callable[[], Place]) -> None:
        self.failures = 0
        """How often it could not be written."""
        self._log_path = log_path
        self._place = place
        self._folder = Folder(log_path)
        self._matched: dict[int, _Matched] = {}
        self.forget()
        _JOURNALS.add(self)
        forget_in_children(self)

    def open(self) -> None:
        """Begin a journal, and bring into the log what killed processes have left."""
        with self._lock:
            if self._descriptor is not None:
                return
            self._closing = False
            self._wanted = _has_journal(self._log_path)
            if not self._wanted:
                self._retry_at = time.monotonic() + _RETRY_SECONDS
            if not self._wanted or not self._begin_file():
                return
            owner = self._owner()
        # Not under the lock: it may have to wait for other processes.
        recover(self._log_path, owner)

    def begin(self, exchange: Exchange) -> bool:
        """Note an exchange, before its upstream is asked.

        Returns:
            Whether it is written down, or need not be.
        """
        now = time.monotonic()
        if self._descriptor is None and now >= self._retry_at:
            self.open()
        if not self._wanted:
            return True
        with self._lock:
            if self._descriptor is None:
                return False
            if now >= self._look_at and not self._is_there(now):
                return False
            line = self._line(exchange)
            self._open[exchange.id] = line
            if not self._write(line):
                del self._open[exchange.id]
                return False
            if self._size > self._limit:
                self._shorten()
        return True

    def end(self, request_id: str) -> None:
        """Cross an exchange out; its record is in the log."""
        if request_id not in self._open:
            return
        with self._lock:
            self._open.pop(request_id, None)
            if self._descriptor is None:
                return
            if not self._open and self._closing:
                self._end_file()
            elif not self._write(b"E %b\n" % request_id.encode()):
                # It would look unended for ever; a shorter journal does not have it.
                self._limit = 0
            elif not self._open and self._size > MAX_BYTES:
                self._shorten()

    def keep(self, lines: Sequence[bytes]) -> bool:
        """Take in records that could not be written; the next process writes them.

        Args:
            lines: whole records, each with its line feed.

        Returns:
            Whether they are safe.
        """
        if self._descriptor is None:
            self.open()
        with self._lock:
            if self._descriptor is None or not self._is_there(time.monotonic()):
                return False
            place = msgspec.json.encode(self._place())
            kept = self._write(b"".join(b"R %b %b" % (place, line) for line in lines))
            if kept:
                self._kept = True
                for line in lines:
                    self._open.pop(request_id_of(line) or "", None)
            return kept

    def close(self) -> None:
        """Remove the journal, or leave it until its last exchange has ended."""
        with self._lock:
            self._closing = True
            if self._descriptor is not None and not self._open:
                self._end_file()

    def _is_there(self, now: float) -> bool:
        """Whether the file is where the next process looks; if not, make it anew."""
        assert self._descriptor is not None
        self._look_at = now + _LOOK_SECONDS
        self._log_end = msgspec.Raw(msgspec.json.encode(self._place()))
        if is_named(self._path, os.fstat(self._descriptor)):
            return True
        self._let_go()
        return self._begin_file()

    def _begin_file(self) -> bool:
        """Make the file, with what is under way."""
        try:
            path, descriptor = self._new_file()
        except OSError as error:
            self._failed(error)
            return False
        self._descriptor, self._path = descriptor, path
        self._size, self._limit, self._torn = 0, MAX_BYTES, False
        return not self._open or self._write(b"".join(self._open.values()))

    def _new_file(self) -> tuple[str, int]:
        """A file that no other process takes for one without an owner."""
        name = f"{self._log_path}.wal.{os.getpid()}"
        for number in itertools.count(1):
            path = f"{name}-{number}" if number > 1 else name
            try:
                descriptor = self._folder.open(_NEW, path)
            except FileExistsError:
                continue
            try:
                # Whoever recovers may have been quicker, and removed it.
                if try_lock(descriptor) and is_named(path, os.fstat(descriptor)):
                    return path, descriptor
            except OSError:
                let_go(descriptor, path)
                os.unlink(path)
                raise
            let_go(descriptor, path)
        raise AssertionError("there is always another number")

    def _owner(self) -> int | None:
        """Whose the files are that this process makes there; NFS has its own views."""
        return None if self._descriptor is None else os.fstat(self._descriptor).st_uid

    def _end_file(self) -> None:
        if not self._kept:
            try:
                os.unlink(self._path)
            except OSError as error:
                self._failed(error)
        self._let_go()
        self._kept = False

    def _let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            let_go(descriptor, self._path)

    def _write(self, data: bytes) -> bool:
        """Append lines, all or none."""
        assert self._descriptor is not None
        data = b"\n" + data if self._torn else data
        try:
            if os.write(self._descriptor, data) < len(data):
                raise no_space()
        except OSError as error:
            self._torn = not self._take_back()
            self._failed(error)
            return False
        self._size += len(data)
        self._torn = False
        return True

    def _take_back(self) -> bool:
        """Cut off a line that was begun; whether the file ends with a line again."""
        assert self._descriptor is not None
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError:
            return False
        return True

    def _shorten(self) -> None:
        """Leave out what has ended."""
        assert self._descriptor is not None
        if self._kept:
            # Whole records are nowhere else.
            self._limit = 2 * max(self._size, MAX_BYTES)
            return
        self._give_up_the_oldest()
        lines = b"".join(self._open.values())
        try:
            if lines:
                self._replace(lines)
            else:
                os.ftruncate(self._descriptor, 0)
        except OSError as error:
            self._failed(error)
            self._limit = 2 * max(self._size, MAX_BYTES)
        else:
            self._size, self._torn = len(lines), False
            self._limit = max(2 * self._size, MAX_BYTES)

    def _give_up_the_oldest(self) -> None:
        size = sum(map(len, self._open.values()))
        for request_id in list(self._open):
            if len(self._open) <= MAX_OPEN and size <= MAX_OPEN_BYTES:
                return
            size -= len(self._open.pop(request_id))

    def _replace(self, lines: bytes) -> None:
        """Put another file in the place of this one, which is whole all the time."""
        path = f"{self._path}.new"
        with suppress(FileNotFoundError):
            os.unlink(path)
        descriptor = self._folder.open(_NEW, path)
        try:
            _fill(descriptor, lines)
            os.rename(path, self._path)
        except OSError:
            let_go(descriptor, path)
            raise
        self._let_go()
        self._descriptor = descriptor

    def _failed(self, error: OSError) -> None:
        self.failures += 1
        if self._descriptor is None:
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            if isinstance(error, FileNotFoundError):
                # The log is to be in the same directory, and will say so.
                return
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + _SAY_SECONDS
            _logger.error(
                "failed to write the journal of %s: %s; if the process is killed, "
                "records of what is under way are lost",
                self._log_path,
                error.strerror,
            )

    def _line(self, exchange: Exchange) -> bytes:
        """The line that notes an exchange."""
        match, consumer, call = exchange.match, exchange.consumer, exchange.llm
        show, secrets = shown(exchange.secret_names), exchange.secret_values
        uri, environ = exchange.target, exchange.request.environ
        if environ.get("SCRIPT_NAME"):
            uri = mount_point(environ) + uri
        # It is cut when no secret is in it any more: half of one is not recognised.
        if uri not in show.targets:
            uri = show.target(uri)
        provider = model = None
        if call is not None:
            provider, model = call.provider, call.request_model
            if model is not None and model not in show.texts:
                model = show.text(model[:MAX_MODEL], secrets)
        if secrets:
            uri, model = redact.values(uri, secrets), redact.values(model, secrets)
        intent = Intent(
            log=self._log_end,
            request=Asked(exchange.id, exchange.method, uri[:MAX_URI]),
            client_ip=exchange.real_ip or exchange.client_ip,
            started_at=exchange.timings.started_at,
            provider=provider,
            model=model,
        )
        if match is not None:
            found = self._matched.get(id(match.route))
            if found is None or found[1] is not match.service:
                found = self._known(match)
            _, _, intent.route, intent.service = found
        if consumer is not None:
            intent.consumer = _names(consumer, "username", "custom_id")
        try:
            text = _ENCODER.encode(intent)
        except UnicodeEncodeError:
            # Half of a character, which JSON may hold and UTF-8 may not.
            intent.request.uri = _in_utf8(uri[:MAX_URI])
            intent.model = None if model is None else _in_utf8(model)
            text = _ENCODER.encode(intent)
        return b"B %b %b\n" % (exchange.id.encode(), text)

    def _known(self, match: Match) -> _Matched:
        """Ids and names of what matched; of routes a gateway has only so many."""
        route, service = match.route, match.service
        known = None if service is None else _names(service, "name")
        found = route, service, _names(route, "name"), known
        self._matched[id(route)] = found
        return found

    def forget(self) -> None:
        """Start over; in a process that was forked, the journal is the parent's."""
        # Under gevent too it is the real one: nothing here lets another greenlet run,
        # but for a log handler perhaps, and the one that it makes takes ten times as
        # long.
        self._lock = RLock()
        self._let_go()
        self._path = ""
        self._open = {}
        self._wanted = True
        self._closing = self._kept = self._torn = False
        self._size, self._limit = 0, MAX_BYTES
        self._log_end = msgspec.Raw(b"[0,0,0]")
        self._look_at = self._retry_at = self._silent_until = 0.0


_ENCODER = msgspec.json.Encoder()


def _fill(descriptor: int, lines: bytes) -> None:
    """Write a journal that nobody knows yet."""
    if not try_lock(descriptor):
        # Whoever recovers takes it for one without an owner, and removes it.
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    if os.write(descriptor, lines) < len(lines):
        raise no_space()


def _names(entity: Route | Service | Consumer, *names: str) -> msgspec.Raw:
    """The id of an entity and what it is called, as JSON."""
    values = {name: getattr(entity, name) for name in ("id", *names)}
    there = {name: value for name, value in values.items() if value is not None}
    return msgspec.Raw(encode(there)[:-1])


def _in_utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _has_journal(log_path: str) -> bool:
    """Whether a log is a file, or will be one: not a device, and no pipe."""
    try:
        path = os.path.abspath(log_path)
    except OSError:
        # The current directory is gone; whoever makes the file will say so.
        return True
    if path.startswith(("/dev/", "/proc/")):
        # What they lead to may be a file, but is not named there for long.
        return False
    return os.path.isfile(path) or not os.path.exists(path)


_JOURNALS: WeakSet[Journal] = WeakSet()


def _close_all() -> None:
    for journal in list(_JOURNALS):
        journal.close()


# Sinks that still hold records at the end are closed before this: they come later.
atexit.register(_close_all)

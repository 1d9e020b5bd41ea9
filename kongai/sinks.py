"""Where records go: files and streams here, senders to others in their plugins."""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TextIO

from kongai.forks import forget_in_children
from kongai.log_file import LogFile, LogFileError, Place

MAX_WAITING = 1000
"""The most records that wait in memory for a file that can't be written."""
MAX_WAITING_BYTES = 16 * 1024 * 1024
"""And the most bytes of them."""

_RETRY_SECONDS = 1.0
_LOCK_SECONDS = 1.0
_SAY_SECONDS = 60.0

_logger = logging.getLogger("kongai")


class LogSink(Protocol):
    """Takes records away."""

    def emit(self, record: dict[str, Any]) -> None:
        """Take one record. It is the sink's own copy."""

    def close(self) -> None:
        """Write out what is held back, if anything, and let go."""


class FileSink:
    """Appends records to a file, one JSON line each.

    Lines of several processes don't mix, see `LogFile`. A file that can't be written
    never hurts traffic: records wait in memory, in order, and are tried again each
    second and with the next record; so they do for a pipe whose reader pauses. What a
    device refuses, or a pipe that nobody reads, is lost. The log on standard error says
    what is wrong, how many records wait and how many are lost, once a minute at most,
    and says when all is well again.

    Args:
        path: the file.
        reopen: open the file anew for each record, as Kong's `reopen` does.
        keep: is given the lines that can't be written when the sink is closed, and says
            whether they are safe; without it they are lost.
    """

    _waiting: deque[tuple[bytes, Callable[[], None] | None]]
    _bytes: int
    _lost: int
    _late: int
    _writing: bool
    _failing: bool
    _said: bool
    _silent_until: float
    _stop: threading.Event | None
    """Ends the thread that tries again; None without one."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        reopen: bool = False,
        keep: Callable[[Sequence[bytes]], bool] | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self._file = LogFile(self.path, reopen=reopen)
        self._keep = keep
        self.forget()
        forget_in_children(self)

    @property
    def waiting(self) -> int:
        """How many records are in memory: they are being written, or can't be yet."""
        return len(self._waiting)

    @property
    def failing(self) -> bool:
        """Whether the last try to write a record has failed."""
        return self._failing

    @property
    def place(self) -> Place:
        """A place of the file behind which every later record is."""
        return self._file.place

    def emit(self, record: Mapping[str, Any]) -> None:
        """Append the record; a failure is logged and not raised."""
        self.append(encode(record))

    def append(self, line: bytes, written: Callable[[], None] | None = None) -> None:
        """Append a record that is a line already; likewise.

        Args:
            line: with its line feed.
            written: called once the line is in the file.
        """
        with self._lock:
            done = False
            if not (self._writing or self._waiting or self._failing):
                # Nothing is in its way, as nearly always.
                self._writing = True
                try:
                    done = self._file.append_at_once(line)
                finally:
                    self._writing = False
            if done:
                if written is not None:
                    written()
                if not self._waiting:
                    return
            else:
                self._waiting.append((line, written))
                self._bytes += len(line)
                if self._writing:
                    # An answer that was dropped unclosed is ended by the garbage
                    # collector, which may strike amid a write of this very thread.
                    return
            # A pipe has no room because of its reader, who may take any time.
            hasty = self._failing or not self._file.is_file
            error = self._write_out(0.0 if hasty else _LOCK_SECONDS)
            if error is None:
                return
            self._keep_trying(error)
            if len(self._waiting) > MAX_WAITING or self._bytes > MAX_WAITING_BYTES:
                self._bytes -= len(self._waiting.pop()[0])
                self._lost += 1
                if not self._waiting:
                    # The next line is another than the one that was begun.
                    self._file.close()
            else:
                self._late += 1

    def reopen(self) -> None:
        """Open the file anew with the next record, as after a rotation."""
        with self._lock:
            self._file.close()

    def close(self) -> None:
        """Write what waits, if that can be done, and close the file.

        A later record opens it again.
        """
        with self._lock:
            self._stop_trying()
            error = self._write_out(_LOCK_SECONDS)
            lines = [line for line, _ in self._waiting]
            self._waiting.clear()
            self._bytes = 0
            self._file.close()
            if error is not None:
                kept = self._keep is not None and self._keep(lines)
                _logger.error(
                    "%s; records lost at the end: %d, kept for the next start: %d",
                    error,
                    self._lost + (0 if kept else len(lines)),
                    len(lines) if kept else 0,
                )
            elif self._lost:
                _logger.error("records lost: %d (%s)", self._lost, self.path)
            self._failing = self._said = False
            self._lost = self._late = 0

    def _write_out(self, patience: float) -> LogFileError | None:
        """Write all that waits; the reason if it can't be done now.

        Args:
            patience: the most seconds to wait, for all of it together.
        """
        until, lost, tried = time.monotonic() + patience, None, False
        self._writing = True
        try:
            while self._waiting:
                line, written = self._waiting[0]
                tried, lost = True, None
                try:
                    self._file.append(line, max(0.0, until - time.monotonic()))
                except LogFileError as error:
                    if error.passing:
                        return error
                    lost, written = error, None
                    self._lost += 1
                self._waiting.popleft()
                self._bytes -= len(line)
                if written is not None:
                    written()
        finally:
            self._writing = False
        if lost is not None:
            self._complain(lost)
        elif tried and self._failing:
            self._say_all_is_well()
        return None

    def _complain(self, error: LogFileError) -> None:
        """Say what is wrong, unless that was done just now."""
        now = time.monotonic()
        self._failing = True
        if now >= self._silent_until:
            self._silent_until = now + _SAY_SECONDS
            self._said = True
            _logger.error(
                "%s; records waiting: %d, lost: %d", error, self.waiting, self._lost
            )

    def _keep_trying(self, error: LogFileError) -> None:
        self._complain(error)
        if self._stop is None:
            self._stop = threading.Event()
            thread = threading.Thread(
                target=self._try_again,
                args=(self._stop,),
                name="kongai-file-sink",
                daemon=True,
            )
            atexit.register(self.close)
            try:
                thread.start()
            except RuntimeError:
                # There are too many, or the interpreter ends: the next record or
                # `close` tries again.
                self._stop = None

    def _try_again(self, stop: threading.Event) -> None:
        """The thread: lives while something waits."""
        pause = _RETRY_SECONDS
        while not stop.wait(pause):
            with self._lock:
                if stop.is_set():
                    return
                before = self.waiting
                error = self._write_out(_LOCK_SECONDS / 20)
                if error is None:
                    self._stop_trying()
                    return
                self._keep_trying(error)
                # Who reads a pipe slowly leaves room for more in a moment.
                pause = _RETRY_SECONDS / (20 if self.waiting < before else 1)

    def _stop_trying(self) -> None:
        if self._stop is not None:
            self._stop.set()
            self._stop = None
        atexit.unregister(self.close)

    def _say_all_is_well(self) -> None:
        self._failing = False
        if not self._said:
            # What was lost is counted until something is said.
            return
        level = logging.WARNING if self._lost else logging.INFO
        text = "the file is written again; records late: %d, lost: %d (%s)"
        _logger.log(level, text, self._late, self._lost, self.path)
        self._said, self._late, self._lost = False, 0, 0

    def forget(self) -> None:
        """Start over; in a process that was forked, the records are the parent's."""
        self._lock = threading.RLock()
        self._waiting = deque()
        self._bytes = self._lost = self._late = 0
        self._writing = self._failing = self._said = False
        self._silent_until = 0.0
        self._stop = None
        # A lock that was taken before a fork would be held by both.
        self._file.close()


class StreamSink:
    """Writes records to an open text stream, one JSON line each.

    Args:
        stream: for example ``sys.stdout``; it is not closed.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def emit(self, record: Mapping[str, Any]) -> None:
        """Write the record and flush."""
        self._stream.write(encode(record).decode())
        self._stream.flush()

    def close(self) -> None:
        """Flush; the stream stays open."""
        self._stream.flush()


def encode(record: Mapping[str, Any]) -> bytes:
    """A record as one line of JSON, pure ASCII, with its line feed.

    What JSON does not have, such as NaN or a date, becomes its text: a plugin's odd
    value must not cost the record.
    """
    try:
        text = _JSON.encode(record)
    except (ValueError, TypeError):
        text = _JSON.encode(_without_nan(record))
    return text.encode("ascii") + b"\n"


_JSON = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=str)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and value - value != 0:
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return value

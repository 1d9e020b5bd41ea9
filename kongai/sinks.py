"""Where records go: files and streams here, senders to others in their plugins."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

_logger = logging.getLogger("kongai")


class LogSink(Protocol):
    """Takes records away."""

    def emit(self, record: dict[str, Any]) -> None:
        """Take one record. It is the sink's own copy."""

    def close(self) -> None:
        """Write out what is held back, if anything, and let go."""


class FileSink:
    """Appends records to a file, one JSON line each.

    A line is one `write` on a descriptor opened with O_APPEND, so that lines of several
    processes don't mix. A file that can't be opened or written never hurts traffic: the
    reason is logged, and the next record tries again. Directories are not created.

    Args:
        path: the file.
        reopen: open the file anew for each record, as Kong's `reopen` does.
    """

    def __init__(self, path: str | os.PathLike[str], *, reopen: bool = False) -> None:
        self.path = os.fspath(path)
        self.reopen = reopen
        self._descriptor: int | None = None
        self._torn = False
        self._lock = threading.Lock()

    def emit(self, record: Mapping[str, Any]) -> None:
        """Append the record; a failure is logged and not raised."""
        self.append(encode(record))

    def append(self, line: bytes) -> None:
        """Append a record that is a line already; likewise."""
        with self._lock:
            try:
                if self._descriptor is None or self.reopen or self._moved():
                    self._open()
                self._write(line)
            except OSError as error:
                _logger.error(
                    "failed to %s the file: %s (%s); the record is lost",
                    "open" if self._descriptor is None else "write",
                    error.strerror,
                    self.path,
                )
                self._close()

    def close(self) -> None:
        """Close the file; a later record opens it again."""
        with self._lock:
            self._close()

    def _moved(self) -> bool:
        """Whether the path no longer names the open file: rotated, or deleted."""
        assert self._descriptor is not None
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return True
        here = os.fstat(self._descriptor)
        return (there.st_ino, there.st_dev) != (here.st_ino, here.st_dev)

    def _open(self) -> None:
        self._close()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        self._descriptor = os.open(self.path, flags, 0o644)

    def _write(self, line: bytes) -> None:
        assert self._descriptor is not None
        if self._torn:
            line = b"\n" + line
        written = os.write(self._descriptor, line)
        self._torn = 0 < written < len(line)
        if written < len(line):
            # Half a record is of no use; the next one starts on a line of its own.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


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

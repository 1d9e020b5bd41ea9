"""Which requests have a record in a log already, also where it was rotated to."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from kongai.log_file import Place, let_go, mark_of

LONGEST_LINE = 32 * 1024 * 1024
"""A longer line is taken for no record, in bytes: so many can't wait for a file."""
JOURNAL_NAME = re.compile(r"\.wal\.\d+(?:-\d+)?(\.new|\.bad(?:-\d+)?)?")
"""What follows the log's name in that of a journal, of a draft of one, and of one that
can't be read."""
READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""How a file is opened that others may have put there: a pipe would not end."""

_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_BEFORE_ID = b'"request":{"id":"'
_SLACK_SECONDS = 5.0

_logger = logging.getLogger("kongai")


class Left(NamedTuple):
    """What is owed to the log."""

    record: bytes
    started_at: int
    """Milliseconds since the epoch."""
    place: Place


def request_id_of(line: bytes) -> str | None:
    """The request's id in a record; None if the line is no record, or has none."""
    try:
        found = json.loads(line)["request"]["id"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return None
    return found if isinstance(found, str) else None


class Logged:
    """The records of a log and of what it was rotated to.

    Args:
        path: the log.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._said: set[str] = set()

    def those_in(self, owed: Mapping[str, Left]) -> set[str]:
        """Which of the requests have a record in it already.

        Raises:
            OSError: the directory can't be listed.
        """
        folder, base = os.path.split(self.path)
        oldest = min(left.started_at for left in owed.values()) / 1000 - _SLACK_SECONDS
        inodes = {left.place.inode for left in owed.values()}
        there: set[str] = set()
        with os.scandir(folder or ".") as entries:
            for entry in entries:
                name = entry.name
                if name.endswith(_COMPRESSED):
                    continue
                if JOURNAL_NAME.fullmatch(name.removeprefix(base)):
                    continue
                try:
                    if not entry.is_file():
                        continue
                    found = entry.stat()
                    # Of links, only what is known to be the log is worth a look.
                    link = entry.is_symlink()
                    near = name.startswith(base) and not link
                    recent = near and found.st_mtime >= oldest
                    if name == base or recent or found.st_ino in inodes:
                        flags = READ if link else READ | os.O_NOFOLLOW
                        there.update(self._those_in_file(entry.path, flags, owed))
                except FileNotFoundError:
                    # Whoever rotates the log removes the oldest.
                    continue
                except OSError as error:
                    self._skipped(entry.path, error.strerror or "unknown error")
        return there

    def _those_in_file(
        self, path: str, flags: int, owed: Mapping[str, Left]
    ) -> Iterator[str]:
        """The requests of which a file has a whole record."""
        descriptor = os.open(path, flags)
        try:
            here = os.fstat(descriptor)
            if not stat.S_ISREG(here.st_mode) or not self._is_trusted(path, here):
                self._skipped(path, "it is another user's")
                return
            mark = mark_of(descriptor)
            # Behind the place that was noted, if it is the same content still.
            start = min(
                size if (inode, noted) == (here.st_ino, mark) and noted else 0
                for inode, size, noted in (left.place for left in owed.values())
            )
            with open(descriptor, "rb", closefd=False) as file:
                file.seek(min(start, here.st_size))
                while line := file.readline(LONGEST_LINE):
                    key = _key(line)
                    there = key in owed and line.endswith(b"\n")
                    if there and request_id_of(line) == key:
                        yield key
        finally:
            let_go(descriptor, path)

    def _is_trusted(self, path: str, here: os.stat_result) -> bool:
        """Whether a file is the log, or of somebody who might have rotated it.

        Anybody may leave a file of any size and with any records in ``/tmp``.
        """
        if path == self.path or here.st_uid in (0, os.geteuid()):
            return True
        with suppress(OSError):
            return here.st_uid == os.stat(self.path).st_uid
        return False

    def _skipped(self, path: str, reason: str) -> None:
        if path not in self._said:
            self._said.add(path)
            _logger.warning(
                "can't look for records in %s: %s; what is there may be recorded twice",
                path,
                reason,
            )


def _key(line: bytes) -> str:
    """What seems to be the request's id in a record."""
    start = line.find(_BEFORE_ID) + len(_BEFORE_ID)
    return line[start : line.find(b'"', start)].decode("ascii", "replace")

"""A file to which several processes append lines, and which others move away.

A line is written whole or not at all, and behind a whole line: writers take turns by an
advisory lock (`flock`), what was begun and can't be finished is taken back, and what a
killed process has left half is ended first. Rotation by renaming and by copying and
emptying (logrotate's `create` and `copytruncate`) are both noticed.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import time
from contextlib import suppress
from typing import NamedTuple
from zlib import crc32

_LOCK_PAUSE = 0.001
_AT_ONCE = fcntl.LOCK_EX | fcntl.LOCK_NB
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_HEAD = 64
"""Bytes by which a file's content is known again: a record's id is among them."""

_logger = logging.getLogger("kongai")


class LogFileError(Exception):
    """A line could not be appended; the text says why and names the file.

    Args:
        text: why.
        passing: whether it makes sense to try again later.
    """

    def __init__(self, text: str, *, passing: bool) -> None:
        super().__init__(text)
        self.passing = passing


class Place(NamedTuple):
    """A place in a file's content; what is appended later is behind it."""

    inode: int
    size: int
    """The content's length then, in bytes."""
    mark: int
    """A checksum of the content's first bytes, 0 if there were few: what was emptied
    and filled again has another."""


class LogFile:
    """Appends lines to a file. The caller sees to it that threads take turns.

    From a device or a pipe nothing can be taken back: what a pipe has no room for is
    written with the next try, before anything else. Lines of several processes don't
    mix in a pipe either, but in a device they may.

    The path may be a symbolic link, and the file may have any owner.

    Args:
        path: the file. A new one is for its owner alone (0600). Its directory is made
            only if it was there before.
        reopen: open the file anew for each line.
    """

    def __init__(self, path: str, *, reopen: bool = False) -> None:
        self.path = path
        self._folder = Folder(path)
        self._each_time = reopen
        self._descriptor: int | None = None
        self._regular = self._readable = True
        self._pipe = False
        self._torn = False
        self._rest = b""
        """What a pipe has not taken of the line that was begun."""
        self._end = -1
        """Where this process wrote last; a file that ends there ends with a line."""
        self._here = (0, 0)
        """The open file's inode and device."""
        self._size = 0
        """Where the file ended when it was last looked at."""
        self._content: tuple[int, int] | None = None
        """Inode and mark of the file as it was then; None before."""

    @property
    def is_file(self) -> bool:
        """Whether it is a file or will be one: no device, no pipe."""
        return _is_regular(self.path) if self._descriptor is None else self._regular

    @property
    def place(self) -> Place:
        """Where the file ended when it was last looked at."""
        content = self._content
        if content is None:
            inode, self._size, mark = place_of(self.path)
            content = self._content = inode, mark
        # A thread that writes sets the size first. One that is too small does no harm.
        return Place(content[0], self._size, content[1])

    def append_at_once(self, line: bytes) -> bool:
        """Append a line if nothing is in its way, as it nearly always is.

        The file is open, nobody else writes to it, it is where it was, and it ends with
        the line that this process wrote last.

        The lock is needed for that, though a single write can't mix with another: from
        the look at the file until the line is there, no other process may begin a line
        and be killed within it, or cut off one for which there was no room.

        Returns:
            Whether it is there. If not, the file is as it was, and `append` does what
            is needed, or says what is wrong.
        """
        descriptor, content = self._descriptor, self._content
        if descriptor is None or not self._regular or self._each_time:
            return False
        if content is None or not content[1]:
            return False
        done = False
        try:
            fcntl.flock(descriptor, _AT_ONCE)
            try:
                found = os.stat(self.path)
                there = found.st_ino, found.st_dev
                if found.st_size == self._end and there == self._here:
                    written = os.write(descriptor, line)
                    if written != len(line):
                        self._take_back(written)
                    self._end = self._size = self._end + written
                    done = True
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        except OSError:
            # What is wrong with it `append` finds, too, and tells.
            return done
        return done

    def append(self, line: bytes, patience: float) -> None:
        """Append a line, in one write.

        Args:
            line: with its line feed.
            patience: the most seconds to wait for other writers, or for room in a pipe;
                the wait is made of short sleeps.

        Raises:
            LogFileError: the file is as it was before. A pipe may have taken a part: if
                the error is passing, the next line must be this one, or `close` come
                before it.
        """
        doing = "open"
        try:
            if self._descriptor is None or (self._each_time and not self._rest):
                self._open()
            doing = "write"
            if self._regular:
                self._append_locked(line, patience)
            else:
                self._append_plain(line, patience)
        except OSError as error:
            doing = "open" if self._descriptor is None else doing
            full = not self._regular and error.errno == errno.EAGAIN
            if not full:
                self.close()
            raise LogFileError(
                f"failed to {doing} the file: {error.strerror} ({self.path})",
                passing=full or self._may_get_better(),
            ) from None

    def close(self) -> None:
        """Close the file; a later line opens it again. Nothing is raised."""
        descriptor, self._descriptor = self._descriptor, None
        self._end = -1
        # Half of a line stays in the pipe, and the next one begins on its own.
        self._torn = self._torn or bool(self._rest)
        self._rest = b""
        if descriptor is not None:
            let_go(descriptor, self.path)

    def _open(self) -> None:
        self.close()
        flags = os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
        # A pipe that is opened for reading as well would seem to have a reader.
        self._readable = _is_regular(self.path)
        if self._readable:
            try:
                self._descriptor = self._folder.open(flags | os.O_RDWR)
            except PermissionError:
                # There are files that one may add to, but not read.
                self._readable = False
        if self._descriptor is None:
            self._descriptor = self._folder.open(flags | os.O_WRONLY)
        found = os.fstat(self._descriptor)
        mode, self._here = found.st_mode, (found.st_ino, found.st_dev)
        self._regular, self._pipe = stat.S_ISREG(mode), stat.S_ISFIFO(mode)

    def _append_locked(self, line: bytes, patience: float) -> None:
        assert self._descriptor is not None
        while True:
            self._lock(patience)
            here = os.fstat(self._descriptor)
            if is_named(self.path, here):
                break
            # It was rotated or deleted. Closing gives the lock back.
            self._open()
        try:
            size, (inode, mark) = here.st_size, self._content or (0, 0)
            if inode != here.st_ino or self._size > size:
                mark = 0
            if not mark and self._readable:
                mark = mark_of(self._descriptor)
            if size not in (0, self._end) and self._ends_within_a_line(size):
                line = b"\n" + line
            self._write(line)
            # The line is there; from here on nothing may fail.
            self._end = self._size = size + len(line)
            self._content = here.st_ino, mark
        finally:
            unlock(self._descriptor)

    def _append_plain(self, line: bytes, patience: float) -> None:
        assert self._descriptor is not None
        if not is_named(self.path, os.fstat(self._descriptor)):
            self._open()
            if self._regular:
                self._append_locked(line, patience)
                return
        until, done = time.monotonic() + patience, 0
        if self._rest:
            line = self._rest
        else:
            line = b"\n" + line if self._torn else line
            if self._pipe:
                self._lock(patience)
        try:
            while done < len(line):
                done += self._write_some(line[done:], until)
        finally:
            if done:
                self._rest = line[done:]
                self._torn = bool(self._rest)
            if self._pipe and not self._rest:
                # Else others would write amid the line.
                unlock(self._descriptor)

    def _write_some(self, data: bytes, until: float) -> int:
        """Write what a pipe or a device has room for; how many bytes that is."""
        assert self._descriptor is not None
        while True:
            try:
                written = os.write(self._descriptor, data)
            except BlockingIOError:
                if time.monotonic() >= until:
                    text = "what reads it does not keep up"
                    raise OSError(errno.EAGAIN, text) from None
                time.sleep(_LOCK_PAUSE)
            else:
                if not written:
                    raise no_space()
                return written

    def _lock(self, patience: float) -> None:
        """Take the lock; where the file system has none, go on without."""
        assert self._descriptor is not None
        try:
            _wait_for_lock(self._descriptor, patience)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise

    def _ends_within_a_line(self, size: int) -> bool:
        assert self._descriptor is not None
        if not self._readable:
            return self._torn
        # Nothing at all: it was emptied just now.
        return os.pread(self._descriptor, 1, size - 1) not in (b"\n", b"")

    def _write(self, line: bytes) -> None:
        assert self._descriptor is not None
        self._torn = False
        written = os.write(self._descriptor, line)
        if written != len(line):
            self._take_back(written)

    def _take_back(self, written: int) -> None:
        """Cut off so many bytes, of a line for which there was no room."""
        assert self._descriptor is not None
        self._torn, self._end = True, -1
        end = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        if os.fstat(self._descriptor).st_size == end:
            # Else it was emptied meanwhile, and cutting it would make it longer.
            os.ftruncate(self._descriptor, end - written)
            self._torn = False
        raise no_space()

    def _may_get_better(self) -> bool:
        """Whether a later try may find a file where there is none, or a full disk."""
        try:
            mode = os.stat(self.path).st_mode
        except OSError:
            return True
        return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


class Folder:
    """Opens a file, in a directory that may have been removed since the last time.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._was_there = False

    def open(self, flags: int, path: str | None = None) -> int:
        """Open the file, or another of the directory.

        Raises:
            OSError: it can't be opened.
        """
        path = self._path if path is None else path
        flags |= os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o600)
        except FileNotFoundError:
            if not self._was_there:
                raise
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            descriptor = os.open(path, flags, 0o600)
        self._was_there = True
        return descriptor


def no_space() -> OSError:
    """What a write that falls short means: the next one would say so."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def let_go(descriptor: int, path: str) -> None:
    """Close a file. A failure is logged and not raised: it is closed all the same."""
    try:
        os.close(descriptor)
    except OSError as error:
        _logger.error("failed to close the file: %s (%s)", error.strerror, path)


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file, without waiting.

    Returns:
        Whether it was to be had.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        fcntl.flock(descriptor, _AT_ONCE)
    except BlockingIOError:
        return False
    return True


def _wait_for_lock(descriptor: int, patience: float) -> None:
    if try_lock(descriptor):
        return
    until = time.monotonic() + patience
    while not try_lock(descriptor):
        if time.monotonic() >= until:
            raise OSError(errno.EAGAIN, "another process keeps it locked")
        time.sleep(_LOCK_PAUSE)


def unlock(descriptor: int) -> None:
    """Give a lock back; nothing happens where the file system has none."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def is_named(path: str, here: os.stat_result) -> bool:
    """Whether a path still leads to an open file."""
    try:
        there = os.stat(path)
    except OSError:
        # Whoever opens it anew will learn why.
        return False
    return (there.st_ino, there.st_dev) == (here.st_ino, here.st_dev)


def place_of(path: str) -> Place:
    """The end of a file as it is now; all zeros if there is none that can be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return _NOWHERE
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return _NOWHERE
        return Place(found.st_ino, found.st_size, mark_of(descriptor))
    except OSError:
        # A file system that is about to go; whoever writes will learn why.
        return _NOWHERE
    finally:
        let_go(descriptor, path)


_NOWHERE = Place(0, 0, 0)


def mark_of(descriptor: int) -> int:
    """A checksum of a file's first bytes; 0 while there are too few of them."""
    head = os.pread(descriptor, _HEAD, 0)
    return crc32(head) if len(head) == _HEAD else 0


def _is_regular(path: str) -> bool:
    """Whether the path leads to a file, or to nothing, where one will be made."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True

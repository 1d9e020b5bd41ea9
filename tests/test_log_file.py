from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kongai.log_file import LogFile, LogFileError, Place, place_of
from tests.live.waiting import wait_until

WRITER = """
import sys
from kongai.log_file import LogFile
log = LogFile(sys.argv[1])
for number in range(int(sys.argv[3])):
    text = str(number % 10) * (number % 50 * 100)
    line = '{"writer":%s,"n":%d,"text":"%s"}\\n' % (sys.argv[2], number, text)
    if not log.append_at_once(line.encode()):
        log.append(line.encode(), 30)
"""


@contextmanager
def writers(
    path: Path, count: int, lines: int
) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that write numbered lines; the numbers say what is missing."""
    command = [sys.executable, "-c", WRITER, str(path)]
    started = [
        subprocess.Popen([*command, str(number), str(lines)], text=True)
        for number in range(count)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def read(*paths: Path) -> list[tuple[int, int]]:
    """Writer and number of each line; every line is whole."""
    found = []
    for path in paths:
        data = path.read_bytes()
        assert not data or data.endswith(b"\n"), path
        assert b"\0" not in data, "a hole"
        for line in data.split(b"\n")[:-1]:
            record = json.loads(line)
            found.append((record["writer"], record["n"]))
    return found


def every(count: int, lines: int) -> list[tuple[int, int]]:
    return [(writer, number) for writer in range(count) for number in range(lines)]


def by_renaming(path: Path, number: int) -> None:
    path.rename(path.with_name(f"{path.name}.{number}"))


def by_copying(path: Path, number: int) -> None:
    """As logrotate's copytruncate does it; what comes in between is lost."""
    copy = path.with_name(f"{path.name}.{number}")
    shutil.copyfile(path, copy)
    os.truncate(path, 0)
    # The copy may have caught a line that was being written.
    os.truncate(copy, copy.read_bytes().rfind(b"\n") + 1)


def by_copying_under_the_lock(path: Path, number: int) -> None:
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        by_copying(path, number)


@pytest.mark.parametrize("rotate", [by_renaming, by_copying, by_copying_under_the_lock])
def test_lines_stay_whole_while_the_file_is_rotated(
    tmp_path: Path, rotate: Callable[[Path, int], None]
) -> None:
    path, rotations = tmp_path / "a.json", 0
    with writers(path, 2, 1500) as started:
        while any(process.poll() is None for process in started):
            if path.exists():
                rotate(path, rotations)
                rotations += 1
            time.sleep(0.01)
        assert [process.returncode for process in started] == [0, 0]
    found = read(*tmp_path.iterdir())
    assert rotations > 3
    assert len(found) == len(set(found))
    if rotate is not by_copying:
        assert sorted(found) == every(2, 1500)


def test_lines_of_killed_processes_are_ended(tmp_path: Path) -> None:
    """A process that is killed may leave half a line, but nothing is glued to it."""
    path = tmp_path / "a.json"
    for _ in range(2):
        with writers(path, 2, 100_000) as started:
            size = path.stat().st_size if path.exists() else 0
            wait_until(
                lambda size=size: (
                    path.exists() and path.stat().st_size > size + 100_000
                ),
                "line",
            )
            for process in started:
                process.send_signal(signal.SIGKILL)
    log = LogFile(str(path))
    log.append(b'{"writer":9,"n":9}\n', 1)
    log.close()
    torn = 0
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            json.loads(line)
        except ValueError:
            torn += 1
            assert line.count(b'{"writer"') == 1
    assert torn <= 4
    assert path.read_bytes().endswith(b'\n{"writer":9,"n":9}\n')


def test_half_a_line_of_another_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'1\n{"torn')
    log = LogFile(str(path))
    # Where it ended was known before anything was written.
    assert log.place.size == path.stat().st_size
    log.append(b"2\n", 1)
    with path.open("ab") as file:
        file.write(b'{"torn')
    log.append(b"3\n", 1)
    log.close()
    assert path.read_bytes() == b'1\n{"torn\n2\n{"torn\n3\n'


def test_a_file_that_one_may_only_add_to(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = tmp_path / "a.json"
    path.touch(0o200)
    log = LogFile(str(path))
    log.append(b"1\n", 1)
    log.append(b"2\n", 1)
    path.chmod(0o600)
    assert path.read_bytes() == b"1\n2\n"


@pytest.mark.parametrize(
    ("make", "passing"),
    [
        (lambda path: path.mkdir(), True),
        (lambda path: (path.parent / "a").touch() or path.symlink_to("a/b"), True),
        (lambda path: path.symlink_to("/dev/full"), False),
        (lambda path: os.mkfifo(path), False),
    ],
)
def test_what_may_get_better_is_told_from_what_may_not(
    tmp_path: Path, make: Callable[[Path], None], passing: bool
) -> None:
    path = tmp_path / "log"
    make(path)
    with pytest.raises(LogFileError, match="^failed to ") as caught:
        LogFile(str(path)).append(b"1\n", 0)
    assert caught.value.passing is passing


def test_a_locked_file_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    log = LogFile(str(path))
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        began = time.monotonic()
        with pytest.raises(LogFileError, match="another process keeps it locked"):
            log.append(b"1\n", 0.2)
        assert 0.2 <= time.monotonic() - began < 2
    log.append(b"2\n", 0)
    assert path.read_bytes() == b"2\n"


def test_a_place_says_behind_what_later_lines_are(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    log = LogFile(str(path))
    assert log.place == Place(0, 0, 0) == place_of(str(path))
    line = b"x" * 99 + b"\n"
    log.append(line, 1)
    log.append(line, 1)
    there = place_of(str(path))
    assert there == log.place == (path.stat().st_ino, 200, there.mark)
    assert there.mark != 0
    # Emptied and filled again it is not the same, however long it is.
    os.truncate(path, 0)
    log.append(b"y" * 299 + b"\n", 1)
    log.append(line, 1)
    later = log.place
    assert (later.inode, later.size) == (there.inode, 400)
    assert later.mark not in (0, there.mark)
    log.close()


def test_places_of_what_is_no_file(tmp_path: Path) -> None:
    assert place_of("/dev/null") == place_of(str(tmp_path)) == Place(0, 0, 0)


LINE = b"x" * 99 + b"\n"


@contextmanager
def written(path: Path, **options: Any) -> Iterator[LogFile]:
    """A file of two lines, to which one more can be appended at once."""
    log = LogFile(str(path), **options)
    log.append(LINE, 1)
    assert not log.append_at_once(LINE)
    log.append(LINE, 1)
    yield log
    log.close()


def test_most_lines_are_appended_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with written(path) as log:
        for count in (3, 4):
            assert log.append_at_once(LINE)
            assert path.read_bytes() == LINE * count
            assert log.place == place_of(str(path))
        with path.open() as other:
            # It is unlocked again.
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def torn(path: Path) -> None:
    with path.open("ab") as other:
        other.write(b"half of")


@pytest.mark.parametrize(
    "happens",
    [
        lambda path: path.unlink(),
        lambda path: path.rename(path.with_name("moved")),
        lambda path: (path.rename(path.with_name("moved")), path.touch()),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: os.truncate(path, 0),
        lambda path: os.truncate(path, 150),
        torn,
    ],
)
def test_what_has_happened_to_the_file_is_seen_at_once(
    tmp_path: Path, happens: Callable[[Path], None]
) -> None:
    path = tmp_path / "a.json"
    with written(path) as log:
        happens(path)
        before = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
        assert not log.append_at_once(LINE)
        assert {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before
        if path.is_dir() or path.is_fifo():
            with pytest.raises(LogFileError):
                log.append(LINE, 0)
        else:
            log.append(LINE, 0)
            assert (b"\n" + path.read_bytes()).endswith(b"\n" + LINE)
        # None was left locked.
        for found in before:
            with found.open() as other:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_nothing_is_appended_at_once_where_another_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with written(path) as log, path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert not log.append_at_once(LINE)
        fcntl.flock(other, fcntl.LOCK_UN)
        assert log.append_at_once(LINE)
    assert path.read_bytes() == LINE * 3


def test_a_file_that_is_opened_for_each_line_is_not_written_at_once(
    tmp_path: Path,
) -> None:
    with written(tmp_path / "a.json", reopen=True) as log:
        assert not log.append_at_once(LINE)


@pytest.mark.parametrize("room", [0, 1, 50])
def test_what_a_full_disk_takes_is_taken_back_at_once(
    tmp_path: Path, room: int
) -> None:
    path = tmp_path / "a.json"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with written(path) as log:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200 + room, hard))
        try:
            assert not log.append_at_once(LINE)
            assert path.read_bytes() == LINE * 2
            with pytest.raises(LogFileError):
                log.append(LINE, 0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        log.append(LINE, 0)
        assert path.read_bytes() == LINE * 3

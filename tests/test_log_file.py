from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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

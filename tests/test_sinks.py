from __future__ import annotations

import errno
import fcntl
import io
import json
import logging
import os
import resource
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from kongai import FileSink, LogSink, StreamSink
from kongai.sinks import MAX_WAITING, MAX_WAITING_BYTES, encode

SECRET = "c4nary-5f1d"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("caf\xe9 世 🙂", "caf\xe9 世 🙂"),
        ("a\nb\r\0\u2028", "a\nb\r\0\u2028"),
        ("\ud83d", "\ud83d"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        ([1, {"x": float("inf")}, (2.5,)], [1, {"x": "inf"}, [2.5]]),
        ({1: "a", "b": None}, {"1": "a", "b": None}),
        (datetime(2026, 1, 2), "2026-01-02 00:00:00"),
        (b"bytes", "b'bytes'"),
        ({("a", 1): "x"}, {"('a', 1)": "x"}),
        ([{"x"}], ["{'x'}"]),
        (10**30, 10**30),
    ],
)
def test_whatever_is_in_a_record_makes_one_line_of_json(
    value: Any, expected: Any
) -> None:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    line = encode({"a": 1, "b": value, "c": {"d": "e"}})
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert line.isascii()
    found = json.loads(line, parse_constant=refuse)
    assert found == {"a": 1, "b": expected, "c": {"d": "e"}}


@contextmanager
def sink(path: str | Path, **options: Any) -> Iterator[FileSink]:
    made = FileSink(path, **options)
    try:
        yield made
    finally:
        made.close()


def lines(path: Path) -> list[Any]:
    text = path.read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("reopen", [False, True])
def test_a_file_gets_one_line_a_record(tmp_path: Path, reopen: bool) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"n":-1}\n')
    with sink(path, reopen=reopen) as log:
        for number in range(3):
            log.emit({"n": number, "text": "a\nb"})
    assert [record["n"] for record in lines(path)] == [-1, 0, 1, 2]


def test_a_line_is_one_write_at_the_end_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    written: list[bytes] = []
    real_open, real_write = os.open, os.write

    def noting_open(path: str, flags: int, mode: int = 0o777) -> int:
        opened.append(flags)
        return real_open(path, flags, mode)

    def noting_write(descriptor: int, data: bytes) -> int:
        written.append(bytes(data))
        return real_write(descriptor, data)

    monkeypatch.setattr(os, "open", noting_open)
    monkeypatch.setattr(os, "write", noting_write)
    with sink(tmp_path / "a.json") as log:
        log.emit({"n": 1, "long": "x" * 1_000_000})
        log.emit({"n": 2})
    wanted = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    assert [flags & wanted for flags in opened] == [wanted]
    assert [data.count(b"\n") for data in written] == [1, 1]


@pytest.mark.parametrize("reopen", [False, True])
@pytest.mark.parametrize("how", ["rotated", "deleted", "replaced"])
def test_a_file_that_went_away_is_made_again(
    tmp_path: Path, reopen: bool, how: str
) -> None:
    path, moved = tmp_path / "a.json", tmp_path / "a.json.1"
    with sink(path, reopen=reopen) as log:
        log.emit({"n": 1})
        if how == "deleted":
            path.unlink()
        else:
            path.rename(moved)
        if how == "replaced":
            path.touch()
        log.emit({"n": 2})
        log.emit({"n": 3})
    assert lines(path) == [{"n": 2}, {"n": 3}]
    assert how == "deleted" or lines(moved) == [{"n": 1}]


def test_a_file_that_was_emptied_is_written_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with sink(path) as log:
        log.emit({"n": 1})
        os.truncate(path, 0)
        log.emit({"n": 2})
    assert lines(path) == [{"n": 2}]


def test_a_closed_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with sink(path) as log:
        log.emit({"n": 1})
        log.close()
        log.close()
        log.emit({"n": 2})
    assert lines(path) == [{"n": 1}, {"n": 2}]


def test_a_directory_that_was_never_there_is_not_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "logs" / "a.json"
    with sink(path) as log:
        log.emit({"n": 1, "key": SECRET})
        assert list(tmp_path.iterdir()) == []
        assert log.waiting == 1
        path.parent.mkdir()
        log.emit({"n": 2})
        assert log.waiting == 0
    assert [record["n"] for record in lines(path)] == [1, 2]
    [entry] = caplog.records
    assert entry.levelname == "ERROR"
    message = entry.getMessage()
    assert message.startswith("failed to open the file: No such file or directory")
    assert message.endswith("; records waiting: 1, lost: 0")
    assert SECRET not in message


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.EACCES, "Permission denied"),
        (errno.EROFS, "Read-only file system"),
        (errno.EMFILE, "Too many open files"),
    ],
)
def test_a_file_that_can_not_be_opened_is_written_later(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
    text: str,
) -> None:
    def refuse(*args: object) -> int:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "a.json"
    with sink(path) as log, monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        log.emit({"n": 1})
        patch.undo()
        log.emit({"n": 2})
    assert lines(path) == [{"n": 1}, {"n": 2}]
    assert f"failed to open the file: {text}" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_without_permission(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.json"
    path.touch(mode=0o400)
    with sink(path) as log:
        log.emit({"n": 1})
    assert path.read_text() == ""
    assert "Permission denied" in caplog.text


def test_a_directory_is_no_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with sink(tmp_path) as log:
        log.emit({"n": 1})
    assert "Is a directory" in caplog.text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_a_full_disk_costs_only_its_records(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.json"
    path.symlink_to("/dev/full")
    with sink(path) as log:
        log.emit({"n": 1})
        log.emit({"n": 2})
        assert log.failing
        assert caplog.text.count("No space left on device") == 1
        path.unlink()
        log.emit({"n": 3})
        assert not log.failing
    assert lines(path) == [{"n": 3}]
    first, last = caplog.messages
    assert first.endswith("; records waiting: 0, lost: 1")
    assert last == f"the file is written again; records late: 0, lost: 2 ({path})"


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file of this process may get longer than that, in bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_half_a_line_is_taken_back_and_written_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that fills up within a line, and has room again later."""
    path = tmp_path / "a.json"
    caplog.set_level(logging.INFO)
    with sink(path) as log:
        log.emit({"n": 1})
        with full_disk(path.stat().st_size + 10):
            log.emit({"n": 2, "text": "x" * 100})
            assert path.read_text() == '{"n":1}\n'
            log.emit({"n": 3})
            assert path.read_text() == '{"n":1}\n'
            assert log.waiting == 2
        log.emit({"n": 4})
        assert log.waiting == 0
    assert [record["n"] for record in lines(path)] == [1, 2, 3, 4]
    bad, good = caplog.messages
    assert bad.startswith("failed to write the file: No space left on device")
    assert good == f"the file is written again; records late: 2, lost: 0 ({path})"


def test_what_waits_is_written_without_another_record(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "a.json"
    with sink(path) as log:
        for number in range(3):
            log.emit({"n": number})
        assert log.failing
        (thread,) = retrying()
        path.parent.mkdir()
        thread.join(5)
        assert not thread.is_alive()
        assert [record["n"] for record in lines(path)] == [0, 1, 2]
        assert not log.failing
    assert retrying() == []


def retrying() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "kongai-file-sink"]


def test_a_directory_that_was_removed_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "some" / "logs" / "a.json"
    path.parent.mkdir(parents=True)
    with sink(path) as log:
        log.emit({"n": 1})
        shutil.rmtree(tmp_path / "some")
        log.emit({"n": 2})
        assert log.waiting == 0
        assert lines(path) == [{"n": 2}]


@pytest.mark.parametrize(
    ("size", "count", "kept"), [(10, 1010, MAX_WAITING), (1024 * 1024, 20, 15)]
)
def test_the_memory_for_what_waits_is_bounded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, size: int, count: int, kept: int
) -> None:
    path = tmp_path / "logs" / "a.json"
    with sink(path) as log:
        for number in range(count):
            log.emit({"n": number, "text": "x" * size})
        assert log.waiting == kept
        path.parent.mkdir()
        log.emit({"n": count})
    # Those that came last are lost, and the order is kept.
    found = [record["n"] for record in lines(path)]
    assert found == [*range(kept), count]
    (entry,) = (e for e in caplog.records if e.levelname == "WARNING")
    assert f"records late: {kept}, lost: {count - kept} " in entry.getMessage()


def test_what_waits_is_written_under_gevent_too(tmp_path: Path) -> None:
    script = """
from gevent import monkey; monkey.patch_all()
import os, sys, time
from kongai import FileSink
log = FileSink(sys.argv[1])
log.emit({"n": 1})
os.mkdir(os.path.dirname(sys.argv[1]))
while log.waiting:
    time.sleep(0.01)
"""
    path = tmp_path / "logs" / "a.json"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, timeout=20)
    assert lines(path) == [{"n": 1}]


def test_what_waits_at_the_end_of_a_script_is_tried_once_more(tmp_path: Path) -> None:
    script = """
import os, sys
from kongai import FileSink
log = FileSink(sys.argv[1])
log.emit({"n": 1})
os.mkdir(os.path.dirname(sys.argv[1]))
"""
    path = tmp_path / "logs" / "a.json"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, timeout=20)
    assert lines(path) == [{"n": 1}]


def test_what_can_not_be_written_at_the_end_is_counted_or_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, kept = tmp_path / "logs" / "a.json", list[bytes]()

    def keep(lines: Sequence[bytes]) -> bool:
        kept.extend(lines)
        return True

    for options in ({}, {"keep": keep}):
        with sink(path, **options) as log:
            log.emit({"n": 1})
            log.emit({"n": 2})
    assert kept == [b'{"n":1}\n', b'{"n":2}\n']
    _, lost, _, safe = caplog.messages
    assert lost.endswith("; records lost at the end: 2, kept for the next start: 0")
    assert safe.endswith("; records lost at the end: 0, kept for the next start: 2")


def test_a_line_says_when_it_is_in_the_file(tmp_path: Path) -> None:
    path, seen = tmp_path / "logs" / "a.json", list[str]()
    with sink(path) as log:
        log.append(b"1\n", lambda: seen.append(path.read_text()))
        assert seen == []
        path.parent.mkdir()
        log.append(b"2\n", lambda: seen.append(path.read_text()))
    assert seen == ["1\n", "1\n2\n"]


def test_errors_are_said_once_a_minute(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with sink(tmp_path / "logs" / "a.json") as log:
        for _ in range(5):
            log.emit({})
        assert len(caplog.records) == 1


def test_a_locked_file_holds_nobody_up_for_long(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with sink(path) as log, path.open("w") as other:
        log.emit({"n": 1})
        fcntl.flock(other, fcntl.LOCK_EX)
        began = time.monotonic()
        for number in range(2, 100):
            log.emit({"n": number})
        assert time.monotonic() - began < 5
        assert log.waiting == 98
        fcntl.flock(other, fcntl.LOCK_UN)
        log.emit({"n": 100})
    assert [record["n"] for record in lines(path)] == [*range(1, 101)]


def test_a_reopened_file_is_found_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with sink(path) as log:
        log.emit({"n": 1})
        log.reopen()
        log.emit({"n": 2})
    assert [record["n"] for record in lines(path)] == [1, 2]


def test_a_record_from_amid_a_write_is_written_after_it(tmp_path: Path) -> None:
    """As when the garbage collector ends an exchange that nobody has closed."""
    path = tmp_path / "a.json"
    with sink(path) as log:
        log.append(b"1\n", lambda: log.append(b"2\n"))
    assert path.read_text() == "1\n2\n"


def test_a_forked_process_leaves_the_records_to_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "a.json"
    with sink(path) as log:
        log.emit({"n": 1})
        child = os.fork()
        if child == 0:
            path.parent.mkdir()
            log.emit({"n": 2})
            os._exit(log.waiting)
        assert os.waitpid(child, 0)[1] == 0
        log.emit({"n": 3})
    assert [record["n"] for record in lines(path)] in ([2, 1, 3], [1, 2, 3])


def test_records_of_many_threads_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    start = threading.Barrier(40)

    def work(log: FileSink, worker: int) -> None:
        start.wait(5)
        for number in range(5):
            log.emit({"worker": worker, "n": number, "text": "x" * 5000})

    # Two sinks stand for two processes that share the file.
    with sink(path) as one, sink(path, reopen=True) as two:
        threads = [
            threading.Thread(target=work, args=((one, two)[n % 2], n))
            for n in range(40)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    found = sorted((record["worker"], record["n"]) for record in lines(path))
    assert found == [(worker, n) for worker in range(40) for n in range(5)]


def test_a_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    old = os.umask(0)
    try:
        with sink(path) as log:
            log.emit({"n": 1})
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_stream_gets_lines_and_stays_open() -> None:
    stream = io.StringIO()
    log: LogSink = StreamSink(stream)
    log.emit({"a": "é"})
    log.emit({"b": 1})
    log.close()
    assert stream.getvalue() == '{"a":"\\u00e9"}\n{"b":1}\n'
    assert not stream.closed


def test_a_pipe_that_nobody_reads_does_not_hold_up_traffic(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    sink = FileSink(path)
    sink.emit({"a": 1})
    assert "failed to" in caplog.text
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        sink.emit({"a": 2})
        assert os.read(reader, 100) == b'{"a":2}\n'
        for _ in range(100):
            sink.emit({"a": "x" * 10_000})
    finally:
        sink.close()
        os.close(reader)


@contextmanager
def pipe(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A pipe, and its end for reading."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield path, reader
    finally:
        os.close(reader)


def drain(reader: int) -> bytes:
    """What is in a pipe now."""
    found = b""
    with suppress(BlockingIOError):
        while part := os.read(reader, 65536):
            found += part
    return found


@pytest.mark.parametrize("reopen", [False, True])
def test_a_pipe_gets_all_of_it_when_its_reader_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, reopen: bool
) -> None:
    caplog.set_level(logging.INFO)
    with pipe(tmp_path) as (path, reader):
        began, found = time.monotonic(), b""
        with sink(path, reopen=reopen) as log:
            for number in range(100):
                log.emit({"n": number, "text": "x" * 10_000})
            assert time.monotonic() - began < 0.9
            assert log.failing
            assert log.waiting > 80
            while log.waiting:
                found += drain(reader)
                log.emit({"n": -1})
            found += drain(reader)
    numbers = [json.loads(line)["n"] for line in found.split(b"\n")[:-1]]
    assert numbers[:100] == list(range(100))
    assert set(numbers[100:]) == {-1}
    bad, *good = caplog.messages
    assert bad.startswith("failed to write the file: what reads it does not keep up")
    assert bad.endswith("; records waiting: 1, lost: 0")
    assert [message[:30] for message in good] == ["the file is written again; rec"]


def test_the_memory_for_what_a_pipe_does_not_take_is_bounded(tmp_path: Path) -> None:
    """Also by the very record that was begun: nothing is glued to its half."""
    with pipe(tmp_path) as (path, reader), sink(path) as log:
        log.emit({"n": 1, "text": "x" * (MAX_WAITING_BYTES + 1)})
        assert log.waiting == 0
        torn = drain(reader)
        log.emit({"n": 2})
        assert drain(reader) == b'\n{"n":2}\n'
        assert torn.startswith(b'{"n":1,')


def test_what_a_pipe_has_not_taken_is_waited_for_at_the_end(tmp_path: Path) -> None:
    found: list[bytes] = []
    with pipe(tmp_path) as (path, reader):
        log = FileSink(path)
        for number in range(20):
            log.emit({"n": number, "text": "x" * 10_000})

        def read() -> None:
            while found[-1:] != [b"end"]:
                found.append(drain(reader))
                time.sleep(0.01)

        thread = threading.Thread(target=read)
        thread.start()
        log.close()
        found.append(b"end")
        thread.join()
        data = b"".join(part for part in found if part != b"end") + drain(reader)
    numbers = [json.loads(line)["n"] for line in data.split(b"\n")[:-1]]
    assert numbers == list(range(20))


def test_lines_of_several_processes_do_not_mix_in_a_pipe(tmp_path: Path) -> None:
    with pipe(tmp_path) as (path, reader), sink(path) as one, sink(path) as two:
        for number in range(20):
            for log in (one, two):
                log.emit({"n": number, "text": "x" * 10_000})
        found = b""
        until = time.monotonic() + 20
        while one.waiting or two.waiting:
            assert time.monotonic() < until
            found += drain(reader)
            time.sleep(0.01)
        found += drain(reader)
    numbers = [json.loads(line)["n"] for line in found.split(b"\n")[:-1]]
    assert sorted(numbers) == sorted([*range(20)] * 2)


def test_nothing_is_failing_while_a_record_is_being_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with sink(path) as log, path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        thread = threading.Thread(target=log.emit, args=({"n": 1},))
        thread.start()
        while not log.waiting:
            time.sleep(0.001)
        assert not log.failing
        fcntl.flock(other, fcntl.LOCK_UN)
        thread.join()
        assert not log.failing


def test_a_file_that_can_not_be_closed_properly_is_logged_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = os.close

    def fail(descriptor: int) -> None:
        real(descriptor)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "a.json"
    log = FileSink(path)
    log.emit({"n": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", fail)
        log.reopen()
        log.emit({"n": 2})
        log.close()
    assert lines(path) == [{"n": 1}, {"n": 2}]
    told = f"failed to close the file: Input/output error ({path})"
    # The place of the file is looked at once, too.
    assert set(caplog.messages) == {told}


def test_a_record_from_amid_a_quick_write_is_written_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    first = b"x" * 99 + b"\n"
    struck: list[bytes] = []
    real = os.write

    def strike(descriptor: int, data: bytes) -> int:
        """As the garbage collector does, amid a write of this very thread."""
        if data == b"3\n" and not struck:
            struck.append(data)
            log.append(b"4\n")
            assert log.waiting == 1
        return real(descriptor, data)

    with sink(path) as log:
        log.append(first)
        log.append(b"2\n")
        monkeypatch.setattr(os, "write", strike)
        log.append(b"3\n")
        assert struck
        assert log.waiting == 0
        assert path.read_bytes() == first + b"2\n3\n4\n"

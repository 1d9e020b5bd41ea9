"""Whatever happens to the log file, traffic goes on and the records come in time."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest

from .conftest import Answer, exchange, request_body, whole
from .harness import LOG_PATH, FakeUpstream, Gateway, howto_config, wait_until


class Busy:
    """A gateway with traffic, and what its clients have got."""

    def __init__(self, gateway: Gateway, log: Path) -> None:
        self.gateway = gateway
        self.log = log
        self.answers: list[Answer] = []
        self.slowest = 0.0

    @contextmanager
    def traffic(self, clients: int = 4) -> Iterator[None]:
        """Requests all the time, on connections that are kept."""
        stopping = threading.Event()
        threads = [
            threading.Thread(target=self._ask, args=(stopping,)) for _ in range(clients)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stopping.set()
            for thread in threads:
                thread.join(20)

    def _ask(self, stopping: threading.Event) -> None:
        host = self.gateway.url.removeprefix("http://")
        connection = HTTPConnection(host, timeout=10)
        while not stopping.is_set():
            began = time.monotonic()
            path = "/anything/v1/messages"
            answer = exchange(connection, "POST", path, request_body())
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.answers.append(answer)
            # Busy, but not so busy that other tests get no time.
            stopping.wait(0.005)
        connection.close()

    def ids(self) -> list[str]:
        """The ids of the requests."""
        return sorted(answer.value("x-kong-request-id") for answer in self.answers)

    def logged(self) -> list[str]:
        """The ids in the log, and in what it was rotated to; each line is whole."""
        found = []
        for path in self.log.parent.parent.rglob("log.json*"):
            if ".wal." in path.name:
                continue
            data = path.read_bytes()
            assert not data or data.endswith(b"\n"), path
            found += [
                json.loads(line)["request"]["id"] for line in data.split(b"\n")[:-1]
            ]
        return sorted(found)


@contextmanager
def a_folder(path: Path) -> Iterator[None]:
    """A folder where there is room."""
    path.mkdir()
    yield


@contextmanager
def a_small_disk(path: Path) -> Iterator[None]:
    """A file system of its own, of one megabyte."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@contextmanager
def busy_gateway(
    made: Callable[[Path], AbstractContextManager[None]] = a_folder,
) -> Iterator[Busy]:
    """A gateway under traffic before, during and after what is done to its log.

    In the end no client has noticed anything, and the file is as it should be.
    """
    with FakeUpstream(whole) as upstream:
        url = f"{upstream.url}/v1/messages"
        gateway = Gateway(howto_config(url, f"{LOG_PATH}.d/log.json"))
        log = gateway.log_path.with_name(f"{gateway.log_path.name}.d") / "log.json"
        with ExitStack() as folder, gateway:
            folder.enter_context(made(log.parent))
            busy = Busy(gateway, log)
            with busy.traffic():
                wait_until(lambda: len(busy.answers) > 50, "answer")
                yield busy
                count = len(busy.answers)
                wait_until(lambda: len(busy.answers) > count + 50, "later answer")
            assert {answer.status for answer in busy.answers} == {200}
            assert busy.slowest < 3
            assert gateway.stop() == 0
            assert stat.S_IMODE(log.stat().st_mode) == 0o600
            assert list(log.parent.glob("*.wal.*")) == []
            assert busy.logged() == busy.ids()
            folder.close()


def by_renaming(log: Path, number: int) -> None:
    log.rename(log.with_name(f"{log.name}.{number}"))


def by_copying(log: Path, number: int) -> None:
    """As `flock LOG sh -c "cp LOG LOG.1; : > LOG"` does it."""
    with log.open("rb") as file:
        # Without the lock, as logrotate's copytruncate does it, lines get lost.
        fcntl.flock(file, fcntl.LOCK_EX)
        shutil.copyfile(log, log.with_name(f"{log.name}.{number}"))
        os.truncate(log, 0)


def test_a_log_that_is_rotated_all_the_time() -> None:
    with busy_gateway() as busy:
        for number in range(10):
            wait_until(busy.log.exists, "log")
            (by_renaming, by_copying)[number % 2](busy.log, number)
            time.sleep(0.1)


def test_a_directory_that_goes_away() -> None:
    with busy_gateway() as busy:
        for number in range(5):
            wait_until(busy.log.exists, "log")
            busy.log.parent.rename(busy.log.parent.with_name(f"away{number}"))
            time.sleep(0.05)


def test_a_disk_that_is_full_for_a_while() -> None:
    with busy_gateway() as busy:
        pid = busy.gateway.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        room = busy.log.stat().st_size + 500
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (room, hard))
        count = len(busy.answers)
        wait_until(lambda: len(busy.answers) > count + 50, "answer meanwhile")
        assert busy.log.stat().st_size <= room
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        wait_until(lambda: busy.log.stat().st_size > room, "later record")
        well = "the file is written again; records late: "
        wait_until(lambda: well in busy.gateway.stderr_text(), "word of it")
        errors = busy.gateway.stderr_text()
        assert errors.count("failed to write the file: No space left on device") == 1


def test_a_disk_of_its_own_that_is_full_for_a_while() -> None:
    with busy_gateway(a_small_disk) as busy:
        filler = busy.log.with_name("filler")
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        size = busy.log.stat().st_size
        error = "failed to write the file: No space left on device"
        wait_until(lambda: error in busy.gateway.stderr_text(), "error")
        count = len(busy.answers)
        wait_until(lambda: len(busy.answers) > count + 50, "answer meanwhile")
        filler.unlink()
        wait_until(lambda: busy.log.stat().st_size > size + 8192, "later records")


def test_a_log_that_another_process_keeps_locked() -> None:
    with busy_gateway() as busy, busy.log.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        count = len(busy.answers)
        # The first ones wait for a second.
        wait_until(lambda: len(busy.answers) > count + 50, "answer meanwhile")
        size = busy.log.stat().st_size
        fcntl.flock(file, fcntl.LOCK_UN)
        wait_until(lambda: busy.log.stat().st_size > size, "later record")


def test_a_pipe_whose_reader_pauses() -> None:
    """All that was answered is in it, each record whole; standard error is short."""
    with FakeUpstream(whole) as upstream:
        url = f"{upstream.url}/v1/messages"
        gateway = Gateway(howto_config(url, f"{LOG_PATH}.pipe"))
        log = gateway.log_path.with_name(f"{gateway.log_path.name}.pipe")
        os.mkfifo(log)
        reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
        found = b""
        with gateway:
            busy = Busy(gateway, log)
            with busy.traffic():
                # The pipe has room for some tens of them.
                wait_until(lambda: len(busy.answers) > 150, "answer")
            until = time.monotonic() + 10
            while found.count(b"\n") < len(busy.answers):
                assert time.monotonic() < until, "a record"
                found += drain(reader)
                time.sleep(0.02)
            assert gateway.stop() == 0
            assert drain(reader) == b""
            os.close(reader)
            assert {answer.status for answer in busy.answers} == {200}
            assert busy.slowest < 3
            logged = [json.loads(line) for line in found.split(b"\n")[:-1]]
            assert sorted(each["request"]["id"] for each in logged) == busy.ids()
            assert gateway.stderr_text().count("does not keep up") == 1
            assert " lost: 0" in gateway.stderr_text()


def drain(reader: int) -> bytes:
    """What is in a pipe now."""
    found = b""
    with suppress(BlockingIOError):
        while part := os.read(reader, 65536):
            found += part
    return found


def test_what_stands_beside_the_log_does_not_stop_the_gateway() -> None:
    with FakeUpstream(whole) as upstream:
        gateway = Gateway(howto_config(f"{upstream.url}/v1/messages"))
        beside = f"{gateway.log_path}.wal."
        os.mkfifo(f"{beside}1")
        os.symlink("/dev/zero", f"{beside}2")
        Path(f"{beside}3").write_bytes(b'B x {"log":[1e999,0,0]}\n')
        Path(f"{beside}4").touch()
        os.truncate(f"{beside}4", 200 * 2**30)
        with gateway:
            busy = Busy(gateway, gateway.log_path)
            with busy.traffic(clients=1):
                wait_until(lambda: len(busy.answers) > 2, "answer")
            assert gateway.stop() == 0
            left = sorted(path.name for path in gateway.directory.glob("*.wal.*"))
            assert [name.partition(".wal.")[2] for name in left] == [
                *("1", "2", "3.bad", "4.bad")
            ]
            errors = gateway.stderr_text()
            assert errors.count("not this user's journal, and left alone: ") == 2
            assert errors.count("lines of a journal that can't be read: 1") == 2

"""What an operator does to a running gateway: workers, signals, the status port."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any

import pytest

from kongai.registry import PLUGIN_GROUP
from kongai.testing import events

from .anthropic_api import message_events
from .conftest import (
    MODEL,
    PATH,
    USAGE,
    Line,
    exchange,
    request_body,
    request_headers,
    whole,
)
from .harness import SERVE, Gateway, howto_config, wait_until
from .test_serve import refused
from .trailer import processes
from .upstream import Connection, FakeUpstream, Request

EVENTS = list(message_events("one two three four", USAGE, model=MODEL))


class Slowly:
    """A handler whose streams go on when they are told to."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def __call__(self, request: Request, connection: Connection) -> None:
        if not request.json().get("stream"):
            whole(request, connection)
            return
        connection.start_stream()
        connection.chunk(EVENTS[0])
        assert self.go_on.wait(10)
        for event in EVENTS[1:]:
            connection.chunk(event)
        connection.end()


@contextmanager
def serving(*args: str, grace: str = "30") -> Iterator[tuple[Line, Slowly]]:
    """A gateway with these arguments, and streams that wait."""
    slowly = Slowly()
    with FakeUpstream(slowly) as upstream:
        config = howto_config(f"{upstream.url}/v1/messages")
        args = (*args, "--grace", grace, "--status-listen", "0")
        with Gateway(config, *args) as gateway:
            try:
                yield Line(gateway, upstream), slowly
            finally:
                slowly.go_on.set()


def start_stream(connection: HTTPConnection) -> HTTPResponse:
    """Ask for a stream and read its first event."""
    body = request_body(stream=True)
    connection.request("POST", PATH, body, dict(request_headers()))
    response = connection.getresponse()
    assert response.read1() == EVENTS[0]
    return response


def status(gateway: Gateway, path: str, method: str = "GET") -> tuple[int, Any]:
    """What the status port says."""
    wait_until(lambda: "status on" in gateway.stderr_text(), "status port")
    found = re.search(r"status on http://(\S+)", gateway.stderr_text())
    assert found
    with closing(HTTPConnection(found[1], timeout=5)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        assert response.headers["content-type"] == "application/json"
        body = response.read()
        return response.status, json.loads(body) if body else None


def workers(gateway: Gateway) -> list[int]:
    """The processes that serve, by their own account."""
    with suppress(ConnectionError):  # asked of one that was killed meanwhile
        return sorted(status(gateway, "/status")[1]["workers"])
    return []


def test_several_workers_share_the_clients() -> None:
    with serving("--workers", "3") as (line, _):
        assert len(set(workers(line.gateway))) == 3
        assert line.gateway.pid not in workers(line.gateway)
        assert {line.ask(request_body()).status for _ in range(30)} == {200}
        records = line.gateway.records(30)
        assert len({record["request"]["id"] for record in records}) == 30
        told = status(line.gateway, "/status")[1]["server"]
        assert told["total_requests"] == 30
        assert told["connections_accepted"] == 30
        assert line.gateway.stderr_text().count("listening on") == 1
        assert line.gateway.stop() == 0
        assert line.gateway.stderr_text().count("\n") == 2


def test_a_worker_that_dies_is_replaced() -> None:
    with serving("--workers", "2") as (line, _):
        # One that has hardly lived is not replaced at once.
        time.sleep(1.0)
        before = workers(line.gateway)
        os.kill(before[0], signal.SIGKILL)
        wait_until(
            lambda: set(workers(line.gateway)) - set(before),
            "new worker",
        )
        wait_until(lambda: before[1] in workers(line.gateway), "the other one")
        assert [line.ask(request_body()).status for _ in range(10)] == [200] * 10
        assert "died (signal 9)" in line.gateway.stderr_text()
        assert line.gateway.stop() == 0


def test_workers_that_have_lost_their_parent_stop() -> None:
    with serving("--workers", "2") as (line, _):
        pids = workers(line.gateway)
        os.kill(line.gateway.pid, signal.SIGKILL)
        for pid in pids:
            wait_until(lambda pid=pid: not alive(pid), f"end of {pid}")


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_stop_together_and_finish_their_streams() -> None:
    with (
        serving("--workers", "2") as (line, slowly),
        closing(line.connect()) as connection,
        ThreadPoolExecutor() as pool,
    ):
        response = start_stream(connection)
        stopping = pool.submit(line.gateway.stop)
        wait_until(lambda: refused(line.gateway), "refusal")
        assert not stopping.done()
        slowly.go_on.set()
        assert response.read() == b"".join(EVENTS[1:])
        assert stopping.result() == 0
        [record] = line.gateway.records(1)
        assert record["kongai"]["ended"] == "ok"


def test_ctrl_c_at_a_terminal_lets_streams_finish(tmp_path: Path) -> None:
    """A terminal sends SIGINT to the parent and to the workers."""
    slowly = Slowly()
    config, said = tmp_path / "kong.yml", tmp_path / "stderr.txt"
    with FakeUpstream(slowly) as upstream:
        config.write_text(
            howto_config(f"{upstream.url}/v1/messages", str(tmp_path / "log"))
        )
        with said.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, SERVE, "--port", "0", "--workers", "2", config],
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        try:
            wait_until(lambda: "listening" in said.read_text("utf-8"), "word")
            found = re.search(r"listening on http://(\S+)", said.read_text("utf-8"))
            assert found
            with closing(HTTPConnection(found[1], timeout=5)) as connection:
                response = start_stream(connection)
                os.killpg(process.pid, signal.SIGINT)
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.3)
                slowly.go_on.set()
                assert response.read() == b"".join(EVENTS[1:])
            assert process.wait(5) == 0
        finally:
            slowly.go_on.set()
            process.kill()
            process.wait()


def test_a_port_of_another_gateways_workers_is_not_shared() -> None:
    with serving("--workers", "2") as (line, _):
        port = line.gateway.url.rpartition(":")[2]
        config = howto_config(line.upstream.url)
        with pytest.raises(RuntimeError, match=f"can't listen on .* port {port}"):
            Gateway(config, "--port", port, "--workers", "2").__enter__()


def broken_in(folder: Path, phase: str) -> dict[str, str]:
    """An environment with a plugin that makes a mistake in one of its phases."""
    (folder / "broken.py").write_text(
        "from kongai import Plugin\n"
        "class Broken(Plugin):\n"
        '    name = "broken"\n'
        f"    def {phase}(self) -> None:\n"
        '        raise ValueError("sk-ant-canary")\n',
        "utf-8",
    )
    package = folder / "broken-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Name: broken\nVersion: 1.0\n", "utf-8")
    entry = f"[{PLUGIN_GROUP}]\nbroken = broken:Broken\n"
    (package / "entry_points.txt").write_text(entry, "utf-8")
    return {"PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}


@pytest.mark.parametrize("phase", ["reopen", "prepare_close", "close"])
@pytest.mark.parametrize("count", ["1", "2"])
def test_a_plugins_mistake_outside_of_requests_stops_nobody(
    tmp_path: Path, count: str, phase: str
) -> None:
    env = broken_in(tmp_path, phase)
    with FakeUpstream(whole) as upstream:
        config = howto_config(f"{upstream.url}/v1/messages")
        config += "plugins:\n- name: broken\n"
        with Gateway(config, "--workers", count, env=env) as gateway:
            line = Line(gateway, upstream)
            os.kill(gateway.pid, signal.SIGUSR1)
            os.kill(gateway.pid, signal.SIGHUP)
            wait_until(
                lambda: gateway.stderr_text().count("reloaded") == int(count), "word"
            )
            assert line.ask(request_body()).status == 200
            assert gateway.stop() == 0
            gateway.records(1)
            assert list(gateway.directory.glob("*.wal.*")) == []
            assert "ValueError at " in gateway.stderr_text()
            assert "canary" not in gateway.stderr_text()
            assert "Traceback" not in gateway.stderr_text()


@pytest.mark.parametrize("count", ["1", "2"])
def test_a_plugin_that_cannot_start_ends_the_gateway(
    tmp_path: Path, count: str
) -> None:
    config = howto_config("http://127.0.0.1:1") + "plugins:\n- name: broken\n"
    env = broken_in(tmp_path, "init_worker")
    with pytest.raises(RuntimeError, match="exited with 1") as failed:
        Gateway(config, "--workers", count, env=env).__enter__()
    assert "ValueError" in str(failed.value)
    assert "canary" not in str(failed.value)


def test_what_runs_too_long_is_told_of_the_end() -> None:
    with (
        serving(grace="0.3") as (line, _),
        closing(line.connect()) as connection,
    ):
        response = start_stream(connection)
        assert line.gateway.stop() == 0
        with pytest.raises(IncompleteRead) as cut:
            response.read()
        *_, (kind, error) = events([EVENTS[0], cut.value.partial])
        assert (kind, error["type"]) == ("error", "error")
        [record] = line.gateway.records(1)
        assert record["kongai"]["ended"] == "shutdown"


def rewrite(gateway: Gateway, old: str, new: str) -> None:
    path = gateway.directory / "kong.yml"
    path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")


@pytest.mark.parametrize("count", ["1", "2"])
def test_a_reload_serves_new_requests_by_the_new_file(count: str) -> None:
    with (
        serving("--workers", count) as (line, slowly),
        closing(line.connect()) as connection,
        closing(line.connect()) as kept,
    ):
        gateway = line.gateway
        response = start_stream(connection)
        assert exchange(kept, "POST", PATH, request_body()).status == 200
        before = status(gateway, "/status")[1]["configuration_hash"]
        rewrite(gateway, "/anything]", "/elsewhere]")
        os.kill(gateway.pid, signal.SIGHUP)
        wait_until(
            lambda: gateway.stderr_text().count("reloaded") == int(count), "word"
        )
        after = status(gateway, "/status")[1]["configuration_hash"]
        assert before != after
        # A connection that was open goes by the new file, too.
        assert exchange(kept, "POST", PATH, request_body()).status == 404
        elsewhere = PATH.replace("/anything", "/elsewhere")
        assert exchange(kept, "POST", elsewhere, request_body()).status == 200
        slowly.go_on.set()
        assert response.read() == b"".join(EVENTS[1:])
        # No route: no plugin, no record.
        ended = Counter(r["request"]["uri"] for r in gateway.records(3))
        assert ended == {PATH: 2, elsewhere: 1}
        assert gateway.stop() == 0


@pytest.mark.parametrize("count", ["1", "2"])
def test_a_file_with_a_problem_changes_nothing(count: str) -> None:
    with serving("--workers", count) as (line, _):
        gateway = line.gateway
        rewrite(gateway, "max_request_body_size", "max_request_body_sise")
        os.kill(gateway.pid, signal.SIGHUP)
        wait_until(lambda: "stays as it was" in gateway.stderr_text(), "refusal")
        said = gateway.stderr_text()
        assert re.search(r"kong\.yml:\d+: services\[0\]\.plugins\[0\]\.config", said)
        assert "reloaded" not in said
        assert line.ask(request_body()).status == 200
        (gateway.directory / "kong.yml").unlink()
        os.kill(gateway.pid, signal.SIGHUP)
        wait_until(lambda: "can't read" in gateway.stderr_text(), "refusal")
        assert line.ask(request_body()).status == 200


@pytest.mark.parametrize("by", [signal.SIGHUP, signal.SIGUSR1])
def test_logs_are_opened_anew(by: signal.Signals) -> None:
    with serving("--workers", "2") as (line, _):
        gateway = line.gateway
        assert line.ask(request_body()).status == 200
        gateway.records(1)
        gateway.log_path.rename(gateway.directory / "old.json")
        os.kill(gateway.pid, by)
        assert line.ask(request_body()).status == 200
        assert len(gateway.records(1)) == 1
        assert (gateway.directory / "old.json").read_bytes().count(b"\n") == 1


@pytest.mark.parametrize("count", ["1", "2"])
def test_a_terminal_that_closes_is_no_reload(tmp_path: Path, count: str) -> None:
    config = tmp_path / "kong.yml"
    config.write_text(howto_config("http://127.0.0.1:1", str(tmp_path / "log")))
    said = tmp_path / "stderr.txt"
    terminal, end = pty.openpty()
    with said.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, SERVE, "--port", "0", "--workers", count, config],
            stdin=end,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
    os.close(end)
    try:
        wait_until(lambda: "listening" in said.read_text("utf-8"), "word")
        os.close(terminal)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
    assert "reloaded" not in said.read_text("utf-8")


def test_many_reloads_under_traffic_lose_nothing() -> None:
    with serving() as (line, _):
        gateway, stop, answers = line.gateway, threading.Event(), Counter[int]()

        def ask() -> None:
            with closing(line.connect()) as connection:
                while not stop.is_set():
                    answer = exchange(connection, "POST", PATH, request_body())
                    answers[answer.status] += 1

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(10):
            os.kill(gateway.pid, signal.SIGHUP)
            wait_until(
                lambda number=number: gateway.stderr_text().count("reloaded") > number,
                "word of a reload",
            )
        stop.set()
        for thread in threads:
            thread.join()
        assert set(answers) == {200}
        assert len(gateway.records(answers[200])) == answers[200]
        # The sockets and files of gateways that are gone have gone with them.
        folder = f"/proc/{gateway.pid}/fd"
        if os.path.isdir(folder):
            wait_until(lambda: len(os.listdir(folder)) < 40, "closed files")
        assert gateway.stop() == 0


def test_the_status_port() -> None:
    with serving() as (line, slowly), closing(line.connect()) as connection:
        gateway = line.gateway
        assert status(gateway, "/healthz") == (200, {"message": "ok"})
        assert status(gateway, "/status/ready") == (200, {"message": "ready"})
        assert status(gateway, "/healthz", "HEAD") == (200, None)
        assert status(gateway, "/nothing") == (404, {"message": "Not found"})
        assert status(gateway, "/status", "POST")[0] == 405
        response = start_stream(connection)
        code, told = status(gateway, "/status")
        assert code == 200
        assert told["workers"] == [gateway.pid]
        assert told["server"] == {
            "connections_accepted": 1,
            "connections_active": 1,
            "connections_handled": 1,
            "connections_waiting": 0,
            "connections_writing": 1,
            "total_requests": 1,
        }
        # The gateway's own port knows nothing of it.
        with closing(line.connect()) as other:
            assert exchange(other, "GET", "/status").status == 404
        with ThreadPoolExecutor() as pool:
            stopping = pool.submit(gateway.stop)
            wait_until(lambda: status(gateway, "/status/ready")[0] == 503, "refusal")
            assert status(gateway, "/healthz")[0] == 200
            slowly.go_on.set()
            assert response.read() == b"".join(EVENTS[1:])
            assert stopping.result() == 0


def test_without_being_asked_there_is_no_status_port() -> None:
    with Gateway(howto_config("http://127.0.0.1:1")) as gateway:
        assert "status on" not in gateway.stderr_text()
        assert processes(gateway) == [gateway.pid]
        inodes = set()
        for name in os.listdir(f"/proc/{gateway.pid}/fd"):
            target = os.readlink(f"/proc/{gateway.pid}/fd/{name}")
            inodes.update(re.findall(r"socket:\[(\d+)\]", target))
        with open(f"/proc/{gateway.pid}/net/tcp", encoding="ascii") as table:
            rows = [row.split() for row in table.readlines()[1:]]
        listening = [row for row in rows if row[3] == "0A" and row[9] in inodes]
        assert len(listening) == 1

"""The gateway under gunicorn, as docs/embedding.md and examples/deploy have it.

Where gunicorn's workers differ from `kongai-serve`, docs/embedding.md says so; here is
what holds in both of those that are recommended.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any

import pytest

from .anthropic_api import message_events
from .conftest import (
    KEY,
    MODEL,
    PATH,
    USAGE,
    Line,
    assert_no_secret,
    exchange,
    request_body,
    request_headers,
    whole,
)
from .harness import Gateway, howto_config, wait_until
from .upstream import EVENT_STREAM, Connection, FakeUpstream, Request

DEPLOY = Path(__file__).resolve().parents[2] / "examples" / "deploy"
EVENTS = list(message_events("one two three four", USAGE, model=MODEL))
WORKERS = {
    "gevent": ["--worker-class", "gevent"],
    "gthread": ["--worker-class", "gthread", "--threads", "8"],
}
_LISTENING = re.compile(r"Listening at: (http://\S+)")


class Gunicorn(Gateway):
    """gunicorn with the examples' `wsgi.py` and settings, as a child process.

    Its gateway has to have a `file-log`.
    """

    def __init__(self, config: str, *args: str, workers: int = 2) -> None:
        super().__init__(config, start_timeout=20)
        self._workers = workers
        for name in ("wsgi.py", "gunicorn.conf.py"):
            shutil.copy(DEPLOY / name, self.directory)
        settings = ["-c", "gunicorn.conf.py", "--bind", "127.0.0.1:0"]
        settings += ["--workers", str(workers), *args]
        self._command = [sys.executable, "-m", "gunicorn", *settings, "wsgi"]

    def _wait_until_listening(self) -> str:
        # gunicorn listens long before its workers do anything, and one that has only
        # begun does not hear SIGTERM.
        def ready() -> bool:
            return len(self.journals()) == self._workers

        wait_until(ready, "journal of each worker", self._start_timeout)
        found = _LISTENING.search(self.stderr_text())
        assert found
        return found[1]

    def journals(self) -> list[Path]:
        """The journals of the log, one for each worker that is ready."""
        return list(self.directory.glob("*.wal.*"))

    def errors(self) -> list[str]:
        """What was logged that is not gunicorn's account of its starts and stops."""
        lines = self.stderr_text().splitlines()
        return [line for line in lines if not re.search(r"\] \[INFO\] ", line)]


@pytest.fixture(scope="module", params=list(WORKERS))
def module_line(request: pytest.FixtureRequest) -> Iterator[Line]:
    """Two workers of a class, started once."""
    with FakeUpstream(whole) as upstream:
        config = howto_config(f"{upstream.url}/v1/messages")
        with Gunicorn(config, *WORKERS[request.param]) as gateway:
            yield Line(gateway, upstream)
            for connection in upstream.connections:
                connection.stop()
            assert gateway.stop() == 0
            assert gateway.journals() == []


@pytest.fixture
def line(module_line: Line) -> Iterator[Line]:
    """The shared line, its upstream new."""
    upstream, gateway = module_line.upstream, module_line.gateway
    upstream.handler = whole
    upstream.requests.clear()
    yield module_line
    assert upstream.errors == []
    assert_no_secret(gateway)


def test_whole_answers_come_whole(line: Line) -> None:
    with closing(line.connect()) as connection:
        answers = [exchange(connection, "POST", PATH, request_body()) for _ in "123"]
    answers += [line.ask(request_body()) for _ in range(10)]
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    for answer in answers:
        record = line.record(answer)
        assert record["kongai"]["ended"] == "ok"
        assert record["ai"]["proxy"]["usage"]["completion_tokens"] == USAGE.output


def start_stream(connection: HTTPConnection, path: str = PATH) -> HTTPResponse:
    """Ask for a stream; its head has come."""
    body = request_body(stream=True)
    connection.request("POST", path, body, dict(request_headers()))
    return connection.getresponse()


def test_streams_come_event_by_event(line: Line) -> None:
    """The head before the first event, and each event before the next is there."""
    go_on = threading.Semaphore(0)

    def handler(request: Request, connection: Connection) -> None:
        connection.start_stream()
        for event in EVENTS:
            assert go_on.acquire(timeout=5)
            connection.chunk(event)
        connection.end()

    line.upstream.handler = handler
    with closing(line.connect()) as connection, start_stream(connection) as response:
        for event in EVENTS:
            go_on.release()
            assert response.read1() == event
        assert response.read() == b""
        request_id = response.headers["x-kong-request-id"]
    assert line.record(request_id)["kongai"]["ended"] == "ok"


def test_the_target_is_kept_as_it_was_written(line: Line) -> None:
    target = "/v1/files/a%2Fb%2520c;d?q=%41&r=+%2b&s"
    answer = line.ask(b"{}", f"/anything{target}")
    assert [request.target for request in line.upstream.requests] == [target]
    assert line.record(answer)["request"]["uri"] == f"/anything{target}"


def test_nobody_says_for_others_where_they_come_from(line: Line) -> None:
    """gunicorn's defaults believe this of whoever connects from the same machine."""
    line.ask(
        request_body(),
        headers=request_headers(("X-Forwarded-Proto", "https"), ("SCRIPT_NAME", "/an")),
    )
    [request] = line.upstream.requests
    assert request.values("x-forwarded-proto") == ["http"]
    assert request.target == "/v1/messages?beta=true"


def overloaded(request: Request, connection: Connection) -> None:
    headers = [("Content-Type", "application/json"), ("Retry-After", "7")]
    connection.respond(529, headers, b'{"type": "error"}')


def test_errors_are_the_gateways_and_the_upstreams(line: Line) -> None:
    nowhere = line.ask(b"{}", "/nowhere")
    assert nowhere.status == 404
    assert nowhere.json()["message"] == "no Route matched with those values"

    line.upstream.handler = overloaded
    refused = line.ask(request_body())
    assert (refused.status, refused.value("retry-after")) == (529, "7")
    assert refused.body == b'{"type": "error"}'
    assert line.record(refused)["upstream_status"] == "529"

    line.upstream.handler = lambda _, connection: connection.send(
        b"HTTP/9 what\r\n\r\n"
    )
    garbage = line.ask(request_body())
    assert garbage.status == 502
    assert garbage.json()["type"] == "error"
    assert line.record(garbage)["kongai"]["ended"] == "upstream_protocol"


def test_a_client_that_leaves_is_noticed_at_the_next_events(line: Line) -> None:
    left = threading.Event()
    noticed = threading.Event()

    def handler(request: Request, connection: Connection) -> None:
        connection.start_stream()
        connection.chunk(EVENTS[0])
        assert left.wait(5)
        while not connection.closed_by_peer(0.02):
            connection.chunk(EVENTS[1])
        noticed.set()

    line.upstream.handler = handler
    with closing(line.connect()) as connection:
        response = start_stream(connection)
        assert response.read1() == EVENTS[0]
        request_id = response.headers["x-kong-request-id"]
        response.close()
    left.set()
    assert noticed.wait(5)
    record = line.record(request_id)
    assert record["kongai"]["ended"] == "client_abort"
    assert record["ai"]["proxy"]["usage"]["prompt_tokens"] == USAGE.input


def received(line: Line, path: str) -> bytes:
    """All that comes over the wire, until the connection ends."""
    host, _, port = line.gateway.url.removeprefix("http://").partition(":")
    body = request_body(stream=True)
    lines = [f"POST {path} HTTP/1.1", "Host: gateway", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in request_headers()]
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        sock.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        data = b""
        while piece := sock.recv(65536):
            data += piece
    return data


def test_a_stream_that_breaks_off_has_no_end(line: Line) -> None:
    def handler(request: Request, connection: Connection) -> None:
        connection.start_stream()
        connection.chunk(EVENTS[0])
        connection.reset()

    line.upstream.handler = handler
    # A key in the query is what gunicorn could quote.
    data = received(line, f"{PATH}&key={KEY}")
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert EVENTS[0] in body
    assert body.endswith(b"}\n\n\r\n"), "the last chunk is not there"
    assert b'"upstream stream ended early"' in body
    found = re.search(rb"(?i)x-kong-request-id: (\w+)", head)
    assert found
    assert line.record(found[1].decode())["kongai"]["ended"] == "upstream_cut"
    assert "AnswerCut" in line.gateway.stderr_text()


def test_a_whole_answer_that_breaks_off_stays_short(line: Line) -> None:
    def handler(request: Request, connection: Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{")
        connection.close()

    line.upstream.handler = handler
    with closing(line.connect()) as connection:
        connection.request("POST", PATH, request_body(), dict(request_headers()))
        response = connection.getresponse()
        with pytest.raises(IncompleteRead) as cut:
            response.read()
    assert cut.value.partial == b"{"
    record = line.record(response.headers["x-kong-request-id"])
    assert record["kongai"]["ended"] == "upstream_cut"


# Reloads and stops


class Slowly:
    """Streams that go on when they are told to; the log server, too."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.logged: list[dict[str, Any]] = []

    def __call__(self, request: Request, connection: Connection) -> None:
        if request.target == "/records":
            self.logged += request.json()
            connection.respond(200, body=b"{}")
        elif request.json().get("stream"):
            connection.start_stream(EVENT_STREAM)
            connection.chunk(EVENTS[0])
            assert self.go_on.wait(10)
            for event in EVENTS[1:]:
                connection.chunk(event)
            connection.end()
        else:
            whole(request, connection)


@contextmanager
def slow_line(worker: str) -> Iterator[tuple[Line, Slowly, str]]:
    """gunicorn whose records also wait for a while in `http-log`; its file, too."""
    slowly = Slowly()
    with FakeUpstream(slowly) as upstream:
        # Three minutes: what is delivered before was delivered because of the end.
        config = (
            howto_config(f"{upstream.url}/v1/messages")
            + f"""\
  - name: http-log
    config:
      http_endpoint: {upstream.url}/records
      queue: {{max_batch_size: 100, max_coalescing_delay: 180}}
"""
        )
        with Gunicorn(config, *WORKERS[worker], workers=1) as gateway:
            yield Line(gateway, upstream), slowly, config


@pytest.mark.parametrize("worker", WORKERS)
def test_a_reload_and_a_stop_lose_nothing(worker: str) -> None:
    with slow_line(worker) as (line, slowly, config):
        gateway = line.gateway
        ids = [line.ask(request_body()).value("x-kong-request-id")]
        path = gateway.directory / "kong.yml"
        changed = config.replace("$LOG_PATH", str(gateway.log_path))
        with closing(line.connect()) as first, start_stream(first) as before:
            assert before.read1() == EVENTS[0]
            path.write_text(changed.replace("/anything]", "/anything, /new]"), "utf-8")
            os.kill(gateway.pid, signal.SIGHUP)
            wait_until(lambda: line.ask(b"{}", "/new/v1/files").status == 200, "reload")
            slowly.go_on.set()
            assert before.read() == b"".join(EVENTS[1:])
            ids.append(before.headers["x-kong-request-id"])
        slowly.go_on.clear()
        with (
            ThreadPoolExecutor() as pool,
            closing(line.connect()) as second,
            start_stream(second) as running,
        ):
            assert running.read1() == EVENTS[0]
            stopping = pool.submit(gateway.stop)
            assert wait([stopping], timeout=0.3).not_done
            slowly.go_on.set()
            assert running.read() == b"".join(EVENTS[1:])
            ids.append(running.headers["x-kong-request-id"])
            second.close()
            assert stopping.result() == 0
        found = [record["request"]["id"] for record in gateway.records(0)]
        assert len(found) == len(set(found))
        assert set(ids) < set(found)
        assert {record["request"]["id"] for record in slowly.logged} == set(found)
        assert gateway.journals() == []
        assert gateway.errors() == []
        assert_no_secret(gateway)

"""`kongai-serve` as a person starts, tries and stops it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path

import pytest

from kongai.testing import events

from .anthropic_api import message_events
from .conftest import (
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
from .harness import SERVE, Gateway, howto_config, wait_until
from .upstream import Connection, FakeUpstream, Request

HOWTO_LOG = Path("/tmp/claude.json")
EVENTS = list(message_events("one two three four", USAGE, model=MODEL))
NOWHERE = "http://127.0.0.1:1/v1/messages"

Handler = Callable[[Request, Connection], None]


@contextmanager
def howto_log() -> Iterator[list[str]]:
    """The how-to's log, left as it was: the lines with the ids that are put here."""
    before = HOWTO_LOG.read_bytes() if HOWTO_LOG.exists() else None
    if not os.access(HOWTO_LOG.parent if before is None else HOWTO_LOG, os.W_OK):
        pytest.skip(f"{HOWTO_LOG} is somebody else's")
    ids: list[str] = []
    try:
        yield ids
    finally:
        now = HOWTO_LOG.read_bytes() if HOWTO_LOG.exists() else b""
        ours = now[len(before or b"") :].splitlines()
        # If somebody else writes there too, it is not ours to cut.
        if ours and [json.loads(line)["request"]["id"] for line in ours] == ids:
            if before is None:
                HOWTO_LOG.unlink()
            else:
                os.truncate(HOWTO_LOG, len(before))


def howto_record(request_id: str) -> dict[str, dict[str, object]]:
    """The one record in the how-to's log that is of this request."""

    def found() -> list[dict[str, dict[str, object]]]:
        lines = HOWTO_LOG.read_bytes().splitlines() if HOWTO_LOG.exists() else []
        return [json.loads(line) for line in lines if request_id.encode() in line]

    wait_until(found, "such record", 5)
    [record] = found()
    return record


def connect(gateway: Gateway) -> HTTPConnection:
    """A client's connection, not opened yet."""
    return HTTPConnection(gateway.url.removeprefix("http://"), timeout=5)


@contextmanager
def serving(handler: Handler) -> Iterator[Line]:
    """A gateway of its own, which the test stops."""
    with (
        FakeUpstream(handler) as upstream,
        Gateway(howto_config(f"{upstream.url}/v1/messages")) as gateway,
    ):
        yield Line(gateway, upstream)


def test_without_arguments_it_is_the_howtos_gateway() -> None:
    with howto_log() as ids, Gateway() as gateway:
        with closing(connect(gateway)) as connection:
            answer = exchange(connection, "HEAD", "/anything")
        assert answer.status == 200
        ids.append(answer.value("x-kong-request-id"))
        record = howto_record(ids[0])
        assert record["request"]["uri"] == "/anything"
        assert record["service"]["host"] == "httpbin.konghq.com"
        assert gateway.stop() == 0
        assert gateway.stderr_text().count("\n") == 1
        assert (gateway.directory / "stdout.txt").read_bytes() == b""


def test_the_demo_answers_without_key_or_network() -> None:
    kind = [("content-type", "application/json")]
    hello = [{"role": "user", "content": "Hello, Grüezi!"}]
    base = "/anything/v1"
    with howto_log() as ids, Gateway(None, "--demo") as gateway:
        with closing(connect(gateway)) as connection:
            asked = request_body(messages=hello)
            answer = exchange(connection, "POST", f"{base}/messages", asked, kind)
            assert answer.status == 200
            assert answer.json()["content"] == [
                {"type": "text", "text": "Hello, Grüezi!"}
            ]
            ids.append(answer.value("x-kong-request-id"))

            asked = request_body(messages=hello, stream=True)
            answer = exchange(connection, "POST", f"{base}/messages", asked, kind)
            said = events([answer.body])
            assert said[0][0] == "message_start"
            assert said[-1][0] == "message_stop"
            pieces = [
                data["delta"]["text"]
                for name, data in said
                if name == "content_block_delta"
            ]
            assert "".join(pieces) == "Hello, Grüezi!"
            ids.append(answer.value("x-kong-request-id"))

            path = f"{base}/messages/count_tokens"
            answer = exchange(connection, "POST", path, asked, kind)
            assert answer.json()["input_tokens"] > 0
            ids.append(answer.value("x-kong-request-id"))

            answer = exchange(connection, "GET", f"{base}/models?limit=1000")
            assert answer.json()["data"][0]["type"] == "model"
            ids.append(answer.value("x-kong-request-id"))
        for request_id in ids:
            howto_record(request_id)
        assert gateway.stop() == 0


@pytest.mark.parametrize("demo", [False, True])
def test_at_a_terminal_it_says_how_to_use_it(tmp_path: Path, demo: bool) -> None:
    log = tmp_path / "exchanges.json"
    config = tmp_path / "kong.yml"
    config.write_text(howto_config(NOWHERE, str(log)))
    what = ["--demo"] if demo else [str(config)]
    terminal, end = pty.openpty()
    with open(tmp_path / "stderr.txt", "wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, str(SERVE), "--port", "0", *what],
            stdin=subprocess.DEVNULL,
            stdout=end,
            stderr=stderr,
        )
    os.close(end)
    try:
        shown = b""
        while b"Ctrl-C stops it." not in shown:
            shown += os.read(terminal, 1024)  # fails when the process ends
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 0
    finally:
        os.close(terminal)
        process.kill()
        process.wait()
    text = shown.decode()
    found = re.search(r"listens on (http://127\.0\.0\.1:\d+)\r\n", text)
    assert found, text
    base = f"{found[1]}/anything"
    assert f"  ANTHROPIC_BASE_URL={base} claude\r\n" in text
    assert f"in {HOWTO_LOG if demo else log}\r\n" in text
    assert (f"curl {base}/v1/messages " in text) is demo


def test_it_is_patched_before_anything_that_minds() -> None:
    """gevent warns when it patches what others have taken before."""
    errors = {"PYTHONWARNINGS": "error::RuntimeWarning"}  # MonkeyPatchWarning is one
    with Gateway(howto_config(NOWHERE), env=errors) as gateway:
        with closing(connect(gateway)) as connection:
            assert exchange(connection, "POST", PATH, request_body()).status == 502
        assert gateway.stop() == 0
        assert gateway.stderr_text().count("\n") == 1


signals = pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])


@signals
def test_a_signal_ends_it_well(by: signal.Signals) -> None:
    """Connections that wait for nothing do not hold it up."""
    with serving(whole) as line, closing(line.connect()) as idle:
        assert exchange(idle, "POST", PATH, request_body()).status == 200
        host, _, port = line.gateway.url.removeprefix("http://").partition(":")
        with (
            socket.create_connection((host, int(port)), timeout=5) as silent,
            socket.create_connection((host, int(port)), timeout=5) as slow,
        ):
            slow.sendall(b"POST /anything/v1/messages HTT")
            start = time.monotonic()
            assert line.gateway.stop(by=by) == 0
            assert time.monotonic() - start < 2
            assert [s.recv(1) for s in (idle.sock, silent, slow)] == [b""] * 3
        assert [r["kongai"]["ended"] for r in line.gateway.records(0)] == ["ok"]
        assert line.gateway.stderr_text().count("\n") == 1


def refused(gateway: Gateway) -> bool:
    """Whether the gateway takes no new connections."""
    try:
        with closing(connect(gateway)) as connection:
            connection.connect()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        # It was waiting to be accepted when the listener closed: the next one tells.
        return False
    return False


@signals
def test_a_running_stream_is_finished_first(by: signal.Signals) -> None:
    go_on = threading.Event()

    def handler(request: Request, connection: Connection) -> None:
        connection.start_stream()
        connection.chunk(EVENTS[0])
        assert go_on.wait(5)
        for event in EVENTS[1:]:
            connection.chunk(event)
        connection.end()

    with (
        serving(handler) as line,
        closing(line.connect()) as idle,
        closing(line.connect()) as connection,
        ThreadPoolExecutor() as pool,
    ):
        exchange(idle, "GET", "/anything")
        connection.request("POST", PATH, request_body(), dict(request_headers()))
        with connection.getresponse() as response:
            assert response.read1() == EVENTS[0]
            stopping = pool.submit(line.gateway.stop, by=by)
            assert idle.sock.recv(1) == b""
            wait_until(lambda: refused(line.gateway), "refusal")
            assert not stopping.done()
            go_on.set()
            assert response.read() == b"".join(EVENTS[1:])
        assert stopping.result() == 0
        last = line.gateway.records(2)[-1]
        assert last["kongai"]["ended"] == "ok"
        assert last["ai"]["proxy"]["usage"]["completion_tokens"] == USAGE.output


def test_an_answer_that_comes_while_it_stops_is_the_connections_last() -> None:
    go_on = threading.Event()

    def handler(request: Request, connection: Connection) -> None:
        assert go_on.wait(5)
        whole(request, connection)

    with (
        serving(handler) as line,
        closing(line.connect()) as connection,
        ThreadPoolExecutor() as pool,
    ):
        connection.request("POST", PATH, request_body(), dict(request_headers()))
        line.upstream.wait_for_requests(1)
        stopping = pool.submit(line.gateway.stop)
        wait_until(lambda: refused(line.gateway), "refusal")
        go_on.set()
        with connection.getresponse() as response:
            assert response.status == 200
            assert response.headers["connection"] == "close"
            assert response.read()
        assert stopping.result() == 0


def silent_after(*said: bytes) -> Handler:
    """A handler that sends this and then waits for the gateway to leave."""

    def handler(request: Request, connection: Connection) -> None:
        for data in said:
            connection.send(data)
        assert connection.closed_by_peer(5)

    return handler


@contextmanager
def hurried(
    line: Line, first: signal.Signals, second: signal.Signals
) -> Iterator[None]:
    """Stop the gateway with two signals; it must be gone soon after the second."""
    with ThreadPoolExecutor() as pool:
        stopping = pool.submit(line.gateway.stop, by=first)
        wait_until(lambda: refused(line.gateway), "refusal")
        assert not stopping.done()
        start = time.monotonic()
        os.kill(line.gateway.pid, second)
        yield
        assert stopping.result() == 0
        assert time.monotonic() - start < 2
    assert line.gateway.stderr_text().count("\n") == 1
    assert_no_secret(line.gateway)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@signals
def test_a_second_signal_breaks_a_stream_off(by: signal.Signals) -> None:
    """The client is told, in its own format, and gets no end that looks like one."""
    with (
        serving(silent_after(HEAD + EVENTS[0])) as line,
        closing(line.connect()) as connection,
    ):
        connection.request("POST", PATH, request_body(), dict(request_headers()))
        with (
            connection.getresponse() as response,
            hurried(line, signal.SIGTERM, by),
            pytest.raises(IncompleteRead) as cut,
        ):
            response.read()
        assert cut.value.partial.startswith(EVENTS[0])
        *_, (kind, error) = events([cut.value.partial])
        assert (kind, error["type"]) == ("error", "error")
        [record] = line.gateway.records(1)
        assert record["kongai"]["ended"] == "shutdown"
        assert record["ai"]["proxy"]["usage"]["prompt_tokens"] == USAGE.input


def test_a_second_signal_breaks_off_a_request_without_an_answer() -> None:
    with (
        serving(silent_after()) as line,
        closing(line.connect()) as connection,
    ):
        connection.request("POST", PATH, request_body(), dict(request_headers()))
        line.upstream.wait_for_requests(1)
        with (
            hurried(line, signal.SIGINT, signal.SIGINT),
            connection.getresponse() as response,
        ):
            assert response.status == 503
            assert json.loads(response.read())["type"] == "error"
        [record] = line.gateway.records(1)
        assert record["kongai"]["ended"] == "shutdown"


def test_a_second_signal_breaks_off_an_upload() -> None:
    with serving(whole) as line, closing(line.connect()) as connection:
        connection.putrequest("POST", PATH)
        connection.putheader("content-length", "1000")
        connection.endheaders(b"{")
        # Nothing outside shows that the request has begun but that another one has.
        assert line.ask(request_body()).status == 200
        with (
            hurried(line, signal.SIGTERM, signal.SIGTERM),
            connection.getresponse() as response,
        ):
            assert response.status == 503
        ends = [record["kongai"]["ended"] for record in line.gateway.records(2)]
        assert ends == ["ok", "shutdown"]


def test_a_second_signal_breaks_off_an_answer_that_nobody_reads() -> None:
    def handler(request: Request, connection: Connection) -> None:
        connection.send(HEAD + EVENTS[0])
        while True:  # until the gateway, and then the socket, refuses more
            connection.send(EVENTS[3] * 1000)

    with serving(handler) as line, closing(line.connect()) as connection:
        connection.request("POST", PATH, request_body(), dict(request_headers()))
        with connection.getresponse() as response:
            response.read1()
            with hurried(line, signal.SIGTERM, signal.SIGTERM):
                pass
        [record] = line.gateway.records(1)
        assert record["kongai"]["ended"] == "shutdown"


def test_a_port_is_served_once() -> None:
    config = howto_config(NOWHERE)
    with Gateway(config) as gateway:
        port = gateway.url.rpartition(":")[2]
        text = rf"exited with 1\)[^$]*can't listen on 127\.0\.0\.1 port {port}: Address"
        with pytest.raises(RuntimeError, match=text):
            Gateway(config, "--port", port).__enter__()
        with closing(connect(gateway)) as connection:
            assert exchange(connection, "GET", "/anything").status == 200


def test_it_answers_soon_after_its_start() -> None:
    """On a machine that is not busy it takes less than a second."""
    taken: list[float] = []
    while len(taken) < 3 and (not taken or taken[-1] > 1):
        start = time.monotonic()
        with Gateway(howto_config(NOWHERE)) as gateway:
            with closing(connect(gateway)) as connection:
                assert exchange(connection, "GET", "/anything").status == 200
            taken.append(time.monotonic() - start)
    assert min(taken) < 2, taken

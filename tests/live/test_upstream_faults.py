"""What becomes of everything an upstream can do wrong: one table, on real sockets.

Each row is tried with an answer that is streamed and with one in one piece, over plain
HTTP and over TLS; what has to hold after each of them is in `trailer`.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse

import pytest

from .anthropic_api import message, message_events
from .conftest import (
    KEY,
    MODEL,
    TEXT,
    USAGE,
    Answer,
    Line,
    request_body,
    request_headers,
    whole,
)
from .harness import LOG_PATH, Gateway
from .ports import black_hole, closed_port
from .tls_front import CERTIFICATES, Front, reset
from .trailer import trailer
from .upstream import JSON, Connection, FakeUpstream, Request

EVENTS = list(message_events(TEXT, USAGE, model=MODEL))
STREAM = b"".join(EVENTS)
WHOLE = json.dumps(message(TEXT, USAGE, model=MODEL)).encode()
OK = b"HTTP/1.1 200 OK\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
# Longer than any name can be, so that no name server is asked.
STATUS = ("--status-listen", "0")
NO_NAME = ".".join(["a" * 60] * 5)

TEXTS = {
    502: ("api_error", "An invalid response was received from the upstream server"),
    503: ("api_error", "name resolution failed"),
    504: ("timeout_error", "The upstream server is timing out"),
}


class Ask:
    """One exchange: what the upstream is told, and what a client gets to see."""

    def __init__(self, connection: Connection, *, streamed: bool) -> None:
        self.connection = connection
        self.streamed = streamed
        self.read = threading.Event()
        """Set once the client has read the first piece of the answer."""

    @property
    def kind(self) -> bytes:
        return b"text/event-stream" if self.streamed else b"application/json"

    @property
    def body(self) -> bytes:
        return STREAM if self.streamed else WHOLE

    @property
    def begun(self) -> bytes:
        """The beginning of the body."""
        return b"".join(EVENTS[:3]) if self.streamed else WHOLE[:60]

    def head(self, *more: bytes) -> None:
        fields = [b"Content-Type: " + self.kind, *more]
        self.connection.send(OK + b"".join(f + b"\r\n" for f in fields) + b"\r\n")

    def start(self) -> None:
        """A head, and the beginning of a body, which the client has read."""
        self.head(b"Transfer-Encoding: chunked")
        self.connection.chunk(self.begun)
        assert self.read.wait(5)

    def answer(self) -> None:
        """A good answer."""
        size = b"Content-Length: %d" % len(self.body)
        self.head(size)
        self.connection.send(self.body)


Script = Callable[[Ask], None]


@dataclass(frozen=True)
class Fault:
    """A row of the table."""

    name: str
    script: Script | None
    """What the upstream does; None if it is not asked."""
    status: int
    ended: str
    stream_ended: str = ""
    """The word if the answer is streamed, if it is another."""
    service: str = ""
    """Which service is asked, if it is neither of the usual ones."""
    cut: bool = False
    """Whether the answer breaks off after its status."""
    streamed: tuple[bool, ...] = (True, False)
    schemes: tuple[str, ...] = ("http", "https")


def raw(*pieces: bytes, close: bool = True) -> Script:
    def script(ask: Ask) -> None:
        for piece in pieces:
            ask.connection.send(piece)
        if close:
            ask.connection.close()

    return script


def hang(ask: Ask) -> None:
    assert ask.connection.closed_by_peer(5)


def then(*steps: Callable[[Ask], None]) -> Script:
    def script(ask: Ask) -> None:
        for step in steps:
            step(ask)

    return script


def cut(ask: Ask) -> None:
    ask.connection.close()


def break_off(ask: Ask) -> None:
    ask.connection.reset()


def half_a_head(ask: Ask) -> None:
    ask.connection.send(OK + b"Content-Ty")


def hinted(*, joined: bool) -> Script:
    def script(ask: Ask) -> None:
        size = b"Content-Length: %d\r\n\r\n" % len(ask.body)
        answer = OK + b"Content-Type: " + ask.kind + b"\r\n" + size + ask.body
        if joined:
            ask.connection.send(HINTS + answer)
        else:
            ask.connection.send(HINTS)
            ask.connection.sleep(0.01)
            ask.connection.send(answer)

    return script


def by_length(ask: Ask) -> None:
    ask.head(b"Content-Length: 99999")
    ask.connection.send(ask.begun)
    assert ask.read.wait(5)


def half_a_chunk(ask: Ask) -> None:
    ask.head(b"Transfer-Encoding: chunked")
    ask.connection.send(b"ffff\r\n" + ask.begun)
    assert ask.read.wait(5)


def bad_size(ask: Ask) -> None:
    ask.start()
    ask.connection.send(b"xyz\r\n" + ask.body)


def zipped(*, ended: bool) -> Script:
    def script(ask: Ask) -> None:
        ask.head(b"Content-Encoding: gzip", b"Transfer-Encoding: chunked")
        coder = zlib.compressobj(wbits=31)
        packed = coder.compress(ask.body) + coder.flush(zlib.Z_SYNC_FLUSH)
        ask.connection.chunk(packed + (coder.flush() if ended else b""))
        ask.connection.end()

    return script


def unfinished(ask: Ask) -> None:
    """Ends well, and has not said all."""
    ask.start()
    ask.connection.end()


def until_closed(ask: Ask) -> None:
    """Ends by closing, so that only what was said tells that it is not all."""
    ask.head()
    ask.connection.send(ask.begun)
    ask.connection.close()


def said(*pieces: bytes) -> Script:
    """A stream that says this before its last event."""

    def script(ask: Ask) -> None:
        ask.head(b"Transfer-Encoding: chunked")
        for piece in (*EVENTS[:2], *pieces, *EVENTS[2:]):
            ask.connection.chunk(piece)
        ask.connection.end()

    return script


def refusal(status: int) -> Script:
    def script(ask: Ask) -> None:
        body = json.dumps({"type": "error", "error": {"message": KEY}}).encode()
        ask.connection.respond(status, [*JSON, ("retry-after", "7")], body)

    return script


def fields(*lines: bytes) -> Script:
    def script(ask: Ask) -> None:
        ask.head(b"Content-Length: %d" % len(ask.body), *lines)
        ask.connection.send(ask.body)

    return script


def before(name: str, service: str, status: int, ended: str, scheme: str) -> Fault:
    """A fault of the way to the upstream."""
    return Fault(name, None, status, ended, service=service, schemes=(scheme,))


PROTOCOL = (502, "upstream_protocol")
CUT = (200, "upstream_cut")
FAULTS = [
    *(
        before(name, f"{service}-{scheme}", status, ended, scheme)
        for scheme in ("http", "https")
        for name, service, status, ended in (
            ("nobody listens", "closed", 502, "connect"),
            ("nobody accepts", "black-hole", 504, "connect_timeout"),
            ("no such name", "no-name", 503, "dns"),
        )
    ),
    # Whoever is quick enough has already begun to send.
    before(
        "reset as it connects",
        "resets-http",
        *(502, "connect or upstream_protocol"),
        scheme="http",
    ),
    before("reset as it connects", "resets-https", 502, "connect or tls", "https"),
    before("closed in the handshake", "closes", 502, "tls", "https"),
    before("no TLS there", "plain", 502, "tls", "https"),
    before("a handshake that hangs", "hangs", 504, "connect_timeout", "https"),
    before("unknown authority", "unknown-authority", 502, "tls", "https"),
    before("certificate of another", "wrong-name", 502, "tls", "https"),
    before("expired certificate", "expired", 502, "tls", "https"),
    Fault("silence", hang, 504, "first_byte_timeout"),
    Fault("half a head", then(half_a_head, hang), 504, "first_byte_timeout"),
    Fault("hints only", then(raw(HINTS, close=False), hang), 504, "first_byte_timeout"),
    Fault("reset before the head", break_off, *PROTOCOL),
    Fault("closed before the head", cut, *PROTOCOL),
    Fault("closed within the head", then(half_a_head, cut), *PROTOCOL),
    Fault(
        "garbage", raw(b"\x15\x03\x01\0\x02\x02F\r\n\r\n"), *PROTOCOL, schemes=("http",)
    ),
    Fault(
        "another protocol",
        raw(b"SSH-2.0-OpenSSH\r\n\r\n"),
        *PROTOCOL,
        schemes=("http",),
    ),
    Fault("hints without end", raw(HINTS * 20), *PROTOCOL),
    Fault("101", raw(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"), *PROTOCOL),
    Fault(
        "200 fields",
        raw(OK + b"X: 1\r\n" * 200 + b"\r\n"),
        *PROTOCOL,
        schemes=("http",),
    ),
    Fault(
        "a line of 70 KB",
        raw(OK + b"X: %070000d\r\n\r\n" % 1),
        *PROTOCOL,
        schemes=("http",),
    ),
    Fault("a head of 70 KB", raw(OK + b"X: %07000d\r\n" % 1 * 10 + b"\r\n"), *PROTOCOL),
    Fault("a folded field", fields(b"X: 1", b" 2"), *PROTOCOL, schemes=("http",)),
    Fault("NUL in a field", fields(b"X: a\0b"), *PROTOCOL, schemes=("http",)),
    Fault("two lengths", fields(b"Content-Length: 1"), *PROTOCOL, schemes=("http",)),
    Fault("a control character", fields(b"X-Odd: a\x07b"), 200, "ok"),
    Fault("hop by hop", fields(b"Connection: X-Odd", b"X-Odd: 1"), 200, "ok"),
    Fault("hints, then the answer", hinted(joined=False), 200, "ok"),
    Fault("hints and the answer", hinted(joined=True), 200, "ok"),
    *(
        Fault(f"{status}", refusal(status), status, "ok", schemes=("http",))
        for status in (400, 401, 403, 404, 429, 500, 529)
    ),
    Fault("204", raw(b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n"), 204, "ok"),
    Fault("304", raw(b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n"), 304, "ok"),
    Fault("reset within chunks", then(Ask.start, break_off), *CUT, cut=True),
    Fault("cut within chunks", then(Ask.start, cut), *CUT, cut=True),
    Fault("reset within a length", then(by_length, break_off), *CUT, cut=True),
    Fault("cut within a length", then(by_length, cut), *CUT, cut=True),
    Fault("cut within a chunk", then(half_a_chunk, cut), *CUT, cut=True),
    Fault("a chunk of no size", bad_size, *CUT, cut=True),
    Fault("gzip", zipped(ended=True), 200, "ok"),
    Fault("half a gzip", zipped(ended=False), *CUT, cut=True),
    Fault(
        "silence within a body",
        then(Ask.start, hang),
        *(200, "stream_idle_timeout"),
        cut=True,
    ),
    Fault(
        "the end too early",
        unfinished,
        *(200, "no_terminal_event"),
        cut=True,
        streamed=(True,),
    ),
    Fault(
        "closed too early",
        until_closed,
        *CUT,
        cut=True,
        stream_ended="no_terminal_event",
    ),
    *(
        Fault(name, said(piece), 200, "ok", streamed=(True,))
        for name, piece in (
            ("no UTF-8", b"event: ping\ndata: \xff\xfe\xc3\n\n"),
            ("no JSON", b"event: content_block_delta\ndata: {\x00[]]\n\n"),
            ("no events", b"\0\1\2: : :\n\ndata\n\n\xff\n\n"),
        )
    ),
    # One takes a second, so one has to do.
    Fault(
        "an event of 17 MB",
        said(b"data: " + b"x" * 17_000_000 + b"\n\n"),
        *(200, "ok"),
        streamed=(True,),
        schemes=("http",),
    ),
]
CASES = [
    pytest.param(
        fault,
        scheme,
        streamed,
        id=f"{fault.name}-{scheme}-{'sse' * streamed or 'json'}",
    )
    for fault in FAULTS
    for scheme in fault.schemes
    for streamed in fault.streamed
]


class Seen:
    """What the client got."""

    def __init__(self, answer: Answer, *, complete: bool) -> None:
        self.answer = answer
        self.complete = complete


class Lab:
    """The gateway, with a service for each way to an upstream."""

    def __init__(self, stack: ExitStack) -> None:
        self.upstream = stack.enter_context(FakeUpstream(whole))
        plain, tls = f"http://127.0.0.1:{self.upstream.port}", "https://localhost:"
        fronts = {
            "https": Front(self.upstream.port),
            "resets-https": Front(0, instead=reset),
            "closes": Front(0, instead=socket.socket.close),
            "hangs": Front(0, instead=_hang),
            "plain": Front(0, instead=_speak_plainly),
            "unknown-authority": Front(self.upstream.port),
            "expired": Front(self.upstream.port, "expired.pem"),
        }
        closed, hole = stack.enter_context(closed_port()), black_hole()
        nowhere = stack.enter_context(hole)
        resets = stack.enter_context(Front(0, instead=reset))
        urls = {"http": plain, "resets-http": f"http://127.0.0.1:{resets.port}"}
        for name, front in fronts.items():
            urls[name] = f"{tls}{stack.enter_context(front).port}"
        urls["wrong-name"] = urls["https"].replace("localhost", "127.0.0.1")
        for scheme in ("http", "https"):
            urls[f"closed-{scheme}"] = f"{scheme}://127.0.0.1:{closed}"
            urls[f"black-hole-{scheme}"] = f"{scheme}://127.0.0.1:{nowhere}"
            urls[f"no-name-{scheme}"] = f"{scheme}://{NO_NAME}"
        self.gateway = stack.enter_context(Gateway(_config(urls), *STATUS))
        self.line = Line(self.gateway, self.upstream)

    def next_request(self) -> Sequence[Answer]:
        self.upstream.handler = whole
        return [
            self.line.ask(request_body(), f"/{scheme}/v1/messages")
            for scheme in ("http", "https")
        ]

    def see(self, fault: Fault, service: str, *, streamed: bool) -> Seen:
        """Ask as a client does that reads what has come, as long as something comes."""
        asks: list[Ask] = []
        read = threading.Event()

        def handler(request: Request, connection: Connection) -> None:
            assert fault.script is not None
            asks.append(Ask(connection, streamed=streamed))
            asks[-1].read = read
            fault.script(asks[-1])

        self.upstream.handler = handler
        body = request_body(stream=streamed)
        host, _, port = self.gateway.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=5) as sock:
            lines = [f"POST /{service}/v1/messages HTTP/1.1", "host: gateway"]
            lines += [f"{name}: {value}" for name, value in request_headers()]
            lines += [f"content-length: {len(body)}", "", ""]
            sock.sendall("\r\n".join(lines).encode() + body)
            with closing(HTTPResponse(sock, method="POST")) as response:
                response.begin()
                received, complete = b"", True
                try:
                    while piece := response.read1(1_000_000):
                        received += piece
                        read.set()
                    complete = not response.length
                except (HTTPException, OSError):
                    complete = False
                head = response.getheaders()
        assert len(asks) == (fault.script is not None)
        answer = Answer(response.status, response.reason, head, received)
        return Seen(answer, complete=complete)


def _hang(sock: socket.socket) -> None:
    with sock:
        sock.settimeout(5)
        while sock.recv(65536):
            pass


def _speak_plainly(sock: socket.socket) -> None:
    with sock:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def _config(urls: dict[str, str]) -> str:
    authorities = {
        f"00000000-0000-4000-8000-00000000000{number}": CERTIFICATES / name
        for number, name in enumerate(("authority.pem", "expired.pem"))
    }
    good, old = authorities
    services = []
    for name, url in urls.items():
        service = {
            "name": name,
            "url": "http://127.0.0.1:1/",
            "retries": 0,
            "connect_timeout": 400,
            "read_timeout": 450,
            "routes": [{"name": name, "paths": [f"/{name}"]}],
            "plugins": [
                {
                    "name": "ai-proxy",
                    "config": {
                        "route_type": "llm/v1/chat",
                        "llm_format": "anthropic",
                        "logging": {"log_statistics": True},
                        "model": {
                            "provider": "anthropic",
                            "options": {
                                "anthropic_version": "2023-06-01",
                                "upstream_url": f"{url}/v1/messages",
                            },
                        },
                    },
                }
            ],
        }
        if url.startswith("https") and name != "unknown-authority":
            service["url"] = "https://127.0.0.1:1/"
            service["ca_certificates"] = [old if name == "expired" else good]
        services.append(service)
    certificate = re.compile("-----BEGIN CERT.*?-----END CERT[^\n]*\n", re.DOTALL)
    return json.dumps(
        {
            "_format_version": "3.0",
            "ca_certificates": [
                {"id": name, "cert": certificate.findall(path.read_text("ascii"))[0]}
                for name, path in authorities.items()
            ],
            "services": services,
            "plugins": [{"name": "file-log", "config": {"path": LOG_PATH}}],
        }
    )


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with ExitStack() as stack:
        made = Lab(stack)
        yield made
        assert made.gateway.stop() == 0
        assert made.upstream.errors == []


@pytest.mark.parametrize(("fault", "scheme", "streamed"), CASES)
def test_what_an_upstream_does_wrong(
    lab: Lab, fault: Fault, scheme: str, streamed: bool
) -> None:
    with trailer(lab.gateway, lab.next_request) as after:
        before = len(lab.upstream.requests)
        seen = lab.see(fault, fault.service or scheme, streamed=streamed)
        after.expects(seen.answer, None)
        asked = len(lab.upstream.requests) - before
    assert asked == (fault.script is not None)
    answer, ours = seen.answer, fault.status > 500 and fault.ended != "ok"
    assert answer.status == fault.status
    assert seen.complete is not fault.cut
    record = after.record(answer)
    ended = streamed and fault.stream_ended or fault.ended
    assert record["kongai"]["ended"] in ended.split(" or ")
    assert record["source"] == ("kong" if ours else "upstream")
    # As nginx has it: a failure to reach the upstream counts as its status.
    assert record["upstream_status"] == (
        "" if fault.status == 503 else str(fault.status)
    )
    if ours:
        kind, text = TEXTS[fault.status]
        assert answer.json() == {
            "type": "error",
            "error": {"type": kind, "message": text},
            "request_id": answer.value("x-kong-request-id"),
        }
    elif fault.ended == "ok" and fault.status >= 400:
        assert answer.json()["error"]["message"] == KEY
        assert answer.value("retry-after") == "7"

"""Credentials in every place where they may stand, and none in what the gateway writes.

Each place has a canary of its own, so that a failure names the place. What is searched:
standard output and error at the level debug, the log, the records that `http-log` sent,
the answers that are the gateway's own, and the process's title.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from kongai.registry import PLUGIN_GROUP

from .anthropic_api import Usage, message, message_events
from .conftest import MODEL
from .harness import LOG_PATH, Gateway, wait_until
from .openai_api import Tokens, completion
from .upstream import JSON, Connection, FakeUpstream, Request


def canary(place: str) -> str:
    """A credential that nothing but its place gives away."""
    return f"canary.{place}.7f3a90c1d2e4"


def key(place: str) -> str:
    """A credential that looks like one wherever it stands."""
    return f"sk-ant-{canary(place).replace('.', '-')}"


HEADERS = [
    ("Authorization", f"Bearer {canary('authorization')}"),
    ("Proxy-Authorization", f"Basic {canary('proxy-authorization')}"),
    *(
        (name, canary(name))
        for name in (
            "X-Api-Key",
            "Api-Key",
            "X-Goog-Api-Key",
            "X-Auth-Token",
            "X-Amz-Security-Token",
            "X-Amz-Signature",
            "X-Csrf-Token",
            "X-Vault-Token",
            "Ocp-Apim-Subscription-Key",
            "Private-Token",
            "X-Client-Secret",
            "X-Password",
            "X-Credential",
            "X-Jwt-Assertion",
        )
    ),
    ("Cookie", f"session={canary('cookie')}; theme=dark"),
    ("X-Forwarded-Authorization", f"Digest {canary('forwarded-authorization')}"),
    ("Referer", f"http://user:{canary('referer-password')}@example.com/?x=1"),
    ("X-Url", f"https://example.com/?api_key={canary('url-in-a-header')}&x=1"),
    ("X-Note", f"use {key('note')} please"),
]
QUERY = "&".join(
    f"{name}={canary('query-' + name)}"
    for name in ("key", "api_key", "api-key", "token", "access_token", "sig", "%6bey2")
)
PLACES = ("native", "translated", "refused", "plugin")


def asked(**fields: object) -> bytes:
    content = f"My key is {key('message')}"
    body = {"model": MODEL, "max_tokens": 9, **fields}
    body.setdefault("messages", [{"role": "user", "content": content}])
    return json.dumps(body).encode()


BODIES = {
    "a question": asked(),
    "a stream": asked(stream=True),
    "no JSON": f'{{"model": "{key("no-json")}", api_key: {key("no-json-2")}'.encode(),
    "a key as the model": asked(model=key("model")),
    "no prompt": asked(messages=[], api_key=key("member")),
    "twice": f'{{"{key("name")}":1,"{key("name")}":2}}'.encode(),
    "too deep": b'{"x":"%b","y":%b' % (key("too-deep").encode(), b"[" * 5000),
    "not UTF-8": b'{"x":"%b \xff"}' % key("not-utf-8").encode(),
}

PLUGIN = """\
from kongai import Plugin


class Leaky(Plugin):
    name = "leaky"
    priority = 900

    def access(self, exchange):
        self._fail(exchange, "access")

    def header_filter(self, exchange):
        self._fail(exchange, "header_filter")

    def body_filter(self, exchange, chunks):
        for chunk in chunks:
            yield chunk
            self._fail(exchange, "body_filter")

    def log(self, exchange):
        self._fail(exchange, "log")

    def _fail(self, exchange, phase):
        if exchange.headers.get("x-phase") == phase:
            try:
                raise KeyError(exchange.headers["x-api-key"])
            except KeyError as error:
                raise ValueError(f"{dict(exchange.headers)}") from error
"""


def config(upstream: str, sink: str, refused: str) -> str:
    """A gateway with a secret in each setting that takes one."""

    def service(name: str, ai_proxy: dict[str, object], *more: object) -> object:
        return {
            "name": name,
            "url": "http://127.0.0.1:1",
            "retries": 0,
            "routes": [{"name": name, "paths": [f"/{name}"]}],
            "plugins": [{"name": "ai-proxy", "config": ai_proxy}, *more],
        }

    def settings(provider: str, url: str, auth: dict[str, object]) -> dict[str, object]:
        options = {"upstream_url": url}
        if provider == "anthropic":
            options["anthropic_version"] = "2023-06-01"
        return {
            "route_type": "llm/v1/chat",
            "llm_format": "anthropic",
            "auth": auth,
            "logging": {"log_statistics": True, "log_payloads": True},
            "model": {"provider": provider, "options": options},
        }

    header = {"header_name": "x-our-own", "header_value": canary("setting-header")}
    argument = {
        "param_name": "ours",
        "param_value": canary("setting-argument"),
        "param_location": "query",
    }
    http_log = {
        "http_endpoint": sink.replace("//", f"//user:{canary('endpoint-password')}@"),
        "headers": {"X-Sink-Key": canary("setting-sink")},
        "queue": {"max_retry_time": 1, "initial_retry_delay": 0.05},
    }
    own = f"{upstream}/v1/messages"
    services = [
        service("native", settings("anthropic", own, header)),
        service(
            "translated",
            settings("openai", f"{upstream}/v1/chat/completions", argument),
        ),
        service("refused", settings("anthropic", f"{refused}/v1/messages", header)),
        service("plugin", settings("anthropic", own, header), {"name": "leaky"}),
    ]
    plugins = [
        {"name": "file-log", "config": {"path": LOG_PATH}},
        {"name": "http-log", "config": http_log},
    ]
    return json.dumps(
        {"_format_version": "3.0", "services": services, "plugins": plugins}
    )


LEAKING = [
    *JSON,
    ("Set-Cookie", f"session={canary('set-cookie')}; HttpOnly"),
    ("X-Api-Key-Echo", canary("upstream-header")),
    ("X-Debug", f"got {key('upstream-debug')}"),
    ("Location", f"https://example.com/?token={canary('location')}"),
]


def answering(request: Request, connection: Connection) -> None:
    """Does what the request says, and quotes credentials where it can."""
    [fault] = request.values("x-fault") or [""]
    names = {name.lower() for name, _ in HEADERS[:-3]}
    quoted = [value for name, value in request.headers if name.lower() in names]
    quoted = " ".join([*quoted, key("upstream-body")])
    if fault == "garbage":
        connection.send(f"HTTP/1.1 {quoted}\r\n\r\n".encode())
        connection.close()
    elif fault == "broken head":
        connection.send(f"HTTP/1.1 200 OK\r\n{quoted}\r\n\r\n".encode())
        connection.close()
    elif fault == "reset":
        connection.reset()
    elif fault == "cut":
        connection.start_stream()
        connection.chunk(f": {key('comment')}\n\ndata: {{{key('event')}".encode())
        connection.reset()
    elif fault == "hang":
        connection.closed_by_peer(5)
    elif fault == "no answer":
        connection.respond(200, LEAKING, json.dumps({"said": quoted}).encode())
    elif fault:
        error = {"type": "error", "error": {"type": "x", "message": quoted}}
        connection.respond(int(fault), LEAKING, json.dumps(error).encode())
    elif "/chat/" in request.target:
        body = completion("Hi", Tokens(1, 1), model=MODEL)
        connection.respond(200, LEAKING, json.dumps(body).encode())
    elif b'"stream": true' in request.body:
        connection.start_stream()
        for event in message_events("Hi", Usage(1, 1), model=MODEL):
            connection.chunk(event)
        connection.end()
    else:
        body = message("Hi", Usage(1, 1), model=MODEL)
        connection.respond(200, LEAKING, json.dumps(body).encode())


def raw_request(target: str, body: bytes, *more: tuple[str, str]) -> bytes:
    lines = [f"POST {target} HTTP/1.1", "Host: gateway", "Connection: close"]
    headers = [*HEADERS, *JSON, *more, ("Content-Length", str(len(body)))]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


FAULTS = [
    "",
    "401",
    "429",
    "500",
    "garbage",
    "broken head",
    "reset",
    "cut",
    "no answer",
]
PATHS = {
    "path": f"/v1/messages?{QUERY}",
    "key in the path": f"/{quote(key('path'))}?{QUERY}",
    "password in the path": f"/http://user:{canary('path-password')}@host/?{QUERY}",
}


def requests() -> Iterator[bytes]:
    """Every request of the test, as it is on the wire."""
    for place in PLACES:
        for fault in FAULTS:
            for stream in (False, True):
                target = f"/{place}{PATHS['path']}"
                yield raw_request(target, asked(stream=stream), ("X-Fault", fault))
        for path in PATHS.values():
            for body in BODIES.values():
                yield raw_request(f"/{place}{path}", body)
    for phase in ("access", "header_filter", "body_filter", "log"):
        for stream in (False, True):
            body = asked(stream=stream)
            yield raw_request(f"/plugin{PATHS['path']}", body, ("X-Phase", phase))
    absolute = f"http://user:{canary('userinfo')}@gateway/native{PATHS['path']}"
    yield raw_request(absolute, asked())
    yield raw_request(f"/nowhere?{QUERY}", b"")
    good = raw_request(f"/native{PATHS['path']}", asked())
    yield good.replace(b"HTTP/1.1", b"HTTP/1.9", 1)
    yield good.replace(b"Host: gateway\r\n", b"", 1)
    yield good.replace(b"X-Api-Key:", b"X-Api-Key", 1)
    yield good.replace(b"X-Api-Key: ", b"X-Api-Key: \0", 1)
    yield good.replace(b"X-Note: use", b"X-Note: " + b"x" * 80_000, 1)
    yield good.replace(b"Content-Length: ", b"Content-Length: -", 1)
    yield canary("no-request").encode() + b"\r\n\r\n"


def ask(address: tuple[str, int], sent: bytes) -> bytes:
    with closing(socket.create_connection(address, timeout=10)) as client:
        client.sendall(sent)
        received = []
        with suppress(ConnectionError):
            while piece := client.recv(65536):
                received.append(piece)
        return b"".join(received)


def leave(address: tuple[str, int], sent: bytes, upstream: FakeUpstream) -> None:
    """Ask, and go by a reset once the upstream has the request."""
    before = len(upstream.requests)
    with closing(socket.create_connection(address, timeout=10)) as client:
        client.sendall(sent)
        upstream.wait_for_requests(before + 1)
        linger = struct.pack("ii", 1, 0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def with_plugin(directory: Path) -> dict[str, str]:
    """The environment of a gateway that finds the plugin."""
    (directory / "leaky_plugin.py").write_text(PLUGIN, "utf-8")
    package = directory / "leaky_plugin-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Name: leaky-plugin\nVersion: 1.0\n", "utf-8")
    entry = f"[{PLUGIN_GROUP}]\nleaky = leaky_plugin:Leaky\n"
    (package / "entry_points.txt").write_text(entry, "utf-8")
    return {"PYTHONPATH": f"{directory}:{os.environ.get('PYTHONPATH', '')}"}


MARK = b"7f3a90c1d2e4"
"""What is in every canary, whatever its place."""


def leaks(data: bytes) -> set[str]:
    """What stands around each canary in what was written."""
    places = data.split(MARK)[:-1]
    return {place[-60:].decode("utf-8", "replace") for place in places}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_output_has_a_credential(tmp_path: Path, workers: str) -> None:
    delivered: list[bytes] = []

    def deliver(request: Request, connection: Connection) -> None:
        delivered.append(request.body)
        # Now and then it fails, and says why.
        status = 500 if len(delivered) % 10 == 1 else 200
        connection.respond(status, body=canary("sink-answer").encode())

    with (
        FakeUpstream(answering) as upstream,
        FakeUpstream(deliver) as sink,
        Gateway(
            config(upstream.url, sink.url, "http://127.0.0.1:1"),
            *("--log-level", "debug", "--workers", workers),
            env=with_plugin(tmp_path),
        ) as gateway,
    ):
        host, port = gateway.url.removeprefix("http://").split(":")
        address = (host, int(port))
        own_answers, count = [], 0
        for sent in requests():
            count += 1
            got = ask(address, sent)
            if b"x-kong-upstream-latency" not in got.lower():
                own_answers.append(got)
        hang = raw_request(f"/native{PATHS['path']}", asked(), ("X-Fault", "hang"))
        leave(address, hang, upstream)
        records = gateway.records(count - 10)
        wait_until(lambda: len(delivered) > len(records), "records", 10)
        process = Path(f"/proc/{gateway.pid}")
        titles = [process / "cmdline", process / "comm"]
        written = {path.name: path.read_bytes() for path in titles if path.exists()}
        assert gateway.stop() == 0
        for path in gateway.directory.rglob("*"):
            if path.is_file() and path.suffix != ".yml":
                written[path.name] = path.read_bytes()
    written["http-log"] = b"\n".join(delivered)
    written["answers"] = b"\n".join(own_answers)
    assert {"stderr.txt", "stdout.txt", "exchanges.json"} <= written.keys()
    assert own_answers
    assert {name: leaks(data) for name, data in written.items() if leaks(data)} == {}
    ends = {record["kongai"]["ended"] for record in records}
    assert ends >= {"ok", "bad_request", "connect", "upstream_protocol", "internal"}

"""Kong's facts as rows: what is sent, what the upstream says, what everybody sees.

A fact is one numbered sentence about Kong that a person with Kong's file relies on. A
`Fact` is a row about one of them; `facts` makes the rows the cases of a test, with the
number in their ids: ``pytest -k fact-24``. All rows of a module are of one gateway,
whose file has a service for each of its `Setup`\\ s.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import yaml

from .anthropic_api import Usage, message, message_events
from .conftest import (
    KEY,
    MODEL,
    Answer,
    Line,
    assert_no_secret,
    exchange,
    request_body,
    whole,
)
from .harness import LOG_PATH, Gateway, howto_config
from .upstream import JSON, Connection, FakeUpstream, Headers, Request

Handler = Callable[[Request, Connection], None]

GLOBAL_LOG = f"{LOG_PATH}.global"
"""The log of the `file-log` that is for every service without one of its own."""
PLUGIN_ID = "b9c42d56-0f4e-4a3c-9a55-3f6f2a1e7d10"
"""The id that the file gives to `ai-proxy` of the how-to's own service."""
UNPRICED = "claude-unheard-of"
"""A model that is in no price table."""
MISSING = "(missing)"
"""What a row expects of a field or header that must not be there."""

GOOD_KEY = f"{KEY}-good"
"""The credential that the file of a row has, by way of the environment."""
HAS_GOOD_KEY = {
    "header_name": "x-api-key",
    "header_value": "{vault://env/good-key}",
}
META, USAGE = "ai.proxy.meta", "ai.proxy.usage"
NO_COUNTS = {
    f"{USAGE}.{name}": 0
    for name in ("prompt_tokens", "completion_tokens", "total_tokens", "cost")
}
"""The usage in the record of an exchange that had no answer to count."""

DATED = "claude-haiku-4-5-20251001"
"""The name under which `MODEL` answers."""
EVENTS = list(message_events("1 + 1 = 2", Usage(15, 9), model=DATED, cut=2))
"""Kong's fixture: eleven events, of which five have text."""
STREAM = b"".join(EVENTS)
WHOLE = json.dumps(message("It is 2.", Usage(119, 29), model=MODEL)).encode()
ASKED = request_body()
ASKED_TO_STREAM = request_body(stream=True)
UNAUTHORIZED = (
    b'{"type":"error", "error":{"type":"authentication_error","message":"invalid"}}'
)

covered: set[int] = set()
"""The numbers of the facts that have a row."""


class Setup(NamedTuple):
    """How the service of one route differs from the how-to's; its keys win."""

    ai_proxy: Mapping[str, Any] | None = {}
    """None for a service without the plugin."""
    model: Mapping[str, Any] = {}
    options: Mapping[str, Any] = {}
    service: Mapping[str, Any] = {}
    file_log: Mapping[str, Any] = {}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A case of a fact: its number, and what is so in this case."""

    number: int
    says: str
    kong: str = ""
    """What Kong does, where our outcome is another one on purpose."""

    def __str__(self) -> str:
        kong = f" [Kong: {self.kong}]" if self.kong else ""
        return f"fact {self.number}: {self.says}{kong}"

    @property
    def id(self) -> str:
        """The number and the sentence, for pytest's -k."""
        words = re.sub(r"[^a-z0-9]+", "-", self.says.lower()).strip("-")
        return f"fact-{self.number:02}-{words}"


@dataclass(frozen=True, kw_only=True)
class Fact(Row):
    """A request to a route of the gateway, and all that must come of it."""

    route: str = "anything"
    method: str = "POST"
    path: str = "/v1/messages?beta=true"
    headers: tuple[tuple[str, str], ...] = (("x-api-key", KEY), *JSON)
    body: bytes = ASKED

    upstream: Handler = whole

    status: int = 200
    answer: bytes | None = None
    """The body that the client gets; None if it is of no interest."""
    error: tuple[str, str] | None = None
    """Type and text of the gateway's own error, in the envelope of the client's API."""
    shown: Mapping[str, Any] = field(default_factory=dict)
    """Headers that the client gets."""
    seen: Mapping[str, Any] | None = field(default_factory=dict)
    """What the upstream gets: ``target``, ``body``, a field ``body.NAME``, or the
    values of a header. None if it must not be asked."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the record by their paths; a pattern must match the whole value."""

    def check(self, line: Line) -> tuple[Answer, dict[str, Any]]:
        """Make the exchange and hold everything against the row.

        Returns the answer and the record, for what a row cannot say.
        """
        answer = self.ask(line)
        assert answer.status == self.status, (self, answer)
        if self.answer is not None:
            assert answer.body == self.answer, self
        if self.error is not None:
            kind, text = self.error
            expected = {
                "type": "error",
                "error": {"type": kind, "message": text},
                "request_id": answer.value("x-kong-request-id"),
            }
            assert answer.json() == expected, self
            assert answer.value("content-type") == "application/json; charset=utf-8"
        for name, value in self.shown.items():
            values = [v for n, v in answer.headers if n.lower() == name]
            assert values == ([] if value == MISSING else [value]), (self, name)
        if self.seen is None:
            assert line.upstream.requests == [], self
        else:
            [request] = line.upstream.requests
            for name, value in self.seen.items():
                assert _seen(request, name) == value, (self, name)
        record = line.record(answer)
        for path, value in self.record.items():
            assert _is(at(record, path), value), (self, path, at(record, path))
        return answer, record

    def ask(self, line: Line) -> Answer:
        """Make the exchange, on a connection of its own."""
        line.upstream.requests.clear()
        line.upstream.handler = self.upstream
        path, headers = f"/{self.route}{self.path}", list(self.headers)
        with closing(line.connect()) as connection:
            return exchange(connection, self.method, path, self.body, headers)


def facts(*rows: Row) -> pytest.MarkDecorator:
    """Make rows the cases of a test, as its argument ``fact``."""
    covered.update(row.number for row in rows)
    return pytest.mark.parametrize(
        "fact", [pytest.param(row, id=row.id) for row in rows]
    )


def at(record: Mapping[str, Any], path: str) -> Any:
    r"""The value at a path in Kong's spelling: ``a.b`` nests, ``\.`` is a dot."""
    value: Any = record
    for name in re.split(r"(?<!\\)\.", path):
        name = name.replace("\\.", ".")
        if not isinstance(value, Mapping) or name not in value:
            return MISSING
        value = value[name]
    return value


def _is(value: Any, expected: Any) -> bool:
    if isinstance(expected, re.Pattern):
        return expected.fullmatch(str(value)) is not None
    return type(value) is type(expected) and bool(value == expected)


def _seen(request: Request, name: str) -> Any:
    if name == "target":
        return request.target
    if name == "body":
        return request.body
    if name.startswith("body."):
        return at(request.json(), name.removeprefix("body."))
    return request.values(name)


def says(body: bytes, headers: Headers = JSON, status: int = 200) -> Handler:
    """A handler: one answer in one piece."""
    return lambda _, connection: connection.respond(status, headers, body)


def streams(*pieces: bytes) -> Handler:
    """A handler: a stream in these pieces."""

    def handler(request: Request, connection: Connection) -> None:
        connection.start_stream()
        for piece in pieces:
            connection.chunk(piece)
        connection.end()

    return handler


def guarded(request: Request, connection: Connection) -> None:
    """A handler that knows one key."""
    if request.values("x-api-key") == [GOOD_KEY]:
        connection.respond(200, body=WHOLE)
    else:
        connection.respond(401, body=UNAUTHORIZED)


def tokens(prompt: int, completion: int) -> dict[str, int]:
    """What the record has of these tokens."""
    return {
        f"{USAGE}.prompt_tokens": prompt,
        f"{USAGE}.completion_tokens": completion,
        f"{USAGE}.total_tokens": prompt + completion,
    }


def answer_of(text: str, usage: Usage, model: str) -> bytes:
    """A whole answer of the API."""
    return json.dumps(message(text, usage, model=model)).encode()


def gateway_file(upstream_url: str, setups: Mapping[str, Setup]) -> str:
    """A file with the how-to's service and one for each setup, by the routes' names.

    A ``file-log`` for all takes the exchanges that are of no service.
    """
    services = []
    for name, setup in {"anything": Setup(), **setups}.items():
        howto = yaml.safe_load(howto_config(f"{upstream_url}/v1/messages"))
        [service] = howto["services"]
        service.update({"name": name} | dict(setup.service))
        service["routes"] = [{"name": name, "paths": [f"/{name}"]}]
        ai_proxy, file_log = service["plugins"]
        if name == "anything":
            ai_proxy["id"] = PLUGIN_ID
        config = ai_proxy["config"]
        config.update(setup.ai_proxy or {})
        config["model"] = config["model"] | dict(setup.model)
        config["model"]["options"] |= setup.options
        file_log["config"] |= setup.file_log
        if setup.ai_proxy is None:
            service["plugins"] = [file_log]
        services.append(service)
    everywhere = {"name": "file-log", "config": {"path": GLOBAL_LOG}}
    file = {"_format_version": "3.0", "services": services, "plugins": [everywhere]}
    # JSON is YAML's flow style.
    return json.dumps(file).replace("UPSTREAM", upstream_url)


@contextmanager
def acceptance_line(setups: Mapping[str, Setup]) -> Iterator[Line]:
    """The gateway of a module's rows, and an upstream that does what each row says.

    In a setup, ``UPSTREAM`` is the upstream's address.
    """
    with (
        FakeUpstream(whole) as upstream,
        Gateway(
            gateway_file(upstream.url, setups), env={"GOOD_KEY": GOOD_KEY}
        ) as gateway,
    ):
        yield Line(gateway, upstream)
        assert gateway.stop() == 0
        assert_no_secret(gateway)

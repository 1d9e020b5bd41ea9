"""Bodies that are not what they should be: refused with a reason, or passed on as is.

A case is a file of corpus/bad_bodies, sent as it is. index.json has what becomes of it:

``native``
    ``passes``, byte for byte, where the provider speaks the client's format; or else
    the text of the 400.
``translated``
    likewise where it does not; the text follows what else the refusal says.
``refused``
    how `kongai.refused` in the record begins.
``model``
    the model that the record names, if it is not that of the body.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import pytest

from .anthropic_api import Usage, message
from .conftest import KEY, Answer, Line, assert_no_secret, exchange
from .harness import LOG_PATH, Gateway, wait_until
from .openai_api import Tokens, completion
from .upstream import JSON, Connection, FakeUpstream, Request

CORPUS = Path(__file__).parents[1] / "corpus" / "bad_bodies"
INDEX: dict[str, dict[str, str]] = json.loads((CORPUS / "index.json").read_text())
HEADERS = [("x-api-key", KEY), ("authorization", f"Bearer {KEY}"), *JSON]
EMBEDDINGS = "llm/v1/embeddings"

ROUTES = {
    "anthropic": ("anthropic", "anthropic", "/v1/messages"),
    "openai": ("openai", "openai", "/v1/chat/completions"),
    "to-openai": ("anthropic", "openai", "/v1/chat/completions"),
    "to-anthropic": ("openai", "anthropic", "/v1/messages"),
    "embeddings": ("openai", "openai", "/v1/embeddings"),
}
"""The format of the client, that of the provider, and what the provider is asked."""
PATHS = {
    "anthropic": "/v1/messages",
    "openai": "/v1/chat/completions",
    "to-openai": "/v1/messages",
    "to-anthropic": "/v1/chat/completions",
}
"""What a client asks for."""


def config(upstream: str) -> str:
    services = []
    for name, (client, provider, path) in ROUTES.items():
        options = {"upstream_url": upstream + path}
        if provider == "anthropic":
            options["anthropic_version"] = "2023-06-01"
        ai_proxy = {
            "route_type": EMBEDDINGS if name == "embeddings" else "llm/v1/chat",
            "llm_format": client,
            "logging": {"log_statistics": True, "log_payloads": True},
            "model": {"provider": provider, "options": options},
        }
        services.append(
            {
                "name": name,
                "url": "http://127.0.0.1:1",
                "routes": [{"name": name, "paths": [f"/{name}"]}],
                "plugins": [
                    {"name": "ai-proxy", "config": ai_proxy},
                    {"name": "file-log", "config": {"path": LOG_PATH}},
                ],
            }
        )
    return json.dumps({"_format_version": "3.0", "services": services})


def answering(request: Request, connection: Connection) -> None:
    body: dict[str, Any] = {"object": "list", "data": [], "usage": {"prompt_tokens": 1}}
    if "count_tokens" in request.target:
        body = {"input_tokens": 1}
    elif "/v1/messages" in request.target:
        body = message("Hi", Usage(119, 29), model="m-1")
    elif "/chat/" in request.target:
        body = completion("Hi", Tokens(119, 29), model="m-1")
    connection.respond(200, body=json.dumps(body).encode())


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    with FakeUpstream(answering) as upstream, Gateway(config(upstream.url)) as gateway:
        yield Line(gateway, upstream)
        assert gateway.stop() == 0
        complaints = gateway.stderr_text().splitlines()[1:]
        assert [text for text in complaints if "Error" in text] == []
        assert_no_secret(gateway)
        if jq := shutil.which("jq"):
            with gateway.log_path.open("rb") as log:
                command = [jq, "--exit-status", "type"]
                subprocess.run(command, stdin=log, stdout=DEVNULL, check=True)


@pytest.fixture
def client(line: Line) -> Iterator[HTTPConnection]:
    with closing(line.connect()) as connection:
        yield connection


class Outcome:
    """What came of a body: the answer, its record, and what the upstream has seen."""

    def __init__(self, line: Line, client: HTTPConnection, path: str, body: bytes):
        line.upstream.requests.clear()
        log = line.gateway.log_path
        size = log.stat().st_size if log.exists() else 0
        self.answer: Answer = exchange(client, "POST", path, body, HEADERS)
        wait_until(lambda: read_from(log, size).endswith(b"\n"), "record", 5)
        written = read_from(log, size)
        assert written.count(b"\n") == 1
        assert written.isascii()
        self.record = strict(written)
        self.seen = [request.body for request in line.upstream.requests]

    def is_refused_with(self, text: str, reason: str) -> None:
        """It is a 400 in the client's format, and no provider was asked."""
        assert self.answer.status == 400
        assert self.seen == []
        given = self.answer.json()
        assert given["error"]["message"].endswith(text)
        assert given["error"]["type"] == "invalid_request_error"
        record = self.record
        assert (record["kongai"]["ended"], record["source"]) == ("bad_request", "kong")
        assert record["kongai"].get("refused", "").startswith(reason)

    def passed(self, model: str) -> None:
        """It was answered, and the record is whole."""
        assert self.answer.status == 200
        assert self.record["kongai"]["ended"] == "ok"
        assert self.record["ai"]["proxy"]["meta"]["request_model"] == model


def read_from(file: Path, start: int) -> bytes:
    """What stands there; nothing where there is no file yet."""
    with suppress(FileNotFoundError), file.open("rb") as lines:
        lines.seek(start)
        return lines.read()
    return b""


@pytest.mark.parametrize("name", INDEX)
def test_a_body(line: Line, client: HTTPConnection, name: str) -> None:
    body, expected = (CORPUS / f"{name}.body").read_bytes(), INDEX[name]
    for route, path in PATHS.items():
        outcome = Outcome(line, client, f"/{route}{path}", body)
        native = route in ("anthropic", "openai")
        text = expected["native" if native else "translated"]
        if text != "passes":
            outcome.is_refused_with(text, expected.get("refused", ""))
            continue
        outcome.passed(expected.get("model", "m"))
        [seen] = outcome.seen
        if native:
            assert seen == body
        else:
            assert strict(seen)["model"] == "m"


@pytest.mark.parametrize("name", INDEX)
def test_a_body_whose_tokens_are_to_be_counted(
    line: Line, client: HTTPConnection, name: str
) -> None:
    """A provider of the format gets it unread; else it is read to be estimated."""
    body, expected = (CORPUS / f"{name}.body").read_bytes(), INDEX[name]
    path = "/v1/messages/count_tokens"
    outcome = Outcome(line, client, f"/anthropic{path}", body)
    assert (outcome.answer.status, outcome.seen) == (200, [body])
    outcome = Outcome(line, client, f"/to-openai{path}", body)
    assert outcome.seen == []
    if expected["translated"] == "passes":
        assert outcome.answer.status == 200
        assert outcome.answer.json()["input_tokens"] > 0
    else:
        assert outcome.answer.status == 400
        said = outcome.answer.json()["error"]["message"]
        assert said.startswith("cannot be counted: ")
        assert outcome.record["kongai"]["ended"] == "bad_request"


# What is embedded may be of any kind.
@pytest.mark.parametrize(
    "name", [name for name in INDEX if not name.startswith("messages_")]
)
def test_a_body_to_be_embedded(line: Line, client: HTTPConnection, name: str) -> None:
    body = (CORPUS / f"{name}.body").read_bytes().replace(b'"messages"', b'"input"')
    expected = {
        key: text.replace('"messages"', '"input"') for key, text in INDEX[name].items()
    }
    outcome = Outcome(line, client, "/embeddings/v1/embeddings", body)
    if expected["native"] == "passes":
        outcome.passed(expected.get("model", "m"))
        assert outcome.seen == [body]
    else:
        outcome.is_refused_with(expected["native"], expected.get("refused", ""))


def strict(text: bytes) -> Any:
    """JSON without what only Python's reader takes."""

    def refuse(constant: str) -> float:
        raise ValueError(constant)

    return json.loads(text.decode(), parse_constant=refuse)


def test_every_file_has_its_outcome() -> None:
    assert {path.stem for path in CORPUS.glob("*.body")} == INDEX.keys()

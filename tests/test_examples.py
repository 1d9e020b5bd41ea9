"""The examples: each is run, as its own text says, on the loopback interface.

Where an example would ask Anthropic, an `EchoLLM` stands in; where it would serve port
8000, the demonstration serves a free one.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml
from click.testing import CliRunner
from flask import Flask
from werkzeug.test import Client

from kongai import AIProxy, FileSink, Proxy, Route, cli, config
from kongai.testing import EchoLLM, MockTransport, answer, events, serve_live

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
SERVE = ROOT / "bin" / "kongai-serve"
README = ROOT / "README.md"
GUIDE = EXAMPLES / "claude_code.md"
HERE = "http://localhost:8000"  # where the documents have the gateway
QUESTION = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "Hello from an example!"}],
}


def test_every_example_is_run_here() -> None:
    mine = Path(__file__).read_text("utf-8")
    for path in EXAMPLES.iterdir():
        assert re.search(rf'"{path.stem}(\.\w+)?"', mine) or path.is_dir(), path.name


# Programs


def run(name: str, directory: Path) -> str:
    """What an example prints; a warning makes it fail."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


def test_the_script_prints_the_record_and_the_answer(tmp_path: Path) -> None:
    record, answer = map(json.loads, run("script.py", tmp_path).splitlines())
    assert answer["content"] == [{"type": "text", "text": "Hello!"}]
    assert record["kongai"] == {"ended": "ok", "price": "table"}
    assert record["ai"]["proxy"]["usage"]["completion_tokens"] == 2


def test_the_plugin_keeps_teams_to_their_models(tmp_path: Path) -> None:
    lines = run("custom_plugin.py", tmp_path).splitlines()
    told = [line.split()[:3] for line in lines[:3]]
    assert told == [
        ["search", "claude-haiku-4-5", "200"],
        ["search", "claude-opus-4-5", "403"],
        ["nobody", "claude-haiku-4-5", "403"],
    ]
    assert '"message":"this model is not for your team"' in lines[1]
    assert lines[3:] == ["search 200", "search 403", "None 403"]


def test_the_sink_adds_up_three_answers(tmp_path: Path) -> None:
    """1,000 tokens read at 3 USD and 500 written at 15 USD a million, three times."""
    assert run("custom_sink.py", tmp_path) == "claude-sonnet-4-5: 0.031500 USD\n"


# Flask


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ai_proxy(upstream: EchoLLM) -> AIProxy:
    options = {"anthropic_version": "2023-06-01", "upstream_url": upstream.url}
    model = {"provider": "anthropic", "options": options}
    return AIProxy(provider="anthropic", llm_format="anthropic", model=model)


def howto(directory: Path, upstream: EchoLLM) -> Path:
    """The example's file with an echo behind it and its log in a directory."""
    data = yaml.safe_load((EXAMPLES / "kong.yml").read_text("utf-8"))
    claude, log = data["services"][0]["plugins"]
    claude["config"]["model"]["options"]["upstream_url"] = upstream.url
    log["config"]["path"] = str(directory / "claude.json")
    path = directory / "kong.yml"
    path.write_text(json.dumps(data), "utf-8")
    return path


def post(url: str, body: dict[str, Any], **headers: str) -> tuple[str, bytes]:
    """Content type and body of an answer that came over a socket."""
    kind = {"content-type": "application/json", **headers}
    with urlopen(Request(url, json.dumps(body).encode(), kind), timeout=10) as reply:
        return reply.headers["content-type"], reply.read()


def made(name: str, directory: Path, upstream: EchoLLM) -> tuple[Flask, Proxy]:
    """An example's application and its gateway, which logs into a directory."""
    create_app = load(name).create_app
    if name == "flask_wrap":
        app = create_app(howto(directory, upstream))
        return app, app.wsgi_app
    proxy = Proxy(
        routes=[Route(paths=["/ai"])] if name == "flask_view" else [],
        plugins=[ai_proxy(upstream)],
        sinks=[FileSink(directory / "claude.json")],
    )
    return create_app(proxy), proxy


def mode_of(record: dict[str, Any]) -> str:
    return str(record["ai"]["proxy"]["meta"]["request_mode"])


def logged(directory: Path, count: int) -> list[dict[str, Any]]:
    """The records: each is written just after its client has it all, in any order."""
    deadline = time.monotonic() + 5
    path, lines = directory / "claude.json", [""]
    while len(lines) <= count and time.monotonic() < deadline:
        time.sleep(0.002)
        if path.exists():
            lines = path.read_text("utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("flask_mount", "/ai"),
        ("flask_view", "/ai"),
        ("flask_wrap", "/anything"),
    ],
)
def test_a_flask_application_answers_and_streams(
    name: str, base: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        upstream = stack.enter_context(EchoLLM())
        app, proxy = made(name, tmp_path, upstream)
        stack.enter_context(closing(proxy))
        live = stack.enter_context(serve_live(app))
        uri = f"{base}/v1/messages?beta=true"
        kind, whole = post(live.url + uri, QUESTION, **{"x-user": "ada"})
        assert kind == "application/json"
        assert json.loads(whole)["content"][0]["text"] == "Hello from an example!"
        asked = {**QUESTION, "stream": True}
        kind, stream = post(live.url + uri, asked, **{"x-user": "ada"})
        assert kind.startswith("text/event-stream")
        assert [event for event, _ in events([stream])][-1] == "message_stop"
        modes = {mode_of(record): record for record in logged(tmp_path, 2)}
    one, two = modes["oneshot"], modes["stream"]
    assert one["request"]["uri"] == two["request"]["uri"] == uri
    assert one["kongai"]["ended"] == two["kongai"]["ended"] == "ok"


@pytest.mark.parametrize("name", ["flask_mount", "flask_wrap"])
def test_what_is_not_the_gateways_stays_flasks(name: str) -> None:
    client = Client(load(name).app)
    assert "The gateway is at /" in client.get("/").get_data(as_text=True)
    assert client.get("/elsewhere").status_code == 404


def test_the_view_lets_in_whom_it_knows() -> None:
    reply = Client(load("flask_view").app).post("/ai/v1/messages", json=QUESTION)
    assert reply.status_code == 403
    assert "kongai" not in reply.headers.get("server", "")


@pytest.mark.parametrize("name", ["flask_mount", "flask_view", "flask_wrap"])
def test_a_flask_example_serves_the_port_it_is_given(name: str) -> None:
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--port", "0"]
    with started(command, r"Running on (http://\S+)") as url:
        # No example answers this from the gateway, which would ask Anthropic.
        with pytest.raises(HTTPError) as refused, urlopen(f"{url}/nowhere", timeout=10):
            pass
        refused.value.close()
        assert refused.value.code == 404


@contextmanager
def started(command: list[str], pattern: str) -> Iterator[str]:
    """A process, from the moment at which standard error says what is looked for."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        try:
            for line in process.stderr:
                said += line
                if found := re.search(pattern, line):
                    yield found[1]
                    break
            else:
                pytest.fail(f"{command} ended:\n{said}")
        finally:
            process.terminate()
            process.communicate(timeout=10)


# The how-to


def serving(*args: str) -> list[str]:
    return [sys.executable, str(SERVE), "--port", "0", *args]


LISTENING = r"listening on (http://\S+)"


@pytest.fixture(scope="module")
def demo() -> Iterator[str]:
    """Where the demonstration is served."""
    with started(serving("--demo"), LISTENING) as url:
        yield url


def blocks(path: Path, language: str) -> list[str]:
    fence = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [found[1] for found in fence.finditer(path.read_text("utf-8"))]


def shell(command: str, **environment: str) -> str:
    """What a command of the documents prints; skips where a program is missing."""
    for program in ("curl", "jq"):
        if re.search(rf"\b{program} ", command) and shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        ["sh", "-e", "-c", command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


def block_with(path: Path, word: str) -> str:
    (found,) = (block for block in blocks(path, "sh") if word in block)
    return found


def test_the_file_is_what_serve_runs_without_a_file() -> None:
    ready_made = files("kongai").joinpath("howto.yml").read_text("utf-8")
    example = (EXAMPLES / "kong.yml").read_text("utf-8")
    assert yaml.safe_load(example) == yaml.safe_load(ready_made)


# Teams

TEAM_KEYS = {
    "ANTHROPIC_KEY": "provider-key",
    "DECK_SEARCH_KEY": "search-key",
    "DECK_ADS_KEY": "ads-key",
}


@pytest.fixture
def teams(monkeypatch: pytest.MonkeyPatch) -> str:
    """The example's file, whose keys are set."""
    for name, value in TEAM_KEYS.items():
        monkeypatch.setenv(name, value)
    return (EXAMPLES / "teams.yml").read_text("utf-8")


def test_each_team_has_its_key_and_the_providers_stays_with_the_gateway(
    teams: str, tmp_path: Path
) -> None:
    text = teams.replace("/tmp/claude.json", str(tmp_path / "claude.json"))
    upstream = MockTransport(lambda _: answer(b'{"type": "message"}'))
    big = {**QUESTION, "system": "x" * 256 * 1024}
    asked = [
        ("search-key", QUESTION, 200),
        ("search-key", big, 200),
        ("ads-key", QUESTION, 200),
        ("ads-key", big, 413),
        ("provider-key", QUESTION, 401),
    ]
    proxy = Proxy.from_config(config.load_text(text), transport=upstream)
    with closing(proxy):
        for key, body, status in asked:
            with Client(proxy).post(
                "/anything/v1/messages", json=body, headers={"x-api-key": key}
            ) as reply:
                assert reply.status_code == status
                reply.get_data()
    records = logged(tmp_path, len(asked))
    assert [record.get("consumer", {}).get("username") for record in records] == [
        *("search", "search", "ads", "ads"),
        None,
    ]
    sent = [dict(request.headers)["x-api-key"] for request in upstream.requests]
    assert sent == ["provider-key"] * 3
    assert not [key for key in TEAM_KEYS.values() if key in json.dumps(records)]


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "gpt-5-mini"])
def test_claude_code_is_served_by_a_model_of_openais(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECK_OPENAI_API_KEY", "sk-openai-of-the-gateway")
    text = (EXAMPLES / "openai.yml").read_text("utf-8")
    text = text.replace("/tmp/claude.json", str(tmp_path / "claude.json"))
    said = {"message": {"role": "assistant", "content": "Hello!"}}
    upstream = MockTransport(lambda _: answer(json.dumps({"choices": [said]}).encode()))
    with (
        closing(Proxy.from_config(config.load_text(text), transport=upstream)) as proxy,
        Client(proxy).post(
            "/anything/v1/messages",
            json={**QUESTION, "model": model},
            headers={"x-api-key": "unused"},
        ) as reply,
    ):
        assert reply.get_json()["content"] == [{"type": "text", "text": "Hello!"}]
    (request,) = upstream.requests
    assert (request.host, request.target) == ("api.openai.com", "/v1/chat/completions")
    assert isinstance(request.body, bytes)
    assert json.loads(request.body)["model"] == "gpt-5-mini"
    head = {name.lower(): value for name, value in request.headers}
    assert head["authorization"] == "Bearer sk-openai-of-the-gateway"
    assert "x-api-key" not in head
    (record,) = logged(tmp_path, 1)
    assert record["ai"]["proxy"]["meta"]["request_model"] == "gpt-5-mini"


def test_a_team_is_turned_off_by_taking_the_comment_away(
    teams: str, tmp_path: Path
) -> None:
    _, mark, rest = teams.partition("      # - name: request-termination")
    off = teams.replace(mark + rest, (mark + rest).replace("      # ", "      "))
    text = off.replace("/tmp/claude.json", str(tmp_path / "claude.json"))
    with closing(Proxy.from_config(config.load_text(text))) as proxy:
        reply = Client(proxy).post(
            "/anything/v1/messages", json=QUESTION, headers={"x-api-key": "ads-key"}
        )
    assert reply.status_code == 403
    assert "has used up its budget" in reply.get_data(as_text=True)


def test_the_demonstration_answers_the_curl_of_the_readme(demo: str) -> None:
    command = block_with(README, "curl").replace(HERE, demo)
    assert shell(command) == blocks(README, "json")[0].strip()


def test_the_guide_checks_and_serves_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    check, serve = map(shlex.split, block_with(GUIDE, "kongai check").splitlines())
    result = CliRunner().invoke(cli.main, check[1:])
    assert result.output == "examples/kong.yml: 1 service, 1 route, no problems\n"
    assert serve[0] == "kongai-serve"
    with started(serving(*serve[1:]), LISTENING) as url:
        assert url.startswith("http://127.0.0.1:")


def test_the_guide_gives_claude_code_a_key_that_others_can_not_read(
    tmp_path: Path,
) -> None:
    shell(block_with(GUIDE, "anthropic_key.sh"), HOME=str(tmp_path))
    settings = json.loads(blocks(GUIDE, "json")[0])
    helper = settings["apiKeyHelper"]
    assert shell(helper, HOME=str(tmp_path)) == "your-anthropic-api-key\n"
    script = tmp_path / helper.removeprefix("~/")
    assert stat.S_IMODE(script.stat().st_mode) == 0o700


@pytest.mark.parametrize("path", [README, GUIDE], ids=lambda path: path.name)
def test_claude_code_is_pointed_at_the_route(path: Path) -> None:
    lines = re.findall(
        r"^ANTHROPIC_BASE_URL=(\S+) claude", path.read_text("utf-8"), re.M
    )
    assert lines
    (service,) = yaml.safe_load((EXAMPLES / "kong.yml").read_text("utf-8"))["services"]
    assert {f"{HERE}{p}" for p in service["routes"][0]["paths"]} == set(lines)


def test_the_guide_asks_whether_the_gateway_is_there(demo: str) -> None:
    command = block_with(GUIDE, "curl").replace(HERE, demo)
    assert shell(command) == blocks(GUIDE, "json")[1]


def test_the_guide_shows_the_last_call(tmp_path: Path) -> None:
    with EchoLLM() as upstream:
        proxy = Proxy.from_file(howto(tmp_path, upstream))
        with closing(proxy):
            Client(proxy).post("/anything/v1/messages", json=QUESTION, buffered=True)
    log = str(tmp_path / "claude.json")
    shown = json.loads(
        shell(block_with(GUIDE, "tail").replace("/tmp/claude.json", shlex.quote(log)))
    )
    assert shown["meta"]["request_model"] == QUESTION["model"]
    assert shown["usage"]["cost"] > 0

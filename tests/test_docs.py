"""What the documents say, compared with what is there.

Options, keys with their types and defaults, fields of the record, names: each that
exists is documented, and each that is documented exists. Commands and code are run.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import yaml
from click.testing import CliRunner
from msgspec import inspect
from werkzeug.test import Client

import kongai
from kongai import Proxy, cli, declaration, registry, testing
from kongai.entities import (
    STRUCTS,
    CACertificate,
    Certificate,
    Consumer,
    KeyAuthCredential,
    Target,
    Upstream,
)
from kongai.errors import AnswerCut, ClientGone, UpstreamError, UpstreamTruncated
from kongai.exchange import UpstreamRequest, UpstreamResponse
from kongai.plugin_entries import PluginEntry
from kongai.plugins.correlation_id import CorrelationId
from kongai.plugins.key_auth import KeyAuth
from kongai.providers import PROVIDERS
from kongai.providers.options import Databricks, Options
from kongai.testing import EchoLLM, ListSink, MockTransport, answer

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
CONFIG = ROOT / "docs" / "config.md"
RECORD = ROOT / "docs" / "record.md"
EXTENDING = ROOT / "docs" / "extending.md"
PAGES = sorted(ROOT.glob("docs/*.md"))
GUIDES = sorted(ROOT.glob("examples/*.md"))
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *PAGES, *GUIDES]
PLUGINS = registry.plugin_names()
LOG = "/tmp/claude.json"  # the how-to's, in every command of the documents


def text(path: Path) -> str:
    return path.read_text("utf-8")


def name_of(path: Path) -> str:
    return path.name


def blocks(path: Path, language: str) -> list[str]:
    """The document's fenced blocks of one language."""
    return blocks_of(text(path), language)


def blocks_of(markdown: str, language: str) -> list[str]:
    """A text's fenced blocks of one language."""
    fence = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [found[1] for found in fence.finditer(markdown)]


def section(path: Path, title: str) -> str:
    """What stands under a heading, up to the next one of its kind."""
    _, found, rest = text(path).partition(f"\n## {title}\n")
    assert found, f"{path.name} has no section {title}"
    return rest.partition("\n## ")[0]


def rows(markdown: str) -> dict[str, list[str]]:
    """The rows of a text's tables, by the code in their first cells."""
    found: dict[str, list[str]] = {}
    for line in re.findall(r"^\| (`.*) \|$", markdown, re.MULTILINE):
        first, *cells = (cell.strip() for cell in re.split(r"(?<!\\)\|", line))
        for code in re.findall(r"`([^`]+)`", first):
            assert code not in found, f"{code} has two rows"
            found[code] = cells
    return found


# What the documents are


def test_the_two_commands_come_first() -> None:
    """Whoever opens the README sees how to run it before anything else."""
    before = text(README).partition("```")[0]
    assert before.count("\n\n") == 2, "a title and one paragraph"
    assert blocks(README, "sh")[:2] == [
        "pip install . && kongai-serve --demo\n",
        'pip install -e ".[test]" && pytest\n',
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_link_leads_somewhere(path: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", text(path), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        there = path.parent / name if name else path
        assert there.exists(), target
        assert not anchor or anchor in set(anchors(there)), target


def anchors(path: Path) -> Iterator[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    for heading in re.findall(r"^#+ (.+)$", text(path), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", [*PAGES, *GUIDES, CONTRIBUTING], ids=name_of)
def test_the_readme_leads_to_every_other_document(path: Path) -> None:
    assert f"]({path.relative_to(ROOT)}" in text(README)


def test_the_license_is_the_one_that_is_declared() -> None:
    assert 'license = "Apache-2.0"' in text(ROOT / "pyproject.toml")
    title, version, *_ = text(ROOT / "LICENSE").split("\n", 2)
    assert title.strip() == "Apache License"
    assert version.strip() == "Version 2.0, January 2004"


def test_the_changes_begin_with_the_present_version() -> None:
    newest = re.search(r"^## (\S+)", text(ROOT / "CHANGES.md"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == kongai.__version__


# Commands


def options(command: click.Command) -> dict[str, click.Option]:
    found = [p for p in command.params if isinstance(p, click.Option)]
    return {name: option for option in found for name in option.opts}


def test_options_of_serve_are_in_the_readme_with_their_defaults() -> None:
    documented = rows(section(README, "The commands"))
    there = options(cli.serve)
    assert set(documented) == {*there, "--help"}
    for name, option in there.items():
        if not option.is_flag and not option.multiple:
            assert documented[name][0] == f"`{option.default}`"
    levels = re.findall(r"`(\w+)`", documented["--log-level"][1])
    assert tuple(levels) == cli.LOG_LEVELS


@pytest.mark.parametrize("name", sorted(cli.main.commands))
def test_commands_are_in_the_readme(name: str) -> None:
    assert re.search(rf"`kongai {name}[ `]", section(README, "The commands"))
    for option in options(cli.main.commands[name]).values():
        shown = [f"`{name}" in section(README, "The commands") for name in option.opts]
        assert any(shown), option


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_commands_in_documents_have_options_and_files_that_exist(path: Path) -> None:
    code = "\n".join([*blocks(path, "sh"), *blocks(path, "console")])
    for line in re.findall(r"^(?:.*&& |\$ )?(kongai(?:-serve)? .*)$", code, re.M):
        command, *arguments = shlex.split(line.partition(" >")[0], comments=True)
        if command == "kongai":
            name, *arguments = arguments
            # Raises if they are not what the command takes.
            cli.main.commands[name].make_context(name, [*arguments])
            files = arguments[:1]
        else:
            known = options(cli.serve)
            assert {a for a in arguments if a.startswith("-")} <= {*known}, line
            files = [a for a in arguments if not a.startswith("-")]
        for file in files:
            assert file == "kong.yml" or (ROOT / file).exists(), line


def test_the_readme_shows_what_check_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong, _ = blocks(README, "yaml")
    shown, _ = blocks(README, "console")
    command, *problems = shown.splitlines()
    monkeypatch.chdir(tmp_path)
    Path("kong.yml").write_text(wrong, "utf-8")
    result = CliRunner().invoke(cli.main, shlex.split(command.removeprefix("$ "))[1:])
    assert result.output.splitlines() == problems
    assert result.exit_code == 1


def test_the_readme_shows_what_explain_says(monkeypatch: pytest.MonkeyPatch) -> None:
    _, shown = blocks(README, "console")
    command, *lines = shown.splitlines()
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(cli.main, shlex.split(command.removeprefix("$ "))[1:])
    assert result.output.splitlines() == lines
    assert result.exit_code == 0


# Names


@pytest.mark.parametrize("name", sorted(kongai.__all__))
def test_exported_names_are_in_the_documents(name: str) -> None:
    assert any(mentions(path, name) for path in [README, *PAGES])


@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for name, value in vars(testing).items()
        if getattr(value, "__module__", "") == testing.__name__ and name[0] != "_"
    ),
)
def test_doubles_are_in_the_documents(name: str) -> None:
    assert mentions(EXTENDING, name)


def mentions(path: Path, name: str) -> bool:
    """Whether a document has a name as code, be it only to import it."""
    code = rf"`[^`\n]*\b{name}\b[^`\n]*`|^from kongai[\w.]* import .*\b{name}\b"
    return re.search(code, text(path), re.MULTILINE) is not None


def test_the_entry_points_group_is_the_one_that_is_read() -> None:
    group = f'[project.entry-points."{registry.PLUGIN_GROUP}"]'
    (shown,) = blocks(EXTENDING, "toml")
    assert shown.startswith(group)
    assert group in text(ROOT / "examples" / "custom_plugin.py")


def test_contributing_has_every_module_and_no_other() -> None:
    table = section(CONTRIBUTING, "Where things are").partition("### ")[0]
    named = set(re.findall(r"`([\w/]+\.py|\w+/)`", table))
    package = ROOT / "kongai"
    modules = {path.name for path in package.glob("[!_]*.py")}
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert named == {*modules, *folders, "bin/"}


def test_contributing_has_every_dependency_with_its_floor() -> None:
    listed = text(ROOT / "pyproject.toml").partition("\ndependencies = [")[2]
    floors = dict(re.findall(r'^    "([\w-]+)>=([\d.]+)",$', listed, re.MULTILINE))
    table = section(CONTRIBUTING, "Dependencies")
    documented = dict(re.findall(r"^\| ([\w-]+) \| ([\d.]+) \|", table, re.MULTILINE))
    tested = listed.partition("]")[0]
    assert documented == {n: floor for n, floor in floors.items() if n in tested}


# The file


@pytest.mark.parametrize(
    ("title", "kind", "beside"),
    [
        ("Service", kongai.Service, {"routes", "plugins"}),
        ("Route", kongai.Route, {"plugins"}),
        ("Upstream", Upstream, {"targets"}),
        ("Target", Target, set()),
        ("Consumer", Consumer, {"keyauth_credentials", "plugins"}),
        ("keyauth_credentials", KeyAuthCredential, set()),
        ("Certificate", Certificate, set()),
        ("CA certificate", CACertificate, set()),
        ("Plugin", PluginEntry, set()),
        *((name, registry.plugin(name).Config, set()) for name in PLUGINS),
    ],
)
def test_keys_are_documented_with_type_and_default(
    title: str, kind: type, beside: set[str]
) -> None:
    documented = {key: row[:2] for key, row in rows(section(CONFIG, title)).items()}
    if title == "Plugin":
        assert documented.pop("config") == ["record", "`{}`"]
    if title == "Upstream":
        # Kong's two dozen of switches, all of which have to be off.
        assert documented.pop("healthchecks") == ["record", "all off"]
        beside = beside | {n for n, _ in keys(kind) if n.startswith("healthchecks.")}
    assert documented == {name: row for name, row in keys(kind) if name not in beside}


_WORDS: dict[type, str] = {
    inspect.AnyType: "any",
    inspect.StrType: "string",
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.BoolType: "boolean",
    inspect.DictType: "map",
    inspect.ListType: "array",
    inspect.VarTupleType: "array",
    inspect.StructType: "string",  # the id of an entity
}


def keys(kind: type, prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    """A struct's keys, those of its records included, as the documents write them."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    for field in info.fields:
        name, found = prefix + field.name, plain(field.type)
        if isinstance(found, inspect.StructType) and not is_entity(found):
            yield from keys(found.cls, f"{name}.")
            continue
        yield name, [word(found), default(field)]
        if isinstance(found, inspect.VarTupleType):
            item = plain(found.item_type)
            if isinstance(item, inspect.StructType) and not is_entity(item):
                yield from keys(item.cls, f"{name}[].")


def is_entity(found: inspect.StructType) -> bool:
    """Whether a file refers to such a record, and has it elsewhere."""
    return found.cls in STRUCTS.values()


def plain(found: inspect.Type) -> inspect.Type:
    if isinstance(found, inspect.UnionType):
        (found,) = (t for t in found.types if not isinstance(t, inspect.NoneType))
    while isinstance(found, inspect.Metadata):
        found = found.type
    return found


def word(found: inspect.Type) -> str:
    if isinstance(found, inspect.LiteralType):
        return "string" if isinstance(found.values[0], str) else "integer"
    return _WORDS[type(found)]


def default(field: inspect.Field) -> str:
    if field.required:
        return "required"
    value = field.default
    return "none" if value is None else f"`{json.dumps(value)}`"


@pytest.mark.parametrize("name", PLUGINS)
def test_plugins_are_documented(name: str) -> None:
    assert f"[`{name}`](#{name})" in rows(section(CONFIG, "Plugin"))["name"][2]


@pytest.mark.parametrize(
    ("key", "names"),
    [("model.provider", [*PROVIDERS]), ("llm_format", registry.format_names())],
)
def test_providers_and_formats_are_documented(key: str, names: list[str]) -> None:
    meaning = rows(section(CONFIG, "ai-proxy"))[key][2]
    assert [name for name in names if f"`{name}`" in meaning] == names


def test_providers_are_documented_with_their_addresses() -> None:
    _, found, table = section(CONFIG, "ai-proxy").partition("\n### Providers\n")
    assert found
    shown = re.findall(r"^\| (\w+) \| `(\S+)` \|", table, re.MULTILINE)
    options = Options(
        azure_instance="INSTANCE",
        azure_deployment_id="ID",
        databricks=Databricks(workspace_instance_id="ID"),
    )
    assert dict(shown) == {
        name: "upstream_url" if row.is_self_hosted(options) else row.url(options)
        for name, row in PROVIDERS.items()
    }


def refused_keys() -> set[str]:
    structs = [registry.plugin(name).Config for name in PLUGINS]
    structs += STRUCTS.values()
    found = {*declaration._ELSEWHERE, *PluginEntry.NOT_HERE}
    while structs:
        kind = structs.pop()
        assert kind is not None
        found |= set(getattr(kind, "NOT_HERE", ()))
        for field in msgspec.structs.fields(kind):
            inner = plain(inspect.type_info(field.type))
            if isinstance(inner, inspect.StructType):
                structs.append(inner.cls)
    return found


@pytest.mark.parametrize("name", sorted(refused_keys()))
def test_what_is_refused_with_a_reason_is_documented(name: str) -> None:
    table = section(CONFIG, "What is refused")
    assert re.search(rf"`(\w+\.)*{name}`", table)


def test_top_level_keys_are_documented() -> None:
    there = {*declaration._KNOWN, *declaration.CHILDREN}
    assert set(rows(section(CONFIG, "Top level"))) == there
    for version in declaration.FORMAT_VERSIONS:
        assert f'`"{version}"`' in section(CONFIG, "Top level")


# The record


def echo(request: UpstreamRequest) -> UpstreamResponse:
    """An `EchoLLM` without a socket."""
    assert not isinstance(request.body, Iterator)
    reply = Client(EchoLLM()).open(
        request.target, method=request.method, data=request.body
    )
    return answer(reply.get_data(), reply.status_code, list(reply.headers))


def howto(sink: ListSink, **settings: Any) -> Proxy:
    """The how-to's gateway with an echo behind it, its log kept in a list."""
    data = yaml.safe_load(text(ROOT / "examples" / "kong.yml"))
    ai_proxy, _ = data["services"][0]["plugins"]
    ai_proxy["config"].update(settings)
    data["services"][0]["plugins"] = [ai_proxy]
    return Proxy.from_config(data, sinks=[sink], transport=MockTransport(echo))


def question(**more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Hello from the documents!"}]
    return {"model": "claude-sonnet-4-5", "messages": messages, **more}


def ask(proxy: Proxy, path: str = "/anything/v1/messages", **options: Any) -> None:
    """One exchange, to its end, whatever that is."""
    options = {"json": question(), **options}
    with Client(proxy).post(path, **options) as reply, suppress(AnswerCut):
        reply.get_data()


def failing(error: UpstreamError) -> MockTransport:
    def fail(request: UpstreamRequest) -> UpstreamResponse:
        raise error

    return MockTransport(fail)


def answering(body: bytes | list[bytes | UpstreamError], kind: str) -> MockTransport:
    return MockTransport(lambda _: answer(body, headers=[("content-type", kind)]))


def ai_proxy() -> kongai.AIProxy:
    return kongai.AIProxy(provider="anthropic", llm_format="anthropic")


@cache
def records() -> ListSink:
    """Records of exchanges that together have every field there is."""
    found = ListSink()
    proxy = howto(found, logging={"log_statistics": True, "log_payloads": True})
    sessions = [{"x-claude-code-session-id": name} for name in ("one", "two")]
    ask(proxy, "/anything/v1/messages?beta=true", headers=sessions[0])
    ask(proxy, headers=sessions[1], json=question(model="claude-opus-4-5"))
    ask(proxy, json=question(stream=True), headers=sessions[1])
    ask(proxy, "/nowhere")
    ask(proxy, json={"model": "claude-sonnet-4-5"})
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 70,
        "cache_creation_input_tokens": 20,
        "output_tokens": 7,
        "output_tokens_details": {"thinking_tokens": 5},
    }
    whole = json.dumps({"model": "claude-sonnet-4-5", "usage": usage}).encode()
    stream = Client(EchoLLM()).post("/v1/messages", json=question(stream=True))
    counted = stream.get_data().partition(b"event: message_delta")[0]
    for transport in (
        answering(whole, "application/json"),
        MockTransport(lambda _: answer(b"no JSON", headers=[("content-length", "7")])),
        MockTransport(lambda _: answer(b"{}", status=400)),
        answering([counted, UpstreamTruncated()], "text/event-stream"),
        failing(UpstreamError(ended="connect", sent=False)),
    ):
        plugins = [ai_proxy()]
        cached = Proxy(plugins=plugins, sinks=[found], transport=transport)
        ask(cached, "/v1/messages", headers=sessions[0])
    known = Proxy(
        [kongai.Service("http://up.test", routes=[kongai.Route(paths=["/"])])],
        plugins=[KeyAuth(), CorrelationId()],
        consumers=[Consumer(username="a", keyauth_credentials=[A_KEY])],
        sinks=[found],
        transport=answering(b"{}", "application/json"),
    )
    ask(known, "/", headers={"apikey": "key-of-a"})
    ask(on_azure(found), "/v1/messages", json=question(top_k=5))
    with pytest.raises(ClientGone):
        ask(Proxy(sinks=[found], plugins=[ai_proxy()], transport=MockTransport(leave)))
    return found


def leave(request: UpstreamRequest) -> UpstreamResponse:
    raise ClientGone


def on_azure(sink: ListSink) -> Proxy:
    """A client of Anthropic's format on one of OpenAI's models."""
    message = {"role": "assistant", "content": "Hello!"}
    usage = {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 1, "audio_tokens": 0},
    }
    said = {"model": "gpt-4.1", "choices": [{"message": message}], "usage": usage}
    options = {"azure_instance": "i", "azure_deployment_id": "d"}
    plugin = kongai.AIProxy(
        provider="azure", llm_format="anthropic", model={"options": options}
    )
    transport = answering(json.dumps(said).encode(), "application/json")
    return Proxy(plugins=[plugin], sinks=[sink], transport=transport)


A_KEY = KeyAuthCredential(key="key-of-a")


_MAPS = {"request.headers", "request.querystring", "response.headers"}
_ENTITIES = {"consumer", "route", "service"}
_DETAILS = {f"ai.proxy.usage.{of}_tokens_details" for of in ("prompt", "completion")}
_OURS = {"cached_tokens", "cache_creation_tokens", "reasoning_tokens"}
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
}


def fields(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a record: a path and a value each, as the documents write them."""
    if isinstance(value, list) and path != "kongai.dropped":
        for item in value:
            yield from fields(item, f"{path}[]")
    elif not isinstance(value, dict):
        yield path, value
    elif path in _ENTITIES:
        yield f"{path}.*", value
    else:
        for name, item in value.items():
            if path in _MAPS or (path in _DETAILS and name not in _OURS):
                name = "*"
            yield from fields(item, f"{path}.{name}" if path else name)


def test_every_field_of_a_record_is_documented_and_the_other_way_round() -> None:
    seen = {path for record in records() for path, _ in fields(record)}
    assert seen == set(documented_fields())


def documented_fields() -> dict[str, list[str]]:
    return rows(text(RECORD).partition("\n## How an exchange ends")[0])


def test_fields_have_the_type_that_is_documented() -> None:
    documented = documented_fields()
    for record in records():
        for path, value in fields(record):
            if path.partition(".")[0] not in _ENTITIES:
                assert type(value) in _TYPES[documented[path][0]], path


def test_the_words_for_an_end_are_the_ones_in_the_code() -> None:
    code = "\n".join(text(path) for path in (ROOT / "kongai").rglob("*.py"))
    words = set(re.findall(r'\bended ?= ?[^,)\n]*?"(\w+)"|otherwise.*"(\w+)"', code))
    used = {first or second for first, second in words}
    assert used == set(rows(section(RECORD, "How an exchange ends")))


_VOLATILE = re.compile(r"\.id$|\.size$|latenc|started_at|\.time_")


def test_the_readme_shows_a_real_answer_and_its_real_record() -> None:
    (curl,) = (block for block in blocks(README, "sh") if block.startswith("curl"))
    _, _, url, _, header, _, body = shlex.split(curl.replace("\\\n", ""))
    base, slash, path = url.partition("/anything")
    shown_answer, shown_record = blocks(README, "json")
    sink = ListSink()
    with Client(howto(sink)).post(
        slash + path,
        base_url=base,
        data=body,
        headers=[tuple(header.split(": "))],
    ) as reply:
        assert reply.get_data(as_text=True) == shown_answer.strip()
    compare(json.loads(shown_record), sink[0])


def compare(shown: Any, real: Any, path: str = "") -> None:
    """Each thing that is shown is there; what differs by nature has the same type."""
    if isinstance(shown, dict):
        for name, value in shown.items():
            compare(value, real[name], f"{path}.{name}")
    elif _VOLATILE.search(path):
        assert isinstance(real, str) == isinstance(shown, str), path
    else:
        assert real == shown, path


# Code and commands


def python_blocks() -> list[Any]:
    return [
        pytest.param(block, id=f"{path.name}-{number}")
        for path in [README, *PAGES]
        for number, block in enumerate(blocks(path, "python"))
    ]


@pytest.mark.parametrize("block", python_blocks())
def test_code_in_documents_runs(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "examples" / "kong.yml", tmp_path)
    monkeypatch.chdir(tmp_path)
    code = compile(block, "a block of the documents", "exec")
    exec(code, {"__name__": "document"})


def jq(title: str, path: Path, log: Path) -> list[Any]:
    """Run the one-liner under a title over a log; its lines of output."""
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    after = text(path).partition(f"\n{title}")[2]
    command = after.partition("```sh\n")[2].partition("```")[0]
    assert "jq " in command
    assert LOG in command
    done = subprocess.run(
        ["sh", "-c", command.replace(LOG, shlex.quote(str(log)))],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log as `file-log` writes it. No two exchanges took the same time."""
    path = tmp_path / "claude.json"
    sink = kongai.FileSink(path)
    for number, record in enumerate(records()):
        taken = {"request": number * 7 % len(records())}
        sink.emit({**record, "latencies": {**record["latencies"], **taken}})
    sink.close()
    return path


def usages() -> list[tuple[dict[str, Any], dict[str, Any], str | None]]:
    found = []
    for record in records():
        proxied = record.get("ai", {}).get("proxy", {})
        if "usage" in proxied:
            session = record["kongai"].get("session")
            found.append((proxied["meta"], proxied["usage"], session))
    return found


def test_jq_adds_up_what_each_model_costs(log: Path) -> None:
    lines = jq("What each model has cost", README, log)
    models = ["claude-opus-4-5", "claude-sonnet-4-5", "gpt-4.1"]
    assert [line["model"] for line in lines] == models
    assert all(line["usd"] > 0 for line in lines)
    for line in lines:
        costs = [
            u["cost"] for m, u, _ in usages() if m["response_model"] == line["model"]
        ]
        assert line["usd"] == pytest.approx(sum(costs))
        assert line["requests"] == len(costs)


def test_jq_lists_the_slowest(log: Path) -> None:
    lines = jq("The slowest five", README, log)
    slowest = len(records()) - 1
    assert [line[0] for line in lines] == [*range(slowest, slowest - 5, -1)]


def test_jq_lists_what_went_wrong(log: Path) -> None:
    lines = jq("What went wrong", README, log)
    assert [line[1:] for line in lines] == [
        [404, "", "no_route"],
        [400, "", "bad_request"],
        [400, "400", "ok"],
        [200, "200", "upstream_cut"],
        [502, ", ".join(["502"] * 6), "connect"],
        [499, "", "client_abort"],
    ]


def test_jq_adds_up_what_each_team_costs(log: Path) -> None:
    nobody, team = jq("What each team has cost", README, log)
    assert nobody == {
        "team": None,
        "usd": pytest.approx(sum(usage["cost"] for _, usage, _ in usages())),
    }
    assert team == {"team": "a", "usd": 0}


def test_jq_counts_tokens_by_day(log: Path) -> None:
    lines = jq("Tokens by day", README, log)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", line["day"]) for line in lines)
    total = sum(usage["total_tokens"] for _, usage, _ in usages())
    assert sum(line["tokens"] for line in lines) == total


def test_jq_tells_the_share_of_cached_tokens(log: Path) -> None:
    one, two = jq("How much of the prompts", README, log)
    prompts = sum(u["prompt_tokens"] for _, u, session in usages() if session == "one")
    assert one == {"session": "one", "cached": pytest.approx(70 / prompts)}
    assert two == {"session": "two", "cached": 0}


def test_jq_adds_up_what_each_session_costs(log: Path) -> None:
    lines = jq("Tokens and dollars of each session", GUIDES[0], log)
    assert [line["session"] for line in lines] == ["one", "two"]
    for line in lines:
        mine = [usage for _, usage, session in usages() if session == line["session"]]
        assert line["requests"] == len(mine)
        assert line["tokens"] == sum(usage["total_tokens"] for usage in mine)
        assert line["usd"] == pytest.approx(sum(usage["cost"] for usage in mine))

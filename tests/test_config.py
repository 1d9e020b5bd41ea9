from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings, strategies as st
from werkzeug.test import Client

from kongai import config, registry
from kongai.config import Config
from kongai.declaration import PARENTS
from kongai.entities import (
    CACertificate,
    Certificate,
    Consumer,
    KeyAuthCredential,
    Route,
    Service,
    Target,
    Upstream,
)
from kongai.errors import ConfigError, Problem
from kongai.identity import entity_id, plugin_id
from kongai.plugin import Plugin
from kongai.plugin_entries import PluginEntry
from kongai.plugins.ai_proxy import AIProxy
from kongai.plugins.file_log import FileLog
from kongai.proxy import Proxy
from kongai.scopes import Scoped
from kongai.testing import MockTransport, answer

HEAD = '_format_version: "3.0"\n'
ID = "9a3ad2ad-7f8e-4b27-8d6a-0e4a3c6f0c11"
LATER = "are not available in this version of kongai"


def problems(text: str) -> list[tuple[int | None, str, str]]:
    """The line, path and message of each problem of a file."""
    with pytest.raises(ConfigError) as caught:
        config.load_text(text)
    return [(p.line, p.path, p.message) for p in caught.value.problems]


def log_paths(plugins: Iterable[Plugin]) -> list[str]:
    return [plugin.config.path for plugin in plugins if isinstance(plugin, FileLog)]


def test_a_file_says_services_routes_and_plugins(tmp_path: Path) -> None:
    path = tmp_path / "kong.yml"
    path.write_text(
        """\
_format_version: "3.0"
_transform: true
_comment: a gateway
_info: {select_tags: [team-a]}
services:
- name: claude
  url: https://api.example:8443/base
  retries: 2
  _comment: the provider
  routes:
  - name: anything
    paths: [/anything, ~/x/(?<id>\\d+)]
    headers: {x-team: [a, b]}
    strip_path: false
    plugins:
    - name: file-log
      _comment: for the auditors
      _ignore: [x]
      instance_name: mine
      config: {path: /tmp/a.json}
routes:
- name: alone
  hosts: ["*.example.com"]
plugins:
- name: ai-proxy
  config:
    route_type: llm/v1/chat
    llm_format: anthropic
    model: {provider: anthropic, options: {anthropic_version: "2023-06-01"}}
"""
    )
    loaded = config.load_file(path)
    (service,), (alone,), (ai_proxy,) = loaded.services, loaded.routes, loaded.plugins
    address = (service.protocol, service.host, service.port, service.path)
    assert address == ("https", "api.example", 8443, "/base")
    assert (service.retries, service.connect_timeout) == (2, 60000)
    (route,) = service.routes
    assert route.paths == ("/anything", r"~/x/(?<id>\d+)")
    assert route.headers == {"x-team": ("a", "b")}
    assert (route.strip_path, route.protocols) == (False, ("http", "https"))
    (file_log,) = route.plugins
    assert isinstance(file_log, FileLog)
    assert (file_log.config.path, file_log.instance_name) == ("/tmp/a.json", "mine")
    assert alone.hosts == ("*.example.com",)
    assert isinstance(ai_proxy, AIProxy)
    assert ai_proxy.config.model.provider == "anthropic"


JSON = """\
{
\t"_format_version": "3.0",
\t"services": [
\t\t{"name": "\\u0061", "url": "http:\\/\\/h", "id": "%s"}
\t]
}
"""


@pytest.mark.parametrize(
    "text",
    [HEAD + "services: [{name: a, host: h, id: %s}]", JSON, JSON.replace("\n", "")],
    ids=["yaml", "json", "json in one line"],
)
def test_yaml_and_json_say_the_same(text: str) -> None:
    (service,) = config.load_text(text % ID).services
    assert (service.name, service.host, service.id) == ("a", "h", ID)


def test_a_mapping_says_the_same_as_a_file() -> None:
    data = {"_format_version": "3.0", "services": [{"name": "a", "host": "h"}]}
    (service,) = config.load_mapping(data).services
    assert (service.name, service.host) == ("a", "h")


@pytest.mark.parametrize("written", [f"{HEAD}services:\n", HEAD, f"---\n{HEAD}"])
def test_a_file_may_say_nothing(written: str) -> None:
    assert config.load_text(written) == Config()


@pytest.mark.parametrize("written", ["foo", "[a]", "5"])
def test_a_file_that_is_no_mapping_is_refused(written: str) -> None:
    ((_, path, message),) = problems(written)
    assert (path, message) == ("", "expected an object")


@pytest.mark.parametrize("written", ["", "---\n", "null", "# just this"])
def test_a_file_without_a_word_lacks_its_version(written: str) -> None:
    ((_, path, message),) = problems(written)
    assert (path, message) == ("_format_version", "required field missing")


def test_a_file_that_is_not_utf_8_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "kong.yml"
    path.write_bytes(b'_format_version: "3.0"\n# \xff\n')
    with pytest.raises(ConfigError) as caught:
        config.load_file(path)
    assert str(caught.value) == f"{path}: the file is not UTF-8 text"


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        config.load_file(tmp_path / "kong.yml")


def test_a_problem_is_said_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "kong.yml"
    path.write_text(f"{HEAD}services:\n- name: a\n  host: h\n  port: x\n")
    with pytest.raises(ConfigError) as caught:
        config.load_file(path)
    assert str(caught.value) == f"{path}:5: services[0].port: expected an integer"


def test_every_problem_is_found_at_once_in_the_order_of_the_file() -> None:
    text = """\
_format_version: "3.5"
_bogus: 1
consumers:
- usrname: c
services:
- name: a b
  host: h
  retries: -1
  routes:
  - name: r
    paths: [/a//b, x, /c]
    methods: [get]
  - name: bare
- url: ftp://h/x
  porrt: 1
  plugins:
  - name: file-logg
  - name: file-log
    config:
      path: "a*"
      reopen: 1
      custom_fields_by_lua: {a: return 1}
  - {}
- name: nowhere
plugins:
- name: ai-proxy
  config:
    route_type: llm/v1/chat
    model: {}
- name: file-log
  service: nope
  config: {path: /tmp/x}
  consumer: c
"""
    names = (
        "invalid value 'a b': the only accepted ascii characters are alphanumerics or "
        "., -, _, and ~"
    )
    start = "should start with: / (fixed path) or ~/ (regex path)"
    no_lua = (
        "kongai runs no Lua; use custom_fields, whose values are constants, "
        "{header: NAME} or {env: NAME}"
    )
    criteria = "must set one of 'methods', 'hosts', 'headers', 'paths', 'snis' when "
    plugins = "services[1].plugins"
    assert problems(text) == [
        (1, "_format_version", "expected one of: 1.1, 2.1, 3.0"),
        (2, "_bogus", "unknown field"),
        (4, "consumers[0].usrname", "unknown field; did you mean 'username'?"),
        (6, "services[0].name", names),
        (8, "services[0].retries", "value should be between 0 and 32767"),
        (11, "services[0].routes[0].paths[1]", start),
        (
            12,
            "services[0].routes[0].methods[0]",
            "invalid value: get; write it in upper case",
        ),
        (13, "services[0].routes[1]", f"{criteria}'protocols' is 'https'"),
        (14, "services[1].url", "expected an http or https URL with a host"),
        (15, "services[1].porrt", "unknown field; did you mean 'port'?"),
        (
            17,
            f"{plugins}[0].name",
            "plugin 'file-logg' not enabled; did you mean 'file-log'?",
        ),
        (20, f"{plugins}[1].config.path", "not a valid filename"),
        (21, f"{plugins}[1].config.reopen", "expected a boolean"),
        (22, f"{plugins}[1].config.custom_fields_by_lua", no_lua),
        (23, f"{plugins}[2].name", "required field missing"),
        (24, "services[2].host", "required field missing"),
        (29, "plugins[0].config.model.provider", "required field missing"),
        (
            31,
            "plugins[1].service",
            "invalid reference 'service: nope' (no such entry in 'services')",
        ),
        (
            33,
            "plugins[1].consumer",
            "invalid reference 'consumer: c' (no such entry in 'consumers')",
        ),
    ]


CASES = yaml.safe_load((Path(__file__).parent / "cases" / "config.yml").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["at"])
def test_what_is_refused(case: dict[str, Any]) -> None:
    head = HEAD if case.get("version", True) else ""
    found = [found[1:] for found in problems(head + case["file"])]
    assert (case["at"], case["says"]) in found


@pytest.mark.parametrize(
    "name", ["consumer_groups", "key_sets", "keys", "partials", "snis", "vaults"]
)
def test_a_section_that_kongai_has_not_is_refused_by_name(name: str) -> None:
    ((line, path, message),) = problems(f"{HEAD}{name}: [{{}}]")
    assert (line, path) == (2, name)
    assert message.startswith(f"'{name}' are not available")
    assert config.load_text(f"{HEAD}{name}: []") == Config()


def test_a_field_that_kongai_has_not_may_be_there_unset() -> None:
    """A dump of a running Kong names every field there is."""
    text = "services: [{name: a, host: h, ca_certificates: null, tls_verify: null}]"
    assert config.load_text(HEAD + text).services[0].host == "h"


def test_an_entity_with_problems_is_still_one_to_refer_to() -> None:
    text = """\
services:
- {name: bad, host: h, port: x}
- {name: worse, url: nothing}
routes:
- {name: r, paths: [/], service: worse}
plugins:
- {name: file-log, service: bad, config: {path: /a}}
"""
    assert [path for _, path, _ in problems(HEAD + text)] == [
        "services[0].port",
        "services[1].url",
    ]


@pytest.mark.parametrize("reference", ["a", "{username: a}", "{name: a}"])
def test_a_consumer_is_referred_to_by_its_username(reference: str) -> None:
    file = (
        '{_format_version: "3.0", consumers: [{username: a}], '
        f"keyauth_credentials: [{{key: k, consumer: {reference}}}]}}"
    )
    (consumer,) = config.load_text(file).consumers
    assert [one.key for one in consumer.keyauth_credentials] == ["k"]


@pytest.mark.parametrize("reference", ["svc", "{name: svc}", ID, f"{{id: {ID}}}"])
def test_a_route_refers_to_its_service_in_kongs_or_decks_way(reference: str) -> None:
    text = f"""\
services:
- {{name: other, host: o}}
- {{name: svc, id: {ID}, host: h}}
routes:
- {{name: r, paths: [/], service: {reference}}}
"""
    loaded = config.load_text(HEAD + text)
    assert [len(service.routes) for service in loaded.services] == [0, 1]
    assert loaded.routes == ()


def placed(scope: str) -> Config:
    text = f"""\
services:
- name: svc
  host: h
  routes:
  - {{name: mine, paths: [/mine]}}
- name: other
  host: h
routes:
- {{name: alone, paths: [/alone]}}
plugins:
- {{name: file-log, {scope}config: {{path: /tmp/x}}}}
"""
    return config.load_text(HEAD + text)


@pytest.mark.parametrize(
    ("scope", "found"),
    [
        ("", {"global"}),
        ("service: null, ", {"global"}),
        ("service: svc, ", {"svc"}),
        ("service: {name: svc}, ", {"svc"}),
        ("route: mine, ", {"mine"}),
        ("route: {name: alone}, ", {"alone"}),
        ("route: mine, service: svc, ", {"mine+svc"}),
        # It never applies, as in Kong.
        ("route: mine, service: other, ", {"mine+other"}),
        ("service: svc, enabled: false, ", set()),
    ],
)
def test_where_a_plugin_of_the_top_level_applies(scope: str, found: set[str]) -> None:
    loaded = placed(scope)
    svc, other = loaded.services
    plugins = {
        "svc": svc.plugins,
        "other": other.plugins,
        "mine": svc.routes[0].plugins,
        "alone": loaded.routes[0].plugins,
    }
    names = {name for name, there in plugins.items() if there}
    ids = {r.id: r.name for r in (*svc.routes, *loaded.routes)}
    ids |= {service.id: service.name for service in (svc, other)}
    for one in loaded.plugins:
        scope = one.scope if isinstance(one, Scoped) else ()
        names.add("+".join(str(ids[id]) for id in scope if id) or "global")
    assert names == found


@pytest.mark.parametrize(
    ("scope", "id"),
    [
        ("", plugin_id("file-log")),
        ("service: svc, ", plugin_id("file-log", service="svc")),
        ("service: {name: svc}, ", plugin_id("file-log", service="svc")),
        (
            "route: mine, service: svc, ",
            plugin_id("file-log", route="mine", service="svc"),
        ),
        (f"id: {ID}, ", ID),
    ],
)
def test_a_plugin_of_the_top_level_has_the_id_of_its_references(
    scope: str, id: str
) -> None:
    loaded = placed(scope)
    service = loaded.services[0]
    found = [*loaded.plugins, *service.plugins, *service.routes[0].plugins]
    assert [one.plugin.id if isinstance(one, Scoped) else one.id for one in found] == [
        id
    ]


def test_a_nested_plugin_has_an_id_of_its_parents_id() -> None:
    text = """\
services:
- name: svc
  host: h
  plugins: [{name: file-log, config: {path: /a}}]
  routes:
  - name: r
    paths: [/]
    plugins: [{name: file-log, config: {path: /b}}]
"""
    (service,) = config.load_text(HEAD + text).services
    assert service.id == entity_id("services", "svc")
    assert service.plugins[0].id == plugin_id("file-log", service=service.id)
    (route,) = service.routes
    assert route.plugins[0].id == plugin_id("file-log", route=route.id or "")


SCOPES = {
    "route and service": "{name: file-log, route: r, service: s, config: {path: %s}}",
    "route": "{name: file-log, route: r, config: {path: %s}}",
    "service": "{name: file-log, service: s, config: {path: %s}}",
    "global": "{name: file-log, config: {path: %s}}",
}


@pytest.mark.parametrize("most", range(len(SCOPES)))
def test_of_one_name_the_plugin_of_the_narrowest_scope_runs(
    most: int, tmp_path: Path
) -> None:
    names = list(SCOPES)[most:]
    logs = tmp_path / "logs"
    logs.mkdir()
    plugins = [SCOPES[name] % (logs / name) for name in reversed(names)]
    file = tmp_path / "kong.yml"
    file.write_text(
        HEAD
        + "services: [{name: s, host: h, routes: [{name: r, paths: [/]}]}]\nplugins:\n"
        + "".join(f"- {plugin}\n" for plugin in plugins)
    )
    transport = MockTransport(lambda request: answer(b"{}"))
    Client(Proxy.from_file(file, transport=transport)).get("/").close()
    assert [path.name for path in logs.iterdir() if path.suffix == ""] == names[:1]


def test_a_disabled_plugin_leaves_its_place_to_a_wider_scope(tmp_path: Path) -> None:
    narrow, wide = tmp_path / "narrow", tmp_path / "wide"
    text = f"""\
routes:
- name: r
  paths: [/]
  plugins: [{{name: file-log, enabled: false, config: {{path: {narrow}}}}}]
plugins: [{{name: file-log, config: {{path: {wide}}}}}]
"""
    loaded = config.load_text(HEAD + text)
    assert log_paths(loaded.routes[0].plugins) == []
    assert log_paths(loaded.plugins) == [str(wide)]


def test_a_disabled_plugin_is_checked_all_the_same() -> None:
    text = "plugins: [{name: file-log, enabled: false, config: {path: 5}}]"
    assert problems(HEAD + text) == [(2, "plugins[0].config.path", "expected a string")]


def test_a_plugin_without_settings_takes_no_config(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Bare(Plugin):
        name = "bare"

    monkeypatch.setattr("kongai.registry.plugin", lambda name: Bare)
    (plugin,) = config.load_text(HEAD + "plugins: [{name: bare}]").plugins
    assert isinstance(plugin, Bare)
    assert problems(HEAD + "plugins: [{name: bare, config: {a: 1}}]") == [
        (2, "plugins[0].config", "plugin 'bare' takes no config")
    ]


SECRET = "sk-ant-3cr3t"
LEAKS = [
    "services: [{name: a, url: 'http://h:%s/'}]",
    "services: [{name: a, url: 'http://[%s'}]",
    "services: [{name: a, host: 'h:%s'}]",
    "services: [{name: a, host: h, path: '/%s?'}]",
    "services: [{name: a, host: h, id: %s}]",
    "services: [{name: a, host: h, %s: 1}]",
    "services: [{name: a, host: h}, {name: b, host: h, tags: ['%s/']}]",
    "services: [{name: %s, host: h}, {name: %s, host: h}]",
    "services: [{name: '%s!', host: h}]",
    "routes: [{paths: ['~/%s(']}]",
    "routes: [{paths: ['/%s/../x']}]",
    "routes: [{hosts: ['%s!']}]",
    "routes: [{headers: {'%s!': [x]}}]",
    "routes: [{methods: ['%s']}]",
    "routes: [{paths: [/], service: %s}]",
    "plugins: [{name: %s}]",
    "plugins: [{name: file-log, config: {path: '%s*'}}]",
    "plugins: [{name: ai-proxy, config: {model: {provider: %s}}}]",
    "plugins: [{name: ai-proxy, config: {%s: {}}}]",
    "%s: 1",
    "a: !%s x",
    "a: *%s",
    "a: [%s",
    "a: '%s",
    "a: 1\n  %s: 2",
    "%%%s",
    "a: %s: b",
]


@pytest.mark.parametrize("line", LEAKS)
def test_a_secret_of_the_environment_is_in_no_message(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECK_KEY", SECRET)
    text = line.replace("%%", "%").replace("%s", '${{ env "DECK_KEY" }}')
    with pytest.raises(ConfigError) as caught:
        config.load_text(HEAD + text + "\n")
    assert "cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None


NOBODY = MockTransport(lambda request: answer(b""))
PEM = (Path(__file__).parent / "certificates" / "authority.pem").read_text()


@pytest.mark.parametrize(
    "line",
    [
        "plugins: [{name: file-log, _config: {auth: %s}}]",
        "services: [{name: a, url: 'https://h', client_certificate: 'A\n\n%s'}]",
        "services: [{name: a, url: 'https://h', ca_certificates: ['A\n\n%s']}]",
        "consumers: [{username: a, keyauth_credentials: {%s: %s}}]",
        "consumers: [{username: a, keyauth_credentials: [%s]}]",
        "consumers: [{username: a, keyauth_credentials: [{apikey: %s}]}]",
        "consumers: [{username: a, keyauth_credentials: [{key: %s}, {key: %s}]}]",
        "certificates: [{cert: %s, key: %s}]",
        "services: [{name: a, host: 'user:%s@h'}]",
        "upstreams: [{name: a.b, targets: [{target: 'user:%s@h'}]}]",
        "plugins: [{name: http-log, config: {http_endpoint: 'ftp://u:%s@h'}}]",
        "plugins: [{name: tcp-log, config: {port: 1, host: 'u:%s@h'}}]",
    ],
)
def test_a_secret_in_a_wrong_place_is_in_no_message(line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load_text(f"{HEAD}{line.replace('%s', SECRET)}\n")
    assert "cr3t" not in str(caught.value)


def test_a_plugin_may_be_for_a_consumer_of_a_service_that_has_no_routes() -> None:
    text = """\
services: [{name: s, host: h}]
consumers: [{username: c}]
plugins: [{name: file-log, service: s, consumer: c, config: {path: /tmp/a}}]
"""
    proxy = Proxy.from_config(config.load_text(HEAD + text), transport=NOBODY)
    assert [plugin.name for plugin in proxy.plugins] == ["file-log"]


KEYS = [
    *("_format_version", "_transform", "_info", "services", "routes", "plugins"),
    *("consumers", "name", "id", "url", "host", "port", "path", "paths", "hosts"),
    *("headers", "methods", "protocols", "service", "route", "consumer", "config"),
    *("enabled", "tags", "model", "provider", "options", "auth", "header_name"),
    *("header_value", "route_type", "llm_format", "logging", "created_at", "reopen"),
    *("keyauth_credentials", "key", "username", "custom_id", "anonymous", "key_names"),
    *("upstreams", "targets", "target", "upstream", "weight", "hash_on", "algorithm"),
    *("hash_on_header", "hash_on_cookie", "hash_fallback", "host_header", "slots"),
    *("healthchecks", "active", "passive", "healthy", "interval", "http_statuses"),
    *("certificates", "ca_certificates", "client_certificate", "cert", "cert_digest"),
    *("tls_verify", "_plugin_configs", "_config", "_comment", "defaults", "snis"),
    *("select_tags", "http_endpoint", "queue", "max_entries", "max_bytes", "timeout"),
    *("custom_fields", "env", "header", "status_code", "body", "content_type", "echo"),
    *("trigger", "allowed_payload_size", "size_unit", "generator", "regex_priority"),
]
WORDS = [
    *("3.0", "a", "http://h/p", "http://[", "h:80", "::1", "1.2.3.4", "*.a", "a.*"),
    *("/", "//", "/é", "/%2", "~/(", "~/a(?<n>b)", "~/[[a]", "~*(", "~*^a", "GET"),
    *("file-log", "ai-proxy", "anthropic", "openai", "llm/v1/chat", "2023-06-01", ""),
    *("{vault://env/x}", "{vault://", "$(headers.x)", "\ud800", "\0", "é"),
    *("key-auth", "http-log", "tcp-log", "correlation-id", "request-termination"),
    *("request-size-limiting", "ai-statistics", "consumer", "cookie", "query_arg"),
    *("http://u:p@h/p", "[::1]:80", "a.b:8001", "least-connections", "r\r\nb"),
    *("~/a(?<uri_postfix>b)", "/tmp/x", "https", "tracker", "kilobytes", "PATH"),
    *(PEM, "-----BEGIN PRIVATE KEY-----", "-----BEGIN CERTIFICATE-----"),
]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, 8000, 1])
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(max_size=4)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=5
        )
        | st.dictionaries(st.integers() | st.none() | st.floats(), inner, max_size=1)
    ),
    max_leaves=15,
)


def records(
    struct: Any, **fields: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    """Mappings with the struct's fields, of which those that are given are so."""
    known = dict.fromkeys(struct.__struct_fields__, VALUES) | fields
    return st.dictionaries(st.sampled_from(sorted(known)), VALUES, max_size=3).flatmap(
        lambda given: st.fixed_dictionaries(
            {name: st.just(value) for name, value in given.items()}
            | {name: value | LEAVES for name, value in fields.items()}
        )
    )


def entities(
    struct: Any, **fields: st.SearchStrategy[Any]
) -> st.SearchStrategy[list[Any]]:
    return st.lists(records(struct, **fields) | VALUES, max_size=2)


NAMES = st.sampled_from(["a", "b", "h", None])
REFERENCES = NAMES | st.fixed_dictionaries({"name": NAMES}) | VALUES


def plugin_entries(name: str) -> st.SearchStrategy[dict[str, Any]]:
    settings = registry.plugin(name).Config
    return records(
        PluginEntry,
        name=st.just(name),
        config=records(settings) | VALUES,
        **dict.fromkeys(PARENTS["plugins"], REFERENCES),
    )


PLUGINS = st.lists(
    st.one_of(*map(plugin_entries, registry.plugin_names())) | VALUES, max_size=2
)
ROUTES = entities(
    Route,
    name=NAMES,
    paths=st.lists(LEAVES, max_size=2),
    hosts=st.lists(LEAVES, max_size=2),
    headers=st.dictionaries(st.text(max_size=2), st.lists(LEAVES, max_size=2)),
    plugins=PLUGINS,
    service=REFERENCES,
)
SERVICES = entities(
    Service,
    name=NAMES,
    host=NAMES,
    routes=ROUTES,
    plugins=PLUGINS,
    client_certificate=REFERENCES,
    ca_certificates=st.lists(REFERENCES, max_size=2),
)
CREDENTIALS = entities(KeyAuthCredential, key=LEAVES, consumer=REFERENCES)
CONSUMERS = entities(
    Consumer, username=NAMES, keyauth_credentials=CREDENTIALS, plugins=PLUGINS
)
TARGETS = entities(Target, target=LEAVES, upstream=REFERENCES)
UPSTREAMS = entities(Upstream, name=NAMES, targets=TARGETS)
DOCUMENTS = st.fixed_dictionaries(
    {"_format_version": st.sampled_from(["3.0", "1.1"])},
    optional={
        "services": SERVICES,
        "routes": ROUTES,
        "plugins": PLUGINS,
        "consumers": CONSUMERS,
        "keyauth_credentials": CREDENTIALS,
        "upstreams": UPSTREAMS,
        "targets": TARGETS,
        "certificates": entities(Certificate, cert=st.just(PEM), key=LEAVES, id=NAMES),
        "ca_certificates": entities(CACertificate, cert=st.just(PEM), id=NAMES),
        "_info": VALUES,
        "_plugin_configs": VALUES,
    },
) | st.dictionaries(st.sampled_from(KEYS), VALUES)


def loaded_or_refused(
    load: Callable[[Any], Config], given: Any
) -> tuple[Config | None, list[Problem]]:
    """What a configuration says, or else what is wrong with it; nothing else."""
    try:
        return load(given), []
    except ConfigError as error:
        return None, error.problems


@settings(max_examples=150, deadline=None)
@given(DOCUMENTS)
@example({"services": [{"name": "\ud800", "host": "h"}], "_format_version": "3.0"})
@example({"routes": [{"hosts": ["a:" + "9" * 5000]}], "_format_version": "3.0"})
@example({"routes": [{"paths": ["~/a{99999999999}"]}], "_format_version": "3.0"})
@example({"routes": [{"headers": {"x": ["~*("]}}], "_format_version": "3.0"})
@example({"routes": [{"paths": ["~/(?<uri_postfix>a)"]}], "_format_version": "3.0"})
@example({"plugins": [{"name": "http-log", "config": {"timeout": 10**400}}]})
@example(
    {"plugins": [{"name": "file-log", "config": {"custom_fields": {"9" * 5000: []}}}]}
)
@example(
    {
        "plugins": [
            {
                "name": "tcp-log",
                "config": {
                    "host": "h",
                    "port": 1,
                    "custom_fields": {"a": {"env": "\ud800"}},
                },
            }
        ]
    }
)
def test_any_mapping_loads_or_is_refused_with_paths(data: dict[Any, Any]) -> None:
    loaded, found = loaded_or_refused(config.load_mapping, data)
    assert all(problem.path for problem in found)
    if loaded is None:
        assert found
        return
    # What was accepted can be used, unless plugins do not fit together.
    with suppress(ConfigError):
        Proxy.from_config(loaded, transport=NOBODY).close()


FRAGMENTS = [
    *(HEAD, "services:\n", "- ", "name: a\n", "host: h\n", "routes:\n", "&a ", "*a"),
    *("<<: ", "{", "}", "[", "]", ": ", ", ", "'", '"', "\n", "  ", "# ", "|\n", ">"),
    *("!!int ", "!!bool ", "!!float ''", "!x ", "? ", "~", "=", "\t", "%YAML 1.1\n"),
    *('${{ env "DECK_A" }}', "${{", "}}", "---\n", "...\n", "2020-01-01", "0x1g"),
    *("1_0", ".inf", "1:60", "-", "@", "`", "\\u", "\ufeff", "\0", "\ud800", "\x85"),
]


@settings(max_examples=250, deadline=None)
@given(
    st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=25).map("".join)
)
@example(f"{HEAD}x: !!bool maybe\n")
@example(f"{HEAD}x: !!int ''\n")
def test_any_text_loads_or_is_refused(text: str) -> None:
    loaded, found = loaded_or_refused(config.load_text, text)
    assert (loaded is None) == bool(found)
    lines = [problem.line for problem in found if problem.line is not None]
    assert all(1 <= line <= len(text) + 1 for line in lines)


def test_a_config_tells_where_its_parts_are_declared(tmp_path: Path) -> None:
    path = tmp_path / "kong.yml"
    path.write_text(
        HEAD
        + "services:\n- name: s\n  host: h\n  plugins:\n"
        + "  - {name: file-log, config: {path: /tmp/a}}\n"
    )
    loaded = config.load_file(path)
    (service,) = loaded.services
    assert loaded.origins[service.id or ""] == f"{path}:3"
    assert loaded.origins[service.plugins[0].id] == f"{path}:6"
    data = {"_format_version": "3.0", "services": [{"name": "s", "host": "h"}]}
    assert [*config.load_mapping(data).origins.values()] == ["services[0]"]

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from kongai import config, registry
from kongai.cli import main
from kongai.errors import ConfigError
from kongai.json_schema import schema

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.yml"))
VALIDATOR = jsonschema.Draft7Validator(schema())


def refused(data: Any) -> list[str]:
    """Where an editor would underline something."""
    return sorted(_deepest(error) for error in VALIDATOR.iter_errors(data))


def _deepest(error: Any) -> str:
    while error.context:
        error = max(error.context, key=lambda one: len(one.absolute_path))
    return ".".join(map(str, error.absolute_path))


def document(**sections: Any) -> dict[str, Any]:
    return {"_format_version": "3.0", **sections}


def test_it_is_a_schema_and_the_command_prints_it() -> None:
    jsonschema.Draft7Validator.check_schema(schema())
    printed = CliRunner().invoke(main, ["schema"])
    assert json.loads(printed.output) == schema()
    assert printed.exit_code == 0


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_as_it_says(path: Path) -> None:
    assert refused(yaml.safe_load(path.read_text("utf-8"))) == []


GOOD = [
    document(),
    document(
        services=[
            {
                "name": "s",
                "url": "https://h/p",
                "retries": None,
                "_comment": "x",
                "routes": [{"paths": ["~/a"], "service": None, "plugins": []}],
                "plugins": [
                    {"name": "file-log", "config": {"path": "/tmp/a", "reopen": True}}
                ],
            }
        ],
        consumers=[{"username": "c", "keyauth_credentials": [{"key": "k"}, {}]}],
    ),
    document(routes=[{"paths": ["/"], "service": {"id": "x"}, "sources": None}]),
    document(routes=[{"methods": ["GET", "GET"]}], plugins=None),
    document(
        upstreams=[{"name": "u", "targets": [{"target": "h:1", "weight": 5}]}],
        targets=[{"target": "h:2", "upstream": "u"}],
        services=[{"name": "s", "host": "u", "ca_certificates": None}],
    ),
]


@pytest.mark.parametrize("data", GOOD)
def test_what_is_right_is_right_for_both(data: Any) -> None:
    assert refused(data) == []
    if "service" not in data.get("routes", [{}])[0]:
        config.load_mapping(data)


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ({"services": []}, ""),
        (document(bogus=1), ""),
        (document(services=[{"host": "h", "bogus": 1}]), "services.0"),
        (document(services=[{"host": "h", "retries": -1}]), "services.0.retries"),
        (document(services=[{"host": "h", "enabled": None}]), "services.0.enabled"),
        (document(services=[{"name": "a/b", "host": "h"}]), "services.0.name"),
        (document(routes=[{"paths": ["x"]}]), "routes.0.paths.0"),
        (document(routes=[{"protocols": ["ws"]}]), "routes.0.protocols.0"),
        (document(routes=[{"sources": ["x"]}]), "routes.0.sources"),
        (document(plugins=[{"name": "nope"}]), "plugins.0.name"),
        (document(upstreams=[{"name": "u", "slots": 1}]), "upstreams.0.slots"),
        (document(upstreams=[{"targets": []}]), "upstreams.0"),
        (
            document(services=[{"host": "h", "client_certificate": 5}]),
            "services.0.client_certificate",
        ),
        (
            document(plugins=[{"name": "file-log", "config": {"path": "a*"}}]),
            "plugins.0.config.path",
        ),
        (
            document(plugins=[{"name": "file-log", "config": {"pth": "/a"}}]),
            "plugins.0.config",
        ),
    ],
)
def test_what_is_wrong_is_wrong_for_both(data: Any, place: str) -> None:
    assert place in refused(data)
    with pytest.raises(ConfigError):
        config.load_mapping(data)


def test_each_plugin_has_its_own_settings() -> None:
    names = [
        rule["if"]["properties"]["name"]["const"]
        for rule in schema()["definitions"]["PluginEntry"]["allOf"]
    ]
    assert names == [n for n in registry.plugin_names() if registry.plugin(n).Config]


def test_a_secret_may_come_from_the_vault() -> None:
    settings = {
        "route_type": "llm/v1/chat",
        "llm_format": "anthropic",
        "auth": {"header_name": "x-api-key", "header_value": "{vault://env/key}"},
        "model": {"provider": "anthropic", "options": {"anthropic_version": "x"}},
    }
    assert refused(document(plugins=[{"name": "ai-proxy", "config": settings}])) == []

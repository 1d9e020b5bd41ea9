from __future__ import annotations

from typing import Any

import pytest

from kongai.declaration import Declared, flatten
from kongai.schema import Path


def read(data: Any) -> tuple[dict[str, list[Declared]], list[tuple[Path, str]]]:
    problems: list[tuple[Path, str]] = []
    found = flatten(data, lambda path, text: problems.append((path, text)))
    return found, problems


def document(**sections: Any) -> dict[str, Any]:
    return {"_format_version": "3.0", **sections}


def test_what_stands_inside_comes_out_with_its_parent_and_its_place() -> None:
    found, problems = read(
        document(
            services=[
                {
                    "name": "s",
                    "routes": [{"name": "r", "plugins": [{"name": "p"}]}],
                    "plugins": [{"name": "q"}],
                }
            ],
            upstreams=[{"name": "u", "targets": [{"target": "h:1"}]}],
            consumers=[{"username": "c", "keyauth_credentials": [{"key": "k"}]}],
        )
    )
    assert problems == []
    (service,), (route,) = found["services"], found["routes"]
    assert (service.item, route.item) == ({"name": "s"}, {"name": "r"})
    assert (service.parent, route.parent) == (None, service)
    assert route.path == ("services", 0, "routes", 0)
    assert [plugin.parent for plugin in found["plugins"]] == [route, service]
    assert [one.item for one in service.inside("plugins")] == [{"name": "q"}]
    (target,), (key,) = found["targets"], found["keyauth_credentials"]
    assert (target.parent, key.parent) == (found["upstreams"][0], found["consumers"][0])


def test_comments_are_left_out_everywhere() -> None:
    found, problems = read(
        document(
            _comment="x", services=[{"_comment": "y", "_ignore": [1], "host": "h"}]
        )
    )
    assert (found["services"][0].item, problems) == ({"host": "h"}, [])


def test_an_empty_table_is_an_empty_section() -> None:
    found, problems = read(document(services={}, routes=None, plugins=[]))
    assert not any(found.values())
    assert problems == []


@pytest.mark.parametrize(
    ("data", "path", "text"),
    [
        ("x", (), "expected an object"),
        ({}, ("_format_version",), "required field missing"),
        (None, ("_format_version",), "required field missing"),
        (document(services={"a": 1}), ("services",), "expected an array"),
        (document(services=["a"]), ("services", 0), "expected a record"),
        (
            document(services=[{"routes": 5}]),
            ("services", 0, "routes"),
            "expected an array",
        ),
        (document(bogus=1), ("bogus",), "unknown field"),
        (document(_info=5), ("_info",), "expected a record"),
        (
            document(_info={"defaults": {"service": 5}}),
            ("_info", "defaults", "service"),
            "expected a map",
        ),
    ],
)
def test_what_can_not_be_taken_apart(data: Any, path: Path, text: str) -> None:
    assert (path, text) in read(data)[1]


def test_decks_defaults_are_those_of_entities_that_say_nothing_else() -> None:
    defaults = {"service": {"retries": 1, "port": 9}, "target": {"weight": 7}}
    found, problems = read(
        document(
            _info={"defaults": defaults},
            services=[{"host": "h", "retries": 3}],
            routes=[{"paths": ["/"]}],
            targets=[{"target": "h"}],
        )
    )
    assert problems == []
    assert found["services"][0].item == {"host": "h", "retries": 3, "port": 9}
    assert found["routes"][0].item == {"paths": ["/"]}
    assert found["targets"][0].item == {"target": "h", "weight": 7}


def test_decks_select_tags_are_tags_of_everything() -> None:
    found, _ = read(
        document(
            _info={"select_tags": ["team"]},
            services=[{"host": "h", "tags": ["a"], "routes": [{}]}],
            consumers=[{"username": "c", "tags": "wrong"}],
        )
    )
    assert found["services"][0].item["tags"] == ["a", "team"]
    assert found["routes"][0].item["tags"] == ["team"]
    assert found["consumers"][0].item["tags"] == "wrong"


def test_a_plugin_may_take_its_settings_from_decks_shared_ones() -> None:
    found, problems = read(
        document(
            _plugin_configs={"log": {"path": "/a", "reopen": True}},
            plugins=[{"name": "file-log", "_config": "log", "config": {"path": "/b"}}],
        )
    )
    assert problems == []
    assert found["plugins"][0].item == {
        "name": "file-log",
        "config": {"path": "/b", "reopen": True},
    }


@pytest.mark.parametrize("version", ["1.1", "2.1"])
def test_a_file_of_an_old_format_does_not_mark_its_regexes(version: str) -> None:
    paths = ["/plain-1.2_~", "/a.*", "/x\\d+$", "/(a)", "/a%20b", 5]
    data = {"_format_version": version, "routes": [{"paths": paths}]}
    (route,) = read(data)[0]["routes"]
    assert route.item["paths"] == [
        *("/plain-1.2_~", "~/a.*", "~/x\\d+$", "~/(a)", "/a b", 5)
    ]
    (route,) = read(document(routes=[{"paths": ["/a.*"]}]))[0]["routes"]
    assert route.item["paths"] == ["/a.*"]

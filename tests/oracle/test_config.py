"""Files, one mistake or one subtlety each: taken or refused, where, and as what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from kongai import config
from kongai.errors import ConfigError
from kongai.plugin import Plugin
from kongai.scopes import Scoped

from .cases import Area, load

CASES = load("config_cases.json")
AREA = Area("config")
COVERED: set[str] = set()
_NOT_COMPARED = {"created_at", "updated_at", "routes", "plugins", "url"}


@pytest.mark.parametrize("area", sorted({case["area"] for case in CASES}))
def test_files_are_taken_or_refused_as_by_kong(area: str) -> None:
    lines = [
        line
        for case in CASES
        if case["area"] == area
        for line in AREA.unexplained(case["name"], *decisions(case))
    ]
    COVERED.add(area)
    assert not lines, "\n".join(lines)


def test_every_difference_is_still_there() -> None:
    if {case["area"] for case in CASES} <= COVERED:
        assert AREA.idle() == []


def decisions(case: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    kong, kongai = kongs(case), ours(case)
    if kong["accepted"] != kongai["accepted"]:
        return {"accepted": kong["accepted"]}, {"accepted": kongai["accepted"]}
    return kong, kongai


def kongs(case: dict[str, Any]) -> dict[str, Any]:
    if not case["accepted"]:
        places = {_place(error["path"]) for error in case["errors"] or ()}
        # Where Kong crashed, or refused the whole file, there is no place to compare.
        somewhere = case["crash"] or not places or places == {"error"}
        return {"accepted": False, "places": None if somewhere else sorted(places)}
    entities = {
        f"{kind}.{_key(kind, entity)}.{name}": _comparable(value)
        for kind, by_id in case["entities"].items()
        for entity in by_id.values()
        for name, value in entity.items()
        if name not in _NOT_COMPARED and value is not None and kind != "plugins"
        if value != "<generated-key>"
    }
    return {"accepted": True, **entities}


def ours(case: dict[str, Any]) -> dict[str, Any]:
    try:
        found = config.load_text(case["yaml"])
    except ConfigError as error:
        expected = kongs(case)
        places = sorted({_index_free(p.path) for p in error.problems})
        known = expected.get("places")
        # More problems than Kong found, or the same ones at the field itself instead of
        # at its owner, are no difference.
        met = known is None or all(_met(place, places) for place in known)
        return {"accepted": False, "places": known if met else places}
    return {"accepted": True, **dict(entities(found))}


def entities(found: config.Config) -> Iterator[tuple[str, Any]]:
    for service in found.services:
        yield from fields("services", service)
        for route in service.routes:
            yield from fields("routes", route, service={"id": service.id})
    for route in found.routes:
        yield from fields("routes", route)
    for consumer in found.consumers:
        yield from fields("consumers", consumer)
        for credential in consumer.keyauth_credentials:
            yield from fields(
                "keyauth_credentials", credential, consumer={"id": consumer.id}
            )
    for upstream in found.upstreams:
        yield from fields("upstreams", upstream)
        for target in upstream.targets:
            yield from fields("targets", target, upstream={"id": upstream.id})


def fields(kind: str, entity: Any, **more: Any) -> Iterator[tuple[str, Any]]:
    said = {**msgspec.to_builtins(_plain(entity)), **more}
    for name, value in said.items():
        if name not in _NOT_COMPARED and value is not None:
            yield f"{kind}.{_key(kind, said)}.{name}", _comparable(value)


def _plain(entity: Any) -> dict[str, Any]:
    children = {"routes", "plugins", "keyauth_credentials", "targets"}
    return {
        name: value
        for name, value in msgspec.structs.asdict(entity).items()
        if name not in children
    }


def _key(kind: str, entity: dict[str, Any]) -> str:
    name = {"keyauth_credentials": "key", "targets": "target"}.get(kind)
    found = entity.get(name) if name else entity.get("name") or entity.get("username")
    return "?" if found in (None, "<generated-key>") else str(found)


def _comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _comparable(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_comparable(item) for item in value]
    if isinstance(value, str) and (value.startswith("<random") or _is_random(value)):
        return "<random>"
    return value


def _is_random(value: str) -> bool:
    """Ids that were made up are of version 4."""
    return re.fullmatch("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f-]{21}", value) is not None


def _place(path: str) -> str:
    """A place in the file, numbers left out: Kong's count from 1, ours from 0."""
    path = path.replace(".@entity", "")
    # Of an entity with a name, Kong tells the name and how many problems it has.
    path = re.sub(r"^(\w+)\.[^\[]+(\[\d+\])?\Z", r"\1", path)
    return _index_free(path)


def _index_free(path: str) -> str:
    return re.sub(r"\[\d+\]", "", path)


def _met(place: str, places: list[str]) -> bool:
    return any(
        one == place or one.startswith(f"{place}.") or place.startswith(f"{one}.")
        for one in places
    )


def plugins(found: config.Config) -> Iterator[Plugin]:
    for one in found.plugins:
        yield one.plugin if isinstance(one, Scoped) else one
    for holder in (*found.services, *found.consumers, *found.routes):
        yield from holder.plugins
    for service in found.services:
        for route in service.routes:
            yield from route.plugins


def every(found: config.Config) -> Iterator[Any]:
    for service in found.services:
        yield service
        yield from service.routes
    for upstream in found.upstreams:
        yield upstream
        yield from upstream.targets
    yield from (*found.routes, *found.consumers)


IDS = load("ids.json")


@pytest.mark.parametrize("index", range(len(IDS["configs"])))
def test_ids_are_those_that_kong_makes(index: int) -> None:
    """An id that is not random is the same in every Kong, and here."""
    found = config.load_text(IDS["configs"][index])
    made = {entity.id for entity in every(found)}
    made |= {plugin.id for plugin in plugins(found)}
    wanted = {
        row["id"]
        for row in IDS["ids"]
        if row["config_index"] == index and row["deterministic"]
    }
    assert wanted <= made

"""Services and routes made ready for a gateway: checked, and with ids and dates.

What a file gives was checked where its lines are known; what a script makes by hand is
checked here, by the same rules.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from kongai.entities import Route, Service
from kongai.errors import ConfigError, Problem
from kongai.identity import entity_id
from kongai.schema import Path, load

E = TypeVar("E", Service, Route)

_KINDS = {Service: "services", Route: "routes"}
_CHILDREN = ("url", "routes", "plugins")


def paired(
    services: Sequence[Service], routes: Sequence[Route]
) -> list[tuple[Route, Service | None]]:
    """Each route with its service, in order.

    Args:
        services: each with its routes.
        routes: those without a service.

    Raises:
        ConfigError: an entity has a wrong value, or two routes have one name.
    """
    pairs = list(_pairs(services, routes))
    names = [route.name for route, _ in pairs if route.name is not None]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            [Problem("routes", f"two routes named '{name}'") for name in twice]
        )
    return pairs


def _pairs(
    services: Sequence[Service], routes: Sequence[Route]
) -> Iterator[tuple[Route, Service | None]]:
    for index, service in enumerate(services):
        path: Path = ("services", index)
        _check(service, path)
        owner = identified(service)
        for number, route in enumerate(service.routes):
            _check(route, (*path, "routes", number))
            yield identified(route), owner
    for index, route in enumerate(routes):
        _check(route, ("routes", index))
        yield identified(route), None


def identified(entity: E) -> E:
    """The entity with an id and dates: its own, or those Kong would give it."""
    now = int(time.time())
    return msgspec.structs.replace(
        entity,
        id=entity.id or entity_id(_KINDS[type(entity)], entity.name),
        created_at=entity.created_at or now,
        updated_at=entity.updated_at or now,
    )


def _check(entity: Service | Route, path: Path) -> None:
    given: dict[str, Any] = {
        name: value
        for name, value in msgspec.structs.asdict(entity).items()
        if value is not None and name not in _CHILDREN
    }
    load(type(entity), given, path, elsewhere=_CHILDREN)

"""Routes, services and consumers as records have them.

They don't change as long as their gateway lives, so each is made once for it, also as
the text that stands in every line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import finalize

import msgspec

from kongai.consumers import NOBODY
from kongai.entities import CACertificate, Certificate, Consumer, Route, Service
from kongai.sinks import encode

if TYPE_CHECKING:
    from kongai.exchange import Exchange

WORKSPACE = "0dc6f45b-8f8d-40d2-a504-473544ee190b"
"""The id of Kong's default workspace, the same in every Kong."""

_NOT_LOGGED = {"url", "routes", "plugins", "keyauth_credentials"}
_MOST_KEPT = 10_000


class Known(NamedTuple):
    """Members of a record that are the same for all exchanges of a kind."""

    of: tuple[Route | Consumer, Service | None]
    """Whose they are; kept, so that nothing else gets its place in memory."""
    members: dict[str, Any]
    texts: dict[str, msgspec.Raw]
    """Each of the members as JSON, in ASCII."""


class Entities:
    """The entities of one gateway, each as records have it."""

    def __init__(self) -> None:
        self._known: dict[int, Known] = {}

    def matched(self, route: Route, service: Service | None) -> Known:
        """The members `route` and, if it has one, `service`."""
        found = self._known.get(id(route))
        if found is None or found.of[1] is not service:
            members = {"route": route_fields(route, service)}
            if service is not None:
                members["service"] = entity_fields(service)
            found = self._kept(route, service, members)
        return found

    def consumer(self, consumer: Consumer) -> Known:
        """The member `consumer`."""
        found = self._known.get(id(consumer))
        return found or self._kept(consumer, None, {"consumer": _fields(consumer)})

    def _kept(
        self,
        entity: Route | Consumer,
        service: Service | None,
        members: dict[str, Any],
    ) -> Known:
        if len(self._known) >= _MOST_KEPT:
            self._known.clear()
        texts = {
            name: msgspec.Raw(encode(member)[:-1]) for name, member in members.items()
        }
        made = self._known[id(entity)] = Known((entity, service), members, texts)
        return made


def of(exchange: Exchange) -> Entities:
    """The entities of an exchange's gateway."""
    gateway = exchange.consumers
    if gateway is NOBODY:
        # An exchange without a gateway: what it has would be kept for ever.
        return Entities()
    found = _ENTITIES.get(id(gateway))
    if found is None:
        found = _ENTITIES[id(gateway)] = Entities()
        finalize(gateway, _ENTITIES.pop, id(gateway), None).atexit = False
    return found


# By the gateway's directory of consumers, which lives exactly as long as the gateway.
# Its place in memory stands for it: a `WeakKeyDictionary` makes two calls to find it.
_ENTITIES: dict[int, Entities] = {}


def route_fields(route: Route, service: Service | None) -> dict[str, Any]:
    """A route as records have it."""
    entity = entity_fields(route)
    if service is not None:
        entity["service"] = {"id": service.id}
    return entity


def _plain(value: Any) -> Any:
    """A value as JSON has it: no tuples, and of certificates their ids."""
    if isinstance(value, (str, int)):
        # Nearly all of them, and the other questions take long.
        return value
    if isinstance(value, Certificate):
        return {"id": value.id}
    if isinstance(value, CACertificate):
        return value.id
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def entity_fields(entity: Service | Route) -> dict[str, Any]:
    """A service or a route as records have it, without what belongs to it."""
    return {**_fields(entity), "ws_id": WORKSPACE}


def _fields(entity: Service | Route | Consumer) -> dict[str, Any]:
    return {
        name: _plain(value)
        for name in entity.__struct_fields__
        if name not in _NOT_LOGGED and (value := getattr(entity, name)) is not None
    }

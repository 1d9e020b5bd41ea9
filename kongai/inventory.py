"""What a gateway is made of, made ready: checked, with ids and dates, scopes in ids.

What a file gives was checked where its lines are known; what a script makes by hand is
checked here, by the same rules.
"""

from __future__ import annotations

import secrets
import string
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from kongai.consumers import Consumers
from kongai.entities import (
    STRUCTS,
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
from kongai.load_balancing import LoadBalancer
from kongai.plugin import Plugin
from kongai.schema import Path, check, load, path_text
from kongai.scopes import Scoped

E = TypeVar(
    "E",
    CACertificate,
    Certificate,
    Consumer,
    KeyAuthCredential,
    Route,
    Service,
    Target,
    Upstream,
)

_KINDS = {struct: kind for kind, struct in STRUCTS.items()}
_CHILDREN = (
    *("url", "routes", "plugins", "keyauth_credentials", "targets"),
    *("ca_certificates", "client_certificate"),
)
_KEY_LETTERS = string.ascii_letters + string.digits
_KEY_LENGTH = 32


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
    names = Counter(route.name for route, _ in pairs if route.name is not None)
    twice = sorted(name for name, number in names.items() if number > 1)
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
        owner = _with_certificates(identified(service))
        for number, route in enumerate(service.routes):
            _check(route, (*path, "routes", number))
            yield identified(route), owner
    for index, route in enumerate(routes):
        _check(route, ("routes", index))
        yield identified(route), None


def _with_certificates(service: Service) -> Service:
    """The service with certificates that are checked and have ids."""
    shown, several = service.client_certificate, service.ca_certificates
    for certificate in (shown, *(several or ())):
        if certificate is not None:
            _check(certificate, ("certificates",))
    return msgspec.structs.replace(
        service,
        client_certificate=None if shown is None else identified(shown),
        ca_certificates=several and tuple(identified(one) for one in several),
    )


def directory(consumers: Sequence[Consumer]) -> Consumers:
    """The consumers of a gateway.

    Raises:
        ConfigError: a consumer has a wrong value, or two have one name or key.
    """
    names: set[str] = set()
    keys: set[str] = set()
    for index, consumer in enumerate(consumers):
        path: Path = ("consumers", index)
        _check(consumer, path)
        if consumer.username is not None and consumer.username in names:
            text = f"two consumers named '{consumer.username}'"
            raise ConfigError([Problem("consumers", text)])
        names.add(consumer.username or "")
        for number, credential in enumerate(consumer.keyauth_credentials):
            if credential.key and credential.key in keys:
                where = path_text((*path, "keyauth_credentials", number, "key"))
                raise ConfigError([Problem(where, "another credential has this key")])
            keys.add(credential.key or "")
    return Consumers(with_credentials(identified(one)) for one in consumers)


def balancers(upstreams: Sequence[Upstream]) -> dict[str, LoadBalancer]:
    """What shares out the requests for each upstream, by the upstream's name.

    Raises:
        ConfigError: an upstream has a wrong value, or two have one name.
    """
    found: dict[str, LoadBalancer] = {}
    for index, upstream in enumerate(upstreams):
        path: Path = ("upstreams", index)
        _check(upstream, path)
        for number, target in enumerate(upstream.targets):
            _check(target, (*path, "targets", number))
        if upstream.name in found:
            text = f"two upstreams named '{upstream.name}'"
            raise ConfigError([Problem("upstreams", text)])
        found[upstream.name] = LoadBalancer(upstream)
    return found


def scoped(
    pairs: Iterable[tuple[Route, Service | None]],
    consumers: Consumers,
    plugins: Iterable[Plugin | Scoped],
    unused: Iterable[Service] = (),
) -> Iterator[Scoped]:
    """Every plugin of a gateway, with what it is for in ids.

    Args:
        pairs: routes with their services, which have plugins of their own.
        consumers: likewise.
        plugins: those for everything, or for what they name.
        unused: services without routes, for which there may be plugins all the same.

    Raises:
        ConfigError: a plugin is for something that is not there.
    """
    pairs = list(pairs)
    services = list({id(s): s for _, s in pairs if s is not None}.values())
    routes = [route for route, _ in pairs]
    for route in routes:
        for plugin in route.plugins:
            yield from _placed(plugin, "route", route.id)
    for service in services:
        for plugin in service.plugins:
            yield from _placed(plugin, "service", service.id)
    for consumer in consumers:
        for plugin in consumer.plugins:
            yield from _placed(plugin, "consumer", consumer.id)
    known = [*services, *map(identified, unused)]
    ids = {
        "route": {name: r.id for r in routes for name in (r.id, r.name)},
        "service": {name: s.id for s in known for name in (s.id, s.name)},
        "consumer": {name: c.id for c in consumers for name in (c.id, c.username)},
    }
    for index, given in enumerate(plugins):
        if not isinstance(given, Scoped):
            yield from _placed(given)
            continue
        scope = given.scope.given()
        _name(given.plugin, scope)
        found = {kind: ids[kind].get(name) for kind, name in scope.items()}
        missing = [kind for kind, value in found.items() if value is None]
        if missing:
            text = f"there is no {missing[0]} '{scope[missing[0]]}'"
            raise ConfigError([Problem(f"plugins[{index}].{missing[0]}", text)])
        yield Scoped(given.plugin, **found)


def _placed(plugin: Any, kind: str = "", owner: str | None = None) -> Iterator[Scoped]:
    scope = {kind: owner} if kind and owner else {}
    if isinstance(plugin, Plugin):
        _name(plugin, scope)
    yield Scoped(plugin, **scope)


def _name(plugin: Plugin, scope: dict[str, str]) -> None:
    plugin.id = plugin.id or plugin_id(plugin.name, **scope)


def identified(entity: E, key: str | None = None) -> E:
    """The entity with an id and dates: its own, or those Kong would give it.

    Args:
        entity: the entity.
        key: what its id is made from, where that is not its name.
    """
    now = int(time.time())
    key = _name_of(entity) if key is None else key
    given = {
        "id": entity.id or entity_id(_KINDS[type(entity)], key),
        "created_at": entity.created_at or now,
    }
    if "updated_at" in entity.__struct_fields__:
        given["updated_at"] = getattr(entity, "updated_at", None) or now
    return msgspec.structs.replace(entity, **given)


def _name_of(entity: Any) -> str | None:
    names = (getattr(entity, field, None) for field in ("name", "username"))
    return next((name for name in names if name is not None), None)


def with_credentials(consumer: Consumer) -> Consumer:
    """The consumer with ids, dates and keys for its credentials, where they lack."""
    return msgspec.structs.replace(
        consumer,
        keyauth_credentials=tuple(
            identified(
                msgspec.structs.replace(
                    credential, key=credential.key or _made_up_key()
                )
            )
            for credential in consumer.keyauth_credentials
        ),
    )


def _made_up_key() -> str:
    return "".join(secrets.choice(_KEY_LETTERS) for _ in range(_KEY_LENGTH))


def _check(entity: Any, path: Path) -> None:
    given = {
        name: msgspec.to_builtins(value) if isinstance(value, msgspec.Struct) else value
        for name, value in msgspec.structs.asdict(entity).items()
        if value is not None and name not in _CHILDREN
    }
    load(type(entity), given, path, elsewhere=_CHILDREN)
    problems: list[Problem] = []
    check(entity, path, lambda at, text: problems.append(Problem(path_text(at), text)))
    if problems:
        raise ConfigError(problems)

"""Ids of entities, as Kong's DB-less mode makes them.

A service or route with a name has the same id in every load and in every Kong; one
without a name gets a random id. Ids of plugins follow from their name and scope.
"""

from __future__ import annotations

import uuid

_ROOT = uuid.UUID("fd02801f-0957-4a15-a55a-c8d9606f30b5")


def entity_id(kind: str, key: str | None) -> str:
    """The id of an entity.

    Args:
        kind: ``services``, ``routes``, ``consumers``, ...
        key: the entity's name; None for one without.
    """
    if key is None:
        return str(uuid.uuid4())
    return str(uuid.uuid5(uuid.uuid5(_ROOT, kind), key))


def plugin_id(
    name: str, *, route: str = "", service: str = "", consumer: str = ""
) -> str:
    """The id of a plugin.

    Args:
        name: the plugin's name.
        route: its route: the id for a plugin written inside the route, or else the
            reference as written; empty for none.
        service, consumer: likewise.
    """
    return entity_id("plugins", f"plugins:*:{name}:{route}:{service}:{consumer}")


def target_key(upstream: str, target: str) -> str:
    """What the id of a target is made from.

    Args:
        upstream: the upstream's id for a target written inside it, or else the
            reference as written.
        target: the target as written.
    """
    return f"targets:*:{upstream}:{target}"

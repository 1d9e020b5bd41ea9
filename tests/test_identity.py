from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from kongai.identity import entity_id, plugin_id

# Ids that a Kong 3.10 in DB-less mode gave to entities of these names.
IDS = json.loads((Path(__file__).parent / "data" / "ids.json").read_text("utf-8"))


@pytest.mark.parametrize(("kind", "name", "id"), IDS["entities"])
def test_a_name_has_the_same_id_in_every_kong(kind: str, name: str, id: str) -> None:
    assert entity_id(kind, name) == id


@pytest.mark.parametrize(("name", "route", "service", "id"), IDS["plugins"])
def test_a_plugins_id_follows_from_its_name_and_scope(
    name: str, route: str, service: str, id: str
) -> None:
    assert plugin_id(name, route=route, service=service) == id


def test_what_has_no_name_has_a_new_id_each_time() -> None:
    first, second = entity_id("routes", None), entity_id("routes", None)
    assert first != second
    assert uuid.UUID(first).version == uuid.UUID(second).version == 4

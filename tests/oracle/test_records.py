"""Kong's records, field by field, against ours of the same exchanges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kongai import registry

from .cases import Area, load
from .sinks import run, without_ids

CASES: list[dict[str, Any]] = [
    case
    for case in load("plugin_cases.json")["log_sinks"]
    if case["file_log_records"]
    or any(request["body"] for request in case["http_sink_requests"])
    or any(isinstance(record, dict) for record in case["tcp_records"])
]
AREA = Area("records")
RAN: set[str] = set()


@pytest.mark.skipif(
    "key-auth" not in registry.plugin_names(), reason="the cases authenticate"
)
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_records_have_kongs_fields(case: dict[str, Any], tmp_path: Path) -> None:
    arrived = run(case, tmp_path / "log.json")
    RAN.add(case["name"])
    lines = []
    for name, kong, ours in (
        ("file", case["file_log_records"] or [], arrived.file),
        ("http", [r["body"] for r in case["http_sink_requests"]], arrived.bodies),
        ("tcp", case["tcp_records"], arrived.lines),
    ):
        pairs = zip(_single(kong), _single(ours), strict=False)
        for index, (theirs, own) in enumerate(pairs):
            if isinstance(theirs, dict):
                where = f"{case['name']} {name} {index}"
                lines += AREA.unexplained(where, without_ids(theirs), own)
    assert lines == []


def test_every_difference_is_one() -> None:
    if len(RAN) == len(CASES):
        assert AREA.idle() == []


def _single(bodies: list[Any]) -> list[Any]:
    """The records of all bodies, of batches too."""
    return [
        record
        for body in bodies
        for record in (body if isinstance(body, list) else [body])
    ]

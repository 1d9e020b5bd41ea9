"""Kong's deliveries to sinks, case by case, against ours to the same sinks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .cases import Area, load
from .sinks import Arrived, run

CASES: list[dict[str, Any]] = load("plugin_cases.json")["log_sinks"]
AREA = Area("log_sinks")
RAN: set[str] = set()


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_sinks_are_sent_what_kong_sends(case: dict[str, Any], tmp_path: Path) -> None:
    arrived = run(case, tmp_path / "log.json")
    RAN.add(case["name"])
    assert AREA.unexplained(case["name"], kongs(case), ours(arrived)) == []
    # Kong keeps its connection over the cases; a gateway of ours is made for each.
    assert arrived.connections <= 1


def test_every_difference_is_one() -> None:
    if len(RAN) == len(CASES):
        assert AREA.idle() == []


def kongs(case: dict[str, Any]) -> dict[str, Any]:
    """A case's outcome, by names."""
    found: dict[str, Any] = {"count": case["http_sink_request_count"]}
    for index, request in enumerate(case["http_sink_requests"]):
        found |= {
            f"{index}.line": request["request_line"],
            f"{index}.headers": shown(request["headers"]),
            f"{index}.kind": request["body_is"],
            f"{index}.statuses": request["statuses"],
        }
    lines = case["tcp_records"]
    found["tcp"] = [
        one if isinstance(one, int) else one["response"]["status"] for one in lines
    ]
    return found


def ours(arrived: Arrived) -> dict[str, Any]:
    """What arrived, by the same names."""
    found: dict[str, Any] = {"count": len(arrived.requests)}
    for index, (request, body) in enumerate(
        zip(arrived.requests, arrived.bodies, strict=True)
    ):
        several = isinstance(body, list)
        found |= {
            f"{index}.line": f"{request.method} {request.target} HTTP/1.1",
            f"{index}.headers": shown(list(map(list, request.headers))),
            f"{index}.kind": "array" if several else "dict",
            f"{index}.statuses": [
                one["response.status"] for one in (body if several else [body])
            ],
        }
    found["tcp"] = [record["response.status"] for record in arrived.lines]
    return found


def shown(headers: list[list[str]]) -> dict[str, str]:
    """A request's headers without what is different each time."""
    masks = {"content-length": "<n>", "host": "HTTPSINK"}
    found = {name.lower(): value for name, value in headers}
    found |= {name: mask for name, mask in masks.items() if name in found}
    del found["user-agent"]  # each says its own name
    return found

"""Many at once: streams that are busy, streams that are silent, short requests."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.harness import Gateway

from .bookkeeping import Books, books, log_files
from .children import Load, MockLLM
from .conftest import StartGateway, report, seconds
from .measures import KIB, MIB, cpu_seconds, machine, memory, probing

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]


def recorded(gateway: Gateway, model: MockLLM, count: int) -> Books:
    """What is on record, once it is all there."""
    gateway.records(count)
    return books([], model.ledger, log_files(gateway.log_path))


def summary(found: dict[str, Any], key: str) -> str:
    """The middle, the 99th percentile and the greatest, in milliseconds."""
    return " / ".join(f"{value:.1f}" for value in found[key].values()) + " ms"


def test_busy_streams(model: MockLLM, start: StartGateway) -> None:
    """Not an event is lost or out of turn, and none is much later than without us."""
    count, rate = 300, 20
    events = round(seconds(60) * rate)
    options = {"count": count, "pause": 1 / rate, "path": "/v1/messages"}
    with Load("streams", model.url, **options, events=min(events, 200)) as load:
        load.said()
        direct = load.said()
    model.ledger.write_bytes(b"")
    gateway = start()
    options["path"] = "/claude/v1/messages"
    with (
        Load("streams", gateway.url, **options, events=events) as load,
        probing(gateway) as probe,
    ):
        began = cpu_seconds(gateway)
        load.said()
        found = load.said()
        cpu = (cpu_seconds(gateway) - began) / found["pieces"] * 1e6
    book = recorded(gateway, model, count)
    added = {
        name: found["delay_ms"][name] - direct["delay_ms"][name]
        for name in ("p50", "p99")
    }
    report(
        "busy streams",
        f"{count} streams, {found['pieces']} events, {found['lost']} lost, "
        f"{found['disorder']} out of turn; event p50 / p99 / max "
        f"{summary(found, 'delay_ms')} (direct {summary(direct, 'delay_ms')}); "
        f"{cpu:.0f} us of CPU per event ({machine()}); lag {probe}",
    )
    assert found["ends"] == {"complete": count}
    assert (found["lost"], found["disorder"]) == (0, 0)
    assert (len(book.records), book.lost, book.doubled, book.torn) == (count, [], [], 0)
    for [record] in book.records.values():
        usage = record["ai"]["proxy"]["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (119, events)
        assert record["kongai"]["ended"] == "ok"
    # Of a machine that does other things as well; the figures are in the report.
    assert added["p50"] < 50
    assert cpu < 200


def test_silent_streams(model: MockLLM, start: StartGateway) -> None:
    """A stream that waits costs little memory, and nobody else any time."""
    count, silence = 1000, seconds(60)
    gateway = start()
    with Load("streams", gateway.url, events=1) as load:
        load.said()
        load.said()
    before, options = memory(gateway), {"first": silence, "ramp": 5.0, "events": 2}
    with Load("streams", gateway.url, count=count, **options) as load:
        opened = load.said()
        with probing(gateway) as probe:
            each = (memory(gateway) - before) / count
            found = load.said()
    gateway.records(count + 1)
    report(
        "silent streams",
        f"{count} streams, {silence:.0f} s; {each / KIB:.1f} KiB per stream "
        f"({before / MIB:.1f} MiB before); head p50 / p99 / max "
        f"{summary(opened, 'heads_ms')}; lag {probe}",
    )
    assert found["ends"] == {"complete": count}
    assert each <= 60 * KIB
    assert opened["heads_ms"]["p99"] < 1000
    assert len(books([], model.ledger, log_files(gateway.log_path)).records) == count


def test_short_requests(model: MockLLM, start: StartGateway) -> None:
    """Twenty that ask all the time, and one alone."""
    gateway = start()
    alone = {"count": 1, "seconds": seconds(10)}
    with Load("requests", model.url, path="/v1/messages", **alone) as load:
        direct = load.said()
    with Load("requests", gateway.url, **alone) as load:
        through = load.said()
    model.ledger.write_bytes(b"")
    before = len(gateway.records(through["asked"]))
    began = cpu_seconds(gateway)
    with Load("requests", gateway.url, count=20, seconds=seconds(60)) as load:
        found = load.said()
    cpu = (cpu_seconds(gateway) - began) / found["asked"] * 1e6
    records = gateway.records(before + found["asked"])
    added = through["taken_ms"]["p50"] - direct["taken_ms"]["p50"]
    report(
        "short requests",
        f"20 clients: {found['per_second']} requests/s, p50 / p99 / max "
        f"{summary(found, 'taken_ms')}, {cpu:.0f} us of CPU per request "
        f"({machine()}); one client: "
        f"{added:.2f} ms added at p50 ({summary(direct, 'taken_ms')} direct)",
    )
    assert found["ends"] == {"complete": found["asked"]}
    assert len(records) == before + found["asked"]
    assert len({record["request"]["id"] for record in records}) == len(records)
    # Of a machine that does other things as well; the figures are in the report.
    assert found["per_second"] > 100
    assert added < 10

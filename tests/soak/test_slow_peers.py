"""Clients that are slow on purpose hold up nobody, and cost little."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.live.harness import Gateway

from .children import Load, MockLLM
from .conftest import StartGateway, report, seconds
from .measures import MIB, Probe, memory, probing

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]
SLOWHTTPTEST = shutil.which("slowhttptest") or ""
MODES = {
    "slow heads": ("-H", "-i", "5", "-x", "24", "-t", "GET", "/claude"),
    "slow bodies": ("-B", "-i", "5", "-s", "8192", "-x", "10", "/claude/v1/messages"),
    "slow readers": (
        *("-X", "-w", "10", "-y", "20", "-n", "5", "-z", "32"),
        "/plain/v1/messages?events=60000",
    ),
}


def measured(gateway: Gateway, length: float, probe: Probe) -> int:
    """The most memory that the gateway has, while there is somebody else as well."""
    until, most = time.monotonic() + length, 0
    while time.monotonic() < until and not probe.failed:
        most = max(most, memory(gateway))
        time.sleep(0.1)
    return most


@pytest.mark.skipif(not SLOWHTTPTEST, reason="slowhttptest is not installed")
@pytest.mark.parametrize("mode", MODES)
def test_slow_clients(
    model: MockLLM, start: StartGateway, mode: str, tmp_path: Path
) -> None:
    gateway, count, length = start(), 500, seconds(60)
    *options, path = MODES[mode]
    command = [SLOWHTTPTEST, *options, "-u", gateway.url + path]
    command += ["-c", str(count), "-r", "200", "-l", str(round(length)), "-p", "5"]
    with probing(gateway, "/plain", 0.02) as usual:
        time.sleep(2)
    before = memory(gateway)
    with (
        (tmp_path / "said.txt").open("wb") as said,
        probing(gateway, "/plain") as probe,
        probing(gateway) as lag,
    ):
        attack = subprocess.Popen(command, stdout=said, stderr=said)
        try:
            most = measured(gateway, length, probe)
        finally:
            attack.kill()
            attack.wait()
    report(
        mode,
        f"{count} clients, {length:.0f} s; another client p50 / p99 / max {probe} "
        f"({usual} without them), lag {lag}; memory +{(most - before) / MIB:.1f} MiB",
    )
    assert usual.taken
    assert lag.p99 < 100
    assert probe.p99 < max(100, 10 * usual.p99)
    assert most - before < 30 * MIB


def test_readers_that_sip(model: MockLLM, start: StartGateway) -> None:
    """Streams that come faster than their readers read are not kept in memory."""
    gateway, count, length = start(), 50, seconds(60)
    with probing(gateway, "/plain", 0.02) as usual:
        time.sleep(2)
    before = memory(gateway)
    with (
        Load("drip", gateway.url, count=count, rate=1024) as load,
        probing(gateway, "/plain") as probe,
        probing(gateway) as lag,
    ):
        load.said()
        most = measured(gateway, length, probe)
        found = load.stop()
    report(
        "readers of 1 KB/s",
        f"{count} clients, {length:.0f} s, {found['read']['p50']:.0f} bytes read; "
        f"another client p50 / p99 / max {probe} ({usual} without them), lag {lag}; "
        f"memory +{(most - before) / MIB:.1f} MiB",
    )
    assert found["read"]["p50"] > 1024
    assert lag.p99 < 100
    assert probe.p99 < max(100, 10 * usual.p99)
    assert most - before < 20 * MIB

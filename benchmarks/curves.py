"""How the cost of a request grows: with its body, its stream, routes and plugins.

nginx is measured beside each point, also where there is nothing that grows for it: its
line shows how steady the machine was.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.figures import Curve, Figure
from benchmarks.gateways import (
    Gateway,
    kongai_config,
    kongai_environment,
)
from benchmarks.processes import running_on
from benchmarks.stage import Stage
from benchmarks.workloads import Workload, long_body, small_body

BODY_SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 30_000_000)
STREAM_LENGTHS = (10, 100, 1_000, 10_000, 100_000)
ROUTES = (1, 10, 100, 1_000, 10_000)
PLUGINS = tuple(range(11))

_LARGE = 1_000_000
_LONG = 10_000
_START_SECONDS = 120.0
_SMALL = Workload(
    name="json", title="JSON answer", body=small_body(20), tokens=20, connections=16
)
_PLUGIN = """\
from kongai import Plugin


class _Nothing(Plugin):
    def access(self, exchange):
        return None

    def header_filter(self, exchange):
        return None

    def log(self, exchange):
        return None


"""
_PLUGIN_CLASS = """\
class Nothing{number}(_Nothing):
    name = "nothing-{number}"
    priority = {priority}


"""
_MATCH = """\
import json, sys, time
from kongai import Proxy
config, path = json.load(open(sys.argv[1])), sys.argv[2]
router = Proxy.from_config(config).router
def once(time_number):
    # No two are alike, so that no answer can be one that is remembered.
    paths = [f"{path}/{time_number}/{number}" for number in range(2000)]
    began = time.process_time()
    for each in paths:
        found = router.match("POST", "benchmark.test", each, {})
    assert found is not None
    return (time.process_time() - began) / len(paths)
print(min(once(number) for number in range(7)) * 1e6)
"""


def body_curve(stage: Stage, *, seconds: float) -> Curve:
    """The cost by the size of the request's body."""
    curve = Curve("body-size", "Request bodies", "bytes of the body")
    gateways: tuple[Gateway, ...] = (stage.nginx(), stage.kongai())
    for size in BODY_SIZES:
        workload = Workload(
            name=f"body-{size}",
            title=f"body of {size} bytes",
            body=long_body(20, size),
            tokens=20,
            connections=16 if size < _LARGE else 2,
        )
        _add(stage, curve, gateways, workload, size, seconds)
    _stop(gateways)
    return curve


def stream_curve(stage: Stage, *, seconds: float) -> Curve:
    """The cost by the length of the answer's stream."""
    curve = Curve("stream-length", "Streams", "events of the stream")
    gateways: tuple[Gateway, ...] = (stage.nginx(), stage.kongai())
    for tokens in STREAM_LENGTHS:
        workload = Workload(
            name=f"stream-{tokens}",
            title=f"stream of {tokens} events",
            body=small_body(tokens, streamed=True),
            tokens=tokens,
            streamed=True,
            connections=16 if tokens < _LONG else 2,
        )
        _add(stage, curve, gateways, workload, tokens, seconds)
    _stop(gateways)
    return curve


def route_curve(stage: Stage, *, seconds: float) -> Curve:
    """The cost by the number of routes, the request's being the last."""
    curve = Curve("routes", "Routes, each with a path", "routes")
    nginx = stage.nginx()
    for count in ROUTES:
        directory = stage.new_directory("kongai")
        config = kongai_config(
            directory / "records.json", stage.upstream, paths=_paths(count)
        )
        kongai = stage.kongai(config, directory=directory, wait=_START_SECONDS)
        kongai.path = f"{_paths(count)[-1]}/v1/messages"
        _add(stage, curve, (nginx, kongai), _SMALL, count, seconds)
        kongai.stop()
    nginx.stop()
    return curve


def plugin_curve(stage: Stage, *, seconds: float) -> Curve:
    """The cost by the number of plugins that do nothing, beside ai-proxy and file-log.

    Each of them has the phases access, header_filter and log.
    """
    curve = Curve("plugins", "Plugins that do nothing", "plugins", logarithmic=False)
    nginx = stage.nginx()
    for count in PLUGINS:
        directory = stage.new_directory("kongai")
        directory.mkdir()
        _install_plugins(directory, count)
        config = kongai_config(
            directory / "records.json",
            stage.upstream,
            plugins=[f"nothing-{number}" for number in range(count)],
        )
        kongai = stage.kongai(config, directory=directory)
        _add(stage, curve, (nginx, kongai), _SMALL, count, seconds)
        kongai.stop()
    nginx.stop()
    return curve


def matching(stage: Stage) -> list[Figure]:
    """How long it takes to find the last of many routes, apart from all else.

    Raises:
        BenchmarkError: the router could not be asked.
    """
    found = {count: _match(stage, count) for count in ROUTES}
    figures = [
        Figure(f"finding the last of {count:,} routes", found[count], "us")
        for count in ROUTES
    ]
    growth = found[ROUTES[-1]] / found[ROUTES[1]]
    name = f"{ROUTES[-1]:,} routes to {ROUTES[1]}"
    return [*figures, Figure(name, growth, "x", 2.0)]


def _match(stage: Stage, count: int) -> float:
    directory = stage.new_directory("routes")
    directory.mkdir()
    path = directory / "kong.json"
    config = kongai_config(
        directory / "records.json", stage.upstream, paths=_paths(count)
    )
    path.write_text(json.dumps(config), "utf-8")
    with running_on(stage.gateway_cpus):
        done = subprocess.run(  # noqa: S603
            [stage.python, "-c", _MATCH, str(path), f"{_paths(count)[-1]}/v1/messages"],
            env=kongai_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise BenchmarkError(f"can't ask kongai's router:\n{done.stderr[-2000:]}")
    return float(done.stdout)


def _paths(count: int) -> list[str]:
    return [f"/route-{number:05}" for number in range(count)]


def _install_plugins(directory: Path, count: int) -> None:
    """Put a module with plugins, and what makes them known, where Python looks."""
    classes = (
        _PLUGIN_CLASS.format(number=number, priority=500 + number)
        for number in range(count)
    )
    (directory / "nothing.py").write_text(_PLUGIN + "".join(classes), "utf-8")
    told = directory / "nothing-1.0.dist-info"
    told.mkdir()
    metadata = "Metadata-Version: 2.1\nName: nothing\nVersion: 1.0\n"
    (told / "METADATA").write_text(metadata, "utf-8")
    entries = "".join(
        f"nothing-{number} = nothing:Nothing{number}\n" for number in range(count)
    )
    (told / "entry_points.txt").write_text(f"[kongai.plugins]\n{entries}", "utf-8")


def _add(
    stage: Stage,
    curve: Curve,
    gateways: tuple[Gateway, ...],
    workload: Workload,
    x: float,
    seconds: float,
) -> None:
    told = []
    for gateway in gateways:
        measured = stage.measure(gateway, workload, seconds, warm_up=seconds / 4)
        cost = measured.microseconds()
        curve.add(gateway.name, x, cost)
        told.append(f"{gateway.name} {cost:,.0f} us")
    stage.say(f"{curve.title}, {x:,.0f} {curve.x}: {', '.join(told)}")


def _stop(gateways: tuple[Gateway, ...]) -> None:
    for gateway in gateways:
        gateway.stop()

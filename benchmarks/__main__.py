"""The command line: `python -m benchmarks`, in the project's directory."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from benchmarks import chart, report
from benchmarks.comparison import compare
from benchmarks.curves import (
    body_curve,
    matching,
    plugin_curve,
    route_curve,
    stream_curve,
)
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Results
from benchmarks.gateways import Gateway, kongai_environment
from benchmarks.latency import added_latency
from benchmarks.machine import describe, nginx_command, processors
from benchmarks.peers import PEERS
from benchmarks.processes import allow_many_connections
from benchmarks.stage import Stage
from benchmarks.starting import start
from benchmarks.streams import STREAMS, open_streams
from benchmarks.workers import scaling
from benchmarks.workloads import comparison

PARTS = ("table", "latency", "streams", "start", "workers", "curves")
_ROWS = [workload.name for workload in comparison()]


def _names(known: Sequence[str]) -> Callable[..., list[str]]:
    """Reads an option that is a list with commas."""

    def read(context: click.Context, option: click.Parameter, text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        for name in names:
            if name not in known:
                raise click.BadParameter(f"{name!r} is none of {', '.join(known)}.")
        return names

    return read


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("parts", nargs=-1, type=click.Choice([*PARTS, "all"]))
@click.option(
    "--rounds",
    default=5,
    show_default=True,
    type=click.IntRange(1),
    help="How often the gateways take turns.",
)
@click.option(
    "--seconds",
    default=3.0,
    show_default=True,
    type=click.FloatRange(0.2),
    help="How long each gateway is measured each time, after a second of warm-up.",
)
@click.option(
    "--python",
    default=sys.executable,
    metavar="PATH",
    help="The interpreter that runs kongai; by default the one that runs this.",
)
@click.option(
    "--only",
    default="",
    callback=_names(_ROWS),
    metavar="ROWS",
    help=f"Rows of the table, with commas: {', '.join(_ROWS)}.",
)
@click.option(
    "--with",
    "peers",
    default="",
    callback=_names(list(PEERS)),
    metavar="PEERS",
    help="Other gateways for the table, with commas: "
    f"{', '.join(PEERS)}. They are installed when they are needed.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="A directory for results.json, results.md and the charts.",
)
def main(
    parts: tuple[str, ...],
    rounds: int,
    seconds: float,
    python: str,
    only: list[str],
    peers: list[str],
    output: Path | None,
) -> None:
    """Measure what kongai costs, as a multiple of what nginx costs.

    PARTS are what to measure; without any it is the table.

    \b
    table    CPU per request beside nginx, in turns
    latency  how much later an answer comes through kongai
    streams  1,000 open streams: memory, and how long others wait
    start    import, start, memory at rest
    workers  two workers beside one
    curves   cost by size of body, length of stream, routes, plugins
    all      each of these

    Every answer and every record is checked meanwhile. Exits with 0 if all were right,
    whether or not the budgets are met, with 1 if one was wrong or the run could not
    go on.
    """
    # As Ctrl-C does, this unwinds whatever has been started.
    before = signal.signal(signal.SIGTERM, _stop)
    chosen = PARTS if "all" in parts else tuple(p for p in PARTS if p in parts)
    try:
        results = _run(
            chosen or ("table",), rounds, seconds, python, only, peers, output
        )
    except BenchmarkError as error:
        click.echo(f"benchmarks: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("benchmarks: interrupted; nothing is left running", err=True)
        sys.exit(130)
    finally:
        signal.signal(signal.SIGTERM, before)
    click.echo()
    click.echo(report.markdown(results))
    if output is not None:
        for path in _write(results, output):
            click.echo(f"wrote {path}", err=True)


def _run(
    parts: Sequence[str],
    rounds: int,
    seconds: float,
    python: str,
    only: list[str],
    peers: list[str],
    output: Path | None,
) -> Results:
    if output is not None:
        _prepare(output)
    nginx_command()
    descriptors = allow_many_connections()
    found = processors()
    results = Results(
        describe(python, kongai_environment()), {"rounds": rounds, "seconds": seconds}
    )
    if found.warning:
        results.notes.append(found.warning)
    if "streams" in parts and descriptors < 5 * STREAMS:
        raise BenchmarkError(
            f"{STREAMS} streams need more open files than {descriptors}; raise the "
            "limit: ulimit -Hn 16384"
        )
    for note in results.notes:
        _say(f"note: {note}")
    commands = {name: PEERS[name].install(_say) for name in peers}
    with Stage(python, found, _say) as stage:
        if "table" in parts:
            _table(stage, results, rounds, seconds, only, commands)
        if "latency" in parts:
            _say("latency")
            kongai = stage.kongai()
            results.figures["Added latency"] = added_latency(
                stage, kongai, rounds=rounds, seconds=seconds
            )
            kongai.stop()
        if "streams" in parts:
            _say(f"{STREAMS} open streams")
            results.figures["Open streams"] = open_streams(stage, seconds=seconds)
        if "start" in parts:
            _say("start")
            results.figures["Start and rest"] = start(stage)
        if "workers" in parts:
            _say("workers")
            results.figures["Workers"] = scaling(stage, rounds=rounds, seconds=seconds)
        if "curves" in parts:
            for curve in (body_curve, stream_curve, route_curve, plugin_curve):
                results.curves.append(curve(stage, seconds=seconds))
            results.figures["Finding a route"] = matching(stage)
        results.records = stage.records_checked
        if complaints := stage.complaints:
            results.notes.append(
                f"kongai wrote {len(complaints)} lines to standard error, the first of "
                f"them: {complaints[0]}"
            )
    return results


def _table(
    stage: Stage,
    results: Results,
    rounds: int,
    seconds: float,
    only: list[str],
    commands: dict[str, Sequence[str]],
) -> None:
    workloads = [w for w in comparison() if not only or w.name in only]
    kongai = stage.kongai()
    gateways: list[Gateway] = [stage.nginx(), kongai]
    for name, command in commands.items():
        _say(f"starting {name}")
        gateways.append(PEERS[name].start(stage, command))
    results.rows = compare(
        stage,
        gateways,
        workloads,
        rounds=rounds,
        seconds=seconds,
        tolerant=frozenset(commands),
    )
    results.notes += [
        f"{name} fails with '{row.name}': {cost.problem}"
        for row in results.rows
        for name, cost in row.costs.items()
        if cost.problem is not None
    ]
    for gateway in gateways:
        gateway.stop()


def _prepare(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchmarkError(f"can't make {output}: {error.strerror}") from None


def _write(results: Results, output: Path) -> list[Path]:
    files = {
        "results.json": json.dumps(results.as_dict(), indent=2, allow_nan=False) + "\n",
        "results.md": report.markdown(results),
    }
    if results.rows:
        files["table.svg"] = chart.bars(results.rows)
    for curve in results.curves:
        files[f"{curve.name}.svg"] = chart.lines(curve)
    paths = []
    for name, text in files.items():
        path = output / name
        path.write_text(text, "utf-8")
        paths.append(path)
    return paths


def _say(text: str) -> None:
    click.echo(text, err=True)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")

"""What the benchmark sends, checks and draws. Nothing is timed here."""

from __future__ import annotations

import asyncio
import copy
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from benchmarks import chart, report
from benchmarks.__main__ import main
from benchmarks.answers import PROMPT_TOKENS, answer
from benchmarks.errors import BenchmarkError, CheckFailed
from benchmarks.figures import Cost, Curve, Figure, Results, Row
from benchmarks.gateways import (
    PROJECT,
    kongai_config,
    nginx_config,
    start_kongai,
    whole_answer,
    with_probe,
)
from benchmarks.load import ClosedLoop, OpenLoop, exactly, percentile, request_bytes
from benchmarks.loop import run
from benchmarks.machine import cpu_list, processors
from benchmarks.mock import parts
from benchmarks.peers.installed import complete
from benchmarks.processes import Process, free_port, wait_for
from benchmarks.records import RecordLog, problems_of
from benchmarks.workloads import (
    MODEL,
    Workload,
    claude_code_body,
    comparison,
    long_body,
    small_body,
)
from kongai import Proxy

JSON, STREAM, *_ = comparison()
CPUS = frozenset(os.sched_getaffinity(0))


# What is sent


@pytest.mark.parametrize("workload", comparison(), ids=lambda w: w.name)
def test_each_request_says_what_the_model_is_to_write(workload: Workload) -> None:
    request = json.loads(workload.body)
    assert request["max_tokens"] == workload.tokens
    assert request.get("stream", False) == workload.streamed
    assert request["model"] == MODEL


def test_sizes_are_what_the_titles_say() -> None:
    sizes = {workload.name: len(workload.body) for workload in comparison()}
    assert sizes == {
        "json": 200,
        "stream-20": 200,
        "stream-200": 200,
        "claude-code": 115_000,
        "paced": 200,
    }


def test_the_large_request_has_the_shape_of_claude_codes() -> None:
    request = json.loads(claude_code_body(20))
    assert [block["type"] for block in request["system"]] == ["text"] * 3
    assert all("cache_control" in block for block in request["system"])
    assert len(request["tools"]) == 24
    assert {tool["input_schema"]["type"] for tool in request["tools"]} == {"object"}
    # The tools are most of it, as they are there.
    assert len(json.dumps(request["tools"])) > 70_000


@pytest.mark.parametrize("size", [1_000, 10_000, 100_000, 1_000_000])
def test_bodies_of_the_curve_have_their_size(size: int) -> None:
    body = long_body(20, size)
    assert len(body) == size
    roles = [message["role"] for message in json.loads(body)["messages"]]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]


def test_a_body_that_can_not_be_so_small_is_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        small_body(20, size=50)


# What is answered


def test_a_stream_has_an_event_for_each_token() -> None:
    text = answer(MODEL, 20, streamed=True).body.decode()
    events = [json.loads(line[6:]) for line in text.splitlines() if line[:5] == "data:"]
    kinds = [event["type"] for event in events]
    assert kinds[0] == "message_start"
    assert kinds.count("content_block_delta") == 20
    assert kinds[-1] == "message_stop"
    assert events[-2]["usage"] == {"output_tokens": 20}


@pytest.mark.parametrize("streamed", [True, False])
def test_the_mock_sends_that_answer(streamed: bool) -> None:
    sent = b"".join(parts(MODEL, 3, streamed=streamed))
    head, _, rest = sent.partition(b"\r\n\r\n")
    body = b""
    if streamed:
        assert b"transfer-encoding: chunked" in head
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            body += rest[: int(size, 16)]
            rest = rest[int(size, 16) + 2 :]
    else:
        assert f"content-length: {len(rest)}".encode() in head
        body = rest
    assert body == answer(MODEL, 3, streamed=streamed).body


def test_each_event_is_sent_by_itself() -> None:
    head_and_lead, *events = parts(MODEL, 5, streamed=True)
    assert b"message_start" in head_and_lead
    assert [b"content_block_delta" in event for event in events] == [True] * 5 + [False]


# How answers are judged


def test_an_answer_has_to_be_the_whole_one() -> None:
    judge = exactly(b"hello")
    assert judge(200, b"hello") is None
    assert judge(503, b"hello") == "status 503"
    assert judge(200, b"hell") == "4 bytes in place of 5"
    assert judge(200, b"hallo") == "other bytes than the upstream's"


def test_another_gateway_may_write_it_in_other_words() -> None:
    judge = complete(STREAM)
    whole = whole_answer(STREAM)
    assert judge(200, whole) is None
    assert judge(200, whole.replace(b'"type":', b'"type": ')) is None
    assert judge(200, whole[:-100]) == "the stream has no end"
    missing = whole.replace(b"Stokes' theorem ", b"", 1)
    assert judge(200, missing) == "19 pieces of 20"
    assert judge(500, whole) == "status 500"
    assert complete(JSON)(200, whole_answer(JSON)[:-1]) == "no JSON"


# The load, against a server that does as it is told


async def _load(
    answers: list[bytes], *, rate: float | None = None, seconds: float = 0.0
) -> Any:
    """What two clients see of a server that gives these answers in turn."""
    left = list(answers)
    connections = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        while await reader.readline():
            while await reader.readline() != b"\r\n":
                pass
            text = left.pop(0) if len(left) > 1 else left[0]
            writer.write(text)
            if b"close" in text or not text:
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    request = request_bytes("/x", b"")
    clients: ClosedLoop | OpenLoop = (
        ClosedLoop(port, request, exactly(b"ok"), 2)
        if rate is None
        else OpenLoop(port, request, exactly(b"ok"), 2, rate)
    )
    try:
        return await clients.run(seconds)
    finally:
        clients.close()
        server.close()
        for writer in connections:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def test_each_client_sends_once_when_there_is_no_time() -> None:
    sample = run(_load([OK]))
    assert sample.requests == 2
    assert not sample.failures


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        (OK.replace(b"200 OK", b"500 No"), "status 500"),
        (OK[:-1], "the connection was closed within an answer"),
        (b"", "the connection was closed within an answer"),
        (OK.replace(b"ok", b"no"), "other bytes than the upstream's"),
    ],
    ids=["status", "cut", "nothing", "bytes"],
)
def test_a_wrong_answer_is_counted(text: bytes, failure: str) -> None:
    closing = text.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    sample = run(_load([closing, OK]))
    assert dict(sample.failures) == {failure: 1}
    assert sample.requests == 2


def test_a_closed_connection_is_replaced() -> None:
    closing = OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    sample = run(_load([closing], seconds=0.1))
    assert sample.requests > 2
    assert not sample.failures


def test_the_open_loop_sends_at_its_rate() -> None:
    sample = run(_load([OK], rate=200.0, seconds=0.5))
    # The moments are random, but always the same.
    assert 70 < sample.requests < 130
    assert not sample.failures


def test_percentiles() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert math.isnan(percentile([], 0.5))


@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)],
)
def test_a_signal_ends_what_runs_in_the_loop(
    number: signal.Signals, error: type[BaseException]
) -> None:
    before = signal.getsignal(number)

    async def wait() -> None:
        # A callback, of which the loop would log whatever it raises.
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)
        await asyncio.sleep(60)

    with pytest.raises(error):
        run(wait())
    assert signal.getsignal(number) is before


# Records


def record(workload: Workload = JSON, request_id: str = "0" * 32) -> dict[str, Any]:
    """A good one."""
    size = len(whole_answer(workload))
    usage = {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": workload.tokens,
        "total_tokens": PROMPT_TOKENS + workload.tokens,
        "cost": 0.001,
    }
    mode = "stream" if workload.streamed else "oneshot"
    meta = {"request_model": MODEL, "request_mode": mode}
    return {
        "request": {"id": request_id, "size": len(workload.body) + 300},
        "response": {"status": 200, "size": size + 300},
        "upstream_status": "200",
        "ai": {"proxy": {"usage": usage, "meta": meta}},
        "kongai": {"ended": "ok"},
    }


def changed(path: str, value: object) -> dict[str, Any]:
    """A record with another value in one place."""
    found = copy.deepcopy(record())
    *names, last = path.split(".")
    inner = found
    for name in names:
        inner = inner[name]
    inner[last] = value
    return found


def test_a_good_record_is_good() -> None:
    for workload in comparison():
        assert list(problems_of(record(workload), workload)) == []


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("kongai.ended", "client_abort", "kongai.ended is 'client_abort', not 'ok'"),
        ("response.status", 502, "response.status is 502, not 200"),
        ("response.status", True, "response.status is True, not 200"),
        ("upstream_status", "502, 200", "upstream_status is '502, 200', not '200'"),
        ("ai.proxy.usage.prompt_tokens", 119, "prompt_tokens is 119, not 137"),
        ("ai.proxy.usage.completion_tokens", 0, "completion_tokens is 0, not 20"),
        ("ai.proxy.usage.cost", 0, "cost is 0"),
        ("ai.proxy.meta.request_mode", "stream", "request_mode is 'stream'"),
        ("request.id", "x", "request.id is 'x'"),
        ("request.size", 200, "request.size is 200"),
        ("response.size", 10, "response.size is 10"),
        ("response.size", 10_000_000, "response.size is 10000000"),
    ],
)
def test_a_wrong_record_is_found(path: str, value: object, problem: str) -> None:
    (found,) = problems_of(changed(path, value), JSON)
    assert found.startswith(problem)


def log_of(tmp_path: Path, *lines: bytes) -> RecordLog:
    path = tmp_path / "records.json"
    path.write_bytes(b"".join(lines))
    return RecordLog(path)


def line(number: int) -> bytes:
    return json.dumps(record(request_id=f"{number:032x}")).encode() + b"\n"


def test_a_good_log_is_good_and_empty_afterwards(tmp_path: Path) -> None:
    log = log_of(tmp_path, line(1), line(2))
    log.check(JSON, 2)
    assert log.checked == 2
    assert log.path.read_bytes() == b""


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([line(1), line(2), line(3)], "3 records for 2 answers"),
        ([line(1), line(1)], "record 2: the id 0+1 is there twice"),
        ([line(1), b"{}\n"], "record 2 can't be read: KeyError"),
        ([line(1), b"[1]\n"], "record 2 can't be read"),
        ([line(1), line(2)[:-20] + b"\n"], "record 2 can't be read"),
        ([line(1), line(2).replace(b"0.001", b"NaN")], "NaN is not JSON"),
    ],
)
def test_a_wrong_log_stops_the_run(
    tmp_path: Path, lines: list[bytes], problem: str
) -> None:
    log = log_of(tmp_path, *lines)
    with pytest.raises(CheckFailed, match=problem):
        log.check(JSON, 2)


def test_a_missing_record_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.records._WAIT_SECONDS", 0.1)
    log = log_of(tmp_path, line(1))
    with pytest.raises(CheckFailed, match="1 records for 2 answers"):
        log.check(JSON, 2)


def test_an_id_of_an_earlier_check_is_known(tmp_path: Path) -> None:
    log = log_of(tmp_path, line(1))
    log.check(JSON, 1)
    log.path.write_bytes(line(1))
    with pytest.raises(CheckFailed, match="there twice"):
        log.check(JSON, 1)


def test_a_journal_that_is_left_stops_the_run(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    log.check_journal()
    (tmp_path / "records.json.wal.17").write_bytes(b"B id {}\n")
    with pytest.raises(CheckFailed, match=r"records\.json\.wal\.17"):
        log.check_journal()


def test_what_kongai_writes_passes_the_checks(tmp_path: Path) -> None:
    """With the mock and the load as they are, and each kind of answer once."""
    upstream = free_port()
    mock = Process(
        "mock",
        [sys.executable, "-m", "benchmarks.mock", str(upstream)],
        cpus=CPUS,
        output=tmp_path / "mock.txt",
        directory=PROJECT,
    )
    try:
        mock.wait_until_answering(upstream)
        directory = tmp_path / "kongai"
        config = with_probe(kongai_config(directory / "records.json", upstream))
        kongai = start_kongai(directory, config, free_port(), CPUS)
        try:
            for workload in comparison():
                request = request_bytes(kongai.path, workload.body)
                clients = ClosedLoop(kongai.port, request, kongai.judge(workload), 2)
                sample = run(_once(clients))
                assert not sample.failures
                kongai.check(workload, sample.requests)
            assert kongai.log.checked == 2 * len(comparison())
        finally:
            kongai.process.stop()
        kongai.log.check_journal()
    finally:
        mock.stop()


async def _once(clients: ClosedLoop) -> Any:
    try:
        return await clients.run(0)
    finally:
        clients.close()


# Processes


def test_a_process_is_ended_with_its_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time;"
        " time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    process = Process(
        "parent", [sys.executable, "-c", code], cpus=CPUS, output=tmp_path / "out"
    )
    assert wait_for(lambda: process.output().endswith("\n"), 20)
    child = int(process.output())
    assert process.resident_bytes() > 1024 * 1024
    process.stop()
    assert wait_for(lambda: not _runs(child), 5)


def _runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_the_time_of_children_counts(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'while True: pass'])\n"
        "time.sleep(60)\n"
    )
    process = Process(
        "parent", [sys.executable, "-c", code], cpus=CPUS, output=tmp_path / "out"
    )
    try:
        assert wait_for(lambda: process.cpu_seconds() > 0.3, 20)
    finally:
        process.stop()


def test_a_process_that_ends_is_told_with_what_it_said(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "print('no such luck'); raise SystemExit(3)"]
    process = Process("gateway", argv, cpus=CPUS, output=tmp_path / "out")
    with pytest.raises(BenchmarkError, match=r"gateway ended with code 3:\nno such"):
        process.wait_until_answering(free_port())
    process.stop()


def test_lists_of_processors() -> None:
    assert cpu_list("0-2,5\n") == {0, 1, 2, 5}
    assert cpu_list("7") == {7}


def test_the_gateway_has_a_processor_for_itself_if_there_are_two() -> None:
    found = processors()
    assert len(found.gateway) == 1
    if len(CPUS) > 1:
        assert not found.gateway & found.others
    else:
        assert found.warning


# The configurations


def test_kongai_takes_its_file(tmp_path: Path) -> None:
    paths = ["/a", "/b"]
    config = kongai_config(tmp_path / "log", 9, paths=paths)
    Proxy.from_config(with_probe(config)).close()


def test_nginx_passes_streams_on_at_once() -> None:
    config = nginx_config(Path("/d"), 1, 2)
    assert "proxy_buffering off;" in config
    assert "keepalive 128;" in config
    assert "server 127.0.0.1:2;" in config
    assert "listen 127.0.0.1:1 " in config
    assert ("user root;" in config) == (os.geteuid() == 0)


# What is told


def row(kongai: float, budget: float = 5.0) -> Row:
    costs = {
        "nginx": Cost(requests=10, rounds=[10.0, 20.0, 10.0]),
        "kongai": Cost(requests=10, rounds=[kongai, 2 * kongai, 100 * kongai]),
    }
    return Row("json", "A & B", "request", budget, costs)


def test_only_what_was_measured_together_is_compared() -> None:
    assert row(40.0).ratio("kongai") == 4.0
    assert row(40.0).spread("kongai") == (4.0, 400.0)


@pytest.mark.parametrize(("cost", "verdict"), [(49.0, "met"), (50.0, "not met")])
def test_a_budget_is_a_limit(cost: float, verdict: str) -> None:
    assert row(cost).verdict == verdict


def test_a_budget_may_be_a_floor() -> None:
    assert Figure("", 1.8, "x", 1.8, at_least=True).verdict == "met"
    assert Figure("", 1.7, "x", 1.8, at_least=True).verdict == "not met"
    assert Figure("", math.nan, "x", 1.8).verdict == ""


def results() -> Results:
    with_peer = row(40.0)
    with_peer.costs["other"] = Cost(problem="status 500")
    curve = Curve("routes", "Routes", "routes", lines={"kongai": [(1, 2.5), (10, 30)]})
    return Results(
        {"kernel": "Linux", "python configured with": "'--prefix=/somewhere'"},
        {"rounds": 3},
        [with_peer],
        {"Start": [Figure("import", 0.2, "s", 0.3, note="of five")]},
        [curve],
        ["a note"],
        7,
    )


def test_the_report_has_all_of_it() -> None:
    text = report.markdown(results())
    for told in (
        *("4.00 x", "under 5 x", "fails", "under 0.3 s", "import: of five."),
        *("30.0 |", "7, all of them right", "- a note"),
    ):
        assert told in text
    # Paths of the machine are nobody's business.
    assert "/somewhere" not in text


def test_tables_are_markdown() -> None:
    text = report.table(["a", "b"], [["x|y", "1"]], left=1)
    assert text.splitlines() == [
        "| a    |   b |",
        "|------|----:|",
        "| x\\|y |   1 |",
    ]


def test_results_are_json_without_nan() -> None:
    told = json.loads(json.dumps(results().as_dict(), allow_nan=False))
    assert told["rows"][0]["ratio_to_nginx"] == {
        "nginx": 1.0,
        "kongai": 4.0,
        "other": None,
    }
    assert told["rows"][0]["verdict"] == "met"
    assert told["figures"]["Start"][0]["verdict"] == "met"


@pytest.mark.parametrize(
    "draw",
    [
        lambda: chart.bars(results().rows),
        lambda: chart.lines(results().curves[0]),
        lambda: chart.lines(
            Curve("p", "P", "p", lines={"kongai": [(0, 5), (10, 9)]}, logarithmic=False)
        ),
    ],
    ids=["bars", "logarithmic", "linear"],
)
def test_charts_are_svg_within_their_frame(draw: Callable[[], str]) -> None:
    image = ElementTree.fromstring(draw())
    width, height = (float(image.attrib[name]) for name in ("width", "height"))
    for element in image.iter():
        for name, most in (("x", width), ("y", height), ("cx", width), ("cy", height)):
            assert 0 <= float(element.attrib.get(name, 0)) <= most


def test_a_longer_bar_is_a_higher_ratio() -> None:
    def widths(*rows: Row) -> list[float]:
        image = ElementTree.fromstring(chart.bars(rows))
        return [float(e.attrib["width"]) for e in image.iter() if e.tag[-4:] == "rect"]

    small, large = widths(row(20.0), row(40.0))
    assert large == pytest.approx(2 * small, rel=0.01)


# The command


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--only", "jsn"], "'jsn' is none of json, stream-20"),
        (["--with", "kong"], "'kong' is none of portkey, litellm"),
        (["--rounds", "0"], "0 is not in the range"),
        (["tabel"], "'tabel' is not one of 'table'"),
    ],
)
def test_a_wrong_command_line_is_refused(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert told in result.output


def test_without_nginx_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    result = CliRunner().invoke(main, ["--only", "json"])
    assert result.exit_code == 1
    assert "apt-get install nginx" in result.output


def test_an_interpreter_without_kongai_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path=None: "/bin/true")
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no gevent' >&2\nexit 1\n", "ascii")
    python.chmod(0o755)
    result = CliRunner().invoke(main, ["--python", str(python)])
    assert result.exit_code == 1
    assert f"{python} can't run kongai (no gevent)" in result.output


def test_nothing_is_left_when_it_is_told_to_end(tmp_path: Path) -> None:
    """The upstream and the gateway go with it, and so do its files."""
    code = (
        "import signal, sys, time\n"
        "from benchmarks import __main__ as command\n"
        "from benchmarks.machine import processors\n"
        "from benchmarks.stage import Stage\n"
        "signal.signal(signal.SIGTERM, command._stop)\n"
        "with Stage(sys.executable, processors(), print) as stage:\n"
        "    kongai = stage.kongai()\n"
        "    print(stage.mock.pid, kongai.process.pid, stage.directory, flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    with process.stdout:
        *pids, directory = process.stdout.readline().split()
        assert all(_runs(int(pid)) for pid in pids)
        process.terminate()
        assert process.wait(20) == 128 + 15
    time.sleep(0.1)
    assert not any(_runs(int(pid)) for pid in pids)
    assert not Path(directory).exists()

from __future__ import annotations

import errno
import fcntl
import glob
import json
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client

from kongai import FileLog, Plugin, Proxy, RequestRejected
from kongai.config import load_mapping
from kongai.entities import Route, Service
from kongai.errors import ConfigError
from kongai.exchange import Exchange, UpstreamRequest
from kongai.plugins.file_log import FileLogConfig
from kongai.testing import MockTransport, answer
from tests.live.waiting import wait_until

Upstream = Callable[[UpstreamRequest], answer]


def gateway(plugin: Plugin, *others: Plugin, upstream: Upstream | None = None) -> Proxy:
    return Proxy(
        services=[Service(host="up.test", routes=[Route(paths=["/a"])])],
        plugins=[plugin, *others],
        transport=MockTransport(upstream or (lambda _: answer(b"{}"))),
    )


def ask(proxy: Proxy, target: str = "/a") -> int:
    with Client(proxy).get(target) as response:
        assert response.get_data()
        return response.status_code


def records(path: Path) -> list[dict[str, Any]]:
    """The records in a file; each is a line, and each line is one."""
    text = path.read_bytes()
    assert text.endswith(b"\n")
    return [json.loads(line) for line in text.split(b"\n")[:-1]]


def asked(path: Path) -> list[str]:
    return [record["request"]["uri"] for record in records(path)]


def problems(config: dict[str, Any]) -> list[str]:
    """What a file with this configuration of the plugin is told."""
    plugins = [{"name": "file-log", "config": config}]
    try:
        load_mapping({"_format_version": "3.0", "plugins": plugins})
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


@pytest.mark.parametrize(
    "path",
    [
        *("/ovo*", "/ovo`", "test&thing", "test%thing", "test\\thing", " /ovo"),
        *("/ovo  ", "/ovo\n", "\t/ovo", "*ovo", "a", "&", "/a*b", "/tmp/`id`"),
    ],
)
def test_fact_40_paths_that_are_refused(path: str) -> None:
    assert problems({"path": path}) == ["plugins[0].config.path: not a valid filename"]


@pytest.mark.parametrize(
    "path",
    [
        *("/o vo.loga", "/tmp/claude.json", "ab", "abc", "../x", "~/.x", "/a\nb"),
        *("/dev/stdout", "/tmp/größe.json", "/a/b-c_d.e+f=g,h:i;j(k)[l]{m}'n\"o"),
    ],
)
def test_fact_40_paths_that_are_accepted(path: str) -> None:
    assert problems({"path": path}) == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, "path: required field missing"),
        ({"path": None}, "path: required field missing"),
        ({"path": ""}, "path: length must be at least 1"),
        ({"path": 5}, "path: expected a string"),
        ({"path": ["/a"]}, "path: expected a string"),
        ({"path": "/ab", "reopen": "yes"}, "reopen: expected a boolean"),
        ({"path": "/ab", "open": 1}, "open: unknown field; did you mean 'reopen'?"),
        (
            {"path": "/ab", "custom_fields_by_lua": {"a": "return 1"}},
            "custom_fields_by_lua: kongai runs no Lua; use custom_fields",
        ),
    ],
)
def test_fact_40_other_refusals(config: dict[str, Any], expected: str) -> None:
    (problem,) = problems(config)
    assert problem.startswith(f"plugins[0].config.{expected}")


def test_the_ways_to_make_one(tmp_path: Path) -> None:
    path = str(tmp_path / "log.json")
    wanted = FileLogConfig(path=path, reopen=True)
    assert FileLog(path, reopen=True).config == wanted
    assert FileLog(tmp_path / "log.json", reopen=True).config == wanted
    assert FileLog.from_config(wanted).config == wanted
    assert FileLog(path).config.reopen is False


@pytest.mark.parametrize("path", ["", "a", "/tmp/a*b", " /tmp/a"])
def test_a_path_is_checked_in_python_too(path: str) -> None:
    with pytest.raises(ConfigError, match="^path: "):
        FileLog(path)


def test_every_exchange_is_a_line(tmp_path: Path) -> None:
    """What was refused is logged too, and what matches no route."""
    path = tmp_path / "log.json"
    proxy = gateway(FileLog(path), Refusing())
    assert [ask(proxy, target) for target in ("/a?n=1", "/a?no", "/b")] == [
        200,
        400,
        404,
    ]
    assert asked(path) == ["/a?n=1", "/a?no", "/b"]
    assert [record["response"]["status"] for record in records(path)] == [200, 400, 404]
    assert "route" not in records(path)[2]


class Refusing(Plugin):
    """Refuses what has `?no` for its query."""

    name = "refusing"

    def access(self, exchange: Exchange) -> None:
        if exchange.query == "no":
            raise RequestRejected("no")


def test_a_line_stays_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    proxy = gateway(
        FileLog(path), Noting("a\nb\r\u2028\u0085\x00\ud83d🙂", float("nan"))
    )
    ask(proxy)
    text = path.read_bytes()
    assert text.isascii()
    assert text.count(b"\n") == 1
    assert records(path)[0]["note"] == ["a\nb\r\u2028\u0085\x00\ud83d🙂", "nan"]


class Noting(Plugin):
    """Adds a field to the record."""

    name = "noting"
    priority = 10

    def __init__(self, *note: Any) -> None:
        self.note = note

    def log(self, exchange: Exchange) -> None:
        exchange.log.set("note", self.note)


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text('{"request":{"uri":"/old"}}\n')
    ask(gateway(FileLog(path)))
    ask(gateway(FileLog(path)))
    assert asked(path) == ["/old", "/a", "/a"]


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    before = os.umask(0o022)
    try:
        ask(gateway(FileLog(path)))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_fact_41_a_missing_directory_hurts_no_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "missing" / "log.json"
    proxy = gateway(FileLog(path))
    assert ask(proxy, "/a?1") == 200
    assert not path.parent.exists()
    (logged,) = caplog.messages
    assert logged.startswith("failed to open the file: No such file or directory")
    # The next request tries again.
    path.parent.mkdir()
    assert ask(proxy, "/a?2") == 200
    assert asked(path) == ["/a?1", "/a?2"]


def test_fact_41_a_directory_is_no_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = gateway(FileLog(tmp_path))
    assert ask(proxy) == 200
    (logged,) = caplog.messages
    proxy.close()
    assert logged.startswith("failed to open the file: Is a directory")


@pytest.mark.parametrize("reopen", [False, True])
def test_fact_41_a_deleted_file_is_made_again(tmp_path: Path, reopen: bool) -> None:
    """Kong loses what it logs after a rotation, unless `reopen` is set."""
    path = tmp_path / "log.json"
    proxy = gateway(FileLog(path, reopen=reopen))
    ask(proxy, "/a?1")
    path.rename(tmp_path / "old.json")
    ask(proxy, "/a?2")
    path.unlink()
    ask(proxy, "/a?3")
    ask(proxy, "/a?4")
    assert asked(tmp_path / "old.json") == ["/a?1"]
    assert asked(path) == ["/a?3", "/a?4"]


def test_fact_41_reopen_opens_for_each_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = os.open

    def noting(path: str, flags: int, *args: Any) -> int:
        if flags & os.O_APPEND and ".wal." not in path:
            opened.append(os.path.basename(path))
        return real(path, flags, *args)

    monkeypatch.setattr(os, "open", noting)
    for name, reopen in (("once", False), ("each", True)):
        proxy = gateway(FileLog(tmp_path / name, reopen=reopen))
        for _ in range(3):
            ask(proxy)
        proxy.close()
    assert opened == ["once", "each", "each", "each"]


@pytest.mark.parametrize("reopen", [False, True])
def test_fact_41_parallel_requests_give_whole_lines(
    tmp_path: Path, reopen: bool
) -> None:
    path = tmp_path / "log.json"
    proxy = gateway(FileLog(path, reopen=reopen), Noting("x" * 50_000))
    targets = [f"/a?{number}" for number in range(40)]
    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(lambda target: ask(proxy, target), targets)) == [200] * 40
    assert sorted(asked(path)) == sorted(targets)


def test_two_gateways_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    proxies = [gateway(FileLog(path)), gateway(FileLog(path))]
    for proxy in proxies * 2:
        ask(proxy)
    assert len(records(path)) == 4


def test_a_closed_log_lets_go_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    proxy = gateway(FileLog(path))
    before = open_files(tmp_path)
    ask(proxy)
    assert open_files(tmp_path) == before + 2
    proxy.close()
    proxy.close()
    assert open_files(tmp_path) == before
    assert len(records(path)) == 1
    assert os.listdir(tmp_path) == ["log.json"]


def open_files(folder: Path) -> int:
    """How many files of a directory this process has open."""
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("Linux has it")
    found = [os.readlink(entry) for entry in list_of(Path("/proc/self/fd"))]
    return sum(name.startswith(str(folder)) for name in found)


def list_of(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.is_symlink():
            yield entry


def test_a_signal_may_open_the_file_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    log = FileLog(path)
    proxy = gateway(log)
    ask(proxy)
    assert open_files(tmp_path) == 2
    log.reopen()
    assert open_files(tmp_path) == 1
    ask(proxy)
    assert len(records(path)) == 2
    proxy.close()


# The journal and the policy


def test_an_exchange_is_noted_while_it_lasts(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    noted: list[list[str]] = []

    def upstream(request: UpstreamRequest) -> answer:
        noted.append(journal(path))
        return answer(b"{}")

    proxy = gateway(FileLog(path), upstream=upstream)
    ask(proxy, "/a?key=c4nary")
    ask(proxy)
    (first,), second = noted
    assert first.startswith("B ")
    assert '"uri":"/a?key=REDACTED"' in first
    assert [line[0] for line in second] == ["B", "E", "B"]
    assert [line[0] for line in journal(path)] == ["B", "E", "B", "E"]
    assert stat.S_IMODE(journal_path(path).stat().st_mode) == 0o600
    proxy.close()
    assert os.listdir(tmp_path) == ["log.json"]


def journal_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal.{os.getpid()}")


def journal(path: Path) -> list[str]:
    return journal_path(path).read_text().splitlines()


def test_what_is_refused_earlier_is_not_noted(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    log, refusing = FileLog(path), Refusing()
    refusing.priority = 10  # type: ignore[misc]
    proxy = gateway(log, refusing)
    log.init_worker()
    assert ask(proxy, "/a?no") == 400
    assert journal(path) == []
    assert len(records(path)) == 1


@pytest.mark.parametrize("policy", ["best_effort", "required"])
def test_a_policy_says_what_becomes_of_requests_without_a_record(
    tmp_path: Path, policy: Any
) -> None:
    path = tmp_path / "missing" / "log.json"
    asked_upstream: list[str] = []

    def upstream(request: UpstreamRequest) -> answer:
        asked_upstream.append(request.target)
        return answer(b"{}")

    proxy = gateway(FileLog(path, log_policy=policy), upstream=upstream)
    with Client(proxy).get("/a") as response:
        required = policy == "required"
        assert response.status_code == (503 if required else 200)
        assert response.headers.get("Retry-After") == ("1" if required else None)
        assert ("The log can't be written" in response.get_data(True)) is required
    assert len(asked_upstream) == (not required)
    path.parent.mkdir()
    # Whatever the outcome, the record comes with the next try.
    wait_until(path.exists, "log")
    (record,) = records(path)
    assert record["kongai"]["ended"] == ("log_unavailable" if required else "ok")
    wait_until(lambda: ask(proxy) == 200, "answer")
    proxy.close()


def test_a_log_that_falls_behind_refuses_requests_if_it_is_required(
    tmp_path: Path,
) -> None:
    """The journal can be written, the log can't."""
    path = tmp_path / "log.json"
    path.mkdir()
    log = FileLog(path, log_policy="required")
    proxy = gateway(log)
    assert [ask(proxy), ask(proxy)] == [200, 503]
    path.rmdir()
    wait_until(lambda: not log.sink.waiting, "record")
    assert ask(proxy) == 200
    proxy.close()
    ended = [record["kongai"]["ended"] for record in records(path)]
    assert ended == ["ok", "log_unavailable", "ok"]


def test_a_log_that_is_only_busy_refuses_nothing(tmp_path: Path) -> None:
    """Records that are being written, or wait for another process, are none lost."""
    path = tmp_path / "log.json"
    proxy = gateway(FileLog(path, log_policy="required"), Noting("x" * 50_000))
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: ask(proxy), range(400))) == {200}
    proxy.close()


def test_a_pipe_that_nobody_reads_refuses_requests_if_it_is_required(
    tmp_path: Path,
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    proxy = gateway(FileLog(path, log_policy="required"))
    assert [ask(proxy), ask(proxy)] == [200, 503]
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    # What was refused has a record, too, and that one is written.
    assert [ask(proxy), ask(proxy)] == [503, 200]
    proxy.close()
    os.close(reader)


def test_closing_never_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server has more to do than that when it stops."""
    real = os.close

    def fail(descriptor: int) -> None:
        real(descriptor)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "log.json"
    log = FileLog(path)
    ask(gateway(log))
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", fail)
        log.reopen()
        log.close()
    assert set(caplog.messages) == {
        f"failed to close the file: Input/output error ({name})"
        for name in (path, journal_path(path))
    }
    assert os.listdir(tmp_path) == ["log.json"]


def test_a_mistake_at_closing_does_not_keep_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ValueError("c4nary")

    log = FileLog(tmp_path / "log.json")
    log.init_worker()
    monkeypatch.setattr(log.sink, "close", fail)
    monkeypatch.setattr(log.sink, "reopen", fail)
    log.reopen()
    log.close()
    assert os.listdir(tmp_path) == []
    one, two = caplog.messages
    assert one.startswith("failed to close the log: ValueError at ")
    assert "c4nary" not in one + two


def test_nothing_beside_the_log_keeps_it_from_starting(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    os.mkfifo(f"{path}.wal.1")
    Path(f"{path}.wal.2").write_bytes(b'B x {"log":[1e999,0,0]}\n')
    log = FileLog(path)
    log.init_worker()
    proxy = gateway(log)
    assert ask(proxy) == 200
    proxy.close()
    assert len(records(path)) == 1


@pytest.mark.parametrize("path", ["/dev/null", "/dev/stdout"])
def test_a_device_has_no_journal_and_needs_none(path: str) -> None:
    proxy = gateway(FileLog(path, log_policy="required"))
    assert ask(proxy) == 200
    proxy.close()
    assert glob.glob(f"{path}.wal.*") == []


def test_a_policy_is_one_of_two() -> None:
    (problem,) = problems({"path": "/ab", "log_policy": "never"})
    assert problem.startswith("plugins[0].config.log_policy: expected one of: ")


def test_records_that_can_not_be_written_wait_for_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log.json"
    path.touch()
    proxy = gateway(FileLog(path))
    ask(proxy, "/a?0")
    # Somebody else keeps the log, but not the journal.
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        for number in (1, 2):
            ask(proxy, f"/a?{number}")
        proxy.close()
    assert asked(path) == ["/a?0"]
    assert "records lost at the end: 0, kept for the next start: 2" in caplog.text
    log = FileLog(path)
    log.init_worker()
    assert asked(path) == ["/a?0", "/a?1", "/a?2"]
    assert [r["kongai"]["ended"] for r in records(path)] == ["ok"] * 3
    log.close()
    assert os.listdir(tmp_path) == ["log.json"]

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import create_environ
from werkzeug.wrappers import Request

import kongai.journal
from kongai.entities import Consumer, Route, Service
from kongai.exchange import Exchange
from kongai.journal import MAX_BYTES, MAX_MODEL, MAX_URI, Journal
from kongai.llm.call import Call
from kongai.log_file import place_of
from kongai.router import Match

ROUTE = Route(id="r-1", name="the-route", paths=("/",))
SERVICE = Service("http://up.test", id="s-1", name="the-service")


def exchange(target: str = "/a", **fields: Any) -> Exchange:
    environ = create_environ(method="POST", environ_base={"REMOTE_ADDR": "192.0.2.7"})
    made = Exchange(Request(environ), target=target)
    made.match = Match(ROUTE, SERVICE, "/", "", {})
    for name, value in fields.items():
        setattr(made, name, value)
    return made


@contextmanager
def journal(log: Path) -> Iterator[Journal]:
    made = Journal(str(log), lambda: place_of(str(log)))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.json"


def files(log: Path) -> list[Path]:
    """The journals of a log."""
    return sorted(log.parent.glob(f"{log.name}.wal.*"))


def lines(path: Path) -> list[bytes]:
    data = path.read_bytes()
    assert not data or data.endswith(b"\n")
    return data.split(b"\n")[:-1]


def noted(line: bytes) -> dict[str, Any]:
    kind, _, text = line.split(b" ", 2)
    assert kind == b"B"
    found: dict[str, Any] = json.loads(text)
    return found


def test_what_is_begun_is_noted_and_crossed_out(log: Path) -> None:
    with journal(log) as ours:
        one, two = exchange(), exchange()
        assert ours.begin(one)
        assert ours.begin(two)
        ours.end(one.id)
        ours.end(one.id)
        ours.end("never begun")
        (path,) = files(log)
        assert path.name == f"log.json.wal.{os.getpid()}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        begun, _, ended = lines(path)
        assert begun.split(b" ")[:2] == [b"B", one.id.encode()]
        assert ended == b"E " + one.id.encode()
        ours.end(two.id)
    assert files(log) == []


def test_what_is_noted_is_what_a_record_needs(log: Path) -> None:
    log.write_text("x" * 99 + "\n")
    call = Call("anthropic", "/v1/messages", chat=True, request_model="claude-x")
    asked = exchange("/a?b=1", llm=call, consumer=Consumer(id="c-1", username="ann"))
    with journal(log) as ours:
        ours.begin(asked)
        (line,) = lines(files(log)[0])
        ours.end(asked.id)
    assert noted(line) == {
        "log": list(place_of(str(log))),
        "request": {"id": asked.id, "method": "POST", "uri": "/a?b=1"},
        "client_ip": "192.0.2.7",
        "started_at": asked.timings.started_at,
        "route": {"id": "r-1", "name": "the-route"},
        "service": {"id": "s-1", "name": "the-service"},
        "consumer": {"id": "c-1", "username": "ann"},
        "provider": "anthropic",
        "model": "claude-x",
    }
    assert place_of(str(log)).size == 100


def test_a_route_of_two_services_is_noted_with_each(log: Path) -> None:
    other = Service("http://up.test", id="s-2", name="the-other")
    services = [SERVICE, other, None, SERVICE]
    with journal(log) as ours:
        asked = [
            exchange(match=Match(ROUTE, service, "/", "", {})) for service in services
        ]
        for each in asked:
            ours.begin(each)
        found = [noted(line).get("service") for line in lines(files(log)[0])]
        for each in asked:
            ours.end(each.id)
    ids = [service and {"id": service.id, "name": service.name} for service in services]
    assert found == ids


@pytest.mark.parametrize(
    ("target", "fields", "shown"),
    [
        ("/a?key=c4nary", {}, "/a?key=REDACTED"),
        ("/a?team=c4nary", {"secret_names": frozenset({"team"})}, "/a?team=REDACTED"),
        ("/c4nary/b", {"secret_values": frozenset({"c4nary"})}, "/REDACTED/b"),
        ("/" + "x" * 300 + "?token=c4nary", {}, "/" + "x" * 300 + "?token=REDACTED"),
        ("/caf\xe9\n", {}, "/caf\xe9\n"),
        ("/\ud83d", {}, "/\\ud83d"),
    ],
)
def test_no_secret_is_noted_and_whatever_is_makes_one_line(
    log: Path, target: str, fields: dict[str, Any], shown: str
) -> None:
    model = "c4nary" if "secret_values" in fields else "sk-abcdefgh12 \ud83d"
    call = Call("anthropic", "/v1/messages", chat=True, request_model=model)
    asked = exchange(target, llm=call, **fields)
    with journal(log) as ours:
        assert ours.begin(asked)
        (line,) = lines(files(log)[0])
        ours.end(asked.id)
    assert noted(line)["request"]["uri"] == shown
    assert b"c4nary" not in line
    assert b"sk-abc" not in line


def test_a_journal_is_locked_as_long_as_it_is_open(log: Path) -> None:
    with journal(log) as ours:
        ours.open()
        with files(log)[0].open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_several_journals_of_a_process_have_names_of_their_own(log: Path) -> None:
    with journal(log) as one, journal(log) as two, journal(log) as three:
        for ours in (one, two, three):
            ours.open()
        suffixes = [path.name.partition(str(os.getpid()))[2] for path in files(log)]
        assert suffixes == ["", "-2", "-3"]
    assert files(log) == []


def test_a_journal_outlives_its_closing_until_the_last_exchange(log: Path) -> None:
    with journal(log) as ours:
        asked = exchange()
        ours.begin(asked)
        ours.close()
        assert len(files(log)) == 1
        ours.end(asked.id)
        assert files(log) == []
        # And it begins anew if there is more.
        assert ours.begin(exchange())
        assert len(files(log)) == 1


def many(count: int) -> Iterator[Exchange]:
    """Exchanges, or what a journal takes for that, with long lines."""
    made = exchange("/" + "x" * 300)
    for _ in range(count):
        made.id = uuid.uuid4().hex
        yield made


def test_a_journal_does_not_grow_for_ever(log: Path) -> None:
    with journal(log) as ours:
        for asked in many(5000):
            ours.begin(asked)
            ours.end(asked.id)
        assert files(log)[0].stat().st_size < MAX_BYTES + 1000


def test_a_journal_is_made_shorter_while_something_is_under_way(log: Path) -> None:
    with journal(log) as ours:
        lasting = [exchange(f"/{number}") for number in range(100)]
        for asked in lasting:
            ours.begin(asked)
        sizes = []
        for asked in many(5000):
            ours.begin(asked)
            ours.end(asked.id)
            sizes.append(files(log)[0].stat().st_size)
        assert MAX_BYTES / 2 < max(sizes) < MAX_BYTES + 1000
        assert min(sizes[2500:]) < 100_000
        (path,) = files(log)
        ids = {asked.id.encode() for asked in lasting}
        kept = [line for line in lines(path) if line.split(b" ")[1] in ids]
        assert [noted(line)["request"]["uri"] for line in kept] == [
            f"/{number}" for number in range(100)
        ]
        with path.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for asked in lasting:
            ours.end(asked.id)
    assert files(log) == []


@pytest.mark.parametrize(
    ("name", "most"), [("MAX_OPEN", 500), ("MAX_OPEN_BYTES", 500 * 600)]
)
def test_what_never_ends_is_given_up_some_time(
    log: Path, monkeypatch: pytest.MonkeyPatch, name: str, most: int
) -> None:
    monkeypatch.setattr(kongai.journal, name, most)
    monkeypatch.setattr(kongai.journal, "MAX_BYTES", 100_000)
    with journal(log) as ours:
        asked = [asked_id(ours, each) for each in many(5000)]
        found = [line.split(b" ")[1].decode() for line in lines(files(log)[0])]
        # The newest are those that are kept.
        assert 400 < len(found) < 2000
        assert found == asked[-len(found) :]


def asked_id(ours: Journal, asked: Exchange) -> str:
    assert ours.begin(asked)
    return asked.id


@pytest.mark.parametrize("what", ["link", "file", "pipe", "directory"])
def test_what_stands_where_a_shorter_journal_is_to_be_made(
    log: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any, what: str
) -> None:
    """Anybody may put it there if the log is in /tmp."""
    monkeypatch.setattr(kongai.journal, "MAX_BYTES", 1000)
    victim = log.with_name("victim")
    victim.write_text("precious")
    with journal(log) as ours:
        ours.open()
        (path,) = files(log)
        draft = path.with_name(f"{path.name}.new")
        if what == "link":
            draft.symlink_to(victim)
        elif what == "file":
            os.link(victim, draft)
        elif what == "pipe":
            os.mkfifo(draft)
        else:
            draft.mkdir()
        asked = [asked_id(ours, each) for each in many(50)]
        assert victim.read_text() == "precious"
        assert not path.is_symlink()
        found = [line.split(b" ")[1].decode() for line in lines(path)]
        assert found == asked
        for each in asked:
            ours.end(each)
        # A directory is in the way for good; nothing is lost by that.
        assert len(caplog.messages) == (what == "directory")


def test_a_journal_with_whole_records_is_not_looked_at_each_time(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kongai.journal, "MAX_BYTES", 10_000)
    tried: list[int] = []
    with journal(log) as ours:
        real = ours._shorten
        monkeypatch.setattr(ours, "_shorten", lambda: (tried.append(1), real()))
        assert ours.keep([b'{"a":1}\n'])
        asked = [asked_id(ours, each) for each in many(1000)]
        assert len(tried) < 10
        assert len(lines(files(log)[0])) == 1001
        for each in asked:
            ours.end(each)


def test_what_is_noted_has_a_limit(log: Path) -> None:
    call = Call("anthropic", "/v1/messages", chat=True, request_model="m" * 5_000_000)
    asked = exchange("/" + "a" * MAX_URI + "?key=c4nary", llm=call)
    # The secret is over the end before it is redacted, and within it then.
    other = exchange("/?key=" + "c4nary" * MAX_URI + "&b=1")
    with journal(log) as ours:
        for each in (asked, other):
            ours.begin(each)
        one, two = map(noted, lines(files(log)[0]))
        for each in (asked, other):
            ours.end(each.id)
    assert one["request"]["uri"] == "/" + "a" * (MAX_URI - 1)
    assert one["model"] == "m" * MAX_MODEL
    assert two["request"]["uri"] == "/?key=REDACTED&b=1"


def test_nothing_is_raised_without_a_current_directory(tmp_path: Path) -> None:
    gone, before = tmp_path / "gone", os.getcwd()
    gone.mkdir()
    os.chdir(gone)
    try:
        gone.rmdir()
        with journal(Path("log.json")) as ours:
            assert not ours.begin(exchange())
    finally:
        os.chdir(before)


@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_journal_that_was_removed_is_made_again(tmp_path: Path, what: str) -> None:
    log = tmp_path / "logs" / "log.json"
    log.parent.mkdir()
    with journal(log) as ours:
        one, two = exchange("/1"), exchange("/2")
        ours.begin(one)
        shutil.rmtree(log.parent) if what == "directory" else files(log)[0].unlink()
        time.sleep(0.11)
        assert ours.begin(two)
        (path,) = files(log)
        found = [noted(line)["request"]["uri"] for line in lines(path)]
        assert found == ["/1", "/2"]
        ours.end(one.id)
        ours.end(two.id)


def test_a_missing_directory_is_not_made_and_for_the_log_to_tell(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with journal(tmp_path / "logs" / "log.json") as ours:
        assert [ours.begin(exchange()) for _ in range(3)] == [False] * 3
        assert list(tmp_path.iterdir()) == []
        assert caplog.messages == []
        assert ours.failures == 1


def test_a_full_disk_costs_the_notes_and_nothing_else(
    log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with journal(log) as ours:
        one, two, three = (exchange(f"/{number}") for number in (1, 2, 3))
        assert ours.begin(one)
        (path,) = files(log)
        room = path.stat().st_size + 20
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            assert not ours.begin(two)
            ours.end(two.id)
            ours.end(one.id)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        # The end of the first could not be noted: it is left out altogether.
        assert ours.begin(three)
        assert [noted(line)["request"]["uri"] for line in lines(path)] == ["/3"]
        ours.end(three.id)
    (message,) = caplog.messages
    assert "No space left on device" in message
    assert ours.failures == 2


def test_a_forked_process_has_a_journal_of_its_own(log: Path) -> None:
    with journal(log) as ours:
        asked = exchange("/parent")
        ours.begin(asked)
        child = os.fork()
        if child == 0:
            ours.end(asked.id)
            ours.begin(exchange("/child"))
            names = [path.name for path in files(log)]
            os._exit(0 if f"log.json.wal.{os.getpid()}" in names else 1)
        assert os.waitpid(child, 0)[1] == 0
        (line,) = lines(log.with_name(f"log.json.wal.{os.getpid()}"))
        assert noted(line)["request"]["uri"] == "/parent"
        ours.end(asked.id)
    (left,) = files(log)
    assert str(child) in left.name


def test_threads_share_a_journal(log: Path) -> None:
    with journal(log) as ours:

        def work() -> None:
            for _ in range(500):
                asked = exchange("/" + "x" * 1000)
                assert ours.begin(asked)
                ours.end(asked.id)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        open_ids: list[bytes] = []
        for line in lines(files(log)[0]):
            kind, request_id, *_ = line.split(b" ")
            open_ids.append(request_id) if kind == b"B" else open_ids.remove(request_id)
        assert open_ids == []


@pytest.mark.parametrize("log", ["/dev/stdout", "/proc/self/fd/1", "/dev/null"])
def test_a_device_has_no_journal(log: str) -> None:
    with journal(Path(log)) as ours:
        assert ours.begin(exchange())
        assert files(Path(log)) == []


def test_a_pipe_has_no_journal(log: Path) -> None:
    os.mkfifo(log)
    with journal(log) as ours:
        assert ours.begin(exchange())
        assert files(log) == []


def test_whole_records_are_kept(log: Path) -> None:
    with journal(log) as ours:
        asked = exchange()
        ours.begin(asked)
        record = b'{"request":{"id":"%b"}}\n' % asked.id.encode()
        assert ours.keep([record])
    (path,) = files(log)
    _, kept = lines(path)
    assert kept == b"R [0,0,0] " + record.rstrip()
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_logs_end_is_looked_at_now_and_then(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kongai.journal, "_LOOK_SECONDS", 0.2)
    log.write_bytes(b"x" * 99 + b"\n")
    asked = [exchange() for _ in range(3)]
    with journal(log) as ours:
        assert ours.begin(asked[0])
        before = place_of(str(log))
        with log.open("ab") as file:
            file.write(b"y\n")
        assert ours.begin(asked[1])
        time.sleep(0.25)
        assert ours.begin(asked[2])
        places = [noted(line)["log"] for line in lines(files(log)[0])]
        # An older one serves as well: what comes later is behind it.
        assert places[0] == list(before)
        assert places[1] in (list(before), list(place_of(str(log))))
        assert places[2] == list(place_of(str(log)))
        for each in asked:
            ours.end(each.id)


def test_greenlets_and_threads_share_a_journal(log: Path) -> None:
    script = """
from gevent import monkey; monkey.patch_all()
import sys, time
import gevent
from gevent import get_hub
from tests.test_journal import exchange, journal
from pathlib import Path

def work(ours):
    for _ in range(50):
        asked = exchange("/" + "x" * 2000)
        assert ours.begin(asked)
        time.sleep(0)
        ours.end(asked.id)

with journal(Path(sys.argv[1])) as ours:
    first = exchange()
    ours.begin(first)
    threads = [get_hub().threadpool.spawn(work, ours) for _ in range(4)]
    gevent.joinall([gevent.spawn(work, ours) for _ in range(20)], raise_error=True)
    for thread in threads:
        thread.get()
    assert ours.failures == 0
    assert list(ours._open) == [first.id]
"""
    subprocess.run([sys.executable, "-c", script, str(log)], check=True, timeout=20)
    (left,) = files(log)
    open_ids: list[bytes] = []
    for line in lines(left):
        kind, request_id, *_ = line.split(b" ")
        open_ids.append(request_id) if kind == b"B" else open_ids.remove(request_id)
    assert len(open_ids) == 1

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kongai.recovery
from kongai.entities import Consumer
from kongai.journal import Journal
from kongai.llm.call import Call
from kongai.log_file import LogFile, place_of
from kongai.logged import request_id_of
from kongai.recovery import recover
from kongai.sinks import encode
from tests.test_journal import exchange, files

# One process forks the others: that is quick, and each of them is a real one.
CRASHES = """
import os, random, signal, sys, threading, time
from werkzeug.test import Client
from kongai import FileLog, Proxy, Route, Service
from kongai.testing import MockTransport, answer

dice = random.Random(7)

def asked(request):
    os.write(1, request.target.encode() + b"\\n")
    return answer(b"x" * 5000)

def gateway():
    log = FileLog(sys.argv[1])
    log.init_worker()
    service = Service("http://up.test", routes=[Route(paths=["/"])])
    return Proxy([service], plugins=[log], transport=MockTransport(asked))

def work(proxy, name):
    for number in range(1_000_000):
        with Client(proxy).get(f"/{os.getpid()}-{name}-{number}") as response:
            response.get_data()

def serve():
    proxy = gateway()
    for name in range(3):
        threading.Thread(target=work, args=(proxy, name), daemon=True).start()
    threading.Event().wait()

def recover():
    gateway().close()
    os._exit(0)

def forked(task):
    child = os.fork()
    if child == 0:
        task()
    return child

for _ in range(5):
    children = [forked(serve), forked(serve)]
    time.sleep(dice.uniform(0.1, 0.25))
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)
children = [forked(recover), forked(recover)]
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.json"


def records(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_bytes().split(b"\n")[:-1]]


def crashed(log: Path) -> list[str]:
    return [
        record["request"]["uri"]
        for record in records(log)
        if record["kongai"]["ended"] == "crash"
    ]


def test_killed_processes_lose_and_double_nothing(log: Path) -> None:
    """Ten of them, two at a time, at random moments; two others recover at once."""
    command = [sys.executable, "-c", CRASHES, str(log)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=50)
    asked = done.stdout.decode().split()
    assert files(log) == []
    found, torn = Counter[str](), 0
    for line in log.read_bytes().split(b"\n")[:-1]:
        try:
            found[json.loads(line)["request"]["uri"]] += 1
        except ValueError:
            torn += 1
    assert len(asked) > 100
    assert [uri for uri in asked if found[uri] != 1] == []
    assert [uri for uri, count in found.items() if count > 1] == []
    assert torn <= 10


@pytest.fixture
def dead(log: Path) -> Iterator[Journal]:
    """A journal whose process is as good as dead: `die` gives up its lock."""
    ours = Journal(str(log), lambda: place_of(str(log)))
    yield ours
    ours.close()


def die(journal: Journal) -> None:
    """End as a killed process ends: the journal stays, its lock does not."""
    journal.forget()


def record_of(asked: Any, **more: Any) -> bytes:
    uri = asked.target
    return encode(
        {
            "request": {"id": asked.id, "uri": uri, "text": "x" * 100},
            "started_at": asked.timings.started_at,
            "kongai": {"ended": "ok"},
            **more,
        }
    )


def append(log: Path, *lines: bytes) -> None:
    file = LogFile(str(log))
    for line in lines:
        file.append(line, 1)
    file.close()


def test_the_record_of_a_crash(log: Path, dead: Journal) -> None:
    call = Call("anthropic", "/v1/messages", chat=True, request_model="claude-x")
    asked = exchange("/a?b=1", llm=call, consumer=Consumer(id="c", custom_id="é"))
    dead.begin(asked)
    die(dead)
    recover(str(log))
    assert log.read_bytes().isascii()
    assert records(log) == [
        {
            "request": {"id": asked.id, "method": "POST", "uri": "/a?b=1"},
            "client_ip": "192.0.2.7",
            "started_at": asked.timings.started_at,
            "workspace": "0dc6f45b-8f8d-40d2-a504-473544ee190b",
            "workspace_name": "default",
            "route": {"id": "r-1", "name": "the-route"},
            "service": {"id": "s-1", "name": "the-service"},
            "consumer": {"id": "c", "custom_id": "é"},
            "ai": {
                "proxy": {
                    "meta": {"provider_name": "anthropic", "request_model": "claude-x"}
                }
            },
            "kongai": {"ended": "crash"},
        }
    ]
    assert files(log) == []


def test_what_has_ended_is_left_alone(log: Path, dead: Journal) -> None:
    one, two = exchange("/1"), exchange("/2")
    dead.begin(one)
    dead.begin(two)
    dead.end(one.id)
    die(dead)
    recover(str(log))
    recover(str(log))
    assert crashed(log) == ["/2"]


@pytest.mark.parametrize("rotated", ["no", "renamed", "twice", "emptied", "refilled"])
def test_a_record_without_its_end_is_found(
    log: Path, dead: Journal, rotated: str
) -> None:
    """The process was killed between the record and its crossing out."""
    old = exchange("/old")
    append(log, record_of(old), record_of(old))
    asked, gone = exchange("/a"), exchange("/gone")
    dead.begin(asked)
    dead.begin(gone)
    if rotated in ("emptied", "refilled"):
        os.truncate(log, 0)
    if rotated == "refilled":
        append(log, record_of(exchange("/first")))
    append(log, record_of(asked))
    for number in range({"renamed": 1, "twice": 2}.get(rotated, 0)):
        log.rename(log.with_name(f"log.json.{number}"))
        append(log, record_of(exchange("/later")))
    if rotated == "refilled":
        append(log, *[record_of(old)] * 10)
    die(dead)
    recover(str(log))
    assert crashed(log) == ["/gone"]


def test_a_name_of_ones_own_is_found_by_its_inode(log: Path, dead: Journal) -> None:
    append(log, record_of(exchange("/old")))
    asked = exchange("/a")
    dead.begin(asked)
    append(log, record_of(asked))
    log.rename(log.with_name("archive-1"))
    die(dead)
    recover(str(log))
    assert not log.exists()


def test_only_what_came_later_is_read(log: Path, dead: Journal) -> None:
    """The log before the place that was noted is not looked at, however long it is."""
    asked = exchange("/a")
    append(log, record_of(exchange("/old")), record_of(asked))
    dead.begin(asked)
    die(dead)
    recover(str(log))
    assert crashed(log) == ["/a"]


def test_half_a_record_counts_for_nothing(log: Path, dead: Journal) -> None:
    asked = exchange("/a")
    dead.begin(asked)
    log.write_bytes(record_of(asked)[:-30])
    die(dead)
    recover(str(log))
    torn, whole = log.read_bytes().split(b"\n")[:-1]
    assert request_id_of(torn) is None
    assert json.loads(whole)["kongai"] == {"ended": "crash"}


@pytest.mark.parametrize("torn", [b"\nE 123\n", b"B", b'B 456 {"request"', b"E 45"])
def test_half_a_line_at_the_end_of_a_journal_is_ignored(
    log: Path, dead: Journal, torn: bytes
) -> None:
    """Nobody had been asked anything yet."""
    dead.begin(exchange("/a"))
    append_raw(files(log)[0], torn)
    die(dead)
    recover(str(log))
    assert crashed(log) == ["/a"]
    assert files(log) == []


def append_raw(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def repr_of(line: bytes) -> str:
    return repr(line[:30])


BIG = b"1" + b"0" * 400
GOOD = b'"client_ip":"","started_at":5'


@pytest.mark.parametrize(
    "line",
    [
        *(b"B 123 {\n", b"B 124 5\n", b"B \xff {}\n", b"R [0\n", b"R [0] 5\n"),
        *(b"nonsense\n", b"E\n", b"B\n", b"R\n", b'R [0,0,0] {"request"', b"\0" * 999),
        b'B x {"request":{"id":"x"},"client_ip":"","started_at":%b}\n' % BIG,
        b'B x {"request":{"id":"x"},"client_ip":"","started_at":-1}\n',
        b'B x {"request":{"id":"y"},%b}\n' % GOOD,
        b'B x {"request":{"id":"x","uri":NaN},%b}\n' % GOOD,
        b'B x {"request":{"id":"x"},"route":5,%b}\n' % GOOD,
        b'B x {"request":{"id":"x"},"model":5,%b}\n' % GOOD,
        b'B x {"log":[%b,0,0],"request":{"id":"x"},%b}\n' % (b"1" * 5000, GOOD),
        b'B x {"request":{"id":"x","a":%b%b},%b}\n' % (b"[" * 900, b"]" * 900, GOOD),
        b"R [0,0,0] " + b"[" * 100_000 + b"\n",
        b"B x " + b" " * kongai.recovery.LONGEST_LINE + b"{}\n",
    ],
    ids=repr_of,
)
def test_a_journal_of_which_something_can_not_be_read_is_kept(
    log: Path, dead: Journal, caplog: pytest.LogCaptureFixture, line: bytes
) -> None:
    """What is readable in it is in the log, and it is not tried again."""
    one, two = exchange("/1"), exchange("/2")
    dead.begin(one)
    (path,) = files(log)
    rest = b"" if not line.endswith(b"\n") else path.read_bytes()
    left = rest.replace(one.id.encode(), two.id.encode()).replace(b"/1", b"/2")
    append_raw(path, line + left)
    die(dead)
    bad = path.with_name(f"{path.name}.bad")
    bad.write_text("an older one")
    recover(str(log))
    recover(str(log))
    assert crashed(log) == ["/1", "/2"][: 1 + bool(left)]
    assert files(log) == [bad, path.with_name(f"{path.name}.bad-2")]
    assert bad.read_text() == "an older one"
    text = f"lines of a journal that can't be read: 1; it is kept as {bad}-2"
    assert [m for m in caplog.messages if "can't" in m] == [text]


@pytest.mark.parametrize("place", [b"[1e999,0,0]", b"[%b,%b,1]" % (BIG, BIG), b"5"])
def test_a_place_that_is_none_costs_only_time(log: Path, place: bytes) -> None:
    asked = exchange("/a")
    append(log, record_of(asked))
    path = log.with_name("log.json.wal.1")
    text = b'B %b {"log":%b,"request":{"id":"%b"},%b}\n'
    known = asked.id.encode()
    path.write_bytes(
        text % (known, place, known, GOOD) + text % (b"x", place, b"x", GOOD)
    )
    recover(str(log))
    assert [record["request"]["id"] for record in records(log)] == [asked.id, "x"]
    assert files(log) == []


@pytest.mark.parametrize("what", ["pipe", "directory", "link", "dangling link"])
@pytest.mark.parametrize("draft", ["", ".new"])
def test_what_is_no_file_is_no_journal(
    log: Path, dead: Journal, caplog: pytest.LogCaptureFixture, what: str, draft: str
) -> None:
    path, target = log.with_name(f"log.json.wal.1{draft}"), log.with_name("target")
    target.write_bytes(b'R [0,0,0] {"forged":1}\n')
    if what == "pipe":
        os.mkfifo(path)
    elif what == "directory":
        path.mkdir()
    else:
        path.symlink_to(target if what == "link" else "nothing")
    dead.begin(exchange("/a"))
    die(dead)
    recover(str(log))
    # The other is recovered all the same.
    assert crashed(log) == ["/a"]
    assert files(log) == [path]
    assert target.exists()
    assert f"not this user's journal, and left alone: {path}" in caplog.messages


def test_a_journal_of_another_user_is_left_alone(
    log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = log.with_name("log.json.wal.1")
    path.write_bytes(b'R [0,0,0] {"forged":1}\n')
    recover(str(log), os.geteuid() + 1)
    assert not log.exists()
    assert files(log) == [path]
    assert caplog.messages == [f"not this user's journal, and left alone: {path}"]


def test_an_endless_journal_is_read_within_a_bound(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kongai.recovery, "LONGEST_LINE", 1_000_000)
    monkeypatch.setattr(kongai.recovery, "LONGEST_JOURNAL", 10_000_000)
    path = log.with_name("log.json.wal.1")
    path.write_bytes(b'B x {"request":{"id":"x"},%b}\n' % GOOD)
    os.truncate(path, 200 * 2**30)
    recover(str(log))
    assert [record["request"]["id"] for record in records(log)] == ["x"]
    (bad,) = files(log)
    assert bad.name == "log.json.wal.1.bad"


def test_a_mistake_in_the_recovery_costs_one_journal(
    log: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = kongai.recovery._crashed

    def fail(intent: Any) -> Any:
        if intent["request"]["id"] == "x":
            raise OverflowError("c4nary")
        return real(intent)

    monkeypatch.setattr(kongai.recovery, "_crashed", fail)
    for number, known in enumerate((b"x", b"y")):
        path = log.with_name(f"log.json.wal.{number}")
        path.write_bytes(b'B %b {"request":{"id":"%b"},%b}\n' % (known, known, GOOD))
    recover(str(log))
    assert [record["request"]["id"] for record in records(log)] == ["y"]
    assert [path.name for path in files(log)] == ["log.json.wal.0.bad"]
    assert "failed to recover: OverflowError at " in caplog.text
    assert "c4nary" not in caplog.text


def test_a_quote_of_an_id_is_no_record(log: Path, dead: Journal) -> None:
    """A gateway behind this one logs the id that it was sent, in the same file."""
    asked, other = exchange("/a"), exchange("/b")
    dead.begin(asked)
    headers = {"x-kong-request-id": asked.id, "x": f'"request":{{"id":"{asked.id}"'}
    append(log, record_of(other, headers=headers))
    die(dead)
    recover(str(log))
    assert crashed(log) == ["/a"]


def test_a_journal_of_the_same_process_id_is_recovered(
    log: Path, dead: Journal
) -> None:
    """In a container each process is the first one."""
    dead.begin(exchange("/a"))
    die(dead)
    ours = Journal(str(log), dead._place)
    ours.begin(exchange("/b"))
    assert crashed(log) == ["/a"]
    (path,) = files(log)
    assert path.name == f"log.json.wal.{os.getpid()}-2"
    ours.close()


def test_a_journal_whose_owner_lives_is_left_alone(log: Path, dead: Journal) -> None:
    asked = exchange("/a")
    dead.begin(asked)
    recover(str(log))
    assert not log.exists()
    assert len(files(log)) == 1
    dead.end(asked.id)


def test_what_a_recovery_did_before_it_was_killed_is_not_done_again(
    log: Path, dead: Journal
) -> None:
    for number in range(3):
        dead.begin(exchange(f"/{number}"))
    die(dead)
    (path,) = files(log)
    left = path.read_bytes()
    recover(str(log))
    os.truncate(log, len(b"\n".join(log.read_bytes().split(b"\n")[:2])) + 1)
    path.write_bytes(left)
    recover(str(log))
    assert crashed(log) == ["/0", "/1", "/2"]


def test_whole_records_are_written_as_they_are(log: Path, dead: Journal) -> None:
    one, two = exchange("/1"), exchange("/2")
    dead.begin(one)
    assert dead.keep([record_of(one), record_of(two), b'{"no":"id"}\n'])
    dead.close()
    (path,) = files(log)
    left = path.read_bytes()
    recover(str(log))
    assert log.read_bytes() == record_of(one) + record_of(two) + b'{"no":"id"}\n'
    # Again: those with an id are there already.
    path.write_bytes(left)
    recover(str(log))
    assert log.read_bytes().count(b"\n") == 4


def test_a_log_that_can_not_be_written_leaves_the_journal(
    log: Path, dead: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    dead.begin(exchange("/a"))
    die(dead)
    log.touch()
    with log.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        recover(str(log))
    (path,) = files(log)
    assert f"records wait in {path} for the next start" in caplog.text
    recover(str(log))
    assert crashed(log) == ["/a"]
    assert files(log) == []


def test_drafts_and_other_files(log: Path, dead: Journal) -> None:
    """What a compaction that was killed leaves is removed, and only that."""
    draft = log.with_name("log.json.wal.77.new")
    dead.begin(exchange("/a"))
    draft.write_bytes(files(log)[0].read_bytes())
    others = [
        "log.json.wal.7x",
        "log.json.wal.backup",
        "other.json.wal.7",
        "log.json.1",
    ]
    for name in others:
        log.with_name(name).write_bytes(draft.read_bytes())
    recover(str(log))
    assert not draft.exists()
    assert not log.exists()
    assert sorted(p.name for p in log.parent.iterdir() if p.name in others) == sorted(
        others
    )


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    recover(str(tmp_path / "missing" / "log.json"))
    assert list(tmp_path.iterdir()) == []

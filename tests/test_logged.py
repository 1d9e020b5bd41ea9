from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from kongai.logged import request_id_of
from kongai.recovery import recover
from tests.test_journal import exchange, files
from tests.test_recovery import GOOD, append, record_of, records


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.json"


def test_a_rotated_log_that_can_not_be_read_is_named_and_passed_over(
    log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rotated = log.with_name("log.json.1")
    rotated.write_text("old\n")
    if os.geteuid() == 0:
        # Root may read everything, but does not believe everybody.
        os.chown(rotated, 65534, 65534)
        reason = "it is another user's"
    else:
        rotated.chmod(0)
        reason = "Permission denied"
    for number, known in enumerate((b"x", b"y")):
        path = log.with_name(f"log.json.wal.{number}")
        started = round(time.time() * 1000)
        text = b'B %b {"request":{"id":"%b"},"client_ip":"","started_at":%d}\n'
        path.write_bytes(text % (known, known, started))
    recover(str(log))
    assert [record["request"]["id"] for record in records(log)] == ["x", "y"]
    assert files(log) == []
    warning, *_ = caplog.messages
    assert warning.startswith(f"can't look for records in {rotated}: {reason}; ")
    assert sum("can't look" in message for message in caplog.messages) == 1


def test_links_and_pipes_beside_the_log_are_not_read(log: Path) -> None:
    """A link that somebody has put there may lead to anything."""
    asked = exchange("/a")
    elsewhere = log.with_name("elsewhere")
    append(elsewhere, record_of(asked))
    log.with_name("log.json.1").symlink_to(elsewhere)
    os.mkfifo(log.with_name("log.json.2"))
    known = asked.id.encode()
    text = b'B %b {"request":{"id":"%b"},%b}\n' % (known, known, GOOD)
    log.with_name("log.json.wal.1").write_bytes(text)
    recover(str(log))
    assert [record["request"]["id"] for record in records(log)] == [asked.id]


def test_a_log_that_is_a_link_is_read(log: Path) -> None:
    asked = exchange("/a")
    append(log.with_name("real"), record_of(asked))
    log.symlink_to("real")
    known = asked.id.encode()
    text = b'B %b {"request":{"id":"%b"},%b}\n' % (known, known, GOOD)
    log.with_name("log.json.wal.1").write_bytes(text)
    recover(str(log))
    assert len(records(log)) == 1
    assert files(log) == []


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"{}", b'{"request":[]}', b'{"request":{"id":1}}', b"9"]
)
def test_what_is_no_record_has_no_id(line: bytes) -> None:
    assert request_id_of(line) is None

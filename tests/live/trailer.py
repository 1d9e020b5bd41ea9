"""What has to hold after whatever went wrong: checked last, the same in every test.

::

    with trailer(line.gateway, next_request(line)) as after:
        answer = ...                       # the fault, and what the client saw of it
        after.expects(answer, "connect")   # its one record, and how it ended

When the block ends without an exception, all of this has been asserted:

- each exchange that was expected has exactly one record, with the word for its end, and
  nobody else has one;
- the next request is answered, and its own record is `ok`;
- the gateway has no more descriptors open than before, and serves no more connections,
  each of which is a greenlet, where it has a status port to say so;
- nothing that the gateway wrote holds a client's key;
- standard error has not a word more, other than those that were expected.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from .conftest import (
    Answer,
    Line,
    assert_no_secret,
    request_body,
    whole,
)
from .harness import Gateway, wait_until

NextRequest = Callable[[], Sequence[Answer]]
"""Sends a request on each of the ways that the test used; their answers must be 200."""


_SOCKET = "socket:[0]"


class After:
    """What a test expects of its exchanges; filled within the block."""

    def __init__(self) -> None:
        self.ended: dict[str, str | None] = {}
        """The word that the record of each request id is to have; None for any."""
        self.anonymous: list[str] = []
        """The words of the exchanges whose id nobody has seen."""
        self.kept = 0
        """How many connections more than before the gateway may keep for later."""
        self.complaint: re.Pattern[str] | None = None
        self.records: list[dict[str, Any]] = []
        """When the block is over: the records, in the order of the log."""

    def expects(self, of: Answer | str | None, ended: str | None) -> None:
        """An exchange has one record that ended like this.

        Args:
            of: its answer, or its id; None if the client has learnt none.
            ended: the word; None for any, where the id is known.
        """
        if of is None:
            assert ended is not None
            self.anonymous.append(ended)
        else:
            request_id = of if isinstance(of, str) else of.value("x-kong-request-id")
            assert request_id not in self.ended
            self.ended[request_id] = ended

    def may_complain(self, line: str) -> None:
        """New lines of standard error must match this pattern; there may be none."""
        self.complaint = re.compile(line)

    def record(self, of: Answer | str) -> dict[str, Any]:
        """The record of an answer or an id, when the block is over."""
        request_id = of if isinstance(of, str) else of.value("x-kong-request-id")
        [record] = [r for r in self.records if r["request"]["id"] == request_id]
        return record


def next_request(line: Line) -> NextRequest:
    """A question that the upstream answers in one piece, whatever it did before."""

    def ask() -> Sequence[Answer]:
        line.upstream.handler = whole
        return [line.ask(request_body())]

    return ask


@contextmanager
def trailer(
    gateway: Gateway, ask: NextRequest, *, timeout: float = 5.0
) -> Iterator[After]:
    """Check, when the block is over, what has to hold after everything.

    Args:
        gateway: the gateway, which nobody else uses meanwhile.
        ask: sends the next request, and one before the block, so that what is kept
            open for it is open.
        timeout: seconds for the records and the descriptors.
    """
    log = _Log(gateway)
    answers = [answer.value("x-kong-request-id") for answer in _answered(ask)]
    log.wait_for(answers, 0, timeout)
    log, said = _Log(gateway), gateway.stderr_text()
    files, after = open_files(gateway), After()
    served = connections(gateway)
    yield after
    expected: Counter[tuple[str | None, str | None]] = Counter(after.ended.items())
    expected.update((None, word) for word in after.anonymous)
    log.wait_for(after.ended, expected.total(), timeout)
    after.records = log.records()
    answers = [answer.value("x-kong-request-id") for answer in _answered(ask)]
    log.wait_for(answers, 0, timeout)
    found: Counter[tuple[str | None, str | None]] = Counter()
    for record in log.records():
        request_id, word = record["request"]["id"], record["kongai"]["ended"]
        if request_id in answers:
            answers.remove(request_id)
            assert word == "ok"
        elif request_id not in after.ended:
            found[None, word] += 1
        else:
            asked = after.ended[request_id]
            found[request_id, word if asked is not None else None] += 1
    assert found == expected
    _back_to(gateway, files + [_SOCKET] * after.kept, timeout)
    wait_until(
        lambda: all(map(int.__le__, connections(gateway), served)),
        "return to the connections served before",
        timeout,
    )
    assert_no_secret(gateway)
    more = gateway.stderr_text()[len(said) :].splitlines()
    unexpected = [
        line for line in more if not (after.complaint and after.complaint.search(line))
    ]
    assert unexpected == []


def _answered(ask: NextRequest) -> Sequence[Answer]:
    answers = ask()
    assert [answer.status for answer in answers] == [200] * len(answers), answers
    return answers


class _Log:
    """What comes into a gateway's log from now on."""

    def __init__(self, gateway: Gateway) -> None:
        self._path = gateway.log_path
        self._start = self._path.stat().st_size if self._path.exists() else 0

    def records(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._start)
            return [json.loads(line) for line in file.read().split(b"\n")[:-1]]

    def wait_for(self, ids: Iterable[str], count: int, timeout: float) -> None:
        """Until these requests, and as many in all, have their records."""

        def missing() -> bool:
            found = [record["request"]["id"] for record in self.records()]
            return not set(ids) <= set(found) or len(found) < count

        what = f"record of {', '.join(ids)}, or {count} in all"
        wait_until(lambda: not missing(), what, timeout)


def _back_to(gateway: Gateway, files: list[str], timeout: float) -> None:
    """Wait until no more is open than before; what there is more of is shown."""

    def opened() -> Counter[str]:
        return _kinds(open_files(gateway)) - _kinds(files)

    try:
        wait_until(lambda: not opened(), "return to the files open before", timeout)
    except TimeoutError:
        assert opened() == Counter(), open_files(gateway)


def _kinds(files: list[str]) -> Counter[str]:
    """What is open, by kind: two sockets are alike."""
    return Counter(re.sub(r":\[\d+\]", "", file) for file in files)


def connections(gateway: Gateway) -> tuple[int, int]:
    """How many connections are open and how many of them busy; zeros without a word."""
    found = re.search(r"status on http://(\S+)", gateway.stderr_text())
    if found is None:
        return 0, 0
    with closing(HTTPConnection(found[1], timeout=5)) as connection:
        connection.request("GET", "/status")
        told = json.load(connection.getresponse())["server"]
    return told["connections_active"], told["connections_writing"]


def open_files(gateway: Gateway) -> list[str]:
    """What the gateway's processes have open, as the system describes it.

    Empty where the system has no /proc.
    """
    found = []
    for pid in processes(gateway):
        folder = Path(f"/proc/{pid}/fd")
        for name in os.listdir(folder) if folder.is_dir() else ():
            try:
                found.append(os.readlink(folder / name))
            except FileNotFoundError:  # closed since it was listed
                continue
    return sorted(found)


def threads(gateway: Gateway) -> int:
    """How many threads the gateway's processes have; 0 without /proc."""
    folders = [Path(f"/proc/{pid}/task") for pid in processes(gateway)]
    return sum(len(os.listdir(folder)) for folder in folders if folder.is_dir())


def processes(gateway: Gateway) -> list[int]:
    """The process that was started and those that it has started."""
    found = [gateway.pid]
    for pid in found:  # which grows meanwhile
        children = Path(f"/proc/{pid}/task/{pid}/children")
        if children.exists():
            found += map(int, children.read_text("ascii").split())
    return found

"""kongai's records, checked while it is measured: a fast gateway that lies is none."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.answers import PROMPT_TOKENS, answer
from benchmarks.errors import CheckFailed
from benchmarks.processes import wait_for
from benchmarks.workloads import MODEL, Workload

_WAIT_SECONDS = 10.0
_SETTLE_SECONDS = 0.2
_SHOWN = 5
_ID = re.compile(r"[0-9a-f]{32}")
# A status line, headers, and what chunks add to a body.
_HEAD_BYTES = 4096
_CHUNK_SHARE = 1.2


class RecordLog:
    """The log of a gateway that is being measured.

    Args:
        path: the file that `file-log` writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checked = 0
        """How many records were good."""
        self._ids: set[str] = set()
        self._counted = self._lines = 0

    def check(self, workload: Workload, answered: int) -> None:
        """Compare what was logged with what was answered since the last call.

        The log is empty afterwards: it would become very large.

        Raises:
            CheckFailed: there is a record too few or too many, or a wrong one.
        """
        wait_for(lambda: self._count() >= answered, _WAIT_SECONDS)
        # One too many comes late.
        wait_for(lambda: self._count() > answered, _SETTLE_SECONDS)
        text = self.path.read_bytes() if self.path.exists() else b""
        problems = list(self._problems(text, workload, answered))
        if problems:
            more = len(problems) - _SHOWN
            shown = problems[:_SHOWN] + ([f"and {more} more"] if more > 0 else [])
            raise CheckFailed(
                f"kongai's records of '{workload.name}' are wrong:\n  "
                + "\n  ".join(shown)
            )
        self.checked += answered
        if text:
            os.truncate(self.path, 0)
            self._counted = self._lines = 0

    def check_journal(self) -> None:
        """See that a gateway that has stopped left nothing open.

        Raises:
            CheckFailed: it left a journal, or wrote another record.
        """
        left = sorted(self.path.parent.glob(f"{self.path.name}.wal.*"))
        if left:
            begin = left[0].read_bytes()[:300].decode("utf-8", "replace")
            raise CheckFailed(
                f"kongai stopped and left the journal {left[0].name}, so exchanges "
                f"are open that were answered:\n  {begin}"
            )
        if self._count():
            raise CheckFailed("kongai wrote records of requests that nobody sent")

    def _count(self) -> int:
        """How many lines there are; only what is new is read."""
        try:
            with self.path.open("rb") as log:
                log.seek(self._counted)
                text = log.read()
        except FileNotFoundError:
            return 0
        self._counted += len(text)
        self._lines += text.count(b"\n")
        return self._lines

    def _problems(
        self, text: bytes, workload: Workload, answered: int
    ) -> Iterator[str]:
        if text and not text.endswith(b"\n"):
            yield "the last line has no end"
        lines = text.splitlines()
        if len(lines) != answered:
            yield f"{len(lines)} records for {answered} answers"
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line, parse_constant=_refuse)
                found = list(problems_of(record, workload))
                request_id = str(record["request"]["id"])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                yield f"record {number} can't be read: {error!r}: {line[:300]!r}"
                continue
            if request_id in self._ids:
                found.append(f"the id {request_id} is there twice")
            self._ids.add(request_id)
            for problem in found:
                yield f"record {number}: {problem}"


def problems_of(record: dict[str, Any], workload: Workload) -> Iterator[str]:
    """What is wrong with the record of an exchange.

    Args:
        record: as it was logged.
        workload: the kind of exchange that it is about.

    Raises:
        KeyError: something that must be there is missing.
        TypeError: something is of another type.
    """
    usage = record["ai"]["proxy"]["usage"]
    mode = "stream" if workload.streamed else "oneshot"
    expected = {
        "kongai.ended": (record["kongai"]["ended"], "ok"),
        "response.status": (record["response"]["status"], 200),
        "upstream_status": (record["upstream_status"], "200"),
        "request_model": (record["ai"]["proxy"]["meta"]["request_model"], MODEL),
        "request_mode": (record["ai"]["proxy"]["meta"]["request_mode"], mode),
        "prompt_tokens": (usage["prompt_tokens"], PROMPT_TOKENS),
        "completion_tokens": (usage["completion_tokens"], workload.tokens),
        "total_tokens": (usage["total_tokens"], PROMPT_TOKENS + workload.tokens),
    }
    for name, (found, wanted) in expected.items():
        if found != wanted or type(found) is not type(wanted):
            yield f"{name} is {found!r}, not {wanted!r}"
    if not _ID.fullmatch(record["request"]["id"]):
        yield f"request.id is {record['request']['id']!r}"
    if not usage["cost"] > 0:
        yield f"cost is {usage['cost']!r}"
    if record["request"]["size"] <= len(workload.body):
        yield f"request.size is {record['request']['size']!r}, less than its body"
    size = len(answer(MODEL, workload.tokens, streamed=workload.streamed).body)
    if not size < record["response"]["size"] < size * _CHUNK_SHARE + _HEAD_BYTES:
        yield f"response.size is {record['response']['size']!r}, its body {size}"


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")

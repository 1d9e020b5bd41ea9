"""Who was asked, who was answered, who is on record: the three have to agree.

::

    clients' ledger    number, what was asked for, how it ended for the client
    upstream's ledger  number of each request that reached it
    the gateway's log  number (in the uri) and `kongai.ended` of each record
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_NUMBER = re.compile(r"[?&]n=(\d+)")


@dataclass
class Books:
    """What the three say, by the requests' numbers."""

    asked: dict[int, tuple[str, str]] = field(default_factory=dict)
    """What was asked for, and how it ended for the client."""
    accepted: set[int] = field(default_factory=set)
    """What reached the upstream, or was answered to a client."""
    records: dict[int, list[dict[str, Any]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    torn: int = 0
    """Lines of the log that are no record: halves that a killed process has left."""

    @property
    def lost(self) -> list[int]:
        """What was accepted and has no record."""
        return sorted(number for number in self.accepted if not self.records[number])

    @property
    def doubled(self) -> list[int]:
        """What has more than one."""
        found = self.records.items()
        return sorted(number for number, records in found if len(records) > 1)

    @property
    def unasked(self) -> list[int]:
        """What has a record and was never asked."""
        return sorted(
            n for n, found in self.records.items() if found and n not in self.asked
        )

    def ends(self) -> Counter[tuple[str, str, str]]:
        """What was asked for, how it ended for the client, and by the record."""
        found: Counter[tuple[str, str, str]] = Counter()
        for number, (kind, word) in self.asked.items():
            for record in self.records.get(number, ()):
                found[kind, word, record["kongai"]["ended"]] += 1
        return found


def books(clients: Iterable[Path], upstream: Path, logs: Iterable[Path]) -> Books:
    """Read all three.

    Args:
        clients: the ledgers of the clients.
        upstream: that of the upstream.
        logs: the log, and what it was rotated to.
    """
    found = Books()
    for path in clients:
        for line in path.read_text("ascii").splitlines():
            number, kind, word = line.split()
            found.asked[int(number)] = kind, word
            if word not in ("nothing", "left", "stuck"):
                found.accepted.add(int(number))
    for line in upstream.read_text("ascii").splitlines():
        text = line.split()[0]
        if text != "-":
            found.accepted.add(int(text))
    for path in logs:
        _read_log(path, found)
    return found


def log_files(log: Path) -> list[Path]:
    """A log and what it was rotated to, without its journals."""
    names = log.parent.glob(log.name + "*")
    return sorted(path for path in names if ".wal." not in path.name)


def _read_log(path: Path, found: Books) -> None:
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            record = json.loads(line.decode("ascii"), parse_constant=_refuse)
        except ValueError:
            found.torn += 1
            continue
        number = _NUMBER.search(record["request"]["uri"])
        if number is not None:
            found.records[int(number[1])].append(record)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")

"""What killed processes have left in their journals is brought into the log.

None is lost and none is doubled: also when two processes do it at once, when one is
killed at it, and when the dead one was killed between a record and its crossing out.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from kongai.log import WORKSPACE
from kongai.log_file import LogFile, LogFileError, Place, is_named, mark_of, try_lock
from kongai.sinks import encode

_NAME = re.compile(r"\.wal\.\d+(?:-\d+)?(\.new)?")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_BEFORE_ID = b'"request":{"id":"'
_LOCK_SECONDS = 1.0
_SLACK_SECONDS = 5.0

_logger = logging.getLogger("kongai")


class Asked(msgspec.Struct, gc=False):
    """Of a request, what is known before it is answered; the names of the record."""

    id: str
    method: str
    uri: str


class Intent(msgspec.Struct, gc=False, omit_defaults=True):
    """What is noted of an exchange that begins."""

    log: Place
    """The log's end then; the record is behind it, if it is there."""
    request: Asked
    client_ip: str
    started_at: int
    route: msgspec.Raw | None = None
    service: msgspec.Raw | None = None
    consumer: msgspec.Raw | None = None
    provider: str | None = None
    model: str | None = None


def recover(log_path: str) -> None:
    """Bring into a log what its journals without an owner hold, and remove them.

    A journal that can't be read, or a log that can't be written, is left for the next
    time; the reason is logged.

    Args:
        log_path: the log; its journals are beside it.
    """
    folder, base = os.path.split(log_path)
    try:
        names = sorted(os.listdir(folder or "."))
    except OSError:
        # Where nothing can be listed the log can't be made either, which says so.
        return
    for name in names:
        found = _NAME.fullmatch(name.removeprefix(base))
        if found is None or not name.startswith(base):
            continue
        path = os.path.join(folder, name)
        try:
            count = _recover_one(log_path, path, is_draft=found[1] is not None)
        except LogFileError as error:
            _logger.error("%s; records wait in %s for the next start", error, path)
        except OSError as error:
            _logger.error("can't read the journal: %s (%s)", error.strerror, path)
        else:
            if count:
                _logger.warning(
                    "records of a process that was killed, or could not write, that "
                    "are in the log now: %d (%s)",
                    count,
                    log_path,
                )


def request_id_of(line: bytes) -> str | None:
    """The request's id in a record; None if the line is no record, or has none."""
    try:
        found = json.loads(line)["request"]["id"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return None
    return found if isinstance(found, str) else None


class _Left(NamedTuple):
    """What is owed to the log."""

    record: bytes
    started_at: int
    """Milliseconds since the epoch."""
    place: Place


def _recover_one(log_path: str, path: str, *, is_draft: bool) -> int:
    """Recover one journal, unless its owner lives; how many records that were."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    log = LogFile(log_path)
    try:
        if not try_lock(descriptor) or not is_named(path, os.fstat(descriptor)):
            # Its owner lives, or another has recovered it meanwhile.
            return 0
        owed: dict[str, _Left] = {}
        if not is_draft:
            with open(descriptor, "rb", closefd=False) as file:
                owed = dict(_owed(file.read()))
        there = _logged(log_path, owed) if owed else set()
        missing = [left.record for key, left in owed.items() if key not in there]
        for record in missing:
            log.append(record, _LOCK_SECONDS)
        os.unlink(path)
        return len(missing)
    finally:
        log.close()
        os.close(descriptor)


def _owed(journal: bytes) -> Iterator[tuple[str, _Left]]:
    """What a journal has begun and not ended, by the requests' ids."""
    begun: dict[bytes, bytes] = {}
    whole: list[bytes] = []
    # What stands behind the last line feed is torn: nobody was asked anything yet.
    for line in journal.split(b"\n")[:-1]:
        kind, _, rest = line.partition(b" ")
        request_id, _, text = rest.partition(b" ")
        if kind == b"B":
            begun[request_id] = text
        elif kind == b"E":
            begun.pop(request_id, None)
        elif kind == b"R":
            whole.append(rest)
    for number, line in enumerate(whole):
        noted, _, record = line.partition(b" ")
        record += b"\n"
        key = request_id_of(record) or f"without an id {number}"
        begun.pop(key.encode(), None)
        found = _read(record)
        if isinstance(found, dict):
            started_at = found.get("started_at")
            when = started_at if isinstance(started_at, int) else 0
            yield key, _Left(record, when, _place(_read(noted)))
    for request_id, text in begun.items():
        intent = _read(text)
        if _is_intent(intent):
            record = encode(_crashed(intent))
            place = _place(intent.get("log"))
            key = request_id.decode("ascii", "replace")
            yield key, _Left(record, intent["started_at"], place)


def _read(text: bytes) -> Any:
    """The JSON of a line; None if it is torn."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_intent(found: Any) -> bool:
    return (
        isinstance(found, dict)
        and isinstance(found.get("request"), dict)
        and isinstance(found.get("client_ip"), str)
        and isinstance(found.get("started_at"), int)
    )


def _place(found: Any) -> Place:
    try:
        inode, size, mark = map(int, found)
    except (TypeError, ValueError):
        # Then all of the log is looked at.
        return Place(0, 0, 0)
    return Place(inode, size, mark)


def _crashed(intent: Mapping[str, Any]) -> dict[str, Any]:
    """The record of an exchange of which nobody knows the end."""
    ended = "crash"
    record = {
        "request": intent["request"],
        "client_ip": intent["client_ip"],
        "started_at": intent["started_at"],
        "workspace": WORKSPACE,
        "workspace_name": "default",
    }
    for name in ("route", "service", "consumer"):
        if name in intent:
            record[name] = intent[name]
    if "provider" in intent:
        model = intent.get("model", "UNSPECIFIED")
        meta = {"provider_name": intent["provider"], "request_model": model}
        record["ai"] = {"proxy": {"meta": meta}}
    record["kongai"] = {"ended": ended}
    return record


def _logged(log_path: str, owed: Mapping[str, _Left]) -> set[str]:
    """Which of the requests have a record in the log, or where it was rotated to."""
    folder, base = os.path.split(log_path)
    oldest = min(left.started_at for left in owed.values()) / 1000 - _SLACK_SECONDS
    inodes = {left.place.inode for left in owed.values()}
    there: set[str] = set()
    for entry in os.scandir(folder or "."):
        name = entry.name
        if not entry.is_file() or name.endswith(_COMPRESSED):
            continue
        if _NAME.fullmatch(name.removeprefix(base)):
            continue
        found = entry.stat()
        recent = name.startswith(base) and found.st_mtime >= oldest
        if name == base or recent or found.st_ino in inodes:
            there.update(_in_file(entry.path, owed))
    return there


def _in_file(path: str, owed: Mapping[str, _Left]) -> Iterator[str]:
    """The requests of which a file has a whole record."""
    with open(path, "rb") as file:
        here, mark = os.fstat(file.fileno()), mark_of(file.fileno())
        # Behind the place that was noted, if it is the same content still.
        file.seek(
            min(
                size if (inode, noted) == (here.st_ino, mark) and noted else 0
                for inode, size, noted in (left.place for left in owed.values())
            )
        )
        for line in file:
            start = line.find(_BEFORE_ID) + len(_BEFORE_ID)
            key = line[start : line.find(b'"', start)].decode("ascii", "replace")
            if key in owed and line.endswith(b"\n") and request_id_of(line) == key:
                yield key

"""What killed processes have left in their journals is brought into the log.

None is lost and none is doubled: also when two processes do it at once, when one is
killed at it, and when the dead one was killed between a record and its crossing out.

The directory may be one to which others write: only files of the process's own user are
taken for journals, no link is followed, and whatever is in them, the memory that they
take is bounded.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from kongai.errors import whereabouts
from kongai.log import WORKSPACE
from kongai.log_file import (
    LogFile,
    LogFileError,
    Place,
    is_named,
    let_go,
    try_lock,
)
from kongai.logged import JOURNAL_NAME, LONGEST_LINE, READ, Left, Logged, request_id_of
from kongai.sinks import encode

LONGEST_JOURNAL = 256 * 1024 * 1024
"""What is behind that many bytes of a journal is not read; none gets as long."""

_LATEST = 2**53
"""Milliseconds since the epoch: later is no time."""
_LOCK_SECONDS = 1.0

_logger = logging.getLogger("kongai")


class Asked(msgspec.Struct, gc=False):
    """Of a request, what is known before it is answered; the names of the record."""

    id: str
    method: str
    uri: str


class Intent(msgspec.Struct, gc=False, omit_defaults=True):
    """What is noted of an exchange that begins."""

    log: msgspec.Raw
    """A `Place` of the log: the record is behind it, if it is there."""
    request: Asked
    client_ip: str
    started_at: int
    route: msgspec.Raw | None = None
    service: msgspec.Raw | None = None
    consumer: msgspec.Raw | None = None
    provider: str | None = None
    model: str | None = None


def recover(log_path: str, owner: int | None = None) -> None:
    """Bring into a log what its journals without an owner hold, and remove them.

    A log that can't be written now leaves its journal for the next time. A journal of
    which something can't be read is renamed to ``.bad`` (a number follows if there is
    one already) when the rest of it is in the log. What belongs to another user, or is
    no file, is left alone. Each of these is logged, and nothing is raised.

    Args:
        log_path: the log; its journals are beside it.
        owner: the user id that files have which this process makes there; by default
            its own.
    """
    folder, base = os.path.split(log_path)
    try:
        names = sorted(os.listdir(folder or "."))
    except OSError:
        # Where nothing can be listed the log can't be made either, which says so.
        return
    log = Logged(log_path)
    owner = os.geteuid() if owner is None else owner
    for name in names:
        found = JOURNAL_NAME.fullmatch(name.removeprefix(base))
        if found is None or not name.startswith(base):
            continue
        path = os.path.join(folder, name)
        if found[1] is None:
            _recover_one(log, path, owner)
        elif found[1] == ".new":
            _remove_draft(path, owner)


def _recover_one(log: Logged, path: str, owner: int) -> None:
    """Recover one journal, unless its owner lives."""
    descriptor = None
    try:
        descriptor = _open_unowned(path, owner)
        if descriptor is None:
            return
        try:
            count, unread = _bring(log, descriptor)
        except (LogFileError, OSError, MemoryError):
            raise
        except Exception as error:
            _logger.error("failed to recover: %s (%s)", whereabouts(error), path)
            count, unread = 0, 1
        if unread:
            _set_aside(path, unread)
        else:
            os.unlink(path)
    except LogFileError as error:
        _logger.error("%s; records wait in %s for the next start", error, path)
    except (OSError, MemoryError) as error:
        text = getattr(error, "strerror", None) or "out of memory"
        _logger.error("can't recover the journal: %s (%s)", text, path)
    else:
        if count:
            _logger.warning(
                "records of a process that was killed, or could not write, that "
                "are in the log now: %d (%s)",
                count,
                log.path,
            )
    finally:
        if descriptor is not None:
            let_go(descriptor, path)


def _remove_draft(path: str, owner: int) -> None:
    """Remove what a process that was killed had not made a journal yet."""
    try:
        descriptor = _open_unowned(path, owner)
        if descriptor is not None:
            try:
                os.unlink(path)
            finally:
                let_go(descriptor, path)
    except OSError as error:
        _logger.error("can't remove the journal: %s (%s)", error.strerror, path)


def _open_unowned(path: str, owner: int) -> int | None:
    """Open and lock a journal whose process is gone.

    Returns:
        None if it lives, if somebody else has been quicker, or if it is no journal.

    Raises:
        OSError: it can't be opened.
    """
    try:
        known = os.lstat(path)
        if not stat.S_ISREG(known.st_mode) or known.st_uid != owner:
            _logger.warning("not this user's journal, and left alone: %s", path)
            return None
        descriptor = os.open(path, READ | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        here = os.fstat(descriptor)
        same = (here.st_ino, here.st_dev) == (known.st_ino, known.st_dev)
        if same and try_lock(descriptor) and is_named(path, here):
            taken, descriptor = descriptor, -1
            return taken
        return None
    finally:
        if descriptor >= 0:
            let_go(descriptor, path)


def _set_aside(path: str, unread: int) -> None:
    """Keep a journal under a name under which it is not tried again."""
    bad, number = f"{path}.bad", 1
    while os.path.lexists(bad):
        number += 1
        bad = f"{path}.bad-{number}"
    os.rename(path, bad)
    text = "lines of a journal that can't be read: %d; it is kept as %s"
    _logger.error(text, unread, bad)


def _bring(log: Logged, journal: int) -> tuple[int, int]:
    """Bring the records of an open journal into the log.

    Returns:
        How many records that were, and how many lines can't be read.

    Raises:
        LogFileError: the log can't be written.
        OSError: the journal can't be read.
    """
    owed, unread = _owed(journal)
    there = log.those_in(owed) if owed else set()
    missing = [left.record for key, left in owed.items() if key not in there]
    file = LogFile(log.path)
    try:
        for record in missing:
            file.append(record, _LOCK_SECONDS)
    finally:
        file.close()
    return len(missing), unread


def _lines(journal: int) -> Iterator[bytes]:
    """The lines of a journal, with their line feeds; one that is too long is ``?``."""
    with open(journal, "rb", closefd=False) as file:
        while part := file.readline(LONGEST_LINE):
            if len(part) == LONGEST_LINE and not part.endswith(b"\n"):
                yield b"?\n"
                while part and not part.endswith(b"\n"):
                    if file.tell() > LONGEST_JOURNAL:
                        return
                    part = file.readline(LONGEST_LINE)
            elif file.tell() > LONGEST_JOURNAL:
                yield b"?\n"
                return
            else:
                yield part


def _owed(journal: int) -> tuple[dict[str, Left], int]:
    """What a journal has begun and not ended, by the requests' ids.

    Returns:
        That, and how many lines can't be read.
    """
    begun: dict[bytes, bytes] = {}
    whole: list[bytes] = []
    unread = 0
    for line in _lines(journal):
        kind, _, rest = line.rstrip(b"\n").partition(b" ")
        request_id, _, text = rest.partition(b" ")
        if not line.endswith(b"\n"):
            # It is torn. Nobody was asked anything yet, or the record is in the log.
            unread += kind not in (b"B", b"E")
        elif kind == b"B":
            begun[request_id] = text
        elif kind == b"E" and request_id:
            begun.pop(request_id, None)
        elif kind == b"R":
            whole.append(rest)
        else:
            # Behind what was torn the next line begins with a line feed.
            unread += line != b"\n"
    owed: dict[str, Left] = {}
    for number, line in enumerate(whole):
        noted, _, text = line.partition(b" ")
        found = _read(text)
        if not isinstance(found, dict):
            unread += 1
            continue
        key = request_id_of(text) or f"without an id {number}"
        begun.pop(key.encode("utf-8", "replace"), None)
        when: Any = found.get("started_at")
        started_at = int(when) if _is_time(when) else 0
        owed[key] = Left(text + b"\n", started_at, _place(_read(noted)))
    for request_id, text in begun.items():
        intent = _read(text)
        if not _is_intent(intent, request_id):
            unread += 1
            continue
        record = encode(_crashed(intent))
        place = _place(intent.get("log"))
        owed[intent["request"]["id"]] = Left(record, intent["started_at"], place)
    return owed, unread


def _read(text: bytes) -> Any:
    """The JSON of a line; None if it is torn."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_intent(found: Any, request_id: bytes) -> bool:
    """Whether it says of a request what an `Intent` says."""
    if not isinstance(found, dict) or not _are_texts(found.get("request")):
        return False
    known = found["request"].get("id", "").encode("utf-8", "replace")
    return (
        known == request_id != b""
        and isinstance(found.get("client_ip"), str)
        and _is_time(found.get("started_at"))
        and all(_are_texts(found.get(name, {})) for name in _ENTITIES)
        and all(isinstance(found.get(name, ""), str) for name in ("provider", "model"))
    )


_ENTITIES = ("route", "service", "consumer")


def _are_texts(found: Any) -> bool:
    return isinstance(found, dict) and all(isinstance(v, str) for v in found.values())


def _is_time(found: Any) -> bool:
    return type(found) is int and 0 <= found < _LATEST


def _place(found: Any) -> Place:
    """A place that was noted; without one all of the log is looked at."""
    if not isinstance(found, list) or len(found) != len(Place._fields):
        return Place(0, 0, 0)
    if not all(type(number) is int and number >= 0 for number in found):
        return Place(0, 0, 0)
    return Place(*found)


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
    for name in _ENTITIES:
        if name in intent:
            record[name] = intent[name]
    if "provider" in intent:
        model = intent.get("model", "UNSPECIFIED")
        meta = {"provider_name": intent["provider"], "request_model": model}
        record["ai"] = {"proxy": {"meta": meta}}
    record["kongai"] = {"ended": ended}
    return record

"""`file-log`: appends each exchange's record to a file, as Kong's plugin does."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from kongai.errors import LogUnavailable, whereabouts
from kongai.exchange import Exchange
from kongai.journal import Journal
from kongai.log import line
from kongai.plugin import Plugin
from kongai.plugins import custom_fields as fields
from kongai.schema import load
from kongai.sinks import FileSink

LogPath = Annotated[
    str,
    Meta(
        pattern=r"^[^\s\0*&%\\`][^\0*&%\\`]*[^\s\0*&%\\`]\Z",
        description="not a valid filename",
    ),
]


LogPolicy = Literal["best_effort", "required"]
"""What becomes of requests while the log can't be written."""

_logger = logging.getLogger("kongai")


class FileLogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `file-log`, as Kong names them; `log_policy` is kongai's own."""

    NOT_NULL: ClassVar[frozenset[str]] = frozenset({"reopen", "log_policy"})

    NOT_HERE: ClassVar[dict[str, str]] = {"custom_fields_by_lua": fields.NO_LUA}

    path: LogPath
    reopen: bool = False
    custom_fields: dict[str, Any] | None = None
    log_policy: LogPolicy = "best_effort"

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the whole: pairs of a field's path and a text."""
        return fields.problems(self.custom_fields)


class FileLog(Plugin):
    """Writes one JSON line per exchange to a file.

    What is under way is noted in a journal beside the file, so that exchanges of a
    process that is killed are recorded too: see `kongai.journal`.

    Args:
        path: the file; its directory must exist.
        reopen: open the file anew for each record.
        custom_fields: more fields of the record, see `CustomFields`.
        log_policy: ``required`` refuses requests while the file or its journal can't be
            written; ``best_effort`` lets them pass.

    Raises:
        ConfigError: Kong would not take the path, or a field can't be what it says.
    """

    name = "file-log"
    priority = 9
    Config = FileLogConfig

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        reopen: bool = False,
        custom_fields: Mapping[str, Any] | None = None,
        log_policy: LogPolicy = "best_effort",
    ) -> None:
        given = {
            "path": os.fspath(path),
            "reopen": reopen,
            "custom_fields": custom_fields,
            "log_policy": log_policy,
        }
        self.config = load(FileLogConfig, given)
        self.journal = Journal(self.config.path, lambda: self.sink.place)
        self.sink = FileSink(
            self.config.path, reopen=self.config.reopen, keep=self.journal.keep
        )
        self._required = self.config.log_policy == "required"
        self._fields = None
        if self.config.custom_fields:
            self._fields = fields.CustomFields(self.config.custom_fields)

    @classmethod
    def from_config(cls, config: FileLogConfig) -> FileLog:
        """Make the plugin a configuration file asks for."""
        return cls(
            config.path,
            reopen=config.reopen,
            custom_fields=config.custom_fields,
            log_policy=config.log_policy,
        )

    def init_worker(self) -> None:
        """Record what a process that was killed has left. Nothing is raised."""
        self.journal.open()

    def access(self, exchange: Exchange) -> None:
        """Note the exchange, in case that the process is killed.

        Raises:
            LogUnavailable: a record is required, and could not be written.
        """
        noted = self.journal.begin(exchange)
        if self._required and (self.sink.failing or not noted):
            raise LogUnavailable

    def log(self, exchange: Exchange) -> None:
        """Write the record."""
        if self._fields is not None:
            self._fields.set(exchange)
        self.sink.append(line(exchange), partial(self.journal.end, exchange.id))

    def reopen(self) -> None:
        """Open the file anew with the next record. Nothing is raised."""
        _quietly(self.sink.reopen)

    def close(self) -> None:
        """Close the file. Nothing is raised."""
        _quietly(self.sink.close)
        _quietly(self.journal.close)


def _quietly(step: Callable[[], None]) -> None:
    """Do what must not keep a server from its next step; a failure is logged."""
    try:
        step()
    except Exception as error:
        _logger.error("failed to close the log: %s", whereabouts(error))

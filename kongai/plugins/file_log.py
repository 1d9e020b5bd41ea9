"""`file-log`: appends each exchange's record to a file, as Kong's plugin does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from kongai.exchange import Exchange
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


class FileLogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `file-log`, as Kong names them."""

    NOT_NULL: ClassVar[frozenset[str]] = frozenset({"reopen"})

    NOT_HERE: ClassVar[dict[str, str]] = {"custom_fields_by_lua": fields.NO_LUA}

    path: LogPath
    reopen: bool = False
    custom_fields: dict[str, Any] | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the whole: pairs of a field's path and a text."""
        return fields.problems(self.custom_fields)


class FileLog(Plugin):
    """Writes one JSON line per exchange to a file.

    Args:
        path: the file; its directory must exist.
        reopen: open the file anew for each record.
        custom_fields: more fields of the record, see `CustomFields`.

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
    ) -> None:
        given = {
            "path": os.fspath(path),
            "reopen": reopen,
            "custom_fields": custom_fields,
        }
        self.config = load(FileLogConfig, given)
        self.sink = FileSink(self.config.path, reopen=self.config.reopen)
        self._fields = fields.CustomFields(self.config.custom_fields)

    @classmethod
    def from_config(cls, config: FileLogConfig) -> FileLog:
        """Make the plugin a configuration file asks for."""
        return cls(
            config.path, reopen=config.reopen, custom_fields=config.custom_fields
        )

    def log(self, exchange: Exchange) -> None:
        """Write the record."""
        self._fields.set(exchange)
        self.sink.append(line(exchange))

    def close(self) -> None:
        """Close the file."""
        self.sink.close()

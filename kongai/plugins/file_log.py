"""`file-log`: appends each exchange's record to a file, as Kong's plugin does."""

from __future__ import annotations

import os
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from kongai.exchange import Exchange
from kongai.log import FileSink, serialize
from kongai.plugin import Plugin
from kongai.schema import load

LogPath = Annotated[
    str,
    Meta(
        pattern=r"^[^\s\0*&%\\`][^\0*&%\\`]*[^\s\0*&%\\`]\Z",
        description="not a valid filename",
    ),
]


class FileLogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `file-log`, as Kong names them."""

    NOT_HERE: ClassVar[dict[str, str]] = {
        "custom_fields_by_lua": (
            "kongai runs no Lua; add fields in the log phase of a plugin of your own"
        )
    }

    path: LogPath
    reopen: bool = False


class FileLog(Plugin):
    """Writes one JSON line per exchange to a file.

    Args:
        path: the file; its directory must exist.
        reopen: open the file anew for each record.

    Raises:
        ConfigError: Kong would not take the path.
    """

    name = "file-log"
    priority = 9
    Config = FileLogConfig

    def __init__(self, path: str | os.PathLike[str], *, reopen: bool = False) -> None:
        fields = {"path": os.fspath(path), "reopen": reopen}
        self.config = load(FileLogConfig, fields)
        self.sink = FileSink(self.config.path, reopen=self.config.reopen)

    @classmethod
    def from_config(cls, config: FileLogConfig) -> FileLog:
        """Make the plugin a configuration file asks for."""
        return cls(config.path, reopen=config.reopen)

    def log(self, exchange: Exchange) -> None:
        """Write the record."""
        self.sink.emit(serialize(exchange))

    def close(self) -> None:
        """Close the file."""
        self.sink.close()

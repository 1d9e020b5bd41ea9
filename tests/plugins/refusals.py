"""What a file is told about the settings of a plugin."""

from __future__ import annotations

from typing import Any

from kongai.config import load_mapping
from kongai.errors import ConfigError


def problems(name: str, config: dict[str, Any]) -> list[str]:
    """What a file with this configuration of the plugin is told."""
    plugins = [{"name": name, "config": config}]
    try:
        load_mapping({"_format_version": "3.0", "plugins": plugins})
    except ConfigError as error:
        return [
            str(problem).removeprefix("plugins[0].config.")
            for problem in error.problems
        ]
    return []

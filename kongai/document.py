"""A declarative file's text: environment references in, data with line numbers out.

YAML is read by Kong's rules rather than PyYAML's where they differ: a date stays the
text it is written as. JSON is read as the YAML it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from kongai.errors import ConfigError, Problem
from kongai.schema import Path, path_text

MAX_NODES = 200_000
"""How many values a document may have, its aliases written out."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# decK: a Go template with these delimiters, of which the function `env` is used.
_TEMPLATE = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_ENV = re.compile(r"""\s*env\s+["'`]([^"'`]*)["'`]\s*(?:\|\s*(\w+)\s*)?""")
_CASTS = ("toBool", "toInt", "toFloat")


class Document:
    """The data of a file, and where in the file each value stands.

    Args:
        data: what the file says, as dicts, lists and scalars.
        lines: from each value's path to its line, counted from 1.
        source: the file's name for messages.
    """

    def __init__(
        self, data: Any, lines: Mapping[Path, int], source: str | None
    ) -> None:
        self.data = data
        self.source = source
        self._lines = lines

    def problem(self, path: Path, message: str) -> Problem:
        """A problem at a path, with the line of the nearest value that is there."""
        line = None
        for length in range(len(path), -1, -1):
            line = self._lines.get(path[:length])
            if line is not None:
                break
        return Problem(path_text(path), message, line)


def parse(
    text: str, source: str | None = None, environ: Mapping[str, str] | None = None
) -> Document:
    """Read a document.

    Args:
        text: YAML or JSON, with decK's ``${{ env "DECK_X" }}`` in it.
        source: the file's name for messages.
        environ: the environment; the process's own when None.

    Raises:
        ConfigError: it can't be read.
    """
    text = _substitute(text, os.environ if environ is None else environ, source)
    try:
        loader = _Loader(text.removeprefix("\ufeff"))
        node = loader.get_single_node()
        reader = _Reader(loader)
        data = None if node is None else reader.value(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _unreadable(
            error.problem or "not YAML", source, mark.line + 1 if mark else None
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        # The text may hold a credential that came out of the environment.
        raise _unreadable(type(error).__name__, source, None) from None
    except RecursionError:
        raise _unreadable("nested too deeply", source, None) from None
    if reader.problems:
        raise ConfigError(reader.problems, source)
    return Document(data, reader.lines, source)


def _unreadable(reason: str, source: str | None, line: int | None) -> ConfigError:
    message = f"failed parsing declarative configuration: {reason}"
    return ConfigError([Problem("", message, line)], source)


def _substitute(text: str, environ: Mapping[str, str], source: str | None) -> str:
    problems: list[Problem] = []

    def replace(found: re.Match[str]) -> str:
        value = _environment_value(found.group(1), environ)
        if isinstance(value, str):
            return value
        line = text.count("\n", 0, found.start()) + 1
        problems.append(Problem("", value.message, line))
        return ""

    replaced = _TEMPLATE.sub(replace, text)
    if problems:
        raise ConfigError(problems, source)
    return replaced


def _environment_value(expression: str, environ: Mapping[str, str]) -> str | Problem:
    call = _ENV.fullmatch(expression)
    if call is None or call.group(2) not in (None, *_CASTS):
        return Problem("", 'expected ${{ env "DECK_NAME" }}')
    name = call.group(1)
    if not name.startswith("DECK_"):
        return Problem(
            "",
            "environment variables in the state file must be prefixed with 'DECK_', "
            f"found: '{name}'",
        )
    if name not in environ:
        return Problem(
            "", f"environment variable '{name}' present in state file but not set"
        )
    return environ[name]


class _Reader:
    """Builds plain data from YAML nodes and notes each value's line."""

    def __init__(self, loader: Any) -> None:
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []
        self._loader = loader
        self._open: set[int] = set()
        self._flattened: set[int] = set()

    def value(self, node: yaml.Node, path: Path) -> Any:
        line = node.start_mark.line + 1
        self.lines[path] = line
        if len(self.lines) > MAX_NODES:
            raise _unreadable("too many values", None, line)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            self.problems.append(Problem(path_text(path), "contains itself", line))
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.value(n, (*path, i)) for i, n in enumerate(node.value)]
            return dict(self._pairs(node, path))
        finally:
            self._open.discard(id(node))

    def _pairs(self, node: Any, path: Path) -> Iterator[tuple[Any, Any]]:
        if id(node) not in self._flattened:
            self._refuse_repeated(node, path)
            self._loader.flatten_mapping(node)
            self._flattened.add(id(node))
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(path_text(path), "expected a key", line))
                continue
            key = self._scalar(key_node)
            where = (*path, key)
            yield key, self.value(value_node, where)
            self.lines[where] = line

    def _refuse_repeated(self, node: Any, path: Path) -> None:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    where = path_text((*path, key.value))
                    line = key.start_mark.line + 1
                    self.problems.append(Problem(where, "given twice", line))
                seen.add(key.value)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if node.tag == "tag:yaml.org,2002:timestamp":
            return node.value
        return self._loader.construct_object(node)

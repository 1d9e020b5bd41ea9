"""A declarative file's text: environment references in, data with line numbers out.

YAML is read by Kong's rules rather than PyYAML's where they differ: a date stays the
text it is written as. JSON is read as the YAML it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from kongai.errors import ConfigError, Problem
from kongai.schema import Path, path_text

MAX_NODES = 200_000
"""How many values a document may have, its aliases written out."""
MAX_DEPTH = 100
"""How deeply values may be nested; libyaml would go on until the stack overflows."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# YAML 1.1 reads numbers such as 1e3 as text.
_JSON_FLOAT = re.compile(r"-?[0-9]+(?:\.[0-9]+)?[eE][+-]?[0-9]+")
# Newer versions of libyaml stop at a depth of their own.
_REASONS = {"exceeded maximum nesting depth": "nested too deeply"}
_MERGE = "tag:yaml.org,2002:merge"
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")

# decK: a Go template with these delimiters, the function `env`, and these to pipe into.
_TEMPLATE = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_ENV = re.compile(r"""\s*env\s+["'`]([^"'`]*)["'`]\s*(?:\|\s*(\w+)\s*(\d{0,3})\s*)?""")
_FUNCTIONS: dict[str, re.Pattern[str]] = {
    "toBool": re.compile("1|0|t|f|T|F|true|false|TRUE|FALSE|True|False"),
    "toInt": re.compile(r"[+-]?[0-9]+"),
    "toFloat": re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"),
    "indent": re.compile(r".*", re.DOTALL),
}
_SHORTEST_SECRET = 6
"""What is shorter is no credential, and may well be a word that messages use."""


class Document:
    """The data of a file, and where in the file each value stands.

    Args:
        data: what the file says, as dicts, lists and scalars.
        lines: from each value's path to its line, counted from 1.
        source: the file's name for messages.
        secrets: from values out of the environment to what messages have instead.
    """

    def __init__(
        self,
        data: Any,
        lines: Mapping[Path, int],
        source: str | None,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self.data = data
        self.source = source
        self._lines = lines
        self._secrets = secrets or {}

    def problem(self, path: Path, message: str) -> Problem:
        """A problem at a path, with the line of the nearest value that is there."""
        problem = Problem(path_text(path), message, self._line(path))
        return _without(self._secrets, problem)

    def place(self, path: Path) -> str:
        """Where a value stands, for people: file and line, or else its path."""
        line = self._line(path)
        if line is None:
            return path_text(path)
        return f"{self.source}:{line}" if self.source else f"line {line}"

    def _line(self, path: Path) -> int | None:
        for length in range(len(path), -1, -1):
            line = self._lines.get(path[:length])
            if line is not None:
                return line
        return None


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
    template = _Template(os.environ if environ is None else environ)
    text = template.fill(text)
    if template.problems:
        raise ConfigError(template.problems, source)
    reader = _Reader(template.lines)
    try:
        data = reader.read(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = error.problem or "not YAML"
        reader.unreadable(_REASONS.get(reason, reason), mark)
    except (yaml.YAMLError, ValueError) as error:
        # The text may hold a credential that came out of the environment.
        reader.unreadable(type(error).__name__, None)
    except RecursionError:
        reader.unreadable("nested too deeply", None)
    if reader.problems:
        problems = [_without(template.secrets, problem) for problem in reader.problems]
        raise ConfigError(problems, source)
    return Document(data, reader.lines, source, template.secrets)


def _without(secrets: Mapping[str, str], problem: Problem) -> Problem:
    path, message, line = problem
    for value in sorted(secrets, key=len, reverse=True):
        path = path.replace(value, secrets[value])
        message = message.replace(value, secrets[value])
    return Problem(path, message, line)


class _Template:
    """Puts the environment into a text, and keeps what that hides: lines and secrets.

    Args:
        environ: the environment.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self.secrets: dict[str, str] = {}
        """From each value that was put in to the template it stands for."""
        self.lines = [1]
        """The line in the file of each line of the filled text."""
        self._environ = environ

    def fill(self, text: str) -> str:
        """Put in what the templates stand for; what can't be had is a problem."""
        pieces = _TEMPLATE.split(text)
        line = 1
        for index, piece in enumerate(pieces):
            first, line = line, line + _line_breaks(piece)
            if index % 2 == 0:
                self.lines += range(first + 1, line + 1)
                continue
            try:
                value = pieces[index] = self._value(piece)
            except LookupError as error:
                self.problems.append(Problem("", error.args[0], first))
                continue
            self.lines += [first] * _line_breaks(value)
            for part in (value, *value.split("\n")):
                if len(part) >= _SHORTEST_SECRET:
                    self.secrets[part] = f"${{{{ {' '.join(piece.split())} }}}}"
        return "".join(pieces)

    def _value(self, expression: str) -> str:
        call = _ENV.fullmatch(expression)
        name, function, indent = call.groups() if call else ("", "", "")
        if function not in (None, *_FUNCTIONS):
            raise LookupError('expected ${{ env "DECK_NAME" }}')
        if not name.startswith("DECK_"):
            raise LookupError(
                "environment variables in the state file must be prefixed with "
                f"'DECK_', found: '{name}'"
            )
        value = self._environ.get(name)
        if value is None:
            raise LookupError(
                f"environment variable '{name}' present in state file but not set"
            )
        if function is not None and not _FUNCTIONS[function].fullmatch(value):
            raise LookupError(f"environment variable '{name}' is not for {function}")
        if function == "toBool":
            return "true" if value[0] in "1tT" else "false"
        return value.replace("\n", "\n" + " " * int(indent or 0))


def _line_breaks(text: str) -> int:
    return len(_LINE_BREAK.findall(text))


class _Reader:
    """Builds plain data from YAML and notes each value's line.

    Args:
        lines: the line in the file of each line of the text.
    """

    def __init__(self, lines: Sequence[int]) -> None:
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []
        self._line_of = lines
        self._loader: Any = None
        self._open: set[int] = set()
        self._pairs: dict[int, dict[Any, tuple[Any, Any]]] = {}

    def read(self, text: str) -> Any:
        """Read a text's one document; an empty text is None."""
        _check_depth(text)
        self._loader = _Loader(text)
        node = self._loader.get_single_node()
        return None if node is None else self._value(node, ())

    def unreadable(self, reason: str, mark: Any) -> None:
        """Note why the text can't be read; nothing else counts then."""
        message = f"failed parsing declarative configuration: {reason}"
        self.problems = [Problem("", message, mark and self._line(mark))]

    def _line(self, mark: Any) -> int:
        index: int = min(mark.line, len(self._line_of) - 1)
        return self._line_of[index]

    def _value(self, node: Any, path: Path) -> Any:
        self.lines[path] = self._line(node.start_mark)
        if len(path) > MAX_DEPTH:
            raise _unreadable("nested too deeply", node)
        if len(self.lines) > MAX_NODES:
            raise _unreadable("too many values", node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            self._report(path, "contains itself", node)
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self._value(n, (*path, i)) for i, n in enumerate(node.value)]
            return dict(self._items(node, path))
        finally:
            self._open.discard(id(node))

    def _items(self, node: Any, path: Path) -> Iterator[tuple[Any, Any]]:
        for key_node, value_node in self._merged(node, path).values():
            if not isinstance(key_node, yaml.ScalarNode):
                self._report(path, "expected a key", key_node)
                continue
            key = self._scalar(key_node)
            where = (*path, key)
            yield key, self._value(value_node, where)
            self.lines[where] = self._line(key_node.start_mark)

    def _merged(self, node: Any, path: Path) -> dict[Any, tuple[Any, Any]]:
        """A mapping's pairs, and after them those its ``<<`` brings; once per mapping.

        PyYAML's own way takes exponential time for merges of merges.
        """
        if id(node) in self._pairs:
            return self._pairs[id(node)]
        pairs = self._pairs[id(node)] = {}
        merges: list[Any] = []
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else id(key)
            if key.tag == _MERGE:
                several = isinstance(value, yaml.SequenceNode)
                merges += value.value if several else [value]
            elif name in pairs:
                self._report((*path, name), "given twice", key)
            else:
                pairs[name] = (key, value)
        for merge in merges:
            if not isinstance(merge, yaml.MappingNode):
                self._report(path, "expected a mapping to merge", merge)
                continue
            for name, pair in self._merged(merge, path).items():
                pairs.setdefault(name, pair)
        return pairs

    def _report(self, path: Path, message: str, node: Any) -> None:
        line = self._line(node.start_mark)
        self.problems.append(Problem(path_text(path), message, line))

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        if node.tag == "tag:yaml.org,2002:timestamp":
            return node.value
        if not node.style and _JSON_FLOAT.fullmatch(node.value):
            return float(node.value)
        try:
            return self._loader.construct_object(node)
        except (ValueError, LookupError):
            raise _unreadable("invalid value for its type", node) from None


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            depth -= 1
        if depth > MAX_DEPTH:
            raise _unreadable("nested too deeply", event)


def _unreadable(reason: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(None, None, reason, at.start_mark)

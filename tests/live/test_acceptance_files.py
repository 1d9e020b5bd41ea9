"""Facts 15, 21, 22 and 40: files that are refused. And where the other facts are.

========  =====================================================
1 to 12   `test_acceptance_native`
13 to 26  `test_acceptance_requests`, and 33
18 to 34  `test_acceptance_translated`: those of OpenAI's format
35 to 42  `test_acceptance_gateway`
later     `LATER`
========  =====================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from kongai.cli import main

from . import acceptance
from .acceptance import Row, facts
from .harness import howto_config

_ADVANCED = "needs ai-proxy-advanced"
LATER = {
    **dict.fromkeys((43, 44, 45), _ADVANCED),
}
"""The facts without a row: their numbers, and why there is none."""

UPSTREAM = "http://127.0.0.1:1/v1/messages"
NO_VERSION = {"provider": "anthropic", "options": {"upstream_url": UPSTREAM}}
BAD_NAMES = {
    "/ovo*": "an asterisk",
    "/ovo`": "a backtick",
    "test&thing": "an ampersand",
    "test%thing": "a percent sign",
    r"test\thing": "a backslash",
    " /ovo": "a space before it",
    "/ovo  ": "spaces after it",
}
HALF_A_CREDENTIAL = (
    "all or none of these fields must be set: 'auth.header_name', 'auth.header_value'"
)


@dataclass(frozen=True, kw_only=True)
class File(Row):
    """The how-to's file, changed, and what `kongai check` says of it."""

    ai_proxy: Mapping[str, Any] = field(default_factory=dict)
    path: str | None = "/tmp/claude.json"
    """The log's; None for a `file-log` without one."""
    where: str = ""
    """The line of the problem, and the path below the plugins; empty for none."""
    text: str = ""
    beside: tuple[str, ...] = ()
    """How the texts begin that are said of the same place beside."""


@facts(
    File(
        number=15,
        says="a header's name without its value",
        ai_proxy={"auth": {"header_name": "x-api-key"}},
        where="16: [0].config.auth",
        text=HALF_A_CREDENTIAL,
    ),
    File(
        number=15,
        says="a header's value without its name",
        ai_proxy={"auth": {"header_value": "canary"}},
        where="16: [0].config.auth",
        text=HALF_A_CREDENTIAL,
    ),
    File(
        number=21,
        says="anthropic without anthropic_version",
        ai_proxy={"model": NO_VERSION},
        where="15: [0].config.model.options",
        text="must set 'model.options.anthropic_version' for anthropic provider",
    ),
    File(
        number=22,
        says="statistics of llm/v1/completions",
        kong="has the route type for Anthropic, without statistics",
        ai_proxy={"route_type": "llm/v1/completions", "llm_format": "openai"},
        where="11: [0].config.route_type",
        text="anthropic does not support statistics when route_type is "
        "llm/v1/completions",
        beside=("'llm/v1/completions' is not available in this version of kongai",),
    ),
    *(
        File(
            number=40,
            says=f"a log's name with {what}",
            path=path,
            where="18: [1].config.path",
            text="not a valid filename",
        )
        for path, what in BAD_NAMES.items()
    ),
    File(number=40, says="a log's name with a space within", path="/o vo.loga"),
    File(
        number=40,
        says="a log without a path",
        path=None,
        where="17: [1].config.path",
        text="required field missing",
    ),
)
def test_a_file(tmp_path: Path, fact: File) -> None:
    text = howto_config(UPSTREAM, "PATH", **fact.ai_proxy)
    log = "reopen: true" if fact.path is None else f"path: {json.dumps(fact.path)}"
    path = tmp_path / "kong.yml"
    path.write_text(text.replace('path: "PATH"', log), "utf-8")
    result = CliRunner().invoke(main, ["check", str(path)])
    begins = [f"{path}: 1 service, 1 route, no problems"]
    if fact.where:
        number, _, where = fact.where.partition(" ")
        place = f"{path}:{number} services[0].plugins{where}: "
        begins = [place + text for text in (fact.text, *fact.beside)]
    first, *others = result.output.splitlines()
    assert first == begins[0], fact
    for line, begin in zip(others, begins[1:], strict=True):
        assert line.startswith(begin), fact
    assert result.exit_code == (1 if fact.where else 0)


def test_every_fact_has_a_row_or_is_said_to_be_later() -> None:
    for topic in ("native", "requests", "translated", "gateway"):
        import_module(f".test_acceptance_{topic}", __package__)
    assert acceptance.covered & LATER.keys() == set()
    assert acceptance.covered | LATER.keys() == set(range(1, 46))

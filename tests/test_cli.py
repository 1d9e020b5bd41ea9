"""The commands: what they say, where they say it, and the code they exit with.

`kongai check` runs in this process. `kongai-serve` is started as a user starts it, for
the ways in which it does not start; the running server has its tests in `live`.
"""

from __future__ import annotations

import os
import pty
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kongai import __version__
from kongai.cli import LOG_LEVELS, main, serve

ROOT = Path(__file__).resolve().parents[1]
SERVE = ROOT / "bin" / "kongai-serve"

GOOD = """\
_format_version: "3.0"
services:
  - name: example-service
    url: http://127.0.0.1/anything
    routes:
      - name: one
        paths: [/one]
      - name: two
        paths: [/two]
routes:
  - name: three
    paths: [/three]
"""

BAD = """\
_format_version: 3.0
services:
  - name: example-service
    url: httpbin.konghq.com/anything
    routes:
      - name: example-route
        paths: [anything]
    plugins:
      - name: ai-proxi
      - name: ai-proxy
        config:
          route_type: llm/v1/chat
          llm_format: antropic
          model:
            provider: anthropic
            optons: {}
      - name: file-log
        config:
          reopen: "yes"
consumers:
  - usrname: ada
"""

PROBLEMS = [
    "1: _format_version: expected a string; put it in quotes",
    "4: services[0].url: expected an http or https URL with a host",
    (
        "7: services[0].routes[0].paths[0]: should start with: / "
        "(fixed path) or ~/ (regex path)"
    ),
    (
        "9: services[0].plugins[0].name: plugin 'ai-proxi' not enabled; "
        "did you mean 'ai-proxy'?"
    ),
    (
        "13: services[0].plugins[1].config.llm_format: expected one of: anthropic, "
        "bedrock, cohere, gemini, huggingface, openai"
    ),
    (
        "16: services[0].plugins[1].config.model.optons: unknown field; "
        "did you mean 'options'?"
    ),
    "18: services[0].plugins[2].config.path: required field missing",
    "19: services[0].plugins[2].config.reopen: expected a boolean",
    "21: consumers[0].usrname: unknown field; did you mean 'username'?",
]


def kongai(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def kongai_serve(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SERVE), *map(str, args)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False
    )


def written(directory: Path, text: str) -> Path:
    path = directory / "kong.yml"
    path.write_text(text, "utf-8")
    return path


def test_check_counts_what_a_good_file_has(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    result = kongai("check", path)
    assert result.output == f"{path}: 1 service, 3 routes, no problems\n"
    assert result.exit_code == 0


def test_check_accepts_a_file_without_a_single_route(tmp_path: Path) -> None:
    path = written(tmp_path, '_format_version: "3.0"\n')
    assert kongai("check", path).output.endswith("0 services, 0 routes, no problems\n")


def test_check_lists_all_problems_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, BAD)
    result = kongai("check", path)
    assert result.output.splitlines() == [f"{path}:{line}" for line in PROBLEMS]
    assert result.exit_code == 1


NO_VERSION = """\
_format_version: "3.0"
plugins:
  - name: ai-proxy
    config:
      route_type: llm/v1/chat
      model:
        provider: anthropic
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ": _format_version: required field missing"),
        ("[]", ":1: expected an object"),
        (
            "services: one: two",
            (
                ":1: failed parsing declarative configuration: "
                "mapping values are not allowed in this context"
            ),
        ),
        ("_format_version: '3.0'\nroutes: x", ":2: routes: expected an array"),
        (
            "_format_version: '3.0'\nservices: []\nservices: []",
            ":3: services: given twice",
        ),
        (
            NO_VERSION,
            (
                ":6: plugins[0].config.model.options: must set "
                "'model.options.anthropic_version' for anthropic provider"
            ),
        ),
        (
            "_format_version: '3.0'\n# ${{ env \"KEY\" }}",
            (
                ":2: environment variables in the state file must be prefixed with "
                "'DECK_', found: 'KEY'"
            ),
        ),
    ],
)
def test_check_tells_file_line_path_and_reason(
    tmp_path: Path, text: str, line: str
) -> None:
    path = written(tmp_path, text)
    result = kongai("check", path)
    assert result.output == f"{path}{line}\n"
    assert result.exit_code == 1


def test_check_finds_plugins_that_do_not_fit_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two plugins of somebody's own may both want to choose the upstream."""
    (tmp_path / "choosing_plugins.py").write_text(
        "from kongai import Plugin\n"
        "class First(Plugin):\n"
        "    name = 'first'\n"
        "    def balancer(self, exchange): yield\n"
        "class Second(First):\n"
        "    name = 'second'\n",
        "utf-8",
    )
    info = tmp_path / "choosing_plugins-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: choosing-plugins\nVersion: 1\n", "utf-8")
    (info / "entry_points.txt").write_text(
        "[kongai.plugins]\n"
        "first = choosing_plugins:First\n"
        "second = choosing_plugins:Second\n",
        "utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins = "plugins: [{name: first}, {name: second}]"
    path = written(tmp_path, f'_format_version: "3.0"\n{plugins}\n')
    result = kongai("check", path)
    assert result.output == (
        f"{path}: plugins: first and second both choose the upstream; keep one\n"
    )
    assert result.exit_code == 1


def test_check_never_quotes_what_came_out_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DECK_KEY", "sk-ant-canary: [")
    path = written(tmp_path, '_format_version: ${{ env "DECK_KEY" }}\n')
    result = kongai("check", path)
    assert result.exit_code == 1
    assert "canary" not in result.output


@pytest.mark.parametrize("name", ["missing.yml", "kong.yml/below-a-file"])
def test_check_exits_with_2_where_there_is_nothing_to_read(
    tmp_path: Path, name: str
) -> None:
    written(tmp_path, GOOD)
    result = kongai("check", tmp_path / name)
    assert result.output.startswith(f"kongai: can't read {tmp_path / name}: ")
    assert result.output.count("\n") == 1
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["check"], "Missing argument 'CONFIG'"),
        (["check", "."], "is a directory"),
        (["check", "--strict", "kong.yml"], "No such option"),
        (["serve"], "No such command"),
    ],
)
def test_a_wrong_command_line_exits_with_2(args: list[str], reason: str) -> None:
    result = kongai(*args)
    assert reason in result.output
    assert result.exit_code == 2


def test_both_commands_tell_their_version() -> None:
    assert kongai("--version").output == f"kongai, version {__version__}\n"
    result = CliRunner().invoke(serve, ["--version"])
    assert result.output == f"kongai-serve, version {__version__}\n"


def test_help_names_every_command_and_option() -> None:
    assert "check" in kongai("--help").output
    assert "CONFIG" in kongai("check", "--help").output
    text = CliRunner().invoke(serve, ["--help"]).output
    for parameter in serve.params:
        for option in parameter.opts if parameter.param_type_name == "option" else ():
            assert option in text
    for level in LOG_LEVELS:
        assert level in text


def test_serve_lists_the_problems_of_its_file(tmp_path: Path) -> None:
    path = written(tmp_path, BAD)
    done = kongai_serve(path)
    assert done.stderr.splitlines() == [f"{path}:{line}" for line in PROBLEMS]
    assert done.stdout == ""
    assert done.returncode == 1


def test_serve_can_not_read_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "missing.yml"
    done = kongai_serve(path)
    assert done.stderr == f"kongai: can't read {path}: No such file or directory\n"
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--demo", "kong.yml"], "--demo brings its own gateway; leave CONFIG out."),
        (["--worker", "2"], "No such option"),
        (["--workers", "0"], "'0' is neither `auto` nor 1 to 1024."),
        (["--workers", "many"], "'many' is neither `auto` nor 1 to 1024."),
        (["--workers", "2", "--demo"], "--demo is one process; leave --workers out."),
        (["--status-listen", "here"], "'here' is neither `on`, `off` nor [HOST:]PORT."),
        (["--status-listen", "a:70000"], "'a:70000' is neither `on`, `off` nor"),
        (["--status-listen", ":80"], "':80' is neither `on`, `off` nor"),
        (["--send-timeout", "0"], "Invalid value for '--send-timeout'"),
        (["--send-timeout", "inf"], "Invalid value for '--send-timeout'"),
        (["--grace", "nan"], "'nan' is not a number."),
        (["--workers", "٣"], "'٣' is neither `auto` nor 1 to 1024."),
        (["--host", ""], "an address or a name is needed; 0.0.0.0 is all."),
        (["--port", "70000"], "Invalid value for '--port'"),
        (["--log-level", "loud"], "Invalid value for '--log-level'"),
        (["one.yml", "two.yml"], "unexpected extra argument"),
        (["--trusted-ips", "::1,here"], "'here' is no IP address or network."),
    ],
)
def test_serve_refuses_a_wrong_command_line(args: list[str], reason: str) -> None:
    done = kongai_serve(*args)
    assert reason in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize("args", [[], ["--demo"]])
def test_serve_says_in_one_line_that_its_port_is_in_use(args: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = kongai_serve("--port", str(port), *args)
    start = f"kongai: can't listen on 127.0.0.1 port {port}: Address already in use"
    assert done.stderr.startswith(start)
    assert done.stderr.count("\n") == 1
    assert done.returncode == 1


def test_serve_does_not_run_in_a_process_that_was_not_patched() -> None:
    """One waiting request would hold up all the others, without a word."""
    done = subprocess.run(
        [sys.executable, "-c", "from kongai.cli import serve; serve()", "--port", "0"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    message = "start the server with kongai-serve, which patches first"
    assert done.stderr == f"kongai: {message}\n"
    assert done.returncode == 2


def shown_at_a_terminal(*args: str | Path) -> str:
    """What `kongai-serve` writes there until it is ready; it ends without an error."""
    terminal, its_end = pty.openpty()
    with subprocess.Popen(
        [sys.executable, str(SERVE), *args, "--port", "0", "--log-level", "error"],
        stdout=its_end,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(its_end)
        try:
            text = read_until(terminal, "Ctrl-C stops it.")
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=10)
            os.close(terminal)
    assert errors == ""
    assert process.returncode == 0
    return text


def test_serve_tells_a_person_at_a_terminal_what_to_do_next() -> None:
    text = shown_at_a_terminal("--demo")
    found = re.search(r"kongai \S+ listens on (http://127\.0\.0\.1:\d+)\r\n", text)
    assert found is not None, text
    assert f"curl {found[1]}/anything/v1/messages" in text
    assert f"ANTHROPIC_BASE_URL={found[1]}/anything claude" in text
    assert "Each exchange is a line of JSON in /tmp/claude.json" in text


AI_PROXY = """\
{name: ai-proxy, config: {route_type: llm/v1/chat, llm_format: anthropic,
  model: {provider: anthropic, options: {anthropic_version: "2023-06-01"}}}}"""


@pytest.mark.parametrize("path", [None, "/ai"])
def test_claude_code_is_pointed_only_where_a_model_is(
    tmp_path: Path, path: str | None
) -> None:
    text = (
        '_format_version: "3.0"\nroutes:\n- {paths: [/other]}\n- {paths: ["~/re"]}\n'
        f"- {{paths: [{path or '/x'}], plugins: [{AI_PROXY if path else ''}]}}\n"
    )
    shown = shown_at_a_terminal(written(tmp_path, text))
    bases = re.findall(r"ANTHROPIC_BASE_URL=http://[^/]+(\S*)", shown)
    assert bases == ([] if path is None else [path])


def read_until(terminal: int, end: str) -> str:
    text = b""
    while end.encode() not in text:
        text += os.read(terminal, 4096)
    return text.decode()

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kongai

ROOT = Path(kongai.__file__).parent
SLOW = (
    "flask",
    "genai_prices",
    "gevent",
    "httptools",
    "requests",
    "sseclient",
    "urllib3",
)
CPU_SECONDS = 0.3


def run(code: str) -> str:
    """What a fresh interpreter prints, run away from anything that lies around here."""
    command = [sys.executable, "-I", "-c", code]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def test_a_script_that_imports_kongai_gets_nothing_it_may_not_need() -> None:
    loaded = run("import kongai, sys; print(*sys.modules)").split()
    assert "kongai.proxy" in loaded
    assert not {name for name in loaded if name.partition(".")[0] in SLOW}
    assert "kongai.transport" not in loaded
    assert "kongai.server" not in loaded


def test_importing_kongai_is_quick() -> None:
    code = "import kongai, time; print(time.process_time())"
    # A busy machine may spoil some of the tries.
    assert any(float(run(code)) < CPU_SECONDS for _ in range(5))


def test_the_library_patches_nothing() -> None:
    code = """
import socket, threading, time
before = [socket.socket, threading.Thread, time.sleep]
import kongai, kongai.testing, kongai.transport, kongai.cli
print(before == [socket.socket, threading.Thread, time.sleep])
"""
    assert run(code).strip() == "True"


def modules(*parts: str) -> list[Path]:
    return sorted(ROOT.joinpath(*parts).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The names of all modules that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            module = node.module or ""
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def importers(*packages: str) -> set[str]:
    """The files that import one of these packages, or of their modules."""
    return {
        str(path.relative_to(ROOT))
        for path in modules()
        for name in imported(path)
        if any(
            name == package or name.startswith(package + ".") for package in packages
        )
    }


def test_only_the_server_knows_gevent() -> None:
    assert importers("gevent", "greenlet") == {"server.py"}


def test_only_the_transport_speaks_to_upstreams() -> None:
    assert importers("requests", "urllib3") == {"transport.py"}
    assert importers("http.client") == {"transport.py", "upstream_answer.py"}


def test_only_the_doubles_bring_a_reader_of_event_streams() -> None:
    assert importers("sseclient") == {"testing.py"}


def test_nothing_needs_what_only_users_have() -> None:
    assert importers("flask", "anthropic", "openai", "pytest", "hypothesis") == set()


@pytest.mark.parametrize("path", modules("llm"), ids=lambda path: str(path.name))
def test_knowledge_of_llms_is_pure(path: Path) -> None:
    impure = (
        *("gevent", "logging", "os", "pathlib", "random", "requests", "select"),
        *("socket", "ssl", "subprocess", "threading", "time", "urllib3", "werkzeug"),
    )
    for name in imported(path):
        assert name.partition(".")[0] not in impure
        if name.startswith("kongai."):
            assert name.startswith(("kongai.llm", "kongai.sse"))


@pytest.mark.parametrize("name", ["sse.py", "errors.py", "identity.py", "_version.py"])
def test_the_ground_floor_needs_python_only(name: str) -> None:
    for module in imported(ROOT / name):
        assert module.partition(".")[0] in sys.stdlib_module_names


def test_no_module_imports_the_server_but_the_command_and_its_processes() -> None:
    assert importers("kongai.server") == {"cli.py", "serving.py", "workers.py"}
    assert importers("kongai.serving") == {"cli.py"}

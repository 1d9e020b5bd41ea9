"""The files for running the gateway for others, compared with what the code has.

What runs here is what those files say: the commands with their options, the addresses
that are asked, the signals. No container is built, and nothing is started by systemd.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kongai import Proxy, cli, status, workers
from kongai.limits import GRACE_SECONDS
from kongai.plugins.file_log import FileLog
from kongai.scoreboard import Scoreboard
from kongai.serving import Settings

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "examples" / "deploy"
GUIDE = DEPLOY / "README.md"
EMBEDDING = ROOT / "docs" / "embedding.md"
CONFIG_PATH = "/etc/kongai/kong.yml"
LOGS = "/var/log/kongai"
STATUS_PORT = cli.STATUS_PORT
KILL_AFTER = workers._KILL_AFTER


def text(name: str) -> str:
    return (DEPLOY / name).read_text("utf-8")


def parsed(arguments: list[str]) -> dict[str, Any]:
    """What the arguments of `kongai-serve` mean; an error if it would not take them."""
    return cli.serve.make_context("kongai-serve", [*arguments]).params


def unit() -> dict[str, list[str]]:
    """The keys of the systemd unit, each with its values."""
    found: dict[str, list[str]] = {}
    for line in text("kongai.service").splitlines():
        name, equals, value = line.partition("=")
        if equals and line[0] != "#":
            found.setdefault(name, []).append(value)
    return found


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, in order, each with its arguments."""
    lines = [line for line in text("Dockerfile").splitlines() if line[:1] != "#"]
    joined = "\n".join(lines).replace("\\\n", " ")
    pairs = [line.split(maxsplit=1) for line in joined.splitlines() if line]
    return [(name, rest) for name, rest in pairs]


def last_stage() -> dict[str, str]:
    """The instructions of the image that is kept; the last of each name."""
    names = [name for name, _ in instructions()]
    begin = len(names) - names[::-1].index("FROM")
    return dict(instructions()[begin:])


def pod() -> dict[str, Any]:
    deployment, service = yaml.safe_load_all(text("kubernetes.yml"))
    found: dict[str, Any] = deployment["spec"]["template"]["spec"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    assert (
        service["spec"]["selector"]
        == (deployment["spec"]["template"]["metadata"]["labels"])
    )
    return found


def health(path: str) -> int:
    """What a gateway that is ready answers at the status port."""
    application = status.application(Scoreboard(1), lambda: True, lambda: "")
    codes: list[str] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "wsgi.url_scheme": "http"}
    application(environ, lambda code, headers, *rest: codes.append(code))
    return int(codes[0].split()[0])


# The gateway's file


def test_the_file_is_good_and_logs_where_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DECK_ANTHROPIC_KEY", "a-key")
    proxy = Proxy.from_file(DEPLOY / "kong.yml")
    logs = [p.config.path for p in proxy.plugins if isinstance(p, FileLog)]
    assert [str(Path(log).parent) for log in logs] == [LOGS]


# systemd


def test_the_unit_starts_and_reloads_with_commands_that_exist() -> None:
    (start,) = unit()["ExecStart"]
    program, *arguments = shlex.split(start)
    assert Path(program).name == "kongai-serve"
    given = parsed(arguments)
    assert given["path"] == CONFIG_PATH
    assert given["status"] == ("127.0.0.1", STATUS_PORT)
    check, hangup = map(shlex.split, unit()["ExecReload"])
    assert Path(check[0]).parent == Path(program).parent
    assert cli.main.commands["check"].make_context("check", check[2:]).params == {
        "path": CONFIG_PATH
    }
    assert hangup == ["kill", "-HUP", "$MAINPID"]


def test_the_unit_waits_for_the_grace() -> None:
    given = parsed(shlex.split(unit()["ExecStart"][0])[1:])
    assert given["grace"] == GRACE_SECONDS == Settings(address=("", 0)).grace
    (stop,) = unit()["TimeoutStopSec"]
    assert float(stop) > given["grace"] + KILL_AFTER
    assert unit()["KillMode"] == ["mixed"]
    # Without KillSignal it is SIGTERM, which the server heeds.
    assert "KillSignal" not in unit()


def test_the_unit_leaves_the_log_writable() -> None:
    assert unit()["ProtectSystem"] == ["strict"]
    (name,) = unit()["LogsDirectory"]
    assert f"/var/log/{name}" == LOGS


def test_the_unit_has_descriptors_for_all_streams() -> None:
    given = parsed(shlex.split(unit()["ExecStart"][0])[1:])
    (files,) = unit()["LimitNOFILE"]
    assert int(files) > 2 * given["connections"]


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    # It wants programs that are there.
    program = tmp_path / "kongai-serve"
    shutil.copy(ROOT / "bin" / "kongai-serve", program)
    shutil.copy(program, tmp_path / "kongai")
    path = tmp_path / "kongai.service"
    path.write_text(text("kongai.service").replace("/opt/kongai/bin", str(tmp_path)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "kongai" in line]
    assert ours == []
    assert done.returncode == 0


# Rotation


def test_rotation_leaves_the_journals_alone() -> None:
    (pattern,) = re.findall(r"^(\S+) \{$", text("logrotate.conf"), re.MULTILINE)
    log = Path(LOGS) / "exchanges.json"
    assert log.match(pattern)
    assert not Path(f"{log}.wal.123").match(pattern)
    assert not Path(f"{log}.1").match(pattern)


# Containers


def test_the_image_is_made_of_files_that_are_there() -> None:
    sources = []
    for name, rest in instructions():
        if name == "COPY" and not rest.startswith("--from"):
            *files, _ = rest.split()
            sources += files
    ignore = text("Dockerfile.dockerignore").splitlines()
    assert ignore[0] == "*"
    assert {line[1:] for line in ignore if line[0] == "!"} == set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
    # What setuptools reads is among them.
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    (readme,) = re.findall(r'^readme = "(.+)"$', project, re.MULTILINE)
    assert {readme, "pyproject.toml", "kongai", "bin"} <= set(sources)


def test_each_stage_is_named_before_it_is_copied_from() -> None:
    stages: set[str] = set()
    for name, rest in instructions():
        if name == "FROM":
            stages |= {*rest.split(" AS ")[1:]}
        found = re.match(r"--from=(\S+)", rest)
        if name == "COPY" and found:
            assert found[1] in stages


def test_the_image_runs_the_gateway_itself_and_not_as_root() -> None:
    image = last_stage()
    # A list of words: with a shell in between, signals would not arrive.
    program, *arguments = json.loads(image["ENTRYPOINT"])
    assert program == "kongai-serve"
    given = parsed([*arguments, *json.loads(image["CMD"])])
    assert given["host"] == "0.0.0.0"
    assert given["path"] == CONFIG_PATH
    assert image["EXPOSE"].split() == [str(given["port"]), str(given["status"][1])]
    assert int(image["USER"]) > 0
    assert f"--uid {image['USER']} " in image["RUN"]
    assert image["VOLUME"] == LOGS
    assert f"install -d -o kongai -m 0750 {LOGS}" in image["RUN"]
    assert image["STOPSIGNAL"] == signal.SIGTERM.name


def test_the_image_has_no_secrets() -> None:
    for name, rest in instructions():
        assert name not in ("ARG", "ADD")
        assert name != "ENV" or rest == "PATH=/opt/kongai/bin:$PATH"


def test_the_images_health_is_asked_where_it_is_told() -> None:
    image = last_stage()
    options, found, command = image["HEALTHCHECK"].partition("CMD ")
    assert found
    python, flag, program = json.loads(command)
    assert (python, flag) == ("python", "-c")
    compile(program, "HEALTHCHECK", "exec")
    (url,) = re.findall(r"http://\S+(?=')", program)
    assert url == f"http://127.0.0.1:{STATUS_PORT}/healthz"
    assert health("/healthz") == 200
    failed = subprocess.run(
        [sys.executable, "-c", program.replace(str(STATUS_PORT), "1")],
        capture_output=True,
        check=False,
    )
    assert failed.returncode != 0


def test_the_pod_fits_the_image() -> None:
    image = last_stage()
    (container,) = pod()["containers"]
    given = parsed([*json.loads(image["ENTRYPOINT"])[1:], *container["args"]])
    assert given["path"] == CONFIG_PATH
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": given["port"], "status": given["status"][1]}
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {str(Path(CONFIG_PATH).parent), LOGS} <= mounts
    user = pod()["securityContext"]
    assert user["runAsUser"] == user["fsGroup"] == int(image["USER"])
    pause = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod()["terminationGracePeriodSeconds"] >= (
        pause + given["grace"] + KILL_AFTER
    )


@pytest.mark.parametrize(
    ("probe", "path"),
    [("readinessProbe", "/status/ready"), ("livenessProbe", "/healthz")],
)
def test_the_probes_ask_what_is_answered(probe: str, path: str) -> None:
    (container,) = pod()["containers"]
    asked = container[probe]["httpGet"]
    assert asked == {"path": path, "port": "status"}
    assert health(path) == 200


# gunicorn


@pytest.mark.parametrize("name", ["wsgi.py", "gunicorn.conf.py"])
def test_the_documents_show_gunicorns_files(name: str) -> None:
    """The code, without its comments and docstrings, is the same."""
    shown = [
        block
        for block in re.findall(r"^```python\n(.*?)^```$", embedding(), re.M | re.S)
        if block.startswith(f"# {name}\n")
    ]
    assert [bare(block) for block in shown] == [bare(text(name))]


def embedding() -> str:
    return EMBEDDING.read_text("utf-8")


def bare(code: str) -> list[str]:
    without = re.sub(r'""".*?"""', "", code, flags=re.DOTALL)
    without = re.sub(r"#.*|: Any| -> None|from typing import Any", "", without)
    return [line.strip() for line in without.splitlines() if line.strip()]


# The guide


def test_the_guide_has_every_file_and_no_other() -> None:
    named = set(re.findall(r"\]\(([\w.]+)\)", GUIDE.read_text("utf-8")))
    there = {path.name for path in DEPLOY.iterdir() if path.suffix != ".pyc"}
    assert named - {"README.md"} == there - {"README.md", "__pycache__"}


def test_the_guides_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", GUIDE.read_text("utf-8")):
        assert (
            target.startswith("https://")
            or (DEPLOY / target.partition("#")[0]).exists()
        ), target

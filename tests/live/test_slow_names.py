"""Name servers that are slow or gone: who needs none of them does not notice."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from .conftest import Answer, Line, request_body, whole
from .harness import LOG_PATH, Gateway
from .trailer import trailer
from .upstream import FakeUpstream

# What the gateway's Python asks in place of a name server: every name is this machine,
# but of some nobody knows that for long. gevent asks this very function, on threads.
NAME_SERVER = """\
import _socket
from time import sleep

look_up = _socket.getaddrinfo

def getaddrinfo(host, *args, **options):
    name = host.decode() if isinstance(host, bytes) else host
    if name.startswith("slow"):
        sleep(2)
    if name.endswith(".test"):
        host = "127.0.0.1"
    return look_up(host, *args, **options)

_socket.getaddrinfo = getaddrinfo
"""
LIMIT = 0.6
"""Seconds that the services allow for connecting, which includes the look-up."""
AT_ONCE = 0.5
"""Seconds for what waits for nobody; a machine that is not busy needs 10 ms."""


class Timed(NamedTuple):
    answer: Answer
    took: float


def config(port: int, names: list[str]) -> str:
    """A service for each name, and the route to it."""
    services = [
        {
            "name": name,
            "url": f"http://{name}:{port}/",
            "retries": 0,
            "connect_timeout": int(LIMIT * 1000),
            "routes": [{"name": name, "paths": [f"/{name}/"]}],
        }
        for name in names
    ]
    log = {"name": "file-log", "config": {"path": LOG_PATH}}
    return json.dumps(
        {"_format_version": "3.0", "services": services, "plugins": [log]}
    )


@pytest.fixture
def slow_line(tmp_path: Path) -> Iterator[Line]:
    (tmp_path / "sitecustomize.py").write_text(NAME_SERVER, "utf-8")
    slow = [f"slow{number}.test" for number in range(20)]
    names = [*slow, "127.0.0.1", "known.test", "new.test"]
    with (
        FakeUpstream(whole) as upstream,
        Gateway(
            config(upstream.port, names), env={"PYTHONPATH": str(tmp_path)}
        ) as gateway,
    ):
        yield Line(gateway, upstream)


def ask(line: Line, name: str) -> Timed:
    started = time.monotonic()
    answer = line.ask(request_body(), f"/{name}/v1/messages")
    return Timed(answer, time.monotonic() - started)


@pytest.mark.parametrize("count", [20, 1], ids=["many names", "one name"])
def test_others_do_not_wait_for_slow_names(slow_line: Line, count: int) -> None:
    """As many wait as gevent has threads for, and more; or all of them for one name."""
    line = slow_line
    assert ask(line, "known.test").answer.status == 200
    names = [f"slow{number % count}.test" for number in range(20)]

    def next_one() -> list[Answer]:
        return [ask(line, "127.0.0.1").answer, ask(line, "known.test").answer]

    with trailer(line.gateway, next_one) as after, ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(ask, line, name) for name in names]
        time.sleep(0.1)  # nothing here tells that they have come to the look-up
        # A new name needs a thread, of which many slow names leave none.
        after.kept = int(count == 1)
        quick = ["127.0.0.1", "known.test"] + ["new.test"] * (count == 1)
        for name in quick * 3:
            answer, took = ask(line, name)
            after.expects(answer, "ok")
            assert (answer.status, took < AT_ONCE) == (200, True), (name, took)
        assert not any(one.done() for one in waiting)
        for one in waiting:
            answer, took = one.result(10)
            after.expects(answer, "dns")
            assert answer.status == 503
            assert answer.json()["message"] == "name resolution failed"
            assert LIMIT <= took < LIMIT + 1
    assert line.upstream.errors == []

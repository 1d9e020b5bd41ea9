"""The corpus sent to our server and to nginx: who takes what, and for which request."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from tests.http.cases import Case, Differences, load
from tests.http.client import Client
from tests.http.live_server import LiveServer
from tests.http.nginx import NGINX, Upstream, nginx

CASES = load()
# Statuses are nginx's own affair, and change with its versions.
RECORDED = "nginx/1.22."
AT_ONCE = 16
_MORE = 0.05


class Verdict(NamedTuple):
    """What became of a case."""

    statuses: list[int]
    requests: list[tuple[Any, ...]]
    """The requests that were taken, as the application or the upstream saw them."""
    cut: bool
    """Whether the connection was reset, which may have lost an answer."""


def request(saw: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(saw.values())


def of_ours(server: LiveServer, case: Case) -> Verdict:
    with Client(server.port) as client:
        client.send(case.raw)
        if case.then == "waits":
            client.no_more()
        client.read(None if case.then != "next" else len(case.answers))
        statuses = [answer.status for answer in client.answers]
        seen = [request(answer.saw) for answer in client.answers if answer.saw]
        return Verdict(statuses, seen, client.reset)


def of_nginx(port: int, upstream: Upstream, case: Case) -> Verdict:
    with Client(port) as client:
        client.send(case.raw)
        client.read(len(case.nginx), 1.0)
        client.read(len(case.nginx) + 1, _MORE)
        statuses = [answer.status for answer in client.answers]
        seen = [request(saw) for saw in upstream.seen.get(client.port, [])]
        return Verdict(statuses, seen, client.reset)


def test_nothing_is_taken_that_nginx_was_seen_to_refuse() -> None:
    """By what was written down; it needs no nginx."""
    differences = Differences()
    taken = {
        case.name
        for case in CASES
        if case.answers.count(200) > case.nginx.count(200)
        and not differences.explain(case.name, "looser")
    }
    assert taken == set()


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Verdict]]:
    if NGINX is None:
        pytest.skip("nginx is not here")
    with (
        nginx(tmp_path_factory.mktemp("nginx")) as (port, upstream),
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        verdicts = pool.map(lambda case: of_nginx(port, upstream, case), CASES)
        yield {case.name: v for case, v in zip(CASES, verdicts, strict=True)}


def test_who_takes_what(server: LiveServer, theirs: dict[str, Verdict]) -> None:
    differences, lines = Differences(), []
    for case in CASES:
        ours, nginxs = of_ours(server, case).requests, theirs[case.name].requests
        if ours == nginxs:
            continue
        kind = "looser" if len(ours) > len(nginxs) else "stricter"
        kind = "otherwise" if len(ours) == len(nginxs) else kind
        if not differences.explain(case.name, kind):
            lines.append(f"{case}: {kind}: ours {ours}, nginx {nginxs}"[:300])
    assert not lines, "\n" + "\n".join(lines)
    assert differences.idle() == []


def test_nginx_answers_as_was_written_down(theirs: dict[str, Verdict]) -> None:
    assert NGINX is not None
    version = subprocess.run([NGINX, "-v"], capture_output=True, check=True).stderr
    if not re.search(re.escape(RECORDED), version.decode()):
        pytest.skip(f"not {RECORDED}: {version.decode()}")
    got = {name: v.statuses for name, v in theirs.items() if not v.cut}
    assert got == {case.name: case.nginx for case in CASES if case.name in got}

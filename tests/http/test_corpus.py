"""Each raw request of the corpus, sent to our server."""

from __future__ import annotations

import pytest

from tests.http.cases import FOLDER, Case, load
from tests.http.client import Client
from tests.http.live_server import LiveServer

CASES = load()
NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
SHORT = 200
TWO = 2
# Seconds between two segments, so that the first is read before the second is there.
PAUSE = 0.0005


def outcome(
    server: LiveServer, case: Case, *pieces: bytes
) -> tuple[list[int], str, int]:
    """Send a case, and see what comes of it.

    Returns:
        The answers' statuses, what becomes of the connection, and how many requests
        have come to the application whole.
    """
    with Client(server.port) as client:
        client.send(*pieces, pause=PAUSE if len(pieces) == TWO else 0)
        if case.then == "next":
            then = _next(client, len(case.answers))
        elif case.then == "waits":
            # What it has not answered now, it never will.
            client.no_more()
            client.read()
            then = "waits" if client.closed else "silent"
        else:
            client.read()
            then = "closed" if client.closed else "open"
        assert client.rest == b""
        statuses = [answer.status for answer in client.answers]
        return statuses, then, server.calls(client)


def _next(client: Client, count: int) -> str:
    """Whether the connection takes another request for what it is."""
    if not client.read(count) or client.closed:
        return "closed"
    client.send(NEXT)
    client.read(count + 1)
    saw = client.answers.pop().saw if len(client.answers) > count else None
    return "next" if saw and saw["target"] == "/next" else f"saw {saw}"


def expected(case: Case) -> tuple[list[int], str, int]:
    """An answer 200 is the application's, and no other request has come to it."""
    taken = case.answers.count(200) + (case.then == "next")
    return case.answers, case.then, taken


def may_be_cut(case: Case) -> bool:
    """What becomes of a body that nobody reads depends on whether it is there yet."""
    return not case.name.startswith("early-")


def test_every_file_has_its_row() -> None:
    names = {path.stem for path in FOLDER.glob("*.http")}
    assert names == {case.name for case in CASES}


def test_no_refusal_leaves_the_connection_open() -> None:
    """But for those of the gateway, of requests whose end is known."""
    odd = {400, 405, 413, 414, 417, 431, 501, 505}
    assert {
        case.name
        for case in CASES
        if odd.intersection(case.answers) and case.then != "closed"
    } == {case.name for case in CASES if case.name.startswith("gateway-")}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_becomes_of_it(case: Case, server: LiveServer) -> None:
    raw, wanted = case.raw, expected(case)
    assert outcome(server, case, raw) == wanted
    if may_be_cut(case):
        for cut in sorted({len(raw) // 3, len(raw) * 2 // 3} - {0}):
            got = outcome(server, case, raw[:cut], raw[cut:])
            assert got == wanted, f"cut at {cut}"


@pytest.mark.parametrize("number", range(8))
def test_what_becomes_of_it_byte_by_byte(number: int, server: LiveServer) -> None:
    for case in CASES[number::32]:
        raw = case.raw
        if len(raw) <= SHORT and may_be_cut(case):
            got = outcome(server, case, *singly(raw))
            assert got == expected(case), str(case)


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_what_becomes_of_it_in_any_two_segments(server: LiveServer) -> None:
    for case in filter(may_be_cut, CASES):
        raw = case.raw
        for cut in range(1, len(raw), max(1, len(raw) // 2000)):
            got = outcome(server, case, raw[:cut], raw[cut:])
            assert got == expected(case), f"{case}, cut at {cut}"


@pytest.mark.soak
def test_what_becomes_of_all_of_it_byte_by_byte(server: LiveServer) -> None:
    for case in filter(may_be_cut, CASES):
        got = outcome(server, case, *singly(case.raw))
        assert got == expected(case), str(case)


def singly(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]

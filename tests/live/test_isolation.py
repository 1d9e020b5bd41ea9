"""Two users of one gateway and one upstream: nothing of one reaches the other.

Both ask at the same time, over kept connections, an upstream that does all that has
made gateways mix up their users: cookies, redirections, interim answers, bytes behind
an answer, and connections that close at the wrong moment.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection, HTTPException

import pytest

from .conftest import Line, exchange
from .harness import LOG_PATH, Gateway
from .upstream import Connection, FakeUpstream, Request

USERS = ("alice", "bob")
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </%b>\r\n\r\n"


def mark(user: str, number: int) -> str:
    """What only one question of one user, and its answer, may hold."""
    return f"{user}-{number:05d}-{user}"


class Upstream:
    """Answers a question with what it found in it, each time in another way."""

    def __init__(self) -> None:
        self.mixed: list[str] = []
        self.elsewhere = 0
        """Where redirections lead, where nobody must come."""

    def __call__(self, request: Request, connection: Connection) -> None:
        [token] = request.values("x-user-token")
        user = token.partition("-")[0]
        found = "\n".join([request.target, *map(str, request.headers)])
        found += request.body.decode()
        other = USERS[user == USERS[0]]
        if other in found:
            self.mixed.append(found)
        how = random.Random(token).randrange(8)
        body = json.dumps({"token": token, "body": request.body.decode()}).encode()
        cookies = [("Set-Cookie", f"session={token}; Path=/"), ("X-Echo", token)]
        if how == 1:
            connection.send(HINTS % token.encode())
        if how == 2:
            elsewhere = f"http://127.0.0.1:{self.elsewhere}/{token}"
            code = random.Random(token).choice([302, 307])
            connection.respond(code, [("Location", elsewhere), *cookies], body)
        elif how == 3:  # hints and answer in one piece
            head = f"HTTP/1.1 200 OK\r\nX-Echo: {token}\r\nContent-Length: {len(body)}"
            connection.send(HINTS % b"x" * 2 + head.encode() + b"\r\n\r\n" + body)
        elif how == 4:
            connection.start_stream(cookies)
            for start in range(0, len(body), 7):
                connection.chunk(body[start : start + 7])
            connection.end()
        elif how == 5:
            # An answer behind it that nobody has asked for. One that comes later, when
            # the connection has been given to another request, no client could tell.
            told = [*cookies, ("Content-Length", str(len(body)))]
            lines = "".join(f"{name}: {value}\r\n" for name, value in told)
            connection.send((f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode() + body) * 2)
        else:
            connection.respond(200, cookies, body)
        if how == 6:
            connection.close()
        elif how == 7:
            connection.sleep(random.Random(token).random() / 500)
            connection.reset()


@pytest.fixture
def line() -> Iterator[Line]:
    with FakeUpstream(Upstream()) as upstream:
        config = {
            "_format_version": "3.0",
            "services": [
                {
                    "name": "both",
                    "url": upstream.url,
                    "routes": [{"name": "all", "paths": ["/"]}],
                }
            ],
            "plugins": [{"name": "file-log", "config": {"path": LOG_PATH}}],
        }
        with Gateway(json.dumps(config)) as gateway:
            yield Line(gateway, upstream)


class User:
    """Asks question after question, on one connection as long as it lasts."""

    def __init__(self, name: str, line: Line) -> None:
        self.name, self._line = name, line
        self.wrong: list[str] = []
        self.answered = 0
        self.lost = 0

    def ask(self, numbers: range) -> None:
        connection = self._line.connect()
        with closing(connection):
            for number in numbers:
                self._one(connection, mark(self.name, number), number)

    def _one(self, connection: HTTPConnection, token: str, number: int) -> None:
        method = ("GET", "POST", "PUT")[number % 3]
        body = b"" if method == "GET" else f"body of {token}".encode() * 20
        headers = [("x-user-token", token), ("cookie", f"mine={token}")]
        try:
            answer = exchange(connection, method, f"/{token}?q={token}", body, headers)
        except (HTTPException, OSError):
            connection.close()
            self.lost += 1
            return
        seen = f"{answer.headers} {answer.body!r}"
        if answer.status >= 500:
            self.lost += 1
        else:
            self.answered += 1
            if answer.json() != {"token": token, "body": body.decode()}:
                self.wrong.append(seen)
            if answer.value("x-echo") != token:
                self.wrong.append(seen)
        for stranger in seen.replace(token, "").split():
            if any(f"{user}-" in stranger for user in USERS):
                self.wrong.append(seen)


@pytest.mark.parametrize(
    "count", [200, pytest.param(1000, marks=pytest.mark.soak)], ids=["short", "long"]
)
def test_no_byte_of_one_reaches_the_other(line: Line, count: int) -> None:
    handler = line.upstream.handler
    assert isinstance(handler, Upstream)
    strangers: list[Request] = []

    def note(request: Request, connection: Connection) -> None:
        strangers.append(request)
        connection.respond(200)

    threads, each = 4, count // 8
    with FakeUpstream(note) as elsewhere, ThreadPoolExecutor(2 * threads) as pool:
        handler.elsewhere = elsewhere.port
        users = [User(name, line) for name in USERS for _ in range(threads)]
        jobs = [
            pool.submit(user.ask, range(n * 1000, n * 1000 + each))
            for n, user in enumerate(users)
        ]
        for job in jobs:
            job.result(50)
    assert [user.wrong for user in users] == [[]] * len(users)
    assert handler.mixed == []
    assert strangers == []
    answered = sum(user.answered for user in users)
    # A POST on a connection that closes just then is nobody's to repeat.
    assert answered > count * 0.7, [user.lost for user in users]
    records = line.gateway.records(count)
    assert len(records) == len({r["request"]["id"] for r in records}) == count
    for record in records:
        [user] = [user for user in USERS if f"/{user}-" in record["request"]["uri"]]
        assert USERS[user == USERS[0]] not in json.dumps(record)
    assert line.gateway.stderr_text().count("\n") == 1


def test_the_answer_of_one_who_left_is_nobodys(line: Line) -> None:
    """Its connection is closed, not kept for the next with an answer on the way."""
    may_answer = threading.Event()

    def handler(request: Request, connection: Connection) -> None:
        [token] = request.values("x-user-token")
        if token.startswith("alice"):
            assert may_answer.wait(5)
        connection.respond(200, body=json.dumps(token).encode())

    line.upstream.handler = handler
    for number in range(10):
        may_answer.clear()
        alice = line.connect()
        alice.request("GET", "/a", headers={"x-user-token": mark("alice", number)})
        line.upstream.wait_for_requests(2 * number + 1)
        alice.close()
        may_answer.set()
        token = mark("bob", number)
        with closing(line.connect()) as bob:
            answer = exchange(bob, "GET", "/b", b"", [("x-user-token", token)])
        assert answer.json() == token

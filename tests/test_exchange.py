from __future__ import annotations

import io
from typing import Any

import pytest
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from kongai import Exchange, Route, Service
from kongai.body_memory import BodyMemory, Share
from kongai.errors import BodyIncomplete, RequestRejected
from kongai.exchange import (
    Attempt,
    BodyAlreadyRead,
    BodyForgotten,
    BodyTooLarge,
    LogFields,
    UpstreamRequest,
)
from kongai.incoming import client_headers, raw_target
from kongai.router import Match


def made(environ: dict[str, Any] | None = None) -> Exchange:
    """An exchange of a request with this environment; None takes a key away."""
    builder = EnvironBuilder("/", method="POST", environ_overrides=environ)
    found = builder.get_environ()
    request = Request({name: v for name, v in found.items() if v is not None})
    return Exchange(
        request, target=raw_target(request.environ), headers=client_headers(request)
    )


class Trickle(io.RawIOBase):
    """A body that comes in small pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size, self._pieces = -1, [b"".join(self._pieces)]
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if 0 <= size < len(piece):
            self._pieces.insert(0, piece[size:])
            piece = piece[:size]
        return piece


def streaming(*pieces: bytes, length: int | None = None) -> Exchange:
    environ: dict[str, Any] = {"wsgi.input": Trickle(*pieces)}
    if length is None:
        environ |= {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": None}
    else:
        environ["CONTENT_LENGTH"] = str(length)
    return made(environ=environ)


BODY = (b"12", b"345", b"6789")


@pytest.mark.parametrize("length", [None, 9], ids=["chunked", "length"])
@pytest.mark.parametrize("limit", [None, 9, 10])
def test_a_body_is_read_whole_and_once(length: int | None, limit: int | None) -> None:
    exchange = streaming(*BODY, length=length)
    assert exchange.read_body(limit) == b"123456789"
    assert exchange.read_body() == exchange.body == b"123456789"
    assert exchange.body_size == 9


@pytest.mark.parametrize("length", [None, 9], ids=["chunked", "length"])
@pytest.mark.parametrize("limit", [0, 1, 8])
def test_a_body_over_the_limit_is_not_kept(length: int | None, limit: int) -> None:
    exchange = streaming(*BODY, length=length)
    with pytest.raises(BodyTooLarge) as caught:
        exchange.read_body(limit)
    assert caught.value.limit == limit
    assert exchange.body is None
    if length is not None:
        # What was announced need not be read to be refused.
        assert exchange.body_size == 0


def test_a_length_takes_no_memory_before_the_body_comes() -> None:
    memory = BodyMemory(100)
    seen: list[int] = []

    class Watched(Trickle):
        def read(self, size: int | None = -1, /) -> bytes:
            seen.append(memory.held)
            return super().read(size)

    exchange = made(environ={"wsgi.input": Watched(*BODY), "CONTENT_LENGTH": "9"})
    exchange.body_share = Share(memory)
    exchange.read_body()
    assert (seen, memory.held) == ([0, 2, 5], 9)


def test_a_length_that_never_fits_is_refused_unread() -> None:
    exchange = streaming(*BODY, length=9)
    exchange.body_share = Share(BodyMemory(8))
    with pytest.raises(RequestRejected) as caught:
        exchange.read_body()
    assert (caught.value.status, exchange.body_size) == (413, 0)


def test_a_body_that_was_forgotten_is_no_empty_one() -> None:
    exchange = streaming(*BODY, length=9)
    exchange.upstream_request = UpstreamRequest(
        "POST", "http", "a", 80, "/", [], body=exchange.read_body()
    )
    exchange.forget_body()
    assert (exchange.body, exchange.upstream_request.body) == (None, None)
    assert exchange.upstream_request.host == "a"
    assert exchange.body_size == 9
    with pytest.raises(BodyForgotten):
        exchange.read_body()


def test_a_body_that_nobody_read_is_not_forgotten() -> None:
    exchange = streaming(*BODY, length=9)
    exchange.forget_body()
    assert exchange.read_body() == b"123456789"


@pytest.mark.parametrize("length", [None, 9], ids=["chunked", "length"])
def test_a_body_may_be_taken_as_it_comes(length: int | None) -> None:
    exchange = streaming(*BODY, length=length)
    seen = []
    for piece in exchange.stream_body():
        seen.append((piece, exchange.body_size))
    assert seen == [(b"12", 2), (b"345", 5), (b"6789", 9)]
    assert exchange.body is None


def test_no_more_than_announced_is_read() -> None:
    """What follows on the connection is another request."""
    exchange = streaming(b"12345", b"GET /", length=5)
    assert exchange.read_body() == b"12345"


def test_less_than_announced_means_that_the_client_left() -> None:
    exchange = streaming(b"123", length=5)
    with pytest.raises(BodyIncomplete):
        exchange.read_body()


def test_a_form_that_the_application_parsed_is_no_client_that_left() -> None:
    body = b"a=1&b=2"
    kind = "application/x-www-form-urlencoded"
    exchange = made(
        environ={
            "REQUEST_METHOD": "POST",
            "CONTENT_TYPE": kind,
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
        }
    )
    assert exchange.request.form["a"] == "1"
    with pytest.raises(BodyAlreadyRead, match="get_data"):
        exchange.read_body()


class Broken(io.RawIOBase):
    def read(self, size: int | None = -1, /) -> bytes:
        raise ConnectionResetError


def test_an_input_that_breaks_means_that_the_client_left() -> None:
    exchange = made(environ={"wsgi.input": Broken(), "CONTENT_LENGTH": "5"})
    with pytest.raises(BodyIncomplete):
        exchange.read_body()


def test_without_a_length_nothing_is_read_from_a_server_that_does_not_end_it() -> None:
    """The raw input of some servers is the socket: reading on would never return."""
    exchange = made(environ={"wsgi.input": Broken(), "CONTENT_LENGTH": None})
    assert exchange.read_body() == b""


def test_a_server_that_ends_the_input_needs_no_length() -> None:
    environ = {
        "wsgi.input": Trickle(b"123"),
        "wsgi.input_terminated": True,
        "CONTENT_LENGTH": None,
    }
    assert made(environ=environ).read_body() == b"123"


@pytest.mark.parametrize("length", [None, 9], ids=["chunked", "length"])
def test_what_an_application_has_read_before_is_found(length: int | None) -> None:
    exchange = streaming(*BODY, length=length)
    exchange.request.environ["wsgi.input_terminated"] = True
    assert exchange.request.get_data() == b"123456789"
    assert exchange.read_body(9) == b"123456789"
    exchange = streaming(*BODY, length=length)
    exchange.request.environ["wsgi.input_terminated"] = True
    exchange.request.get_data()
    with pytest.raises(BodyTooLarge):
        exchange.read_body(8)


def test_a_plugin_changes_the_query_and_the_target_stays() -> None:
    exchange = Exchange(made().request, target="/a?b=c")
    exchange.query = None
    assert (exchange.query, exchange.target) == (None, "/a?b=c")


TOO_MUCH = RequestRejected("too much", status=413)


@pytest.mark.parametrize("limit", [0, 4, 8])
def test_a_body_over_a_plugins_limit_is_refused_on_its_way(limit: int) -> None:
    exchange = streaming(*BODY)
    exchange.limit_body(9, RequestRejected("another plugin's"))
    exchange.limit_body(limit, TOO_MUCH)
    passed: list[bytes] = []
    with pytest.raises(RequestRejected) as caught:
        passed.extend(exchange.stream_body())
    assert caught.value is TOO_MUCH
    assert sum(map(len, passed)) <= limit


def test_a_body_within_the_limit_passes() -> None:
    exchange = streaming(*BODY)
    exchange.limit_body(9, TOO_MUCH)
    assert exchange.read_body() == b"123456789"


@pytest.mark.parametrize("read", [False, True])
def test_a_body_that_is_known_to_be_too_large_is_refused_at_once(read: bool) -> None:
    exchange = streaming(*BODY, length=None if read else 9)
    if read:
        exchange.read_body()
    with pytest.raises(RequestRejected, match="too much"):
        exchange.limit_body(8, TOO_MUCH)


@pytest.mark.parametrize(
    ("target", "query"), [("/", None), ("/?", ""), ("/?a=?b", "a=?b"), ("/a?b", "b")]
)
def test_a_query_is_empty_or_none(target: str, query: str | None) -> None:
    assert Exchange(made().request, target=target).query == query


@pytest.mark.parametrize(
    ("header", "host", "name"),
    [
        ("a.example", "a.example", "a.example"),
        ("a.example:80", "a.example:80", "a.example"),
        ("a.example:", "a.example:", "a.example"),
        ("[::1]:8000", "[::1]:8000", "[::1]"),
        ("[::1]", "[::1]", "[::1]"),
        ("", "server.example", "server.example"),
    ],
)
def test_the_host_with_and_without_its_port(header: str, host: str, name: str) -> None:
    environ = {"HTTP_HOST": header, "SERVER_NAME": "server.example"}
    exchange = made(environ=environ)
    assert (exchange.host, exchange.host_name) == (host, name)


def test_a_plugin_changes_its_own_copy_of_the_headers() -> None:
    raw = [("Host", "a"), ("X-A", "1")]
    exchange = made(environ={"kongai.headers": raw})
    exchange.headers["X-A"] = "2"
    assert client_headers(exchange.request)["X-A"] == "1"


def test_route_and_service_are_those_that_matched() -> None:
    nothing = made()
    assert (nothing.route, nothing.service) == (None, None)
    exchange = made()
    route, service = Route(paths=("/",)), Service("http://up.example")
    exchange.match = Match(route, service, "/", "", {})
    assert exchange.route is route
    assert exchange.service is service


def test_exchanges_do_not_share_anything() -> None:
    one, two = made(), made()
    assert one.id != two.id
    assert len(one.id) == 32
    for name in ("headers", "tries", "state", "log", "timings"):
        assert getattr(one, name) is not getattr(two, name)
    assert len({one, two}) == 2


Steps = list[tuple[str, Any]]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([("team", "a")], {"team": "a"}),
        ([("a.b.c", 1)], {"a": {"b": {"c": 1}}}),
        ([("a.b", 1), ("a.c", 2)], {"a": {"b": 1, "c": 2}}),
        ([("a", 1), ("a", 2)], {"a": 2}),
        ([("a", 1), ("a.b", 2)], {"a": {"b": 2}}),
        ([("a", {"x": 1}), ("a.b", 2)], {"a": {"x": 1, "b": 2}}),
        ([("a.b", 1), ("a", 2)], {"a": 2}),
        ([(r"escape\.dots", 789)], {"escape.dots": 789}),
        ([(r"a\.b.c\.d", 1)], {"a.b": {"c.d": 1}}),
        ([("nothing", None)], {}),
        ([("a", 1), ("a", None)], {}),
    ],
)
def test_fields_for_the_record(steps: Steps, expected: dict[str, Any]) -> None:
    fields = LogFields()
    for path, value in steps:
        fields.set(path, value)
    record: dict[str, Any] = {"there": {"x": 1}}
    fields.apply(record)
    assert record == {"there": {"x": 1}, **expected}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("there", None, {}),
        ("there.x", None, {"there": {}}),
        ("there.x", 2, {"there": {"x": 2}}),
        ("there.y", False, {"there": {"x": 1, "y": False}}),
        ("there.x.y", 2, {"there": {"x": {"y": 2}}}),
    ],
)
def test_fields_that_were_there_before(
    path: str, value: Any, expected: dict[str, Any]
) -> None:
    fields = LogFields()
    fields.set(path, value)
    record: dict[str, Any] = {"there": {"x": 1}}
    fields.apply(record)
    assert record == expected


def test_each_record_gets_fields_of_its_own() -> None:
    given = {"list": [{"a": 1}]}
    fields = LogFields()
    fields.set("x", given)
    fields.set("x.more", 2)
    records: list[dict[str, Any]] = [{}, {}]
    for record in records:
        fields.apply(record)
    records[0]["x"]["list"][0]["a"] = 3
    assert records[1] == {"x": {"list": [{"a": 1}], "more": 2}}
    assert given == {"list": [{"a": 1}]}


def test_an_upstream_request_waits_as_long_as_kong() -> None:
    request = UpstreamRequest("GET", "http", "a", 80, "/", [])
    assert (request.connect_timeout, request.read_timeout) == (60.0, 60.0)
    assert request.verify is True
    assert request.body is None


def test_all_is_closed_even_if_something_can_not_be() -> None:
    closed: list[int] = []
    exchange = Exchange(Request({}))

    def broken() -> None:
        raise ConnectionError

    exchange.to_close += [lambda: closed.append(1), broken, lambda: closed.append(2)]
    with pytest.raises(ConnectionError):
        exchange.let_go()
    assert closed == [2, 1]
    exchange.let_go()
    assert closed == [2, 1]


def test_what_travels_shows_no_credentials_when_it_is_printed() -> None:
    headers = [("Authorization", "c4nary")]
    request = UpstreamRequest("GET", "http", "h", 80, "/?key=c4nary", headers)
    exchange = Exchange(
        Request({}), target="/?key=c4nary", secret_values=frozenset({"c4nary"})
    )
    exchange.upstream_request = request
    assert "c4nary" not in repr((exchange, request, Attempt(request)))

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import pytest
from werkzeug.datastructures import Headers
from werkzeug.test import Client, TestResponse

from kongai import Plugin, Proxy
from kongai.entities import Consumer, KeyAuthCredential, Route, Service
from kongai.errors import ConfigError
from kongai.exchange import Exchange, UpstreamRequest
from kongai.plugins import key_auth
from kongai.plugins.key_auth import KeyAuth, KeyAuthConfig
from kongai.testing import ListSink, MockTransport, answer

KEY = "alice's very own key"
FORM, JSON = "application/x-www-form-urlencoded", "application/json"


def consumer(name: str, *keys: str, **fields: Any) -> Consumer:
    credentials = [KeyAuthCredential(id=f"id-{key}", key=key) for key in keys]
    return Consumer(username=name, keyauth_credentials=credentials, **fields)


ALICE = consumer("alice", KEY, id="1", custom_id="c-1")
BOB = consumer("bob", "short", id="2")
ANON = consumer("anon", id="3")


class Gateway:
    """A gateway that lets nobody through without a key, and what went upstream."""

    def __init__(self, *plugins: Plugin, **settings: Any) -> None:
        self.records = ListSink()
        self.transport = MockTransport(self._answer)
        self.body = b""
        self.proxy = Proxy(
            [Service("http://up.test/up", routes=[Route(paths=["/r"])])],
            plugins=[KeyAuth(**settings), *plugins],
            consumers=[ALICE, BOB, ANON],
            sinks=[self.records],
            transport=self.transport,
        )

    def _answer(self, request: UpstreamRequest) -> answer:
        body = request.body or b""
        self.body = body if isinstance(body, bytes) else b"".join(body)
        return answer(b"{}")

    def ask(
        self,
        target: str = "/r",
        headers: Sequence[tuple[str, str]] = (),
        method: str = "GET",
        **options: Any,
    ) -> TestResponse:
        given = Headers(list(headers))
        return Client(self.proxy).open(
            target, method=method, headers=given, buffered=True, **options
        )

    def post(self, body: bytes, kind: str, **options: Any) -> TestResponse:
        return self.ask(method="POST", data=body, content_type=kind, **options)

    @property
    def sent(self) -> UpstreamRequest:
        """What the upstream got; there was one request."""
        [request] = self.transport.requests
        return request

    @property
    def sent_headers(self) -> Headers:
        return Headers(self.sent.headers)

    @property
    def record(self) -> dict[str, Any]:
        return self.records[-1]


def message(response: TestResponse) -> str:
    found: str = json.loads(response.data)["message"]
    return found


def test_who_shows_a_key_is_let_in_and_named() -> None:
    gateway = Gateway()
    assert gateway.ask(headers=[("apikey", KEY)]).status_code == 200
    headers = gateway.sent_headers
    assert headers["X-Consumer-ID"] == "1"
    assert headers["X-Consumer-Custom-ID"] == "c-1"
    assert headers["X-Consumer-Username"] == "alice"
    assert headers["X-Credential-Identifier"] == f"id-{KEY}"
    assert "X-Anonymous-Consumer" not in headers
    assert gateway.record["consumer"]["username"] == "alice"
    assert gateway.record["kongai"]["ended"] == "ok"


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ([], "No API key found in request"),
        ([("apikey", "")], "No API key found in request"),
        ([("x-api-key", KEY)], "No API key found in request"),
        ([("apikey", "wrong")], "Unauthorized"),
        ([("apikey", KEY.upper())], "Unauthorized"),
        ([("apikey", f"{KEY}, {KEY}")], "Unauthorized"),
        ([("apikey", KEY), ("apikey", KEY)], "Duplicate API key found"),
    ],
)
def test_nobody_else_is_let_in(headers: list[tuple[str, str]], text: str) -> None:
    gateway = Gateway()
    environ = {"kongai.headers": [("Host", "h"), *headers]}
    response = gateway.ask(environ_overrides=environ)
    assert response.status_code == 401
    assert message(response) == text
    assert response.headers["WWW-Authenticate"] == "Key"
    assert gateway.transport.requests == []
    assert gateway.record["kongai"]["ended"] == "unauthorized"
    assert "consumer" not in gateway.record


def test_a_realm_is_named_and_can_not_break_the_header() -> None:
    response = Gateway(realm='a "b"\\\r\nX: y').ask()
    expected = 'Key realm="a \\"b\\"\\\\%0D%0AX: y"'
    assert response.headers["WWW-Authenticate"] == expected
    assert "X" not in response.headers


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/r?apikey=short", 200),
        ("/r?%61pikey=%73hort", 200),
        ("/r?apikey", 401),
        ("/r?APIKEY=short", 401),
        ("/r?apikey=short&apikey=short", 401),
    ],
)
def test_a_key_may_stand_in_the_query(target: str, status: int) -> None:
    assert Gateway().ask(target).status_code == status
    assert Gateway(key_in_query=False).ask(target).status_code == 401


def test_a_header_comes_before_the_query() -> None:
    gateway = Gateway()
    assert gateway.ask("/r?apikey=wrong", [("apikey", KEY)]).status_code == 200
    assert gateway.ask("/r?apikey=short", [("apikey", "wrong")]).status_code == 401


def test_keys_in_headers_may_be_forbidden() -> None:
    gateway = Gateway(key_in_header=False)
    assert gateway.ask(headers=[("apikey", KEY)]).status_code == 401
    assert gateway.ask("/r?apikey=short", [("apikey", KEY)]).status_code == 200
    assert gateway.record["consumer"]["username"] == "bob"


def test_names_are_tried_in_order() -> None:
    gateway = Gateway(key_names=["x-one", "x_two"])
    assert gateway.ask(headers=[("x-two", KEY)]).status_code == 200
    both = [("x-two", KEY), ("x-one", "wrong")]
    assert gateway.ask(headers=both).status_code == 401


def test_a_key_goes_no_further_unless_that_is_wanted() -> None:
    target = "/r?x=d+e&apikey=wrong&&y"
    gateway = Gateway()
    gateway.ask(target, [("ApiKey", KEY)])
    assert "apikey" not in gateway.sent_headers
    assert gateway.sent.target == "/up?x=d+e&&y"
    gateway = Gateway(hide_credentials=False)
    gateway.ask(target, [("ApiKey", KEY)])
    assert gateway.sent_headers["apikey"] == KEY
    assert gateway.sent.target == "/up?x=d+e&apikey=wrong&&y"


@pytest.mark.parametrize("hide", [True, False])
@pytest.mark.parametrize("key", [KEY, "a wrong key"])
def test_a_key_reaches_no_record(hide: bool, key: str) -> None:
    class Tells(Plugin):
        name = "tells"

        def log(self, exchange: Exchange) -> None:
            exchange.log.set("told", f"it was {key}")

    gateway = Gateway(Tells(), key_names=["who"], hide_credentials=hide)
    gateway.ask(headers=[("Who", key)])
    gateway.ask(f"/r?who={quote(key)}")
    assert len(gateway.records) == 2
    for record in gateway.records:
        assert record["told"] == "it was REDACTED"
        text = json.dumps({**record, "authenticated_entity": None})
        assert key not in text.replace("%20", " ").replace(f"id-{KEY}", "")


def test_a_key_for_a_path_that_is_not_there_reaches_no_record() -> None:
    gateway = Gateway(key_names=["who"])
    assert gateway.ask("/nowhere?who=ka", [("Who", "ka")]).status_code == 404
    request = gateway.record["request"]
    assert request["headers"]["who"] == "REDACTED"
    assert request["uri"] == "/nowhere?who=REDACTED"


CLAIMED = [
    ("X-Consumer-ID", "evil"),
    ("X-Consumer-Username", "evil"),
    ("X-Consumer-Custom-ID", "evil"),
    ("X-Credential-Identifier", "evil"),
    ("X-Anonymous-Consumer", "true"),
]


def test_what_a_client_says_of_itself_is_not_believed() -> None:
    gateway = Gateway()
    gateway.ask(headers=[*CLAIMED, ("apikey", "short")])
    assert "evil" not in str(gateway.sent.headers)
    assert "X-Consumer-Custom-ID" not in gateway.sent_headers
    assert "X-Anonymous-Consumer" not in gateway.sent_headers


def test_a_name_is_sent_as_utf_8_and_in_one_line() -> None:
    odd = consumer("zoé\r\nX-Evil: 1", "odd")
    transport = MockTransport(lambda _: answer(b"{}"))
    proxy = Proxy(
        [Service("http://up.test", routes=[Route(paths=["/r"])])],
        plugins=[KeyAuth()],
        consumers=[odd],
        transport=transport,
    )
    Client(proxy).get("/r", headers={"apikey": "odd"}).close()
    sent = Headers(transport.requests[0].headers)
    assert sent["X-Consumer-Username"] == "zoÃ©%0D%0AX-Evil: 1"


@pytest.mark.parametrize(
    "headers", [[], [("apikey", "wrong")], [("apikey", "a"), ("apikey", "b")]]
)
@pytest.mark.parametrize("name", ["anon", "3"])
def test_who_has_no_key_may_be_somebody_else(
    headers: list[tuple[str, str]], name: str
) -> None:
    gateway = Gateway(anonymous=name)
    assert gateway.ask(headers=headers).status_code == 200
    assert gateway.sent_headers["X-Consumer-Username"] == "anon"
    assert gateway.sent_headers["X-Anonymous-Consumer"] == "true"
    assert "X-Credential-Identifier" not in gateway.sent_headers
    assert gateway.record["consumer"]["username"] == "anon"
    assert "authenticated_entity" not in gateway.record


def test_who_has_a_key_is_not_anonymous() -> None:
    gateway = Gateway(anonymous="anon")
    gateway.ask(headers=[("apikey", KEY)])
    assert gateway.sent_headers["X-Consumer-Username"] == "alice"
    assert "X-Anonymous-Consumer" not in gateway.sent_headers


def test_whom_another_plugin_has_let_in_stays_who_it_is() -> None:
    class Other(Plugin):
        name = "other"
        priority = 2000

        def access(self, exchange: Exchange) -> None:
            exchange.authenticate(BOB, BOB.keyauth_credentials[0])

    gateway = Gateway(Other(), anonymous="anon")
    gateway.ask()
    assert gateway.record["consumer"]["username"] == "bob"


@pytest.mark.parametrize("name", ["nobody", "c-1"])
def test_an_anonymous_consumer_has_to_be_there(name: str) -> None:
    gateway = Gateway(anonymous=name)
    response = gateway.ask()
    assert response.status_code == 500
    expected = f"anonymous consumer {name} is configured but doesn't exist"
    assert message(response) == expected


def test_preflight_requests_may_pass() -> None:
    gateway = Gateway()
    assert gateway.ask(method="OPTIONS").status_code == 401
    gateway = Gateway(run_on_preflight=False)
    assert gateway.ask(method="OPTIONS", headers=CLAIMED).status_code == 200
    assert not {name for name, _ in CLAIMED} & {*gateway.sent_headers.keys()}
    assert gateway.ask().status_code == 401


# Keys in bodies


BODIES = [
    (b"x=1&apikey=short", FORM, b"x=1"),
    (b'{"x":1.0,"apikey":"short"}', JSON, b'{"x":1.0}'),
    (
        (
            b'--b\r\nContent-Disposition: form-data; name="apikey"\r\n\r\n'
            b"short\r\n--b--\r\n"
        ),
        "multipart/form-data; boundary=b",
        b"--b--\r\n",
    ),
]


@pytest.mark.parametrize(("body", "kind", "left"), BODIES)
def test_a_key_may_stand_in_the_body_if_it_is_looked_for(
    body: bytes, kind: str, left: bytes
) -> None:
    assert Gateway().post(body, kind).status_code == 401
    gateway = Gateway(key_in_body=True)
    assert gateway.post(body, kind).status_code == 200
    assert gateway.body == left
    assert gateway.sent_headers["Content-Length"] == str(len(left))
    assert gateway.record["request"]["headers"]["content-length"] == str(len(left))
    gateway = Gateway(key_in_body=True, hide_credentials=False)
    assert gateway.post(body, kind).status_code == 200
    assert gateway.body == body


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (b"", JSON, "No API key found in request"),
        (b'{"apikey":5}', JSON, "No API key found in request"),
        (b'{"apikey":null}', JSON, "No API key found in request"),
        (b"{bad", JSON, "No API key found in request"),
        (b"apikey=short", "text/plain", "No API key found in request"),
        (b'{"apikey":["short"]}', JSON, "Duplicate API key found"),
        (b'{"apikey":{}}', JSON, "Duplicate API key found"),
        (b"apikey=short&apikey=short", FORM, "Duplicate API key found"),
        (b"apikey=wrong", FORM, "Unauthorized"),
    ],
)
def test_a_body_without_one_good_key(body: bytes, kind: str, text: str) -> None:
    response = Gateway(key_in_body=True).post(body, kind)
    assert (response.status_code, message(response)) == (401, text)


def test_a_body_without_the_key_stays_as_it_is() -> None:
    gateway = Gateway(key_in_body=True)
    body = b'{ "x" : [1, 2] }'
    assert gateway.post(body, JSON, headers=[("apikey", KEY)]).status_code == 200
    assert gateway.body == body


def test_a_body_is_not_read_for_a_key_that_is_elsewhere() -> None:
    class Reads(Plugin):
        name = "reads"

        def access(self, exchange: Exchange) -> None:
            exchange.log.set("read", exchange.body_size)

    settings: dict[str, Any] = {"key_in_body": True, "hide_credentials": False}
    gateway = Gateway(Reads(), **settings)
    gateway.post(b"x=1", FORM, headers=[("apikey", KEY)])
    assert gateway.record["read"] == 0
    assert gateway.body == b"x=1"


def test_a_body_that_is_too_long_to_look_into_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(key_auth, "MAX_BODY_SIZE", 12)
    gateway = Gateway(key_in_body=True)
    assert gateway.post(b"apikey=short", FORM).status_code == 200
    response = gateway.post(b"apikey=short&", FORM)
    assert (response.status_code, message(response)) == (413, "Payload too large")
    assert gateway.record["kongai"]["ended"] == "too_large"
    assert gateway.post(b"a" * 99, "text/plain").status_code == 401


# The settings


def test_settings_are_kongs() -> None:
    config = KeyAuth().config
    assert config == KeyAuthConfig(key_names=("apikey",), hide_credentials=True)
    assert KeyAuth(config).config is config
    with pytest.raises(TypeError):
        KeyAuth(config, realm="r")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"key_names": "a"}, "key_names: expected an array"),
        ({"key_names": [5]}, "key_names[0]: expected a string"),
        (
            {"key_names": ["a_b", "a.b"]},
            (
                "key_names[1]: bad header name 'a.b', allowed characters are A-Z, "
                "a-z, 0-9, '_', and '-'"
            ),
        ),
        ({"key_in_body": 1}, "key_in_body: expected a boolean"),
        ({"anonymous": ""}, "anonymous: length must be at least 1"),
        ({"realm": 5}, "realm: expected a string"),
        ({"bogus": 1}, "bogus: unknown field"),
        (
            {"principals": {"enabled": True}},
            "principals: principals are Konnect's; write the consumers into the file",
        ),
    ],
)
def test_settings_that_kong_refuses(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        KeyAuth(**fields)
    assert [str(one) for one in caught.value.problems] == [problem]


def test_a_key_in_the_wrong_place_reaches_no_record_either() -> None:
    records = ListSink()
    proxy = Proxy(
        [Service("http://up.test", routes=[Route(paths=["/r"], plugins=[key_only()])])],
        [Route(paths=["/open"])],
        consumers=[ALICE],
        sinks=[records],
        transport=MockTransport(lambda request: answer(b"")),
    )
    for target in ("/nowhere?x=c4nary", "/open?x=c4nary"):
        Client(proxy).get(target, headers={"X": "c4nary"}).close()
    assert len(records) == 2
    assert "c4nary" not in json.dumps(records)


def key_only() -> KeyAuth:
    return KeyAuth(key_names=["X"])


@pytest.mark.parametrize("spelling", ["header", "raw query", "escaped query"])
def test_a_key_may_have_letters_beyond_ascii(spelling: str) -> None:
    key = "schl\u00fcssel"
    raw = key.encode().decode("latin-1")
    proxy = Proxy(
        [Service("http://up.test", routes=[Route(paths=["/"])])],
        plugins=[KeyAuth()],
        consumers=[consumer("alice", key)],
        transport=MockTransport(lambda request: answer(b"")),
    )
    target, headers = "/", {}
    if spelling == "header":
        headers = {"apikey": raw}
    else:
        shown = raw if spelling == "raw query" else quote(key)
        target = f"/?apikey={shown}"
    environ = {"REQUEST_URI": target}
    found = Client(proxy).get("/", headers=headers, environ_overrides=environ)
    assert found.status_code == 200

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from kongai import redact

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
SECRET = "c4nary-5f1d"

CREDENTIALS = [
    *("authorization", "Proxy-Authorization", "x-api-key", "X-API-Key", "api-key"),
    *("apikey", "key", "x-goog-api-key", "x-amz-security-token", "cookie"),
    *("Set-Cookie", "x-auth-token", "access_token", "client_secret", "password"),
    *("x-amz-signature", "X-Amz-Credential", "ocp-apim-subscription-key"),
    *("sig", "X-Jwt-Assertion", "pwd", "user_pass", "passphrase"),
]
HARMLESS = [
    *("user-agent", "host", "anthropic-version", "anthropic-beta", "content-type"),
    *("anthropic-ratelimit-tokens-remaining", "x-claude-code-session-id", "beta"),
    *("idempotency-key", "Idempotency-Key", "x-cache-key", "max_tokens", "request-id"),
    *("WWW-Authenticate", "proxy-authenticate", "design", "x-bypass", "passing"),
]


@pytest.mark.parametrize("name", CREDENTIALS)
def test_credentials_are_known_by_their_name(name: str) -> None:
    assert redact.is_secret(name)
    assert redact.header_value(name, SECRET) == "REDACTED"
    assert redact.argument(name, SECRET) == "REDACTED"
    assert redact.query(f"a=b&{name}={SECRET}&c") == f"a=b&{name}=REDACTED&c"


@pytest.mark.parametrize("name", HARMLESS)
def test_everything_else_stays(name: str) -> None:
    assert not redact.is_secret(name)
    assert redact.header_value(name, SECRET) == SECRET
    assert redact.argument(name, SECRET) == SECRET
    assert redact.query(f"{name}={SECRET}") == f"{name}={SECRET}"


def test_the_credentials_of_a_request_by_themselves() -> None:
    long = f"{SECRET}-{SECRET}"
    headers = [
        ("Authorization", f"Bearer {long}1"),
        ("Cookie", f"session={long}2; theme=dark"),
        ("x-team", f"{long}3"),
        ("x-api-key", "short"),
        ("user-agent", f"{long}4"),
    ]
    found = redact.credentials(headers, frozenset({"x-team"}))
    assert found == {f"{long}1", f"{long}2", f"{long}3"}


def test_a_configuration_names_more() -> None:
    also = frozenset({"x-team"})
    assert redact.header_value("X-Team", SECRET, also) == "REDACTED"
    assert redact.query(f"X-Team={SECRET}&q=1", also) == "X-Team=REDACTED&q=1"
    assert redact.target(f"/v1?x-team={SECRET}", also) == "/v1?x-team=REDACTED"
    assert redact.argument("x-team", SECRET, also) == "REDACTED"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bearer abc.def-123", "REDACTED"),
        ("use bearer abc then", "use REDACTED then"),
        ("Basic dXNlcjpwYXNz==", "REDACTED"),
        ("my key is sk-ant-api03-Ab_c123.", "my key is REDACTED."),
        ("AIzaSyB0123456789abcdef", "REDACTED"),
        ("a task-oriented disk-like sk-1", "a task-oriented disk-like sk-1"),
        ("http://user:c4nary@host/a@b", "http://REDACTED@host/a@b"),
        ("/anything/http:/c4nary@host", "/anything/http:/REDACTED@host"),
        (
            "https://host/@user and me@example.com",
            "https://host/@user and me@example.com",
        ),
        ("nothing to see", "nothing to see"),
        ("", ""),
    ],
)
def test_credentials_are_known_by_their_look(text: str, expected: str) -> None:
    assert redact.text(text) == expected
    assert redact.header_value("x-note", text) == expected
    assert redact.argument("note", text) == expected


LIKE_CREDENTIALS = st.lists(
    st.sampled_from(
        [
            *(
                "bearer",
                "Basic",
                "BEAR",
                "er ",
                "sk",
                "SK-",
                "aiza",
                "AIzaSy",
                "+",
                " ",
            ),
            *("%20", "abcdefgh12", "://u", ":p@", "http:/", "\\n", "\u017f", "\u212a-"),
        ]
    )
    | st.text(max_size=3)
).map("".join)


@unhurried
@given(LIKE_CREDENTIALS)
def test_a_glance_overlooks_no_credential(text: str) -> None:
    assert redact.text(text) == redact._scrubbed(text)
    if redact.is_harmless(text):
        assert redact._scrubbed(text) == text


@pytest.mark.parametrize(
    "credential", ["Bearer abc.def", "basic dXNlcjo=", "sk-ant-api03-abcdef"]
)
@pytest.mark.parametrize("before", ["", "it is ", "\n", "key:\n\t", '"', "\\"])
@pytest.mark.parametrize("after", ["", " more", "\nmore", '"'])
def test_json_stays_json(before: str, credential: str, after: str) -> None:
    """A payload in a record is the JSON that passed, less its credentials."""
    text = redact.text(json.dumps({"say": before + credential + after, "x": "y"}))
    assert json.loads(text) == {"say": f"{before}REDACTED{after}", "x": "y"}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/v1/messages", "/v1/messages"),
        ("/v1/messages?", "/v1/messages?"),
        ("/v1?beta=true", "/v1?beta=true"),
        (f"/v1?beta=true&key={SECRET}", "/v1?beta=true&key=REDACTED"),
        (f"/v1?key={SECRET}={SECRET}", "/v1?key=REDACTED"),
        (f"/v1?key={SECRET}&key={SECRET}", "/v1?key=REDACTED&key=REDACTED"),
        ("/v1?key", "/v1?key"),
        ("/v1?key=", "/v1?key=REDACTED"),
        ("/v1?&&a=b&", "/v1?&&a=b&"),
        ("/sk-ant-api03-abcdef/x?y=sk-ant-api03-abcdef", "/REDACTED/x?y=REDACTED"),
    ],
)
def test_targets(target: str, expected: str) -> None:
    assert redact.target(target) == expected


@unhurried
@given(
    st.sampled_from(CREDENTIALS),
    st.sets(st.integers(0, 30)),
    st.lists(st.text("abk=&?%+", max_size=6)),
    st.integers(0, 5),
)
def test_no_spelling_of_a_name_lets_its_value_through(
    name: str, escaped: set[int], others: list[str], place: int
) -> None:
    spelt = "".join(
        f"%{ord(letter):02x}" if index in escaped else letter
        for index, letter in enumerate(name)
    )
    parts = [*others[:place], f"{spelt}={SECRET}", *others[place:]]
    assert SECRET not in redact.target("/v1/messages?" + "&".join(parts))


def test_very_secrets_are_taken_out_wherever_they_stand() -> None:
    record = {"a": ["x-s3cret-y", 1, None, {"b": "s3cret"}], "c": "harmless", "d": 1.5}
    assert redact.values(record, {"s3cret", ""}) == {
        "a": ["x-REDACTED-y", 1, None, {"b": "REDACTED"}],
        "c": "harmless",
        "d": 1.5,
    }


def test_a_secret_within_a_secret_leaves_nothing_of_it() -> None:
    assert redact.values("a s3cret-tail", {"s3cret", "s3cret-tail"}) == "a REDACTED"
    secrets = {"Bearer s3cret-tail", "s3cret-tail", "s3cret-t"}
    assert redact.raw(b"Bearer s3cret-tail s3cret-tail", secrets) == (
        b"REDACTED REDACTED"
    )


def test_of_a_body_words_are_not_taken_out() -> None:
    assert redact.raw(b"the key is invalid: s3cret12", {"invalid", "s3cret12"}) == (
        b"the key is invalid: REDACTED"
    )
    assert redact.raw(b"\xff \xc3\xa9-s3cret", {"\xe9-s3cret", ""}) == b"\xff REDACTED"


@pytest.mark.parametrize(
    "name",
    [
        *("context_management", "tools[].defer_loading", "tools[web_search_20250305]"),
        *("choices[1:]", "$schema", "a-b.c", "x" * 39, "n"),
        "messages[].content[text_editor_code_execution_tool_result]",
        ".".join(["a" * 24] * 4),
    ],
)
def test_names_of_members_are_shown(name: str) -> None:
    assert redact.name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("xai-CLIENTKEY12345", "tools[].gsk_0a1b2c3d4e5f", "AbCdEfGhIjK1.a"),
        *("x" * 40, f"{'x' * 40}.a", f"tools[{'x' * 40}]", ".".join(["a" * 25] * 4)),
        *("", "a b", "caf\xe9", "a/b", "a\n", 'a"', "name="),
    ],
)
def test_names_that_may_be_keys_are_not(name: str) -> None:
    assert redact.name(name) == "..."


def test_a_name_that_is_a_key_by_its_look_is_none() -> None:
    assert redact.name("tools[].sk-abcdefghijk") == "tools[].REDACTED"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://a/x?tok=s3cr3t#b", "https://a/x?tok=REDACTED#b"),
        ("/x?a=1&%74ok=s3cr3t&b=2", "/x?a=1&%74ok=REDACTED&b=2"),
        (
            '<https://a?apikey=s3cr3t>; rel="next"',
            '<https://a?apikey=REDACTED>; rel="next"',
        ),
        ("what? tok=1 is no argument", "what? tok=1 is no argument"),
        ("/x?a=b", "/x?a=b"),
    ],
)
def test_a_url_in_a_header_loses_its_secret_arguments(
    value: str, expected: str
) -> None:
    also = frozenset({"tok"})
    assert redact.header_value("Location", value, also) == expected

from __future__ import annotations

from kongai.entities import Consumer, KeyAuthCredential


def test_a_credential_does_not_show_its_key() -> None:
    assert "secret" not in repr(KeyAuthCredential(key="secret", id="7"))
    consumer = Consumer(
        username="a", keyauth_credentials=[KeyAuthCredential(key="secret")]
    )
    assert "secret" not in repr(consumer)


def test_a_consumer_has_one_of_two_names() -> None:
    assert list(Consumer(username="a").problems()) == []
    assert list(Consumer(custom_id="1").problems()) == []
    text = "at least one of these fields must be non-empty: 'custom_id', 'username'"
    assert list(Consumer().problems()) == [("", text)]
    assert list(Consumer(username="", custom_id="").problems()) == [("", text)]

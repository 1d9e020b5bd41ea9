from __future__ import annotations

from kongai.consumers import NOBODY, Consumers
from kongai.entities import Consumer, KeyAuthCredential


def with_keys(*keys: str | None) -> list[KeyAuthCredential]:
    return [KeyAuthCredential(id=f"id of {key}", key=key) for key in keys]


ALICE = Consumer(
    id="1", username="alice", custom_id="c", keyauth_credentials=with_keys("a", "b")
)
BOB = Consumer(id="2", username="c", keyauth_credentials=with_keys("k", None))
ONLY = Consumer(id="3", custom_id="only")
CONSUMERS = Consumers([ALICE, BOB, ONLY])


def test_a_consumer_is_found_by_id_or_username() -> None:
    assert CONSUMERS.find("1") is ALICE
    assert CONSUMERS.find("alice") is ALICE
    assert CONSUMERS.find("c") is BOB
    assert CONSUMERS.find("3") is ONLY
    assert CONSUMERS.find("nobody") is None


def test_a_custom_id_is_no_name() -> None:
    assert CONSUMERS.find("only") is None


def test_an_id_comes_before_a_username() -> None:
    named_like_an_id = Consumer(id="9", username="1")
    assert Consumers([named_like_an_id, ALICE]).find("1") is ALICE


def test_a_key_leads_to_its_consumer_and_credential() -> None:
    for credential in ALICE.keyauth_credentials:
        assert credential.key is not None
        assert CONSUMERS.by_key(credential.key) == (ALICE, credential)
    assert CONSUMERS.by_key("k") == (BOB, BOB.keyauth_credentials[0])


def test_a_key_is_exact_and_never_empty() -> None:
    for key in ("A", "a ", "", "None", "nothing"):
        assert CONSUMERS.by_key(key) is None


def test_all_of_them_are_there_in_order() -> None:
    assert list(CONSUMERS) == [ALICE, BOB, ONLY]
    assert list(NOBODY) == []
    assert NOBODY.by_key("a") is None

from __future__ import annotations

import pytest

from kongai.body_memory import BodyMemory, Share
from kongai.errors import Overloaded, RequestRejected


def test_exchanges_share_what_there_is() -> None:
    memory = BodyMemory(100)
    one, two = Share(memory), Share(memory)
    one.hold(60)
    with pytest.raises(Overloaded):
        two.hold(41)
    two.hold(40)
    assert memory.held == 100
    one.release()
    assert memory.held == 40
    two.hold(100)
    two.release()
    two.release()
    assert memory.held == 0


def test_a_share_grows_and_does_not_shrink() -> None:
    memory = BodyMemory(100)
    share = Share(memory)
    share.hold(10)
    share.hold(30)
    share.hold(20)
    assert memory.held == 30


def test_a_refused_share_keeps_what_it_had() -> None:
    memory = BodyMemory(100)
    share = Share(memory)
    share.hold(90)
    other = Share(memory)
    other.hold(5)
    with pytest.raises(Overloaded):
        other.hold(15)
    assert memory.held == 95


def test_what_never_fits_need_not_come_again() -> None:
    memory = BodyMemory(100)
    with pytest.raises(RequestRejected) as refused:
        Share(memory).hold(101)
    assert (refused.value.status, refused.value.ended) == (413, "too_large")
    assert memory.held == 0


def test_what_is_only_expected_takes_no_room() -> None:
    memory = BodyMemory(100)
    Share(memory).hold(60)
    Share(memory).expect(100)
    assert memory.held == 60
    with pytest.raises(RequestRejected):
        Share(memory).expect(101)


def test_there_may_be_no_limit() -> None:
    share = Share(BodyMemory(None))
    share.hold(10**15)
    share.release()

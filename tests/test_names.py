from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from kongai.names import AddressInfo, NameNotResolved, Names, first_that_answers
from tests.live.ports import Listener, black_hole, closed_port
from tests.live.waiting import wait_until


def at(*hosts: str, port: int = 0) -> list[AddressInfo]:
    """IPv4 addresses, as a look-up gives them."""
    kind = socket.SOCK_STREAM
    return [(socket.AF_INET, kind, 6, "", (host, port)) for host in hosts]


class System:
    """Look-ups that answer when and what they are told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.answer: Callable[[str], list[AddressInfo]] = lambda name: at("192.0.2.1")

    def __call__(self, name: str) -> list[AddressInfo]:
        self.asked.append(name)
        assert self.may_answer.wait(5)
        return self.answer(name)

    def fail(self, error: Exception) -> None:
        def answer(name: str) -> list[AddressInfo]:
            raise error

        self.answer = answer


UNKNOWN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.parametrize(
    ("host", "family", "address"),
    [
        ("127.0.0.1", socket.AF_INET, ("127.0.0.1", 80)),
        ("::1", socket.AF_INET6, ("::1", 80, 0, 0)),
        ("[::1]", socket.AF_INET6, ("::1", 80, 0, 0)),
        ("2001:DB8::0:1", socket.AF_INET6, ("2001:db8::1", 80, 0, 0)),
        ("fe80::1%3", socket.AF_INET6, ("fe80::1", 80, 0, 3)),
    ],
)
def test_an_address_is_not_looked_up(
    host: str, family: int, address: tuple[object, ...]
) -> None:
    system = System()
    [found] = Names(system).addresses(host, 80, 1)
    assert (found[0], found[4]) == (family, address)
    assert system.asked == []


def test_the_zone_of_an_address_may_be_a_name() -> None:
    number, name = socket.if_nameindex()[0]
    [found] = Names(System()).addresses(f"fe80::1%{name}", 80, 1)
    assert found[4] == ("fe80::1", 80, 0, number)


@pytest.mark.parametrize("host", ["a", "256.1.1.1", "1.2.3", "127.0.0.1.", "fe80::1%"])
def test_what_is_no_address_is_a_name(host: str) -> None:
    system = System()
    Names(system).addresses(host, 80, 1)
    assert system.asked == [host]


def test_a_port_is_the_askers() -> None:
    system = System()
    names = Names(system)
    ports = [names.addresses("a", port, 1)[0][4][1] for port in (80, 443)]
    assert (ports, system.asked) == ([80, 443], ["a"])


def test_the_system_is_asked() -> None:
    found = Names().addresses("localhost", 80, 5)
    assert {entry[4][0] for entry in found} & {"127.0.0.1", "::1"}


def test_an_answer_is_used_for_a_while() -> None:
    system = System()
    names = Names(system, fresh=0.05)
    for _ in range(5):
        names.addresses("A.example", 80, 1)
    names.addresses("a.EXAMPLE", 80, 1)
    assert system.asked == ["a.example"]
    system.answer = lambda name: at("192.0.2.2")

    def moved() -> bool:
        return names.addresses("a.example", 80, 1)[0][4] == ("192.0.2.2", 80)

    wait_until(moved, "new answer", 5)


def test_many_wait_for_one_look_up() -> None:
    system = System()
    system.may_answer.clear()
    names = Names(system)
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(names.addresses, "a", 80, 5) for _ in range(20)]
        wait_until(lambda: system.asked, "question", 5)
        system.may_answer.set()
        found = [one.result(5) for one in waiting]
    assert found == [found[0]] * 20
    assert system.asked == ["a"]


def test_a_slow_name_keeps_no_other_waiting() -> None:
    slow, names = threading.Event(), Names(lambda name: look_up(name))

    def look_up(name: str) -> list[AddressInfo]:
        assert name != "slow" or slow.wait(5)
        return at("192.0.2.1")

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(names.addresses, "slow", 80, 5)
        assert names.addresses("quick", 80, 5)
        assert names.addresses("127.0.0.1", 80, 5)
        assert not waiting.done()
        slow.set()
        assert waiting.result(5)


def test_who_waits_does_so_for_as_long_as_it_likes() -> None:
    system = System()
    system.may_answer.clear()
    names, started = Names(system), time.monotonic()
    for _ in range(2):
        with pytest.raises(NameNotResolved, match=r"^name resolution failed$"):
            names.addresses("a", 80, 0.05)
    assert 0.1 <= time.monotonic() - started < 2
    assert system.asked == ["a"]
    system.may_answer.set()
    # What came too late for those is there for the next.
    assert names.addresses("a", 80, 5) == names.addresses("a", 80, 0.0001)
    assert system.asked == ["a"]


@pytest.mark.parametrize(
    "error", [UNKNOWN, OSError("?"), UnicodeError("label too long")]
)
def test_who_has_no_address(error: Exception) -> None:
    system = System()
    system.fail(error)
    names = Names(system)
    for _ in range(2):
        with pytest.raises(NameNotResolved):
            names.addresses("secret.invalid", 80, 5)
    assert len(system.asked) == 2  # nothing is remembered of it


def test_no_addresses_are_no_answer() -> None:
    system = System()
    system.answer = lambda name: []
    with pytest.raises(NameNotResolved):
        Names(system).addresses("a", 80, 5)


def test_an_older_answer_will_do_if_there_is_no_newer_one() -> None:
    system = System()
    names = Names(system, fresh=0)
    found = names.addresses("a", 80, 5)
    system.fail(UNKNOWN)
    for _ in range(5):
        assert names.addresses("a", 80, 5) == found
    # Once it has failed, there is a pause before the next question.
    assert system.asked == ["a", "a"]


def test_an_older_answer_will_do_if_a_newer_one_takes_too_long() -> None:
    system = System()
    names = Names(system, fresh=0)
    found = names.addresses("a", 80, 5)
    system.may_answer.clear()
    started = time.monotonic()
    for _ in range(5):
        assert names.addresses("a", 80, 5) == found
    # One second in all, and not one for each.
    assert time.monotonic() - started < 3
    assert system.asked == ["a", "a"]
    system.may_answer.set()


def test_an_answer_that_is_too_old_is_none() -> None:
    system = System()
    names = Names(system, fresh=0, stale=0)
    assert names.addresses("a", 80, 5)
    system.fail(UNKNOWN)
    with pytest.raises(NameNotResolved):
        names.addresses("a", 80, 5)


def test_not_all_names_are_remembered_for_ever() -> None:
    system = System()
    names = Names(system)
    for number in range(1001):
        names.addresses(f"a{number}", 80, 5)
    names.addresses("a1000", 80, 5)
    assert len(system.asked) == 1001
    names.addresses("a0", 80, 5)
    assert len(system.asked) == 1002


def test_the_first_address_that_takes_a_connection() -> None:
    with Listener(socket.socket.close) as listener, closed_port() as closed:
        refusing, taking = (at("127.0.0.1", port=p)[0] for p in (closed, listener.port))
        option = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for found in (
            [refusing, taking],
            [taking, refusing],
            [refusing] * 3 + [taking],
        ):
            with first_that_answers(found, 5, [option]) as sock:
                assert sock.getpeername()[1] == listener.port
                assert sock.getsockopt(*option[:2])
                assert sock.gettimeout() == 5


def test_the_last_address_says_why_there_is_no_connection() -> None:
    with black_hole() as hole, closed_port() as closed:
        hanging, refusing = (at("127.0.0.1", port=port)[0] for port in (hole, closed))
        with pytest.raises(ConnectionRefusedError):
            first_that_answers([hanging, refusing], 0.05)
        with pytest.raises(TimeoutError):
            first_that_answers([refusing, hanging], 0.05)

from __future__ import annotations

import pytest
from werkzeug.datastructures import Headers

from kongai.errors import ConfigError
from kongai.trust import Trust


@pytest.mark.parametrize(
    ("ips", "ip", "trusted"),
    [
        ([], "10.0.0.1", False),
        (["10.0.0.1"], "10.0.0.1", True),
        (["10.0.0.1"], "10.0.0.2", False),
        (["10.1.2.3/8", "::1"], "10.9.9.9", True),
        (["10.0.0.0/8", "::1"], "::1", True),
        (["0.0.0.0/0"], "::1", False),
        (["::/0"], "::1", True),
        (["10.0.0.0/8"], "::ffff:10.0.0.1", True),
        (["0.0.0.0/0", "::/0"], "", False),
        (["0.0.0.0/0", "::/0"], "unix:", False),
    ],
)
def test_who_is_trusted(ips: list[str], ip: str, trusted: bool) -> None:
    assert Trust(ips, "X-Real-IP", recursive=False).trusts(ip) is trusted


@pytest.mark.parametrize(
    ("named", "last", "last_not_trusted"),
    [
        ([], "10.0.0.1", "10.0.0.1"),
        ([""], "10.0.0.1", "10.0.0.1"),
        (["192.0.2.7"], "192.0.2.7", "192.0.2.7"),
        (["192.0.2.7, 192.0.2.8"], "192.0.2.8", "192.0.2.8"),
        (["192.0.2.7, 10.0.0.2"], "10.0.0.2", "192.0.2.7"),
        (["192.0.2.7", "10.0.0.2,10.0.0.3"], "10.0.0.3", "192.0.2.7"),
        (["10.0.0.4, 10.0.0.2"], "10.0.0.2", "10.0.0.4"),
        (["192.0.2.7, nobody"], "10.0.0.1", "10.0.0.1"),
        (["192.0.2.7, nobody, 10.0.0.2"], "10.0.0.2", "10.0.0.2"),
        (["192.0.2.7:4711"], "192.0.2.7", "192.0.2.7"),
        (["[2001:db8::1]:80"], "2001:db8::1", "2001:db8::1"),
        (["2001:db8::1"], "2001:db8::1", "2001:db8::1"),
        (["fe80::1%eth0 <b>"], "fe80::1", "fe80::1"),
    ],
)
def test_the_client_is_who_a_trusted_peer_names(
    named: list[str], last: str, last_not_trusted: str
) -> None:
    headers = Headers([("x-forwarded-for", value) for value in named])
    for recursive, client in ((False, last), (True, last_not_trusted)):
        trust = Trust(["10.0.0.0/8"], "X-Forwarded-For", recursive=recursive)
        assert trust.client_ip("10.0.0.1", headers) == client
        assert trust.client_ip("192.0.2.1", headers) == "192.0.2.1"


def test_what_is_no_address_is_refused_by_its_place() -> None:
    with pytest.raises(ConfigError) as caught:
        Trust(["10.0.0.1", "here", "10.0.0.0/33"], "X-Real-IP", recursive=False)
    assert caught.value.lines() == [
        "trusted_ips[1]: must be a valid IPv4 or IPv6 address or CIDR block",
        "trusted_ips[2]: must be a valid IPv4 or IPv6 address or CIDR block",
    ]

"""Whose word counts for where a request comes from: Kong's `trusted_ips`.

A peer that is trusted, such as a load balancer, may say who its client is (nginx's
`real_ip_header`) and how it was asked (`X-Forwarded-*`). Of anybody else the gateway
believes only the address of the connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from werkzeug.datastructures import Headers

from kongai.errors import ConfigError, Problem
from kongai.exchange import Exchange

_WITH_PORT = re.compile(r"\[(?P<v6>[^]]*)\](?::\d+)?|(?P<v4>[\d.]+):\d+")
_INVALID = "must be a valid IPv4 or IPv6 address or CIDR block"


class Trust:
    """Peers that are believed.

    Args:
        ips: their addresses, or networks such as ``10.0.0.0/8``.
        header: the header in which they name their client.
        recursive: of a list of addresses in that header, take the last that is not
            trusted itself, instead of the last.

    Raises:
        ConfigError: an address is none.
    """

    def __init__(self, ips: Iterable[str], header: str, *, recursive: bool) -> None:
        self._networks = []
        problems = []
        for index, ip in enumerate(ips):
            try:
                self._networks.append(ip_network(ip, strict=False))
            except ValueError:
                problems.append(Problem(f"trusted_ips[{index}]", _INVALID))
        if problems:
            raise ConfigError(problems)
        self._header = header
        self._recursive = recursive

    def trusts(self, ip: str) -> bool:
        """Whether the address is that of a trusted peer."""
        if not self._networks:
            return False
        try:
            address = ip_address(ip)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)

    def look_at(self, exchange: Exchange) -> None:
        """Say of an exchange whether its peer is trusted, and who the client is."""
        exchange.real_ip = peer = exchange.peer_ip
        if self._networks and self.trusts(peer):
            exchange.trusted = True
            exchange.real_ip = self.client_ip(peer, exchange.headers)

    def client_ip(self, peer: str, headers: Headers) -> str:
        """The client's address, by what its peer says if it is trusted."""
        client = peer
        if self.trusts(peer):
            named = ",".join(headers.getlist(self._header)).split(",")
            for text in reversed(named):
                address = _address(text.strip())
                if address is None:
                    break
                client = address
                if not self._recursive or not self.trusts(client):
                    break
        return client


def _address(text: str) -> str | None:
    """An address, its port left out; None for what is none."""
    found = _WITH_PORT.fullmatch(text)
    if found is not None:
        text = found["v6"] or found["v4"] or ""
    try:
        # A zone, which may be any text, means nothing to anybody else.
        return str(ip_address(text.partition("%")[0]))
    except ValueError:
        return None

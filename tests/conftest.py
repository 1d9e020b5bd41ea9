"""What tests of several modules share."""

from __future__ import annotations

from typing import TypeAlias

import pytest

from kongai.socket_transport import SocketTransport
from kongai.transport import RequestsTransport

TransportClass: TypeAlias = type[RequestsTransport] | type[SocketTransport]


@pytest.fixture(params=[RequestsTransport, SocketTransport], ids=["requests", "socket"])
def transport_class(request: pytest.FixtureRequest) -> TransportClass:
    """Each of the transports: what holds for one holds for the other."""
    kind: TransportClass = request.param
    return kind

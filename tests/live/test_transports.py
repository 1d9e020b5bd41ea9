"""The ways to reach an upstream that a gateway can be given."""

from __future__ import annotations

import os

import pytest

from .conftest import Line, request_body, request_headers, whole
from .harness import TRANSPORT_VARIABLE, Gateway, howto_config
from .upstream import FakeUpstream

# Only urllib3, which requests is made of, takes this for an instruction.
ODD = ("x-odd", "@@@SKIP_HEADER@@@")


@pytest.mark.parametrize(
    ("args", "passed"),
    [
        pytest.param(
            (),
            True,
            marks=pytest.mark.skipif(
                TRANSPORT_VARIABLE in os.environ, reason="there is another default"
            ),
        ),
        (("--transport", "socket"), True),
        (("--transport", "requests"), False),
    ],
    ids=["default", "socket", "requests"],
)
def test_a_gateway_has_the_transport_that_it_is_told(
    args: tuple[str, ...], passed: bool
) -> None:
    with (
        FakeUpstream(whole) as upstream,
        Gateway(howto_config(f"{upstream.url}/v1/messages"), *args) as gateway,
    ):
        line = Line(gateway, upstream)
        for _ in range(2):
            answer = line.ask(request_body(), headers=request_headers(ODD))
            assert answer.status == 200
        assert len(upstream.connections) == 1
        seen = [value for r in upstream.requests for value in r.values(ODD[0])]
        assert seen == [ODD[1]] * 2 * passed

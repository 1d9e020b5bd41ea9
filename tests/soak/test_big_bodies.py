"""Prompts of 32 MB, several at once: what they cost, and whom they hold up."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection

import pytest

from tests.live.harness import Gateway

from .children import MockLLM
from .conftest import StartGateway, report
from .measures import MIB, forget_peak, memory, probing

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]
AT_ONCE, SIZE = 4, 32 * MIB
_PIECE = 65536


def prompt() -> bytes:
    """A prompt with a large picture."""
    source = {"type": "base64", "media_type": "image/png", "data": ""}
    content = [{"type": "image", "source": source}]
    messages = [{"role": "user", "content": content}]
    text = json.dumps({"model": "m", "max_tokens": 9, "messages": messages})
    start, end = text.encode().split(b'"data": "')
    picture = b"iVBORw0KGgoAAAANSUhEUg+/" * (SIZE // 24)
    return start + b'"data": "' + picture[: SIZE - len(text)] + end


def send(gateway: Gateway, path: str, body: bytes, *, chunked: bool) -> int:
    """Send it; the status of the answer."""

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), _PIECE):
            yield body[start : start + _PIECE]

    host = gateway.url.removeprefix("http://")
    headers = {"Content-Type": "application/json"}
    if chunked:
        headers["Transfer-Encoding"] = "chunked"
    with closing(HTTPConnection(host, timeout=120)) as connection:
        data = pieces() if chunked else body
        connection.request("POST", path, data, headers, encode_chunked=chunked)
        response = connection.getresponse()
        response.read()
        return response.status


@pytest.mark.parametrize("framing", ["Content-Length", "chunked"])
@pytest.mark.parametrize(
    ("path", "in_memory"),
    [
        pytest.param("/claude/v1/messages", True, id="ai-proxy"),
        pytest.param("/plain", False, id="plain"),
    ],
)
def test_four_at_once(
    model: MockLLM, start: StartGateway, path: str, framing: str, *, in_memory: bool
) -> None:
    gateway, body = start(body_limit=40 * MIB), prompt()
    assert send(gateway, path, b"{}", chunked=False) in (200, 400)
    base = memory(gateway)
    forget_peak(gateway)
    began = time.monotonic()
    with ThreadPoolExecutor() as pool, probing(gateway, each=0.01) as probe:
        chunked = framing == "chunked"
        sent = [
            pool.submit(send, gateway, f"{path}?n={n}", body, chunked=chunked)
            for n in range(AT_ONCE)
        ]
        statuses = [future.result() for future in sent]
        took = time.monotonic() - began
    peak = memory(gateway, "VmHWM")
    report(
        f"{AT_ONCE} bodies of {SIZE // MIB} MiB, {framing}, {path}",
        f"{took:.2f} s; memory {base / MIB:.1f} -> {peak / MIB:.1f} MiB at most; "
        f"lag p50 / p99 / max {probe}",
    )
    assert statuses == [200] * AT_ONCE
    lines = [line.split() for line in model.ledger.read_text("ascii").splitlines()]
    arrived = {int(n): int(size) for n, _, size in lines if n != "-"}
    assert arrived == dict.fromkeys(range(AT_ONCE), len(body))
    # Joining the pieces of a body has them in memory twice for a moment.
    bodies = (AT_ONCE + 1) * SIZE if in_memory else 0
    assert peak - base < bodies + 30 * MIB
    assert probe.spread["max"] < 2000

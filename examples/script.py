"""One request through a gateway, without a server and without a network.

An `EchoLLM` on a loopback port stands in for the provider; the record of the exchange
goes to standard output.
"""

from __future__ import annotations

import sys
from contextlib import closing

from werkzeug.test import Client

from kongai import AIProxy, Proxy, StreamSink
from kongai.testing import EchoLLM


def gateway(upstream_url: str) -> Proxy:
    options = {"anthropic_version": "2023-06-01", "upstream_url": upstream_url}
    ai_proxy = AIProxy(
        provider="anthropic",
        llm_format="anthropic",
        model={"provider": "anthropic", "options": options},
    )
    return Proxy(plugins=[ai_proxy], sinks=[StreamSink(sys.stdout)])


def main() -> None:
    question = {
        "model": "claude-sonnet-4-5",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Hello!"}],
    }
    with EchoLLM() as upstream, closing(gateway(upstream.url)) as proxy:
        # Buffered: read to its end and closed, and with that the record is written.
        answer = Client(proxy).post("/v1/messages", json=question, buffered=True)
        print(answer.get_data(as_text=True))


if __name__ == "__main__":
    main()

"""A sink of your own: what each model has cost so far.

A sink takes records, one dict per exchange, from as many threads as serve requests.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from contextlib import closing
from typing import Any

from werkzeug.test import Client

from kongai import AIProxy, Proxy
from kongai.testing import MockTransport, answer


class Costs:
    def __init__(self) -> None:
        self.dollars: Counter[str] = Counter()
        self._lock = threading.Lock()

    def emit(self, record: dict[str, Any]) -> None:
        # There is no `ai` in the record of a request that ai-proxy never saw, and no
        # `usage` where nothing was counted, as for a list of models.
        proxied = record.get("ai", {}).get("proxy", {})
        if "usage" in proxied:
            with self._lock:
                model = proxied["meta"]["response_model"]
                self.dollars[model] += proxied["usage"]["cost"]

    def close(self) -> None:
        for model, dollars in self.dollars.most_common():
            print(f"{model}: {dollars:.6f} USD")


def main() -> None:
    usage = {"input_tokens": 1000, "output_tokens": 500}
    body = {"model": "claude-sonnet-4-5", "usage": usage}
    proxy = Proxy(
        plugins=[AIProxy(provider="anthropic", llm_format="anthropic")],
        sinks=[Costs()],
        transport=MockTransport(lambda request: answer(json.dumps(body).encode())),
    )
    question = {
        "model": "claude-sonnet-4-5",
        "max_tokens": 500,
        "messages": [{"role": "user", "content": "Hello!"}],
    }
    with closing(proxy):  # closing the gateway closes its sinks
        for _ in range(3):
            Client(proxy).post("/v1/messages", json=question, buffered=True)


if __name__ == "__main__":
    main()

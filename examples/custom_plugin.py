"""A plugin of your own: every request belongs to a team, and each team has its models.

The team is named by a header, which stays here and goes into the record instead. In a
file the plugin is configured like any other, once its package says in pyproject.toml:

    [project.entry-points."kongai.plugins"]
    team = "custom_plugin:Team"
"""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import msgspec
from werkzeug.test import Client
from werkzeug.wrappers import Response

from kongai import AIProxy, Exchange, Plugin, Proxy, RequestRejected
from kongai.testing import ListSink, MockTransport, answer


class TeamConfig(msgspec.Struct, frozen=True, kw_only=True):
    models: dict[str, tuple[str, ...]]
    header: str = "x-team"


class Team(Plugin):
    name = "team"
    # Below ai-proxy's 770: by then it has read the body and knows the model.
    priority = 760
    Config = TeamConfig

    def __init__(self, config: TeamConfig) -> None:
        self.config = config

    def access(self, exchange: Exchange) -> Response | None:
        team = exchange.headers.pop(self.config.header, None)
        if team not in self.config.models:
            raise RequestRejected("name a team in the request", status=403)
        exchange.log.set("team", team)
        model = exchange.llm.request_model if exchange.llm else None
        if model is not None and model not in self.config.models[team]:
            raise RequestRejected("this model is not for your team", status=403)
        return None


def ask(proxy: Proxy, model: str, team: str) -> None:
    question: dict[str, Any] = {
        "model": model,
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Hello!"}],
    }
    reply = Client(proxy).post(
        "/v1/messages", json=question, headers={"x-team": team}, buffered=True
    )
    print(team, model, reply.status_code, reply.get_data(as_text=True))


def main() -> None:
    body = {"model": "claude-haiku-4-5", "usage": {"output_tokens": 1}}
    records = ListSink()
    proxy = Proxy(
        plugins=[
            AIProxy(provider="anthropic", llm_format="anthropic"),
            Team(TeamConfig(models={"search": ("claude-haiku-4-5",)})),
        ],
        sinks=[records],
        transport=MockTransport(lambda request: answer(json.dumps(body).encode())),
    )
    with closing(proxy):
        ask(proxy, "claude-haiku-4-5", "search")
        ask(proxy, "claude-opus-4-5", "search")
        ask(proxy, "claude-haiku-4-5", "nobody")
    for record in records:
        print(record.get("team"), record["response"]["status"])


if __name__ == "__main__":
    main()

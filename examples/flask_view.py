"""A gateway behind a Flask view: the application decides who may ask.

The view looks at the request as any other view does, here for a name it knows, and
hands it on. The answer streams through Flask as it comes. To try it, run this file::

    curl http://localhost:5000/ai/v1/models -H 'x-user: ada' -H "x-api-key: $KEY"
"""

from __future__ import annotations

import argparse

from flask import Flask, abort, request
from werkzeug.wrappers import Response

from kongai import AIProxy, FileLog, Proxy, Route

USERS = {"ada", "grace"}


def create_app(proxy: Proxy) -> Flask:
    app = Flask(__name__)

    @app.route("/ai/<path:_>", methods=["GET", "POST"])
    def ai(_: str) -> Response:
        if request.headers.get("x-user") not in USERS:
            abort(403)
        return proxy.handle(request)

    return app


app = create_app(
    Proxy(
        # A view's request still has its whole path: the route takes /ai off.
        routes=[Route(name="ai", paths=("/ai",))],
        plugins=[
            AIProxy(provider="anthropic", llm_format="anthropic"),
            FileLog("/tmp/claude.json"),
        ],
    )
)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=5000)
    app.run(port=parser.parse_args().port)

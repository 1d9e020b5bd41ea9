"""A gateway below a path of a Flask application: everything under /ai is its own.

To try it, run this file, and then::

    ANTHROPIC_BASE_URL=http://localhost:5000/ai claude
"""

from __future__ import annotations

import argparse

from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from kongai import AIProxy, FileLog, Proxy


def create_app(proxy: Proxy) -> Flask:
    app = Flask(__name__)

    @app.get("/")
    def home() -> str:
        return "The gateway is at /ai.\n"

    mounted = DispatcherMiddleware(app.wsgi_app, {"/ai": proxy})
    app.wsgi_app = mounted  # type: ignore[method-assign]
    return app


app = create_app(
    Proxy(
        plugins=[
            AIProxy(provider="anthropic", llm_format="anthropic"),
            FileLog("/tmp/claude.json"),
        ]
    )
)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=5000)
    app.run(port=parser.parse_args().port)

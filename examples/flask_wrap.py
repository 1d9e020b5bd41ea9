"""A gateway in front of a Flask application: what matches no route is Flask's.

The routes are those of kong.yml, so Claude Code finds the gateway at /anything. To
try it, run this file, and then::

    ANTHROPIC_BASE_URL=http://localhost:5000/anything claude
"""

from __future__ import annotations

import argparse
from pathlib import Path

from flask import Flask

from kongai import Proxy

CONFIG = Path(__file__).with_name("kong.yml")


def create_app(config: Path = CONFIG) -> Flask:
    app = Flask(__name__)

    @app.get("/")
    def home() -> str:
        return "The gateway is at /anything.\n"

    wrapped = Proxy.from_file(config, fallback=app.wsgi_app)
    app.wsgi_app = wrapped  # type: ignore[method-assign]
    return app


app = create_app()

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=5000)
    app.run(port=parser.parse_args().port)

"""A server whose gateway itself answers what each request was; to be run as a script.

It says where it listens, then serves until its standard input ends.
"""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import sys  # noqa: E402
import zlib  # noqa: E402

import gevent  # noqa: E402
from gevent.fileobject import FileObject  # noqa: E402
from werkzeug.wrappers import Response  # noqa: E402

from kongai import Plugin, Proxy  # noqa: E402
from kongai.exchange import BodyTooLarge, Exchange  # noqa: E402
from kongai.server import Server  # noqa: E402

LIMIT = 32 * 1024 * 1024


class Echo(Plugin):
    """Tells what it saw, and counts how many whole requests came from each port."""

    name = "echo"
    priority = 1

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}

    def access(self, exchange: Exchange) -> Response:
        target = exchange.request.environ["REQUEST_URI"]
        if target.startswith("/calls?"):
            count = self.calls.pop(target.partition("?")[2], 0)
            return Response(json.dumps(count), mimetype="application/json")
        early = target.startswith("/early")
        try:
            body = b"" if early else exchange.read_body(LIMIT)
        except BodyTooLarge:
            return Response("no", 413, mimetype="text/plain")
        port = exchange.request.environ["REMOTE_PORT"]
        self.calls[port] = self.calls.get(port, 0) + 1
        saw = {
            "method": exchange.request.method,
            "target": target[:100],
            "target_size": len(target),
            "size": len(body),
            "crc": zlib.crc32(body),
        }
        headers = {"X-Saw": json.dumps(saw)}
        return Response("hello", headers=headers, mimetype="text/plain")


def main() -> None:
    server = Server(("127.0.0.1", 0), Proxy(plugins=[Echo()]))
    server.start()
    sys.stdout.write(f"{server.url}\n")
    sys.stdout.flush()
    gevent.spawn(server.serve_forever)
    FileObject(sys.stdin, "r").read()


if __name__ == "__main__":
    main()

"""The commands: `kongai-serve` runs a gateway, those of `kongai` look at its file.

Exit codes: 0 for success, 1 for a file with problems or a port in use, 2 for a wrong
command line or a file that can't be read.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from kongai import body_memory, config, option_values
from kongai._version import __version__
from kongai.errors import ConfigError, whereabouts
from kongai.limits import GRACE_SECONDS, Limits
from kongai.option_values import DEFAULT_HOST, STATUS_PORT
from kongai.plugins.ai_proxy import AIProxy
from kongai.plugins.file_log import FileLog
from kongai.proxy import Proxy

MEBIBYTE = 1024 * 1024
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


@click.group()
@click.version_option(__version__, prog_name="kongai")
def main() -> None:
    """An AI gateway with Kong's configuration. kongai-serve runs it."""


@main.command()
@click.argument("path", metavar="CONFIG", type=click.Path(dir_okay=False))
def check(path: str) -> None:
    """List everything that is wrong with a declarative file.

    Exits with 0 if the file is good, with 1 if it has problems, with 2 if it can't be
    read.
    """
    found, _ = _load(path)
    routes = len(found.routes) + sum(len(s.routes) for s in found.services)
    counts = f"{_counted(len(found.services), 'service')}, {_counted(routes, 'route')}"
    click.echo(f"{path}: {counts}, no problems")


@main.command()
@click.argument("path", metavar="CONFIG", type=click.Path(dir_okay=False))
@click.argument("method")
@click.argument("target", metavar="PATH")
@click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    metavar="NAME:VALUE",
    help="A header of the request; may be repeated.",
)
@click.option("--consumer", help="Who sends the request: a username or an id.")
def explain(
    path: str, method: str, target: str, headers: Sequence[str], consumer: str | None
) -> None:
    """Say what becomes of a request, without sending it.

    PATH has its query, if any, and may be a whole URL. Shown are the route that takes
    the request and why, the upstream's address, the plugins in the order in which they
    run and where each is declared, the limits in force, the routes that would fit, too,
    and those that were passed over.

    Example: kongai explain kong.yml POST /v1/orders -H 'Host: api.example.com'

    Exits with 0 if a route takes the request, with 1 if none does.
    """
    # What only this command needs is not imported for the others.
    from kongai import explain as explaining

    found, proxy = _load(path)
    pairs = []
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            raise click.BadParameter(f"expected NAME:VALUE, not '{header}'")
        pairs.append((name.strip(), value.strip()))
    try:
        asked = explaining.request(method, target, pairs)
    except ValueError as error:
        raise click.BadParameter(f"not a request: {error}") from None
    try:
        told = explaining.Explanation(
            proxy, asked, consumer=consumer, origins=found.origins
        )
    except LookupError:
        _stop(f"there is no consumer '{consumer}' in {path}", 2)
    for line in told.lines():
        click.echo(line)
    sys.exit(0 if told.matched else 1)


@main.command()
def schema() -> None:
    """Print the JSON Schema of a declarative file, for editors.

    It has the settings of every plugin that is installed.
    """
    # Slow to import for a command that is rarely called.
    from kongai.json_schema import schema as file_schema

    click.echo(json.dumps(file_schema(), indent=2))


@click.command()
@click.argument("path", metavar="[CONFIG]", required=False, type=click.Path())
@click.option(
    "--host",
    default=DEFAULT_HOST,
    show_default=True,
    callback=option_values.host,
    help="Address to serve.",
)
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to serve; 0 takes a free one.",
)
@click.option(
    "--workers",
    default="1",
    show_default=True,
    metavar="N",
    callback=option_values.processes,
    help="Processes that serve; `auto` is one for each processor.",
)
@click.option(
    "--status-listen",
    "status",
    default="off",
    show_default=True,
    metavar="[HOST:]PORT",
    callback=option_values.status_address,
    help="Where to serve /status, /status/ready and /healthz; `on` is "
    f"{DEFAULT_HOST}:{STATUS_PORT}.",
)
@click.option(
    "--demo",
    is_flag=True,
    help="Answer from a built-in model that echoes; needs no key and no network.",
)
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(LOG_LEVELS, case_sensitive=False),
    help="What to write to standard error.",
)
@click.option(
    "--grace",
    default=GRACE_SECONDS,
    show_default=True,
    type=option_values.Seconds(0, 1_000_000),
    metavar="SECONDS",
    help="How long running answers may take when the gateway stops.",
)
@click.option(
    "--max-connections",
    "connections",
    default=Limits.connections,
    show_default=True,
    type=click.IntRange(1),
    help="Connections at a time, in each process; no more than half of the descriptors "
    "that it may have.",
)
@click.option(
    "--max-exchanges",
    "exchanges",
    default=Limits.exchanges,
    show_default=True,
    type=click.IntRange(1),
    help="Requests that are answered at a time, in each process; streams above all.",
)
@click.option(
    "--max-body-memory",
    default=body_memory.DEFAULT // MEBIBYTE,
    show_default=True,
    type=click.IntRange(1),
    metavar="MIB",
    help="Request bodies in memory at a time, in each process.",
)
@click.option(
    "--client-header-timeout",
    "head",
    default=Limits.head,
    show_default=True,
    type=option_values.SECONDS,
    metavar="SECONDS",
    help="How long a client may take to send the head of a request.",
)
@click.option(
    "--client-body-timeout",
    "body",
    default=Limits.body,
    show_default=True,
    type=option_values.SECONDS,
    metavar="SECONDS",
    help="How long a client may be silent within a body.",
)
@click.option(
    "--send-timeout",
    "write",
    default=Limits.write,
    show_default=True,
    type=option_values.SECONDS,
    metavar="SECONDS",
    help="How long a client may take nothing of what it is sent.",
)
@click.option(
    "--keepalive-timeout",
    "idle",
    default=Limits.idle,
    show_default=True,
    type=option_values.SECONDS,
    metavar="SECONDS",
    help="How long a connection may be silent between requests.",
)
@click.option(
    "--transport",
    default="socket",
    show_default=True,
    type=click.Choice(("socket", "requests")),
    help="How upstreams are reached: over plain sockets, or by the requests library.",
)
@click.option(
    "--trusted-ips",
    multiple=True,
    default=(),
    callback=lambda context, option, value: option_values.addresses(value),
    help="Peers that are believed about their clients: addresses and networks, several "
    "with commas or by repeating the option.",
)
@click.option(
    "--real-ip-header",
    default="X-Real-IP",
    show_default=True,
    help="The header in which they name the client's address.",
)
@click.option(
    "--real-ip-recursive/--no-real-ip-recursive",
    default=False,
    help="Whether of several addresses there the last that is not trusted counts.",
)
@click.version_option(__version__, prog_name="kongai-serve")
def serve(
    path: str | None,
    host: str,
    port: int,
    workers: int,
    status: tuple[str, int] | None,
    demo: bool,
    log_level: str,
    grace: float,
    max_body_memory: int,
    transport: str,
    trusted_ips: Sequence[str],
    real_ip_header: str,
    real_ip_recursive: bool,
    **limits: Any,
) -> None:
    """Run the AI gateway that CONFIG describes, a Kong declarative file.

    Without CONFIG it is the gateway of Kong's how-to for Claude Code: route /anything
    to Anthropic, each exchange logged to /tmp/claude.json.

    SIGTERM stops it: running answers may end. SIGHUP reads CONFIG anew, SIGUSR1 opens
    the logs anew.
    """
    if demo and path is not None:
        raise click.UsageError("--demo brings its own gateway; leave CONFIG out.")
    if demo and workers > 1:
        raise click.UsageError("--demo is one process; leave --workers out.")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    # Ours alone: urllib3's debug lines quote the query, which may hold a key.
    logging.getLogger("kongai").setLevel(log_level.upper())
    from kongai import serving
    from kongai.server import Server, is_patched

    if not is_patched():
        _stop("start the server with kongai-serve, which patches first", 2)
    upstream = None
    if demo:
        from kongai.testing import EchoLLM

        upstream = Server(("127.0.0.1", 0), EchoLLM())
        upstream.start()
    options = {
        "max_body_memory": max_body_memory * MEBIBYTE,
        "trusted_ips": trusted_ips,
        "real_ip_header": real_ip_header,
        "real_ip_recursive": real_ip_recursive,
    }
    source = serving.Source(
        path,
        options,
        transport=serving.TRANSPORTS[transport],
        upstream_url=upstream.url if upstream else None,
    )
    settings = serving.Settings(
        address=(host, port),
        status=status,
        workers=workers,
        limits=Limits(**limits),
        grace=grace,
    )

    def welcome(url: str, proxy: Proxy) -> None:
        if sys.stdout.isatty():
            click.echo(_welcome(url, proxy, demo=demo))

    try:
        code = serving.serve(source, settings, welcome)
    except ConfigError as error:
        _stop_with_problems(error)
    except OSError as error:
        _stop(f"can't read {path}: {error.strerror}", 2)
    except serving.CantListen as error:
        _stop(str(error), 1)
    except Exception as error:
        # Not a traceback: the texts of exceptions may quote what the file keeps secret.
        _stop(f"can't start: {whereabouts(error)}", 1)
    if upstream is not None:
        upstream.drain(0)
    sys.exit(code)


def _welcome(url: str, proxy: Proxy, *, demo: bool) -> str:
    """What a person at a terminal wants to know once the gateway runs."""
    path = _path_of_ai_proxy(proxy)
    base = url + (path or "").rstrip("/")
    logs = [p.config.path for p in proxy.plugins if isinstance(p, FileLog)]
    lines = [f"kongai {__version__} listens on {url}"]
    lines += [f"Each exchange is a line of JSON in {log}" for log in logs]
    if demo:
        lines += ["A built-in model answers; it echoes. Try it:", "", _CURL % base]
    if path is not None:
        lines += ["", "Point Claude Code at it:", ""]
        lines += [f"  ANTHROPIC_BASE_URL={base} claude"]
    return "\n".join([*lines, "", "Ctrl-C stops it."])


def _path_of_ai_proxy(proxy: Proxy) -> str | None:
    """The first path that leads Claude Code to a model; None if there is none."""
    # What only a person at a terminal needs is not imported for others.
    from kongai import explain as explaining

    for path in (p for route in proxy.routes for p in route.paths or ("/",)):
        if path.startswith("/"):
            asked = explaining.request("POST", f"{path.rstrip('/')}/v1/messages")
            told = explaining.Explanation(proxy, asked)
            if any(isinstance(plugin, AIProxy) for plugin in told.chain()):
                return path
    return None


_CURL = """\
  curl %s/v1/messages -H 'content-type: application/json' \\
    -d '{"model": "claude-sonnet-4-5", "max_tokens": 100,
         "messages": [{"role": "user", "content": "Hello!"}]}'
"""


def _load(path: str) -> tuple[config.Config, Proxy]:
    """The file and its gateway: plugins that don't fit together show only there."""
    try:
        found = config.load_file(path)
        return found, Proxy.from_config(found)
    except ConfigError as error:
        _stop_with_problems(ConfigError(error.problems, path))
    except OSError as error:
        _stop(f"can't read {path}: {error.strerror}", 2)


def _stop_with_problems(error: ConfigError) -> NoReturn:
    for line in error.lines():
        click.echo(line, err=True)
    sys.exit(1)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _stop(message: str, code: int) -> NoReturn:
    click.echo(f"kongai: {message}", err=True)
    sys.exit(code)

"""The environment that the gateway is started in: it has no say in where requests go,
with which credentials, and whom it trusts.

Tools and libraries heed these variables; in a gateway each of them would put somebody
else's address, credential or authority into its users' exchanges.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import KEY, Line, exchange
from .harness import LOG_PATH, Gateway
from .tls_front import CERTIFICATES, Front
from .upstream import Connection, FakeUpstream, Request

AUTHORITY = CERTIFICATES / "authority.pem"
# The name under which OpenSSL looks for it in a directory: `openssl x509 -hash`.
AUTHORITY_HASH = "5b545f4c"
AUTHORITY_ID = "00000000-0000-4000-8000-000000000000"
ROUTES = ("http", "trusted", "untrusted")


def config(port: int, tls_port: int) -> str:
    """A service over HTTP, one over TLS, and one whose authority nobody named."""
    urls = (f"http://localhost:{port}", *[f"https://localhost:{tls_port}"] * 2)
    services = [
        {
            "name": name,
            "url": url,
            "retries": 0,
            "routes": [{"name": name, "paths": [f"/{name}"]}],
        }
        for name, url in zip(ROUTES, urls, strict=True)
    ]
    services[1]["ca_certificates"] = [AUTHORITY_ID]
    return json.dumps(
        {
            "_format_version": "3.0",
            "ca_certificates": [
                {"id": AUTHORITY_ID, "cert": AUTHORITY.read_text("ascii")}
            ],
            "services": services,
            "plugins": [{"name": "file-log", "config": {"path": LOG_PATH}}],
        }
    )


def echo(request: Request, connection: Connection) -> None:
    connection.respond(200, body=json.dumps(request.headers).encode())


@contextmanager
def running(env: Mapping[str, str]) -> Iterator[Line]:
    with FakeUpstream(echo) as upstream, Front(upstream.port) as front:
        with Gateway(config(upstream.port, front.port), env=env) as gateway:
            yield Line(gateway, upstream)
        assert upstream.errors == []


def proxied(port: int) -> dict[str, str]:
    url = f"http://user:password@127.0.0.1:{port}"
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY")
    both = {n: url for name in names for n in (name, name.lower())}
    return {**both, "NO_PROXY": "", "no_proxy": ""}


def with_netrc(home: Path) -> dict[str, str]:
    netrc = home / ".netrc"
    netrc.write_text(
        "machine localhost login user password pass\ndefault login user password pass\n"
    )
    netrc.chmod(0o600)
    return {"HOME": str(home), "NETRC": str(netrc)}


def trusting(folder: Path) -> dict[str, str]:
    (folder / f"{AUTHORITY_HASH}.0").write_bytes(AUTHORITY.read_bytes())
    files = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    return {**dict.fromkeys(files, str(AUTHORITY)), "SSL_CERT_DIR": str(folder)}


def trusting_nobody(folder: Path) -> dict[str, str]:
    (folder / "empty").write_bytes(b"")
    return dict.fromkeys(trusting(folder), str(folder / "empty"))


@pytest.mark.parametrize("trust", [trusting, trusting_nobody])
def test_the_environment_has_no_say(trust: object, tmp_path: Path) -> None:
    assert callable(trust)
    strangers: list[Request] = []

    def note(request: Request, connection: Connection) -> None:
        strangers.append(request)
        connection.respond(200)

    folders = [tmp_path / name for name in ("home", "trust", "keys")]
    for folder in folders:
        folder.mkdir()
    home, authorities, keys = folders
    with FakeUpstream(note) as proxy:
        env = {
            **proxied(proxy.port),
            **with_netrc(home),
            **trust(authorities),
            "SSLKEYLOGFILE": str(keys / "keys"),
        }
        with running(env) as line:
            for own in ([], [("authorization", f"Bearer {KEY}")]):
                for route in ("http", "trusted"):
                    connection = line.connect()
                    answer = exchange(connection, "GET", f"/{route}", b"", own)
                    connection.close()
                    assert answer.status == 200
                    seen = [
                        value
                        for name, value in answer.json()
                        if "auth" in name.lower() or "cookie" in name.lower()
                    ]
                    assert seen == [value for _, value in own]
                    assert line.record(answer)["kongai"]["ended"] == "ok"
            connection = line.connect()
            answer = exchange(connection, "GET", "/untrusted", b"", [])
            connection.close()
            assert answer.status == 502
            assert line.record(answer)["kongai"]["ended"] == "tls"
            assert len(line.upstream.requests) == 4
            assert line.gateway.stderr_text().count("\n") == 1
    assert proxy.connections == []
    assert strangers == []
    # Older versions of requests open the file, and write nothing but a comment.
    assert not any(b"CLIENT_" in path.read_bytes() for path in keys.iterdir())

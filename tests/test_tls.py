from __future__ import annotations

import json
import logging
import socket
import ssl
import stat
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from werkzeug.test import Client

from kongai import Proxy, Route, Service
from kongai.config import load_text
from kongai.entities import CACertificate, Certificate, Target, Upstream
from kongai.errors import UpstreamError
from kongai.exchange import UpstreamRequest
from kongai.testing import ListSink
from kongai.tls import TLS, check_depth, tls_context
from kongai.transport import Transport
from tests.conftest import TransportClass
from tests.live.ports import Listener

# Good for nothing but these tests. `server.pem` is for `localhost` and signed by the
# authority, `far.pem` likewise with one certificate between them.
FILES = Path(__file__).parent / "certificates"
PEM = {path.name: path.read_text("utf-8") for path in FILES.iterdir()}
AUTHORITY = CACertificate(cert=PEM["authority.pem"], id="authority")
OTHER = CACertificate(cert=PEM["other.pem"], id="other")
CLIENT = Certificate(cert=PEM["client.pem"], key=PEM["client.key"], id="client")
SECRETS = [
    line
    for name, pem in PEM.items()
    if name.endswith(".key")
    for line in pem.splitlines()[1:-1]
]
pytestmark = pytest.mark.filterwarnings(
    "ignore::urllib3.exceptions.InsecureRequestWarning"
)


@contextmanager
def tls_server(
    certificate: str = "server.pem",
    *,
    demands: bool = False,
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> Iterator[int]:
    """A port whose answers say which connection they came over, and who asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = newest
    context.load_cert_chain(FILES / certificate)
    context.load_verify_locations(FILES / "authority.pem")
    context.verify_mode = ssl.CERT_REQUIRED if demands else ssl.CERT_OPTIONAL

    def answer(plain: socket.socket, number: int) -> None:
        try:
            with context.wrap_socket(plain, server_side=True) as sock:
                socks.append(sock)
                shown: Any = sock.getpeercert() or {"subject": [[("", None)]]}
                [[(_, client)]] = shown["subject"]
                body = json.dumps({"connection": number, "client": client}).encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
                while sock.recv(65536):
                    sock.sendall(head.encode() + body)
        except OSError:
            plain.close()  # one of the sides does not trust the other

    def accepted(plain: socket.socket) -> None:
        arguments = (plain, len(threads) + 1)
        threads.append(threading.Thread(target=answer, args=arguments, daemon=True))
        threads[-1].start()

    socks: list[ssl.SSLSocket] = []
    threads: list[threading.Thread] = []
    try:
        with Listener(accepted) as listener:
            yield listener.port
    finally:
        for sock in socks:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)
            assert not thread.is_alive()


@pytest.fixture
def sender(transport_class: TransportClass) -> Iterator[Transport]:
    made = transport_class()
    yield made
    made.close()


def asking(port: int, host: str = "localhost", **fields: Any) -> UpstreamRequest:
    """What is sent to a service with some fields."""
    service = Service(protocol="https", host=host, port=port, **fields)
    return UpstreamRequest(
        method="GET",
        scheme="https",
        host=host,
        port=port,
        target="/",
        headers=[("Host", "a")],
        read_timeout=5,
        verify=service.tls_verify is not False,
        tls=TLS.of(service),
    )


def ask(sender: Transport, port: int, **fields: Any) -> dict[str, Any]:
    """The answer's own account of how it was asked."""
    response = sender.send(asking(port, **fields))
    try:
        found: dict[str, Any] = json.loads(b"".join(response.chunks))
    finally:
        response.close()
    return found


def refuse(sender: Transport, port: int, **fields: Any) -> UpstreamError:
    """It does not come to an exchange, and trying again would be in vain."""
    with pytest.raises(UpstreamError) as caught:
        sender.send(asking(port, **fields))
    error = caught.value
    assert (error.status, error.ended) == (502, "tls")
    assert not error.sent
    assert error.hopeless
    return error


# Who may vouch


def test_only_the_authorities_that_are_given_may_vouch(
    sender: Transport,
) -> None:
    with tls_server() as port:
        assert ask(sender, port, ca_certificates=[AUTHORITY])["client"] is None
        assert ask(sender, port, ca_certificates=[OTHER, AUTHORITY])
        for others in ([OTHER], [], None):
            refuse(sender, port, ca_certificates=others)


def test_those_that_are_generally_trusted_are_not_where_some_are_given() -> None:
    def trusted(tls: TLS) -> list[bytes]:
        return tls_context(True, tls).get_ca_certs(binary_form=True)

    assert len(trusted(TLS())) > 10
    only = trusted(TLS(authorities=(AUTHORITY.cert,)))
    assert only == [ssl.PEM_cert_to_DER_cert(AUTHORITY.cert)]
    assert trusted(TLS(authorities=())) == []


def test_notes_between_certificates_do_no_harm(sender: Transport) -> None:
    noted = CACertificate(cert=f"Für alle Fälle:\n{AUTHORITY.cert}\nEnde.\n")
    with tls_server() as port:
        assert ask(sender, port, ca_certificates=[noted])


def test_a_name_is_verified_whoever_vouches(sender: Transport) -> None:
    with tls_server() as port:
        refuse(sender, port, host="127.0.0.1", ca_certificates=[AUTHORITY])


@pytest.mark.parametrize("authorities", [None, [], [OTHER]])
def test_without_verification_any_certificate_will_do(
    authorities: list[CACertificate] | None, sender: Transport
) -> None:
    with tls_server("far.pem") as port:
        for host in ("localhost", "127.0.0.1"):
            assert ask(
                sender,
                port,
                host=host,
                tls_verify=False,
                tls_verify_depth=0,
                ca_certificates=authorities,
            )


@pytest.mark.parametrize(
    ("certificate", "between"), [("server.pem", 0), ("far.pem", 1)]
)
def test_only_so_many_may_stand_between(
    certificate: str, between: int, sender: Transport
) -> None:
    with tls_server(certificate) as port:
        for depth in (None, *range(between, 3), 64):
            asked = {"ca_certificates": [AUTHORITY], "tls_verify_depth": depth}
            assert ask(sender, port, **asked)
            assert ask(sender, port, **asked)
        for depth in range(between):
            refuse(sender, port, ca_certificates=[AUTHORITY], tls_verify_depth=depth)


def test_the_depth_is_that_of_tls_inside_of_tls_too() -> None:
    """As behind a proxy that is spoken to over TLS itself."""
    from urllib3.util.ssltransport import SSLTransport

    context = tls_context(True, TLS(authorities=(AUTHORITY.cert,)))
    with (
        tls_server("far.pem") as port,
        socket.create_connection(("127.0.0.1", port)) as plain,
    ):
        inside = SSLTransport(plain, context, server_hostname="localhost")
        check_depth(inside, 1)
        with pytest.raises(ssl.SSLCertVerificationError):
            check_depth(inside, 0)


# What is shown


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_service_that_asks_is_shown_the_certificate(
    newest: ssl.TLSVersion, sender: Transport
) -> None:
    with tls_server(demands=True, newest=newest) as port:
        asked = {"ca_certificates": [AUTHORITY]}
        found = ask(sender, port, **asked, client_certificate=CLIENT)
        assert found["client"] == "the gateway"
        with pytest.raises(UpstreamError) as caught:
            sender.send(asking(port, **asked))
        assert (caught.value.status, caught.value.ended) == (502, "tls")


@pytest.mark.parametrize(
    ("cert", "key"),
    [
        (PEM["client.pem"], PEM["client-locked.key"]),
        (PEM["client.pem"], PEM["server.pem"]),
        (PEM["client.pem"], PEM["client.key"].replace("M", "N")),
        (PEM["client.pem"].replace("M", "N"), PEM["client.key"]),
        ("", PEM["client.key"]),
        (PEM["client.pem"], ""),
    ],
    ids=[
        *("a passphrase", "another's key", "a broken key"),
        *("a broken certificate", "no certificate", "no key"),
    ],
)
@pytest.mark.parametrize("verify", [None, False])
def test_what_openssl_takes_not_is_shown_to_nobody(
    cert: str,
    key: str,
    verify: bool | None,
    sender: Transport,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    certificate = Certificate(cert=cert, key=key)
    with tls_server() as port:
        error = refuse(sender, port, client_certificate=certificate, tls_verify=verify)
    told = "".join(traceback.format_exception(error)) + caplog.text + repr(error)
    told += "".join(capfd.readouterr())
    assert not [secret for secret in SECRETS if secret in told]


def test_a_key_is_in_a_file_for_the_owner_only_and_no_longer_than_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    modes = []
    load = ssl.SSLContext.load_cert_chain

    def looking(context: ssl.SSLContext, *args: Any, **options: Any) -> None:
        modes.extend(stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir())
        load(context, *args, **options)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", looking)
    tls_context(True, TLS(certificate=CLIENT.cert, key=CLIENT.key))
    with pytest.raises(ssl.SSLError):
        tls_context(True, TLS(certificate=CLIENT.cert, key="no key"))
    assert modes == [0o600] * 4
    assert not [*tmp_path.iterdir()]


def test_no_text_of_ours_has_a_key() -> None:
    request = asking(1, client_certificate=CLIENT, ca_certificates=[AUTHORITY])
    for shown in (request, request.tls, CLIENT):
        assert CLIENT.key.splitlines()[1] not in repr(shown)
    assert "BEGIN" not in repr(request)


# Whose connections


@pytest.mark.parametrize(
    "other",
    [
        {"ca_certificates": [AUTHORITY, OTHER]},
        {"ca_certificates": [AUTHORITY], "client_certificate": CLIENT},
        {"ca_certificates": [AUTHORITY], "tls_verify_depth": 1},
        {"ca_certificates": [AUTHORITY], "tls_verify": False},
    ],
    ids=["authorities", "certificate", "depth", "verification"],
)
def test_services_with_other_settings_share_no_connection(
    other: dict[str, Any], sender: Transport
) -> None:
    """Else one would be served over what the other trusts, or in its name."""
    one: dict[str, Any] = {"ca_certificates": [AUTHORITY]}
    with tls_server() as port:
        first = [ask(sender, port, **fields) for fields in (one, other)]
        again = [ask(sender, port, **fields) for fields in (one, other)]
    assert first == again
    assert first[0]["connection"] != first[1]["connection"]


def test_equal_settings_share_connections(sender: Transport) -> None:
    """Each a setting of its own: a file may be loaded again, or a service be there
    twice."""
    with tls_server() as port:
        found = [
            ask(
                sender,
                port,
                ca_certificates=[CACertificate(cert="".join(AUTHORITY.cert))],
                client_certificate=Certificate(cert=CLIENT.cert, key=CLIENT.key),
                tls_verify_depth=3,
            )
            for _ in range(3)
        ]
    assert [answer["connection"] for answer in found] == [1, 1, 1]


# The gateway


def test_a_service_nobody_vouches_for_is_a_bad_gateway(
    sender: Transport,
) -> None:
    records = ListSink()
    with tls_server() as port:
        service = Service(f"https://localhost:{port}", routes=[Route(paths=["/"])])
        proxy = Proxy([service], transport=sender, sinks=[records])
        response = Client(proxy).get("/", buffered=True)
    [record] = records
    assert response.status_code == 502
    assert record["kongai"]["ended"] == "tls"
    assert len(record["tries"]) == 1


# From a file


FILE = """
_format_version: "3.0"
ca_certificates:
- {id: 11111111-1111-4111-8111-111111111111, cert: AUTHORITY}
certificates:
- {id: 22222222-2222-4222-8222-222222222222, cert: CLIENT, key: KEY}
upstreams:
- name: pool
  host_header: localhost
  targets: [{target: "127.0.0.1:PORT"}]
services:
- name: s
  url: https://localhost:PORT
  client_certificate: {id: 22222222-2222-4222-8222-222222222222}
  ca_certificates: [11111111-1111-4111-8111-111111111111]
  routes: [{name: r, paths: [/s]}]
- name: pooled
  host: pool
  protocol: https
  client_certificate: 22222222-2222-4222-8222-222222222222
  ca_certificates: [11111111-1111-4111-8111-111111111111]
  routes: [{name: pooled, paths: [/pooled]}]
- name: stranger
  url: https://localhost:PORT
  client_certificate: 22222222-2222-4222-8222-222222222222
  routes: [{name: stranger, paths: [/stranger]}]
"""


def test_what_a_file_says_of_certificates_holds() -> None:
    sink = ListSink()
    with tls_server(demands=True) as port:
        text = FILE.replace("PORT", str(port))
        for name, file in (
            ("AUTHORITY", "authority.pem"),
            ("CLIENT", "client.pem"),
            ("KEY", "client.key"),
        ):
            text = text.replace(f": {name}", f": {json.dumps(PEM[file])}")
        proxy = Proxy.from_config(load_text(text), sinks=[sink])
        for path in ("/s", "/pooled"):
            answer = Client(proxy).get(path, buffered=True)
            assert (path, answer.status_code) == (path, 200)
            assert json.loads(answer.data)["client"] == "the gateway"
        assert Client(proxy).get("/stranger", buffered=True).status_code == 502
        proxy.close()
    assert [record["kongai"]["ended"] for record in sink] == ["ok", "ok", "tls"]
    assert sink[0]["service"]["client_certificate"] == {
        "id": "22222222-2222-4222-8222-222222222222"
    }
    assert not any(secret in json.dumps(sink) for secret in SECRETS)


def test_a_name_that_targets_go_by_is_the_one_that_is_verified() -> None:
    wrong = Upstream(
        name="pool", host_header="elsewhere.example", targets=[Target(target="h:1")]
    )
    with tls_server() as port:
        pool = [Target(target=f"127.0.0.1:{port}")]
        upstream = msgspec.structs.replace(wrong, targets=pool)
        service = Service(
            host="pool",
            protocol="https",
            ca_certificates=[CACertificate(cert=PEM["authority.pem"])],
            routes=[Route(paths=["/"])],
        )
        for name, status in (("elsewhere.example", 502), ("localhost", 200)):
            named = msgspec.structs.replace(upstream, host_header=name)
            proxy = Proxy([service], upstreams=[named])
            assert Client(proxy).get("/").status_code == status
            proxy.close()

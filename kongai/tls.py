"""What a service says of TLS: who may vouch for it, and what it is shown of us."""

from __future__ import annotations

import os
import ssl
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import certifi

from kongai.entities.certificate import certificates_in

if TYPE_CHECKING:
    from kongai.entities import Service


@dataclass(frozen=True, slots=True)
class TLS:
    """How connections to an upstream are secured; equal ones may share connections.

    Its `repr` shows no certificate and no key.
    """

    authorities: tuple[str, ...] | None = field(default=None, repr=False)
    """The certificates of those that may vouch for the upstream, each in PEM; None for
    those that are generally trusted."""
    certificate: str | None = field(default=None, repr=False)
    """What an upstream that asks for it is shown, with those that vouch for it, in
    PEM; nothing when None."""
    key: str | None = field(default=None, repr=False)
    """The private key of `certificate`, in PEM."""
    name: str | None = None
    """What the upstream's certificate has to be for, where that is not its address."""
    depth: int | None = None
    """How many certificates may stand between the upstream's and the authority's."""

    @classmethod
    def of(cls, service: Service) -> TLS:
        """The settings of a service."""
        authorities, shown = service.ca_certificates, service.client_certificate
        if authorities is None and shown is None and service.tls_verify_depth is None:
            return USUAL
        return cls(
            authorities=(
                None if authorities is None else tuple(ca.cert for ca in authorities)
            ),
            certificate=None if shown is None else shown.cert,
            key=None if shown is None else shown.key,
            depth=service.tls_verify_depth,
        )


USUAL = TLS()
"""The authorities that are generally trusted, and nothing to show."""


def tls_context(verify: bool | str, tls: TLS = USUAL) -> ssl.SSLContext:
    """A client's TLS context that trusts the authorities that Mozilla does.

    Args:
        verify: whether to verify certificates, or the path of a CA bundle.
        tls: authorities in place of these, and what servers are shown. The depth is
            the connection's business: see `check_depth`.

    Raises:
        OSError: OpenSSL takes a certificate or key not, or there is no such file.
    """
    return client_context(certifi.where() if verify is True else verify, tls)


def client_context(authorities: str | Literal[False], tls: TLS) -> ssl.SSLContext:
    """A context for connections to an upstream.

    Args:
        authorities: the file of those that are trusted; False for no verification.
        tls: authorities in place of these, and what servers are shown.

    Raises:
        OSError: OpenSSL takes a certificate or key not, or there is no such file.
    """
    context = _bare_context()
    if authorities is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.authorities is not None:
        trust(context, tls.authorities)
    else:
        context.load_verify_locations(authorities)
    if tls.certificate is not None and tls.key is not None:
        show(context, tls.certificate, tls.key)
    return context


def _bare_context() -> ssl.SSLContext:
    """A context with urllib3's settings, but without its heed of SSLKEYLOGFILE.

    Who sets that variable would be given the keys to all that passes here.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET
    context.post_handshake_auth = True
    context.hostname_checks_common_name = False
    if sys.version_info >= (3, 13):
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    return context


def trust(context: ssl.SSLContext, authorities: tuple[str, ...]) -> None:
    """Add authorities to those that a context trusts.

    Args:
        context: a client's context.
        authorities: certificates in PEM.

    Raises:
        ssl.SSLError: one of them is not a certificate.
    """
    for pem in authorities:
        # The texts may have notes between the certificates, which OpenSSL takes only
        # in ASCII.
        for certificate in certificates_in(pem):
            context.load_verify_locations(cadata=certificate)


def show(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Have a context show a certificate to servers that ask for one.

    Python loads them from files only; these are the owner's alone, and gone at once.

    Args:
        context: a client's context.
        certificate: the certificate, then those that vouch for it, in PEM.
        key: its private key, in PEM.

    Raises:
        OSError: OpenSSL takes them not, or there is no room for the files.
    """
    with _in_file(certificate) as certificate_file, _in_file(key) as key_file:
        # A passphrase, for OpenSSL would ask the terminal for it and wait.
        context.load_cert_chain(certificate_file, key_file, password="")


@contextmanager
def _in_file(text: str) -> Iterator[str]:
    """A file with a text, readable for its owner only, as long as it is needed."""
    descriptor, path = tempfile.mkstemp()
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        yield path
    finally:
        os.unlink(path)


def check_depth(sock: Any, depth: int) -> None:
    """Refuse a connection whose upstream is vouched for by too many in a row.

    OpenSSL would count by itself, but Python has no way to tell it the limit.

    Args:
        sock: a connection with a verified certificate, an `ssl.SSLSocket` or urllib3's
            TLS inside of TLS.
        depth: how many certificates may stand between the upstream's and the
            authority's.

    Raises:
        ssl.SSLCertVerificationError: there are more.
    """
    # Public from Python 3.13 on only, and there since 3.10.
    chain = getattr(sock, "sslobj", sock)._sslobj.get_verified_chain()
    if len(chain) - 2 > depth:
        raise ssl.SSLCertVerificationError("certificate chain too long")


def drop_half_made(error: BaseException) -> None:
    """Close the socket of a connection for which no TLS could be made.

    A socket that is reset just then ends the making of the one that was to take its
    descriptor over, and has. Nobody knows that one but the frames that the error still
    holds; they would keep it open as long as the error is kept.

    Args:
        error: what the making ended with.
    """
    traceback.clear_frames(error.__traceback__)

"""Certificates: what a service shows of the gateway, and whom it is to be signed by."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator, Sequence
from typing import ClassVar

import msgspec

from kongai.entities.types import Tags, Timestamp

_BEGIN = "-----BEGIN CERTIFICATE-----"
_END = "-----END CERTIFICATE-----"


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate with its private key, for services that ask for one.

    Args:
        cert: the certificate and those that vouch for it, in PEM.
        key: the private key, in PEM, without a passphrase.
    """

    REFERENCEABLE: ClassVar[frozenset[str]] = frozenset({"cert", "key"})
    NOT_HERE: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("cert_alt", "key_alt"), "one certificate is enough"),
        "snis": "kongai serves no TLS itself",
        "passphrase": "keys with a passphrase are not available",
    }

    cert: str
    key: str
    tags: Tags | None = None
    id: str | None = None
    created_at: Timestamp | None = None
    updated_at: Timestamp | None = None

    def __repr__(self) -> str:
        return f"Certificate(id={self.id!r})"

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the whole: pairs of a field's path and the text."""
        if not certificates_in(self.cert):
            yield "cert", "invalid certificate: expected PEM text"
        if "PRIVATE KEY-----" not in self.key:
            yield "key", "invalid key: expected PEM text"


class CACertificate(msgspec.Struct, frozen=True, kw_only=True):
    """The certificate of an authority that may vouch for services.

    Args:
        cert: the one certificate, in PEM.
        cert_digest: SHA-256 of the certificate; made from it when not given.
    """

    cert: str
    cert_digest: str | None = None
    tags: Tags | None = None
    id: str | None = None
    created_at: Timestamp | None = None
    updated_at: Timestamp | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong with the whole: pairs of a field's path and the text."""
        found = certificates_in(self.cert)
        if not found:
            yield "cert", "invalid certificate: expected PEM text"
        elif len(found) > 1:
            yield "cert", "please submit only one certificate at a time"
        elif self.cert_digest not in (None, hashlib.sha256(found[0]).hexdigest()):
            yield "cert_digest", "cert_digest does not match digest of public key"


def certificates_in(pem: str) -> Sequence[bytes]:
    """The certificates in a PEM text, each as DER; none if it can't be read."""
    found = []
    for piece in pem.split(_BEGIN)[1:]:
        body, end, _ = piece.partition(_END)
        if not end:
            return ()
        try:
            found.append(ssl.PEM_cert_to_DER_cert(f"{_BEGIN}{body}{_END}"))
        except ValueError:
            return ()
    return found

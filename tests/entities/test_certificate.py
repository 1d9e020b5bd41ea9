from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

import pytest
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from kongai.entities import CACertificate, Certificate

_END = "-----END CERTIFICATE-----\n"
_BUNDLE = Path(DEFAULT_CA_BUNDLE_PATH).read_text("ascii").split(_END)
ONE, OTHER = (
    piece[piece.index("-----BEGIN CERTIFICATE-----") :] + _END for piece in _BUNDLE[:2]
)
KEY = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"


def test_a_certificate_may_bring_those_that_vouch_for_it() -> None:
    assert list(Certificate(cert=ONE + OTHER, key=KEY).problems()) == []


@pytest.mark.parametrize(
    "cert", ["x", "-----BEGIN CERTIFICATE-----", ONE.replace("-----END", "-----EN")]
)
def test_a_certificate_is_pem(cert: str) -> None:
    expected = [("cert", "invalid certificate: expected PEM text")]
    assert list(Certificate(cert=cert, key=KEY).problems()) == expected
    assert list(CACertificate(cert=cert).problems()) == expected


def test_a_key_is_pem() -> None:
    problems = list(Certificate(cert=ONE, key="the secret").problems())
    assert problems == [("key", "invalid key: expected PEM text")]


def test_a_key_shows_nowhere() -> None:
    made = Certificate(cert=ONE, key=KEY, id="its id")
    assert "its id" in repr(made)
    assert "c2VjcmV0" not in repr(made)


def test_an_authority_is_one_certificate() -> None:
    problems = list(CACertificate(cert=ONE + OTHER).problems())
    assert problems == [("cert", "please submit only one certificate at a time")]


def test_a_digest_is_the_certificates_own() -> None:
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(ONE)).hexdigest()
    assert list(CACertificate(cert=ONE, cert_digest=digest).problems()) == []
    problems = list(CACertificate(cert=OTHER, cert_digest=digest).problems())
    text = "cert_digest does not match digest of public key"
    assert problems == [("cert_digest", text)]

from __future__ import annotations

import pytest
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from kongai.incoming import objection, tls_name


@pytest.mark.parametrize(
    ("target", "status"),
    [
        *((good, None) for good in ("/", "/a/..", "/a/./b", "/a?b=%zz&c=/../..")),
        *((good, None) for good in ("/...", "/..a", "/a..", "/%25", "/%2541", "//a")),
        *((good, None) for good in ("/a#%", "/a/%2e%2e/b", "*", "/a/b/../..")),
        *(
            (bad, 400)
            for bad in ("/..", "/../a", "/a/../..", "/a/../../b/c", "/a//../..")
        ),
        *((bad, 400) for bad in ("/%2e%2E", "/a/..%2f..%2f", "/./..", "/%2f..")),
        *((bad, 400) for bad in ("/%", "/a%2", "/a%zz?b", "/%00", "/a%%41")),
    ],
)
def test_a_path_is_refused_that_is_broken_or_leaves_its_root(
    target: str, status: int | None
) -> None:
    refusal = objection("GET", target)
    assert (refusal and refusal.status) == status


def test_trace_is_not_for_gateways() -> None:
    refusal = objection("TRACE", "/")
    assert refusal is not None
    assert (refusal.status, refusal.message) == (405, "Method not allowed")


@pytest.mark.parametrize(
    ("scheme", "environ", "name"),
    [
        ("http", {"SSL_TLS_SNI": "a.example"}, None),
        ("https", {"SSL_TLS_SNI": "a.example"}, "a.example"),
        ("https", {}, ""),
    ],
)
def test_the_name_of_the_handshake_is_the_servers_word(
    scheme: str, environ: dict[str, str], name: str | None
) -> None:
    builder = EnvironBuilder(base_url=f"{scheme}://h/", environ_overrides=environ)
    assert tls_name(Request(builder.get_environ())) == name

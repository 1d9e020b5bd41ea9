from __future__ import annotations

import pytest

from kongai.entities import Service
from kongai.entities.service import url_parts


@pytest.mark.parametrize(
    ("url", "protocol", "host", "port", "path"),
    [
        ("http://h", "http", "h", 80, None),
        ("https://h", "https", "h", 443, None),
        ("http://h/", "http", "h", 80, "/"),
        ("http://h:443/p", "http", "h", 443, "/p"),
        ("https://h:80", "https", "h", 80, None),
        ("HTTP://H.Example/P", "http", "h.example", 80, "/P"),
        ("http://user:pass@h:81/p?q=1", "http", "h", 81, "/p"),
        ("http://[::1]:8000/p", "http", "::1", 8000, "/p"),
    ],
)
def test_a_url_is_short_for_four_fields(
    url: str, protocol: str, host: str, port: int, path: str | None
) -> None:
    assert url_parts(url) == {
        "protocol": protocol,
        "host": host,
        "port": port,
        "path": path,
    }
    service = Service(url)
    assert (service.protocol, service.host, service.port, service.path) == (
        protocol,
        host,
        port,
        path,
    )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h",
        "h:80",
        "/p",
        "///p",
        "ftp://h",
        " http://h",
        "http://",
        "http:///p",
        "http://[::1",
    ]
    + ["http://h:x", "http://h:99999"],
)
def test_what_is_no_url_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ValueError, match="^expected an http or https URL with a host$"):
        Service(url=url)


@pytest.mark.parametrize(
    ("service", "problems"),
    [
        (Service(host="h", path="/a"), []),
        (Service(host="h:80"), [("host", "must not have a port")]),
        (Service(host="h", path="/a//"), [("path", "must not have empty segments")]),
        (Service("https://h", tls_verify=True, tls_verify_depth=1), []),
        (
            Service("http://h", tls_verify=True, tls_verify_depth=1),
            [
                ("", "failed conditional validation given value of field 'protocol'"),
                ("tls_verify", "value must be null"),
                ("tls_verify_depth", "value must be null"),
            ],
        ),
    ],
)
def test_what_a_service_may_not_be(
    service: Service, problems: list[tuple[str, str]]
) -> None:
    assert list(service.problems()) == problems

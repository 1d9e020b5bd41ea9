from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import pytest
from werkzeug.datastructures import Headers

from kongai.error_bodies import accepted, error_body
from kongai.errors import (
    BodyIncomplete,
    GatewayError,
    NoRouteMatched,
    Refused,
    RequestRejected,
    UpstreamError,
    UpstreamTimeout,
)

ID = "0123456789abcdef0123456789abcdef"
JSON, PLAIN = "application/json", "text/plain"
HTML, XML = "text/html", "application/xml"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("image/png", JSON),
        ("nonsense", JSON),
        ("application/*", JSON),
        ("application/problem+json", JSON),
        ("Text/HTML", HTML),
        ("text/*", PLAIN),
        ("text/html, text/plain", HTML),
        ("text/html;q=0.1, application/xml", XML),
        ("text/html;level=1;q=0.3, text/plain;q=0.4", PLAIN),
        ("text/html;q=0.5, */*;q=0.1", HTML),
        ("application/json;q=0", JSON),
        ("text/html;q=2, text/plain;q=0.5", PLAIN),
        ("text/html;q=x, text/plain;q=0.5", PLAIN),
        # What is liked best decides, even if it is not to be had.
        ("image/png, text/html;q=0.9", JSON),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", HTML),
    ],
)
def test_the_form_is_the_one_the_client_likes_best(
    accept: str | None, kind: str
) -> None:
    found, _ = error_body("no", ID, accept)
    assert found == f"{kind}; charset=utf-8"


def test_the_forms_are_kongs_to_the_letter() -> None:
    bodies = {kind: error_body("no", ID, kind)[1].decode() for kind in (JSON, PLAIN)}
    assert bodies[JSON] == f'{{\n  "message":"no",\n  "request_id":"{ID}"\n}}'
    assert bodies[PLAIN] == f"no\nrequest_id: {ID}\n"
    assert error_body("no", ID, HTML)[1].decode().split("\n") == [
        "<!doctype html>",
        "<html>",
        "  <head>",
        '    <meta charset="utf-8">',
        "    <title>Error</title>",
        "  </head>",
        "  <body>",
        "    <h1>Error</h1>",
        "    <p>no.</p>",
        f"    <p>request_id: {ID}</p>",
        "  </body>",
        "</html>",
        "",
    ]
    assert error_body("no", ID, XML)[1].decode().split("\n") == [
        '<?xml version="1.0" encoding="UTF-8"?>',
        "<error>",
        "  <message>no</message>",
        f"  <requestid>{ID}</requestid>",
        "</error>",
        "",
    ]


def test_grpc_has_no_body() -> None:
    assert error_body("no", ID, "application/grpc") == (None, b"")


@pytest.mark.parametrize("message", ['<script>"&', "]]>", "café 世"])
def test_any_message_is_safe_in_every_form(message: str) -> None:
    assert json.loads(error_body(message, ID, JSON)[1])["message"] == message
    root = ElementTree.fromstring(error_body(message, ID, XML)[1])
    assert root.findtext("message") == message
    assert b"<script>" not in error_body(message, ID, HTML)[1]


@pytest.mark.parametrize(
    "error",
    [
        UpstreamError(),
        UpstreamTimeout(),
        GatewayError(),
        Refused("Bad request"),
        BodyIncomplete(),
    ],
)
def test_what_nginx_says_in_kong_is_plain_text_unless_something_else_is_known(
    error: GatewayError,
) -> None:
    assert accepted(Headers(), error) == "text/plain"
    assert accepted(Headers({"Content-Type": JSON}), error) == JSON
    both = Headers({"Content-Type": JSON, "Accept": HTML})
    assert accepted(both, error) == HTML


@pytest.mark.parametrize(
    "error",
    [
        NoRouteMatched(),
        RequestRejected("no", status=401),
        GatewayError("no", status=429),
        UpstreamError("name resolution failed", status=503),
    ],
)
def test_what_kong_says_itself_is_json_unless_the_client_likes_another(
    error: GatewayError,
) -> None:
    assert accepted(Headers({"Content-Type": HTML}), error) is None
    assert accepted(Headers({"Accept": HTML}), error) == HTML

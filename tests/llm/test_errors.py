from __future__ import annotations

import pytest

from kongai.llm.errors import plain_message

WITH_STATUS = "the provider answered with status 502"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"no healthy upstream", "no healthy upstream"),
        ("  überlastet\n".encode(), "überlastet"),
        (b"a\xff", "a\ufffd"),
        (b"x" * 5000, "x" * 1000),
        (b"", WITH_STATUS),
        (b" \r\n", WITH_STATUS),
        (b"<html><body>Bad gateway</body></html>", WITH_STATUS),
        (b"\n <!doctype html>", WITH_STATUS),
        (b'{"unknown": "form"}', WITH_STATUS),
        (b"[1]", WITH_STATUS),
        (b"two\nlines", WITH_STATUS),
        (b"\x1f\x8b\x08\x00gzip", WITH_STATUS),
    ],
)
def test_a_message_where_an_error_has_no_known_form(body: bytes, message: str) -> None:
    assert plain_message(502, body) == message

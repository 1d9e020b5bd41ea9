from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kongai.entities.types import Milliseconds, Name, Tags, Timestamp


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("a.b-c_d~1", Name),
        ("caf\xe9", Name),
        (["a b", "c:d"], Tags),
        ([], Tags),
        (1, Milliseconds),
        (2**31 - 2, Milliseconds),
        (1, Timestamp),
    ],
)
def test_what_kong_takes(value: Any, kind: Any) -> None:
    assert msgspec.convert(value, kind) == value


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("", Name),
        ("a b", Name),
        ("a/b", Name),
        ("a\n", Name),
        (["a,b"], Tags),
        (["a/b"], Tags),
        (["a\n"], Tags),
        ([""], Tags),
        (0, Milliseconds),
        (2**31 - 1, Milliseconds),
        (1.5, Milliseconds),
        (0, Timestamp),
    ],
)
def test_what_kong_refuses(value: Any, kind: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(value, kind)

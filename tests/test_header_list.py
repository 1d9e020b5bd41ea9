import pytest
from werkzeug.datastructures import Headers

from kongai.header_list import HeaderList

FIELDS = [
    ("Host", "example.com"),
    ("x-tag", "one"),
    ("X-Tag", "two"),
    ("Content-Length", "12"),
    ("X-Number", "twelve"),
]


@pytest.mark.parametrize("name", ["host", "HOST", "x-tag", "x-number", "missing", ""])
def test_it_answers_as_werkzeugs_does(name: str) -> None:
    ours, theirs = HeaderList.of(FIELDS), Headers(FIELDS)
    assert list(ours) == list(theirs)
    assert (name in ours) == (name in theirs)
    assert ours.get(name) == theirs.get(name)
    assert ours.get(name, "other") == theirs.get(name, "other")
    assert ours.get(name, type=int) == theirs.get(name, type=int)
    assert ours.get(name, 5, int) == theirs.get(name, 5, int)
    assert ours.getlist(name) == theirs.getlist(name)


def test_it_has_a_list_of_its_own() -> None:
    fields = list(FIELDS)
    headers = HeaderList.of(fields)
    headers["X-More"] = "1"
    headers.pop("host")
    assert fields == FIELDS
    assert "host" not in headers


def test_put_replaces_in_place_and_appends_what_is_new() -> None:
    ours, theirs = HeaderList.of(FIELDS), Headers(FIELDS)
    ours.put(("X-TAG", "three"), ("Via", "1.1 here"))
    theirs.set("X-TAG", "three")
    theirs.set("Via", "1.1 here")
    assert list(ours) == list(theirs)


def test_what_is_set_later_is_checked() -> None:
    with pytest.raises(ValueError, match="newline"):
        HeaderList.of(FIELDS)["X-More"] = "1\r\nX-Other: 2"


def test_a_copy_and_a_slice_are_headers_too() -> None:
    headers = HeaderList.of(FIELDS)
    assert list(headers.copy()) == FIELDS
    assert list(headers[1:3]) == FIELDS[1:3]
    assert Headers(headers) == Headers(FIELDS)

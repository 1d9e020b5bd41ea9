from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from kongai.document import MAX_DEPTH, MAX_NODES, Document, parse
from kongai.errors import ConfigError, Problem
from kongai.schema import Path

ENVIRON = {
    "DECK_HOST": "api.example",
    "DECK_EMPTY": "",
    "DECK_YES": "T",
    "DECK_NO": "0",
    "DECK_INT": "-12",
    "DECK_FLOAT": "1.5e3",
    "DECK_LINES": "first line\nsecond line\nthird line",
    "OTHER": "x",
}
FAILED = "failed parsing declarative configuration: "


def refused(text: str, environ: Mapping[str, str] = ENVIRON) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        parse(text, environ=environ)
    return caught.value.problems


def line_of(document: Document, *path: str | int) -> int | None:
    return document.problem(path, "").line


def test_lists_and_mappings() -> None:
    text = "a: 1\nb: [x, 2.5, true, no, ~, 'no']\nc: {d: {}}"
    expected = {"a": 1, "b": ["x", 2.5, True, False, None, "no"], "c": {"d": {}}}
    assert parse(text).data == expected


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "\ufeff", "~"])
def test_an_empty_text_is_nothing(text: str) -> None:
    assert parse(text).data is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2023-06-01", "2023-06-01"),
        ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"),
        ("3.0", 3.0),
        ("'3.0'", "3.0"),
        ("1_000", 1000),
        ("010", 8),
        ("0x1F", 31),
        ("+80", 80),
        ("yes", True),
        ("null", None),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("-1.5E-3", -0.0015),
        ("'1e3'", "1e3"),
        ("1e", "1e"),
    ],
)
def test_scalars(text: str, value: object) -> None:
    found = parse(f"a: {text}").data["a"]
    assert (found, type(found)) == (value, type(value))


def test_each_value_has_its_line() -> None:
    document = parse(
        """\
# a comment
services:
- name: a

  routes:
    - {name: r, paths: [/x,
       /y]}
-
  name: b
plugins: []
"""
    )
    lines: dict[Path, int] = {
        (): 2,
        ("services",): 2,
        ("services", 0): 3,
        ("services", 0, "name"): 3,
        ("services", 0, "routes"): 5,
        ("services", 0, "routes", 0, "paths"): 6,
        ("services", 0, "routes", 0, "paths", 1): 7,
        ("services", 1): 9,
        ("services", 1, "name"): 9,
        ("plugins",): 10,
    }
    assert {path: line_of(document, *path) for path in lines} == lines


def test_what_is_missing_has_the_line_of_its_parent() -> None:
    document = parse("a: 1\nservices:\n- name: x\n")
    assert line_of(document, "services", 0, "host", "deeper") == 3
    assert line_of(document, "nowhere") == 1
    assert document.problem(("services", 0, "host"), "gone") == Problem(
        "services[0].host", "gone", 3
    )


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_end_as_they_end_on_any_system(newline: str) -> None:
    document = parse(newline.join(["a: 1", "b: 2", "c:", "  d: 4"]))
    assert line_of(document, "c", "d") == 4


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert parse("\ufeffa: 1").data == {"a": 1}


def test_merge_keys_and_aliases_are_written_out() -> None:
    document = parse(
        """\
base: &base {host: h, port: 1}
other: &other {port: 2, path: /}
both:
  <<: [*base, *other]
  path: /own
one: {<<: *base}
none: {"<<": 1}
again: *other
"""
    )
    assert document.data["both"] == {"host": "h", "port": 1, "path": "/own"}
    assert document.data["one"] == {"host": "h", "port": 1}
    assert document.data["none"] == {"<<": 1}
    assert document.data["again"] == {"port": 2, "path": "/"}
    assert line_of(document, "both", "port") == 1
    assert line_of(document, "both", "path") == 5


def test_a_merge_of_a_merge_is_written_out() -> None:
    text = "a: &a {x: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b}\n"
    assert parse(text).data["c"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", Problem("a", "given twice", 3)),
        ('x:\n- {a: 1,\n   "a": 2}', Problem("x[0].a", "given twice", 3)),
        ("a: &a\n- 1\n- *a\n", Problem("a[1]", "contains itself", 1)),
        ("a: &a {b: *a}\n", Problem("a.b", "contains itself", 1)),
        ("a: 1\n? [b]\n: 2\n", Problem("", "expected a key", 2)),
        ("a: 1\nb: {<<: 3}\n", Problem("b", "expected a mapping to merge", 2)),
        ("a: 1\nb: [\n", Problem("", f"{FAILED}did not find expected node content", 3)),
        ("a: 1\nb: *no\n", Problem("", f"{FAILED}found undefined alias", 2)),
        ("a: 1\n---\nb: 2\n", Problem("", f"{FAILED}but found another document", 2)),
        (
            "a: 1\nb: !thing x\n",
            Problem(
                "",
                f"{FAILED}could not determine a constructor for the tag '!thing'",
                2,
            ),
        ),
        (
            "a: 1\nb: !!bool no way\n",
            Problem("", f"{FAILED}invalid value for its type", 2),
        ),
        ("a: 1\nb: !!int x\n", Problem("", f"{FAILED}invalid value for its type", 2)),
        (
            "a: 1\nb: !!float ''\n",
            Problem("", f"{FAILED}invalid value for its type", 2),
        ),
        (
            f"a: 1\nb: {'9' * 5000}",
            Problem("", f"{FAILED}invalid value for its type", 2),
        ),
        ("a: \0", Problem("", f"{FAILED}ReaderError", None)),
        ("a: \ud800", Problem("", f"{FAILED}UnicodeEncodeError", None)),
    ],
)
def test_what_is_refused(text: str, problem: Problem) -> None:
    assert refused(text) == [problem]


def test_python_objects_are_not_made() -> None:
    (problem,) = refused("a: !!python/object/apply:os.getcwd ''\n")
    assert "could not determine a constructor" in problem.message


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


def test_nesting_has_a_limit_also_by_way_of_aliases() -> None:
    links = CHAIN.splitlines()[: MAX_DEPTH - 2]
    assert parse("\n".join(["a: &a0 [x]", *links])).data
    one_more = CHAIN.splitlines()[: MAX_DEPTH - 1]
    (problem,) = refused("\n".join(["a: &a0 [x]", *one_more]))
    assert problem == Problem("", f"{FAILED}nested too deeply", 1)


def test_nesting_has_a_limit() -> None:
    assert parse(nested(MAX_DEPTH)).data
    assert refused(nested(MAX_DEPTH + 1)) == [
        Problem("", f"{FAILED}nested too deeply", 1)
    ]


MERGES = "".join(
    f"b{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 40)
)
ALIASES = "".join(
    f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 40)
)
CHAIN = "".join(f"b{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 3000))
MERGE_CHAIN = "x:\n" + "".join(
    f"- &a{i} {{<<: *a{i - 1}, k{i}: 1}}\n" for i in range(1, 500)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 1_000_000, "nested too deeply"),
        ("{a: " * 1_000_000, "nested too deeply"),
        ("a: &a0 [x]\n" + ALIASES, "too many values"),
        ("a: &a0 [x]\n" + CHAIN, "nested too deeply"),
        ("a: &a0 {k: v}\n" + MERGE_CHAIN, ""),
        ("a: &a0 {k: v}\n" + MERGES, ""),
    ],
    ids=["lists", "mappings", "aliases", "chain", "chain of merges", "merges"],
)
def test_a_bomb_is_over_quickly(text: str, message: str) -> None:
    """A walk through all of it would take years, or more than the stack."""
    start = time.process_time()
    if message:
        assert [problem.message for problem in refused(text)] == [FAILED + message]
    else:
        assert parse(text).data["a"] == {"k": "v"}
    assert time.process_time() - start < 10


def test_a_large_file_is_within_the_limit() -> None:
    text = "".join(f"- {{a: {i}, b: x}}\n" for i in range(5000))
    assert len(parse(text).data) == 5000 < MAX_NODES


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ('${{ env "DECK_HOST" }}', "api.example"),
        ("${{ env `DECK_HOST` }}", "api.example"),
        ('${{env "DECK_HOST"}}', "api.example"),
        (
            'http://${{ env "DECK_HOST" }}:${{ env "DECK_INT" }}/',
            "http://api.example:-12/",
        ),
        ('"${{ env "DECK_EMPTY" }}"', ""),
        ('${{ env "DECK_EMPTY" }}', None),
        ('${{ env "DECK_YES" | toBool }}', True),
        ('${{ env "DECK_NO" | toBool }}', False),
        ('${{ env "DECK_INT" | toInt }}', -12),
        ('"${{ env "DECK_INT" | toInt }}"', "-12"),
        ('${{ env "DECK_FLOAT" | toFloat }}', 1500.0),
        ("${{ env\n 'DECK_HOST'\n}}", "api.example"),
        ("$${{ env 'DECK_HOST' }}", "$api.example"),
        ('"{{ env }} ${x} $HOME"', "{{ env }} ${x} $HOME"),
    ],
)
def test_the_environment_is_put_into_the_text(template: str, value: object) -> None:
    assert parse(f"a: {template}", environ=ENVIRON).data == {"a": value}


def test_lines_of_a_value_can_be_indented() -> None:
    text = 'a: |\n  ${{ env "DECK_LINES" | indent 2 }}\nb: 1\n'
    data = parse(text, environ=ENVIRON).data
    assert data == {"a": "first line\nsecond line\nthird line\n", "b": 1}


WRONG_PREFIX = (
    "environment variables in the state file must be prefixed with 'DECK_', "
    "found: 'OTHER'"
)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ('env "OTHER"', WRONG_PREFIX),
        (
            'env "DECK_NOPE"',
            "environment variable 'DECK_NOPE' present in state file but not set",
        ),
        ("env DECK_HOST", 'expected ${{ env "DECK_NAME" }}'),
        ('env "DECK_HOST" | upper', 'expected ${{ env "DECK_NAME" }}'),
        ('readFile "/etc/passwd"', 'expected ${{ env "DECK_NAME" }}'),
        ("", 'expected ${{ env "DECK_NAME" }}'),
        (
            'env "DECK_HOST" | toInt',
            "environment variable 'DECK_HOST' is not for toInt",
        ),
        (
            'env "DECK_HOST" | toBool',
            "environment variable 'DECK_HOST' is not for toBool",
        ),
        (
            'env "DECK_EMPTY" | toFloat',
            "environment variable 'DECK_EMPTY' is not for toFloat",
        ),
    ],
)
def test_a_template_that_means_nothing_is_refused(template: str, message: str) -> None:
    text = f"a: 1\nb: ${{{{ {template} }}}}\n# ${{{{ {template} }}}}\n"
    assert refused(text) == [Problem("", message, 2), Problem("", message, 3)]


def test_lines_are_those_of_the_file_whatever_the_environment_holds() -> None:
    text = """\
a: "${{ env "DECK_LINES" }}"
b: 1
c: ${{
  env "DECK_HOST"
}}
d: 1
"""
    document = parse(text, environ=ENVIRON)
    assert [line_of(document, name) for name in "abcd"] == [1, 2, 3, 6]
    (problem,) = refused(text + "e: [\n")
    assert problem.line == 8


def test_what_came_out_of_the_environment_is_hidden_from_messages() -> None:
    environ = {"DECK_KEY": "sk-ant-3cr3t", "DECK_PEM": "-----BEGIN\nsecond part\n"}
    text = 'a: "${{ env "DECK_KEY" }}"\nb: "${{ env "DECK_PEM" }}"\n'
    document = parse(text, environ=environ)
    found = document.problem(("x", "sk-ant-3cr3t"), "no 'sk-ant-3cr3t!', second part")
    assert found.path == 'x.${{ env "DECK_KEY" }}'
    assert found.message == ('no \'${{ env "DECK_KEY" }}!\', ${{ env "DECK_PEM" }}')


def test_a_short_word_of_the_environment_leaves_messages_readable() -> None:
    document = parse('a: ${{ env "DECK_P" }}', environ={"DECK_P": "http"})
    message = "expected one of: http, https"
    assert document.problem(("a",), message).message == message

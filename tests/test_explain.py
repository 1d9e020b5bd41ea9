from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pytest

from kongai import Plugin, Proxy, Route, Service, explain
from kongai.cli import main

FILE = """\
_format_version: "3.0"
services:
- name: s
  url: http://h.example:8080/base
  read_timeout: 5000
  routes:
  - name: gets
    paths: [/a, "~/b/(?<id>\\\\d+)"]
    methods: [GET]
  - name: elsewhere
    paths: [/a]
    hosts: [x.example]
    strip_path: false
  - name: stopped
    paths: [/stopped]
    plugins: [{name: request-termination, config: {status_code: 403}}]
  plugins:
  - {name: request-size-limiting, config: {allowed_payload_size: 2}}
  - name: key-auth
consumers:
- username: alice
  plugins: [{name: file-log, config: {path: /tmp/alice.json}}]
routes:
- {name: nowhere, paths: [/nowhere]}
- {name: secure, paths: [/secure], protocols: [https], service: s}
plugins:
- {name: file-log, config: {path: /tmp/all.json}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "kong.yml"
    path.write_text(FILE)
    return path


class Told(NamedTuple):
    exit_code: object
    stdout: str
    stderr: str


def explained(file: Path, *args: str) -> Told:
    """What the command says; where a thing is declared, only the line."""
    out, err = StringIO(), StringIO()
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main(["explain", str(file), *args])
    return Told(
        ended.value.code, out.getvalue().replace(f"{file}:", ""), err.getvalue()
    )


def test_the_route_the_address_the_plugins_and_the_limits(file: Path) -> None:
    result = explained(file, "get", "/a/x?y=1")
    assert result.exit_code == 0
    assert (
        result.stdout
        == """\
GET /a/x?y=1

route       gets (7)
            methods GET
            paths /a, ~/b/(?<id>\\d+)
            '/a' is left out of the upstream's path (strip_path)
service     s (3)
upstream    http://h.example:8080/base/x?y=1
consumer    unknown (--consumer NAME says who it is)
            without a key in apikey the request is answered with 401 (key-auth)
plugins     1250  key-auth               for the service  19
            951   request-size-limiting  for the service  18
            9     file-log               for everything   27
limits      connect_timeout 60000 ms
            write_timeout 60000 ms
            read_timeout 5000 ms
            retries 5
            a body of 2097152 bytes (request-size-limiting)
passed over elsewhere (10) /a: no host fits 'localhost:8000'
"""
    )


def test_headers_and_whole_urls_count(file: Path) -> None:
    for args in (["/a/1", "-H", "host: x.example"], ["http://x.example/a/1"]):
        lines = explained(file, "POST", *args).stdout.splitlines()
        assert "route       elsewhere (10)" in lines
        assert "upstream    http://h.example:8080/base/a/1" in lines


def test_what_takes_https_alone_is_named(file: Path) -> None:
    told = explained(file, "GET", "/secure").stdout
    assert "please use https" in told.lower()
    assert "            secure (25) takes https\n" in told


def test_a_path_that_is_refused_is_not_said_to_have_a_route(file: Path) -> None:
    told = explained(file, "GET", "/a/%zz").stdout
    assert "route       none: the answer is 400" in told
    assert " takes " not in told


def test_the_name_of_a_tls_handshake_is_that_of_the_url(file: Path) -> None:
    file.write_text(
        FILE.replace("protocols: [https]", "protocols: [https], snis: [tls.example]")
    )
    told = explained(file, "GET", "https://tls.example/secure").stdout
    assert "route       secure (25)" in told
    assert "snis tls.example" in told
    other = explained(file, "GET", "https://other.example/secure")
    assert other.exit_code == 1
    assert "secure (25) /secure: no SNI fits 'other.example'" in other.stdout


def test_captures_are_shown(file: Path) -> None:
    assert "captured id = 7" in explained(file, "GET", "/b/7").stdout


def test_routes_that_would_match_too_are_shown_with_why_they_come_later(
    file: Path,
) -> None:
    lines = explained(file, "GET", "http://x.example/a").stdout.splitlines()
    later = "a route by paths and methods comes after one by hosts and paths"
    assert f"also fit    gets (7) /a: {later}" in lines


def test_routes_with_another_path_are_counted_and_listed_if_none_matches(
    file: Path,
) -> None:
    lines = explained(file, "GET", "/stopped").stdout.splitlines()
    assert lines[-1] == "passed over 3 whose path does not fit"
    lines = explained(file, "PUT", "/a").stdout.splitlines()
    (first,) = (line for line in lines if line.startswith("passed over"))
    assert first == "passed over elsewhere (10) /a: no host fits 'localhost:8000'"
    assert "            gets (7) /a: method PUT is not one of GET" in lines
    assert lines[-1] == "            secure (25): path /secure does not fit"


POOL = """\
_format_version: "3.0"
services:
- {name: s, host: pool, path: /base, routes: [{name: r, paths: [/]}]}
upstreams:
- name: pool
  targets:
  - {target: "10.0.0.1:80", weight: 1}
  - {target: "::1", weight: 3}
  - {target: idle.example, weight: 0}
"""


def test_the_targets_among_which_the_address_was_chosen_are_shown(file: Path) -> None:
    file.write_text(POOL)
    whole = explained(file, "GET", "/x").stdout
    assert "is left out" not in whole
    told = whole.partition("service     ")[2]
    assert (
        told.partition("plugins")[0]
        == """\
s (3)
upstream    http://[::1]:8000/base/x
            one of the targets of pool (5), round-robin:
              10.0.0.1:80  weight 1
              [::1]:8000  weight 3
              idle.example:8000  weight 0
"""
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("algorithm: least-connections", "least-connections"),
        ("hash_on: ip", "consistent-hashing on ip"),
        (
            "hash_on: header, hash_on_header: x-a, hash_fallback: ip",
            "consistent-hashing on header x-a, else ip",
        ),
        (
            "hash_on: cookie, hash_on_cookie: c",
            "consistent-hashing on cookie c",
        ),
        (
            "hash_on: ip, hash_fallback: query_arg, hash_fallback_query_arg: q",
            "consistent-hashing on ip, else query_arg q",
        ),
        ("algorithm: consistent-hashing", "consistent-hashing on nothing"),
    ],
)
def test_how_a_target_is_chosen_is_said(file: Path, given: str, told: str) -> None:
    more = given.replace(", hash", "\n  hash")
    file.write_text(POOL.replace("- name: pool", f"- name: pool\n  {more}"))
    assert (
        f"one of the targets of pool (5), {told}:\n"
        in explained(file, "GET", "/x").stdout
    )


def test_an_upstream_with_nobody_to_ask_is_shown_with_its_targets(file: Path) -> None:
    file.write_text(POOL.replace("weight: 1", "weight: 0").replace("3}", "0}"))
    told = explained(file, "GET", "/x").stdout
    failure = "the answer is 503 failure to get a peer from the ring-balancer"
    assert f"upstream    none: {failure}\n" in told
    assert "10.0.0.1:80  weight 0" in told


def test_where_nobody_asks_who_it_is_the_consumers_plugins_do_not_run(
    file: Path,
) -> None:
    told = explained(file, "GET", "/nowhere", "--consumer", "alice").stdout
    line = "consumer    alice (21), but no plugin here asks who it is"
    assert line in told.splitlines()
    assert "for the consumer" not in told


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("alices-key", "the key in apikey is that of alice (key-auth)"),
        ("another", "with this key in apikey the request is answered with 401"),
    ],
)
def test_whose_key_it_is_is_said_and_not_the_key(
    file: Path, key: str, told: str
) -> None:
    credentials = "username: alice\n  keyauth_credentials: [{key: alices-key}]"
    file.write_text(FILE.replace("username: alice", credentials))
    for args in (["/a", "-H", f"apikey: {key}"], [f"/a?apikey={key}"]):
        said = explained(file, "GET", *args).stdout
        assert told in said.partition("\nconsumer")[2]
        assert key not in said.partition("\nservice")[2].partition("\nconsumer")[2]


def test_an_anonymous_consumer_is_named(file: Path) -> None:
    text = "- {name: key-auth, config: {anonymous: alice, key_names: [a, b]}}"
    file.write_text(FILE.replace("- name: key-auth", text))
    told = explained(file, "GET", "/a").stdout
    assert "without a key in a or b the request counts as alice (key-auth)" in told


def test_a_consumers_own_plugins_run_for_the_consumer(file: Path) -> None:
    known = explained(file, "GET", "/a", "--consumer", "alice").stdout
    assert "consumer    alice (21)" in known.splitlines()
    assert "9     file-log               for the consumer  22" in known
    nobody = explained(file, "GET", "/a", "--consumer", "bob")
    assert (nobody.exit_code, nobody.stdout) == (2, "")
    assert f"there is no consumer 'bob' in {file}" in nobody.stderr


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (
            ["GET", "/none"],
            "route       none: the answer is 404 no Route matched with those values",
        ),
        (
            ["GET", "/secure"],
            "route       none: the answer is 426 Please use HTTPS protocol",
        ),
        (
            ["GET", "/nowhere"],
            "upstream    none: the answer is 503 no Service found with those values",
        ),
        (["GET", "/stopped"], "upstream    none: request-termination answers 403"),
        (["GET", "https://h/secure/x"], "upstream    http://h.example:8080/base/x"),
    ],
)
def test_where_a_request_ends_instead(file: Path, args: list[str], line: str) -> None:
    result = explained(file, *args)
    assert line in result.stdout.splitlines()
    assert result.exit_code == (line.startswith("route"))


@pytest.mark.parametrize("header", ["x", ": y", ""])
def test_a_header_has_a_name_and_a_colon(file: Path, header: str) -> None:
    result = explained(file, "GET", "/a", "-H", header)
    assert result.exit_code == 2
    assert "expected NAME:VALUE" in result.stderr


def test_a_file_with_problems_explains_nothing(file: Path) -> None:
    file.write_text("services: []")
    result = explained(file, "GET", "/a")
    assert (result.exit_code, result.stdout) == (1, "")


class Chooses(Plugin):
    name = "chooses"

    def explain(self, exchange: object) -> list[tuple[str, str]]:
        return [("upstream", "http://chosen.example/")]


def test_objects_are_explained_like_a_file() -> None:
    proxy = Proxy([Service("http://h", routes=[Route(paths=["/"])])], (), [Chooses()])
    told = explain.Explanation(proxy, explain.request("GET", "/x"))
    lines = [*told.lines()]
    assert "route       a route without a name" in lines
    assert "upstream    http://chosen.example/" in lines
    assert "plugins     0  chooses  for everything" in lines


def test_long_lists_are_cut() -> None:
    routes = [Route(name=f"r{n}", paths=[f"/{n}"]) for n in range(30)]
    told = explain.Explanation(Proxy((), routes), explain.request("GET", "/x"))
    assert [*told.lines()][-1] == "            and 10 more"


EMPTY = """\
_format_version: "3.0"
upstreams: [{name: nobody.there}]
services: [{name: s, host: nobody.there, routes: [{name: r, paths: [/r]}]}]
"""


def test_an_upstream_without_targets_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "kong.yml"
    path.write_text(EMPTY)
    result = explained(path, "GET", "/r")
    assert result.exit_code == 0
    assert "none: the answer is 503 failure to get a peer" in result.stdout


def test_letters_beyond_ascii_are_looked_at_as_they_are_sent(file: Path) -> None:
    result = explained(file, "GET", "/a/\N{SNOWMAN}", "-H", "x: \N{SNOWMAN}")
    assert result.stdout.startswith("GET /a/%E2%98%83\n")
    assert result.exit_code == 0


@pytest.mark.parametrize("args", [["http://["], ["/a", "-H", "x: a\nb"]])
def test_what_can_not_be_asked_is_a_wrong_command_line(
    file: Path, args: list[str]
) -> None:
    result = explained(file, "GET", *args)
    assert result.exit_code == 2
    assert "not a request" in result.stderr

"""What becomes of upstreams' answers, and of their silence; and who is asked."""

from __future__ import annotations

import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from fnmatch import fnmatchcase
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any

import pytest
import yaml

from kongai import Proxy
from kongai.testing import ListSink
from kongai.transport import RequestsTransport
from tests.live.ports import black_hole, closed_port
from tests.live.waiting import wait_until

from .cases import Area, load
from .gateway import LiveGateway
from .scripted import ANSWER, ANSWER_AND_CLOSE, Scripted

Case = dict[str, Any]
Fields = dict[str, Any]

FILE = load("upstream_cases.json")
GROUPS = list(dict.fromkeys(case["group"] for case in FILE["cases"]))
AREA = Area("upstreams")
RUN: set[str] = set()

UPSTREAMS = ("UPSTREAM", "UPSTREAM2", "UPSTREAM3", "UPSTREAM4")
# A kept connection is none: longer than the upstream waits before it closes one.
BETWEEN_REQUESTS = 0.15
# Which of the services a case of the balancing group is about, and what is hashed.
BALANCED = {
    "distribution least-connections *": "lc",
    "distribution one target weight 0": "wzero",
    "distribution *equal*": "req",
    "distribution *": "rr",
    "consistent-hashing header*": "ch",
    "consistent-hashing path*": "chp",
    "consistent-hashing query_arg*": "chq",
}
HEX = re.compile("[0-9a-f]{32}")
OURS = re.compile(r"kongai/[\w.+]+")
LATENCY = re.compile(r"X-Kong-(Upstream|Proxy|Response)-Latency", re.IGNORECASE)


class Gateway:
    """The gateway of all cases, its upstreams and its records."""

    def __init__(self, template: str, folder: Path, stack: ExitStack) -> None:
        self.upstreams = {name: Scripted() for name in UPSTREAMS}
        self.ports = {name: one.upstream.port for name, one in self.upstreams.items()}
        self.ports["CLOSED"] = stack.enter_context(closed_port())
        self.ports["CLOSED2"] = stack.enter_context(closed_port())
        self.ports["BLACKHOLE"] = stack.enter_context(black_hole())
        names = "|".join(sorted(self.ports, key=len, reverse=True))
        text = re.sub(rf"\b({names})_PORT\b", lambda m: str(self.ports[m[1]]), template)
        text = re.sub(
            rf"\b({names})\b", lambda m: f"127.0.0.1:{self.ports[m[1]]}", text
        )
        text = text.replace("LOGPATH", str(folder / "log.json"))
        config = yaml.safe_load(text)
        self.retries = {
            route["name"]: service.get("retries", 5)
            for service in config["services"]
            for route in service["routes"]
        }
        self.sink, self.transport = ListSink(), RequestsTransport()
        proxy = Proxy.from_config(config, sinks=[self.sink], transport=self.transport)
        for one in self.upstreams.values():
            stack.enter_context(one.upstream)
        self.live = stack.enter_context(LiveGateway(proxy))

    def decision(self, case: Case, count: int) -> list[Fields]:
        """What becomes of a case's request, sent as often as that."""
        main = self.upstreams["UPSTREAM"]
        # No connection is left over from the case before ...
        self.transport.close()
        if case.get("upstream_requests", 0) > self.retries[case["route"]] + 1:
            # ... if there was none for Kong: this one was tried once more than it may
            # be, which happens after a failure of a connection that was used before.
            main.script(ANSWER)
            self.one({"method": "GET", "path": f"/{case['route']}/warm-up"})
        main.script(case["upstream_script"])
        return [self.one(case["request"]) for _ in range(count)]

    def one(self, request: Case) -> Fields:
        """Send one request: what the client, the upstream and the record see."""
        main = self.upstreams["UPSTREAM"].upstream
        main.requests.clear()
        self.sink.clear()
        started = time.perf_counter()
        response = exchange(self.live.port, request)
        elapsed = time.perf_counter() - started
        wait_until(lambda: len(self.sink) > 0, "a record", 5)
        record = self.sink[0]
        ports = {port: f"{name}_PORT" for name, port in self.ports.items()}
        log = {
            **{k: record[k] for k in ("upstream_status", "upstream_uri", "source")},
            "status": record["response"]["status"],
            "tries": [
                {
                    "ip": one["ip"],
                    "port": ports.get(one["port"], one["port"]),
                    **{k: one[k] for k in ("state", "code") if k in one},
                }
                for one in record.get("tries", [])
            ],
            "service_host": record["service"]["host"],
            "latency_keys": sorted(record["latencies"]),
            "latency_minus_one": [k for k, v in record["latencies"].items() if v == -1],
        }
        lines = [f"{r.method} {r.target} HTTP/1.1" for r in main.requests]
        return flat(response, log, lines, elapsed)


def exchange(port: int, request: Case) -> Fields:
    """Send a request; an answer may stop anywhere."""
    version = request.get("version", "1.1")
    lines = [f"{request['method']} {request['path']} HTTP/{version}"]
    lines += [f"Host: 127.0.0.1:{port}"]
    lines += [f"{name}: {value}" for name, value in request.get("headers") or ()]
    body = (request.get("body") or "").encode("latin-1")
    if request.get("body") is not None:
        lines.append(f"Content-Length: {len(body)}")
    raw = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
    with ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
        sock.sendall(raw)
        answer = stack.enter_context(HTTPResponse(sock, method=request["method"]))
        try:
            answer.begin()
        except (HTTPException, OSError):
            return {}
        pairs = answer.getheaders()
        complete, text = True, b""
        try:
            while piece := answer.read1():
                text += piece
            # read1() does not say that there should have been more.
            complete = not answer.length
        except (IncompleteRead, HTTPException, OSError):
            complete = False
        return {
            "status": answer.status,
            "reason": answer.reason,
            "headers": [[n, OURS.sub("kong/3.10.0", v)] for n, v in pairs],
            "body": text.decode("latin-1"),
            "complete": complete,
        }


def flat(
    response: Fields, log: Fields, lines: list[str], elapsed: float | None
) -> Fields:
    """A field for everything that may be different."""
    body = response.get("body")
    fields: Fields = {
        "status": response.get("status"),
        "reason": response.get("reason"),
        "complete": response.get("complete"),
        "body": body and HEX.sub("<request-id>", body),
        "requests": lines,
        "elapsed": elapsed,
        **{
            f"log.{name}": log[name]
            for name in (
                "status",
                "upstream_status",
                "upstream_uri",
                "source",
                "service_host",
                "latency_keys",
                "latency_minus_one",
            )
        },
        "log.tries": len(log["tries"]),
    }
    for number, one in enumerate(log["tries"]):
        last = "last" if number == len(log["tries"]) - 1 else str(number)
        for name in ("ip", "port", "state", "code"):
            fields[f"log.tries.{last}.{name}"] = one.get(name)
    for name, value in response.get("headers", ()):
        if name == "Date" or (name, value) == ("Connection", "keep-alive"):
            continue
        if LATENCY.fullmatch(name):
            value = "<n>"
        value = HEX.sub("<request-id>", value)
        fields.setdefault(f"header.{name}", []).append(value)
    return fields


def kongs(result: Case) -> Fields:
    """What became of it at Kong."""
    lines = result["upstream_request_lines"]
    assert len(lines) == result["upstream_requests"]
    return flat(result["response"], result["log"], lines, result["elapsed_ms"] / 1000)


def alike(kong: Fields, ours: Fields) -> Fields:
    """Ours, with Kong's time where ours is about as long."""
    took, wanted = ours["elapsed"], kong["elapsed"]
    if took < wanted + 0.35 and took > wanted * 0.8 - 0.1:
        return {**ours, "elapsed": wanted}
    return ours


def called(case: Case) -> str:
    """A case in a word."""
    request = case.get("request") or {}
    fields = "".join(f" {n}={v}" for n, v in request.get("headers") or ())
    version = " 1.0" if request.get("version") == "1.0" else ""
    return f"{case['group']}: {case['name']}{version}{fields}"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with ExitStack() as stack:
        yield Gateway(FILE["config_yaml"], tmp_path_factory.mktemp("log"), stack)


@pytest.mark.parametrize("group", GROUPS)
def test_what_becomes_of_what_upstreams_do(group: str, gateway: Gateway) -> None:
    lines: list[str] = []
    for case in FILE["cases"]:
        if case["group"] == group:
            lines += unexplained(case, gateway)
    RUN.add(group)
    assert not lines, "\n" + "\n".join(lines)


def test_every_difference_that_is_written_down_is_there() -> None:
    if len(RUN) < len(GROUPS):
        pytest.skip("not all cases ran")
    assert AREA.idle() == []


def unexplained(case: Case, gateway: Gateway) -> Iterator[str]:
    if case["group"] == "balancing":
        yield from AREA.unexplained(called(case), *balanced(case, gateway))
    elif case["group"] == "keepalive":
        yield from AREA.unexplained(called(case), *kept_alive(case, gateway))
    else:
        results = case.get("results", [case])
        got = gateway.decision(case, len(results))
        for result, ours in zip(results, got, strict=True):
            kong = kongs(result)
            yield from AREA.unexplained(called(case), kong, alike(kong, ours))


def kept_alive(case: Case, gateway: Gateway) -> tuple[Fields, Fields]:
    """Kong's and our use of connections that an upstream has left open, or not."""
    main = gateway.upstreams["UPSTREAM"]
    gateway.transport.close()
    before = len(main.upstream.connections)
    if "results" not in case:
        main.script(ANSWER)
        for _ in range(case["requests"]):
            gateway.one({"method": "GET", "path": "/p/kept"})
        count = len(main.upstream.connections) - before
        return {"connections": case["new_upstream_connections"]}, {"connections": count}
    method = case["name"].rpartition(" ")[2]
    body = "x" if method == "POST" else None
    main.script(ANSWER_AND_CLOSE)
    kong, ours = {}, {}
    for number, result in enumerate(case["results"]):
        # The lines and the time were not written down.
        given = {**result, "upstream_request_lines": [], "elapsed_ms": 0}
        given["upstream_requests"] = 0
        got = gateway.one({"method": method, "path": "/p/idlast", "body": body})
        got = alike(kongs(given), got)
        kong[f"{number}.count"] = result["upstream_requests"]
        ours[f"{number}.count"] = len(got.pop("requests"))
        kong |= {f"{number}.{k}": v for k, v in kongs(given).items() if k != "requests"}
        ours |= {f"{number}.{k}": v for k, v in got.items()}
        time.sleep(BETWEEN_REQUESTS)
    return kong, ours


def balanced(case: Case, gateway: Gateway) -> tuple[Fields, Fields]:
    """Which upstreams got how many requests."""
    route = next(r for name, r in BALANCED.items() if fnmatchcase(case["name"], name))
    for one in gateway.upstreams.values():
        one.script(ANSWER)
    mapping = case.get("mapping")
    if mapping is not None:
        return _mapped(route, mapping, gateway)
    empty = {"X-User": ""} if case["name"].endswith("empty") else {}
    taken = [target(gateway, f"/{route}/x", empty) for _ in range(case["requests"])]
    kong, ours = {"counts": case["counts"]}, {"counts": dict(Counter(taken))}
    if case["name"].startswith("consistent-hashing"):
        # Which one a key leads to is for the hash to say, which is another one.
        kong, ours = ({"counts": sorted(c["counts"].values())} for c in (kong, ours))
    if "first_100" in case:
        kong["first_100"], ours["first_100"] = case["first_100"], taken[:100]
    # A kept connection that turns out to be closed sends a request to the next target.
    if case["name"].startswith("distribution least-connections") and _nearly(
        case, taken
    ):
        return kong, kong
    return kong, ours


def _nearly(case: Case, taken: list[str]) -> bool:
    """Whether no more than one request in 500 went elsewhere."""
    more = Counter(taken) - Counter(case["counts"])
    first = zip(case.get("first_100", ()), taken, strict=False)
    return more.total() <= 2 and sum(one != other for one, other in first) <= 2


def _mapped(
    route: str, mapping: dict[str, Any], gateway: Gateway
) -> tuple[Fields, Fields]:
    """Which key leads where, and whether it does so each time."""
    got: dict[str, Any] = {}
    sticky = True
    for key in mapping:
        path, headers = (key, {}) if key[0] == "/" else (f"/{route}/x", {"X-User": key})
        found = {target(gateway, path, headers) for _ in range(3)}
        sticky = sticky and len(found) == 1
        got[key] = found.pop()
    kongs = {k: v[0] if isinstance(v, list) else v for k, v in mapping.items()}
    return (
        {"sticky": True, "mapping": kongs, "used": set(kongs.values())},
        {"sticky": sticky, "mapping": got, "used": set(got.values())},
    )


def target(gateway: Gateway, path: str, headers: dict[str, str]) -> str:
    """Send a request; the name of the upstream that got it."""
    before = {n: len(u.upstream.requests) for n, u in gateway.upstreams.items()}
    connection = HTTPConnection("127.0.0.1", gateway.live.port, timeout=5)
    with suppress(OSError):
        connection.request("GET", path, headers=headers)
        connection.getresponse().read()
    connection.close()
    after = {n: len(u.upstream.requests) for n, u in gateway.upstreams.items()}
    return next((n for n in UPSTREAMS if after[n] > before[n]), "nobody")

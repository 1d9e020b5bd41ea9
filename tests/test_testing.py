from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from wsgiref.validate import validator

import pytest
from anthropic import Anthropic, APIStatusError
from werkzeug.test import Client

from kongai import LogSink
from kongai.errors import UpstreamError, UpstreamTruncated
from kongai.exchange import UpstreamRequest
from kongai.llm.formats import anthropic
from kongai.testing import (
    EchoLLM,
    ListSink,
    MockTransport,
    answer,
    chop,
    events,
    serve_live,
)
from kongai.transport import Transport

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def request() -> UpstreamRequest:
    return UpstreamRequest("GET", "http", "up.example", 80, "/", [])


def test_a_list_keeps_records() -> None:
    records = ListSink()
    sink: LogSink = records
    sink.emit({"n": 1})
    sink.emit({"n": 2})
    sink.close()
    assert records == [{"n": 1}, {"n": 2}]


def test_a_mock_notes_what_it_was_asked() -> None:
    found = answer(b"x")
    mock = MockTransport(lambda request: found)
    transport: Transport = mock
    asked = [request(), request()]
    assert [transport.send(one) for one in asked] == [found, found]
    assert mock.requests == asked
    transport.close()


def test_a_mock_may_fail() -> None:
    def handler(request: UpstreamRequest) -> answer:
        raise UpstreamError(ended="connect")

    mock = MockTransport(handler)
    with pytest.raises(UpstreamError):
        mock.send(request())
    assert len(mock.requests) == 1


def test_an_answer_is_json_and_well_unless_it_is_told() -> None:
    found = answer(b"{}")
    assert (found.status, found.headers) == (
        200,
        [("content-type", "application/json")],
    )
    assert list(found.chunks) == [b"{}"]
    assert list(answer().chunks) == []
    other = answer([b"a", b"", b"b"], 503, [("x", "1")])
    assert (other.status, other.headers) == (503, [("x", "1")])
    assert list(other.chunks) == [b"a", b"b"]


def test_an_answer_breaks_off_where_it_is_told() -> None:
    found = answer([b"a", UpstreamTruncated(), b"b"])
    assert next(found.chunks) == b"a"
    with pytest.raises(UpstreamTruncated):
        next(found.chunks)


def test_an_answer_counts_how_often_it_was_closed() -> None:
    found = answer()
    assert found.closed == 0
    found.close()
    found.close()
    assert found.closed == 2


@pytest.mark.parametrize(
    ("cuts", "expected"),
    [
        ((), [b"abcdef"]),
        ((2,), [b"ab", b"cdef"]),
        ((4, 2), [b"ab", b"cd", b"ef"]),
        ((0, 6), [b"", b"abcdef", b""]),
        ((3, 3), [b"abc", b"", b"def"]),
    ],
)
def test_bytes_are_cut_where_it_is_said(
    cuts: tuple[int, ...], expected: list[bytes]
) -> None:
    assert chop(b"abcdef", *cuts) == expected


def test_events_are_read_in_any_cuts() -> None:
    stream = 'event: a\ndata: {"x": "é"}\n\n: ping\n\ndata: [1]\n\n'.encode()
    expected = [("a", {"x": "é"}), ("message", [1])]
    for cut in range(len(stream)):
        assert events(chop(stream, cut)) == expected


def ask(path: str, body: Any) -> tuple[int, Any]:
    client = Client(validator(EchoLLM()))
    response = client.post(path, json=body, buffered=True)
    return response.status_code, json.loads(response.data)


def question(text: str = "Hello, world!", **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "m", "max_tokens": 9, "messages": messages, **fields}


def test_the_echo_answers_whole() -> None:
    status, message = ask("/v1/messages", question())
    assert status == 200
    assert message["content"] == [{"type": "text", "text": "Hello, world!"}]
    assert (message["model"], message["stop_reason"]) == ("m", "end_turn")
    assert message["usage"]["input_tokens"] > 0
    assert message["usage"]["output_tokens"] > 0


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([{"role": "user", "content": "a"}], "a"),
        ([{"role": "user", "content": [{"type": "text", "text": "b"}]}], "b"),
        (
            [
                {"role": "user", "content": "first"},
                {"role": "assistant", "content": "mine"},
                {"role": "user", "content": "last"},
            ],
            "last",
        ),
        (
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "asked"},
                        {"type": "image", "source": {}},
                        {
                            "type": "text",
                            "text": "<system-reminder>no</system-reminder>",
                        },
                    ],
                }
            ],
            "asked",
        ),
        ([{"role": "user", "content": []}], "(no text)"),
    ],
)
def test_the_echo_says_what_the_user_wrote_last(
    messages: list[dict[str, Any]], text: str
) -> None:
    _, message = ask("/v1/messages", {"model": "m", "messages": messages})
    assert message["content"][0]["text"] == text


@pytest.mark.parametrize("text", ["Hello, world!", "", " ", "a  b\nc", "Grüezi 世界"])
def test_the_echo_streams_the_same(text: str) -> None:
    client = Client(validator(EchoLLM()))
    asked = question(text, stream=True)
    response = client.post("/v1/messages", json=asked, buffered=True)
    assert response.content_type == "text/event-stream"
    found = events([response.data])
    names = [name for name, _ in found]
    assert [names[0], names[-1]] == ["message_start", "message_stop"]
    assert "ping" in names
    deltas = [data["delta"]["text"] for name, data in found if name.endswith("k_delta")]
    assert "".join(deltas) == text
    [last] = [data for name, data in found if name == "message_delta"]
    _, whole = ask("/v1/messages", question(text))
    assert last["usage"]["output_tokens"] == whole["usage"]["output_tokens"]


def test_the_echo_is_understood_by_the_gateways_own_reader() -> None:
    client = Client(EchoLLM())
    response = client.post("/v1/messages", json=question(stream=True), buffered=True)
    reader = anthropic.stream_reader()
    reader.feed(response.data)
    reader.end()
    assert reader.finished
    assert not reader.broken
    assert (reader.model, reader.usage.completion_tokens) == ("m", 4)


@pytest.mark.parametrize(
    "body",
    [None, [], {}, {"messages": []}, {"messages": "x"}, {"messages": [1]}, "x"],
)
def test_the_echo_refuses_what_is_no_conversation(body: Any) -> None:
    status, error = ask("/v1/messages", body)
    assert status == 400
    assert error["error"]["type"] == "invalid_request_error"


def test_the_echo_has_the_other_endpoints() -> None:
    status, count = ask("/v1/messages/count_tokens", question())
    assert status == 200
    assert count["input_tokens"] > 0
    client = Client(EchoLLM())
    [model] = json.loads(client.get("/v1/models", buffered=True).data)["data"]
    assert model["type"] == "model"
    for look in (client.head, client.get):
        assert look("/", buffered=True).status_code == 200
    status, error = ask("/v1/nothing", {})
    assert (status, error["error"]["type"]) == (404, "not_found_error")


def test_the_echo_serves_itself_and_anthropics_own_client_reads_it() -> None:
    echo = EchoLLM()
    assert echo.url == ""
    with echo, Anthropic(base_url=echo.url, api_key="k", max_retries=0) as client:
        assert echo.url.startswith("http://127.0.0.1:")
        options: Any = question()
        message = client.messages.create(**options)
        assert message.content[0].text == "Hello, world!"
        with client.messages.stream(**options) as stream:
            assert "".join(stream.text_stream) == "Hello, world!"
            assert stream.get_final_message().usage.output_tokens == 4
        assert client.models.list().data[0].id.startswith("claude-")
        with pytest.raises(APIStatusError) as caught:
            client.messages.create(**{**options, "messages": []})
        assert caught.value.status_code == 400
    assert echo.url == ""


def test_a_live_server_streams_and_stops() -> None:
    read = threading.Event()

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"first"
        assert read.wait(5)
        yield b"second"

    with serve_live(app) as server:
        host = server.url.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=5)
        connection.request("GET", "/")
        response = connection.getresponse()
        assert response.read1() == b"first"
        read.set()
        assert response.read() == b"second"
        connection.close()
    refused = http.client.HTTPConnection(host, timeout=5)
    with pytest.raises(ConnectionRefusedError):
        refused.request("GET", "/")


def test_live_servers_serve_requests_at_the_same_time() -> None:
    both = threading.Barrier(2)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        both.wait(5)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    with serve_live(app) as server:
        host = server.url.removeprefix("http://")
        connections = [http.client.HTTPConnection(host, timeout=5) for _ in range(2)]
        for connection in connections:
            connection.request("GET", "/")
        for connection in connections:
            assert connection.getresponse().read() == b"ok"
            connection.close()

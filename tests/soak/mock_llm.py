"""A model that answers as it is told to: an upstream in a process of its own.

Run as a program; it prints the port it listens on. What it does with a request stands
in the request's query:

=============  ===============================================================
``n=17``       the request's number, for the ledger
``events=20``  how many pieces the answer has
``pause=0.05`` seconds between two pieces
``first=1``    seconds of silence between the head and the first event
``pad=1000``   bytes that each piece is longer
``fault=cut``  one of `FAULTS`
=============  ===============================================================

Each piece of a stream says its number and when it was sent, by the clock that all
processes of a machine share, so that the reader knows what is missing and what is late.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import time
from typing import IO, Any
from urllib.parse import parse_qsl

import httptools

INPUT_TOKENS = 119
FAULTS = ("reset", "garbage", "hang", "busy", "cut", "reset_mid", "short")
"""Before the head: a reset, no HTTP, silence, 529. In the middle: an end, a reset; and
a whole answer that stops short."""
_MODEL = "claude-haiku-4-5"
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


class Anthropic:
    """The wire format of `/v1/messages`."""

    def whole(self, text: str, output: int) -> dict[str, Any]:
        return {
            "id": "msg_01KongaiSoak000000000001",
            "type": "message",
            "role": "assistant",
            "model": _MODEL,
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": output},
        }

    def begin(self) -> bytes:
        message = {**self.whole("", 1), "content": [], "stop_reason": None}
        block = {"type": "text", "text": ""}
        return _named("message_start", message=message) + _named(
            "content_block_start", index=0, content_block=block
        )

    def piece(self, text: str) -> bytes:
        return (
            b'event: content_block_delta\ndata: {"type":"content_block_delta",'
            b'"index":0,"delta":{"type":"text_delta","text":"%b"}}\n\n' % text.encode()
        )

    def end(self, output: int) -> bytes:
        usage = {"input_tokens": INPUT_TOKENS, "output_tokens": output}
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        return (
            _named("content_block_stop", index=0)
            + _named("message_delta", delta=delta, usage=usage)
            + _named("message_stop")
        )


class OpenAI:
    """The wire format of `/v1/chat/completions`."""

    _BASE = {"id": "chatcmpl-soak", "created": 1_700_000_000, "model": "gpt-4o"}

    def whole(self, text: str, output: int) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = self._usage(output)
        kind = {"object": "chat.completion"}
        return {**self._BASE, **kind, "choices": [choice], "usage": usage}

    def begin(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    def piece(self, text: str) -> bytes:
        return self._chunk({"content": text})

    def end(self, output: int) -> bytes:
        usage = {**self._BASE, "choices": [], "usage": self._usage(output)}
        return self._chunk({}, "stop") + _data(usage) + b"data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, str], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        kind = {"object": "chat.completion.chunk"}
        return _data({**self._BASE, **kind, "choices": [choice]})

    def _usage(self, output: int) -> dict[str, int]:
        total = INPUT_TOKENS + output
        return {
            "prompt_tokens": INPUT_TOKENS,
            "completion_tokens": output,
            "total_tokens": total,
        }


def _named(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\n".encode() + _data({"type": kind, **fields})


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


class Connection(asyncio.Protocol):
    """One connection of the gateway's; requests on it are answered in turn."""

    ledger: IO[str]
    _transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        self._answering: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._target, self._body, self._size = b"", b"", 0

    def connection_lost(self, error: Exception | None) -> None:
        self._writable.set()
        if self._answering is not None:
            self._answering.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size < 65536:  # a bigger one is none that `stream` is looked for in
            self._body += body

    def on_message_complete(self) -> None:
        path, _, query = self._target.decode("latin-1").partition("?")
        asked = dict(parse_qsl(query))
        number, fault = asked.get("n", "-"), asked.get("fault", "-")
        self.ledger.write(f"{number} {fault} {self._size}\n")
        self.ledger.flush()
        stream = b'"stream": true' in self._body or b'"stream":true' in self._body
        answer = self._answer(path, asked, self._size, stream=stream)
        self._target, self._body, self._size = b"", b"", 0
        self._answering = asyncio.get_running_loop().create_task(answer)

    async def _answer(
        self, path: str, asked: dict[str, str], size: int, *, stream: bool
    ) -> None:
        fault = asked.get("fault")
        if fault == "reset":
            self._transport.abort()
        elif fault == "garbage":
            self._transport.write(b"\0\xff no HTTP at all\r\n\r\n")
            self._transport.close()
        elif fault == "hang":
            await asyncio.sleep(3600)
        elif fault == "busy":
            error = {"type": "overloaded_error", "message": "Overloaded"}
            self._respond(b"529 Overloaded", {"type": "error", "error": error})
        elif path.endswith("/plain"):
            self._respond(b"200 OK", {"received": size})
        else:
            form = Anthropic() if path.endswith("/messages") else OpenAI()
            tell = self._stream if stream else self._whole
            await tell(form, asked)

    async def _whole(self, form: Anthropic | OpenAI, asked: dict[str, str]) -> None:
        count = int(asked.get("events", "1"))
        await asyncio.sleep(float(asked.get("first", "0")))
        short = asked.get("fault") == "short"
        self._respond(b"200 OK", form.whole("words " * count, count), cut=short)
        if short:
            self._transport.close()

    async def _stream(self, form: Anthropic | OpenAI, asked: dict[str, str]) -> None:
        count, pause = int(asked.get("events", "1")), float(asked.get("pause", "0"))
        pad, fault = "x" * int(asked.get("pad", "0")), asked.get("fault")
        self._transport.write(_HEAD)
        if first := float(asked.get("first", "0")):
            await asyncio.sleep(first)
        self._chunk(form.begin())
        due = time.monotonic()
        for number in range(count):
            if fault in ("cut", "reset_mid") and number >= count // 2:
                self._transport.close() if fault == "cut" else self._transport.abort()
                return
            due += pause
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self._writable.wait()
            self._chunk(form.piece(f"{number} {time.monotonic_ns()} {pad}"))
        self._chunk(form.end(count))
        self._transport.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _respond(self, status: bytes, body: Any, *, cut: bool = False) -> None:
        data = json.dumps(body).encode()
        head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n" % status
        head += b"Content-Length: %d\r\n\r\n" % len(data)
        self._transport.write(head + (data[: len(data) // 2] if cut else data))


async def main(ledger: str) -> None:
    """Listen until killed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with open(ledger, "a", encoding="ascii") as Connection.ledger:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=4096)
        print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("ledger", help="a file for a line for each request that came")
    asyncio.run(main(parser.parse_args().ledger))

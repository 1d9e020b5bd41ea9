"""What `ai-proxy` makes of an answer: passed on and read along, or translated."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from typing import cast

import msgspec

from kongai import redact
from kongai.content_coding import ContentDecoder, is_plain
from kongai.errors import GatewayError, UpstreamError, UpstreamTruncated
from kongai.exchange import Exchange, UpstreamRequest, UpstreamResponse
from kongai.llm.call import LONGEST_NAME, Call, cut
from kongai.llm.chat import Untranslatable
from kongai.llm.formats import AnswerReader, Envelope, StreamFilter
from kongai.llm.formats.along import MAX_WHOLE_ANSWER
from kongai.llm.translate import StreamTranslator, Translation, WholeFacts
from kongai.sse import CONTENT_TYPE

PING_INTERVAL = 15.0
"""Seconds after which a client is told that a silent provider is still at work."""
_ANY_GZIP = 16 + zlib.MAX_WBITS
_STREAMS = (CONTENT_TYPE, "application/x-ndjson")
_MEASURES = ("content-length", "transfer-encoding")


class TransformationFailed(GatewayError):
    """The provider's answer, though it has status 200, is none."""

    ended = "transformation_failed"


class Framing(msgspec.Struct, frozen=True):
    """How the body of an answer comes; of repeated headers the first one counts."""

    streamed: bool
    """Whether it comes piece by piece, in any format's way."""
    measured: bool
    """Whether HTTP says where it ends; otherwise closing ends it."""
    decoder: ContentDecoder | None
    """What undoes its content-coding; None where there is none."""


def framing_of(upstream: UpstreamResponse) -> Framing:
    """How the body of an answer comes, by its head."""
    kind = coding = ""
    measured = False
    for name, value in reversed(upstream.headers):
        name = name.lower()
        if name == "content-type":
            kind = value
        elif name == "content-encoding":
            coding = value
        elif name in _MEASURES:
            measured = True
    streamed = kind.partition(";")[0].strip().lower() in _STREAMS
    plain = not coding or is_plain(coding)
    decoder = None if plain else ContentDecoder(coding)
    return Framing(streamed, measured, decoder)


def relayed(
    chunks: Iterator[bytes], call: Call, decoder: ContentDecoder | None
) -> Iterator[bytes]:
    """Pass the chunks on unread."""
    for chunk in chunks:
        if call.payload is not None:
            call.payload.append(chunk if decoder is None else decoder.feed(chunk))
        yield chunk
    call.received = time.perf_counter()


def read_along(
    chunks: Iterator[bytes],
    call: Call,
    reader: AnswerReader,
    framing: Framing,
    *,
    may_drop: Callable[[], bool] | None,
) -> Iterator[bytes]:
    """Pass the chunks on, each before anything else is asked of the upstream.

    Args:
        chunks: the body.
        call: the call it answers.
        reader: reads along.
        framing: how the body comes.
        may_drop: asked after each chunk that has passed, until it says that the
            request's body is not needed any more; None where it is not needed at all.

    Raises:
        UpstreamError: the upstream broke off before the stream said that it was
            complete.
        UpstreamTruncated: the upstream ended well, but the stream did not say that it
            was complete: what looks like a success is none.
    """
    decoder = framing.decoder
    hider = call.usage_hider if call.streaming else None
    payload, silent, feed = call.payload, call.first_token is None, reader.feed
    plain = decoder is None and hider is None and payload is None
    try:
        for chunk in chunks:
            shown = chunk
            if plain:
                feed(chunk)
            else:
                shown = _fed(chunk, reader, decoder, hider, payload)
            if silent and reader.started:
                silent, call.first_token = False, time.perf_counter()
            if shown:
                yield shown
            if may_drop is not None and may_drop():
                may_drop = None
        if hider is not None and (rest := hider.end()):
            yield rest
    except UpstreamError:
        # How the connection ends after the last event is of no interest.
        if not (call.streaming and reader.finished):
            raise
    finally:
        call.received = time.perf_counter()
        reader.end()
        model = reader.model
        call.response_model = model and model[:LONGEST_NAME]
    if reader.lost or (decoder is not None and decoder.broken):
        return
    if decoder is not None and not decoder.complete:
        raise UpstreamTruncated
    if reader.finished:
        return
    if call.streaming:
        raise UpstreamTruncated(ended="no_terminal_event")
    if not framing.measured:
        raise UpstreamTruncated


def _fed(
    chunk: bytes,
    reader: AnswerReader,
    decoder: ContentDecoder | None,
    hider: StreamFilter | None,
    payload: list[bytes] | None,
) -> bytes:
    """Give a chunk to whoever wants it; what is left of it for the client."""
    text = chunk if decoder is None else decoder.feed(chunk)
    reader.feed(text)
    if decoder is not None:
        reader.broken = reader.broken or decoder.broken
    if payload is not None:
        payload.append(text)
    return chunk if hider is None else hider.feed(text)


def translated_stream(
    exchange: Exchange, call: Call, translator: StreamTranslator
) -> Iterator[bytes]:
    """The provider's stream in the client's format, as it comes.

    Args:
        exchange: the exchange, which has the provider's answer.
        call: the call it answers.
        translator: turns one into the other.

    Raises:
        UpstreamTruncated: the stream is not complete, or not what it should be.
    """
    upstream = cast("UpstreamResponse", exchange.upstream_response)
    asked = cast("UpstreamRequest", exchange.upstream_request)
    decoder = framing_of(upstream).decoder
    try:
        for chunk in _with_silences(upstream, asked.read_timeout):
            if chunk is not None:
                text = chunk if decoder is None else decoder.feed(chunk)
                shown = translator.translate(text)
            else:
                shown = b"" if translator.finished else translator.still_there()
            if call.first_token is None and translator.started:
                call.first_token = time.perf_counter()
            if shown:
                if call.payload is not None:
                    call.payload.append(shown)
                yield shown
            if translator.failure is not None:
                raise translator.failure
        if rest := translator.end():
            yield rest
        if translator.failure is not None:
            raise translator.failure
    except UpstreamError:
        if not translator.finished:
            raise
    except (Untranslatable, ValueError) as error:
        translator.broken = True
        raise UpstreamTruncated(ended="transformation_failed") from error
    finally:
        call.received = time.perf_counter()
        translator.estimate()
        call.response_model = cut(translator.model)
        note_losses(call, translator.losses())
    if not (translator.finished and (decoder is None or decoder.complete)):
        raise UpstreamTruncated(ended="no_terminal_event")


def _with_silences(upstream: UpstreamResponse, limit: float) -> Iterator[bytes | None]:
    """The chunks, and None whenever nothing has come for `PING_INTERVAL`.

    Raises:
        UpstreamTruncated: nothing has come for so many seconds.
    """
    waits, silent = upstream.speaks_within, 0.0
    while True:
        step = min(PING_INTERVAL, limit - silent)
        if waits is not None and not waits(step):
            silent += step
            if silent >= limit:
                raise UpstreamTruncated(ended="stream_idle_timeout")
            yield None
            continue
        silent = 0.0
        try:
            chunk = next(upstream.chunks)
        except StopIteration:
            return
        yield chunk


def translated_whole(exchange: Exchange, call: Call, translation: Translation) -> bytes:
    """The provider's answer with status 200 in the client's format, once it is there.

    A client gets what it asked for: a stream that was not asked for is put together,
    and an answer in one piece is told as a stream.

    Raises:
        TransformationFailed: it is no answer.
        GaveUp: it is an error, although its status is 200.
        UpstreamError: it broke off.
    """
    upstream = cast("UpstreamResponse", exchange.upstream_response)
    envelope = envelope_of(exchange, call)
    try:
        body = _whole_body(upstream)
        if call.streaming:
            written, answer = translation.replayed(body, envelope)
        elif framing_of(upstream).streamed:
            written, answer = translation.assembled(body, envelope)
        else:
            written, answer = translation.answer(body, envelope)
    except (Untranslatable, ValueError) as error:
        reason = str(error) if isinstance(error, Untranslatable) else "too long"
        raise TransformationFailed(
            f"transformation failed from type {call.provider}://llm/v1/chat: {reason}"
        ) from error
    call.received = call.first_token = time.perf_counter()
    call.response_model = cut(answer.model)
    call.reader = WholeFacts(translation.usage(answer), answer.model)
    note_losses(call, answer.losses.names())
    return written


def translated_error(exchange: Exchange, call: Call, translation: Translation) -> bytes:
    """The provider's error in the client's format.

    A provider may quote the key that it was given: that is not the client's to know.
    """
    upstream = cast("UpstreamResponse", exchange.upstream_response)
    try:
        body = redact.raw(_whole_body(upstream), exchange.secret_values)
    except Untranslatable:
        body = b""
    call.received = time.perf_counter()
    return translation.error(upstream.status, body, exchange.id)


def _whole_body(upstream: UpstreamResponse) -> bytes:
    decoder = framing_of(upstream).decoder
    pieces, size = [], 0
    for chunk in upstream.chunks:
        pieces.append(chunk if decoder is None else decoder.feed(chunk))
        size += len(pieces[-1])
        if size > MAX_WHOLE_ANSWER:
            raise Untranslatable("too long")
    if decoder is not None and (decoder.broken or not decoder.complete):
        raise Untranslatable("not in a content-coding that can be undone")
    return b"".join(pieces)


def envelope_of(exchange: Exchange, call: Call) -> Envelope:
    """What a translated answer has where the provider's says nothing."""
    translation = call.translation
    return Envelope(
        id=f"msg_{exchange.id}",
        model=call.request_model or "",
        created=exchange.timings.started_at // 1000,
        prompt_estimate=translation.prompt_estimate if translation else 0,
        usage_in_stream=translation.chat.usage_in_stream if translation else False,
    )


def note_losses(call: Call, names: list[str]) -> None:
    """Remember what could not be said in the other's format."""
    call.dropped.update(dict.fromkeys(names))


def compressed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """A body in gzip."""
    coder = zlib.compressobj(wbits=_ANY_GZIP)
    for chunk in chunks:
        if packed := coder.compress(chunk):
            yield packed
    yield coder.flush()

"""From one wire format to another: requests there, answers and streams back.

No format knows another one. A request is read into a `ChatRequest` and written from it;
an answer likewise by way of `ChatAnswer`, and a stream by way of events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kongai.llm.chat import ChatAnswer, ChatRequest, GaveUp, Untranslatable
from kongai.llm.estimate import answer_characters, prompt_tokens
from kongai.llm.events import (
    Counted,
    Ended,
    Event,
    Failed,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolDelta,
    ToolStart,
    assemble,
    replay,
)
from kongai.llm.formats import (
    Dialect,
    Envelope,
    Format,
    ProviderFormat,
    StreamDecoder,
    StreamEncoder,
)
from kongai.llm.tool_names import restore, restored, shorten
from kongai.llm.usage import Usage, estimate_tokens


@dataclass(slots=True)
class WholeFacts:
    """The `AnswerFacts` of an answer that was translated in one piece."""

    usage: Usage = field(default_factory=Usage)
    model: str | None = None
    started: bool = True
    finished: bool = True
    broken: bool = False
    lost: bool = False


class Translation:
    """One exchange between a client and a provider of different formats.

    Args:
        client: the client's format.
        provider: the provider's.
        chat: the client's request.
    """

    def __init__(
        self, client: Format, provider: ProviderFormat, chat: ChatRequest
    ) -> None:
        self._client = client
        self._provider = provider
        self._names: Mapping[str, str] = {}
        self.chat = chat
        self.prompt_estimate = prompt_tokens(chat)
        """About how many tokens the prompt has."""

    def request(self, dialect: Dialect) -> bytes:
        """The request for the provider.

        Raises:
            Untranslatable: it can't be said in the provider's format.
        """
        self._names = shorten(self.chat, dialect.longest_tool_name)
        return self._provider.encode_request(self.chat, dialect)

    def let_go_of_prompt(self) -> None:
        """Keep of the request, once it is written, what its answer needs: little."""
        self.chat.model, self.chat.messages, self.chat.tools = None, [], []
        self.chat.output = None

    def answer(self, body: bytes, envelope: Envelope) -> tuple[bytes, ChatAnswer]:
        """A whole answer for the client, and what it says.

        Raises:
            Untranslatable: the provider's is no answer.
            GaveUp: it is an error, although its status says otherwise.
        """
        answer = self._provider.decode_answer(body)
        return self._written(answer, envelope), answer

    def assembled(self, stream: bytes, envelope: Envelope) -> tuple[bytes, ChatAnswer]:
        """A whole answer for a client that did not ask for the stream that came.

        Raises:
            Untranslatable: the stream is none, or not complete.
            GaveUp: it tells an error.
        """
        decoder = self._provider.stream_decoder()
        events = [*decoder.feed(stream), *decoder.end()]
        for event in events:
            if isinstance(event, Failed):
                raise GaveUp(event.status, event.message)
        if not any(isinstance(event, Ended) for event in events):
            raise Untranslatable("the stream is not complete")
        answer = assemble(events)
        return self._written(answer, envelope), answer

    def replayed(self, body: bytes, envelope: Envelope) -> tuple[bytes, ChatAnswer]:
        """A stream for a client that asked for one and got a whole answer.

        Raises:
            Untranslatable: the provider's is no answer.
            GaveUp: it is an error, although its status says otherwise.
        """
        answer = self._provider.decode_answer(body)
        restore(answer.parts, self._names)
        return self._client.stream_encoder(envelope).encode(replay(answer)), answer

    def stream(self, envelope: Envelope) -> StreamTranslator:
        """A translator for the stream that answers the request."""
        return StreamTranslator(
            self._provider.stream_decoder(),
            self._client.stream_encoder(envelope),
            self._names,
            self.prompt_estimate,
        )

    def error(self, status: int, body: bytes, request_id: str) -> bytes:
        """The provider's error, as the client's format has it."""
        failed = self._provider.decode_error(status, body)
        return self._client.error_body(status, failed.message, request_id)

    def refusal(self, given: GaveUp, request_id: str) -> bytes:
        """What the provider said in the place of an answer, as the client's error."""
        return self._client.error_body(given.status, given.message, request_id)

    def usage(self, answer: ChatAnswer) -> Usage:
        """The usage of an answer, estimated where the provider tells none."""
        if answer.usage is not None and answer.usage.counted:
            return answer.usage
        written = estimate_tokens(answer_characters(answer))
        return Usage(self.prompt_estimate, written, estimated=True)

    def _written(self, answer: ChatAnswer, envelope: Envelope) -> bytes:
        restore(answer.parts, self._names)
        return self._client.encode_answer(answer, envelope)


class StreamTranslator:
    """Turns a provider's stream into the client's, and knows what has passed.

    It has the attributes of `AnswerFacts`.

    Args:
        decoder: of the provider's format.
        encoder: of the client's.
        names: the tools' names as the client knows them.
        prompt_estimate: the tokens of the prompt, should the provider not count them.
    """

    def __init__(
        self,
        decoder: StreamDecoder,
        encoder: StreamEncoder,
        names: Mapping[str, str],
        prompt_estimate: int,
    ) -> None:
        self._decoder = decoder
        self._encoder = encoder
        self._names = names
        self.failure: Untranslatable | None = None
        """Why nothing more of the stream can be translated."""
        self._prompt_estimate = prompt_estimate
        self._characters = 0
        self.usage = Usage()
        self.model: str | None = None
        self.started = self.finished = self.broken = self.lost = False

    def losses(self) -> list[str]:
        """What of the stream could not be said."""
        return [*self._decoder.losses.names(), *self._encoder.losses.names()]

    def translate(self, data: bytes) -> bytes:
        """The next bytes for the client; see `failure` then.

        Raises:
            Untranslatable: the stream is not what it should be.
            ValueError: an event of it is too large.
        """
        return self._passed(self._decoder.feed(data))

    def still_there(self) -> bytes:
        """What keeps a client waiting while the provider is silent."""
        return self._encoder.still_there()

    def end(self) -> bytes:
        """There is no more: the last bytes for the client.

        Raises:
            Untranslatable: the stream is not what it should be.
        """
        rest = self._passed(self._decoder.end())
        self.estimate()
        return rest

    def estimate(self) -> None:
        """Estimate the tokens where the provider gave no count."""
        if not self._characters:
            return
        if not self.usage.counted:
            self.usage.prompt_tokens = self._prompt_estimate
        if not self.usage.completion_tokens:
            self.usage.completion_tokens = estimate_tokens(self._characters)
            self.usage.estimated = True

    def _passed(self, events: list[Event]) -> bytes:
        pieces: list[bytes] = []
        for event in restored(events, self._names):
            self._look_at(event)
            try:
                pieces.append(self._encoder.encode((event,)))
            except Untranslatable as failure:
                self.failure = failure
                break
            # An error ends a stream too: the provider has said how it went.
            self.finished = self.finished or isinstance(event, (Ended, Failed))
        return b"".join(pieces)

    def _look_at(self, event: Event) -> None:
        match event:
            case Started(_, model):
                self.model = model
            case TextDelta(text) | ThinkingDelta(text):
                self._note(len(text))
            case ToolStart(_, _, name):
                self._note(len(name))
            case ToolDelta(_, json):
                self._note(len(json))
            case Counted(usage):
                self.usage = usage
            case _:
                pass

    def _note(self, characters: int) -> None:
        self.started = True
        self._characters += characters

"""A queue between traffic and whoever takes records away over a network.

The rules are those of Kong's plugin queue: batches, a bounded number of waiting
entries of which the oldest give way, retries that come at ever longer intervals. One
thread per queue does the work, so that an exchange waits for nobody.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta

from kongai.errors import whereabouts
from kongai.forks import forget_in_children

GRACE_SECONDS = 5.0
"""How long a queue that is closed may take to deliver what it has accepted."""

_logger = logging.getLogger("kongai")


class DeliveryError(Exception):
    """A batch could not be delivered; the text says why and holds no secret."""


class Sender(Protocol):
    """Delivers batches; used by one thread alone."""

    def send(self, entries: Sequence[bytes]) -> None:
        """Deliver a batch.

        Raises:
            DeliveryError: it did not arrive; the queue tries again.
        """

    def close(self) -> None:
        """Let go of connections."""


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a queue, as Kong names them; times in seconds."""

    max_batch_size: Annotated[int, Meta(ge=1, le=1000000)] = 1
    max_coalescing_delay: Annotated[float, Meta(ge=0, le=3600)] = 1
    max_entries: Annotated[int, Meta(ge=1, le=1000000)] = 10000
    max_bytes: int | None = None
    initial_retry_delay: Annotated[float, Meta(ge=0.001, le=1000000)] = 0.01
    max_retry_time: float = 60
    max_retry_delay: Annotated[float, Meta(ge=0.001, le=1000000)] = 60
    concurrency_limit: Literal[1, -1] = 1


class Delivery:
    """A queue and the thread that empties it, which starts with the first entry.

    A process that forks leaves its entries with the parent; the child has a queue and a
    thread of its own. What is still waiting at the end of the interpreter is delivered
    as by `close`.

    Args:
        name: whose queue it is, for the log.
        sender: makes what delivers; called on the queue's thread.
        queue: the settings.
    """

    def __init__(
        self, name: str, sender: Callable[[], Sender], queue: Queue | None = None
    ) -> None:
        self._name = name
        self._sender = sender
        self._queue = Queue() if queue is None else queue
        self._lock = threading.Lock()
        self._worker: _Worker | None = None
        self._ending: list[tuple[_Worker, float]] = []
        """Those that were told to end, and when."""
        forget_in_children(self)

    def put(self, entry: bytes) -> None:
        """Accept an entry; never waits for a delivery."""
        with self._lock:
            if self._worker is None:
                self._worker = _Worker(self._name, self._sender, self._queue)
                atexit.register(self.close)
            self._worker.put(entry)

    def prepare_close(self) -> None:
        """Begin to deliver what was accepted; the time that `close` gives starts."""
        with self._lock:
            worker, self._worker = self._worker, None
            if worker is not None:
                self._ending.append((worker, time.monotonic()))
                worker.end()

    def close(self, grace: float = GRACE_SECONDS) -> None:
        """Deliver what was accepted; what can't be delivered soon is lost and logged.

        Args:
            grace: the most seconds to take.
        """
        self.prepare_close()
        with self._lock:
            ending, self._ending = self._ending, []
        atexit.unregister(self.close)
        for worker, since in ending:
            worker.stop(max(0.0, since + grace - time.monotonic()))

    def forget(self) -> None:
        """Start over in a process that was forked: threads and locks stayed behind."""
        self._lock, self._worker, self._ending = threading.Lock(), None, []


class _Worker:
    def __init__(
        self, name: str, sender: Callable[[], Sender], settings: Queue
    ) -> None:
        self._name = name
        self._settings = settings
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._in_hand = 0
        self._full = False
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(sender,), name=f"kongai-{name}", daemon=True
        )
        self._thread.start()

    def put(self, entry: bytes) -> None:
        with self._changed:
            if not self._make_room(len(entry)):
                return
            self._waiting.append(entry)
            self._bytes += len(entry)
            self._changed.notify()

    def end(self) -> None:
        self._stopping.set()
        with self._changed:
            self._changed.notify()

    def stop(self, grace: float) -> None:
        self._thread.join(grace)
        if not self._thread.is_alive():
            return
        with self._changed:
            lost = self._in_hand + len(self._waiting)
            self._waiting.clear()
        self._error(f"could not send entries before the end; {lost} were lost")

    def _make_room(self, size: int) -> bool:
        """Drop the oldest entries in favour of a new one; False if it is too big."""
        settings, waiting = self._settings, self._waiting
        most = settings.max_bytes
        if most is not None and size > most:
            self._error(f"an entry of {size} bytes is over max_bytes; it is lost")
            return False
        full = len(waiting) >= settings.max_entries
        while waiting and (
            len(waiting) >= settings.max_entries
            or (most is not None and self._bytes + size > most)
        ):
            self._bytes -= len(waiting.popleft())
            full = True
        if full and not self._full:
            self._error(
                "queue full, dropping old entries until processing is successful again"
            )
        # Said once, until there is a delivery.
        self._full = self._full or full
        return True

    def _run(self, make_sender: Callable[[], Sender]) -> None:
        sender: Sender | None = None
        while batch := self._next_batch():
            try:
                sender = make_sender() if sender is None else sender
                self._deliver(sender, batch)
            except Exception as error:
                # The next entry is to have its chance.
                reason = f"{whereabouts(error)}; {len(batch)} were lost"
                self._error(f"could not send entries ({reason})")
        if sender is not None:
            sender.close()

    def _next_batch(self) -> list[bytes]:
        """Wait for a batch; empty when there will be none any more."""
        settings, waiting = self._settings, self._waiting
        with self._changed:
            self._in_hand = 0
            while not waiting:
                if self._stopping.is_set():
                    return []
                self._changed.wait()
            until = time.monotonic() + settings.max_coalescing_delay
            while len(waiting) < settings.max_batch_size:
                left = until - time.monotonic()
                if self._stopping.is_set() or left <= 0:
                    break
                self._changed.wait(left)
            size = min(len(waiting), settings.max_batch_size)
            batch = [waiting.popleft() for _ in range(size)]
            self._bytes -= sum(map(len, batch))
            self._in_hand = len(batch)
        return batch

    def _deliver(self, sender: Sender, batch: list[bytes]) -> None:
        settings = self._settings
        began, delay = time.monotonic(), settings.initial_retry_delay
        failed = False
        while (reason := _failure(sender, batch)) is not None:
            # Once it is to end, each batch has one more chance.
            over = time.monotonic() - began > settings.max_retry_time
            if over or self._stopping.is_set():
                self._error(
                    f"could not send entries ({reason}); {len(batch)} were lost"
                )
                return
            if not failed:
                failed = True
                _logger.warning(
                    "%s: could not send entries (%s); trying again", self._name, reason
                )
            self._stopping.wait(min(delay, settings.max_retry_delay))
            delay = min(delay * 2, settings.max_retry_delay)
        self._full = False

    def _error(self, text: str) -> None:
        _logger.error("%s: %s", self._name, text)


def _failure(sender: Sender, batch: list[bytes]) -> str | None:
    """Deliver; the reason why not, None when it arrived."""
    try:
        sender.send(batch)
    except DeliveryError as error:
        return str(error)
    except Exception as error:
        return whereabouts(error)
    return None


def seconds(milliseconds: float) -> float:
    """A time-out as Kong's log plugins have it; 0 and less is 60 seconds, nginx's."""
    return milliseconds / 1000 if milliseconds > 0 else 60.0

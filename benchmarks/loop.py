"""The event loop of the mock and of the load: uvloop where it is installed."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeVar

T = TypeVar("T")
_HEEDED = (signal.SIGINT, signal.SIGTERM)


def has_uvloop() -> bool:
    """Whether uvloop is installed; without it the mock and the load are slower."""
    return find_spec("uvloop") is not None


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, as `asyncio.run` does.

    Raises:
        KeyboardInterrupt: SIGINT came meanwhile.
        SystemExit: SIGTERM came meanwhile.
    """
    loop = _new_loop()
    try:
        asyncio.set_event_loop(loop)
        task = loop.create_task(main)
        with _cancelled_by_signals(loop, task) as came:
            try:
                return loop.run_until_complete(task)
            except asyncio.CancelledError:
                if not came:
                    raise
        if signal.SIGTERM in came:
            sys.exit(128 + signal.SIGTERM)
        raise KeyboardInterrupt
    finally:
        loop.run_until_complete(_finish())
        asyncio.set_event_loop(None)
        loop.close()


@contextmanager
def _cancelled_by_signals(
    loop: asyncio.AbstractEventLoop, task: asyncio.Task[T]
) -> Iterator[list[signal.Signals]]:
    """Within, signals cancel a task.

    What a handler raises in the middle of a callback, the loop would log and forget.
    """
    came: list[signal.Signals] = []

    def cancel(number: signal.Signals) -> None:
        came.append(number)
        task.cancel()

    before = {number: signal.getsignal(number) for number in _HEEDED}
    for number in _HEEDED:
        loop.add_signal_handler(number, cancel, number)
    try:
        yield came
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


async def _finish() -> None:
    """Let what was closed or given up come to its end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0)


def _new_loop() -> asyncio.AbstractEventLoop:
    if has_uvloop():
        loop: asyncio.AbstractEventLoop = import_module("uvloop").new_event_loop()
        return loop
    return asyncio.new_event_loop()

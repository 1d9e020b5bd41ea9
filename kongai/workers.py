"""Several server processes: their parent starts them, replaces them, and passes on
the signals it gets.

The parent does nothing else. It waits for signals, which it keeps blocked, so that none
comes at the wrong moment; the workers share nothing but their counters and the text of
the configuration.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import time
from collections.abc import Callable
from typing import NoReturn

from kongai.errors import whereabouts
from kongai.scoreboard import Count, Scoreboard
from kongai.server import HEEDED, fork, wait_for_any

_logger = logging.getLogger("kongai")
_READY = signal.SIGUSR2
"""What a worker sends to its parent when it takes connections."""
_HEEDED = {*HEEDED, _READY, signal.SIGCHLD}
_TICK = 1.0
"""Seconds after which the parent looks around without a signal, and for which it waits
before it replaces a worker that has not lived longer than that."""
_KILL_AFTER = 5.0
"""Seconds that a worker may take to stop on top of the grace for its answers."""


class Supervisor:
    """Runs a number of workers until it is told to stop.

    Args:
        work: what a worker does, in a process of its own: called with its number, from
            0, and a descriptor that becomes readable when the parent is gone. It has to
            call `tell_ready` once it takes connections.
        board: the workers' counters, a row for each.
        reload: called on SIGHUP; says which signal the workers are to get then.
        started: called once, when all workers take connections.
        grace: seconds that running answers have when it stops.
    """

    def __init__(
        self,
        work: Callable[[int, int], None],
        board: Scoreboard,
        *,
        reload: Callable[[], signal.Signals],
        started: Callable[[], None],
        grace: float,
    ) -> None:
        self._work = work
        self._board = board
        self._reload = reload
        self._started = started
        self._grace = grace
        self._running: dict[int, int] = {}
        """Which worker has which process id."""
        self._born: dict[int, float] = {}
        self._due: dict[int, float] = {}
        """When to start a worker again."""
        self._all_started = False
        self._stopping_since: float | None = None
        self._failed = False
        # Only the parent has its writing end, so it closes with the parent. A file,
        # because gevent's os.close() waits for the event loop.
        self._alive, writer = os.pipe()
        self._alive_writer = os.fdopen(writer, "wb")

    def run(self) -> int:
        """Supervise.

        Returns:
            The exit code: 0, or 1 if the workers could not start.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEEDED)
        for worker in range(self._board.processes):
            self._start(worker)
        while self._running or (self._due and self._stopping_since is None):
            heard = signal.sigtimedwait(_HEEDED, _TICK)
            if heard is not None:
                self._heed(signal.Signals(heard.si_signo))
            self._look_around()
        self._alive_writer.close()
        os.close(self._alive)
        return 1 if self._failed else 0

    def _heed(self, number: signal.Signals) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop()
        elif number == signal.SIGHUP:
            self._pass_on(self._reload())
        elif number == signal.SIGUSR1:
            self._pass_on(number)
        elif number == _READY and self._have_just_started():
            self._all_started = True
            self._started()

    def _have_just_started(self) -> bool:
        return not self._all_started and all(self._board.each(Count.READY))

    def _look_around(self) -> None:
        while True:
            pid, status = wait_for_any()
            if not pid:
                break
            self._bury(pid, status)
        if self._stopping_since is not None:
            if time.monotonic() > self._stopping_since + self._grace + _KILL_AFTER:
                self._pass_on(signal.SIGKILL)
            return
        for worker, due in list(self._due.items()):
            if time.monotonic() >= due:
                self._start(worker)

    def _bury(self, pid: int, status: int) -> None:
        worker = self._running.pop(pid, None)
        if worker is None:
            return
        self._board.clear(worker)
        if self._stopping_since is not None:
            return
        code = os.waitstatus_to_exitcode(status)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if not self._all_started:
            _logger.error("a worker could not start (%s)", how)
            self._failed = True
            self._stop()
            return
        _logger.error("worker %d died (%s); another takes its place", pid, how)
        lived = time.monotonic() - self._born[worker]
        self._due[worker] = time.monotonic() + (_TICK if lived < _TICK else 0)

    def _start(self, worker: int) -> None:
        self._due.pop(worker, None)
        self._born[worker] = time.monotonic()
        pid = fork()
        if pid == 0:
            self._become(worker)
        self._running[pid] = worker

    def _become(self, worker: int) -> NoReturn:
        """Be a worker, and nothing of the parent any more."""
        code = 1
        try:
            self._alive_writer.close()
            # What it heeds itself it unblocks when it does.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEEDED - HEEDED)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._work(worker, self._alive)
            code = 0
        except BaseException as error:
            _logger.error("worker: %s", whereabouts(error))
        finally:
            # What os._exit() leaves out: journals and queues end well.
            atexit._run_exitfuncs()
            os._exit(code)

    def _stop(self) -> None:
        if self._stopping_since is None:
            self._stopping_since = time.monotonic()
            self._due.clear()
        self._pass_on(signal.SIGTERM)

    def _pass_on(self, number: signal.Signals) -> None:
        for pid in self._running:
            os.kill(pid, number)


def tell_ready(parent: int) -> None:
    """Say to the parent that this worker takes connections.

    Args:
        parent: its process id; whoever has adopted the worker since is not told.
    """
    if os.getppid() == parent:
        os.kill(parent, _READY)

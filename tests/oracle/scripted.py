"""Upstreams that do what a case says."""

from __future__ import annotations

from tests.live.upstream import Connection, FakeUpstream, Request

_ANSWER = "send: HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_BETWEEN_ANSWER_AND_CLOSE = 0.08


class Scripted:
    """An upstream that follows one script for each request, until it gets another."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.followed = 0
        self.upstream = FakeUpstream(self._follow)

    def script(self, steps: list[str] | str) -> None:
        """Say what to do with each request from now on."""
        known = {"FLAKY": ["close"], "FLAKYR": ["reset"]}
        self.flaky = known.get(steps if isinstance(steps, str) else "")
        self.steps = [_ANSWER] if isinstance(steps, str) else steps
        self.followed = 0
        self.upstream.requests.clear()

    def _follow(self, request: Request, connection: Connection) -> None:
        self.followed += 1
        steps = self.steps
        if self.flaky and self.followed == 1:
            steps = self.flaky
        for step in steps:
            word, _, value = step.partition(": ")
            if word == "send":
                connection.send(value.encode("latin-1"))
            elif word == "sleep":
                connection.sleep(float(value))
            elif word == "hang":
                connection.sleep(1.2)
            elif word == "close":
                connection.close()
                return
            elif word == "reset":
                connection.reset()
                return
            else:
                raise AssertionError(f"what is {step!r}?")


ANSWER = [_ANSWER]
ANSWER_AND_CLOSE = [_ANSWER, f"sleep: {_BETWEEN_ANSWER_AND_CLOSE}", "close"]

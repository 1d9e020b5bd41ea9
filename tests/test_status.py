from __future__ import annotations

import os

import pytest
from werkzeug.test import Client

from kongai import __version__
from kongai.scoreboard import Count, Scoreboard
from kongai.status import application


def client(board: Scoreboard, *, ready: bool = True) -> Client:
    return Client(application(board, lambda: ready, lambda: "abc"))


def test_the_numbers_are_those_of_all_processes() -> None:
    board = Scoreboard(2)
    numbers = {
        Count.PID: os.getpid(),
        Count.ACCEPTED: 10,
        Count.CONNECTIONS: 4,
        Count.TURNED_AWAY: 1,
        Count.REQUESTS: 20,
        Count.EXCHANGES: 3,
    }
    for process in range(2):
        row = board.row(process)
        for count, number in numbers.items():
            row[count] = number
    answer = client(board).get("/status")
    assert answer.json == {
        "server": {
            "connections_accepted": 20,
            "connections_active": 8,
            "connections_handled": 18,
            "connections_waiting": 2,
            "connections_writing": 6,
            "total_requests": 40,
        },
        "workers": [os.getpid()] * 2,
        "configuration_hash": "abc",
        "version": __version__,
    }


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
def test_ready_is_another_question_than_alive(ready: bool, status: int) -> None:
    asked = client(Scoreboard(), ready=ready)
    assert asked.get("/status/ready").status_code == status
    assert asked.get("/healthz").status_code == 200


def test_there_is_nothing_else() -> None:
    asked = client(Scoreboard())
    assert asked.get("/").status_code == 404
    answer = asked.post("/status")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert asked.head("/status").get_data() == b""
    assert asked.get("/status").headers["cache-control"] == "no-store"

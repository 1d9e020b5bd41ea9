from __future__ import annotations

import queue
import time

import pytest

from kongai.idle import IdleConnections


class Connection:
    closed = False

    def close(self) -> None:
        self.closed = True


def test_the_last_to_come_is_the_next_to_go() -> None:
    idle, connections = IdleConnections(3), [Connection() for _ in range(3)]
    for connection in connections:
        idle.put(connection)
    assert idle.qsize() == 3
    assert [idle.get() for _ in range(3)] == connections[::-1]
    with pytest.raises(queue.Empty):
        idle.get()


def test_there_is_room_for_so_many() -> None:
    idle = IdleConnections(1)
    idle.put(None)  # a connection to be takes no room
    idle.put(Connection())
    with pytest.raises(queue.Full):
        idle.put(Connection())
    assert idle.qsize() == 1


def test_old_ones_are_closed_and_the_others_stay() -> None:
    idle, old, new = IdleConnections(3), [Connection(), Connection()], Connection()
    for connection in old:
        idle.put(connection)
    between = time.monotonic()
    while time.monotonic() == between:
        pass
    idle.put(new)
    idle.close_older(between)
    assert [connection.closed for connection in (*old, new)] == [True, True, False]
    assert idle.qsize() == 1
    assert idle.get() is new

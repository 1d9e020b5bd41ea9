from __future__ import annotations

import socket

import pytest

from kongai.socket_options import notice_silent_deaths, reset_on_close, send_at_once


def test_the_options_are_set() -> None:
    with socket.socket() as sock:
        send_at_once(sock)
        notice_silent_deaths(sock, 2.5)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        limit = getattr(socket, "TCP_USER_TIMEOUT", None)
        assert limit is None or sock.getsockopt(socket.IPPROTO_TCP, limit) == 2500
        notice_silent_deaths(sock, 1e9)


def test_a_reset_is_no_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname(), timeout=5)
        accepted, _ = listener.accept()
    with peer:
        reset_on_close(accepted)
        accepted.close()
        with pytest.raises(ConnectionResetError):
            peer.recv(1)

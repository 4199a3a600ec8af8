"""What the sockets of accepted connections are set to."""

import socket

import pytest

from server.connections import prepare


@pytest.mark.parametrize(("option", "expected"), [("TCP_NODELAY", 1), ("TCP_USER_TIMEOUT", 2500)])
def test_an_accepted_connection_inherits_it(option: str, expected: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        prepare(listener, write_seconds=2.5)

        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, getattr(socket, option)) == expected

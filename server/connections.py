"""What accepted connections inherit from the socket that listens."""

import socket


def prepare(listener: socket.socket, write_seconds: float) -> None:
    """Send every write at once, and have the kernel end a connection that takes nothing for `write_seconds`.

    asyncio turns Nagle's algorithm off on its own sockets, not on those that come from a listener it was given: the
    event after the headers would wait for the client's delayed acknowledgement, some 40 ms. And what waits for a client
    that is gone is memory.
    """
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(write_seconds * 1000))

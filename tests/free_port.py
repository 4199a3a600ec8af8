"""A port for a server that is told which one to take."""

import random
import socket


def free_port() -> int:
    """Outside of the range from which the kernel takes ports for clients, so that none of those gets it meanwhile."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port

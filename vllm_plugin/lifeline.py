"""A worker does not outlive the server: vLLM's processes would otherwise stay, and keep their memory, after `kill -9`.

The server leaves its name in the environment, which its processes inherit. A worker on another machine cannot see it
and lives on; there, vLLM's own executor ends it.
"""

import os
import socket
import threading
import time
from collections.abc import Callable

VARIABLE = "PROXY_PLUGIN_SERVER"
_LOOK_SECONDS = 1.0


def leave_name() -> None:
    """In the server, before it starts vLLM."""
    os.environ[VARIABLE] = f"{os.getpid()}@{socket.gethostname()}"


def end_with_server(end: Callable[[], None] = lambda: os._exit(1)) -> None:
    """In a worker: call `end` when the server is gone. vLLM's engine core ends when a worker does."""
    pid, _, host = os.environ.get(VARIABLE, "").partition("@")
    if host == socket.gethostname():
        threading.Thread(target=_watch, args=(int(pid), end), name="lifeline", daemon=True).start()


def _watch(pid: int, end: Callable[[], None]) -> None:
    while _is_alive(pid):
        time.sleep(_LOOK_SECONDS)
    end()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

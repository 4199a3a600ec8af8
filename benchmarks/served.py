"""A server of its own process for a benchmark's time."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

START_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Server:
    """One that is ready."""

    url: str
    process_id: int


@contextmanager
def served(*flags: str, threads: int = 0) -> Iterator[Server]:
    """A server on a free port, of the demo LLM unless `flags` say otherwise, which ends with the block.

    0 threads leave their number to it.
    """
    command = [
        sys.executable,
        "-m",
        "cli.main",
        "serve",
        "--port",
        "0",
        "--log-level",
        "error",
        "--draft-tokens",
        "0",
        *flags,
    ]
    if threads:
        command += ["--threads", str(threads)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        deadline = time.monotonic() + START_SECONDS
        try:
            while (found := re.search(r"ready on (\S+)", process.stdout.readline())) is None:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the server did not start")
            yield Server(found[1], process.pid)
        finally:
            process.send_signal(signal.SIGTERM)

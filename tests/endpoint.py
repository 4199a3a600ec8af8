"""A real HTTP server on a port of its own; what it says to GET and POST is up to the test."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True)
class Asked:
    """A request."""

    body: bytes
    authorization: str | None


Answer = Callable[[Asked], tuple[int, bytes]]
"""From a request to the status and the body; called on a thread for each connection."""


@contextmanager
def listening(answer: Answer) -> Iterator[str]:
    """The URL at which `answer` is given to whatever is asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers["content-length"] or 0)
            status, body = answer(Asked(self.rfile.read(length), self.headers["authorization"]))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - as the base class calls it

        def log_message(self, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()

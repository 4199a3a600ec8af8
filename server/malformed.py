"""What is no HTTP is answered before there is an application to ask; here with OpenAI's envelope as well."""

import json
from collections.abc import Iterator

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.errors import invalid

_BEFORE_AN_ANSWER = (h11.IDLE, h11.SEND_RESPONSE)


class HttpProtocol(H11Protocol):
    """uvicorn's, but for its own 400, which is plain text."""

    def send_400_response(self, msg: str) -> None:
        """Answer `msg` and close; only close where an answer is on its way already."""
        if self.conn.our_state in _BEFORE_AN_ANSWER:
            for event in _answer(msg):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def _answer(message: str) -> Iterator[h11.Event]:
    body = json.dumps(invalid(message, param=None, code="invalid_http").envelope()).encode()
    headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
    yield h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
    yield h11.Data(data=body)
    yield h11.EndOfMessage()

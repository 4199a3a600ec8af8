"""The line of every HTTP request, and logs for people. Prompts are never logged."""

import logging
import time
from datetime import UTC, datetime
from typing import Any

from proxy_model.json_log import STANDARD
from server.exchange import Exchange

logger = logging.getLogger("server.requests")


class TextFormatter(logging.Formatter):
    """The same for people: time, level and message, then `name=value` for whatever came as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        extra = {key: value for key, value in vars(record).items() if key not in STANDARD and value is not None}
        words = [moment, record.levelname, record.getMessage(), *(f"{key}={_quoted(extra[key])}" for key in extra)]
        line = " ".join(words)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def log_request(method: str, route: str, status: int, began: float, exchange: Exchange) -> None:
    """One HTTP request has been answered; `began` is of `time.perf_counter`."""
    extra = {
        "method": method,
        "route": route,
        "status": status,
        "seconds": round(time.perf_counter() - began, 6),
        **exchange.facts(),
    }
    level = logging.DEBUG if route in ("/health", "/ready", "/metrics") else logging.INFO
    logger.log(level, "request", extra=extra)


def _quoted(value: Any) -> str:
    text = str(value)
    return (
        text if text and all(character.isprintable() and character not in ' "=' for character in text) else repr(text)
    )

"""Structured logs, one JSON object a line, and the line of every HTTP request. Prompts are never logged."""

import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any, Literal

from server.exchange import Exchange

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}

logger = logging.getLogger("server.requests")


class JsonFormatter(logging.Formatter):
    """time, level, logger, message, whatever came as `extra`, and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """The same for people: time, level and message, then `name=value` for whatever came as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        extra = {key: value for key, value in vars(record).items() if key not in _STANDARD and value is not None}
        words = [moment, record.levelname, record.getMessage(), *(f"{key}={_quoted(extra[key])}" for key in extra)]
        line = " ".join(words)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure_logging(level: str, form: Literal["json", "text"] = "json") -> None:
    """Everything to stderr, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter({"json": JsonFormatter, "text": TextFormatter}[form]())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in ("uvicorn", "uvicorn.error", "httpx", "httpcore", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)


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

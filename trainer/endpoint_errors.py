"""What an endpoint of OpenAI's API says when it does not answer."""

import httpx

MAX_WAIT_SECONDS = 60.0
_MAX_QUOTED = 200


def said(response: httpx.Response, key: str | None) -> str:
    """The error's message, without the key."""
    try:
        text = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        text = response.text
    return (text.replace(key, "***") if key else text)[:_MAX_QUOTED]


def retry_after_seconds(response: httpx.Response) -> float:
    """How long it asks to be left alone, at most `MAX_WAIT_SECONDS`; 0 where it does not say."""
    given = response.headers.get("Retry-After", "")
    return min(MAX_WAIT_SECONDS, float(given)) if given.isdecimal() else 0.0

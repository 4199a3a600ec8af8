"""Log-probabilities in the form of completions: four columns, and a place in the text for every token."""

from proxy_model.decoding.request import TokenLogprob
from server.generation.choice import TextToken, finite
from server.schemas.completion_response import CompletionLogprobs


def no_logprobs() -> CompletionLogprobs:
    """The columns of no token."""
    return CompletionLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])


def append_start(columns: CompletionLogprobs, text: str, offset: int) -> int:
    """Add a token that nothing comes before; returns where the next one begins."""
    columns.tokens.append(text)
    columns.token_logprobs.append(None)
    columns.top_logprobs.append(None)
    columns.text_offset.append(offset)
    return offset + len(text)


def append(columns: CompletionLogprobs, token: TextToken, offset: int) -> int:
    """Add a token that begins at `offset`; returns where the next one begins."""
    columns.tokens.append(token.text)
    columns.token_logprobs.append(finite(token.logprob.logprob))
    columns.top_logprobs.append(_top(token.logprob))
    columns.text_offset.append(offset)
    return offset + len(token.text)


def extend(columns: CompletionLogprobs, more: CompletionLogprobs) -> None:
    """Add the rows of `more`, which follow."""
    columns.tokens.extend(more.tokens)
    columns.token_logprobs.extend(more.token_logprobs)
    columns.top_logprobs.extend(more.top_logprobs)
    columns.text_offset.extend(more.text_offset)


def _top(logprob: TokenLogprob) -> dict[str, float]:
    """The likeliest tokens and the one that came; where two show alike the likelier one stays."""
    top: dict[str, float] = {}
    for _, text, data, value in logprob.top:
        top.setdefault(_name(text, data), finite(value))
    top.setdefault(_name(logprob.text, logprob.bytes), finite(logprob.logprob))
    return top


def _name(text: str, data: bytes) -> str:
    """A token as a key: its text, or its bytes where they are no whole characters."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
    return text

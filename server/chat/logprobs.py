"""Log-probabilities in the form of chat answers: no entry for a token without text."""

from collections.abc import Iterable

from server.generation.choice import TextToken, finite
from server.schemas.chat_response import TokenLogprob, TopLogprob


def chat_logprobs(tokens: Iterable[TextToken]) -> list[TokenLogprob]:
    """One entry for each token that has bytes."""
    return [_entry(token) for token in tokens if token.logprob.bytes]


def _entry(token: TextToken) -> TokenLogprob:
    return TokenLogprob(
        token=token.text,
        logprob=finite(token.logprob.logprob),
        bytes=list(token.logprob.bytes),
        top_logprobs=[
            TopLogprob(token=name, logprob=finite(value), bytes=list(data))
            for _, name, data, value in token.logprob.top
        ],
    )

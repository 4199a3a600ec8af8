"""The LLM's vocabulary as llguidance takes it: the bytes of every token, which ones end, and how text is tokenised."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from llguidance import LLTokenizer, TokenizerWrapper

from proxy_model.llm.tokenizer import ChatTokenizer


@runtime_checkable
class Vocabulary(Protocol):
    """What a grammar must know of an LLM."""

    @property
    def tokenizer(self) -> ChatTokenizer: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def end_token_ids(self) -> frozenset[int]: ...


def grammar_vocabulary(llm: Vocabulary) -> LLTokenizer:
    """Byte-level and SentencePiece vocabularies alike, since tokens stand for the bytes that the client will see."""
    tokens = _Tokens(llm)
    vocabulary = LLTokenizer(
        TokenizerWrapper(tokens),
        n_vocab=llm.vocab_size,
        eos_token=sorted(llm.end_token_ids),
        slices=LLTokenizer.json_slices(),
    )
    tokens.split_greedily = vocabulary.greedy_tokenize
    return vocabulary


class _Tokens:
    """What `TokenizerWrapper` asks of a tokenizer."""

    def __init__(self, llm: Vocabulary) -> None:
        self._encode = llm.tokenizer.encode
        self.eos_token_id = min(llm.end_token_ids)
        self.bos_token_id = None
        self.tokens = [llm.tokenizer.token_bytes(token) for token in range(llm.vocab_size)]
        self.special_token_ids = sorted(token for token in llm.tokenizer.special_ids if token < llm.vocab_size)
        self.split_greedily: Callable[[str], list[int]]

    def __call__(self, text: str | bytes) -> list[int]:
        """Tokens of a text that the grammar leaves no choice about, as the LLM is used to see it.

        SentencePiece puts a space in front of a text that is encoded alone; such a text is split by longest matches.
        """
        if isinstance(text, bytes):
            raise TypeError("text only")
        token_ids = self._encode(text)
        is_exact = b"".join(self.tokens[token] for token in token_ids if token < len(self.tokens)) == text.encode()
        return token_ids if is_exact else self.split_greedily(text)

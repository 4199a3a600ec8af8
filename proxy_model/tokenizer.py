"""Text to token ids and back, through the tokenizer that belongs to the LLM."""

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any

from proxy_model.errors import InvalidParameter

Message = dict[str, str]
"""One chat message: `role` and `content`."""

_PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


class ChatTokenizer:
    """A transformers tokenizer with its chat template; a model that has none gets `role: content` lines."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.chat_template: str = tokenizer.chat_template or _PLAIN_TEMPLATE
        self._byte_of_character = _byte_level_alphabet() if _is_byte_level(tokenizer) else None

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, special tokens in it read as plain text, none added."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of `token_ids`, special tokens left out; broken UTF-8 at the ends shows as U+FFFD."""
        text: str = self._tokenizer.decode(
            list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def apply_chat_template(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation, ready for the assistant's turn. Raises `InvalidParameter` if refused."""
        try:
            text: str = self._tokenizer.apply_chat_template(
                list(messages), chat_template=self.chat_template, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # templates raise whatever jinja raises; all of it is about the messages
            raise InvalidParameter(
                "messages", [m["role"] for m in messages], f"what the chat template takes ({error})"
            ) from error
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one token stands for; empty for special tokens and ids past the vocabulary."""
        token = self._tokenizer.convert_ids_to_tokens(int(token_id))
        if token is None or token_id in self._tokenizer.all_special_ids:
            return b""
        if self._byte_of_character is not None and all(character in self._byte_of_character for character in token):
            return bytes(self._byte_of_character[character] for character in token)
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes([int(token[3:5], 16)])
        return str(token).replace("\u2581", " ").encode()

    def token_name(self, token_id: int) -> str:
        """How the vocabulary spells a token, special ones included; empty past the vocabulary."""
        return str(self._tokenizer.convert_ids_to_tokens(int(token_id)) or "")

    @property
    def digest(self) -> str:
        """A hash over the vocabulary: equal tokenizers map every text to the same ids."""
        vocabulary = sorted(self._tokenizer.get_vocab().items(), key=lambda item: item[1])
        return hashlib.sha256(repr(vocabulary).encode()).hexdigest()[:16]

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that never show as text."""
        return frozenset(self._tokenizer.all_special_ids)


def _is_byte_level(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and "ByteLevel" in repr(backend.decoder)


@cache
def _byte_level_alphabet() -> dict[str, int]:
    """The characters that byte-level BPE writes for the 256 bytes (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + index): byte for index, byte in enumerate(others)}

"""Text to token ids and back, through the tokenizer that belongs to the LLM."""

import codecs
import hashlib
from collections.abc import Sequence
from functools import cache, cached_property
from itertools import accumulate, pairwise
from typing import Any

from proxy_model.errors import InvalidParameter
from proxy_model.llm.tool_format import PROBE, ToolFormat, find_tool_format

Message = dict[str, Any]
"""One chat message: `role`, `content` and whatever else the chat template reads."""

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

    def encode_prompt(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a raw prompt: special tokens in it are read as such, those that the LLM expects are added."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]
        return ids

    def document_start(self) -> list[int]:
        """What an empty prompt means: the token that texts begin with, or else the one that ends them."""
        start = self._tokenizer.bos_token_id
        end = self._tokenizer.eos_token_id
        return [token for token in (start, end) if token is not None][:1]

    def end_of_turn(self) -> list[int]:
        """The token that ends an answer, if the tokenizer says which."""
        end = self._tokenizer.eos_token_id
        return [] if end is None else [end]

    def prompt_pieces(self, text: str, *, add_special_tokens: bool = True) -> list[str]:
        """`text` cut at its tokens, as `encode_prompt` finds them; the pieces join to it, added tokens have none."""
        if not self._tokenizer.is_fast:
            return self.spell(self.encode_prompt(text, add_special_tokens=add_special_tokens))
        read = self._tokenizer(text, add_special_tokens=add_special_tokens, return_offsets_mapping=True)
        ends = [0, *accumulate((end for _, end in read["offset_mapping"]), max)]
        ends[-1] = len(text)
        return [text[start:end] for start, end in pairwise(ends)] or [""]

    def spell(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each token; special ones by name, a character of several tokens belongs to the last of them."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        texts = []
        for token in token_ids:
            data = self.token_bytes(token)
            texts.append(decoder.decode(data) if data else decoder.decode(b"", final=True) + self.token_name(token))
        rest = decoder.decode(b"", final=True)
        return [*texts[:-1], texts[-1] + rest] if rest else texts

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of `token_ids`, special tokens left out; broken UTF-8 at the ends shows as U+FFFD."""
        text: str = self._tokenizer.decode(
            list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[dict[str, Any]] = (),
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        add_special_tokens: bool = False,
        answer_start: str = "",
    ) -> list[int]:
        """Token ids of a conversation, ready for the assistant's turn. Raises `InvalidParameter` if refused.

        `answer_start` is what the assistant has said of its turn already. `continue_final_message` leaves the last
        message open, instead of opening a turn after it.
        """
        text = self._render(messages, tools, add_generation_prompt, continue_final_message) + answer_start
        return self.encode_prompt(text, add_special_tokens=add_special_tokens)

    @cached_property
    def tool_format(self) -> ToolFormat | None:
        """How this LLM writes calls of tools; None if its chat template has none that can be read."""
        return find_tool_format(lambda messages, must_open: self._render(messages, [PROBE], must_open))

    def visible(self, text: str) -> str:
        """What a client sees of a template's text: no special tokens."""
        return self.decode(self.encode_prompt(text, add_special_tokens=False))

    def _render(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        add_generation_prompt: bool,
        continue_final_message: bool = False,
    ) -> str:
        try:
            text: str = self._tokenizer.apply_chat_template(
                list(messages),
                tools=list(tools) or None,
                chat_template=self.chat_template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
            )
        except Exception as error:  # templates raise whatever jinja raises; all of it is about the messages
            raise InvalidParameter(
                "messages", [m["role"] for m in messages], f"what the chat template takes ({error})"
            ) from error
        return text

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

"""A SentencePiece-like tokenizer made on the spot: words begin with U+2581, what is not in it goes byte by byte."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

END = "</s>"
_PIECES = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    '"',
    "0",
    "1",
    "2",
    "7",
    "-",
    ".",
    "\n",
    "a",
    "b",
    "n",
    "e",
    "m",
    "l",
    "t",
    "r",
]
_MERGES = [("\u2581", '"'), ("n", "a"), ("na", "m"), ("nam", "e"), ("{", '"'), ('"', ":"), ('"', "}"), ("\u2581", "a")]


def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """Llama 2's kind: a space is written in front of every text that is encoded."""
    pieces = ["<unk>", "<s>", END, *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *_PIECES]
    pieces += ["".join(pair) for pair in _MERGES]
    backend = Tokenizer(
        models.BPE(
            vocab={piece: index for index, piece in enumerate(pieces)},
            merges=_MERGES,
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, bos_token="<s>", unk_token="<unk>")

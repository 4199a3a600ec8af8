"""A random BERT of three layers with a vocabulary of a few words, as a folder that transformers loads."""

from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast  # type: ignore[attr-defined]


def write_tiny_encoder(folder: Path, seed: int = 0) -> Path:
    """16 wide; other seeds give other weights."""
    folder.mkdir()
    terms = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "yes", "no", "is", "fine", *"0123456789?."]
    terms += [f"##{character}" for character in "0123456789"]
    (folder / "vocab.txt").write_text("\n".join(terms) + "\n", encoding="utf-8")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(
            BertConfig(
                vocab_size=len(terms),
                hidden_size=16,
                num_hidden_layers=3,
                num_attention_heads=2,
                intermediate_size=24,
                max_position_embeddings=256,
            )
        )
    model.save_pretrained(folder)
    return folder

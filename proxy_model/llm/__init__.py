"""The frozen LLM: tokens in, hidden states and logits out. Its weights, its cache and its tokenizer.

`FrozenLLM.advance` is one pass over a packed step (`attention.PackedStep`). Compiled kernels, our decoder in torch or
transformers' own code of the architecture compute it, and tests hold them equal.
"""

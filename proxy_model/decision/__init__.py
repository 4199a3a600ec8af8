"""One decision: what is offered (`skam`), what the proxy reads (`features`), what it says (`policy`), what comes out
(`choice`).

Pure functions of tensors. The decode loop, vLLM's workers and the trainer call the same ones.
"""

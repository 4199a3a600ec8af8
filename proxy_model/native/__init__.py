"""Llama decoders in bfloat16 on x86-64 CPUs with AVX-512 BF16: one call of compiled code is one step.

`llama.c` reads top to bottom; `build.py` compiles it when the package is installed. Where it cannot run (another CPU,
another dtype, shapes it does not take), `proxy_model.llm.llama_decoder` computes the same with torch.
"""

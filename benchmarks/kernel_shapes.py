"""One pass over the layers of Llamas of several widths: compiled kernels beside torch (oneDNN), on random weights.

    OMP_NUM_THREADS=2 python -m benchmarks.kernel_shapes [--threads 2] [--shape 1B --shape 7B] [--rows 1 --rows 8]

A model has as many layers as no cache holds, and the times are a layer's: multiply by the layers of the real one. Both
ways take turns in one process; times are medians over the rounds, ratios within a round.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import torch
import typer
from rich.table import Table

from benchmarks.findings import show
from benchmarks.rounds import Spread, alternate, ratios
from proxy_model.llm.attention import Chunk, PackedStep
from proxy_model.llm.kv_cache import KVCache
from proxy_model.llm.llama_decoder import LlamaDecoder
from proxy_model.llm.native_decoder import NativeLlamaDecoder

ROWS = (1, 2, 4, 8, 16, 32, 64, 256)
PROMPT = 256
"""So many rows are one prompt's, as the engine reads it; fewer are as many sequences that decode."""

PLACE = 100
"""Where sequences are that decode."""

KERNELS, TORCH = "kernels", "torch"


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a Llama."""

    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    num_layers: int
    """That are measured."""

    def model(self) -> Any:
        """With random weights and hardly a vocabulary."""
        from transformers import AutoModelForCausalLM, LlamaConfig

        config = LlamaConfig(
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_attention_heads=self.num_heads,
            num_key_value_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            num_hidden_layers=self.num_layers,
            vocab_size=1024,
            max_position_embeddings=2 * PROMPT,
        )
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


SHAPES = {
    "135M": Shape(576, 1536, 9, 3, 64, 30),
    "1B": Shape(2048, 8192, 32, 8, 64, 4),
    "7B": Shape(4096, 11008, 32, 32, 128, 2),
}
"""SmolLM2's (the demo LLM), Llama 3.2's and Llama 2's."""


def main(
    shape: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(SHAPES)}; repeatable.")] = None,
    rows: Annotated[list[int] | None, typer.Option(help=f"Of a step; {PROMPT} are a prompt's; repeatable.")] = None,
    rounds: int = 9,
    threads: Annotated[int, typer.Option(help="0: torch's own choice.")] = 0,
) -> None:
    """Print the table."""
    if threads:
        torch.set_num_threads(threads)
    table = Table("LLM", "rows", "kernels, ms a layer", "torch, ms a layer", "kernels' speed, of torch's")
    for name in shape or SHAPES:
        ways = _ways(SHAPES[name])
        for number in rows or ROWS:
            milliseconds = alternate({way: partial(measure, number) for way, measure in ways.items()}, rounds)
            medians = (f"{Spread.of(milliseconds[way]).median:.2f}" for way in (KERNELS, TORCH))
            table.add_row(name, str(number), *medians, str(ratios(milliseconds[TORCH], milliseconds[KERNELS])))
    show(table)


def _ways(shape: Shape) -> dict[str, Callable[[int], float]]:
    """Each decoder's milliseconds a layer for a number of rows."""
    model = shape.model()
    return {
        KERNELS: partial(_milliseconds, NativeLlamaDecoder(model, 2 * PROMPT), shape.num_layers),
        TORCH: partial(_milliseconds, LlamaDecoder(model, 2 * PROMPT), shape.num_layers),
    }


@torch.inference_mode()
def _milliseconds(decoder: NativeLlamaDecoder | LlamaDecoder, num_layers: int, num_rows: int) -> float:
    step = _prompt(num_layers) if num_rows == PROMPT else _decoding(num_layers, num_rows)
    decoder.forward(step)  # finds its cache
    started = time.perf_counter()
    decoder.forward(step)
    return 1000 * (time.perf_counter() - started) / num_layers


def _decoding(num_layers: int, num_rows: int) -> PackedStep:
    return PackedStep(
        tokens=torch.arange(num_rows),
        positions=torch.full((num_rows,), PLACE),
        slots=torch.arange(num_rows),
        lengths=(PLACE + 1,) * num_rows,
        cache=KVCache(num_layers, num_rows, PROMPT),
    )


def _prompt(num_layers: int) -> PackedStep:
    return PackedStep(
        tokens=torch.arange(PROMPT),
        positions=torch.arange(PROMPT),
        slots=torch.zeros(PROMPT, dtype=torch.long),
        chunks=(Chunk(0, PROMPT),),
        cache=KVCache(num_layers, 1, PROMPT),
    )


if __name__ == "__main__":
    typer.run(main)

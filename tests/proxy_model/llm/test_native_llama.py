"""Compiled kernels compute what torch does, and no row's numbers depend on its neighbours or on the threads."""

import platform
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import SkamConfig
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.request import GenerationRequest, SamplingParams
from proxy_model.llm.attention import Chunk, PackedStep
from proxy_model.llm.branches import Branches
from proxy_model.llm.frozen_llm import DecoderKind, FrozenLLM, fastest_decoder
from proxy_model.llm.kv_cache import KVCache
from proxy_model.llm.native_linear import PackedLinear
from proxy_model.native.library import load_kernels
from tests.architectures import random_model
from tests.conftest import needs_kernels, steering_policy
from tests.tiny_tokenizer import byte_tokenizer

WIDE = ("llama_wide", "llama_grouped", "qwen2_wide", "qwen3_wide")
TEXTS = [
    torch.randint(8, 1400, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    for length in (1, 3, 17, 64, 130, 7)
]


def _llm(name: str, decoder: DecoderKind | None = None) -> FrozenLLM:
    return FrozenLLM(random_model(name).to(torch.bfloat16), byte_tokenizer(), name, decoder=decoder)


@pytest.fixture(params=[1, 2, 3])
def num_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def _decoding(llm: FrozenLLM, texts: list[list[int]]) -> Tensor:
    """h of each text's last token, read one by one: all texts decode beside each other, token after token."""
    cache = llm.new_cache(len(texts), 256)
    last: list[Tensor] = [torch.empty(0)] * len(texts)
    order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    for position in range(max(map(len, texts))):
        alive = [index for index in order if position < len(texts[index])]
        step = PackedStep(
            tokens=torch.tensor([texts[index][position] for index in alive]),
            positions=torch.full((len(alive),), position),
            slots=torch.arange(len(alive)),
            lengths=(position + 1,) * len(alive),
            cache=cache,
        )
        for index, state in zip(alive, llm.advance(step), strict=True):
            last[index] = state
    return torch.stack(last)


def _chunks(llm: FrozenLLM, cache: KVCache, text: list[int], ends: tuple[int, ...]) -> list[Tensor]:
    """h of a text that is read into slot 2 in steps that end there."""
    steps = (
        PackedStep(
            tokens=torch.tensor(text[start:end]),
            positions=torch.arange(start, end),
            slots=torch.full((end - start,), 2),
            chunks=(Chunk(0, end - start, 2, start),),
            cache=cache,
        )
        for start, end in pairwise((0, *ends))
    )
    return [llm.advance(step) for step in steps]


def test_a_processor_that_can_run_the_kernels_has_them_compiled() -> None:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("no kernels for this kind of machine")

    is_able = "avx512_bf16" in Path("/proc/cpuinfo").read_text()

    assert (load_kernels() is not None) == is_able, "python proxy_model/native/build.py compiles them"


@needs_kernels
@pytest.mark.parametrize("name", WIDE)
def test_states_are_those_of_the_decoder_in_torch(name: str) -> None:
    native, reference = _llm(name), _llm(name, "torch")
    exact = FrozenLLM(random_model(name).to(torch.bfloat16).float(), byte_tokenizer(), name, decoder="torch")

    assert native.decoder_kind == "native"
    for taps in ([2], [1, 3]):
        found = [torch.cat(llm.hidden_states(TEXTS, taps)) for llm in (native, reference, exact)]
        errors = [(each - found[2]).norm() / found[2].norm() for each in found[:2]]
        assert errors[0] < 1.2 * errors[1] < 0.1, "its roundings must be no worse than torch's own in bfloat16"


@needs_kernels
@pytest.mark.parametrize("name", WIDE)
def test_decoding_token_by_token_is_reading_the_whole_text(name: str) -> None:
    llm = _llm(name)

    decoded = _decoding(llm, TEXTS)

    read = torch.stack([states[-1] for states in llm.final_states(TEXTS)])
    assert torch.equal(decoded, read)


@needs_kernels
def test_rows_are_the_same_to_the_bit_alone_and_among_others_on_any_threads(num_threads: int) -> None:
    llm = _llm("qwen2_wide")
    torch.set_num_threads(1)
    alone = torch.cat([_decoding(llm, [text]) for text in TEXTS])
    torch.set_num_threads(num_threads)

    together = _decoding(llm, TEXTS)
    read = torch.stack([states[-1] for states in llm.final_states(TEXTS)])

    assert torch.equal(together, alone)
    assert torch.equal(read, alone)


@needs_kernels
@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize(
    "ends",
    [
        (50, 51, 130),
        (8, 15, 24, 33, 129, 130),  # as few rows as are read together, one fewer, and ends within blocks of 16
    ],
)
def test_a_chunk_reads_what_the_cache_holds_of_its_text_and_nothing_else(name: str, ends: tuple[int, ...]) -> None:
    llm, text = _llm(name), TEXTS[4]
    cache = llm.new_cache(3, 256)
    whole = llm.final_states([text])[0]
    _chunks(llm, cache, text, ends[:1])
    for layer in range(cache.num_layers):
        for tensor in cache.layer(layer):
            tensor.fill_(torch.nan)

    chunks = _chunks(llm, cache, text, ends)

    assert torch.equal(torch.cat(chunks), whole)


@needs_kernels
def test_a_step_may_be_made_of_columns_of_tables() -> None:
    llm = _llm("llama_wide")
    table = torch.stack([torch.tensor([9, 700, 31]), torch.tensor([1, 0, 3]), torch.tensor([2, 0, 1])], dim=1)

    def states(tokens: Tensor, positions: Tensor, slots: Tensor) -> Tensor:
        cache = llm.new_cache(3, 64)
        lengths = tuple((positions + 1).tolist())
        return llm.advance(PackedStep(tokens=tokens, positions=positions, slots=slots, lengths=lengths, cache=cache))

    columns = table.unbind(1)
    assert not any(column.is_contiguous() for column in columns)
    assert torch.equal(states(*columns), states(*(column.contiguous() for column in columns)))


@needs_kernels
@pytest.mark.parametrize(
    ("token", "position", "slot"),
    [(1536, 0, 0), (-1, 0, 0), (5, 256, 0), (5, -1, 0), (5, 64, 0), (5, 0, 2), (5, 0, -1)],
)
def test_a_row_that_is_out_of_bounds_is_refused(token: int, position: int, slot: int) -> None:
    llm = _llm("llama_wide")
    step = PackedStep(
        tokens=torch.tensor([7, token]),
        positions=torch.tensor([3, position]),
        slots=torch.tensor([0, slot]),
        lengths=(4, 4),
        cache=llm.new_cache(2, 64),
    )

    with pytest.raises(IndexError, match="outside of the vocabulary"):
        llm.advance(step)


@needs_kernels
def test_siblings_read_the_prefix_and_themselves_and_leave_the_cache_alone() -> None:
    llm, text = _llm("llama_wide"), TEXTS[2]
    cache = llm.new_cache(2, 64)
    prompt = PackedStep(
        tokens=torch.tensor(text),
        positions=torch.arange(len(text)),
        slots=torch.zeros(len(text), dtype=torch.long),
        chunks=(Chunk(0, len(text)),),
        cache=cache,
    )
    llm.advance(prompt)
    candidates, length = [40, 50, 60], len(text) + 1
    branches = Branches([3], [length], torch.device("cpu"))
    step = PackedStep(
        tokens=torch.tensor(candidates),
        positions=torch.full((3,), length - 1),
        slots=torch.zeros(3, dtype=torch.long),
        lengths=(length,),
        cache=cache,
        branches=branches,
    )

    side_by_side = llm.advance(step)

    expected = torch.stack([states[-1] for states in llm.final_states([[*text, each] for each in candidates])])
    assert torch.equal(side_by_side, expected)
    before = cache.layer(1)[0][0, :, length - 1].clone()
    branches.accept(cache, [(0, 2)])
    assert not torch.equal(cache.layer(1)[0][0, :, length - 1], before)
    follow = [
        PackedStep(
            tokens=torch.tensor([70]),
            positions=torch.tensor([length]),
            slots=torch.tensor([0]),
            lengths=(length + 1,),
            cache=cache,
        )
    ]
    assert torch.equal(llm.advance(follow[0])[0], llm.final_states([[*text, 60, 70]])[0][-1])


@needs_kernels
def test_a_batch_of_everything_answers_as_each_request_alone() -> None:
    llm = _llm("llama_wide")
    skam = SkamConfig(p_t=0.0005, top_p=0.98, max_candidates=12)
    proxies = [None, ProxyRef("prefix", 1), ProxyRef("candidate", 1), ProxyRef("both", 1)]

    def engine() -> Engine:
        made = Engine(llm, EngineConfig(max_running=5, prefill_tokens=16, num_staging=2, max_context=256))
        for seed, ref in enumerate(proxies[1:]):
            assert ref is not None
            made.load_proxy(ref, steering_policy(llm, ref.name, seed=seed), skam)  # type: ignore[arg-type]
        return made

    requests = [
        GenerationRequest(
            id=f"{proxy}/{index}/{temperature}",
            prompt_token_ids=tuple(text),
            params=SamplingParams(max_tokens=16, seed=3, temperature=temperature),
            proxy=proxy,
        )
        for proxy in proxies
        for index, text in enumerate(TEXTS)
        for temperature in (0.0, 0.9)
    ]

    together = engine().generate(requests)

    alone = [engine().generate([request])[0] for request in requests]
    assert [each.token_ids for each in together] == [each.token_ids for each in alone]
    assert sum(each.usage.rejected for each in together) > 100, "the proxies must steer for this to show anything"


@needs_kernels
@pytest.mark.parametrize(
    ("num_inputs", "num_outputs", "has_bias"),
    [
        (2, 64, True),
        (576, 960, False),
        (1536, 64, True),
        (2050, 128, False),  # 16 chunks and a pair
        (4094, 64, True),  # 31 chunks and all but a pair
    ],
)
def test_a_product_is_the_float64_one_rounded_whatever_the_number_of_rows(
    num_inputs: int, num_outputs: int, has_bias: bool, num_threads: int
) -> None:
    generator = torch.Generator().manual_seed(num_inputs)
    weight = torch.randn(num_outputs, num_inputs, generator=generator).bfloat16()
    bias = torch.randn(num_outputs, generator=generator).bfloat16() if has_bias else None
    linear = PackedLinear(weight, bias)
    rows = torch.randn(40, num_inputs, generator=generator).bfloat16()

    products = [linear(rows[:count]) for count in (1, 2, 3, 5, 6, 7, 13, 20, 36, 37, 40)]

    exact = rows.double() @ weight.double().T + (0.0 if bias is None else bias.double())
    scale = float(exact.std())
    assert (products[-1] - exact).abs().max() < 0.02 * scale
    for product in products:
        assert torch.equal(product, products[-1][: len(product)])


def test_other_dtypes_and_shapes_are_left_to_torch() -> None:
    assert fastest_decoder(random_model("llama_wide")) == "torch"
    assert fastest_decoder(random_model("llama_tied").to(torch.bfloat16)) == "torch"
    assert fastest_decoder(random_model("gemma2_softcapped").to(torch.bfloat16)) == "transformers"
    assert not PackedLinear.supports(torch.zeros(64, 64))
    assert not PackedLinear.supports(torch.zeros(65, 64, dtype=torch.bfloat16))

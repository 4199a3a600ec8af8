"""What every request for text understands, with the ranges that OpenAI documents."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from proxy_model.ranges import (
    LOGIT_BIAS,
    MIN_P,
    P_T,
    PENALTY,
    REPETITION_PENALTY,
    SEED,
    SKAM_TEMPERATURE,
    TARGET_RETURN,
    TEMPERATURE,
    TOP_K,
    TOP_P,
)
from server.schemas.bounds import within
from server.schemas.messages import Strict

MAX_STOPS = 4
MAX_BIASES = 1024
MAX_STOP_LENGTH = 512

StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Positive = Annotated[int, Field(ge=1)]


class ProxyOptions(Strict):
    """Extension: how the proxy decides in this answer. What is absent is as the proxy was trained."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    enabled: bool = True
    """False: the LLM alone answers."""

    p_t: Annotated[float, within(P_T)] | None = None
    """Reject is masked once the mean probability of the candidates that are left is at most this. 0: never."""

    temperature: Annotated[float, within(SKAM_TEMPERATURE)] | None = None
    """SKAM's softmax temperature."""

    top_p: Annotated[float, within(TOP_P)] | None = None
    """Probability mass that the candidates of a position are drawn from."""

    decision: Literal["greedy", "sample"] | None = None
    """`greedy` accepts above an acceptance probability of one half, `sample` by chance at that probability."""

    target_return: Annotated[float, within(TARGET_RETURN)] | None = None
    """What a proxy that is conditioned on a return aims at, in standard deviations of the reward that it was trained
    on; 400 for any other. `/v1/models` tells which have this dial, and where it stands unless it is turned."""

    return_decisions: bool = False
    """Tell what happened at every token: the candidates seen, their probabilities, the proxy's decisions."""


Metadata = Annotated[
    dict[
        Annotated[str, Field(min_length=1, max_length=64)],
        Annotated[str, Field(max_length=512)],
    ],
    Field(max_length=16),
]
"""The caller's labels on what is stored."""


class StreamOptions(Strict):
    """What a stream tells besides the text; what else is asked for is in `model_extra`."""

    model_config = ConfigDict(extra="allow")

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    """Extension, with `include_usage`: every chunk tells the totals so far."""

    include_obfuscation: bool | None = None
    """Understood and not done: chunks are not padded."""


class GenerationBody(Strict):
    """What is honoured, and what is only checked; everything else is in `model_extra`."""

    model_config = ConfigDict(extra="allow")

    model: str
    n: Positive | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, within(TEMPERATURE)] | None = None
    top_p: Annotated[float, Field(ge=TOP_P.low, le=TOP_P.high)] | None = None
    seed: Annotated[int, within(SEED)] | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = None
    user: str | None = None

    ignore_eos: bool = False
    min_tokens: Annotated[int, Field(ge=0)] = 0
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=64)] | None = None
    proxy: ProxyOptions | None = None

    frequency_penalty: Annotated[float, within(PENALTY)] | None = None
    presence_penalty: Annotated[float, within(PENALTY)] | None = None
    logit_bias: Annotated[dict[str, Annotated[float, within(LOGIT_BIAS)]], Field(max_length=MAX_BIASES)] | None = None
    repetition_penalty: Annotated[float, within(REPETITION_PENALTY)] | None = None
    min_p: Annotated[float, within(MIN_P)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=TOP_K.high)] | None = None
    """-1 and 0: all tokens."""


NO_OPS: dict[str, tuple[Any, ...]] = {
    "store": (None, False),
    "service_tier": (None, "auto", "default"),
    "modalities": (None, ["text"]),
}
"""Fields that are not implemented, and the values with which they ask for nothing."""

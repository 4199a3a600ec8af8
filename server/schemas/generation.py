"""What every request for text understands, with the ranges that OpenAI documents."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from server.schemas.messages import Strict

INT64 = {"ge": -(1 << 63), "le": (1 << 63) - 1}
MAX_STOPS = 4
MAX_STOP_LENGTH = 512

StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Positive = Annotated[int, Field(ge=1)]


class ProxyOptions(Strict):
    """Extension: how the proxy decides in this answer. What is absent is as the proxy was trained."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    enabled: bool = True
    """False: the LLM alone answers."""

    p_t: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    """Reject is masked once the mean probability of the candidates that are left is at most this. 0: never."""

    temperature: Annotated[float, Field(gt=0.0, le=100.0)] | None = None
    """SKAM's softmax temperature."""

    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Probability mass that the candidates of a position are drawn from."""

    decision: Literal["greedy", "sample"] | None = None
    """`greedy` accepts above an acceptance probability of one half, `sample` by chance at that probability."""

    target_return: float | None = None
    """What a proxy that is conditioned on a return should aim at."""

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
    """What a stream tells besides the text."""

    include_usage: bool = False


class GenerationBody(Strict):
    """What is honoured, and what is only checked; everything else is in `model_extra`."""

    model_config = ConfigDict(extra="allow")

    model: str
    n: Positive | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    seed: Annotated[int, Field(**INT64)] | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = None
    user: str | None = None

    ignore_eos: bool = False
    min_tokens: Annotated[int, Field(ge=0)] = 0
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=64)] | None = None
    proxy: ProxyOptions | None = None

    frequency_penalty: Annotated[float, Field(ge=-2.0, le=2.0)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2.0, le=2.0)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100.0, le=100.0)]] | None = None


NO_OPS: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (None, 0, 0.0),
    "presence_penalty": (None, 0, 0.0),
    "logit_bias": (None, {}),
    "top_k": (None, 0, -1),
    "min_p": (None, 0, 0.0),
    "repetition_penalty": (None, 1, 1.0),
    "tool_choice": (None, "none", "auto"),
    "function_call": (None, "none", "auto"),
    "parallel_tool_calls": (None, True, False),
    "store": (None, False),
    "service_tier": (None, "auto", "default"),
    "modalities": (None, ["text"]),
}
"""Fields that are not implemented, and the values with which they ask for nothing."""

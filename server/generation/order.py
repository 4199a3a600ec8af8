"""What one HTTP request orders from the engine, whichever endpoint took it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from server.chat.tools import ToolUse
from server.generation.form import Form
from server.schemas.generation import GenerationBody


@dataclass(frozen=True, slots=True)
class Prompt:
    """What answers continue."""

    token_ids: tuple[int, ...]
    pieces: tuple[str, ...] = ()
    """The text of each token, when the answer repeats the prompt; they join to it."""

    prediction: tuple[int, ...] = ()
    """What the caller believes that the answers will be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """`num_choices` answers to each of some prompts."""

    body: GenerationBody
    id_prefix: str
    """What ids of this endpoint's answers begin with."""

    prompt_field: str
    """The field that errors about the prompt name."""

    tokenize: Callable[[], Awaitable[Sequence[Prompt]]]
    """Makes the prompts; raises `ApiError` and `InvalidParameter`."""

    num_choices: int = 1
    max_tokens: int | None = None
    """None: as many as fit."""

    top_logprobs: int | None = None
    """None: no log-probabilities."""

    prompt_logprobs: int | None = None
    """The same for the prompt's tokens."""

    form: Form | None = None
    """What every answer has to be; None: text."""

    tools: ToolUse | None = None
    """How the answers may call tools; None: they are text."""

    ignored: tuple[str, ...] = ()
    """Fields of this endpoint that ask for something which will not happen."""

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with a chunk of totals."""
        options = self.body.stream_options
        return options is not None and bool(options.include_usage)

    @property
    def has_continuous_usage(self) -> bool:
        """Whether its other chunks tell the totals so far."""
        options = self.body.stream_options
        return options is not None and bool(options.continuous_usage_stats)

    @property
    def wants_decisions(self) -> bool:
        """Whether the answer lists the proxy's candidates."""
        return self.body.proxy is not None and self.body.proxy.return_decisions

"""One answer on its way: its tokens, its place in the cache, its noise and its totals."""

import random
from dataclasses import dataclass, field

import torch
from torch import Tensor

from proxy_model.decision.bank import LoadedProxy
from proxy_model.decision.choice import Decided
from proxy_model.decision.noise import noise_key
from proxy_model.decision.trajectory import TrajectoryRecorder
from proxy_model.decoding.detokenizer import Detokenizer
from proxy_model.decoding.grammar_compiler import GrammarState
from proxy_model.decoding.prompt_lookup import PromptLookup
from proxy_model.decoding.request import FinishReason, GenerationRequest, TokenLogprob, Usage
from proxy_model.decoding.token_counts import TokenCounts

SlateNumbers = tuple[float, float, float, int, bool]
"""Of one answer: SKAM's temperature, top_p, p_t, most candidates, and whether probabilities are renormalised."""


@dataclass(slots=True)
class PendingCandidate:
    """A candidate that the LLM is reading before the proxy decides on it (`candidate` and `both` features).

    Its position is row `row` of the step that laid out its slate.
    """

    states: Tensor
    """(B, D) h(prefix)."""

    logits: Tensor
    """(B, V) before the proxy."""

    decided: Decided
    """With the slates."""

    row: int
    tokens: list[int]
    """The slate's."""

    is_free: list[bool]
    accept_logits: list[float] = field(default_factory=list)
    """What the proxy said of the candidates that were read."""

    index: int = 0
    """The candidate's place in the slate."""

    def upcoming(self, limit: int) -> list[int]:
        """The next candidates, at most `limit`, up to the one that cannot be rejected."""
        last = self.is_free.index(False, self.index)
        return self.tokens[self.index : min(last + 1, self.index + limit)]


class Sequence:
    """The state of one request between two steps."""

    def __init__(
        self, request: GenerationRequest, proxy: LoadedProxy | None, grammar: GrammarState | None = None
    ) -> None:
        params = request.params
        self.request = request
        self.proxy = proxy
        self.grammar = grammar
        is_penalised = bool(params.presence_penalty or params.frequency_penalty or params.repetition_penalty != 1.0)
        self.counts = TokenCounts(request.prompt_token_ids, params.max_tokens) if is_penalised else None
        self._is_always_processed = bool(
            is_penalised or params.logit_bias or params.min_p or params.top_k is not None or grammar is not None
        )
        self.slot = -1
        self.num_cached = 0
        """Tokens whose keys and values are in the cache."""

        self.num_restored = 0
        """Those of them that were copied from the prefix cache."""

        self.block_names: tuple[bytes, ...] = ()
        """Of the prompt's blocks in the prefix cache; none if it has no part in it."""

        self.prompt_logprobs: list[TokenLogprob] = []
        self.output: list[int] = []
        self.pending: PendingCandidate | None = None
        self.detokenizer = Detokenizer(params.stop)
        self.recorder = TrajectoryRecorder(params.target_return) if request.record else None
        self.seed = random.getrandbits(63) if params.seed is None else params.seed
        self.generator = torch.Generator()
        self.generator.manual_seed(self.seed)
        self.slate_numbers: SlateNumbers | None = None
        """What the answer's slates are laid out by; `decode` fills it in."""

        self.lookup: PromptLookup | None = None
        """None: no tokens are drafted."""

        self.num_rejected = self.num_forced = 0
        self.num_passes = 0
        self.num_drafted = self.num_accepted_drafts = 0

    @property
    def noise_key(self) -> int:
        """Of the next token's place in the answer."""
        return noise_key(self.seed, len(self.output))

    @property
    def keeps_decisions(self) -> bool:
        """Whether somebody will look at what the proxy said of each candidate."""
        return self.recorder is not None or self.request.params.return_decisions

    @property
    def must_walk(self) -> bool:
        """Whether the proxy decides only after the LLM has read the candidate."""
        return self.proxy is not None and self.proxy.needs_candidate_pass

    @property
    def rejects_often(self) -> bool:
        """Whether a pass that reads further candidates, too, is likely to save more than it costs.

        So more than one rejection in eight tokens; until the first one, only one candidate is read.
        """
        index = 0 if self.pending is None else self.pending.index
        return 8 * (self.num_rejected + index) > len(self.output)

    @property
    def has_processors(self) -> bool:
        """Whether the LLM's logits are changed before this row's slate is laid out."""
        return self._is_always_processed or self.is_below_min_tokens

    @property
    def is_below_min_tokens(self) -> bool:
        """Whether the answer may not end yet."""
        return len(self.output) < self.request.params.min_tokens

    @property
    def num_prompt(self) -> int:
        """Length of the prompt."""
        return len(self.request.prompt_token_ids)

    @property
    def next_token(self) -> int:
        """What the LLM reads next: the newest token, or the candidate under decision."""
        if self.pending is not None:
            return self.pending.tokens[self.pending.index]
        return self.output[-1]

    @property
    def length(self) -> int:
        """Prompt and accepted tokens."""
        return self.num_prompt + len(self.output)

    @property
    def position(self) -> int:
        """Where `next_token` stands."""
        return self.length if self.pending is not None else self.length - 1

    def prepare_drafts(self) -> None:
        """From now on `draft` may find something, unless the proxy decides on candidates that were read."""
        if not self.must_walk:
            self.lookup = PromptLookup(self.request.prompt_token_ids, self.request.prediction_token_ids)

    def draft(self, limit: int) -> list[int]:
        """At most `limit` tokens that may follow the newest one, fewer where the answer must end before."""
        if self.lookup is None:
            return []
        tokens = self.lookup.draft(min(limit, self.request.params.max_tokens - len(self.output) - 1))
        self.num_drafted += len(tokens)
        return tokens

    def accept(self, token: int) -> None:
        """Note the answer's newest token."""
        self.output.append(token)
        if self.lookup is not None:
            self.lookup.add(token)
        if self.counts is not None:
            self.counts.add(token)
        if self.grammar is not None:
            self.grammar.advance(token)

    def finish_reason_after(self, token: int, end_token_ids: frozenset[int]) -> FinishReason | None:
        """Whether the answer ends with `token`, which is the newest of `output`."""
        params = self.request.params
        if self.ends_with(token, end_token_ids) or self.detokenizer.is_stopped:
            return "stop"
        return "length" if len(self.output) >= params.max_tokens else None

    def ends_with(self, token: int, end_token_ids: frozenset[int]) -> bool:
        """Whether `token` is an end token for this request."""
        params = self.request.params
        return (token in end_token_ids and not params.ignore_eos) or token in params.stop_token_ids

    def usage(self) -> Usage:
        """Totals so far."""
        return Usage(
            self.num_prompt,
            len(self.output),
            self.num_rejected,
            self.num_forced,
            self.num_passes,
            self.num_restored,
            self.num_drafted,
            self.num_accepted_drafts,
        )

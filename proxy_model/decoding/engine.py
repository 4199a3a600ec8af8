"""The engine: requests in, deltas out, one step at a time. Server, trainer, evaluation and benchmarks all call this.

A step is: plan (who runs) -> one LLM pass -> choice of tokens -> deltas. One thread owns an engine. Proxies are loaded
and unloaded between two steps; a sequence keeps the version that it was submitted with.
"""

import logging
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Rows

import torch
from torch import Tensor

from proxy_model.decision.bank import LoadedProxy, ProxyBank, ProxyRef
from proxy_model.decision.choice import Decided
from proxy_model.decision.config import SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decoding.admission import check_fits, check_proxy, check_target
from proxy_model.decoding.candidate_walk import judge, propose, readings_of, take_accepted
from proxy_model.decoding.decode import decide, to_host
from proxy_model.decoding.emit import AcceptedPosition, Emitter
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.grammar_compiler import GrammarCompiler
from proxy_model.decoding.logit_processors import LogitProcessors
from proxy_model.decoding.prefix_cache import PrefixCache
from proxy_model.decoding.request import Delta, Finished, GenerationRequest
from proxy_model.decoding.scheduler import Draft, Plan, Scheduler
from proxy_model.decoding.sequence import Sequence
from proxy_model.errors import EngineFull, InvalidParameter
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.transfer import to_device

BLOCK_TOKENS = 64
"""Prompts are cut at multiples of this and share what was read of them by whole cuts; less where a step reads less."""

BROKEN = "The server had an error while generating this answer."

logger = logging.getLogger(__name__)

TOO_COMPLEX = "The form that the answer must have became too complex to follow."
"""The error of an answer whose grammar cannot be followed any more."""


class Engine:
    """A frozen LLM, its cache and its proxies."""

    def __init__(self, llm: FrozenLLM, config: EngineConfig | None = None) -> None:
        self.llm = llm
        self.config = config or EngineConfig()
        self.max_context = min(self.config.max_context, llm.max_context)
        slots = self.config.max_running + self.config.num_staging
        self._cache = llm.new_cache(slots, self.max_context)
        block_tokens = min(BLOCK_TOKENS, self.config.prefill_tokens)
        pool = llm.new_cache(self.config.prefix_cache_tokens // block_tokens, block_tokens)
        self._draft_tokens = self.config.draft_tokens if llm.has_independent_rows else 0
        self._scheduler = Scheduler(
            self._cache,
            PrefixCache(pool),
            max_running=self.config.max_running,
            num_staging=self.config.num_staging,
            prefill_tokens=self.config.prefill_tokens,
            candidates_per_pass=self.config.candidates_per_pass,
            candidate_rows=self.config.candidate_rows,
            draft_tokens=self._draft_tokens,
            draft_rows=self.config.draft_rows,
        )
        self._bank = ProxyBank()
        self.grammars = GrammarCompiler(llm)
        self._processors = LogitProcessors(llm.end_token_ids, self.grammars)
        self._emitter = Emitter(llm.tokenizer, llm.end_token_ids)
        self._sequences: dict[str, Sequence] = {}
        self.num_steps = 0
        self.num_drafted = 0
        self.num_accepted_drafts = 0

    # Requests

    def submit(self, request: GenerationRequest) -> None:
        """Queue a request. Raises `PromptTooLong`, `EngineFull`, `UnknownProxy`, `BadGrammar` or `InvalidParameter`.

        A grammar that nobody has compiled is compiled here, which may take seconds: `grammars.compile` before.
        """
        self._check(request)
        proxy = None if request.proxy is None else self._bank.get(request.proxy)
        check_target(request.params.target_return, is_conditioned=proxy is not None and proxy.is_conditioned)
        grammar = request.params.grammar
        sequence = Sequence(request, proxy, None if grammar is None else self.grammars.compile(grammar).begin())
        self._sequences[request.id] = sequence
        self._scheduler.add(sequence)

    def abort(self, request_id: str) -> None:
        """End a request and free its slot at once; it yields nothing more. Unknown and ended ones are ignored."""
        sequence = self._sequences.pop(request_id, None)
        if sequence is not None:
            self._scheduler.remove(sequence)

    @torch.inference_mode()
    def step(self) -> list[Delta]:
        """One LLM pass for everything that runs; what it yields, in no particular order."""
        if not self.has_work:
            return []
        plan = self._scheduler.plan(self.llm.device)
        hidden = self._advance(plan)
        through = self._scheduler.advance_prefill(plan, hidden)
        self.num_steps += 1
        self.num_drafted += sum(draft.chunk.num_rows for draft in plan.drafts)
        settled, latest = self._settle_candidates(plan, hidden)
        deltas = self._end_read_only(plan, hidden, through) + settled
        ended = {delta.request_id for delta in deltas if delta.finish_reason is not None}
        rows, states = self._rows_to_decide(plan, hidden[latest], through, ended)
        if rows:
            deltas += self._decide(rows, states, plan.drafts, hidden)
        for delta in deltas:  # only now: a slot is moved by its sequence's settled length
            if delta.finish_reason is not None:
                self._scheduler.remove(self._sequences.pop(delta.request_id))
        return deltas

    def generate(
        self, requests: Iterable[GenerationRequest], before_step: Callable[[], None] = lambda: None
    ) -> list[Finished]:
        """Run `requests` to their ends, in their order. Any number: the queue's bound does not apply.

        Raises `RuntimeError` if one of them breaks, and what `before_step` raises.
        """
        pending = list(requests)
        order = [request.id for request in pending]
        pending.reverse()
        parts: dict[str, list[Delta]] = {request_id: [] for request_id in order}
        while pending or self.has_work:
            while pending and self.num_running + self.num_waiting < self.config.max_running + self.config.num_staging:
                self.submit(pending.pop())
            before_step()
            for delta in self.step():
                if delta.error == BROKEN:
                    raise RuntimeError(f"{BROKEN} The log tells more.")
                parts[delta.request_id].append(delta)
        return [_join(parts[request_id]) for request_id in order]

    # Proxies

    def load_proxy(self, ref: ProxyRef, policy: ProxyPolicy, skam: SkamConfig) -> None:
        """Make a version available to new requests. Call it between two steps. Raises `InvalidParameter`."""
        self.add_proxy(self.prepare_proxy(ref, policy, skam))

    def prepare_proxy(self, ref: ProxyRef, policy: ProxyPolicy, skam: SkamConfig) -> LoadedProxy:
        """Compute what a version needs beside its weights, which takes longer than a step. From any thread.

        Raises `InvalidParameter`.
        """
        check_proxy(policy.config, skam, hidden_size=self.llm.hidden_size, max_candidates=self.config.max_candidates)
        return LoadedProxy(ref, policy, skam, self.llm.embedding)

    def add_proxy(self, proxy: LoadedProxy) -> None:
        """Make a prepared version available to new requests. Call it between two steps."""
        self._bank.add(proxy)

    def unload_proxy(self, ref: ProxyRef) -> None:
        """Take a version away from new requests; its memory is freed when its last answer ends."""
        self._bank.unload(ref)

    def list_proxies(self) -> list[ProxyRef]:
        """Versions that new requests may name."""
        return self._bank.refs()

    # State

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._sequences)

    @property
    def drafts(self) -> bool:
        """Whether answers are drafted ahead."""
        return self._draft_tokens > 0

    @property
    def num_running(self) -> int:
        """Requests that hold a slot."""
        return self._scheduler.num_running

    @property
    def num_waiting(self) -> int:
        """Requests in the queue."""
        return len(self._scheduler.waiting)

    @property
    def kv_cache_usage(self) -> float:
        """Share of the slots' tokens that are taken, 0 to 1."""
        used = sum(s.length for s in self._scheduler.decoding) + sum(s.num_cached for s in self._scheduler.prefilling)
        return used / (self.config.max_running * self.max_context)

    @property
    def cache_bytes_per_token(self) -> int:
        """Of one sequence's keys and values; known after the first step."""
        return self._cache.bytes_per_token

    # The step's parts

    def _check(self, request: GenerationRequest) -> None:
        if request.id in self._sequences:
            raise InvalidParameter("id", request.id, "unique among running requests")
        check_fits(request, vocab_size=self.llm.vocab_size, max_context=self.max_context)
        if self.num_waiting >= self.config.max_waiting + self.config.num_staging:
            raise EngineFull(f"the queue of {self.config.max_waiting} requests is full", retry_after_seconds=1.0)

    def _advance(self, plan: Plan) -> Tensor:
        """h (N, D) of the step's rows; there are none where all that runs was restored from the prefix cache."""
        if plan.step.tokens.numel():
            return self.llm.advance(plan.step)
        return torch.empty(0, self.llm.hidden_size, dtype=self.llm.dtype, device=self.llm.device)

    def _end_read_only(self, plan: Plan, hidden: Tensor, through: Rows[tuple[Sequence, Tensor]]) -> list[Delta]:
        """Score the prompt tokens that asked for it, and end the sequences that end with their prompt."""
        for sequence, chunk in plan.chunks:
            states = hidden[chunk.start : chunk.end]
            self._emitter.score_prompt(sequence, chunk.offset, states, self.llm.logits)
        return [self._emitter.read_only(sequence) for sequence, _ in through if not sequence.request.params.max_tokens]

    def _settle_candidates(self, plan: Plan, hidden: Tensor) -> tuple[list[Delta], list[int] | slice]:
        """Have the proxies decide on the candidates that the LLM has just read, and note the accepted ones.

        Returns also the rows (B,) of `hidden` of every decoding sequence's newest token.
        """
        for sequence in plan.decoding:
            sequence.num_passes += 1
        branches = plan.step.branches
        if branches is None:
            return [], slice(0, len(plan.decoding))
        deltas, latest, siblings = [], list(range(len(plan.decoding))), []
        readings = readings_of(plan.decoding, branches)
        for reading, place in zip(readings, judge(readings, hidden), strict=True):
            if place is None:
                continue
            sequence = reading.sequence
            deltas.append(self._accept(sequence, take_accepted(sequence)))
            latest[sequence.slot] = reading.rows[place]
            if place:
                siblings.append((sequence.slot, place))
        branches.accept(self._cache, siblings)
        return deltas, latest

    def _rows_to_decide(
        self, plan: Plan, states: Tensor, through: Rows[tuple[Sequence, Tensor]], ended: set[str]
    ) -> tuple[list[Sequence], Tensor]:
        """The sequences that have h(prefix) now, and those states: all but unread prompts and rejected candidates.

        `states` (B, D) are of the newest token of each decoding sequence.
        """
        rows = [
            row
            for row, sequence in enumerate(plan.decoding)
            if sequence.pending is None and sequence.request.id not in ended
        ]
        sequences = [plan.decoding[row] for row in rows]
        if len(rows) < len(plan.decoding):
            states = states[to_device(torch.tensor(rows, dtype=torch.long), states.device)]
        begun = [(sequence, state) for sequence, state in through if sequence.request.id not in ended]
        for sequence, _ in begun:
            sequence.num_passes += 1
        if begun:
            states = torch.cat([states, torch.stack([state for _, state in begun])])
        return sequences + [sequence for sequence, _ in begun], states

    def _decide(self, rows: Rows[Sequence], states: Tensor, drafts: Rows[Draft], hidden: Tensor) -> list[Delta]:
        """Choose every row's next token from its state (B, D), and the one after it where a draft was right, and so on.

        `hidden` is of the whole step: what it read of a draft stands there.
        """
        num_rows, begin = len(rows), drafts[0].chunk.start if drafts else 0
        if drafts:
            states = torch.cat([states, hidden[begin : drafts[-1].chunk.end]])
        logits = self.llm.logits(states)
        deltas = self._choose(rows, states[:num_rows], logits[:num_rows])
        for depth in range(self._draft_tokens):
            ended = {delta.request_id for delta in deltas if delta.finish_reason is not None}
            drafts = [draft for draft in drafts if draft.is_right(depth) and draft.sequence.request.id not in ended]
            if not drafts:
                break
            self.num_accepted_drafts += len(drafts)
            for draft in drafts:
                draft.sequence.num_accepted_drafts += 1
            places = [num_rows + draft.chunk.start - begin + depth for draft in drafts]
            index = to_device(torch.tensor(places), states.device)
            deltas += self._choose([draft.sequence for draft in drafts], states[index], logits[index])
        return deltas

    def _choose(self, rows: Rows[Sequence], states: Tensor, logits: Tensor) -> list[Delta]:
        decided = decide(states, self._processors.offered(logits, rows), rows, self.config.max_candidates)
        return self._settle(rows, states, logits, decided)

    def _settle(self, rows: Rows[Sequence], states: Tensor, logits: Tensor, decided: Decided) -> list[Delta]:
        """Note every row's accepted token; where the LLM must read the candidate first, put it up for that."""
        deltas, walking = [], []
        tokens, ranks, forced = to_host(decided.choice)
        for row, sequence in enumerate(rows):
            if sequence.grammar is not None and sequence.grammar.has_failed:
                deltas.append(self._emitter.fail(sequence, TOO_COMPLEX))
            elif sequence.must_walk:
                walking.append((row, sequence))
            else:
                position = AcceptedPosition(
                    tokens[row], ranks[row], forced[row], states[row], logits[row], decided, row
                )
                deltas.append(self._accept(sequence, position))
        if walking:
            propose(walking, states, logits, decided)
        return deltas

    def _accept(self, sequence: Sequence, position: AcceptedPosition) -> Delta:
        """Note an accepted token. An answer that cannot be worded ends alone; the others of the step go on."""
        try:
            return self._emitter.accept(sequence, position)
        except Exception:
            logger.exception("an answer broke", extra={"answer": sequence.request.id})
            return self._emitter.fail(sequence, BROKEN)


def _join(deltas: list[Delta]) -> Finished:
    """A whole answer from its deltas."""
    last = deltas[-1]
    assert last.usage is not None and last.finish_reason is not None
    return Finished(
        request_id=last.request_id,
        text="".join(delta.text for delta in deltas),
        token_ids=tuple(token for delta in deltas for token in delta.token_ids),
        finish_reason=last.finish_reason,
        usage=last.usage,
        trajectory=last.trajectory,
        logprobs=tuple(logprob for delta in deltas for logprob in delta.logprobs),
    )

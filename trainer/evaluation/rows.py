"""The numbers of a row. A row of several training seeds has the means over them, and their spread beside."""

from dataclasses import dataclass, field

from trainer.evaluation.origin import Origin
from trainer.evaluation.statistics import Interval
from trainer.evaluation.system_name import Decision, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRow:
    """One reward model's opinion of one row."""

    mean: float
    gain: Interval
    """Mean of score - base's score, in deviations of the base's scores, with a bootstrap interval."""

    win_rate: Interval
    """Prompts whose answer scores above the base's, ties half; Wilson's interval, or of several seeds a bootstrap's."""

    wins: int
    ties: int
    losses: int
    """Of all seeds together."""

    gain_by_seed: tuple[float, ...] = ()
    win_rate_by_seed: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PairwiseRow:
    """What a judge that was shown both answers thinks of one row beside the base."""

    judge: str
    win_rate: Interval
    """Prompts on which it prefers the row's answer in both orders, ties half; intervals as in `ScoreRow`."""

    wins: int
    ties: int
    """Those on which it contradicts itself, says nothing usable, or has nothing to compare, among them."""

    losses: int
    """Of all seeds together."""

    agreement: float | None
    """Different answers of which it says the same in both orders / different answers; None where all are the same."""

    num_unclear: int
    """Different answers on which it said nothing that is a verdict."""

    win_rate_by_seed: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemRow:
    """One row on all prompts. Rates are shares in [0, 1]."""

    system: str
    kind: Kind
    scores: dict[str, ScoreRow]
    """By the reward model's label."""

    nll: float
    """-mean log p(token) under the LLM alone, nats."""

    length: float
    """Mean tokens of an answer, its end token included."""

    rep_4: float
    """Mean over answers of 1 - distinct token 4-grams / token 4-grams."""

    distinct_1: float
    distinct_2: float
    """Different token n-grams / token n-grams, over all answers."""

    eos_rate: float
    """Answers that ended by themselves."""

    garble_rate: float
    """Words that are in no dictionary, see `text_metrics.Dictionary`."""

    changed_rate: float
    """Answers that differ from the base's."""

    accept_rate: float | None
    """Accepted free decisions / free decisions; None where nothing was free."""

    rejections_per_token: float
    forced_share: float | None
    """Positions whose token SKAM forced / positions; None where no proxy decides."""

    passes_per_token: float
    """LLM passes after the prompt / tokens of the answers that are kept."""

    tokens_per_second: float
    """Of the answers that are kept, over all of the batch's work."""

    gap_p50: float | None
    gap_p95: float | None
    """Milliseconds between two tokens of an answer with the whole batch beside it; None where nothing streams."""

    first_token_p50: float | None = None
    """Milliseconds from the step that begins to read an answer's prompt to its first token, likewise."""

    origins: tuple[Origin, ...] = ()
    """Of the proxies, one a training seed."""

    policies: tuple[str, ...] = ()
    """Digests of their weights."""

    p_t: float | None = None
    temperature: float = 0.0
    top_p: float | None = None
    decision: Decision = "greedy"
    target_return: float | None = None
    answers: tuple[str, ...] = ()
    """Keys of the answers on disk, one a training seed."""

    pairwise: PairwiseRow | None = None
    """None for the base, and where no such judge was asked."""

    refusals: dict[str, Interval] = field(default_factory=dict)
    """Share of answers that decline, by their prompts' source; intervals as in `ScoreRow.win_rate`."""

    spread: dict[str, float] = field(default_factory=dict)
    """Standard deviation over the training seeds, by the field's name; empty for one seed."""

    @property
    def num_seeds(self) -> int:
        """Training seeds in the row."""
        return max(1, len(self.answers))

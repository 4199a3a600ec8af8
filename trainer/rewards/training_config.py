"""Everything that a reward model's training depends on."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from proxy_model.errors import InvalidParameter
from trainer.preferences import Half

Kind = Literal["frozen_head", "sentence_judge", "lora"]

DEFAULT_CUTS = (16, 32, 64, 128)
DEFAULT_L2 = (2e-2, 1e-2, 5e-3, 2e-3, 1e-3)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """Adapters of low rank on the layers below the one that is read, and how they learn."""

    rank: int = 8
    alpha: int = 16
    """The adapters' product is multiplied by alpha / rank."""

    layers: int = 4
    """Layers that are adapted, counted down from the one that is read."""

    epochs: int = 1
    batch_pairs: int = 8
    learning_rate: float = 2e-4
    """Falls linearly to 0."""

    def __post_init__(self) -> None:
        for name in ("rank", "alpha", "layers", "epochs", "batch_pairs"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _require(0 < self.learning_rate < 1, "learning_rate", self.learning_rate, "in (0, 1)")


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardTrainingConfig:
    """One training run of `train.train_reward`."""

    output: Path
    """Folder of the reward model, which must not exist yet."""

    train: tuple[Path, ...]
    """Files of preference pairs to learn from."""

    test: tuple[Path, ...] = ()
    """Files of preference pairs to report on; none: only the cross-validated accuracy."""

    kind: Kind = "frozen_head"
    """`frozen_head` reads the frozen LLM's states, `sentence_judge` a sentence encoder's and words, `lora` those of a
    copy of the LLM with adapters that learn with the head."""

    start: Path | None = None
    """Folder of an earlier frozen head that the new weights are drawn towards; its features are read again."""

    lora: LoraConfig = field(default_factory=LoraConfig)
    """Of `lora`."""

    half: Half = "all"
    """Which of the pairs may be used: a judge must not share any with the reward that it checks."""

    model: str = "smollm2-135m-instruct"
    encoder: Path | None = None
    """Folder or wheel of the judge's encoder; None: installed, cached or fetched."""

    taps: tuple[int, ...] | None = None
    """Layers that are read; None: at 40 % and 53 % of the LLM's depth, or 2 and 4 of the encoder."""

    with_last_token: bool = False
    with_prompt: bool = False
    """Of a judge: also read the answer after its prompt."""

    cuts: tuple[int, ...] = DEFAULT_CUTS
    """Lengths, in tokens, at which each training answer is read: rollouts are cut off, too."""

    l2: tuple[float, ...] = DEFAULT_L2
    """Strengths to choose from by cross-validation on the training pairs."""

    length_control: float | None = None
    """Share in [0, 1] of the score's slope on log(length) that is taken out; None: 1 for a head, 0 for a judge."""

    max_pairs: int = 0
    """Pairs to learn from, the first ones of a shuffle; 0: all."""

    seed: int = 0

    def __post_init__(self) -> None:
        _require(bool(self.train), "train", self.train, "at least one file")
        _require(self.kind in get_args(Kind), "kind", self.kind, f"one of {get_args(Kind)}")
        _require(self.half in get_args(Half), "half", self.half, f"one of {get_args(Half)}")
        is_rising = all(early < late for early, late in zip(self.cuts, self.cuts[1:], strict=False))
        _require(bool(self.cuts) and is_rising and self.cuts[0] >= 1, "cuts", self.cuts, "rising lengths from 1")
        _require(bool(self.l2) and min(self.l2) > 0, "l2", self.l2, "strengths above 0")
        control = self.length_control
        _require(control is None or 0 <= control <= 1, "length_control", control, "in [0, 1]")
        is_alone = self.start is None or (self.kind == "frozen_head" and self.taps is None and not self.with_last_token)
        _require(is_alone, "start", str(self.start), "left out but for a frozen head, and without taps")
        is_plain = control is None or self.kind != "lora"
        _require(is_plain, "length_control", control, "left out for lora")
        _require(self.max_pairs >= 0, "max_pairs", self.max_pairs, "at least 0")
        _require(0 <= self.seed < 2**31, "seed", self.seed, "in [0, 2^31)")

    @property
    def control(self) -> float:
        """`length_control` with its default filled in."""
        return (1.0 if self.kind == "frozen_head" else 0.0) if self.length_control is None else self.length_control


def _require(is_allowed: bool, name: str, value: object, allowed: str) -> None:
    if not is_allowed:
        raise InvalidParameter(name, value, allowed)

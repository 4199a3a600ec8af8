"""Everything that an evaluation depends on."""

from dataclasses import dataclass
from pathlib import Path

from proxy_model.errors import InvalidParameter
from trainer.rewards.endpoint_config import EndpointConfig
from trainer.rewards.pairwise import CRITERION


@dataclass(frozen=True, slots=True, kw_only=True)
class PairwiseConfig:
    """A judge that is shown each answer beside the base's, in both orders."""

    endpoint: EndpointConfig
    model: str
    """As the endpoint calls it."""

    criterion: str = CRITERION
    """What it is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """One run of `evaluate.evaluate`."""

    prompts: Path
    systems: tuple[str, ...]
    """Beside the base, which is always there, as `system_name` says; none: the rows of the evaluations in `merges`."""

    reward: Path | None = None
    """The reward model that trained the proxies."""

    judges: tuple[Path, ...] = ()
    """Reward models that did not."""

    pairwise: PairwiseConfig | None = None

    output: Path | None = None
    """Folder for evaluation.json, evaluation.md and answers.jsonl: new, or that of an evaluation to go on with."""

    merges: tuple[Path, ...] = ()
    """Folders of evaluations with the same prompts and settings; what they hold is not answered again."""

    model: str = "smollm2-135m-instruct"
    registry: Path | None = None
    """Folder of published proxies; None: the one that the server watches."""

    encoder: Path | None = None
    """Folder or wheel of the judges' sentence encoder."""

    source: str = ""
    """Only prompts whose source starts with this."""

    num_prompts: int = 300
    """The first ones of a shuffle; 0: all."""

    max_tokens: int = 128
    max_prompt_tokens: int = 256
    max_running: int = 32
    dictionary: tuple[Path, ...] = ()
    """Files of prompts or pairs whose words count as words; none: all data that ship with the program.
    The words of an English dictionary always do."""

    seed: int = 0

    num_shown: int = 20
    """Prompts whose answers are kept with every decision, for the report."""

    report: bool = False
    """Also write report.html, its numbers and its pictures."""

    card: bool = False
    """Also write a card for every proxy of the table."""

    def __post_init__(self) -> None:
        for name in ("max_tokens", "max_prompt_tokens", "max_running"):
            if getattr(self, name) < 1:
                raise InvalidParameter(name, getattr(self, name), "at least 1")
        for name in ("num_prompts", "num_shown"):
            if getattr(self, name) < 0:
                raise InvalidParameter(name, getattr(self, name), "at least 0")
        if self.output is None and (self.report or self.card):
            raise InvalidParameter("output", None, "a folder for the report and the cards")
        if self.output is None and self.pairwise is not None:
            raise InvalidParameter("output", None, "a folder, so that no answer of the pairwise judge is paid twice")

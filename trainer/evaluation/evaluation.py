"""What an evaluation leaves: its table, its reports and its page are made from it."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.evaluation.answering import AnsweredRow
from trainer.evaluation.report import EvaluationReport
from trainer.evaluation.scoring import Scoring


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was found and what it was found from."""

    report: EvaluationReport
    answered: Sequence[AnsweredRow]
    scoring: Scoring

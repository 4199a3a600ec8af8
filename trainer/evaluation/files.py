"""What an evaluation leaves for people, and how another one reads its rows.

evaluation.json   the report
evaluation.md     its table
answers.jsonl     a prompt a line, with every row's answer
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from proxy_model.errors import InvalidParameter
from trainer.evaluation.answer import Answer
from trainer.evaluation.answer_store import AnswerStore
from trainer.evaluation.answering import AnsweredRow
from trainer.evaluation.report import EvaluationReport
from trainer.rollout import EncodedPrompt

EVALUATION, TABLE, ANSWERS = "evaluation.json", "evaluation.md", "answers.jsonl"


def write_files(
    folder: Path, report: EvaluationReport, prompts: Sequence[EncodedPrompt], answered: Sequence[AnsweredRow]
) -> None:
    """Replace the three files in `folder`, which exists."""
    (folder / EVALUATION).write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
    (folder / TABLE).write_text(report.markdown(), encoding="utf-8")
    members = {
        row.label if len(row.members) == 1 else f"{row.label} [{number}]": answers
        for row in answered
        for number, answers in enumerate(row.members, start=1)
    }
    with (folder / ANSWERS).open("w", encoding="utf-8") as file:
        for number, prompt in enumerate(prompts):
            found = {name: answers.items[number] for name, answers in members.items()}
            row = {
                "prompt": prompt.messages,
                "answers": {name: each.text for name, each in found.items()},
                "usage": {name: _usage(each) for name, each in found.items()},
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _usage(answer: Answer) -> dict[str, float]:
    return {
        "completion_tokens": len(answer.token_ids),
        "rejected": answer.rejected,
        "forced": answer.forced,
        "passes": answer.passes,
    }


def read_rows(folders: Sequence[Path], store: AnswerStore) -> list[AnsweredRow]:
    """The rows of other evaluations but their bases; of rows with the same answers the first."""
    rows: dict[tuple[str, ...], AnsweredRow] = {}
    for folder in folders:
        path = folder / EVALUATION
        if not path.is_file():
            raise InvalidParameter("merge", str(folder), "an evaluation that has come to its end")
        found = EvaluationReport.from_json(json.loads(path.read_text(encoding="utf-8")))
        for row in found.rows[1:]:
            members = tuple(store.read_complete(key) for key in row.answers)
            rows.setdefault(row.answers, AnsweredRow(row.system, members))
    labels = [row.label for row in rows.values()]
    return [
        replace(row, label=f"{row.label} ({number})") if row.label in labels[: number - 1] else row
        for number, row in enumerate(rows.values(), start=1)
    ]

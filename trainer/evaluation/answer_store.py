"""What has been answered and scored already, on disk, so that an evaluation can be built up and go on after a kill.

    settings.json            what all answers depend on: LLM, prompts, seed, lengths
    answers/<key>.jsonl      a system's facts, then one answer a line, in the order of the prompts
    scores/<key>.json        its answers' scores by the digest of who scored them

`<key>` is a digest of the settings and the system's identity: other weights or settings are other files.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from proxy_model import disk
from proxy_model.errors import InvalidParameter
from trainer.evaluation.answer import Answer, Answers, SystemFacts

SETTINGS = "settings.json"


class AnswerStore:
    """The folder of one evaluation, and others whose answers count as well. Without a folder nothing is kept."""

    def __init__(self, folder: Path | None, settings: Mapping[str, Any], others: Sequence[Path] = ()) -> None:
        """Raises `InvalidParameter` for a folder with other settings, or with other things in it."""
        self.folder = folder
        self.settings = dict(settings)
        self._others = tuple(others)
        for other in others:
            self._require_same(other, "merge")
        if folder is not None:
            self._open(folder)

    def key(self, identity: Mapping[str, Any]) -> str:
        """The name of a system's files."""
        content = json.dumps({"settings": self.settings, "system": identity}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def read(self, key: str) -> tuple[SystemFacts | None, list[Answer]]:
        """The answers so far, from the folder that has most of them; what another one has is copied into this one."""
        found = [_read_answers(folder / "answers" / f"{key}.jsonl") for folder in self._folders()]
        facts, answers = max(found, key=lambda each: len(each[1]), default=(None, []))
        if facts is not None and len(answers) > len(found[0][1]):
            self.begin(key, facts, answers)
        return facts, answers

    def begin(self, key: str, facts: SystemFacts, answers: Sequence[Answer]) -> None:
        """Start a system's file over, with the answers that are there already."""
        if self.folder is not None:
            lines = [facts.to_json(), *(answer.to_json() for answer in answers)]
            _replace(self.folder / "answers" / f"{key}.jsonl", "".join(map(_line, lines)))

    def append(self, key: str, answers: Sequence[Answer]) -> None:
        """Add to a file that was begun."""
        if self.folder is not None:
            with (self.folder / "answers" / f"{key}.jsonl").open("a", encoding="utf-8") as file:
                file.write("".join(_line(answer.to_json()) for answer in answers))

    def read_complete(self, key: str) -> Answers:
        """A system's answers without the system. Raises `InvalidParameter` where they are not there."""
        facts, items = self.read(key)
        if facts is None:
            raise InvalidParameter("merge", key, "evaluations that hold the answers of their rows")
        return Answers(key=key, facts=facts, items=tuple(items))

    def read_scores(self, key: str, scorer: str, num_answers: int) -> list[float] | None:
        """One number an answer, or nothing; what another folder has is copied into this one."""
        for number, folder in enumerate(self._folders()):
            scores = _read_object(folder / "scores" / f"{key}.json").get(scorer)
            if isinstance(scores, list) and len(scores) == num_answers:
                if number > 0:
                    self.write_scores(key, scorer, scores)
                return [float(score) for score in scores]
        return None

    def write_scores(self, key: str, scorer: str, scores: Sequence[float]) -> None:
        """Add one scorer's numbers to those of the others."""
        if self.folder is not None:
            path = self.folder / "scores" / f"{key}.json"
            _replace(path, json.dumps({**_read_object(path), scorer: list(scores)}) + "\n")

    def _folders(self) -> list[Path]:
        return [*([] if self.folder is None else [self.folder]), *self._others]

    @staticmethod
    def require_evaluation(folder: Path, parameter: str) -> None:
        """Raises `InvalidParameter` for a folder that holds something, but no evaluation."""
        if not (folder / SETTINGS).is_file() and any(folder.iterdir()):
            raise InvalidParameter(parameter, str(folder), "a new folder or that of an evaluation")

    def _open(self, folder: Path) -> None:
        if (folder / SETTINGS).is_file():
            self._require_same(folder, "output")
        elif folder.exists():
            self.require_evaluation(folder, "output")
        for name in ("answers", "scores"):
            disk.make_folder(folder / name)
        _replace(folder / SETTINGS, json.dumps(self.settings, indent=2) + "\n")

    def _require_same(self, folder: Path, parameter: str) -> None:
        found = _read_object(folder / SETTINGS)
        if not found:
            raise InvalidParameter(parameter, str(folder), "the folder of an evaluation")
        for name in {**self.settings, **found}:
            if found.get(name) != self.settings.get(name):
                what = f"an evaluation with {name} {self.settings.get(name)!r}, not {found.get(name)!r}"
                raise InvalidParameter(parameter, str(folder), what)


def _read_answers(path: Path) -> tuple[SystemFacts | None, list[Answer]]:
    """Whole lines only: a kill may have torn the last one."""
    if not path.is_file():
        return None, []
    first, *rest = path.read_text(encoding="utf-8").split("\n")[:-1] or [""]
    if not first:
        return None, []
    return SystemFacts.from_json(json.loads(first)), [Answer.from_json(json.loads(line)) for line in rest]


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"


def _replace(path: Path, text: str) -> None:
    aside = disk.staging_path(path.parent)
    disk.write_file(aside, text.encode())
    aside.replace(path)

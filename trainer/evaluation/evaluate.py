"""`proxy-rlhf evaluate`: systems side by side on the same held-out prompts, by the decode loop that serves.

Life of a row: every prompt is answered, or read from what an earlier evaluation left; reward models score the answers;
the LLM alone says how likely they are; `text_metrics` says what they look like; each answer is compared with the base's
answer to its prompt, and by `pairwise` shown beside it to a judge.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from proxy_model.errors import InvalidParameter
from proxy_model.llm.frozen_llm import FrozenLLM, load_llm
from proxy_model.paths import proxies_root
from trainer.evaluation.answer_store import AnswerStore
from trainer.evaluation.answering import Answering
from trainer.evaluation.card import write_cards
from trainer.evaluation.config import EvaluationConfig
from trainer.evaluation.evaluation import Evaluation
from trainer.evaluation.files import read_rows, write_files
from trainer.evaluation.judgement import Judgement
from trainer.evaluation.loading import load_rows
from trainer.evaluation.pairwise import Duels
from trainer.evaluation.report import EvaluationReport
from trainer.evaluation.rerank import PrefixJudge
from trainer.evaluation.scoring import TRAINING_REWARD, Scorer, Scoring, load_scorers
from trainer.evaluation.systems import Row
from trainer.evaluation.text_metrics import english_words
from trainer.json_lines import read_json_lines
from trainer.lock import sole_trainer
from trainer.prompts import Prompt, keep_sources, load_prompts
from trainer.rewards.progress import reading_progress
from trainer.rollout import EncodedPrompt, derived_seed, encode_prompts, room_for_prompt

SHIPPED_DATA = Path(__file__).parents[2] / "data"
"""Real prompts and answers, see its README; their words count as words, beside those of an English dictionary."""


def evaluate(config: EvaluationConfig, *, llm: FrozenLLM | None = None, console: Console | None = None) -> Evaluation:
    """Answer, score, print the table, write the files.

    `llm` spares the loading of `config.model`. Data, checkpoints and reward models are read before anything is
    generated: raises `DataError`, `InvalidParameter`, `UnknownProxy`, `BadCheckpoint`; `OutputTaken` while another
    evaluation writes to the same folder.
    """
    with nullcontext() if config.output is None else sole_trainer(config.output):
        return _evaluate(config, llm, console or Console())


def _evaluate(config: EvaluationConfig, llm: FrozenLLM | None, console: Console) -> Evaluation:
    prompts = keep_sources(load_prompts(config.prompts), config.source)
    known = [*english_words(), *_texts(config.dictionary or tuple(sorted(SHIPPED_DATA.glob("*.jsonl.gz"))))]
    _require_ours(config)
    llm = llm or load_llm(config.model)
    encoded, num_too_long = _choose(prompts, config, llm)
    rows = load_rows(config.systems, config.registry or proxies_root(), llm)
    scorers = load_scorers(config.reward, config.judges, llm, config.encoder)
    _check_reward(rows, scorers)
    store = AnswerStore(config.output, _settings(config, encoded, llm), config.merges)
    with reading_progress(console) as progress:
        scoring = Scoring(llm=llm, prompts=encoded, scorers=scorers, store=store, progress=progress)
        duels = _duels(config, encoded, progress)
        answering = Answering(llm=llm, prompts=encoded, config=config, store=store, scoring=scoring, progress=progress)
        answered = answering.rows(rows) + (read_rows(config.merges, store) if not config.systems else [])
        judged = Judgement(scoring, known, config.seed).rows(answered)
        if duels is not None:
            judged = duels.rows(judged, answered)
    report = EvaluationReport(
        num_prompts=len(encoded),
        max_tokens=config.max_tokens,
        seed=config.seed,
        model=llm.name,
        prompts=config.prompts.name,
        num_too_long=num_too_long,
        rows=judged,
    )
    console.print(report.table())
    found = Evaluation(report=report, answered=answered, scoring=scoring)
    if config.output is not None:
        _write(config.output, config, found, console)
    return found


def _duels(config: EvaluationConfig, prompts: Sequence[EncodedPrompt], progress: Progress) -> Duels | None:
    if config.pairwise is None:
        return None
    assert config.output is not None, "the settings ask for one"
    return Duels.of(config.pairwise, config.output, prompts, config.seed, progress)


def _write(folder: Path, config: EvaluationConfig, found: "Evaluation", console: Console) -> None:
    write_files(folder, found.report, found.scoring.prompts, found.answered)
    if config.report:
        from trainer.evaluation.page.page import write_page

        console.print(f"Report: {write_page(folder, found, config.num_shown)}")
    for card in write_cards(folder, found.report) if config.card else ():
        console.print(f"Card: {card}")


def _require_ours(config: EvaluationConfig) -> None:
    """Refuse a folder with other things in it before the LLM is loaded; its settings are compared later."""
    for name, folder in (("output", config.output), *(("merge", each) for each in config.merges)):
        if folder is not None and folder.exists():
            AnswerStore.require_evaluation(folder, name)


def _check_reward(rows: Sequence[Row], scorers: dict[str, Scorer]) -> None:
    for system in (each for row in rows for each in row.systems if each.must_have_reward):
        if TRAINING_REWARD not in scorers:
            raise InvalidParameter("reward", None, f"a reward model's folder: {system.name} chooses by it")
        if system.kind == "rerank":
            PrefixJudge(scorers[TRAINING_REWARD].model)


def _settings(config: EvaluationConfig, prompts: Sequence[EncodedPrompt], llm: FrozenLLM) -> dict[str, Any]:
    """What every system's answers depend on. How many run side by side is not among it."""
    digest = hashlib.sha256(json.dumps([each.token_ids for each in prompts]).encode()).hexdigest()[:16]
    return {
        "model": llm.name,
        "fingerprint": dict(llm.fingerprint),
        "max_tokens": config.max_tokens,
        "seed": config.seed,
        "prompts": f"{len(prompts)} of {config.prompts.name}, {digest}",
    }


def _texts(paths: Sequence[Path]) -> list[str]:
    """Every string of the rows' prompts and answers."""
    texts = []
    for path in paths:
        for _, row in read_json_lines(path):
            texts += [str(message.get("content", "")) for message in row.get("prompt", ()) if isinstance(message, dict)]
            texts += [row[key] for key in ("chosen", "rejected") if isinstance(row.get(key), str)]
    return texts


def _choose(prompts: Sequence[Prompt], config: EvaluationConfig, llm: FrozenLLM) -> tuple[list[EncodedPrompt], int]:
    """The prompts that fit, in an order drawn by the seed, and how many did not."""
    limit = room_for_prompt(llm, config.max_prompt_tokens, config.max_tokens, "max_tokens")
    fitting = encode_prompts(prompts, llm.tokenizer, limit)
    if not fitting:
        raise InvalidParameter("prompts", str(config.prompts), "a file with prompts that fit source and length")
    generator = torch.Generator().manual_seed(derived_seed(config.seed, "evaluation"))
    order = torch.randperm(len(fitting), generator=generator).tolist()
    chosen = [fitting[index] for index in order[: config.num_prompts or None]]
    return chosen, len(prompts) - len(fitting)

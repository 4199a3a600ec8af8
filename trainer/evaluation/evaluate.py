"""`proxy-rlhf evaluate`: systems side by side on the same held-out prompts, by the decode loop that serves.

Life of a row: the engine answers every prompt greedily; reward models score the answers; the LLM alone says how likely
they are; `text_metrics` says what they look like; each answer is compared with the base's answer to its prompt.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from proxy_model import disk
from proxy_model.errors import InvalidParameter
from proxy_model.frozen_llm import FrozenLLM, load_llm
from proxy_model.paths import proxies_root
from trainer.evaluation.answers import Answers, answer_all
from trainer.evaluation.config import EvaluationConfig
from trainer.evaluation.judgement import Judgement
from trainer.evaluation.report import EvaluationReport
from trainer.evaluation.systems import load_systems
from trainer.evaluation.text_metrics import english_words
from trainer.json_lines import read_json_lines
from trainer.prompts import Prompt, keep_sources, load_prompts
from trainer.rewards import RewardModel, load_reward
from trainer.rewards.progress import reading_progress
from trainer.rollout import EncodedPrompt, derived_seed, encode_prompts

SHIPPED_DATA = Path(__file__).parents[2] / "data"
"""Real prompts and answers, see its README; their words count as words, beside those of an English dictionary."""


def evaluate(
    config: EvaluationConfig, *, llm: FrozenLLM | None = None, console: Console | None = None
) -> EvaluationReport:
    """Run every system, print the table, write the files.

    `llm` spares the loading of `config.model`. Data, checkpoints and reward models are read before anything is
    generated: raises `DataError`, `InvalidParameter`, `UnknownProxy`, `BadCheckpoint`.
    """
    console = console or Console()
    if config.output is not None and config.output.exists():
        raise InvalidParameter("output", str(config.output), "a folder that does not exist yet")
    prompts = keep_sources(load_prompts(config.prompts), config.source)
    known = [*english_words(), *_texts(config.dictionary or tuple(sorted(SHIPPED_DATA.glob("*.jsonl.gz"))))]
    llm = llm or load_llm(config.model)
    systems = load_systems(config.systems, config.registry or proxies_root(), llm)
    scorers = _load_scorers(config, llm)
    encoded, num_too_long = _choose(prompts, config, llm)
    with reading_progress(console) as progress:
        answers = answer_all(systems, encoded, config, llm, progress)
        rows = Judgement(llm, encoded, scorers, known, config.seed, progress).rows(answers)
    report = EvaluationReport(
        num_prompts=len(encoded),
        max_tokens=config.max_tokens,
        seed=config.seed,
        model=llm.name,
        prompts=config.prompts.name,
        num_too_long=num_too_long,
        rows=rows,
    )
    console.print(report.table())
    if config.output is not None:
        _write(config.output, report, encoded, answers)
    return report


def _load_scorers(config: EvaluationConfig, llm: FrozenLLM) -> dict[str, RewardModel]:
    folders = {} if config.reward is None else {"reward": config.reward}
    for judge in config.judges:
        label = f"judge {judge.name}"
        folders[label if label not in folders else f"judge {judge}"] = judge
    return {label: load_reward(folder, llm, encoder=config.encoder) for label, folder in folders.items()}


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
    fitting = encode_prompts(prompts, llm.tokenizer, config.max_prompt_tokens)
    if not fitting:
        raise InvalidParameter("prompts", str(config.prompts), "a file with prompts that fit source and length")
    generator = torch.Generator().manual_seed(derived_seed(config.seed, "evaluation"))
    order = torch.randperm(len(fitting), generator=generator).tolist()
    chosen = [fitting[index] for index in order[: config.num_prompts or None]]
    return chosen, len(prompts) - len(fitting)


def _write(
    folder: Path, report: EvaluationReport, prompts: Sequence[EncodedPrompt], answers: Sequence[Answers]
) -> None:
    disk.make_folder(folder)
    (folder / "evaluation.json").write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
    (folder / "evaluation.md").write_text(report.markdown(), encoding="utf-8")
    with (folder / "answers.jsonl").open("w", encoding="utf-8") as file:
        for number, prompt in enumerate(prompts):
            found = {each.system.name: each.finished[number] for each in answers}
            row = {
                "prompt": prompt.messages,
                "answers": {name: each.text for name, each in found.items()},
                "usage": {name: asdict(each.usage) for name, each in found.items()},
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

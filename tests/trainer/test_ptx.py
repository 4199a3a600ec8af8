"""Answers that PPO imitates while it learns from a reward."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from proxy_model.errors import InvalidParameter
from tests.trainer.runs import parts_in_miniature, small_config
from tests.trainer.tiny_llm import tiny_llm
from trainer.algorithm_config import PtxConfig
from trainer.config import TrainConfig
from trainer.loop import TrainResult, train
from trainer.offline.data import imitated_answers
from trainer.offline.pairs import replay_pairs
from trainer.offline.replayed import ReplayConfig
from trainer.preferences import PreferencePair
from trainer.ptx import Demonstrations
from trainer.run_log import METRICS_FILE, read_rows

CHOSEN = [f"{letter}{letter}ab" for letter in "abcdefgh"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pairs, replayed with the SKAM settings of `small_config`."""
    output = tmp_path_factory.mktemp("data") / "replayed"
    pairs = [
        PreferencePair(prompt=[{"role": "user", "content": f"q {number}"}], chosen=chosen, rejected="Zeus")
        for number, chosen in enumerate(CHOSEN)
    ]
    skam = small_config(Path("run"), iterations=1).skam
    replay_pairs(ReplayConfig(output=output, skam=skam), tiny_llm(), pairs)
    return output


def run(config: TrainConfig) -> TrainResult:
    parts = parts_in_miniature()
    assert config.ptx is not None
    answers = imitated_answers(config.ptx.data, config, parts.llm)
    shown = Demonstrations(answers=answers, weight=config.ptx.weight, embedding=parts.llm.embedding)
    return train(config, parts=replace(parts, demonstrations=shown))


def test_of_each_pair_the_chosen_answer_is_imitated(folder: Path) -> None:
    llm = tiny_llm()

    answers = imitated_answers(folder, small_config(Path("run"), iterations=1), llm)

    texts = [llm.tokenizer.decode([token for token in each.token_ids if token < 256]) for each in answers]
    assert 4 <= len(texts) <= 8
    assert all(
        set(text) <= set("abcdefgh") for text in texts
    )  # nothing of the rejected ones; inadmissible tokens are gone


def test_an_iteration_walks_on_through_the_answers(folder: Path) -> None:
    llm = tiny_llm()
    answers = imitated_answers(folder, small_config(Path("run"), iterations=1), llm)
    shown = Demonstrations(answers=answers, weight=1.0, embedding=llm.embedding)

    first, again, second = (shown.of(iteration, len(answers), seed=3).batch for iteration in (0, 0, 1))

    assert torch.equal(first.hidden, again.hidden)
    assert first.num_positions == second.num_positions == sum(len(each.token_ids) for each in answers)
    assert not torch.equal(first.hidden, second.hidden)


def test_a_run_that_imitates_ends_elsewhere_and_says_its_loss(folder: Path, tmp_path: Path) -> None:
    plain = train(small_config(tmp_path / "plain", iterations=4), parts=parts_in_miniature())
    config = small_config(tmp_path / "ptx", iterations=4, ptx=PtxConfig(data=folder, weight=3.0))

    found = run(config)

    losses = [row["update/ptx_loss"] for row in read_rows(tmp_path / "ptx" / METRICS_FILE)]
    assert losses[0] == 0.0  # only the critic learns
    assert 0 < losses[-1] < losses[1]
    assert {row["update/ptx_loss"] for row in read_rows(tmp_path / "plain" / METRICS_FILE)} == {0.0}
    weights, others = found.policy.state_dict(), plain.policy.state_dict()
    assert not torch.equal(weights["actor.output.weight"], others["actor.output.weight"])


def test_only_ppo_imitates(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="ptx"):
        small_config(tmp_path, iterations=1, ptx=PtxConfig(data=folder), algorithm="awr")


def test_answers_under_other_settings_are_refused(folder: Path, tmp_path: Path) -> None:
    config = small_config(tmp_path, iterations=1)

    with pytest.raises(InvalidParameter, match="skam"):
        imitated_answers(folder, replace(config, skam=replace(config.skam, p_t=0.01)), tiny_llm())

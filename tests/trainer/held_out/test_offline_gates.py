"""A run that learns from a folder of answers, and is looked at by a judge."""

from pathlib import Path

import pytest
import torch

from proxy_model.decision.policy import ProxyPolicy
from proxy_model.versions.checkpoint import read_checkpoint
from proxy_model.versions.registry import ProxyRegistry
from tests.trainer.offline.answers import make_answers
from tests.trainer.offline.test_offline_run import offline_config
from tests.trainer.runs import LengthReward
from tests.trainer.tiny_llm import tiny_llm
from trainer import run as run_module
from trainer.algorithm_config import OfflineConfig
from trainer.config import TrainConfig
from trainer.held_out.config import EarlyStoppingConfig, GatesConfig, HeldOutConfig
from trainer.held_out.examiner import Examiner
from trainer.loop import TrainResult, train
from trainer.offline.calibration import calibrated
from trainer.offline.data import OfflineData
from trainer.parts import Parts
from trainer.prompts import Prompt


def judged_config(tmp_path: Path, **changes: object) -> TrainConfig:
    """Three epochs of three iterations, with the table that has its acceptance calibrated."""
    make_answers(tmp_path / "data")
    values: dict[str, object] = {
        "offline": OfflineConfig(epochs=3, rejections_per_token=0.5),
        "held_out": HeldOutConfig(prompts=Path("held_out.jsonl"), judge=Path("judge"), num_prompts=6, max_tokens=12),
        "gates": GatesConfig(max_rejections_per_token=20.0),
    }
    return offline_config(tmp_path / "run", tmp_path / "data", **{**values, **changes})


def learn_judged(config: TrainConfig) -> TrainResult:
    llm = tiny_llm()
    prompts = [Prompt(messages=[{"role": "user", "content": f"held out {number}"}]) for number in range(9)]
    assert config.held_out is not None
    examiner = Examiner.of(config.held_out, config.rollout, prompts, LengthReward(), llm, config.seed)
    return train(config, parts=Parts(llm=llm, data=OfflineData.read(config, llm), examiner=examiner))


@pytest.fixture
def calibrations(monkeypatch: pytest.MonkeyPatch) -> list[ProxyPolicy]:
    """What has been calibrated, in turn."""
    made: list[ProxyPolicy] = []

    def counted(*arguments: object) -> ProxyPolicy:
        made.append(calibrated(*arguments))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(run_module, "calibrated", counted)
    return made


def assert_published(config: TrainConfig, result: TrainResult, expected: list[ProxyPolicy]) -> None:
    registry = ProxyRegistry(config.registry_folder)
    for ref, policy in zip(result.published, expected, strict=True):
        served = read_checkpoint(registry.path(ref), tiny_llm().fingerprint).policy
        for name, weights in policy.state_dict().items():
            assert torch.equal(weights, served.state_dict()[name]), name


def test_each_version_is_calibrated_once_and_judged_as_it_is_published(
    tmp_path: Path, calibrations: list[ProxyPolicy]
) -> None:
    config = judged_config(tmp_path, publish_every=4)

    result = learn_judged(config)

    assert len(calibrations) == 3  # after iterations 4, 8 and 9
    assert_published(config, result, calibrations)


def test_the_best_weights_are_calibrated_as_themselves(tmp_path: Path, calibrations: list[ProxyPolicy]) -> None:
    """The judge's later looks are at other weights than those that are published in the end."""
    stopping = EarlyStoppingConfig(every=3, patience=1, min_gain=1e6)

    config = judged_config(tmp_path, early_stopping=stopping)
    result = learn_judged(config)

    assert result.iterations == 6
    assert result.metrics["held_out/best_iteration"] == 3
    assert len(calibrations) == 3  # the looks at 3 and 6, and 3 again
    assert_published(config, result, [calibrations[0]])

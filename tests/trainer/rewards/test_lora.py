import json
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console

from proxy_model.errors import BadCheckpoint, FingerprintMismatch
from tests.trainer.preference_data import write_pairs
from tests.trainer.tiny_llm import tiny_llm, write_tiny_llm
from trainer.rewards.load import load_reward
from trainer.rewards.lora import LoraReward
from trainer.rewards.model import Conversation
from trainer.rewards.train import train_reward
from trainer.rewards.training_config import LoraConfig, RewardTrainingConfig

USER = [{"role": "user", "content": "Is 7 fine?"}]
ANSWERS = [Conversation(USER, answer) for answer in ("yes yes 7", "no no 7", "", "maybe 7 yes")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lora")
    config = RewardTrainingConfig(
        output=root / "reward",
        train=(write_pairs(root / "train.jsonl", 40),),
        test=(write_pairs(root / "test.jsonl", 20, offset=500),),
        kind="lora",
        model=str(write_tiny_llm(root / "llm")),
        taps=(2,),
        cuts=(24,),
        l2=(1.0,),
        lora=LoraConfig(rank=2, layers=1, epochs=3, learning_rate=1e-2),
    )
    report = train_reward(config, console=Console(quiet=True))
    assert report.accuracies[0].interval.estimate > 0.9
    return root / "reward"


def test_adapters_move_and_only_in_the_layers_that_were_asked_for(folder: Path) -> None:
    model = load_reward(folder, tiny_llm())

    assert isinstance(model, LoraReward)
    adapters = model.backbone.adapters()
    assert {name.split(".layers.")[1].split(".")[0] for name in adapters} == {"1"}
    assert min(float(tensor.abs().max()) for name, tensor in adapters.items() if "lora_B" in name) > 1e-3


def test_a_score_does_not_depend_on_the_batch_and_survives_the_disk(folder: Path) -> None:
    first, second = load_reward(folder, tiny_llm()), load_reward(folder, tiny_llm())

    together = first.score(ANSWERS)

    alone = torch.cat([second.score([each]) for each in ANSWERS])
    assert torch.allclose(together, alone, atol=1e-4)
    assert together[0] > together[1]
    assert first.score([]).shape == (0,)


def test_the_backbone_s_own_weights_are_not_stored(folder: Path) -> None:
    size = sum(each.stat().st_size for each in folder.iterdir())

    assert {each.name for each in folder.iterdir()} == {"config.json", "head.safetensors", "manifest.json"}
    assert size < 30_000


def test_a_tampered_adapter_and_another_backbone_are_refused(folder: Path, tmp_path: Path) -> None:
    torn = shutil.copytree(folder, tmp_path / "torn")
    data = bytearray((torn / "head.safetensors").read_bytes())
    data[-3] ^= 1
    (torn / "head.safetensors").write_bytes(data)
    with pytest.raises(BadCheckpoint):
        load_reward(torn, tiny_llm())

    llm = Path(json.loads((folder / "config.json").read_text())["reads"]["backbone"])
    kept = shutil.copytree(llm, tmp_path / "kept")
    config = json.loads((llm / "config.json").read_text())
    (llm / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    try:
        with pytest.raises(FingerprintMismatch):
            load_reward(folder, tiny_llm())
    finally:
        shutil.copytree(kept, llm, dirs_exist_ok=True)

"""A checkpoint comes back as it was written, or not at all."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from proxy_model import disk
from proxy_model.decision.config import FeatureMode, PolicyConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.errors import BadCheckpoint, FingerprintMismatch
from proxy_model.manifest import MANIFEST
from proxy_model.versions.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from tests.bad_checkpoints import (
    CORRUPTIONS,
    SMALL_FINGERPRINT,
    SMALL_SKAM,
    Corruption,
    change_config,
    flip,
    small_policy,
)


def small_checkpoint(seed: int = 0) -> Checkpoint:
    return Checkpoint(small_policy(seed), SMALL_SKAM, dict(SMALL_FINGERPRINT), {"seed": seed, "data": "made up"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "7", small_checkpoint())
    return tmp_path / "7"


@pytest.mark.parametrize("features", ["prefix", "candidate", "both"])
def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path, features: FeatureMode) -> None:
    config = PolicyConfig(llm_hidden_size=6, hidden_size=5, features=features, initial_acceptance=0.7)
    written = replace(small_checkpoint(), policy=ProxyPolicy(config))

    write_checkpoint(tmp_path / "1", written)
    found = read_checkpoint(tmp_path / "1", SMALL_FINGERPRINT)

    assert found.policy.config == config
    assert found.skam == written.skam
    assert found.fingerprint == written.fingerprint
    assert found.card == {"seed": 0, "data": "made up"}
    assert found.warnings == ()
    expected = written.policy.state_dict()
    assert found.policy.state_dict().keys() == expected.keys()
    for name, tensor in found.policy.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_a_conditioned_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    config = PolicyConfig(llm_hidden_size=6, hidden_size=5, is_conditioned=True, default_target_return=-0.25)
    policy = ProxyPolicy(config)

    write_checkpoint(tmp_path / "1", replace(small_checkpoint(), policy=policy))

    found = read_checkpoint(tmp_path / "1", SMALL_FINGERPRINT).policy
    assert found.config == config
    weights = (each.get_parameter("actor.target.weight") for each in (found, policy))
    assert torch.equal(*weights)


def test_other_checkpoints_are_written_as_before_there_were_conditioned_ones(folder: Path) -> None:
    written = json.loads((folder / "config.json").read_text())["policy"]

    assert written == {"llm_hidden_size": 6, "features": "prefix", "hidden_size": 5, "initial_acceptance": 0.8}
    assert not read_checkpoint(folder, SMALL_FINGERPRINT).policy.config.is_conditioned


@pytest.mark.parametrize(
    "policy",
    [
        {"is_conditioned": True},
        {"is_conditioned": "yes"},
        {"is_conditioned": False, "default_target_return": 4.5},
        {"is_conditioned": False, "default_target_return": True},
        {"is_conditioned": False, "features": None},
    ],
)
def test_weights_and_settings_that_disagree_about_conditioning_are_refused(
    folder: Path, policy: dict[str, object]
) -> None:
    change_config(folder, lambda config: config["policy"].update(policy))

    with pytest.raises(BadCheckpoint) as caught:
        read_checkpoint(folder, SMALL_FINGERPRINT)
    assert caught.value.reason == "format"


def test_what_was_read_can_be_trained_on(folder: Path) -> None:
    policy = read_checkpoint(folder, None).policy

    policy.values(torch.ones(2, 6)).sum().backward()

    assert all(parameter.requires_grad and parameter.device.type == "cpu" for parameter in policy.parameters())
    assert policy.critic.output.bias.grad is not None


def test_weights_in_half_precision_are_kept_as_float32(tmp_path: Path) -> None:
    checkpoint = small_checkpoint()
    expected = checkpoint.policy.actor.output.weight.detach().to(torch.bfloat16).float()

    write_checkpoint(tmp_path / "1", replace(checkpoint, policy=checkpoint.policy.to(torch.bfloat16)))

    found = read_checkpoint(tmp_path / "1", None).policy.actor.output.weight
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_reading_leaves_the_global_random_state_alone(folder: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()

    read_checkpoint(folder, None)

    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("corrupt", "reason"), CORRUPTIONS.items(), ids=lambda item: getattr(item, "__name__", item))
def test_a_bad_folder_is_refused_with_its_reason(folder: Path, corrupt: Corruption, reason: str) -> None:
    read_checkpoint(folder, SMALL_FINGERPRINT)

    corrupt(folder)

    with pytest.raises(BadCheckpoint) as caught:
        read_checkpoint(folder, SMALL_FINGERPRINT)
    assert caught.value.reason == reason


@pytest.mark.parametrize("name", ["policy.safetensors", "config.json", "card.json", "README.md", MANIFEST])
def test_no_byte_of_any_file_can_change_unnoticed(folder: Path, name: str) -> None:
    size = (folder / name).stat().st_size

    for index in range(0, size, max(1, size // 200)):
        flip(folder / name, index)
        with pytest.raises(BadCheckpoint):
            read_checkpoint(folder, SMALL_FINGERPRINT)
        flip(folder / name, index)

    read_checkpoint(folder, SMALL_FINGERPRINT)


@pytest.mark.parametrize("name", ["policy.safetensors", "config.json", MANIFEST])
def test_no_truncation_of_any_file_goes_unnoticed(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()

    for length in range(0, len(data), max(1, len(data) // 100)):
        (folder / name).write_bytes(data[:length])
        with pytest.raises(BadCheckpoint):
            read_checkpoint(folder, SMALL_FINGERPRINT)


def test_a_file_that_turns_into_a_link_or_a_pipe_after_the_list_was_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")

    for name, reason in {"link": "symlink", "pipe": "format", "nothing": "missing"}.items():
        with pytest.raises(BadCheckpoint) as caught:
            disk.read_file(tmp_path / name, 100)
        assert caught.value.reason == reason, name


def test_a_folder_that_is_a_link_a_file_or_absent_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "file").write_text("no folder")

    for name, reason in {"link": "symlink", "file": "format", "nothing": "missing"}.items():
        with pytest.raises(BadCheckpoint) as caught:
            read_checkpoint(tmp_path / name, None)
        assert caught.value.reason == reason, name


@pytest.mark.parametrize("key", ["llm_weights", "tokenizer", "tap"])
def test_a_mismatch_of_the_fingerprint_names_the_field_and_both_values(folder: Path, key: str) -> None:
    with pytest.raises(FingerprintMismatch) as caught:
        read_checkpoint(folder, {**SMALL_FINGERPRINT, key: "elsewhere"})

    assert caught.value.field == key
    assert repr(SMALL_FINGERPRINT[key]) in str(caught.value)
    assert "'elsewhere'" in str(caught.value)


def test_a_key_on_one_side_only_is_a_mismatch(folder: Path) -> None:
    without_tap = {key: value for key, value in SMALL_FINGERPRINT.items() if key != "tap"}

    for fingerprint, field in ((without_tap, "tap"), ({**SMALL_FINGERPRINT, "chat_template": "x"}, "chat_template")):
        with pytest.raises(FingerprintMismatch) as caught:
            read_checkpoint(folder, fingerprint)
        assert caught.value.field == field


def test_another_dtype_is_a_warning(folder: Path) -> None:
    found = read_checkpoint(folder, {**SMALL_FINGERPRINT, "llm_dtype": "bfloat16"})

    assert found.warnings == ("llm_dtype was 'float32' in training, is 'bfloat16' here",)


def test_a_width_that_contradicts_the_fingerprint_is_refused(folder: Path) -> None:
    change_config(folder, lambda config: config["fingerprint"].update(hidden_size=8))

    with pytest.raises(BadCheckpoint, match="hidden_size"):
        read_checkpoint(folder, {**SMALL_FINGERPRINT, "hidden_size": 8})


def test_a_policy_of_51_gb_is_refused_before_its_weights_are_looked_at(folder: Path) -> None:
    change_config(folder, lambda config: config["policy"].update(hidden_size=65536, llm_hidden_size=65536))
    change_config(folder, lambda config: config["fingerprint"].update(hidden_size=65536))

    with pytest.raises(BadCheckpoint, match="the policy would take 5154") as caught:
        read_checkpoint(folder, None)

    assert caught.value.reason == "format"


def test_weights_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    checkpoint = small_checkpoint()
    with torch.no_grad():
        checkpoint.policy.critic.output.bias.fill_(float("nan"))

    with pytest.raises(BadCheckpoint, match=r"critic\.output\.bias"):
        write_checkpoint(tmp_path / "1", checkpoint)

    assert not (tmp_path / "1").exists()


def test_a_card_that_json_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for card in ({"reward": float("nan")}, {"when": object()}):
        with pytest.raises(BadCheckpoint, match=r"card\.json"):
            write_checkpoint(tmp_path / "1", replace(small_checkpoint(), card=card))

    assert not (tmp_path / "1").exists()


def test_a_written_folder_can_be_read_by_other_users_and_by_people(folder: Path) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) & 0o055 == 0o055
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in folder.iterdir())
    assert "made up" in (folder / "README.md").read_text()
    assert json.loads((folder / "config.json").read_text())["skam"]["p_t"] == 0.02

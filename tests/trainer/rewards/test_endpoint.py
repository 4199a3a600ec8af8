import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy_model.errors import CostCeilingReached, GraderFailed, InvalidParameter
from store.fine_tuning.graders import parse_grader
from tests.trainer.scripted_endpoint import Reply, Scripted
from tests.trainer.tiny_llm import tiny_llm
from trainer.config_file import config_from_mapping, config_to_mapping
from trainer.preferences import PreferencePair
from trainer.rewards.build import RewardBuilder
from trainer.rewards.endpoint import ChatEndpoint
from trainer.rewards.endpoint_config import EndpointConfig
from trainer.rewards.model import Conversation
from trainer.rewards.pairwise import PairwiseJudge, verdict_in
from trainer.rewards.score_model import number_in
from trainer.rewards.verdicts import Verdicts

USER = [{"role": "user", "content": "Hello?"}]
TALKS = [Conversation(USER, answer, {"style": "terse"}) for answer in ("good", "bad")]
GRADER = {
    "type": "score_model",
    "name": "kind",
    "model": "judge-1",
    "input": [{"role": "user", "content": "{{item.style}}: {{sample.output_text}}"}],
    "range": [0, 10],
    "sampling_params": {"temperature": 0, "max_completions_tokens": 4},
}


def scores(server: Scripted, *, verdicts: Verdicts | None = None, num_talks: int = 2, **settings: Any) -> list[float]:
    config = EndpointConfig(url=server.url, **{"parallel": 1, **settings})
    endpoint = ChatEndpoint(config, verdicts or Verdicts(), sleep=lambda seconds: None)
    model = RewardBuilder(tiny_llm(), endpoint).build(parse_grader(GRADER))
    return model.score(TALKS[:num_talks]).tolist()


def by_word(body: dict[str, Any]) -> tuple[int, Any]:
    return 200, "Score: 9" if "good" in body["messages"][-1]["content"] else '{"score": 2.5}'


def test_a_model_scores_each_answer_after_its_row(scripted: Callable[[Reply], Scripted]) -> None:
    server = scripted(by_word)

    assert scores(server) == [9.0, 2.5]
    assert server.asked[0] == {
        "model": "judge-1",
        "messages": [
            {"role": "system", "content": "Answer with one number from 0 to 10 and nothing else."},
            {"role": "user", "content": "terse: good"},
        ],
        "temperature": 0,
        "max_completion_tokens": 4,
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7.0),
        ("I'd say 3.5.", 3.5),
        ('{"result": 10}', 10.0),
        ("-1", None),
        ("11", None),
        ("4 of 10", None),
        ("good", None),
        ("", None),
        ('{"score": true}', None),
        ("NaN", None),
        ("gpt-4 likes it", None),
    ],
)
def test_an_answer_is_one_number_in_the_range_or_none(text: str, expected: float | None) -> None:
    assert number_in(text, 0, 10) == expected


def test_prose_is_asked_again_once_and_then_quoted(scripted: Callable[[Reply], Scripted]) -> None:
    server = scripted(lambda body: (200, "What a lovely answer!"))

    with pytest.raises(GraderFailed, match=r"'kind' failed: judge-1 did not answer .* but 'What a lovely answer!'"):
        scores(server, num_talks=1)
    assert len(server.asked) == 2


def test_a_busy_endpoint_is_asked_again_and_a_refusal_is_not(scripted: Callable[[Reply], Scripted]) -> None:
    answers = iter([(429, {}), (503, {}), (200, "1"), (500, {}), (200, "2")])
    assert scores(scripted(lambda body: next(answers))) == [1.0, 2.0]

    server = scripted(lambda body: (400, {"error": {"message": "no such model"}}))
    with pytest.raises(GraderFailed, match="it answered 400: no such model"):
        scores(server, num_talks=1)
    assert len(server.asked) == 1


def test_an_endpoint_that_stays_down_fails_after_every_attempt(scripted: Callable[[Reply], Scripted]) -> None:
    server = scripted(lambda body: (502, {"error": {"message": "bad gateway"}}))
    with pytest.raises(GraderFailed, match="it answered 502: bad gateway"):
        scores(server, num_talks=1, max_attempts=3)
    assert len(server.asked) == 3

    nowhere = Scripted(by_word, lambda _: "http://127.0.0.1:9")
    with pytest.raises(GraderFailed, match=r"it cannot be reached \(ConnectError\)"):
        scores(nowhere, max_attempts=2)


def test_what_is_no_completion_is_named(scripted: Callable[[Reply], Scripted], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.trainer.scripted_endpoint.completion", lambda text: {"choices": []})

    with pytest.raises(GraderFailed, match="the endpoint's answer is no chat completion"):
        scores(scripted(by_word))


@pytest.mark.parametrize(("limits", "paid"), [({"max_requests": 1}, 1), ({"max_tokens": 7}, 1), ({"max_tokens": 8}, 2)])
def test_a_run_stops_at_its_cost_ceiling(
    scripted: Callable[[Reply], Scripted], limits: dict[str, Any], paid: int
) -> None:
    server = scripted(by_word)

    if paid == 2:
        scores(server, **limits)
    else:
        with pytest.raises(CostCeilingReached, match=next(iter(limits))):
            scores(server, **limits)
    assert len(server.asked) == paid


def test_a_resumed_run_pays_only_for_what_is_new(scripted: Callable[[Reply], Scripted], tmp_path: Path) -> None:
    server, path = scripted(by_word), tmp_path / "run" / "verdicts.jsonl"
    first = scores(server, verdicts=Verdicts(path))
    with path.open("a") as file:
        file.write('{"key": "torn')  # a kill in the middle of a line

    again = Verdicts(path)

    assert scores(server, verdicts=again, max_requests=2) == first
    assert (len(server.asked), again.num_requests, again.num_tokens) == (2, 2, 14)
    again.count(5)
    assert Verdicts(path).num_tokens == 19


def test_the_key_is_sent_and_never_told(
    scripted: Callable[[Reply], Scripted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = scripted(lambda body: (401, {"error": {"message": "sk-secret is no key"}}))
    (tmp_path / "key").write_text("sk-secret\n")
    monkeypatch.setenv("PROXY_RLHF_JUDGE_KEY", "sk-other")

    with pytest.raises(GraderFailed, match=r"401: \*\*\* is no key") as failed:
        scores(server, num_talks=1, key_file=tmp_path / "key")

    assert server.keys == ["Bearer sk-secret"]
    assert "sk-secret" not in str(failed.value)
    assert EndpointConfig(url=server.url).key() == "sk-other"
    with pytest.raises(InvalidParameter, match="key_file"):
        scores(server, key_file=tmp_path / "absent")


def test_a_score_model_needs_an_endpoint_which_is_part_of_the_settings() -> None:
    with pytest.raises(InvalidParameter, match="judge must be given"):
        RewardBuilder(tiny_llm()).build(parse_grader(GRADER))

    plain = {"output": "o", "prompts": "p", "proxy": "x", "rewards": [{**GRADER, "weight": 2.0}]}
    with pytest.raises(InvalidParameter, match=r"judge\.url must be given"):
        config_from_mapping({**plain, "judge": {}})
    with pytest.raises(InvalidParameter, match="http"):
        config_from_mapping({**plain, "judge": {"url": "ftp://x"}})
    config = config_from_mapping({**plain, "judge": {"url": "http://x/v1", "key_file": "key"}})
    assert config_from_mapping(json.loads(json.dumps(config_to_mapping(config)))) == config


# Pairwise


def judge(server: Scripted) -> PairwiseJudge:
    return PairwiseJudge(endpoint=ChatEndpoint(EndpointConfig(url=server.url), Verdicts()), model="j")


def prefers_good(body: dict[str, Any]) -> tuple[int, Any]:
    return 200, "A" if "[Answer A]\ngood" in body["messages"][-1]["content"] else "b."


def test_a_verdict_must_hold_in_both_orders(scripted: Callable[[Reply], Scripted]) -> None:
    fair, biased = scripted(prefers_good), scripted(lambda body: (200, "A"))

    assert judge(fair).compare(USER, "good", "bad") == "first"
    assert judge(fair).compare(USER, "bad", "good") == "second"
    assert judge(biased).compare(USER, "good", "bad") == "tie"
    assert judge(biased).compare(USER, "same", "same") == "tie"
    assert (len(fair.asked), len(biased.asked)) == (4, 2)


def test_a_judge_labels_pairs(scripted: Callable[[Reply], Scripted]) -> None:
    server = scripted(lambda body: prefers_good(body) if "good" in body["messages"][-1]["content"] else (200, "tie"))
    pairs = [PreferencePair(prompt=USER, chosen=a, rejected=b) for a, b in [("bad", "good"), ("x", "y")]]

    assert judge(server).label(pairs) == [PreferencePair(prompt=USER, chosen="good", rejected="bad")]


def test_a_verdict_is_one_word() -> None:
    assert [verdict_in(text) for text in ("A", "**B**", "Tie.", "A or B", "neither", "Answer: A, A!")] == [
        "first", "second", "tie", None, None, "first",
    ]  # fmt: skip

"""The loop from feedback to a run, over a real store and a tiny LLM."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from proxy_model.errors import InvalidParameter
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.versions.registry import ProxyRegistry
from store.completions import Completions, now
from store.database import Database
from store.feedback import FeedbackBook, Opinion, Target
from tests.store.rows import MINE, completion
from tests.trainer.runs import parts_in_miniature
from tests.trainer.tiny_llm import tiny_llm
from tests.trainer.tiny_reward import write_tiny_reward
from trainer.feedback.reward import update_reward
from trainer.feedback.rounds import Round
from trainer.loop import TrainResult, train
from trainer.preferences import PreferencePair
from trainer.rewards.folder import read_reward
from trainer.rewards.frozen_head import FrozenHead
from trainer.rewards.model import Conversation
from trainer.rewards.training_config import RewardTrainingConfig
from trainer.service.feedback_job import FeedbackJob, read_feedback_job
from trainer.service.gauges import TrainingGauges
from trainer.service.work import Work

JOB = """
proxy = "tiny"
prompts = "prompts.jsonl"
num_prompts = 16
tensorboard = false
[shape]
hidden_size = 16
initial_acceptance = 0.75
[skam]
p_t = 0.0005
max_candidates = 8
[rollout]
prompts_per_iteration = 16
max_tokens = 24
max_running = 12
[feedback]
reward = "{reward}"
min_new = 6
interval_seconds = 60
l2 = [0.01]
length_control = 0.0
"""


@dataclass
class Loop:
    """A store, a job on it, and a clock."""

    home: Path
    path: Path
    database: Database
    now: float = 1_000.0
    asked: int = 0
    job: FeedbackJob = field(init=False)
    gauges: TrainingGauges = field(default_factory=TrainingGauges)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """What a new process has of the old one: nothing but the disk."""
        self.job = FeedbackJob(
            self.path, self.home, self.database, None, lambda: self.now, self._load, self.gauges.set_supply
        )

    def supply(self) -> tuple[float | None, float | None]:
        """Pieces of feedback and new pairs, as Prometheus sees them."""
        labels = {"proxy": "tiny"}
        registry = self.gauges.registry
        return (
            registry.get_sample_value("proxy_training_feedback", labels),
            registry.get_sample_value("proxy_training_feedback_new_pairs", labels),
        )

    def _load(self, name: str) -> Any:
        return tiny_llm()

    def say(self, number: int, *, consent: bool = True) -> None:
        """A longer and a shorter answer to a prompt of its own; the longer one is better."""
        kept = Completions(self.database)
        prompt = ({"role": "user", "content": f"question {number}"},)
        for which, text in (("long", f"a much longer answer {number}"), ("short", f"no {number}")):
            kept.add(completion(f"{which}{number}", text, stored_at=now(), prompt=prompt))
        better, worse = Target(completion_id=f"long{number}"), Target(completion_id=f"short{number}")
        opinion = Opinion(about=better, rejected=worse, consent=consent)
        FeedbackBook(self.database, kept).put(MINE, opinion)

    def rate(self, number: int, rating: Literal[-1, 1], *, text: str = "so") -> None:
        """A thumb for an answer to a prompt of its own."""
        kept = Completions(self.database)
        name = f"{text}{number}"
        prompt = ({"role": "user", "content": f"question {number}"},)
        kept.add(completion(name, f"{text} {number}", stored_at=now(), prompt=prompt))
        FeedbackBook(self.database, kept).put(
            MINE, Opinion(about=Target(completion_id=name), rating=rating, consent=True)
        )

    def later(self, seconds: float = 60.0) -> Work | None:
        self.now += seconds
        return self.job.next_work()


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    """With the reward model in use, and without feedback."""
    reward = tmp_path / "first"
    path = tmp_path / "feedback.toml"
    path.write_text(JOB.format(reward=reward))
    write_tiny_reward(reward, tiny_llm())
    database = Database(f"sqlite:///{tmp_path}/store.sqlite3")
    yield Loop(tmp_path / "home", path, database)
    database.close()


def do(loop: Loop, work: Work | None) -> TrainResult:
    assert work is not None
    result = train(work.config, parts=parts_in_miniature(), is_resumed=work.is_resumed)
    loop.job.finish(work)
    return result


def test_a_round_begins_once_enough_has_been_said(loop: Loop) -> None:
    for number in range(5):
        loop.say(number)
    loop.say(99, consent=False)
    assert loop.later() is None

    loop.say(5)
    work = loop.later()

    assert work is not None
    assert (work.is_resumed, work.config.start) == (False, None)
    assert work.config.output == loop.home / "feedback" / "tiny" / "1" / "run"
    assert [term.name for term in work.config.rewards] == ["feedback"]


def test_the_next_round_waits_for_new_feedback_and_for_the_interval(loop: Loop) -> None:
    for number in range(6):
        loop.say(number)
    do(loop, loop.later())
    assert loop.later(3600) is None  # nothing new

    for number in range(6, 12):
        loop.say(number)
    loop.job.finish(Work(config=_config_of(loop, 1), is_resumed=False))  # ended just now
    assert loop.later(59) is None
    second = loop.later(11)

    assert second is not None
    assert second.config.start == loop.home / "proxies" / "tiny" / "1"
    assert second.config.output.parent.name == "2"


def test_thumbs_without_a_counterpart_count_for_nothing_and_that_is_said(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "trainer.service.feedback_job")
    for number in range(9):
        loop.rate(number, 1)
    for number in range(20, 25):
        loop.say(number)

    assert [loop.later(), loop.later()] == [None, None]

    told = [(record.message, record.__dict__) for record in caplog.records]
    assert [message for message, _ in told] == ["too few preference pairs for a round"]
    assert {"proxy": "tiny", "feedback": 14, "new_pairs": 5, "needed": 6}.items() <= told[0][1].items()
    assert loop.supply() == (14, 5)
    loop.rate(3, -1, text="no")
    assert loop.later() is not None
    assert loop.supply() == (15, 6)


def test_a_pair_that_a_round_has_learned_from_is_not_new(loop: Loop) -> None:
    for number in range(6):
        loop.say(number)
    loop.rate(6, 1)
    do(loop, loop.later())
    for number in range(7, 12):
        loop.say(number)

    assert loop.later(3600) is None
    assert loop.supply() == (12, 5)

    loop.rate(6, -1, text="no")  # makes a pair with a thumb that the first round could not use
    assert loop.later() is not None


def test_the_reward_model_learns_what_was_said_from_the_one_in_use(loop: Loop) -> None:
    for number in range(6):
        loop.say(number)
    loop.later()

    llm = tiny_llm()
    old, new = (
        FrozenHead.from_stored(read_reward(folder), llm)
        for folder in (loop.path.parent / "first", loop.home / "feedback" / "tiny" / "1" / "reward")
    )
    asked: list[dict[str, str]] = [{"role": "user", "content": "question 77"}]
    pair = [Conversation(asked, "a much longer answer 77"), Conversation(asked, "no 77")]
    margins = [float(scores[0] - scores[1]) for scores in (old.score(pair), new.score(pair))]
    assert margins[0] < 0 < margins[1]  # the first one was taught to like short answers
    assert new.head.standardisation.mean.equal(old.head.standardisation.mean)


@pytest.mark.parametrize("dies_in", ["begin_round", "update_reward", "train", "finish"])
def test_killed_anywhere_a_round_is_neither_lost_nor_done_twice(
    loop: Loop, dies_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        loop.say(number)
    with monkeypatch.context() as patch:
        if dies_in in ("begin_round", "update_reward"):
            patch.setattr(f"trainer.service.feedback_job.{dies_in}", _die)
            with pytest.raises(KeyboardInterrupt):
                loop.later()
        else:
            work = loop.later()
            assert work is not None
            if dies_in == "finish":
                train(work.config, parts=parts_in_miniature())

    loop.restart()
    result = do(loop, loop.later())

    assert loop.later(3600) is None
    assert result.is_done
    assert ProxyRegistry(loop.home / "proxies").versions("tiny") == [1]
    assert sorted(path.name for path in (loop.home / "feedback" / "tiny").iterdir() if path.is_dir()) == ["1"]


def test_no_text_is_on_disk_but_in_the_store_and_deleted_answers_are_not_learned_from(loop: Loop) -> None:
    for number in range(7):
        loop.say(number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.service.feedback_job.update_reward", _die)
        with pytest.raises(KeyboardInterrupt):
            loop.later()
    Completions(loop.database).delete(MINE, "chat.completion", "long3")
    seen: list[PreferencePair] = []

    def watch(config: RewardTrainingConfig, pairs: list[PreferencePair], llm: FrozenLLM) -> float:
        seen.extend(pairs)
        return update_reward(config, pairs, llm)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.service.feedback_job.update_reward", watch)
        do(loop, loop.later())

    assert sorted(pair.prompt[0]["content"] for pair in seen) == [f"question {n}" for n in (0, 1, 2, 4, 5, 6)]
    for path in loop.home.rglob("*"):
        assert not path.is_file() or b"much longer answer" not in path.read_bytes(), path


def test_what_is_said_after_a_round_has_begun_is_for_the_next_one(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        loop.say(number)
    with monkeypatch.context() as patch:
        patch.setattr("trainer.service.feedback_job.update_reward", _die)
        with pytest.raises(KeyboardInterrupt):
            loop.later()
    loop.say(6)
    seen: list[PreferencePair] = []

    def watch(config: RewardTrainingConfig, pairs: list[PreferencePair], llm: FrozenLLM) -> float:
        seen.extend(pairs)
        return update_reward(config, pairs, llm)

    monkeypatch.setattr("trainer.service.feedback_job.update_reward", watch)
    loop.later()

    assert sorted(pair.prompt[0]["content"] for pair in seen) == [f"question {n}" for n in range(6)]


def test_a_round_whose_feedback_is_gone_ends_without_a_run(loop: Loop) -> None:
    for number in range(6):
        loop.say(number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.service.feedback_job.update_reward", _die)
        with pytest.raises(KeyboardInterrupt):
            loop.later()
    for number in (1, 4):
        Completions(loop.database).delete(MINE, "chat.completion", f"short{number}")

    assert loop.later() is None
    assert (loop.home / "feedback" / "tiny" / "1" / "done.json").exists()


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("min_new = 0", "feedback.min_new"),
        ('interval_seconds = "day"', "feedback.interval_seconds"),
        ("often = 3", "feedback"),
    ],
)
def test_a_job_that_makes_no_sense_is_refused(loop: Loop, line: str, name: str) -> None:
    key = line.partition(" ")[0]
    lines = [each for each in loop.path.read_text().splitlines() if not each.startswith(key)]
    loop.path.write_text("\n".join([*lines, line]))

    with pytest.raises(InvalidParameter, match=name):
        read_feedback_job(loop.path)


def _config_of(loop: Loop, number: int) -> Any:
    made = Round(loop.home / "feedback" / "tiny" / str(number))
    return read_feedback_job(loop.path).config_of(made, loop.home, None)


def _die(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt

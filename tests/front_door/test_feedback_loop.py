"""The whole path: a served answer, thumbs, the reward model, the proxy, its gates, the reload, another answer."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.progress import Progress
from torch import Tensor

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import SkamConfig
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.paths import proxies_root
from proxy_model.versions.checkpoint import Checkpoint
from proxy_model.versions.registry import ProxyRegistry
from tests.front_door.conftest import LLM, StartServer
from tests.front_door.server_process import PATIENCE_SECONDS, ServerProcess, eventually
from tests.front_door.trainer_process import TrainerProcess, start_trainer
from tests.server.fakes import new_policy
from trainer.preferences import PreferencePair
from trainer.rewards.fit_frozen_head import fit_frozen_head
from trainer.rewards.folder import write_reward
from trainer.rewards.load import load_reward
from trainer.rewards.model import Conversation, RewardModel
from trainer.rewards.training_config import RewardTrainingConfig

QUESTIONS = [f"Tell me of the number {number}" for number in range(12)]
NUM_ANSWERS = 4
MAX_TOKENS = 24

JOB = """
proxy = "helpful"
model = "{model}"
prompts = "{folder}/prompts.jsonl"
num_prompts = 640
tensorboard = false
[shape]
hidden_size = 8
initial_acceptance = 0.6
[skam]
p_t = 0.0
top_p = 1.0
max_candidates = 8
[rollout]
prompts_per_iteration = 32
max_tokens = 24
max_running = 32
[shaping]
penalty_weight = 0.0
[ppo]
learning_rate = 0.01
target_kl = 0.1
[feedback]
reward = "{folder}/reward"
min_new = 10
interval_seconds = 0
l2 = [0.001]
length_control = 0.0
[held_out]
prompts = "{folder}/held_out.jsonl"
judge = "{folder}/judge"
num_prompts = 16
max_tokens = 24
[gates]
min_reward_gain = {min_gain}
max_rejections_per_token = 10.0
"""


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory, llm: FrozenLLM) -> Path:
    """Prompts, a reward model that knows nothing of digits, and a judge that likes them."""
    folder = tmp_path_factory.mktemp("material")
    _write_prompts(folder / "prompts.jsonl", QUESTIONS)
    _write_prompts(folder / "held_out.jsonl", [f"Say something about {number}" for number in range(20)])
    _write_reward(folder / "reward", llm, [(f"x{n}!y", f"{n}?zz") for n in range(30)])
    _write_reward(
        folder / "judge", llm, [(f"{n}4{n}27{n}", f"a{chr(97 + n % 26)}{chr(65 + n % 26)}m") for n in range(40)]
    )
    return folder


@pytest.fixture(scope="module")
def server(start: StartServer, home: Path, llm: FrozenLLM) -> ServerProcess:
    """With a first version of `helpful`, which accepts what it is offered first."""
    skam = SkamConfig(p_t=0.0, top_p=1.0, max_candidates=8)
    checkpoint = Checkpoint(new_policy(3, acceptance=0.6), skam, dict(llm.fingerprint), {})
    ProxyRegistry(proxies_root(home)).publish("helpful", checkpoint)
    return start("--max-context", "512")


@pytest.fixture
def trainers(home: Path) -> Iterator[list[TrainerProcess]]:
    """Started in a test, killed at its end."""
    running: list[TrainerProcess] = []
    yield running
    for each in running:
        each.kill()


def test_what_people_like_is_what_the_next_version_says(
    server: ServerProcess,
    home: Path,
    material: Path,
    llm_folder: Path,
    llm: FrozenLLM,
    trainers: list[TrainerProcess],
) -> None:
    """People like digits. Every answer of version 1 is the plain LLM's."""
    before = [ask(server, question) for question in QUESTIONS]
    assert {each["proxy"]["version"] for each in before} == {1}
    rated = rate_by_digits(server, first_seed=0)
    job = write_job(home, material, llm_folder, min_gain=-5.0)

    trainers.append(start_trainer(home, PROXY_RLHF_TRAINER_FEEDBACK=str(job)))

    registry = ProxyRegistry(proxies_root(home))
    eventually(lambda: registry.resolve("helpful").version == 2, "a stable second version", 3 * PATIENCE_SECONDS)
    eventually(lambda: ask(server, QUESTIONS[0])["proxy"]["version"] == 2, "the reload")
    after = [ask(server, question) for question in QUESTIONS]
    reward = load_reward(home / "feedback" / "helpful" / "1" / "reward", llm)
    liked, disliked = (scores(reward, [pair[side] for pair in rated]) for side in (0, 1))
    assert int((liked > disliked).sum()) >= 11  # of 12; by chance once in 315 runs
    assert sum(text_of(old) != text_of(new) for old, new in zip(before, after, strict=True)) >= 6
    assert scores(reward, map(text_of, after)).mean() > scores(reward, map(text_of, before)).mean() + 0.5
    assert registry.verdicts("helpful").by_version[2].against == "stable 1"
    assert trainers[0].metric('proxy_training_gate_refusals_total{proxy="helpful"}') == 0


def test_a_version_that_fails_its_gates_is_kept_and_never_served(
    server: ServerProcess, home: Path, material: Path, llm_folder: Path, trainers: list[TrainerProcess]
) -> None:
    """It would have to be liked by fifty deviations more than the stable one."""
    registry = ProxyRegistry(proxies_root(home))
    stable = registry.resolve("helpful")
    made = ProxyRef("helpful", stable.version + 1)
    rate_by_digits(server, first_seed=100)
    job = write_job(home, material, llm_folder, min_gain=50.0)

    trainers.append(start_trainer(home, PROXY_RLHF_TRAINER_FEEDBACK=str(job)))

    refusals = 'proxy_training_gate_refusals_total{proxy="helpful"}'
    eventually(lambda: trainers[0].metric(refusals) == 1, "the refusal", 3 * PATIENCE_SECONDS)
    rounds = home / "feedback" / "helpful"
    eventually(lambda: all((each / "done.json").exists() for each in rounds.glob("[1-9]")), "the end of the round")
    verdict = registry.verdicts("helpful").by_version[made.version]
    assert (verdict.state, verdict.against) == ("failed", f"stable {stable.version}")
    assert verdict.failures[0].startswith("reward_gain is ")
    assert registry.resolve("helpful") == stable
    assert ask(server, QUESTIONS[0])["proxy"]["version"] == stable.version
    assert registry.verify(made).card["settings"]["gates"]["min_reward_gain"] == 50.0


def write_job(home: Path, material: Path, llm_folder: Path, *, min_gain: float) -> Path:
    path = home / "feedback.toml"
    path.write_text(JOB.format(model=llm_folder, folder=material, min_gain=min_gain))
    return path


def ask(server: ServerProcess, question: str, **more: Any) -> dict[str, Any]:
    """The stored answer to a question, greedy unless `more` says otherwise."""
    body = {"model": f"{LLM}:helpful", "messages": [{"role": "user", "content": question}], "max_tokens": MAX_TOKENS}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body | more, timeout=PATIENCE_SECONDS)
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def rate_by_digits(server: ServerProcess, *, first_seed: int) -> list[tuple[str, str]]:
    """Of several answers to each question a thumb up for that with most digits, down for that with least.

    Returns both texts for each question.
    """
    rated = []
    for question in QUESTIONS:
        seeds = range(first_seed, first_seed + NUM_ANSWERS)
        answers = [ask(server, question, temperature=1.0, seed=seed, store=True) for seed in seeds]
        worst, *_, best = sorted(answers, key=lambda each: sum(map(str.isdigit, text_of(each))))
        for answer, rating in ((worst, -1), (best, 1)):
            said = {"completion_id": answer["id"], "rating": rating, "consent": True}
            httpx.post(f"{server.url}/v1/feedback", json=said, timeout=PATIENCE_SECONDS).raise_for_status()
        rated.append((text_of(best), text_of(worst)))
    return rated


def text_of(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


def scores(reward: RewardModel, texts: Iterable[str]) -> Tensor:
    """One score an answer to each question."""
    asked = zip(QUESTIONS, texts, strict=True)
    return reward.score([Conversation([{"role": "user", "content": question}], text) for question, text in asked])


def _write_prompts(path: Path, questions: list[str]) -> None:
    rows = [{"prompt": [{"role": "user", "content": question}]} for question in questions]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_reward(folder: Path, llm: FrozenLLM, answers: list[tuple[str, str]]) -> None:
    pairs = [
        PreferencePair(prompt=[{"role": "user", "content": f"q{n}"}], chosen=chosen, rejected=rejected)
        for n, (chosen, rejected) in enumerate(answers)
    ]
    config = RewardTrainingConfig(output=folder, train=(Path(),), taps=(1,), cuts=(24,), l2=(0.01,), length_control=0.0)
    model, _, _ = fit_frozen_head(config, pairs, llm, Progress(disable=True))
    write_reward(folder, model.stored({}))

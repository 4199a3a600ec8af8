"""The command line: what it prints, its exit status, and what it passes on."""

import dataclasses
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import pytest

from cli.local_speaker import LocalSpeaker
from cli.main import main
from cli.remote_speaker import NoAnswer, RemoteSpeaker
from cli.run_settings import make_config
from cli.serve import serve
from cli.speaker import ChatOptions
from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import SkamConfig
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.request import GenerationRequest, SamplingParams
from proxy_model.errors import InvalidParameter
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.paths import store_file
from proxy_model.versions.checkpoint import Checkpoint
from proxy_model.versions.registry import ProxyRegistry
from proxy_model.versions.verdicts import Verdict
from server.settings import Settings
from tests.bad_checkpoints import flipped_byte
from tests.conftest import dial_policy, steering_policy
from tests.publisher import small_checkpoint
from tests.store.ended_job import add_ended_job
from trainer.evaluation.config import EvaluationConfig, PairwiseConfig
from trainer.rewards.endpoint_config import EndpointConfig
from trainer.rewards.terms import trained_term

OPTIONS = ChatOptions(max_tokens=12, temperature=0.0, seed=None)
QUESTION = [{"role": "user", "content": "hello"}]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProxyRegistry:
    """The published proxies of a home of its own: three versions of `calm`, the third one stable."""
    monkeypatch.setenv("PROXY_RLHF_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    registry = ProxyRegistry(tmp_path / "proxies")
    for seed in (1, 2, 3):
        registry.publish("calm", small_checkpoint(seed))
    return registry


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["frobnicate"], 2, "frobnicate"),  # no such command
        (["train"], 2, "--output"),  # a required option is missing
        (["serve", "--port", "x"], 2, "--port"),  # not a number
        (["serve", "--port", "70000"], 2, "port must be in [0, 65535]"),  # refused by the settings
        (["serve", "--host", "0.0.0.0"], 2, "PROXY_RLHF_API_KEYS"),  # open to strangers
        (["train", "--output", "run", "--resume"], 2, "settings.json"),  # nothing to resume
        (["train", "--output", "run", "--resume", "--seed", "3"], 2, "seed must be left out"),  # another run
        (["train", "--output", "run", "--proxy", "p"], 2, "prompts must be given"),  # neither flag nor file
        (["reward", "--output", "head", "--train", "absent.jsonl"], 2, "absent.jsonl"),  # no such file
        (["evaluate", "calm"], 2, "--prompts"),  # nothing to answer
        (["evaluate", "--prompts", __file__, "--pairwise-judge", "http://j/v1"], 2, "pairwise-model must be given"),
        (["evaluate", "--prompts", __file__, "--pairwise-model", "wise"], 2, "pairwise-judge must be given"),
        (["proxies", "show", "absent"], 2, "absent"),  # no such proxy
        (["proxies", "show", "@3"], 2, "NAME@VERSION"),  # a version of nothing
        (["proxies", "promote", "calm"], 2, "NAME@VERSION"),  # no version to promote
        (["proxies", "promote", "calm@9"], 2, "'9'"),  # no such version
        (["chat", "--url", "nonsense", "hi"], 2, "url must be an address"),  # no scheme
        (["chat", "--url", "http://127.0.0.1:9", "hi"], 1, "is `proxy-rlhf serve` running?"),  # nobody listens
    ],
)
def test_an_error_is_one_line_and_a_status(
    arguments: list[str],
    status: int,
    words: str,
    registry: ProxyRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(arguments) == status

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--prompts", "{data}", "--output", "{out}", "--reward", "{here}", "--proxy", "p"],
        ["reward", "--train", "{data}", "--output", "{out}"],
        ["evaluate", "calm", "--prompts", "{data}", "--output", "{out}"],
    ],
)
def test_a_broken_line_of_data_is_named_before_anything_is_loaded(
    arguments: list[str], registry: ProxyRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The LLM is one that cannot be loaded: it must not have been tried."""
    data, out = tmp_path / "data.jsonl", tmp_path / "out"
    prompt = [{"role": "user", "content": "hi"}]
    answers = {"chosen": "a", "rejected": "b"} if arguments[0] == "reward" else {}
    data.write_text(json.dumps({"prompt": prompt, **answers}) + "\n" + json.dumps({"prompt": 3, **answers}) + "\n")
    filled = [argument.format(data=data, out=out, here=tmp_path) for argument in arguments]

    assert main([*filled, "--model", "absent/model"]) == 2

    assert f"{data}, line 2: 'prompt' must be a list" in capsys.readouterr().err
    assert not out.exists()


def test_every_setting_of_the_server_but_its_secrets_is_a_flag() -> None:
    assert set(inspect.signature(serve).parameters) == {field.name for field in dataclasses.fields(Settings)} - {
        "api_keys",
        "admin_key",
        "store_url",
    }


def test_every_flag_of_an_evaluation_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[EvaluationConfig] = []
    monkeypatch.setattr("trainer.evaluation.evaluate.evaluate", lambda config, console: seen.append(config))
    file = tmp_path / "rows.jsonl"
    file.touch()
    expected = EvaluationConfig(
        prompts=file,
        systems=("calm@2", "random"),
        merges=(tmp_path.parent,),
        num_shown=16,
        report=True,
        card=True,
        reward=tmp_path,
        judges=(tmp_path, tmp_path.parent),
        pairwise=PairwiseConfig(
            endpoint=EndpointConfig(url="http://judge/v1", max_requests=9), model="wise", criterion="Which is kinder?"
        ),
        output=tmp_path / "out",
        model="some/llm",
        registry=tmp_path / "proxies",
        encoder=file,
        source="hh",
        num_prompts=11,
        max_tokens=12,
        max_prompt_tokens=13,
        max_running=14,
        dictionary=(file,),
        seed=15,
    )
    default = EvaluationConfig(prompts=file, systems=())
    given = {field.name: getattr(expected, field.name) for field in dataclasses.fields(EvaluationConfig)}
    assert all(value != getattr(default, name) for name, value in given.items() if name != "prompts")

    del given["pairwise"]
    given |= {"pairwise_judge": "http://judge/v1", "pairwise_model": "wise", "pairwise_max_requests": 9}
    given["pairwise_criterion"] = "Which is kinder?"

    assert main(["evaluate", *given.pop("systems"), *flags_of(given)]) == 0

    assert seen == [expected]


def test_every_flag_of_a_reward_model_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr("trainer.rewards.train.train_reward", lambda config, console: seen.append(config))
    file = tmp_path / "rows.jsonl"
    file.touch()
    given: dict[str, object] = {
        "output": tmp_path / "head",
        "train": (file, file),
        "test": (file,),
        "kind": "sentence_judge",
        "half": "judge",
        "model": "some/llm",
        "encoder": file,
        "taps": (3, 5),
        "with_last_token": True,
        "with_prompt": True,
        "cuts": (20, 40),
        "l2": (0.5, 0.25),
        "length_control": 0.25,
        "max_pairs": 11,
        "seed": 12,
    }

    assert main(["reward", *flags_of(given)]) == 0

    (config,) = seen
    assert {name: getattr(config, name) for name in given} == given


def flags_of(settings: Mapping[str, object]) -> list[str]:
    """`settings` as a person would type them: a flag of several values is repeated, a switch has none."""
    flags = []
    for name, value in settings.items():
        flag = f"--{name.removesuffix('s') if name in ('judges', 'merges') else name.replace('_', '-')}"
        for one in value if isinstance(value, tuple) else (value,):
            flags += [flag] if one is True else [flag, str(one)]
    return flags


def test_proxies_are_listed_with_what_is_stable(registry: ProxyRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    registry.promote("calm", 2, alias="canary")

    assert main(["proxies", "list"]) == 0

    row = " ".join(capsys.readouterr().out.splitlines()[1].split())
    assert row == "calm 3 canary 2 (0 of the requests) 1 2 3"


def test_a_version_is_shown_as_json(registry: ProxyRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["proxies", "show", "calm@2"]) == 0

    shown = json.loads(capsys.readouterr().out)
    assert (shown["version"], shown["card"], shown["aliases"]) == (2, {"seed": 2}, [])
    assert shown["skam"]["p_t"] == 0.02


def test_a_conditioned_version_shows_its_dial_and_a_local_chat_leaves_it_where_it_stands(
    registry: ProxyRegistry, small_llm: FrozenLLM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cli.local_speaker.load_llm", lambda model: small_llm)
    notes = []
    for default in (1.5, -1.5):
        policy, skam = dial_policy(small_llm.hidden_size, default), SkamConfig(p_t=0.0, top_p=0.95)
        registry.publish("dial", Checkpoint(policy, skam, dict(small_llm.fingerprint)))
        speaker = LocalSpeaker.load("small", "dial", OPTIONS)
        list(speaker.answer(QUESTION))
        notes.append(speaker.note)

    assert " 0 rejected" in notes[0]
    assert " 0 rejected" not in notes[1]
    for name, is_conditioned, default in (("dial@2", True, -1.5), ("calm@2", False, 1.5)):
        assert main(["proxies", "show", name]) == 0
        shown = json.loads(capsys.readouterr().out)["policy"]
        assert (shown["is_conditioned"], shown["default_target_return"]) == (is_conditioned, default)


def test_a_tampered_version_fails_verification_and_is_not_promoted(
    registry: ProxyRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    flipped_byte(registry.root / "calm" / "2")

    assert main(["proxies", "verify", "calm@1"]) == 0
    assert main(["proxies", "verify"]) == 1
    assert main(["proxies", "promote", "calm@2"]) == 1

    printed = capsys.readouterr()
    assert [line.split()[:2] for line in printed.out.splitlines()[1:]] == [
        ["calm@1", "ok"],
        ["calm@2", "tampered:"],
        ["calm@3", "ok"],
    ]
    assert "tampered" in printed.err
    assert registry.resolve("calm") == ProxyRef("calm", 3)


def test_promotion_and_rollback_move_the_stable_version(registry: ProxyRegistry) -> None:
    assert main(["proxies", "promote", "calm@1"]) == 0
    assert registry.resolve("calm") == ProxyRef("calm", 1)

    assert main(["proxies", "rollback", "calm"]) == 0
    assert registry.resolve("calm") == ProxyRef("calm", 3)


def test_old_versions_are_pruned_but_for_those_of_a_job(
    registry: ProxyRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.publish("calm", small_checkpoint(4))
    registry.publish("other", small_checkpoint(5))
    add_ended_job(f"sqlite:///{store_file()}", "calm", 1)

    assert main(["proxies", "prune", "--keep", "1"]) == 0

    assert capsys.readouterr().out.splitlines() == ["deleted calm@2", "deleted nothing of other"]
    assert registry.versions("calm") == [1, 3, 4]  # a rollback returns to 3


def test_pruning_makes_no_store_and_stops_at_one_that_cannot_be_read(
    registry: ProxyRegistry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROXY_RLHF_STORE_URL", "postgresql://nobody@127.0.0.1:9/nothing")
    assert main(["proxies", "prune", "calm", "--keep", "1"]) == 1
    assert registry.versions("calm") == [1, 2, 3]
    assert "refused" in capsys.readouterr().err

    monkeypatch.delenv("PROXY_RLHF_STORE_URL")
    assert main(["proxies", "prune", "calm", "--keep", "1"]) == 0
    assert registry.versions("calm") == [2, 3]
    assert not store_file().exists()


def test_flags_win_over_the_file_and_assignments_over_both(tmp_path: Path, registry: ProxyRegistry) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(
        'seed = 1\nproxy = "calm"\n[[rewards]]\ntype = "trained"\nfolder = "head"\n[ppo]\nepochs = 2\nminibatches = 3\n'
    )

    flags = {"output": Path("run"), "prompts": Path("p.jsonl"), "seed": 7}
    config = make_config(settings, flags, ["ppo.epochs=5", "shape.features=both", "shaping.shuffle=true"])

    assert (config.seed, config.proxy, config.ppo.epochs, config.ppo.minibatches) == (7, "calm", 5, 3)
    assert (config.shape.features, config.shaping.shuffle) == ("both", True)
    assert config.registry_folder == registry.root
    assert make_config(settings, {**flags, "registry": Path("other")}, []).registry_folder == Path("other")


@pytest.mark.parametrize("assignment", ["epochs", "ppo.epoch=3", "pppo.epochs=3", "seed.x=1", "ppo.epochs=many", "=1"])
def test_an_assignment_to_no_setting_is_refused(assignment: str) -> None:
    flags = {"output": Path("run"), "prompts": [Path("p")], "rewards": (trained_term(Path("r")),), "proxy": "calm"}

    with pytest.raises(InvalidParameter):
        make_config(None, flags, [assignment])


def speaker_of(handler: Callable[[httpx.Request], httpx.Response], proxy: str | None = None) -> RemoteSpeaker:
    """Somebody to talk to behind `handler`, on a server that would list `tiny` first."""
    client = httpx.Client(base_url="http://server", transport=httpx.MockTransport(handler))
    return RemoteSpeaker(client, "tiny" if proxy is None else f"tiny:{proxy}", OPTIONS)


def events(*chunks: Mapping[str, object]) -> str:
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


def test_a_remote_answer_comes_in_pieces_and_names_its_proxy() -> None:
    asked: list[dict[str, object]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        pieces = [{"choices": [{"delta": {"content": text}}]} for text in ("", "Wind", " and rain")]
        usage = {"usage": {"completion_tokens": 5}, "proxy": {"id": "calm", "version": 3, "rejections": 2, "forced": 1}}
        return httpx.Response(200, text=events(*pieces, {"choices": [{"delta": {}}]}, {"choices": [], **usage}))

    speaker = speaker_of(handler, "calm")
    pieces = list(speaker.answer(QUESTION))

    assert pieces == ["Wind", " and rain"]
    assert speaker.note == "[calm@3, 5 tokens, 2 rejected, 1 forced]"
    assert (asked[0]["model"], asked[0]["messages"], asked[0]["max_tokens"]) == ("tiny:calm", QUESTION, 12)


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (httpx.Response(404, json={"error": {"message": "no such model"}}), "404: no such model"),
        (httpx.Response(502, text="<html>"), "502: Bad Gateway"),  # a proxy server in between
        (httpx.Response(200, text=events({"error": {"message": "the loop died"}})), "the loop died"),  # mid-stream
    ],
)
def test_a_refusal_is_told_in_the_server_s_words(response: httpx.Response, words: str) -> None:
    with pytest.raises(NoAnswer, match=words):
        list(speaker_of(lambda request: response).answer(QUESTION))


@pytest.mark.parametrize("is_steered", [False, True])
def test_a_local_answer_is_the_engine_s(small_llm: FrozenLLM, is_steered: bool) -> None:
    engine = Engine(small_llm, EngineConfig(max_running=1, max_context=128))
    proxy = ProxyRef("calm", 3) if is_steered else None
    if proxy is not None:
        engine.load_proxy(proxy, steering_policy(small_llm), SkamConfig(p_t=0.0, top_p=0.95))
    prompt = tuple(small_llm.tokenizer.apply_chat_template(QUESTION))
    request = GenerationRequest(id="alone", prompt_token_ids=prompt, params=SamplingParams(max_tokens=12), proxy=proxy)
    (expected,) = engine.generate([request])
    assert (expected.usage.rejected > 0) == is_steered

    speaker = LocalSpeaker(engine, proxy, OPTIONS)

    assert "".join(speaker.answer(QUESTION)) == expected.text
    assert speaker.note.startswith("[calm@3, " if is_steered else "[the LLM alone, ")
    assert f"{expected.usage.completion_tokens} tokens" in speaker.note
    assert not is_steered or f"{expected.usage.rejected} rejected" in speaker.note


def test_a_version_that_failed_its_gates_is_listed_so_and_promoted_by_force_only(
    registry: ProxyRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = Verdict(state="failed", against="stable 3", failures=("latency_ratio is 2.1, limit 1.5",))
    registry.judge(ProxyRef("calm", 2), failed)

    assert main(["proxies", "list"]) == 0
    assert main(["proxies", "promote", "calm@2"]) == 1
    assert main(["proxies", "canary", "calm@2", "--share", "0.1"]) == 1
    printed = capsys.readouterr()
    assert " ".join(printed.out.splitlines()[1].split()) == "calm 3 - 1 2 (failed) 3"
    assert "latency_ratio is 2.1, limit 1.5" in printed.err
    assert registry.resolve("calm").version == 3

    assert main(["proxies", "promote", "calm@2", "--force"]) == 0
    assert main(["proxies", "show", "calm"]) == 0
    shown = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert (shown["version"], shown["gates"]["is_overridden"]) == (2, True)

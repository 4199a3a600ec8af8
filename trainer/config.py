"""The settings of a training run, as frozen dataclasses that refuse what cannot work, and their TOML or JSON file.

The defaults are METHOD's table of PPO-max with its deviations: generalised advantages see the terminal reward through
lambda 1 in the value target, features are cached so that every buffer is used for four epochs, and there is no
entropy bonus, which would pay a Bernoulli policy for rejecting half of everything.
"""

import json
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from proxy_model.aliases import STABLE, Aliases
from proxy_model.config import FeatureMode, PolicyConfig, SkamConfig
from proxy_model.errors import InvalidParameter
from trainer.algorithm_config import (
    AlgorithmName,
    Baseline,
    DpoConfig,
    DtConfig,
    LikelihoodConfig,
    OfflineConfig,
    PpoConfig,
    RlooConfig,
    ValueConfig,
    require,
)
from trainer.held_out.config import EarlyStoppingConfig, GatesConfig, HeldOutConfig
from trainer.rewards.endpoint_config import EndpointConfig
from trainer.rewards.terms import RewardTerm, parse_terms, terms_to_json

_GIVEN = {False: "given, unless data is", True: "left out with data"}

Penalty = Literal["gap", "action_kl", "token_kl", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyShape:
    """What a new proxy looks like; the LLM adds its own width."""

    features: FeatureMode = "prefix"
    hidden_size: int = 256
    initial_acceptance: float = 0.8
    """Acceptance q0 of version 0, in (0.5, 1): .73 to .9 explores, .97 is quiet."""

    def __post_init__(self) -> None:
        self.policy_config(1)

    def policy_config(self, llm_hidden_size: int) -> PolicyConfig:
        return PolicyConfig(
            llm_hidden_size=llm_hidden_size,
            features=self.features,
            hidden_size=self.hidden_size,
            initial_acceptance=self.initial_acceptance,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutConfig:
    """How answers are gathered."""

    prompts_per_iteration: int = 48
    responses_per_prompt: int = 1
    """Answers to each prompt of an iteration; from 2 on they can be one another's baseline."""

    max_tokens: int = 64
    """Length at which an answer is cut, in tokens."""

    max_prompt_tokens: int = 256
    """Longer prompts are left out, and counted."""

    max_running: int = 48
    """Answers that are generated side by side."""

    def __post_init__(self) -> None:
        require(self.prompts_per_iteration >= 2, "prompts_per_iteration", self.prompts_per_iteration, "at least 2")
        require(self.responses_per_prompt >= 1, "responses_per_prompt", self.responses_per_prompt, "at least 1")
        require(self.max_tokens >= 1, "max_tokens", self.max_tokens, "at least 1")
        require(self.max_prompt_tokens >= 1, "max_prompt_tokens", self.max_prompt_tokens, "at least 1")
        require(self.max_running >= 1, "max_running", self.max_running, "at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardConfig:
    """From the reward model's score to the reward of every position."""

    clip: float = 5.0
    """Bound on the normalised score, in running deviations; PPO-max also tried .3 and .8. 0 switches it off."""

    baseline: Baseline = "none"
    """What the other answers to the same prompt take off the normalised score; see `trainer/baselines.py`."""

    penalty: Penalty = "gap"
    """`gap`: log p(first candidate) - log p(accepted). `action_kl`: KL of the acceptance to Bernoulli(q0).
    `token_kl`: log-probability of the accepted token under the proxy minus that under the LLM."""

    penalty_weight: float = 0.05
    """eta, per position."""

    cut_penalty: float = 0.0
    """Taken off the normalised score of an answer that was cut at `max_tokens`, in standard deviations."""

    potential: bool = False
    """Hand the reward out token by token where the reward model can judge prefixes; see `trainer/potential.py`."""

    shuffle: bool = False
    """Control: deal the batch's scores out at random. Such a proxy must learn nothing."""

    def __post_init__(self) -> None:
        require(self.clip >= 0, "clip", self.clip, "at least 0")
        require(self.baseline in get_args(Baseline), "baseline", self.baseline, f"one of {get_args(Baseline)}")
        require(self.penalty in get_args(Penalty), "penalty", self.penalty, f"one of {get_args(Penalty)}")
        require(self.penalty_weight >= 0, "penalty_weight", self.penalty_weight, "at least 0")
        require(self.cut_penalty >= 0, "cut_penalty", self.cut_penalty, "at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One training run. Everything that the result depends on is in here."""

    output: Path
    """Folder of the run, which must not exist unless it is resumed."""

    prompts: tuple[Path, ...] = ()
    """Files of prompts, which are joined."""

    rewards: tuple[RewardTerm, ...] = ()
    """The terms of a weighted sum, each for all prompts or for those of some sources. Where that makes several kinds
    of prompts, an iteration has as many of each, and each kind's scores are standardised by themselves."""

    data: Path | None = None
    """Folder of scored answers (`proxy-rlhf rollouts`, `replay`) to learn from instead of `prompts` and `rewards`."""

    judge: EndpointConfig | None = None
    """Where the grading models of `rewards` are asked."""

    proxy: str
    """Name that the versions are published under."""

    model: str = "smollm2-135m-instruct"
    algorithm: AlgorithmName = "ppo"
    """`ppo`; `rloo`; likelihood of good answers: `mle`, `rwr`, `awr`; of all answers, given their return: `dt`; of
    preferred ones: `dpo`; without a policy gradient: `value`. Each reads its own table of settings."""

    registry: Path | None = None
    """Folder that holds the published proxies; None: `proxies` in the output folder."""

    alias: str = STABLE
    """What its versions are called when they are published: `stable`, `canary` or a name of one's own."""

    held_out: HeldOutConfig | None = None
    """Prompts and a judge that are not trained on: each published version is shown them, and the two below ask them."""

    gates: GatesConfig | None = None
    """What a version must keep to before an alias may name it; None: it is named as soon as it is published."""

    early_stopping: EarlyStoppingConfig | None = None
    """End the run once the held-out judge likes it less, and publish what it liked best; None: no."""

    start: Path | None = None
    """Folder of an earlier run, or of a published version, whose weights this run starts from; None: new weights."""

    num_prompts: int = 0
    """Prompts to answer in all, rounded up to whole iterations; 0: each prompt of the file once."""

    publish_every: int = 0
    """Iterations between two published versions; 0: only the last one."""

    save_every: int = 1
    """Iterations between two saved states."""

    keep_versions: int = 0
    """With each published version all but so many of the newest are deleted, but for those that somebody needs
    (`ProxyRegistry.prune`); 0: none is."""

    seed: int = 0
    tensorboard: bool = True
    shape: ProxyShape = field(default_factory=ProxyShape)
    skam: SkamConfig = field(default_factory=SkamConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    shaping: RewardConfig = field(default_factory=RewardConfig)
    ppo: PpoConfig = field(default_factory=PpoConfig)
    """Of `ppo`; its discount, lambdas and critic pre-training are `awr`'s, too."""

    rloo: RlooConfig = field(default_factory=RlooConfig)
    likelihood: LikelihoodConfig = field(default_factory=LikelihoodConfig)
    """Of `mle`, `rwr` and `awr`."""

    dt: DtConfig = field(default_factory=DtConfig)

    dpo: DpoConfig = field(default_factory=DpoConfig)
    value: ValueConfig = field(default_factory=ValueConfig)
    offline: OfflineConfig = field(default_factory=OfflineConfig)
    """Of every algorithm that learns from `data`."""

    def __post_init__(self) -> None:
        require(bool(self.proxy), "proxy", self.proxy, "a name")
        Aliases().assigned([self.alias], 1)
        names = get_args(AlgorithmName)
        require(self.algorithm in names, "algorithm", self.algorithm, f"one of {names}")
        require(self.num_prompts >= 0, "num_prompts", self.num_prompts, "at least 0")
        require(self.publish_every >= 0, "publish_every", self.publish_every, "at least 0")
        require(self.save_every >= 1, "save_every", self.save_every, "at least 1")
        require(self.keep_versions >= 0, "keep_versions", self.keep_versions, "at least 0")
        require(0 <= self.seed < 2**31, "seed", self.seed, "in [0, 2^31)")
        self._check_source()
        self._check_held_out()
        is_grouped = self.rollout.responses_per_prompt > 1 or self.data is not None
        baseline = self.shaping.baseline
        require(is_grouped or baseline == "none", "shaping.baseline", baseline, "'none' with one response per prompt")
        needs_group = self.algorithm == "rloo" and self.rloo.baseline != "none"
        per_prompt = self.rollout.responses_per_prompt
        require(is_grouped or not needs_group, "rollout.responses_per_prompt", per_prompt, "at least 2 for rloo")

    def _check_source(self) -> None:
        """Answers come from prompts and a reward, or from a folder that has both in it."""
        is_offline = self.data is not None
        for name in ("prompts", "rewards"):
            value = getattr(self, name)
            require(bool(value) != is_offline, name, value or None, _GIVEN[is_offline])
        is_on_policy = self.algorithm in ("ppo", "rloo")
        require(not (is_offline and is_on_policy), "algorithm", self.algorithm, "one that learns offline, with data")
        require(is_offline or self.algorithm != "dpo", "data", None, "given with dpo: it learns from pairs")
        require(not (is_offline and self.shaping.potential), "shaping.potential", True, "false with data")

    def _check_held_out(self) -> None:
        for name in ("gates", "early_stopping"):
            is_asked = getattr(self, name) is not None
            require(self.held_out is not None or not is_asked, "held_out", None, f"given, since {name} is")
            has_judge = self.held_out is not None and self.held_out.judge is not None
            require(has_judge or not is_asked, "held_out.judge", None, f"given, since {name} is")
        is_judged = self.held_out is None or self.held_out.judge is not None or self.data is None
        require(is_judged, "held_out.judge", None, "given with data: nothing else scores the answers")
        every = self.publish_every
        require(not every or self.early_stopping is None, "publish_every", every, "0 with early_stopping")

    @property
    def algorithm_settings(self) -> PpoConfig | RlooConfig | LikelihoodConfig | DtConfig | DpoConfig | ValueConfig:
        """The table of the chosen algorithm."""
        match self.algorithm:
            case "ppo":
                return self.ppo
            case "rloo":
                return self.rloo
            case "dt":
                return self.dt
            case "dpo":
                return self.dpo
            case "value":
                return self.value
        return self.likelihood

    def policy_config(self, llm_hidden_size: int) -> PolicyConfig:
        """The shape of the proxy that this run trains: conditioned on a return under `dt`."""
        shape = self.shape.policy_config(llm_hidden_size)
        if self.algorithm != "dt":
            return shape
        return replace(shape, is_conditioned=True, default_target_return=self.dt.default_target_return)

    @property
    def registry_folder(self) -> Path:
        return self.registry if self.registry is not None else self.output / "proxies"


def read_config(path: Path, **overrides: Any) -> TrainConfig:
    """Read a run's settings from a TOML or JSON file; top-level `overrides` win. Raises `InvalidParameter`."""
    return config_from_mapping({**read_settings(path), **overrides})


def read_settings(path: Path) -> dict[str, Any]:
    """The plain values of a TOML or JSON file, which need not be all of a run's. Raises `InvalidParameter`."""
    text = path.read_text(encoding="utf-8")
    try:
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise InvalidParameter("config", str(path), f"TOML or JSON ({error})") from error
    require(isinstance(values, dict), "config", str(path), "a table of settings")
    return cast(dict[str, Any], values)


def config_from_mapping(values: Mapping[str, Any]) -> TrainConfig:
    """Build the settings from plain values; unknown keys and wrong types are refused by their dotted name."""
    return cast(TrainConfig, _build(TrainConfig, values, ""))


def config_to_mapping(config: TrainConfig) -> dict[str, Any]:
    """The inverse of `config_from_mapping`: JSON values only."""
    lists = {"rewards": terms_to_json(config.rewards), "prompts": _paths_to_json(config.prompts)}
    return cast(dict[str, Any], _plain(asdict(config) | lists))


def _paths_to_json(paths: Sequence[Path]) -> list[str] | str | None:
    """One path as itself, as most files of settings have it."""
    return [str(path) for path in paths] if len(paths) > 1 else str(paths[0]) if paths else None


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return str(value) if isinstance(value, Path) else value


def _build(kind: type, values: object, prefix: str) -> object:
    if not isinstance(values, Mapping):
        raise InvalidParameter(prefix.rstrip("."), values, "a table of settings")
    hints = get_type_hints(kind)
    names = {each.name for each in fields(kind)}
    for name in values:
        require(name in names, f"{prefix}{name}", values[name], f"left out; settings here are {sorted(names)}")
    for each in fields(kind):
        is_needed = each.default is MISSING and each.default_factory is MISSING
        require(not is_needed or each.name in values, f"{prefix}{each.name}", None, "given")
    return kind(**{name: _convert(hints[name], value, f"{prefix}{name}") for name, value in values.items()})


def _convert(kind: Any, value: object, name: str) -> object:
    if is_dataclass(kind):
        return value if isinstance(value, cast(type, kind)) else _build(cast(type, kind), value, f"{name}.")
    if kind == tuple[RewardTerm, ...]:
        return parse_terms(value, name)
    if kind == tuple[Path, ...]:
        listed = value if isinstance(value, list | tuple) else [] if value is None else [value]
        return tuple(cast(Path, _convert(Path, each, name)) for each in listed)
    origin = get_origin(kind)
    if origin is Literal:
        return value
    if origin in (Union, types.UnionType):
        return None if value is None else _convert(get_args(kind)[0], value, name)
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    require(type(value) is kind, name, value, f"of type {kind.__name__}")
    return value

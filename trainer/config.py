"""The settings of a training run, as frozen dataclasses that refuse what cannot work.

The defaults are METHOD's table of PPO-max with its deviations: generalised advantages see the terminal reward through
lambda 1 in the value target, features are cached so that every buffer is used for four epochs, and there is no
entropy bonus, which would pay a Bernoulli policy for rejecting half of everything.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from proxy_model.decision.config import FeatureMode, PolicyConfig, SkamConfig
from proxy_model.versions.aliases import STABLE, Aliases
from proxy_model.versions.proxy_name import ALLOWED as ALLOWED_NAMES
from proxy_model.versions.proxy_name import is_proxy_name
from trainer.algorithm_config import (
    AlgorithmName,
    Baseline,
    DpoConfig,
    DtConfig,
    LikelihoodConfig,
    OfflineConfig,
    PpoConfig,
    PtxConfig,
    RlooConfig,
    ValueConfig,
    require,
)
from trainer.held_out.config import EarlyStoppingConfig, GatesConfig, HeldOutConfig
from trainer.rewards.endpoint_config import EndpointConfig
from trainer.rewards.terms import RewardTerm
from trainer.served.config import ServersConfig

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

    normalise: bool = True
    """Scores count in running deviations from the running mean; false: as the reward gave them."""

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
    servers: ServersConfig | None = None
    """Running servers that answer the prompts; None: an engine in the run's own process."""

    shape: ProxyShape = field(default_factory=ProxyShape)
    skam: SkamConfig = field(default_factory=SkamConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    shaping: RewardConfig = field(default_factory=RewardConfig)
    ppo: PpoConfig = field(default_factory=PpoConfig)
    """Of `ppo`; its discount, lambdas and critic pre-training are `awr`'s, too."""

    ptx: PtxConfig | None = None
    """Answers that `ppo` imitates beside what it learns from the reward; None: none."""

    rloo: RlooConfig = field(default_factory=RlooConfig)
    likelihood: LikelihoodConfig = field(default_factory=LikelihoodConfig)
    """Of `mle`, `rwr` and `awr`."""

    dt: DtConfig = field(default_factory=DtConfig)

    dpo: DpoConfig = field(default_factory=DpoConfig)
    value: ValueConfig = field(default_factory=ValueConfig)
    offline: OfflineConfig = field(default_factory=OfflineConfig)
    """Of every algorithm that learns from `data`."""

    def __post_init__(self) -> None:
        require(is_proxy_name(self.proxy), "proxy", self.proxy, ALLOWED_NAMES)
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
        self._check_servers()
        is_grouped = self.rollout.responses_per_prompt > 1 or self.data is not None
        baseline = self.shaping.baseline
        require(is_grouped or baseline == "none", "shaping.baseline", baseline, "'none' with one response per prompt")
        needs_group = self.algorithm == "rloo" and self.rloo.baseline != "none"
        per_prompt = self.rollout.responses_per_prompt
        require(is_grouped or not needs_group, "rollout.responses_per_prompt", per_prompt, "at least 2 for rloo")
        is_ppo = self.algorithm == "ppo"
        require(self.ptx is None or is_ppo, "ptx", str(self.ptx and self.ptx.data), "left out but with ppo")

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

    def _check_servers(self) -> None:
        if self.servers is None:
            return
        require(self.data is None, "servers", list(self.servers.urls), "left out with data")
        require(self.registry is not None, "registry", None, "given with servers: the folder that they follow")
        features = self.shape.features
        require(features == "prefix", "shape.features", features, "'prefix' where servers answer")

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

"""What a run is made of: what is loaded for it, and what follows from that and its settings before it begins."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.errors import BadCheckpoint, DataError
from proxy_model.llm.frozen_llm import FrozenLLM
from proxy_model.versions.checkpoint import read_checkpoint
from proxy_model.versions.registry import ProxyRegistry
from trainer.answerer import Answerer, OwnEngine
from trainer.config import TrainConfig
from trainer.held_out.examiner import Examiner
from trainer.interruption import Interruption
from trainer.kinds import with_kinds
from trainer.offline.data import OfflineData
from trainer.prompts import Prompt
from trainer.ptx import Demonstrations
from trainer.rewards.weighted import WeightedReward
from trainer.rollout import EncodedPrompt, derived_seed, encode_prompts, room_for_prompt
from trainer.served.answerer import Servers
from trainer.served.fleet import Fleet
from trainer.served.lending import Lending
from trainer.state import STATE_FILE, load_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a run needs besides its settings, loaded."""

    llm: FrozenLLM
    reward_model: WeightedReward | None = None
    prompts: Sequence[Prompt] = ()
    data: OfflineData | None = None
    """Answers to learn from, in place of the two above."""

    demonstrations: Demonstrations | None = None
    """Where the settings have a table `ptx`."""

    examiner: Examiner | None = None
    """Where the settings have a table `held_out`."""


def planned_iterations(config: TrainConfig, num_prompts: int) -> int:
    """Iterations that answer `config.num_prompts` prompts, or each of the `num_prompts` in the file once.

    Offline, where 0 means `offline.epochs` passes over the prompts of the folder.
    """
    wanted = config.num_prompts or num_prompts * (1 if config.data is None else config.offline.epochs)
    return -(-wanted // config.rollout.prompts_per_iteration)


def fitting_prompts(config: TrainConfig, parts: Parts) -> list[EncodedPrompt]:
    """The prompts that leave room for an answer, with their kinds. Raises `DataError` if there are none.

    Raises `InvalidParameter` for answers that leave no room, for prompts that no reward is for, and for rewards that
    are for none of them.
    """
    limit = prompt_limit(config, parts.llm)
    prompts = encode_prompts(parts.prompts, parts.llm.tokenizer, limit)
    if not prompts:
        raise DataError([*config.prompts, config.output][0], 0, f"no prompt has at most {limit} tokens")
    return prompts if parts.reward_model is None else with_kinds(prompts, parts.reward_model)


def prompt_limit(config: TrainConfig, llm: FrozenLLM) -> int:
    """Tokens that a prompt of the run may have. Raises `InvalidParameter` where answers leave no room for one."""
    return room_for_prompt(llm, config.rollout.max_prompt_tokens, config.rollout.max_tokens, "rollout.max_tokens")


def new_policy(config: TrainConfig, llm: FrozenLLM) -> ProxyPolicy:
    """Version 0 by the run's seed, or the weights of `config.start`. Raises `BadCheckpoint`."""
    generator = torch.Generator().manual_seed(derived_seed(config.seed, "weights"))
    policy = ProxyPolicy(config.policy_config(llm.hidden_size), generator=generator)
    if config.start is not None:
        _start_from(config.start, policy, llm)
    return policy.to(llm.device)


def answerer_of(
    config: TrainConfig, llm: FrozenLLM, prompts: Sequence[EncodedPrompt], interruption: Interruption
) -> Answerer:
    """Who answers `prompts` in a run of these settings. Raises `InvalidParameter` for a key that cannot be read."""
    if config.servers is not None:
        fleet = Fleet(config.servers, config.servers.key())
        lending = Lending.of(config.output, ProxyRegistry(config.registry_folder), config.proxy)
        return Servers(llm, config, fleet, lending, interruption)
    return OwnEngine(Engine(llm, engine_config(config, prompts)), config, interruption)


def engine_config(config: TrainConfig, prompts: Sequence[EncodedPrompt]) -> EngineConfig:
    """Room for the longest prompt and its answer, and not for more."""
    longest = max(len(prompt.token_ids) for prompt in prompts)
    return EngineConfig(
        max_running=min(
            config.rollout.max_running, config.rollout.prompts_per_iteration * config.rollout.responses_per_prompt
        ),
        max_context=longest + config.rollout.max_tokens,
        max_candidates=config.skam.max_candidates,
    )


def _start_from(folder: Path, policy: ProxyPolicy, llm: FrozenLLM) -> None:
    """Give `policy` the weights of the run, or of the published version, in `folder`. Raises `BadCheckpoint`."""
    if (folder / STATE_FILE).is_file():
        load_weights(folder, policy)
        return
    found = read_checkpoint(folder, llm.fingerprint).policy
    default = policy.config.default_target_return
    if replace(found.config, default_target_return=default) != policy.config:
        raise BadCheckpoint("format", f"{folder} holds a proxy of another shape than the settings ask for")
    policy.load_state_dict(found.state_dict())

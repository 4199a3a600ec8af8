"""The rows of an evaluation: the LLM alone, a proxy, a checkpoint folder, a proxy that decides at random."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from proxy_model.checkpoint import read_checkpoint
from proxy_model.config import PolicyConfig, SkamConfig
from proxy_model.errors import InvalidParameter
from proxy_model.frozen_llm import FrozenLLM
from proxy_model.policy import ProxyPolicy
from proxy_model.registry import ProxyRegistry

Kind = Literal["base", "proxy", "random"]

_ALLOWED = "'base', 'random', 'random:<accept rate>', '<proxy>', '<proxy>@<version or alias>' or a checkpoint's folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One row: what is asked to answer the prompts."""

    name: str
    """As the user spelled it."""

    kind: Kind
    policy: ProxyPolicy | None = None
    skam: SkamConfig | None = None
    accept_rate: float | None = None
    """Of a random proxy; None: that of the proxy before it in the table."""


def load_systems(names: tuple[str, ...], registry: Path, llm: FrozenLLM) -> list[System]:
    """The base first, then `names` in order.

    Raises `InvalidParameter`, `UnknownProxy`, `BadCheckpoint` and `FingerprintMismatch` before anything is generated.
    """
    systems = [System(name="base", kind="base")]
    for name in names:
        if name != "base":
            systems.append(_load(name, registry, llm))
    matched = [number for number, each in enumerate(systems) if each.kind == "random" and each.accept_rate is None]
    for number in matched:
        if not any(each.kind == "proxy" for each in systems[:number]):
            raise InvalidParameter("systems", "random", "after a proxy whose accept rate it can take")
    return systems


def constant_policy(llm_hidden_size: int, accept_rate: float) -> ProxyPolicy:
    """A policy that accepts every candidate with the same probability, whatever it is; decisions must be sampled."""
    policy = ProxyPolicy(PolicyConfig(llm_hidden_size=llm_hidden_size, hidden_size=1), generator=torch.Generator())
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
        policy.actor.output.bias.fill_(math.log(accept_rate / (1 - accept_rate)))
    return policy.requires_grad_(False)


def _load(name: str, registry: Path, llm: FrozenLLM) -> System:
    kind, _, rate = name.partition(":")
    if kind == "random":
        return System(name=name, kind="random", accept_rate=_parse_rate(name, rate) if rate else None)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _from_folder(name, folder, llm)
    proxy, at, version = name.partition("@")
    if not proxy or (at and not version):
        raise InvalidParameter("systems", name, _ALLOWED)
    proxies = ProxyRegistry(registry)
    wanted = (int(version) if version.isdecimal() else version,) if version else ()
    return _from_folder(name, proxies.path(proxies.resolve(proxy, *wanted)), llm)


def _from_folder(name: str, folder: Path, llm: FrozenLLM) -> System:
    checkpoint = read_checkpoint(folder, llm.fingerprint)
    return System(name=name, kind="proxy", policy=checkpoint.policy, skam=checkpoint.skam)


def _parse_rate(name: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < 1:
        raise InvalidParameter("systems", name, "'random:' and an accept rate in (0, 1)")
    return rate


def max_candidates(systems: list[System]) -> int:
    """The widest slate that any system asks for; at least the default's."""
    return max([SkamConfig().max_candidates] + [each.skam.max_candidates for each in systems if each.skam is not None])

"""The bodies and answers of /admin."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from server.schemas.messages import Strict

Version = Annotated[int, Field(ge=1, le=999_999_999)]
Name = Annotated[str, Field(min_length=1, max_length=64)]


class ProxyVersion(Strict):
    """One version."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    version: Version


class Promotion(ProxyVersion):
    """Which alias should mean it."""

    alias: Annotated[str, Field(min_length=1, max_length=32)] = "stable"
    force: bool = False
    """Even if it has not passed its gates."""


class Canary(ProxyVersion):
    """How much of the traffic a version gets."""

    share: Annotated[float, Field(ge=0.0, le=1.0)]
    """0: it is loaded and answers to `<llm>:<proxy>@canary` alone."""

    force: bool = False
    """Even if it has not passed its gates."""


class ProxyName(Strict):
    """One proxy."""

    model_config = ConfigDict(extra="forbid")

    name: Name


class Rollback(ProxyName):
    """What to go back from."""

    alias: Literal["stable", "canary"] = "stable"
    """`canary`: there is none any more."""


class WithdrawnCanary(BaseModel):
    """The canary that was taken back last."""

    version: int
    reason: str


class GateState(BaseModel):
    """What the gates of training said of a version."""

    state: Literal["pending", "passed", "failed"]
    against: str
    """What it was compared with."""

    failures: tuple[str, ...]
    """Which gates it did not pass, and by how much."""

    is_overridden: bool
    prompts: str
    """How many it was asked on, as `64 of 300 prompts`; empty where that is not known."""


class ProxyState(BaseModel):
    """A proxy as it is served."""

    name: str
    aliases: dict[str, int]
    canary_share: float
    """The part of the requests that the canary answers, if there is one."""

    withdrawn: WithdrawnCanary | None
    loaded: list[int]
    target_returns: dict[str, float]
    """Loaded versions that are conditioned on a return, and what they aim at where a request does not say."""

    pinned: list[int]
    """Loaded because a request named them by number."""

    published: list[int]
    refused: dict[str, str]
    """Versions that were not loaded, and why."""

    gates: dict[str, GateState]
    """Of the versions that have gates."""


class ProxyList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ProxyState]

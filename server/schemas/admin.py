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


class ProxyName(Strict):
    """One proxy."""

    model_config = ConfigDict(extra="forbid")

    name: Name


class ProxyState(BaseModel):
    """A proxy as it is served."""

    name: str
    aliases: dict[str, int]
    loaded: list[int]
    pinned: list[int]
    """Loaded because a request named them by number."""

    published: list[int]
    refused: dict[str, str]
    """Versions that were not loaded, and why."""


class ProxyList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ProxyState]

"""The bodies of /admin."""

from typing import Annotated

from pydantic import ConfigDict, Field

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

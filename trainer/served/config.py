"""Which servers answer a run's prompts, and how patiently they are asked."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from trainer.algorithm_config import require
from trainer.api_key import read_api_key


@dataclass(frozen=True, slots=True, kw_only=True)
class ServersConfig:
    """Servers of the same LLM that follow the run's `registry`. Their key is never part of the settings."""

    urls: tuple[str, ...]
    """Without `/v1`. They share the prompts of an iteration out among themselves by their speed."""

    key_variable: str = "PROXY_RLHF_ROLLOUT_KEY"
    """Environment variable of the key; where it is not set, none is sent."""

    key_file: Path | None = None
    """File that holds nothing but the key; wins over the variable."""

    parallel: int = 32
    """Answers that are under way at one server at a time."""

    timeout_seconds: float = 600.0
    """For one answer; then its prompt is somebody else's."""

    patience_seconds: float = 120.0
    """The run stops, to be resumed, once no server has given an answer for so long."""

    def __post_init__(self) -> None:
        require(bool(self.urls), "servers.urls", list(self.urls), "at least one address")
        require(len(set(self.urls)) == len(self.urls), "servers.urls", list(self.urls), "different addresses")
        for url in self.urls:
            require(_is_address(url), "servers.urls", url, "an address with http:// or https://, without /v1 and key")
        require(self.parallel >= 1, "servers.parallel", self.parallel, "at least 1")
        for name in ("timeout_seconds", "patience_seconds"):
            require(getattr(self, name) > 0, f"servers.{name}", getattr(self, name), "above 0")

    def key(self, environment: Mapping[str, str] = os.environ) -> str | None:
        """The key, or None. Raises `InvalidParameter` for a file that cannot be read."""
        return read_api_key(self.key_variable, self.key_file, environment)


def _is_address(url: str) -> bool:
    parts = urlsplit(url)
    is_plain = not (parts.username or parts.password or parts.query or parts.fragment)
    return (
        parts.scheme in ("http", "https") and bool(parts.hostname) and is_plain and not url.rstrip("/").endswith("/v1")
    )

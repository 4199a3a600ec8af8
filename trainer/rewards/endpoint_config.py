"""Where a grading model is asked, how patiently, and for how much."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from store.fine_tuning.require import require
from trainer.api_key import read_api_key


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointConfig:
    """An OpenAI-compatible endpoint. The key is never part of the settings: only where it is found."""

    url: str
    """Up to and with `/v1`."""

    key_variable: str = "PROXY_RLHF_JUDGE_KEY"
    """Environment variable of the key; where it is not set, none is sent."""

    key_file: Path | None = None
    """File that holds nothing but the key; wins over the variable."""

    timeout_seconds: float = 60.0
    max_attempts: int = 5
    """Of one question, while the endpoint is busy, out of reach or failing."""

    parallel: int = 8
    """Questions that are under way at a time."""

    max_requests: int = 20_000
    """Answers to be paid for in a run, earlier processes' included; then it stops. Those under way are still paid."""

    max_tokens: int = 0
    """Tokens, of questions and answers, to be paid for in a run; 0: without end."""

    def __post_init__(self) -> None:
        require(self.url.startswith(("http://", "https://")), "url", self.url, "an address with http:// or https://")
        require(self.timeout_seconds > 0, "timeout_seconds", self.timeout_seconds, "above 0")
        for name in ("max_attempts", "parallel", "max_requests"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.max_tokens >= 0, "max_tokens", self.max_tokens, "at least 0")

    def key(self, environment: Mapping[str, str] = os.environ) -> str | None:
        """The key, or None. Raises `InvalidParameter` for a file that cannot be read."""
        return read_api_key(self.key_variable, self.key_file, environment)

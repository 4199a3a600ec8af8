"""Everything that an operator can set: the one file of the server that reads the environment.

`PROXY_RLHF_<NAME>` sets the field `<name>` of `Settings`; a flag of the same name wins.
"""

import difflib
import ipaddress
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from proxy_model.decoding.engine_config import DRAFT_TOKENS
from proxy_model.environment import values_in
from proxy_model.errors import InvalidParameter
from proxy_model.llm.embedded import DEFAULT_LLM
from proxy_model.paths import home_folder, proxies_root
from proxy_model.versions.proxy_name import is_proxy_name
from server.access.api_keys import KeyLimits
from server.access.keys import Access, KeySources
from server.backends.waiting_line import LineLimits
from server.proxies.canary_guard import Bands
from store.database import database_url, parse_url

PREFIX = "PROXY_RLHF_"

_COUNTS = (
    "max_running",
    "max_waiting_tokens",
    "max_unread_tokens",
    "max_context",
    "threads",
    "max_body_bytes",
    "max_file_bytes",
    "max_choices",
    "max_pinned",
)
_SECONDS = (
    "reload_seconds",
    "stall_seconds",
    "give_up_seconds",
    "max_queue_seconds",
    "write_seconds",
    "deadline_seconds",
)
_RANGES: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (_COUNTS, lambda value: value >= 1, "at least 1"),
    (
        ("max_waiting", "prefix_cache_tokens", "draft_tokens", "store_days", "drain_seconds"),
        lambda value: value >= 0,
        "at least 0",
    ),
    (_SECONDS, lambda value: value > 0, "above 0"),
)
"""Settings that are numbers, what they may be unless they are None, and that in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One server process. Raises `InvalidParameter` for what cannot work or would be open to strangers."""

    model: str = DEFAULT_LLM
    """The frozen LLM: the embedded default, a hub id, a folder or a GGUF file."""

    engine: Literal["local", "vllm"] = "local"
    """Who runs it: this program, or vLLM with this program's proxies in its workers."""

    vllm_args: str = ""
    """More of vLLM's engine arguments, a JSON object: `{"tensor_parallel_size": 2}`."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0 takes any free port."""

    home: Path = field(default_factory=home_folder)
    """The folder of all data: published proxies, converted LLMs."""

    dtype: str = "auto"
    device: str = "auto"
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    """Keys that may use /v1, `[name:]key [limit=number ...]` each. None here and in the file: everyone on this machine
    may, and nobody else."""

    api_keys_file: Path | None = None
    """More keys, one a line. The file is followed: a change counts within two seconds."""

    admin_key: str | None = field(default=None, repr=False)
    """The key of /admin. None here and in the file: /admin answers 403 to everyone."""

    admin_key_file: Path | None = None
    """Holds the key of /admin (or two, while one is replaced); followed, too."""

    metrics_port: int | None = None
    """Where /metrics is, on the same host, and then only there. None: on `port`. 0 takes any free one."""

    default_proxy: str = "helpful"
    """Which proxy the plain model name means, once it is published; until then the LLM alone."""

    strict: bool = False
    """Refuse fields that are not implemented instead of listing them in `x-ignored-fields`."""

    max_running: int = 32
    """Answers in one decode step."""

    max_waiting: int = 256
    """Answers in the queue; one more is a 429."""

    max_waiting_tokens: int = 1 << 20
    """Prompts and `max_tokens` of all answers in the queue; more is a 429."""

    max_queue_seconds: float = 600.0
    """Who has waited longer for a slot gets a 503. OpenAI's clients give up after this time."""

    deadline_seconds: float | None = None
    """How long an answer may take from its arrival to its end; a 504 then. None: as long as it takes."""

    max_unread_tokens: int = 1024
    """How far an answer may be ahead of its reader, who loses it beyond that."""

    write_seconds: float = 60.0
    """How long a client may take to make room for the next piece of its answer before it is disconnected."""

    requests_per_minute: int | None = None
    """Of one API key, or of everyone together without keys. None: no limit. The line of a key may say another."""

    tokens_per_minute: int | None = None
    """Of prompts and answers, likewise."""

    max_running_per_key: int | None = None
    """Requests of one API key that are being answered or wait, likewise."""

    max_context: int = 2048
    """Tokens of a prompt and its answer."""

    threads: int | None = None
    """Processor threads that the LLM is computed with. None: all but one of those that this process may use, which HTTP
    and whoever else is on the machine get; both of two where compiled kernels compute."""

    prefix_cache_tokens: int = 8192
    """Tokens of prompts whose keys and values are kept for prompts of the same API key that begin alike. 0: none."""

    draft_tokens: int = DRAFT_TOKENS
    """Tokens of an answer that are drafted from its prompt and itself, and verified in the pass that reads them; where
    compiled kernels compute, and few answers run. 0: none."""

    max_body_bytes: int = 1 << 20
    max_file_bytes: int = 64 << 20
    """Of one uploaded file."""

    max_choices: int = 16
    """Largest `n`."""

    max_pinned: int = 8
    """Versions kept in memory because a request named them by number though no alias does."""

    canary_guard: bool = False
    """Roll a canary back by itself when it leaves its band around the stable version."""

    canary_min_requests: int = 50
    """Answers of either version before they are compared."""

    canary_rejection_band: float = 0.2
    """How far the canary's share of rejected candidates may be from stable's, either way."""

    canary_garble_band: float = 0.05
    """How far its share of garbled words may be above stable's."""

    canary_error_band: float = 0.05
    """How far its share of broken answers may be above stable's."""

    reload_seconds: float = 0.5
    """How often the folder of published proxies is looked at."""

    drain_seconds: float = 30.0
    """How long running answers may take to finish after SIGTERM."""

    stall_seconds: float = 60.0
    """A decode step that takes longer makes the server not ready."""

    give_up_seconds: float = 300.0
    """How long it may stay so before the process ends with exit code 1."""

    store: bool = True
    """Whether anything may be kept: completions and responses that ask for it, and feedback. `on` or `off`."""

    store_url: str | None = field(default=None, repr=False)
    """Where: `sqlite:///<file>` or `postgresql://<user>@<host>/<database>`. None: `store.sqlite3` under `home`."""

    store_days: float = 30.0
    """What is kept longer is deleted, feedback included. 0: never."""

    log_level: str = "info"
    log_format: Literal["json", "text"] = "json"

    def __post_init__(self) -> None:
        self._check_ranges()
        if not is_proxy_name(self.default_proxy) and self.default_proxy != "base":
            raise InvalidParameter("default_proxy", self.default_proxy, "the name of a proxy, or 'base'")
        if self.store_database is not None:
            parse_url(self.store_database)
        has_keys = bool(Access(self.key_sources).api)
        if not has_keys and not is_loopback(self.host):
            raise InvalidParameter("host", self.host, f"a loopback address unless {PREFIX}API_KEYS is set")

    @property
    def vllm_options(self) -> dict[str, Any]:
        """`vllm_args`, read. Raises `InvalidParameter`."""
        try:
            options = json.loads(self.vllm_args or "{}")
        except ValueError as error:
            raise InvalidParameter("vllm_args", self.vllm_args, f"a JSON object ({error})") from error
        if not isinstance(options, dict):
            raise InvalidParameter("vllm_args", self.vllm_args, "a JSON object")
        return options

    @property
    def proxies_root(self) -> Path:
        """The folder of published proxies."""
        return proxies_root(self.home)

    @property
    def store_database(self) -> str | None:
        """The URL of the store; None when it is off."""
        return database_url(self.store_url, self.home) if self.store else None

    @property
    def key_sources(self) -> KeySources:
        """Where keys come from."""
        return KeySources(
            api_keys=self.api_keys,
            api_keys_file=self.api_keys_file,
            admin_key=self.admin_key,
            admin_key_file=self.admin_key_file,
        )

    @property
    def line_limits(self) -> LineLimits:
        """How long the queue may get."""
        return LineLimits(
            max_tokens=self.max_waiting_tokens, max_seconds=self.max_queue_seconds, num_slots=self.max_running
        )

    @property
    def canary_bands(self) -> Bands | None:
        """None without a guard. Raises `InvalidParameter`."""
        bands = Bands(
            min_requests=self.canary_min_requests,
            rejection_band=self.canary_rejection_band,
            garble_band=self.canary_garble_band,
            error_band=self.canary_error_band,
        )
        return bands if self.canary_guard else None

    @property
    def key_limits(self) -> KeyLimits:
        """Of keys whose line says no other. Raises `InvalidParameter`."""
        return KeyLimits(
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            max_running=self.max_running_per_key,
        )

    def _check_ranges(self) -> None:
        _ = self.key_limits, self.canary_bands
        for name in ("port", "metrics_port"):
            if not 0 <= (getattr(self, name) or 0) <= 65535:
                raise InvalidParameter(name, getattr(self, name), "in [0, 65535]")
        if self.port == self.metrics_port != 0:
            raise InvalidParameter("metrics_port", self.metrics_port, "another one than port")
        for names, is_allowed, allowed in _RANGES:
            for name in names:
                value = getattr(self, name)
                if value is not None and not is_allowed(value):
                    raise InvalidParameter(name, value, allowed)
        if self.engine not in ("local", "vllm"):
            raise InvalidParameter("engine", self.engine, "'local' or 'vllm'")
        if self.vllm_options and self.engine != "vllm":
            raise InvalidParameter("vllm_args", self.vllm_args, "empty unless engine is 'vllm'")
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise InvalidParameter("log_level", self.log_level, "'debug', 'info', 'warning' or 'error'")
        if self.log_format not in ("json", "text"):
            raise InvalidParameter("log_format", self.log_format, "'json' or 'text'")


def load_settings(environment: Mapping[str, str], flags: Mapping[str, Any]) -> Settings:
    """Settings from the environment and from `flags` (None where not given). Raises `InvalidParameter`."""
    kinds = get_type_hints(Settings)
    variables = {name: PREFIX + name.upper() for name in kinds}
    _refuse_near_misses(environment, list(variables.values()))
    given = {name: value for name, value in flags.items() if value is not None}
    return Settings(**(values_in(environment, variables, kinds) | given))


def wants_traces(environment: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's own variables name somebody who takes traces."""
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return any(environment.get(name) for name in names) and environment.get("OTEL_SDK_DISABLED", "") != "true"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def setting_names() -> list[str]:
    """Every field of `Settings`."""
    return [field.name for field in fields(Settings)]


def _refuse_near_misses(environment: Mapping[str, str], known: list[str]) -> None:
    """A key that is set under a mistyped name must not leave a server open; other rooms' variables pass."""
    for name in environment:
        if name.startswith(PREFIX) and name not in known:
            meant = difflib.get_close_matches(name, known, n=1, cutoff=0.93)
            if meant:
                raise InvalidParameter(name, "***", f"spelled {meant[0]}")

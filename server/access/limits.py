"""Limits by API key: requests and tokens a minute, and requests at once; worded as OpenAI words them.

The buckets are this process's own: behind a balancer with R replicas a key gets up to R times as much.
A request reserves the tokens of its prompt and of `max_tokens` when that is set; at its end the answer's real length is
settled, so that what was not used is back at once, and an answer of open length is paid afterwards.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from server.access.api_keys import KeyLimits, NamedKey
from server.access.token_bucket import TokenBucket
from server.errors import ApiError, retry_after

_TO_BE_FULL = {"requests": "requests per min (RPM)", "tokens": "tokens per min (TPM)"}
_REMEMBERED = 0.8
"""Weight of the past in the mean duration of a key's requests."""


@dataclass(slots=True)
class _Account:
    """What the requests of one key have taken."""

    limits: KeyLimits
    buckets: dict[str, TokenBucket] = field(default_factory=dict)
    num_running: int = 0
    mean_seconds: float | None = None

    def set_limits(self, limits: KeyLimits, now: float) -> None:
        """The first ones, or others since the file of keys has changed: then their budget is full again."""
        budgets = {"requests": limits.requests_per_minute, "tokens": limits.tokens_per_minute}
        for kind, per_minute in budgets.items():
            known = self.buckets.get(kind)
            if per_minute is None:
                self.buckets.pop(kind, None)
            elif known is None or known.per_minute != per_minute:
                self.buckets[kind] = TokenBucket(per_minute, now)
        self.limits = limits


class Ticket:
    """One admitted request; `leave` it, whatever happens."""

    def __init__(self, account: _Account, whose: str, clock: Callable[[], float]) -> None:
        self._account = account
        self._whose = whose
        self._clock = clock
        self._began = clock()
        self._num_reserved = 0
        self._num_used = 0

    def reserve(self, num_tokens: int) -> None:
        """Take tokens ahead of their use. Raises `ApiError` 429 of type `tokens`."""
        now, bucket = self._clock(), self._account.buckets.get("tokens")
        if bucket is not None:
            _require("tokens", bucket, num_tokens, self._whose, now)
            bucket.take(num_tokens, now)
        self._num_reserved += num_tokens

    def use(self, num_tokens: int) -> None:
        """So many tokens were read or generated."""
        self._num_used += num_tokens

    def leave(self) -> None:
        """The request is over: settle what was reserved."""
        now, account = self._clock(), self._account
        account.num_running -= 1
        seconds = now - self._began
        mean = seconds if account.mean_seconds is None else account.mean_seconds
        account.mean_seconds = _REMEMBERED * mean + (1 - _REMEMBERED) * seconds
        bucket = account.buckets.get("tokens")
        if bucket is not None:
            bucket.take(self._num_used - self._num_reserved, now)


class Limiter:
    """Every key's account."""

    def __init__(self, default: KeyLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._default = default
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    def headers(self, key: NamedKey | None) -> dict[str, str]:
        """`x-ratelimit-*` for a request that takes nothing."""
        now = self._clock()
        return _headers(self._account(key, now), now)

    def enter(self, key: NamedKey | None) -> Ticket:
        """Count a request of `key`; None is everyone where no keys are configured. Raises `ApiError` 429."""
        now = self._clock()
        account = self._account(key, now)
        whose = "this server" if key is None else f"key '{key.name}'"
        bucket = account.buckets.get("requests")
        if bucket is not None:
            _require("requests", bucket, 1, whose, now)
            bucket.take(1, now)
        max_running = account.limits.max_running
        if max_running is not None and account.num_running >= max_running:
            seconds = (account.mean_seconds or 1.0) / max_running
            message = f"Rate limit reached for {whose} on concurrent requests: Limit {max_running}."
            raise _refusal("requests", message, seconds)
        account.num_running += 1
        return Ticket(account, whose, self._clock)

    def _account(self, key: NamedKey | None, now: float) -> _Account:
        limits = self._default if key is None else key.limits.otherwise(self._default)
        account = self._accounts.setdefault("" if key is None else key.holder, _Account(limits))
        account.set_limits(limits, now)
        return account


def duration(seconds: float) -> str:
    """As OpenAI writes it: `20ms`, `1.5s`, `6m0s`, `1h2m3s`."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    hours_and_minutes = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{hours_and_minutes}{rest / 1000:g}s"


def _headers(account: _Account, now: float) -> dict[str, str]:
    headers = {}
    for kind, bucket in account.buckets.items():
        headers[f"x-ratelimit-limit-{kind}"] = str(bucket.per_minute)
        headers[f"x-ratelimit-remaining-{kind}"] = str(bucket.remaining(now))
        headers[f"x-ratelimit-reset-{kind}"] = duration(bucket.seconds_until_full(now))
    return headers


def _require(kind: str, bucket: TokenBucket, amount: int, whose: str, now: float) -> None:
    seconds = bucket.seconds_until(amount, now)
    if seconds == 0:
        return
    limit = bucket.per_minute
    if seconds == float("inf"):
        message = f"Request too large for {whose} on {_TO_BE_FULL[kind]}: Limit {limit}, Requested {amount}."
        raise ApiError(429, message, "rate_limit_exceeded", type=kind, headers={"x-should-retry": "false"})
    used = limit - bucket.remaining(now)
    message = f"Rate limit reached for {whose} on {_TO_BE_FULL[kind]}: Limit {limit}, Used {used}, Requested {amount}."
    raise _refusal(kind, f"{message} Please try again in {duration(seconds)}.", seconds)


def _refusal(kind: str, message: str, seconds: float) -> ApiError:
    return ApiError(429, message, "rate_limit_exceeded", type=kind, headers=retry_after(seconds))

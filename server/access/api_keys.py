"""API keys as they are written down: `[name:]key [limit=number ...]`, one a line or separated by commas; `#` comments.

    alice:sk-alice-9f31 requests_per_minute=60 tokens_per_minute=40000 max_running=4
    alice:sk-alice-new1
    sk-without-a-name

Keys of one name share its limits and what is kept of its prompts, so that a key can be replaced while both work. A key
without a name is by itself, and called by its place: `key-3`.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from proxy_model.errors import InvalidParameter

MIN_KEY_LENGTH = 8

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,63}):(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """What the requests of one key may take together; None: no limit, or the server's setting."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Prompt and answer."""

    max_running: int | None = None
    """Requests that are being answered at once, waiting ones included."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and value < 1:
                raise InvalidParameter(each.name, value, "at least 1")

    def otherwise(self, default: "KeyLimits") -> "KeyLimits":
        """These, and the ones of `default` where there are none."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return KeyLimits(**{name: getattr(default, name) if value is None else value for name, value in own.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedKey:
    """A key's hash, and whose it is."""

    name: str
    """As logs and refusals say it."""

    holder: str = field(repr=False)
    """One for all keys of a name; of a key without one it follows the key when the list around it is edited."""

    digest: bytes = field(repr=False)
    limits: KeyLimits = KeyLimits()


class Keyring:
    """The keys that open one door. `is_configured` tells a door that nobody opens from one without a lock."""

    def __init__(self, keys: Iterable[NamedKey], *, is_configured: bool) -> None:
        self._keys = tuple(keys)
        self._is_configured = is_configured

    def __bool__(self) -> bool:
        return self._is_configured

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def digests(self) -> frozenset[bytes]:
        """Hashes of all keys."""
        return frozenset(key.digest for key in self._keys)

    def find(self, key: str) -> NamedKey | None:
        """Whose key it is, None for a stranger's; takes as long for a near miss as for a far one or a hit."""
        digest = digest_of(key)
        found = None
        for known in self._keys:
            is_it = hmac.compare_digest(digest, known.digest)
            found = (found, known)[is_it]
        return found


def parse_keys(text: str, source: str) -> tuple[NamedKey, ...]:
    """The keys in `text`. Raises `InvalidParameter` that names `source` and the place, never the key."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    entries = [entry.split() for line in lines for entry in line.split(",")]
    return tuple(_parsed(entry, place, source) for place, entry in enumerate(filter(None, entries), start=1))


def digest_of(key: str) -> bytes:
    """What is kept of a key, of one length for all."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _parsed(entry: list[str], place: int, source: str) -> NamedKey:
    named = _NAMED.fullmatch(entry[0])
    key = named[2] if named else entry[0]
    if len(key) < MIN_KEY_LENGTH or not key.isascii():
        allowed = f"keys in ASCII of at least {MIN_KEY_LENGTH} characters each (key {place} is not)"
        raise InvalidParameter(source, "***", allowed)
    digest, limits = digest_of(key), _parsed_limits(entry[1:], place, source)
    if named:
        return NamedKey(name=named[1], holder=named[1], digest=digest, limits=limits)
    return NamedKey(name=f"key-{place}", holder=f"sha256:{digest.hex()}", digest=digest, limits=limits)


def _parsed_limits(words: list[str], place: int, source: str) -> KeyLimits:
    names = [each.name for each in fields(KeyLimits)]
    limits: dict[str, int] = {}
    for word in words:
        name, _, number = word.partition("=")
        if name not in names or not number.isdecimal() or len(number) > 12 or int(number) < 1:
            raise InvalidParameter(source, "***", f"[name:]key and limits of {names}, at least 1 (key {place} is not)")
        limits[name] = int(number)
    return KeyLimits(**limits)

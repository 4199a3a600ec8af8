"""Compares the canary of a proxy with its stable version, and rolls it back when it leaves its band.

    rejection rate   rejected / (accepted + rejected) candidates     |canary - stable| <= rejection_band
    garble rate      garbled words / words (see `garble`)            canary - stable <= garble_band
    error rate       answers that broke / answers                    canary - stable <= error_band

Both are counted from the moment at which this server first saw this pair of versions, and judged once each has ended
`min_requests` answers. Answers that a client gave up are not counted as answers, their tokens are. Each replica judges
by what it has seen itself; the first one to see a breach writes it down for all.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from proxy_model.decision.bank import ProxyRef
from proxy_model.decoding.request import Delta
from proxy_model.errors import InvalidParameter
from server.proxies.garble import MAX_CHARACTERS, count_garbled

logger = logging.getLogger(__name__)

Measure = Literal["rejection", "garble", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bands:
    """How far a canary may be from stable. Raises `InvalidParameter`."""

    min_requests: int = 50
    rejection_band: float = 0.2
    garble_band: float = 0.05
    error_band: float = 0.05

    def __post_init__(self) -> None:
        if self.min_requests < 1:
            raise InvalidParameter("canary_min_requests", self.min_requests, "at least 1")
        for name in ("rejection_band", "garble_band", "error_band"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InvalidParameter(f"canary_{name}", getattr(self, name), "in [0, 1]")


@dataclass(slots=True)
class Record:
    """What a version has done."""

    num_ended: int = 0
    num_errors: int = 0
    num_accepted: int = 0
    num_rejected: int = 0
    num_words: int = 0
    num_garbled: int = 0

    def rate(self, measure: Measure) -> float:
        """In [0, 1]; 0 while there is nothing to divide by."""
        counts = {
            "rejection": (self.num_rejected, self.num_accepted + self.num_rejected),
            "garble": (self.num_garbled, self.num_words),
            "error": (self.num_errors, self.num_ended),
        }
        part, whole = counts[measure]
        return part / whole if whole else 0.0


@dataclass(frozen=True, slots=True)
class Breach:
    """Why a canary goes."""

    canary: ProxyRef
    measure: Measure
    reason: str


@dataclass(slots=True)
class _Pair:
    canary: ProxyRef
    stable: ProxyRef
    records: dict[ProxyRef, Record] = field(default_factory=dict)


class CanaryGuard:
    """Lives on the event loop's thread. Without `bands` it does nothing."""

    def __init__(self, bands: Bands | None) -> None:
        self._bands = bands
        self._pairs: dict[str, _Pair] = {}

    def watch(self, pairs: Iterable[tuple[ProxyRef, ProxyRef]]) -> None:
        """The (canary, stable) of every proxy that has both now; a pair that is new starts at 0."""
        known, self._pairs = self._pairs, {}
        for canary, stable in pairs if self._bands is not None else ():
            old = known.get(canary.name)
            is_same = old is not None and (old.canary, old.stable) == (canary, stable)
            new = _Pair(canary, stable, {canary: Record(), stable: Record()})
            self._pairs[canary.name] = old if is_same and old is not None else new

    def observe(self, ref: ProxyRef | None) -> "Observation | None":
        """Follow one answer of `ref`; None when nobody compares that version."""
        pair = None if ref is None else self._pairs.get(ref.name)
        record = None if pair is None or ref is None else pair.records.get(ref)
        return None if record is None else Observation(record)

    def breaches(self) -> list[Breach]:
        """Canaries that have left their bands."""
        return [breach for pair in self._pairs.values() if (breach := self._judge(pair)) is not None]

    def _judge(self, pair: _Pair) -> Breach | None:
        bands, canary, stable = self._bands, pair.records[pair.canary], pair.records[pair.stable]
        if bands is None or min(canary.num_ended, stable.num_ended) < bands.min_requests:
            return None
        limits: tuple[tuple[Measure, float], ...] = (
            ("error", bands.error_band),
            ("garble", bands.garble_band),
            ("rejection", bands.rejection_band),
        )
        for measure, band in limits:
            ours, theirs = canary.rate(measure), stable.rate(measure)
            distance = abs(ours - theirs) if measure == "rejection" else ours - theirs
            if distance > band:
                reason = (
                    f"{measure} rate {ours:.3f} against {theirs:.3f} of {pair.stable}, band {band:g}, "
                    f"after {canary.num_ended} and {stable.num_ended} answers"
                )
                return Breach(pair.canary, measure, reason)
        return None


class Observation:
    """One answer under comparison. Keeps the beginning of its text until it has ended, and then only counts."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._text: list[str] = []
        self._room = MAX_CHARACTERS

    def add(self, delta: Delta) -> None:
        """The next delta; an answer that broke has `finish_reason` "error"."""
        record = self._record
        record.num_accepted += delta.num_accepted
        record.num_rejected += delta.num_rejected
        if delta.text and self._room > 0:
            self._text.append(delta.text[: self._room])
            self._room -= len(delta.text)
        if delta.finish_reason is not None:
            record.num_ended += 1
            record.num_errors += delta.finish_reason == "error"
            words = count_garbled("".join(self._text))
            record.num_words += words.num_words
            record.num_garbled += words.num_garbled

"""What each proxy version did, as Prometheus reads it: seven families by model, proxy and version.

Versions come without end while a trainer publishes, series must not. Loaded versions keep theirs, and so do those that
answered last, up to a limit. The others are retired: what they counted lives on in one series of their proxy,
`version="<n> retired"`, n the number of versions in it. So sums over all versions never lose anything; and since every
retirement starts a new series instead of lifting an old one, `rate` and `increase` see no jump.
"""

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from proxy_model.decision.bank import ProxyRef
from server.backends.protocol import AnswerRecord, ProxyTally
from server.telemetry.distribution import ACCEPTED_RANK, REJECTIONS_PER_POSITION, REJECTIONS_PER_REQUEST, Distribution

MAX_VERSIONS = 64
"""Versions with series of their own, unless more are loaded."""

STATUSES = ("stop", "length", "abort", "error")
BASE = ("base", "")
"""Proxy and version of answers by the LLM alone."""

_LABELS = ("model", "proxy", "version")


class VersionTotals:
    """Everything that is counted of one version."""

    __slots__ = ("accepted", "answers", "forced", "per_position", "per_request", "rank", "rejected")

    def __init__(self) -> None:
        self.accepted = 0
        self.rejected = 0
        self.forced = 0
        self.answers = dict.fromkeys(STATUSES, 0)
        self.per_position = Distribution(REJECTIONS_PER_POSITION)
        self.rank = Distribution(ACCEPTED_RANK)
        self.per_request = Distribution(REJECTIONS_PER_REQUEST)

    def add_tally(self, tally: ProxyTally) -> None:
        """Tokens."""
        self.accepted += tally.num_accepted
        self.rejected += tally.num_rejected
        self.forced += tally.num_forced
        for num_rejected, times in tally.positions.items():
            self.per_position.add(num_rejected, times)
            self.rank.add(num_rejected + 1, times)

    def add_answer(self, record: AnswerRecord) -> None:
        """An answer that has ended."""
        self.answers[record.status] = self.answers.get(record.status, 0) + 1
        self.per_request.add(record.num_rejected)

    def merge(self, other: "VersionTotals") -> None:
        """Another version's totals."""
        self.accepted += other.accepted
        self.rejected += other.rejected
        self.forced += other.forced
        for status, count in other.answers.items():
            self.answers[status] = self.answers.get(status, 0) + count
        self.per_position.merge(other.per_position)
        self.rank.merge(other.rank)
        self.per_request.merge(other.per_request)


class VersionSeries(Collector):
    """The totals of every version that has series, the longest unused first. May be collected from any thread."""

    def __init__(self) -> None:
        self.model = "loading"
        self._lock = threading.Lock()
        self._base = VersionTotals()
        self._totals: OrderedDict[ProxyRef, VersionTotals] = OrderedDict()
        self._retired: dict[str, tuple[int, VersionTotals]] = {}
        self._loaded: frozenset[ProxyRef] = frozenset()

    def set_loaded(self, refs: Collection[ProxyRef]) -> None:
        """The versions that are loaded now: their series begin at 0, before anything happens, and are kept."""
        with self._lock:
            self._loaded = frozenset(refs)
            for ref in sorted(self._loaded):
                self._of(ref)

    def add(self, tallies: Iterable[tuple[ProxyRef | None, ProxyTally]], ended: Iterable[AnswerRecord]) -> None:
        """What happened since the last time."""
        with self._lock:
            for ref, tally in tallies:
                self._of(ref).add_tally(tally)
            for record in ended:
                self._of(record.proxy).add_answer(record)

    def collect(self) -> Iterator[Metric]:
        """The families, in the registry's words."""
        with self._lock:
            rows = [((ref.name, str(ref.version)), totals) for ref, totals in self._totals.items()]
            rows += [((name, f"{count} retired"), totals) for name, (count, totals) in self._retired.items()]
            families = [_requests(self.model, [(BASE, self._base), *rows])]
            families += _token_families(self.model, rows)
        yield from families

    def _of(self, ref: ProxyRef | None) -> VersionTotals:
        if ref is None:
            return self._base
        totals = self._totals.setdefault(ref, VersionTotals())
        self._totals.move_to_end(ref)
        if len(self._totals) > MAX_VERSIONS:
            self._retire_one(keep=ref)
        return totals

    def _retire_one(self, keep: ProxyRef) -> None:
        for ref in self._totals:
            if ref not in self._loaded and ref != keep:
                count, totals = self._retired.get(ref.name, (0, VersionTotals()))
                totals.merge(self._totals.pop(ref))
                self._retired[ref.name] = (count + 1, totals)
                return


_Rows = list[tuple[tuple[str, str], VersionTotals]]


def _requests(model: str, rows: _Rows) -> Metric:
    family = CounterMetricFamily("proxy_requests", "Answers ended, by how.", labels=(*_LABELS, "status"))
    for labels, totals in rows:
        for status, count in totals.answers.items():
            family.add_metric((model, *labels, status), count)
    return family


def _token_families(model: str, rows: _Rows) -> list[Metric]:
    counts = {
        "accepted": CounterMetricFamily(
            "proxy_accepted_tokens", "Candidates accepted, forced ones included.", labels=_LABELS
        ),
        "rejected": CounterMetricFamily("proxy_rejected_tokens", "Candidates rejected by the proxy.", labels=_LABELS),
        "forced": CounterMetricFamily(
            "proxy_forced_accepts", "Candidates accepted because SKAM masked the reject.", labels=_LABELS
        ),
    }
    distributions = {
        "per_position": HistogramMetricFamily(
            "proxy_rejections_per_position", "Candidates rejected before a token.", labels=_LABELS
        ),
        "rank": HistogramMetricFamily(
            "proxy_accepted_rank", "Place of the accepted candidate in its slate, from 1.", labels=_LABELS
        ),
        "per_request": HistogramMetricFamily(
            "proxy_rejections_per_request", "Candidates rejected in an answer.", labels=_LABELS
        ),
    }
    for labels, totals in rows:
        for name, counter in counts.items():
            counter.add_metric((model, *labels), getattr(totals, name))
        for name, histogram in distributions.items():
            distribution: Distribution = getattr(totals, name)
            histogram.add_metric((model, *labels), distribution.buckets(), distribution.total)
    return [*counts.values(), *distributions.values()]

"""The proxies that are loaded, ready to score a slate."""

from dataclasses import dataclass

from torch import Tensor

from proxy_model.decision.config import SkamConfig
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.decision.slate_scorer import SlateScorer
from proxy_model.errors import UnknownProxy


@dataclass(frozen=True, slots=True, order=True)
class ProxyRef:
    """One published set of proxy weights. Versions count from 1."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class LoadedProxy:
    """One version in memory; a running answer that holds it keeps it alive after it is unloaded."""

    def __init__(self, ref: ProxyRef, policy: ProxyPolicy, skam: SkamConfig, embedding: Tensor) -> None:
        self.ref = ref
        self.skam = skam
        self.policy = policy.to(embedding.device).eval()
        self.needs_candidate_pass = policy.config.features != "prefix"
        self.is_conditioned = policy.config.is_conditioned
        self.scorer = SlateScorer(self.policy, embedding)


class ProxyBank:
    """Loaded versions by reference."""

    def __init__(self) -> None:
        self._loaded: dict[ProxyRef, LoadedProxy] = {}

    def add(self, proxy: LoadedProxy) -> None:
        """Make it available to new requests, replacing nothing that runs."""
        self._loaded[proxy.ref] = proxy

    def unload(self, ref: ProxyRef) -> None:
        """Take `ref` away from new requests. Raises `UnknownProxy`."""
        self.get(ref)
        del self._loaded[ref]

    def get(self, ref: ProxyRef) -> LoadedProxy:
        """The loaded version. Raises `UnknownProxy`."""
        if ref not in self._loaded:
            raise UnknownProxy(f"proxy {ref} is not loaded")
        return self._loaded[ref]

    def refs(self) -> list[ProxyRef]:
        """Every loaded version, sorted."""
        return sorted(self._loaded)

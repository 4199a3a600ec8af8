"""How a run's weights become versions that servers follow: published, gated, named, and old ones pruned."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.policy import ProxyPolicy
from proxy_model.versions.checkpoint import Checkpoint, Fingerprint
from proxy_model.versions.registry import ProxyRegistry
from proxy_model.versions.verdicts import Verdict
from trainer.config import TrainConfig
from trainer.config_file import config_to_mapping
from trainer.held_out.examiner import Examiner, note_examination
from trainer.pruning import Spared, no_versions, prune
from trainer.publication import publish_gated, publish_once


@dataclass(slots=True, kw_only=True)
class Publisher:
    """Publishes one run's versions."""

    config: TrainConfig
    fingerprint: Fingerprint
    """Of the LLM that the run trains for."""

    is_resumed: bool
    """Then what is to be published may be there already."""

    examiner: Examiner | None = None
    spared: Spared = no_versions
    published: list[ProxyRef] = field(default_factory=list)
    """By this process, oldest first."""

    verdicts: dict[ProxyRef, Verdict] = field(default_factory=dict)
    """What the gates said of those that have any."""

    def publish(self, policy: ProxyPolicy, iteration: int, row: Mapping[str, float]) -> None:
        """Make the weights of `iteration` the next version of the proxy, unless they are one already, and name it.

        `row` is the iteration's metrics, for the card.
        """
        registry, name = ProxyRegistry(self.config.registry_folder), self.config.proxy
        card = {
            "settings": {name: each for name, each in config_to_mapping(self.config).items() if name != "servers"},
            "iterations": iteration,
            "prompts_seen": iteration * self.config.rollout.prompts_per_iteration,
            "metrics": dict(row),
        }
        checkpoint = Checkpoint(policy, self.config.skam, dict(self.fingerprint), card)
        self.published.append(self._published(registry, checkpoint))
        prune(registry, name, self.config.keep_versions, self.spared)

    def _published(self, registry: ProxyRegistry, checkpoint: Checkpoint) -> ProxyRef:
        name, alias = self.config.proxy, self.config.alias
        if self.config.gates is not None:
            ask = partial(self._ask_gates, registry, checkpoint.policy)
            ref, verdict = publish_gated(registry, name, checkpoint, alias, ask, is_resumed=self.is_resumed)
            self.verdicts[ref] = verdict
            return ref
        if self.is_resumed:
            return publish_once(registry, name, checkpoint, alias)
        return registry.publish(name, checkpoint, aliases=[alias])

    def _ask_gates(self, registry: ProxyRegistry, policy: ProxyPolicy, ref: ProxyRef) -> Verdict:
        """What the gates say of the version with that policy, noted in the run's folder, too."""
        config = self.config
        assert config.gates is not None
        assert self.examiner is not None
        seen = self.examiner.examine(policy, config.skam, config.gates, registry, config.proxy)
        note_examination(config.output, ref, seen)
        return seen.verdict

"""Which versions are loaded and what the aliases mean, as requests see it. Lives on the event loop's thread."""

from collections import OrderedDict
from collections.abc import Mapping

from proxy_model.decision.bank import ProxyRef
from proxy_model.errors import UnknownProxy
from proxy_model.versions.aliases import STABLE


class ProxyTable:
    """An alias moves only to a loaded version, so whatever it resolves to can be served at once."""

    def __init__(self) -> None:
        self.loaded: set[ProxyRef] = set()
        self._aliases: dict[str, dict[str, int]] = {}
        self._canary_shares: dict[str, float] = {}
        self._pinned: OrderedDict[ProxyRef, None] = OrderedDict()

    @property
    def aliases(self) -> Mapping[str, Mapping[str, int]]:
        """Versions by proxy and alias."""
        return self._aliases

    @property
    def pinned(self) -> list[ProxyRef]:
        """Versions kept because they were asked for by number, the longest unused first."""
        return list(self._pinned)

    def resolve(self, name: str, version: str = STABLE) -> ProxyRef:
        """The version that a number or an alias means; a number need not be loaded. Raises `UnknownProxy`."""
        if version.isascii() and version.isdecimal() and not version.startswith("0") and len(version) <= 9:
            return ProxyRef(name=name, version=int(version))
        found = self._aliases.get(name, {}).get(version)
        if found is None:
            raise UnknownProxy(f"no proxy {name!r} with version or alias {version!r} is being served")
        return ProxyRef(name=name, version=found)

    def canary_share(self, name: str) -> float:
        """Which part of the requests for `name` its canary answers, in [0, 1]."""
        return self._canary_shares.get(name, 0.0)

    def set_canary_share(self, name: str, share: float) -> bool:
        """From now on; True when that is news."""
        is_news = self.canary_share(name) != share
        self._canary_shares[name] = share
        return is_news

    def names(self, alias: str = STABLE) -> list[str]:
        """Proxies that have `alias`, sorted."""
        return sorted(name for name, aliases in self._aliases.items() if alias in aliases)

    def point(self, name: str, alias: str, version: int) -> bool:
        """Let an alias mean a loaded version from now on; True when that is news."""
        assert ProxyRef(name=name, version=version) in self.loaded
        aliases = self._aliases.setdefault(name, {})
        is_news = aliases.get(alias) != version
        aliases[alias] = version
        return is_news

    def keep_only(self, name: str, aliases: set[str]) -> None:
        """Forget the other aliases of `name`."""
        known = self._aliases.pop(name, {})
        kept = {alias: version for alias, version in known.items() if alias in aliases}
        if kept:
            self._aliases[name] = kept

    def pin(self, ref: ProxyRef, max_pinned: int) -> None:
        """Keep a version that no alias names, and let go of the one that was unused for longest."""
        self._pinned[ref] = None
        self._pinned.move_to_end(ref)
        while len(self._pinned) > max_pinned:
            self._pinned.popitem(last=False)

    def unpin(self, ref: ProxyRef) -> None:
        """Let go of a version."""
        self._pinned.pop(ref, None)

    def is_named(self, ref: ProxyRef) -> bool:
        """Whether an alias means this version."""
        return ref.version in self._aliases.get(ref.name, {}).values()

    def unneeded(self) -> list[ProxyRef]:
        """Loaded versions that neither an alias nor a pin keeps."""
        return sorted(ref for ref in self.loaded if not self.is_named(ref) and ref not in self._pinned)

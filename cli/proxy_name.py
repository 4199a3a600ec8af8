"""`NAME`, `NAME@VERSION` and `NAME@ALIAS`: how a person names a published proxy."""

from typing import TYPE_CHECKING

from proxy_model.errors import InvalidParameter

if TYPE_CHECKING:
    from proxy_model.decision.bank import ProxyRef
    from proxy_model.versions.registry import ProxyRegistry


def resolve(registry: "ProxyRegistry", text: str) -> "ProxyRef":
    """The version that `text` means, the stable one when it names none. Raises `InvalidParameter`, `UnknownProxy`."""
    name, at, version = text.partition("@")
    if not name or (at and not version):
        raise InvalidParameter("proxy", text, "NAME, NAME@VERSION or NAME@ALIAS")
    return registry.resolve(name, version) if at else registry.resolve(name)

"""`proxy-rlhf proxies`: look at the published proxies and choose which version is stable.

These commands act on the folder `<home>/proxies`; a running server watches it and follows without a restart.
"""

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from cli import console
from cli.proxy_name import resolve
from proxy_model.errors import BadCheckpoint, InvalidParameter
from proxy_model.paths import proxies_root

if TYPE_CHECKING:
    from proxy_model.decision.bank import ProxyRef
    from proxy_model.versions.registry import ProxyRegistry

proxies = typer.Typer(
    help="List, inspect, verify, promote, roll back and prune published proxies.", no_args_is_help=True
)

Proxy = Annotated[
    str, typer.Argument(metavar="NAME[@VERSION]", help="A proxy; its stable version unless one is named.")
]

Force = Annotated[bool, typer.Option("--force", help="Even if it has not passed its gates.")]


@proxies.command("list")
def list_proxies() -> None:
    """Every published proxy with its versions and aliases."""
    registry = _registry()
    table = Table("proxy", "stable", "other aliases", "versions", box=None)
    for name in registry.names():
        aliases = dict(registry.aliases(name).versions)
        stable = aliases.pop("stable", None)
        share = registry.aliases(name).canary_share
        shares = {"canary": f" ({share:.4g} of the requests)"}
        others = ", ".join(f"{alias} {version}{shares.get(alias, '')}" for alias, version in sorted(aliases.items()))
        versions = " ".join(_versions(registry, name))
        table.add_row(name, "-" if stable is None else str(stable), others or "-", versions)
    console.out.print(table if table.row_count else f"no proxy is published in {registry.root}", soft_wrap=True)


@proxies.command()
def show(proxy: Proxy) -> None:
    """What a version is and how it came to be, as JSON."""
    registry = _registry()
    ref = resolve(registry, proxy)
    checkpoint = registry.verify(ref)
    verdict = registry.verdicts(ref.name).by_version.get(ref.version)
    actor_and_critic = sum(parameter.numel() for parameter in checkpoint.policy.parameters())
    described = {
        "name": ref.name,
        "version": ref.version,
        "aliases": [alias for alias, version in registry.aliases(ref.name).versions.items() if version == ref.version],
        "gates": None if verdict is None else _fields(verdict),
        "folder": str(registry.path(ref)),
        "num_parameters": actor_and_critic,
        "policy": _fields(checkpoint.policy.config),
        "skam": _fields(checkpoint.skam),
        "fingerprint": dict(checkpoint.fingerprint),
        "card": checkpoint.card,
    }
    console.out.print_json(json.dumps(described))


@proxies.command()
def verify(
    proxy: Annotated[str | None, typer.Argument(metavar="[NAME[@VERSION]]", help="Everything unless given.")] = None,
) -> int:
    """Check sizes, hashes, format and numbers; exit status 1 when a version must not be loaded."""
    registry = _registry()
    num_bad = 0
    for ref in _all(registry) if proxy is None else [resolve(registry, proxy)]:
        reason = _fault(registry, ref)
        num_bad += reason is not None
        verdict = Text("ok", style="green") if reason is None else Text(reason, style="red")
        console.out.print(Text(f"{ref}  ").append_text(verdict), soft_wrap=True)
    return 1 if num_bad else 0


@proxies.command()
def promote(
    proxy: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="The version that the alias shall mean.")],
    alias: Annotated[str, typer.Option(help="The alias to move.")] = "stable",
    force: Force = False,
) -> None:
    """Make a version the stable one, after verifying it; one that has not passed its gates is refused."""
    if "@" not in proxy:
        raise InvalidParameter("proxy", proxy, "NAME@VERSION: a version is promoted")
    registry = _registry()
    ref = resolve(registry, proxy)
    registry.promote(ref.name, ref.version, alias=alias, is_forced=force)
    console.out.print(f"{alias} {ref.name} is now version {ref.version}", highlight=False)


@proxies.command()
def canary(
    proxy: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="The version to try out.")],
    share: Annotated[float, typer.Option(help="The part of the requests for NAME that it answers, 0 to 1.")],
    force: Force = False,
) -> None:
    """Let a version answer a share of the requests, the same users every time, after verifying it."""
    if "@" not in proxy:
        raise InvalidParameter("proxy", proxy, "NAME@VERSION: a version becomes the canary")
    registry = _registry()
    ref = resolve(registry, proxy)
    registry.set_canary(ref.name, ref.version, share, is_forced=force)
    console.out.print(
        f"canary {ref.name} is now version {ref.version}, for {share:.4g} of the requests", highlight=False
    )


@proxies.command()
def rollback(
    proxy: Annotated[str, typer.Argument(metavar="NAME", help="A proxy.")],
    alias: Annotated[Literal["stable", "canary"], typer.Option(help="canary: there is none any more.")] = "stable",
) -> None:
    """Make the version that was stable before this one stable again, or take the canary back."""
    if alias == "canary":
        _registry().withdraw_canary(proxy, reason="by an administrator")
        console.out.print(f"canary {proxy} is withdrawn", highlight=False)
        return
    ref = _registry().rollback(proxy)
    console.out.print(f"stable {ref.name} is now version {ref.version}", highlight=False)


@proxies.command()
def prune(
    keep: Annotated[int, typer.Option(min=1, help="The newest versions that stay.")],
    proxy: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A proxy; all of them unless given.")] = None,
) -> None:
    """Delete old versions: none that an alias or a fine-tuning job names, a server has loaded or a rollback needs."""
    from trainer.service.needed_by_jobs import needed_by_jobs

    registry = _registry()
    for name in registry.names() if proxy is None else [proxy]:
        gone = registry.prune(name, keep, needed_by_jobs(name))
        told = ", ".join(map(str, gone)) or f"nothing of {name}"
        console.out.print(f"deleted {told}", highlight=False, soft_wrap=True)


def _registry() -> "ProxyRegistry":
    from proxy_model.versions.registry import ProxyRegistry

    return ProxyRegistry(proxies_root())


def _all(registry: "ProxyRegistry") -> list["ProxyRef"]:
    return [registry.resolve(name, version) for name in registry.names() for version in registry.versions(name)]


def _versions(registry: "ProxyRegistry", name: str) -> list[str]:
    """The versions, with a word on those that no alias may name."""
    verdicts = registry.verdicts(name)
    words = {version: f" ({verdicts.by_version[version].state})" for version in verdicts.obstacles}
    return [f"{version}{words.get(version, '')}" for version in registry.versions(name)]


def _fault(registry: "ProxyRegistry", ref: "ProxyRef") -> str | None:
    try:
        registry.verify(ref)
    except BadCheckpoint as error:
        return str(error)
    return None


def _fields(config: object) -> dict[str, object]:
    from dataclasses import asdict

    return asdict(config)  # type: ignore[call-overload,no-any-return]

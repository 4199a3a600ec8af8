"""From the names of rows to their systems; `system_name` says how they are spelled."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from proxy_model.decision.config import PolicyConfig, SkamConfig
from proxy_model.errors import InvalidParameter
from proxy_model.llm.frozen_llm import FrozenLLM, load_llm
from proxy_model.versions.checkpoint import Checkpoint, read_checkpoint
from proxy_model.versions.registry import ProxyRegistry
from trainer.evaluation.origin import origin_of, origin_of_llm
from trainer.evaluation.system_name import ALLOWED, RowName, SystemName, parse_row
from trainer.evaluation.systems import BASE, RERANK_WEIGHT, Row, System, constant_policy


def load_rows(names: Sequence[str], registry: Path, llm: FrozenLLM) -> list[Row]:
    """The base first, then the rows of `names` in order.

    Raises `InvalidParameter`, `UnknownProxy`, `BadCheckpoint`, `FingerprintMismatch` and `ModelUnavailable` before
    anything is generated.
    """
    rows = [Row("base", (BASE,))]
    for name in names:
        for parsed in parse_row(name):
            for row in _all_versions(parsed, registry):
                if row.label != "base":
                    rows.append(Row(row.label, tuple(_load(member, registry, llm) for member in row.members)))
    _check(rows)
    return rows


def _check(rows: Sequence[Row]) -> None:
    labels = [row.label for row in rows]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise InvalidParameter("systems", twice[0], "different rows; 'LABEL=' gives a row another name")
    has_proxy = False
    for each in (system for row in rows for system in row.systems):
        has_proxy = has_proxy or each.kind == "proxy"
        if each.kind == "random" and each.accept_rate is None and not has_proxy:
            raise InvalidParameter("systems", "random", "after a proxy whose accept rate it can take")


def _all_versions(row: RowName, registry: Path) -> list[RowName]:
    """`row`, or where a member says `@*` one row a version."""
    if not any(member.source.endswith("@*") for member in row.members):
        return [row]
    if len(row.members) > 1:
        raise InvalidParameter("systems", row.label, "'@*' without other members beside it")
    member = row.members[0]
    source = member.source.removesuffix("@*")
    proxies, proxy = _registry_of(source, registry)
    found = []
    for version in proxies.versions(proxy):
        one = replace(member, source=f"{source}@{version}", text=member.text.replace("@*", f"@{version}"))
        name = one.text if row.label == member.text else f"{row.label}@{version}"
        found.append(RowName(label=name, members=(one,)))
    if not found:
        raise InvalidParameter("systems", member.text, "a proxy with published versions")
    return found


def _load(name: SystemName, registry: Path, llm: FrozenLLM) -> System:
    options = name.options
    if name.kind == "proxy":
        return _proxy(name, registry, llm)
    if name.kind == "llm":
        return _other_llm(name, llm)
    if name.kind == "accept-all":
        policy = constant_policy(llm.hidden_size, 1.0)
        return System(name=name.text, kind=name.kind, policy=policy, skam=SkamConfig(), accept_rate=1.0)
    return System(
        name=name.text,
        kind=name.kind,
        decision="sample" if name.kind == "random" else "greedy",
        accept_rate=name.accept_rate,
        number=name.number or 1,
        weight=float(options.get("weight", RERANK_WEIGHT)),
        temperature=float(options.get("temperature", 1.0 if name.kind in ("sample", "best-of") else 0.0)),
        top_p=float(options.get("top_p", 1.0)),
    )


def _proxy(name: SystemName, registry: Path, llm: FrozenLLM) -> System:
    folder = _checkpoint_folder(name, registry)
    checkpoint: Checkpoint = read_checkpoint(folder, llm.fingerprint)
    changes = {key: float(name.options[key]) for key in ("p_t", "temperature", "top_p") if key in name.options}
    return System(
        name=name.text,
        kind="proxy",
        policy=checkpoint.policy,
        skam=replace(checkpoint.skam, **changes),  # type: ignore[arg-type]
        decision="sample" if name.options.get("decision") == "sample" else "greedy",
        target_return=_target_return(name, checkpoint.policy.config),
        origin=origin_of(folder, checkpoint),
    )


def _other_llm(name: SystemName, llm: FrozenLLM) -> System:
    other = load_llm(name.source, dtype=str(llm.fingerprint["llm_dtype"]), device=str(llm.device))
    for key in ("tokenizer", "chat_template"):
        if other.fingerprint[key] != llm.fingerprint[key]:
            raise InvalidParameter("systems", name.text, f"an LLM with the {key} of {llm.name}")
    return System(name=name.text, kind="llm", llm=other, origin=origin_of_llm(Path(name.source).expanduser()))


def _target_return(name: SystemName, policy: PolicyConfig) -> float | None:
    """What the name says, else where the proxy's dial stands."""
    asked = name.options.get("return")
    if asked is not None and not policy.is_conditioned:
        raise InvalidParameter("systems", name.text, "without 'return': this proxy is not conditioned on one")
    return policy.target_return(None if asked is None else float(asked))


def _checkpoint_folder(name: SystemName, registry: Path) -> Path:
    folder = Path(name.source).expanduser()
    if folder.is_dir() and "@" not in folder.name:
        return folder
    source, _, version = name.source.partition("@") if "/" not in name.source else name.source.rpartition("@")
    if not source:
        raise InvalidParameter("systems", name.text, ALLOWED)
    proxies, proxy = _registry_of(source, registry)
    wanted = (int(version) if version.isdecimal() else version,) if version else ()
    return proxies.path(proxies.resolve(proxy, *wanted))


def _registry_of(source: str, registry: Path) -> tuple[ProxyRegistry, str]:
    """The folder of published proxies that `source`, a name or the folder of one proxy's versions, belongs to."""
    folder = Path(source).expanduser()
    return (ProxyRegistry(folder.parent), folder.name) if folder.is_dir() else (ProxyRegistry(registry), source)

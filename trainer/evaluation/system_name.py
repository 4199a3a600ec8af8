"""How the systems of an evaluation are spelled on the command line.

row      = [LABEL "="] member {"," member}        members: one system trained with several seeds; one row, their mean
member   = source {":" key "=" value {"/" value}} several values: a sweep, one row for each combination
source   = "base"                 the LLM alone, greedy; always the first row
         | "base:sample"          plain sampling; temperature (1), top_p (1)
         | "best-of:" N           the best of N samples of `base:sample` by the training reward; temperature, top_p
         | "rerank:" K            of the K likeliest tokens the one with the largest log p + weight * reward; weight
         | "llm:" LLM             another LLM with the same tokenizer, greedy: say a fine-tuned one; as `--model`
         | "accept-all"           a proxy that accepts everything: must answer as the base does
         | "random" [":" RATE]    decisions by chance at a rate, or at that of the proxy before it
         | NAME ["@" VERSION]     a published proxy; p_t, temperature, top_p, decision, return
         | FOLDER ["@" VERSION]   a checkpoint, or a folder of versions; "@*" is all of them, a row each
"""

import itertools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from proxy_model.errors import InvalidParameter
from proxy_model.ranges import P_T, SKAM_TEMPERATURE, TARGET_RETURN, TOP_P, Range

Kind = Literal["base", "sample", "best-of", "rerank", "llm", "accept-all", "random", "proxy"]
Decision = Literal["greedy", "sample"]
Value = float | str

ALLOWED = (
    "'base', 'base:sample', 'best-of:N', 'rerank:K', 'llm:LLM', 'accept-all', 'random', 'random:RATE', a proxy's "
    "NAME[@VERSION] or a checkpoint's folder, with options like ':p_t=0.015' or ':return=+2', and maybe 'LABEL=' "
    "before it and members after commas"
)

_LABEL = re.compile(r"([\w.+ ()-]+)=(.*)", re.DOTALL)
_OPTION = re.compile(r"([a-z_]+)=(.*)")
_SAMPLING_TEMPERATURE = Range(0.0, 2.0, is_open=True)
_NUM_SAMPLES = Range(2, 256)
_NUM_RERANKED = Range(2, 64)
_WEIGHT = Range(0.0, 1e4, is_open=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemName:
    """One member of a row, understood but not loaded."""

    text: str
    """As it was spelled, of a sweep with its one value."""

    kind: Kind
    source: str = ""
    """Of a proxy: its name or folder, with its version. Of an LLM: where it is loaded from."""

    number: int | None = None
    """N of best-of, K of rerank."""

    accept_rate: float | None = None
    """Of a random proxy."""

    options: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowName:
    """One row of the table."""

    label: str
    members: tuple[SystemName, ...]


def parse_row(text: str) -> list[RowName]:
    """The row, or the rows of a sweep, that `text` spells. Raises `InvalidParameter` naming `systems`."""
    labelled = None if Path(text).expanduser().is_dir() else _LABEL.fullmatch(text)
    label, rest = (labelled[1], labelled[2]) if labelled else (None, text)
    members = [text] if label is None and Path(text).expanduser().is_dir() else rest.split(",")
    variants = [_variants(member) for member in members]
    if len({len(each) for each in variants}) != 1:
        raise InvalidParameter("systems", text, "members that sweep over the same values")
    rows = []
    for found in zip(*variants, strict=True):
        name = found[0][0].text if label is None else label + found[0][1]
        rows.append(RowName(label=name, members=tuple(member for member, _ in found)))
    return rows


def _variants(text: str) -> list[tuple[SystemName, str]]:
    """A member for each combination of its options' values, with the options that vary as they were spelled."""
    head, options = _split_options(text)
    found = []
    for values in itertools.product(*options.values()):
        chosen = dict(zip(options, values, strict=True))
        spelled = head + "".join(f":{key}={value}" for key, value in chosen.items())
        varying = "".join(f":{key}={value}" for key, value in chosen.items() if len(options[key]) > 1)
        found.append((_member(spelled, head, chosen), varying))
    return found


def _split_options(text: str) -> tuple[str, dict[str, list[str]]]:
    """What comes before the first `:key=value`, and the values of each key."""
    head, *rest = text.split(":")
    options: dict[str, list[str]] = {}
    for part in rest:
        option = _OPTION.fullmatch(part)
        if option is None and not options:
            head = f"{head}:{part}"
            continue
        if option is None or option[1] in options:
            raise InvalidParameter("systems", text, ALLOWED)
        options[option[1]] = option[2].split("/")
    return head, options


def _member(text: str, head: str, options: Mapping[str, str]) -> SystemName:
    kind, source, number, rate = _source(text, head)
    allowed = _OPTIONS[kind]
    for key in options:
        if key not in allowed:
            can = ", ".join(sorted(allowed)) or "none"
            raise InvalidParameter("systems", text, f"options that {kind!r} has: {can}")
    values = {key: allowed[key](text, key, value) for key, value in options.items()}
    return SystemName(text=text, kind=kind, source=source, number=number, accept_rate=rate, options=values)


def _source(text: str, head: str) -> tuple[Kind, str, int | None, float | None]:
    """Kind, proxy, number and accept rate. A folder may be named as a kind only with a path's slash."""
    first, colon, rest = head.partition(":")
    if head == "base:sample":
        return "sample", "", None, None
    if first == "best-of":
        return "best-of", "", int(_number(text, "N", rest, _NUM_SAMPLES)), None
    if first == "rerank":
        return "rerank", "", int(_number(text, "K", rest, _NUM_RERANKED)), None
    if first == "llm" and rest:
        return "llm", rest, None, None
    if first == "random":
        return "random", "", None, _rate(text, rest) if colon else None
    if head in ("base", "accept-all"):
        return ("base" if head == "base" else "accept-all"), "", None, None
    name, at, version = head.rpartition("@") if "@" in head else (head, "", "")
    if not name or (at and not version) or first in get_args(Kind):
        raise InvalidParameter("systems", text, ALLOWED)
    return "proxy", head, None, None


def _number(text: str, what: str, value: str, allowed: Range) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if number not in allowed or (isinstance(allowed.low, int) and number != int(number)):
        raise InvalidParameter("systems", text, f"{what} {allowed}")
    return number


def _rate(text: str, value: str) -> float:
    rate = _number(text, "an accept rate", value, Range(0.0, 1.0, is_open=True))
    if rate == 1.0:
        raise InvalidParameter("systems", text, "an accept rate in (0, 1); 'accept-all' accepts everything")
    return rate


def _in(allowed: Range) -> Callable[[str, str, str], Value]:
    return lambda text, key, value: _number(text, key, value, allowed)


def _decision(text: str, key: str, value: str) -> Value:
    if value not in get_args(Decision):
        raise InvalidParameter("systems", text, f"{key} 'greedy' or 'sample'")
    return value


_SAMPLING = {"temperature": _in(_SAMPLING_TEMPERATURE), "top_p": _in(TOP_P)}

_OPTIONS: Mapping[Kind, Mapping[str, Callable[[str, str, str], Value]]] = {
    "base": {},
    "sample": _SAMPLING,
    "best-of": _SAMPLING,
    "rerank": {"weight": _in(_WEIGHT)},
    "llm": {},
    "accept-all": {},
    "random": {},
    "proxy": {
        "p_t": _in(P_T),
        "temperature": _in(SKAM_TEMPERATURE),
        "top_p": _in(TOP_P),
        "decision": _decision,
        "return": _in(TARGET_RETURN),
    },
}
"""The options of each kind; a new one of the proxies' goes here and into `systems.System`."""

"""From a form to the tokens that may come next, through llguidance.

A grammar is compiled once for the LLM's vocabulary and kept; each answer walks its own copy.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from torch import Tensor

from proxy_model.decoding.grammar import GrammarSpec
from proxy_model.decoding.grammar_vocabulary import Vocabulary, grammar_vocabulary
from proxy_model.errors import BadGrammar

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

_MAX_KEPT = 64
"""Compiled grammars that are kept though no answer uses them."""

_MAX_REASON = 300

_JSON: "JsonCompileOptions" = {"coerce_one_of": False, "lenient": False}
"""What cannot be kept is refused."""

IS_SPACED = tuple(map(int, version("llguidance").split(".")[:2])) >= (1, 9)
"""Whether JSON may hold optional whitespace. It is bounded, or an LLM that has nothing to say would pad for ever; older
versions, like the one that vLLM wants, cannot bound it and get none."""

if IS_SPACED:
    _JSON["whitespace_pattern"] = r"\n {0,40}| ?"
    _JSON["json_allow_general_unicode_escapes"] = False  # older versions never allow them
else:
    _JSON["whitespace_flexible"] = False


class CompiledGrammar:
    """A grammar over one vocabulary, at its start."""

    __slots__ = ("__weakref__", "_start")

    def __init__(self, start: LLMatcher) -> None:
        self._start = start

    def begin(self) -> "GrammarState":
        """The state of a new answer."""
        return GrammarState(self._start.deep_copy())


class GrammarState:
    """Where one answer stands in its grammar."""

    __slots__ = ("matcher",)

    def __init__(self, matcher: LLMatcher) -> None:
        self.matcher = matcher

    def advance(self, token: int) -> None:
        """Note the answer's newest token, one that the mask allowed."""
        self.matcher.consume_token(token)

    @property
    def has_failed(self) -> bool:
        """Whether the grammar became too complex to follow; it allows nothing but the end then."""
        return self.matcher.is_error()


class GrammarCompiler:
    """Compiles and keeps grammars for one LLM. Any thread may call it."""

    def __init__(self, llm: Vocabulary) -> None:
        self._llm = llm
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None
        self._alive: WeakValueDictionary[GrammarSpec, CompiledGrammar] = WeakValueDictionary()
        self._kept: OrderedDict[GrammarSpec, CompiledGrammar] = OrderedDict()

    def compile(self, spec: GrammarSpec) -> CompiledGrammar:
        """The compiled form of `spec`, at once if it is known. Raises `BadGrammar`.

        Who holds the result may be sure that the next call for the same `spec` is at once, too.
        """
        with self._lock:
            known = self._alive.get(spec)
        compiled = known or CompiledGrammar(self._compile(spec))
        with self._lock:
            compiled = self._alive.setdefault(spec, compiled)
            self._kept[spec] = compiled
            self._kept.move_to_end(spec)
            while len(self._kept) > _MAX_KEPT:
                self._kept.popitem(last=False)
        return compiled

    def allowed(self, states: Sequence[GrammarState]) -> Tensor:
        """(B, ceil(V / 32)) int32 on the host: bit i of word w allows token 32 w + i next.

        Some .02 ms a row, seldom .5; on a GPU that is hidden behind the LLM's pass, which has been queued before.
        """
        num_words = -(-self._llm.vocab_size // 32)
        bits = torch.empty(len(states), num_words, dtype=torch.int32)
        for state, row in zip(states, bits, strict=True):
            state.matcher.unsafe_compute_mask_ptr(row.data_ptr(), 4 * num_words)
        return bits

    def _compile(self, spec: GrammarSpec) -> LLMatcher:
        if not self._llm.end_token_ids:
            raise BadGrammar("this model has no end token")
        matcher = LLMatcher(self._vocabulary(), _to_llguidance(spec), log_level=0, limits=_limits())
        trial = matcher.deep_copy()
        trial.compute_bitmask()  # some grammars are found out only here
        for each in (matcher, trial):
            if each.is_error():
                raise BadGrammar(_reason(each.get_error()))
        return matcher

    def _vocabulary(self) -> LLTokenizer:
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = grammar_vocabulary(self._llm)
            return self._tokenizer


def _to_llguidance(spec: GrammarSpec) -> str:
    match spec.kind:
        case "json_schema":
            try:
                return LLMatcher.grammar_from_json_schema(spec.text, overrides=_JSON)
            except ValueError as error:
                raise BadGrammar("it must be a JSON object") from error
        case "regex":
            return LLMatcher.grammar_from_regex(spec.text)
        case "lark":
            return LLMatcher.grammar_from_lark(spec.text)


def _limits() -> LLParserLimits:
    """Bounds on time and memory: with 49,152 tokens the worst schemas took 1 s to compile, .08 s for a mask."""
    return LLParserLimits(
        max_items_in_row=20_000,
        max_grammar_size=10_000,
        max_lexer_states=50_000,
        verbose_errors=False,
    )


def _reason(error: str) -> str:
    """What llguidance says, in one line and without its inside."""
    if error.startswith("panic"):
        return "it is too complex"
    if error.startswith("NoExtension"):
        return "no text satisfies it"
    first = error.replace("<non-verbose/>", "").strip().partition("\n\n")[0]
    return " ".join(first.split())[:_MAX_REASON] or "it cannot be followed"

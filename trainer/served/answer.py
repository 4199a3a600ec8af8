"""One answer as it is asked for at a server, and as the server tells it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxy_model.decision.bank import ProxyRef
from proxy_model.decoding.retrace import DecidedAnswer, OfferedCandidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One prompt that waits for an answer under `proxy`, drawn with `seed`."""

    prompt_token_ids: tuple[int, ...]
    proxy: ProxyRef
    seed: int
    max_tokens: int
    max_candidates: int
    """Length of a slate."""

    target_return: float | None = None

    def body(self, llm_name: str) -> dict[str, Any]:
        """Of `POST /v1/completions` at a server that calls its LLM `llm_name`."""
        proxy: dict[str, Any] = {"decision": "sample", "return_decisions": True}
        if self.target_return is not None:
            proxy["target_return"] = self.target_return
        return {
            "model": f"{llm_name}:{self.proxy}",
            "prompt": list(self.prompt_token_ids),
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "seed": self.seed,
            "proxy": proxy,
        }


@dataclass(frozen=True, slots=True)
class ServedAnswer:
    """What a server gave."""

    text: str
    decided: DecidedAnswer


def read_answer(question: Question, body: Mapping[str, Any]) -> ServedAnswer:
    """The answer in a completion's body.

    Raises `ValueError`, `KeyError`, `IndexError` or `TypeError` for what is none of that version, with its decisions.
    """
    (choice,), by = body["choices"], body["proxy"]
    if (by["id"], by["version"]) != (question.proxy.name, question.proxy.version):
        raise ValueError("it is by another version than was asked for")
    positions = tuple(
        tuple(OfferedCandidate(int(each["token_id"]), bool(each["is_free"])) for each in position["candidates"])
        for position in choice["proxy"]["decisions"]
    )
    if not positions or not all(1 <= len(each) <= question.max_candidates for each in positions):
        raise ValueError("its decisions are not those of slates of the version's length")
    decided = DecidedAnswer(
        prompt_token_ids=question.prompt_token_ids,
        positions=positions,
        finish_reason=str(choice["finish_reason"]),
        target_return=question.target_return,
    )
    return ServedAnswer(str(choice["text"]), decided)

"""The engine of this process at the other end of a conversation."""

import itertools
from collections.abc import Iterator
from typing import Self

from cli.proxy_name import resolve
from cli.speaker import ChatOptions, Message
from proxy_model.decision.bank import ProxyRef
from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import DRAFT_TOKENS, EngineConfig
from proxy_model.decoding.request import GenerationRequest, SamplingParams, Usage
from proxy_model.llm.frozen_llm import load_llm
from proxy_model.paths import proxies_root
from proxy_model.versions.registry import ProxyRegistry


class LocalSpeaker:
    """One LLM under at most one proxy."""

    def __init__(
        self, engine: Engine, proxy: ProxyRef | None, options: ChatOptions, target_return: float | None = None
    ) -> None:
        self.note = ""
        self._engine = engine
        self._proxy = proxy
        self._params = SamplingParams(
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            seed=options.seed,
            target_return=target_return,
        )
        self._ids = itertools.count()

    @classmethod
    def load(cls, model: str, proxy: str | None, options: ChatOptions) -> Self:
        """Raises `ModelUnavailable`, `UnknownProxy`, `BadCheckpoint`."""
        llm = load_llm(model)
        engine = Engine(llm, EngineConfig(max_running=1, draft_tokens=DRAFT_TOKENS))
        if proxy is None or proxy == "base":
            return cls(engine, None, options)
        registry = ProxyRegistry(proxies_root())
        ref = resolve(registry, proxy)
        checkpoint = registry.verify(ref, llm.fingerprint)
        engine.load_proxy(ref, checkpoint.policy, checkpoint.skam)
        return cls(engine, ref, options, checkpoint.policy.config.target_return(None))

    def answer(self, messages: list[Message]) -> Iterator[str]:
        """The answer in pieces. Raises `PromptTooLong`."""
        prompt = self._engine.llm.tokenizer.apply_chat_template(messages)
        request_id = str(next(self._ids))
        request = GenerationRequest(
            id=request_id, prompt_token_ids=tuple(prompt), params=self._params, proxy=self._proxy
        )
        self._engine.submit(request)
        try:
            while self._engine.has_work:
                for delta in self._engine.step():
                    self.note = self._described(delta.usage) if delta.usage else self.note
                    yield delta.text
        finally:
            self._engine.abort(request_id)

    def _described(self, usage: Usage) -> str:
        if self._proxy is None:
            return f"[the LLM alone, {usage.completion_tokens} tokens]"
        return f"[{self._proxy}, {usage.completion_tokens} tokens, {usage.rejected} rejected, {usage.forced} forced]"

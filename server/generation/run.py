"""A request that the engine has taken: its identity, its exact proxy and its running answers."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from proxy_model.decision.bank import ProxyRef
from proxy_model.decoding.grammar_compiler import CompiledGrammar
from proxy_model.decoding.request import Delta, SamplingParams
from proxy_model.errors import BadCheckpoint, BadGrammar, EngineFull, PromptTooLong, UnknownProxy
from server.backends.protocol import Answer
from server.errors import ApiError, model_not_found, to_api_error
from server.exchange import current
from server.generation import translate
from server.generation.choice import GrowingChoice
from server.generation.form import Form
from server.generation.order import Order, Prompt
from server.ignored import HEADER, ignored_fields, require_none
from server.proxies.model_name import BASE, ModelName, parse_model_name
from server.proxies.rollout import choose
from server.schemas.generation import GenerationBody
from server.schemas.report import CompletionTokensDetails, PromptTokensDetails, ProxyReport, Usage
from server.service import Service, Serving


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One HTTP request's answers; close it, whatever happens."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    proxy: ProxyRef | None
    order: Order
    prompts: tuple[Prompt, ...]
    sampling: SamplingParams
    """Of the first choice; the others differ in their seeds."""

    headers: dict[str, str]
    answers: tuple[Answer, ...]
    """`order.num_choices` to the first prompt, then to the second, and so on."""

    async def aclose(self) -> None:
        """Abort what has not ended."""
        for answer in self.answers:
            await answer.aclose()

    def prompt_of(self, index: int) -> Prompt:
        """What choice `index` continues."""
        return self.prompts[index // self.order.num_choices]

    def report(self, choices: Sequence[GrowingChoice]) -> ProxyReport | None:
        """The proxy's totals so far; None for the LLM alone."""
        if self.proxy is None:
            return None
        return ProxyReport(
            id=self.proxy.name,
            version=self.proxy.version,
            accepted=sum(choice.num_accepted for choice in choices),
            rejections=sum(choice.num_rejected for choice in choices),
            forced=sum(choice.num_forced for choice in choices),
            target_return=self.sampling.target_return,
        )

    def usage(self, choices: Sequence[GrowingChoice]) -> Usage:
        """Totals so far; a prompt counts once, whatever `n` is."""
        num_prompt = sum(len(prompt.token_ids) for prompt in self.prompts)
        num_completion = sum(choice.num_accepted for choice in choices)
        return Usage(
            prompt_tokens=num_prompt,
            completion_tokens=num_completion,
            total_tokens=num_prompt + num_completion,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=self._num_cached(choices)),
            completion_tokens_details=self._prediction_details(choices),
        )

    def usage_in_chunk(self, choices: Sequence[GrowingChoice]) -> dict[str, Usage | None]:
        """What every chunk says of usage: nothing unless it was asked for, null unless it is told all along."""
        if not self.order.includes_usage:
            return {}
        return {"usage": self.usage(choices) if self.order.has_continuous_usage else None}

    def _prediction_details(self, choices: Sequence[GrowingChoice]) -> CompletionTokensDetails | None:
        if not any(prompt.prediction for prompt in self.prompts):
            return None
        num_accepted = sum(choice.num_accepted_drafts for choice in choices)
        num_drafted = sum(choice.num_drafted for choice in choices)
        return CompletionTokensDetails(
            accepted_prediction_tokens=num_accepted, rejected_prediction_tokens=num_drafted - num_accepted
        )

    def _num_cached(self, choices: Sequence[GrowingChoice]) -> int:
        """Of a prompt with several choices, what the one that had to read most of it found."""
        found: dict[int, int] = {}
        for choice in choices:
            number = choice.index // self.order.num_choices
            found[number] = min(choice.num_cached, found.get(number, choice.num_cached))
        return sum(found.values())


async def start_run(service: Service, order: Order) -> Run:
    """Check, tokenize, name the exact proxy, and queue. Raises `ApiError` and the core's errors; nothing runs then."""
    serving, body = service.serving(), order.body
    translate.check(body, service.backend.capabilities, service.settings.max_choices)
    name = _model_name(body, serving)
    proxy = await _proxy(body, name, serving, service)
    ignored = sorted([*ignored_fields(body, has_proxy=proxy is not None), *order.ignored])
    if service.settings.strict:
        require_none(ignored)
    grammar = None if order.form is None else await _compiled(order.form, service)
    prompts = tuple(await order.tokenize())
    proxy = await _proxy(body, name, serving, service)
    run_id = f"{order.id_prefix}{uuid.uuid4().hex}"
    requests = translate.engine_requests(order, run_id, prompts, proxy, serving)
    # No await between naming the version and queueing: a version is unloaded only behind what was queued before.
    answers = service.admission.generate(requests, serving.llm)
    run = Run(
        id=run_id,
        created=int(time.time()),
        model=body.model,
        system_fingerprint=f"{serving.fingerprint}:{BASE if proxy is None else proxy}",
        proxy=proxy,
        order=order,
        prompts=prompts,
        sampling=requests[0].params,
        headers={HEADER: ",".join(ignored)} if ignored else {},
        answers=answers,
    )
    await _admitted(run, service)
    del grammar  # held until here, so that the engine finds it compiled
    return run


async def deltas(run: Run) -> AsyncGenerator[tuple[int, Delta]]:
    """Every answer's deltas as they come, with the index of their choice."""
    if len(run.answers) == 1:
        async for delta in run.answers[0]:
            yield 0, delta
        return
    async with aclosing(_interleaved(run.answers)) as interleaved:
        async for index, delta in interleaved:
            yield index, delta


async def _interleaved(answers: Sequence[Answer]) -> AsyncGenerator[tuple[int, Delta]]:
    waiting = {asyncio.ensure_future(anext(answer)): index for index, answer in enumerate(answers)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                index, delta = waiting.pop(task), task.result()
                if delta.finish_reason is None:
                    waiting[asyncio.ensure_future(anext(answers[index]))] = index
                yield index, delta
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def _model_name(body: GenerationBody, serving: Serving) -> ModelName:
    if body.proxy is not None and not body.proxy.enabled:
        parse_model_name(body.model, serving.llm.name)
        return ModelName(BASE)
    return parse_model_name(body.model, serving.llm.name)


async def _proxy(body: GenerationBody, name: ModelName, serving: Serving, service: Service) -> ProxyRef | None:
    """The version that answers, loaded; None for the LLM alone. Does not yield when it is loaded."""
    if name.is_base:
        return None
    table = serving.reloader.table
    if name.proxy is None:
        default = service.settings.default_proxy
        return choose(table, default, _caller(body)) if default in table.names() else None
    try:
        ref = (
            choose(table, name.proxy, _caller(body))
            if name.version is None
            else table.resolve(name.proxy, name.version)
        )
        await serving.reloader.obtain(ref)
    except UnknownProxy as error:
        raise model_not_found(body.model) from error
    except BadCheckpoint as error:
        message = f"The model `{body.model[:200]}` cannot be served: its checkpoint was refused ({error.reason})."
        raise ApiError(404, message, "model_not_found", "model") from error
    return ref


async def _compiled(form: Form, service: Service) -> CompiledGrammar:
    if "grammar" not in service.backend.capabilities:
        raise form.refused("this engine cannot hold an answer to a form")
    try:
        return await service.backend.compile_grammar(form.grammar)
    except BadGrammar as error:
        raise form.refused(error.reason) from error


def _caller(body: GenerationBody) -> str:
    """Whoever should meet the same version again: the user within the key, else the key, else the address."""
    exchange = current()
    if exchange is None:
        return body.user or ""
    return f"{exchange.holder}\n{body.user or exchange.holder or exchange.address}"


async def _admitted(run: Run, service: Service) -> None:
    """Wait until the engine has every answer; if it refuses one, none runs."""
    try:
        for answer in run.answers:
            await answer.admitted()
    except BaseException as error:
        await run.aclose()
        if isinstance(error, EngineFull):
            service.metrics.reject_admission("queue_full")
        elif isinstance(error, PromptTooLong):
            service.metrics.reject_admission("context_length")
            raise to_api_error(error, prompt_field=run.order.prompt_field) from error
        raise

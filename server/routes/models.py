"""GET /v1/models, GET and DELETE /v1/models/{id}."""

import asyncio
from collections.abc import Iterator
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from proxy_model.decision.bank import ProxyRef
from proxy_model.decision.config import PolicyConfig
from proxy_model.ranges import TARGET_RETURN
from proxy_model.versions.aliases import STABLE
from proxy_model.versions.registry import ProxyRegistry
from server.dependencies import ApiKey, OwnerDep, ServiceDep
from server.errors import ApiError, model_not_found
from server.proxies.model_name import BASE, parse_model_name
from server.service import Serving

router = APIRouter(dependencies=[ApiKey])


class Skam(BaseModel):
    """How far a proxy may steer, as it was trained; requests may set the first three otherwise in `proxy`."""

    model_config = ConfigDict(from_attributes=True)

    p_t: float
    temperature: float
    top_p: float
    max_candidates: int


class Dial(BaseModel):
    """What `proxy.target_return` may be for a proxy that is conditioned on a return, in deviations of its reward."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    default: float
    """What the proxy aims at where a request does not say."""

    min: float = TARGET_RETURN.low
    max: float = TARGET_RETURN.high


class Model(BaseModel):
    """One name that requests may use."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "proxy-rlhf"
    max_model_len: int
    """Tokens of a prompt and its answer together, at most."""

    proxy: str | None
    """The exact version that answers under this name now; null: the LLM alone."""

    skam: Skam | None
    """The settings of that version; null: the LLM alone."""

    target_return: Dial | None
    """Null: not conditioned on a return."""


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Model]


class ModelDeleted(BaseModel):
    """It is gone."""

    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True


@router.get("/v1/models")
async def list_models(service: ServiceDep) -> ModelList:
    """The LLM, its proxies, their aliases and their loaded versions."""
    return ModelList(data=list(_models(service.serving(), service.settings.default_proxy)))


@router.get("/v1/models/{model:path}")
async def get_model(model: str, service: ServiceDep) -> Model:
    """One model; 404 for a name that is not in the list."""
    for found in _models(service.serving(), service.settings.default_proxy):
        if found.id == model:
            return found
    raise model_not_found(model)


@router.delete("/v1/models/{model:path}")
async def delete_model(model: str, service: ServiceDep, owner: OwnerDep) -> ModelDeleted:
    """Delete a proxy that the caller's fine-tuning jobs have made, or one of its versions. Running answers keep it.

    403 for any other model; 409 for a version that an alias names, for the default proxy, and while a job of the caller
    trains the proxy or starts from what is to be deleted.
    """
    serving = service.serving()
    name = parse_model_name(model, serving.llm.name)
    proxy, version = name.proxy, name.version
    if proxy is None or await service.storage.call(lambda shelves: shelves.jobs.proxy_owner(proxy)) != owner:
        raise ApiError(403, "Only a proxy that your fine-tuning jobs have made can be deleted.", "not_yours", "model")
    if version is None and proxy == service.settings.default_proxy:
        raise _in_use(f"{model} is the default proxy.")
    job = await service.storage.call(lambda shelves: shelves.jobs.holding(owner, proxy, version))
    if job is not None:
        raise _in_use(f"{model} is needed by the fine-tuning job {job}; cancel it, or wait for its end.")
    await asyncio.to_thread(_delete, serving.reloader.registry, proxy, version)
    await serving.reloader.refresh()
    return ModelDeleted(id=model)


def _in_use(message: str) -> ApiError:
    return ApiError(409, message, "model_in_use", "model")


def _delete(registry: ProxyRegistry, proxy: str, version: str | None) -> None:
    registry.delete(proxy, None if version is None else registry.resolve(proxy, version).version)


def _models(serving: Serving, default_proxy: str) -> Iterator[Model]:
    llm, table = serving.llm, serving.reloader.table
    stable = {name: table.resolve(name) for name in table.names()}
    yield _model(serving, llm.name, stable.get(default_proxy))
    yield _model(serving, f"{llm.name}:{BASE}", None)
    for name, ref in stable.items():
        yield _model(serving, f"{llm.name}:{name}", ref)
    for name, alias in sorted((name, alias) for name, aliases in table.aliases.items() for alias in aliases):
        if alias != STABLE:
            yield _model(serving, f"{llm.name}:{name}@{alias}", table.resolve(name, alias))
    for loaded in sorted(table.loaded):
        yield _model(serving, f"{llm.name}:{loaded}", loaded)


def _model(serving: Serving, name: str, ref: ProxyRef | None) -> Model:
    trained = None if ref is None else serving.reloader.trained[ref]
    return Model(
        id=name,
        created=serving.llm.loaded_at,
        max_model_len=serving.llm.max_context,
        proxy=None if ref is None else str(ref),
        skam=None if trained is None else Skam.model_validate(trained.skam),
        target_return=None if trained is None else _dial(trained.policy),
    )


def _dial(policy: PolicyConfig) -> Dial | None:
    return Dial(default=policy.default_target_return) if policy.is_conditioned else None

"""GET /v1/models and GET /v1/models/{id}."""

from collections.abc import Iterator
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from server.dependencies import ApiKey, ServiceDep
from server.errors import model_not_found
from server.model_name import BASE
from server.service import Serving

router = APIRouter(dependencies=[ApiKey])


class Model(BaseModel):
    """One name that requests may use."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "proxy-rlhf"
    proxy: str | None
    """The exact version that answers under this name now; null: the LLM alone."""


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/v1/models")
async def list_models(service: ServiceDep) -> ModelList:
    """The LLM, its proxies and their loaded versions."""
    return ModelList(data=list(_models(service.serving(), service.settings.default_proxy)))


@router.get("/v1/models/{model:path}")
async def get_model(model: str, service: ServiceDep) -> Model:
    """One model; 404 for a name that is not in the list."""
    for found in _models(service.serving(), service.settings.default_proxy):
        if found.id == model:
            return found
    raise model_not_found(model)


def _models(serving: Serving, default_proxy: str) -> Iterator[Model]:
    llm, table = serving.llm, serving.reloader.table
    stable = {name: str(table.resolve(name)) for name in table.names()}
    yield Model(id=llm.name, created=llm.loaded_at, proxy=stable.get(default_proxy))
    yield Model(id=f"{llm.name}:{BASE}", created=llm.loaded_at, proxy=None)
    for name, ref in stable.items():
        yield Model(id=f"{llm.name}:{name}", created=llm.loaded_at, proxy=ref)
    for loaded in sorted(table.loaded):
        yield Model(id=f"{llm.name}:{loaded}", created=llm.loaded_at, proxy=str(loaded))

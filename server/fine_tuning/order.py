"""From a request to an order that the store takes: every name and number in it is checked."""

import secrets

from server.errors import invalid
from server.proxies.model_name import parse_model_name
from server.schemas.fine_tuning import FineTuningJobRequest, Publication
from server.service import Service, Serving
from store.fine_tuning.gates import Gates
from store.fine_tuning.jobs import Order
from store.fine_tuning.reward_models import require_reward_models
from store.fine_tuning.specification import MAX_SEED, METHODS, Method, Specification


def to_order(body: FineTuningJobRequest, owner: str, service: Service) -> Order:
    """Raises `ApiError` 400, 404, `InvalidParameter`, `UnknownProxy`."""
    _refuse_what_is_not_there(body)
    serving = service.serving()
    method = Method.parse(body.method)
    if method.grader is not None:
        require_reward_models(method.grader, service.settings.home, f"method.{method.type}.grader")
    specification = Specification(
        llm=serving.llm.name,
        llm_source=service.settings.model,
        method=method,
        proxy=body.suffix or f"ft-{secrets.token_hex(6)}",
        alias=(body.proxy or Publication()).alias,
        start=_start(body.model, serving),
        gates=_gates(body, service),
        seed=secrets.randbelow(MAX_SEED) if body.seed is None else body.seed,
    )
    return Order(
        owner=owner,
        proxy=specification.proxy,
        specification=specification.to_json(),
        training_file=body.training_file,
        validation_file=body.validation_file,
        metadata=body.metadata or {},
    )


def is_public(proxy: str, service: Service) -> bool:
    """Whether all keys rely on a proxy of this name, so that none of them may train it over."""
    if not service.access.api:
        return False
    return proxy == service.settings.default_proxy or bool(service.serving().reloader.registry.versions(proxy))


def _start(model: str, serving: Serving) -> str | None:
    """The exact version that training starts from; None for new weights."""
    name = parse_model_name(model, serving.llm.name)
    if name.proxy is None or name.is_base:
        return None
    table = serving.reloader.table
    return str(table.resolve(name.proxy) if name.version is None else table.resolve(name.proxy, name.version))


def _gates(body: FineTuningJobRequest, service: Service) -> Gates | None:
    """Raises `InvalidParameter`."""
    if body.validation_file is None:
        return None
    gates = Gates.parse(body.gates or {})
    gates.judge_folder(service.settings.home)
    return gates


def _refuse_what_is_not_there(body: FineTuningJobRequest) -> None:
    if body.method is None:
        message = f"Missing required parameter: 'method', an object with a type, one of {METHODS}."
        raise invalid(message, param="method", code="missing_required_parameter")
    if body.gates is not None and body.validation_file is None:
        message = "Missing required parameter: 'validation_file', prompts that 'gates' are asked on."
        raise invalid(message, param="validation_file", code="missing_required_parameter")
    if body.hyperparameters:
        raise _unsupported("hyperparameters", "give them inside of 'method'")
    if body.integrations:
        raise _unsupported("integrations", "read a job's events instead")


def _unsupported(param: str, instead: str) -> Exception:
    return invalid(f"'{param}' is not supported: {instead}.", param=param, code="unsupported_parameter")

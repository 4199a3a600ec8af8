"""From a request to an order that the store takes: every name and number in it is checked."""

import secrets

from proxy_model.errors import UnknownProxy
from proxy_model.versions.aliases import STABLE
from server.errors import ApiError, invalid
from server.proxies.model_name import parse_model_name
from server.schemas.fine_tuning import FineTuningJobRequest, Publication
from server.service import Service, Serving
from store.fine_tuning.gates import Gates
from store.fine_tuning.hyperparameters import SupervisedHyperparameters
from store.fine_tuning.jobs import Order
from store.fine_tuning.require import require
from store.fine_tuning.reward_models import judge_folders, require_reward_models, reward_names
from store.fine_tuning.specification import MAX_SEED, Method, Specification

_MAX_NAMED = 50
"""Models or versions in an error."""


def to_order(body: FineTuningJobRequest, owner: str, service: Service) -> Order:
    """Raises `ApiError` 400, `InvalidParameter`."""
    _refuse_what_is_not_there(body)
    serving = service.serving()
    method = _method(body)
    if method.grader is not None:
        require_reward_models(method.grader, service.settings.home, f"method.{method.type}.grader")
    specification = Specification(
        llm=serving.llm.name,
        llm_source=service.settings.model,
        method=method,
        proxy=body.suffix or f"ft-{secrets.token_hex(6)}",
        alias=(body.proxy or Publication()).alias,
        start=_start(body.model, serving),
        gates=_gates(body, method, service),
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


def _method(body: FineTuningJobRequest) -> Method:
    """Without one it is `supervised`, with OpenAI's older `hyperparameters` beside it. Raises `InvalidParameter`."""
    if body.method is not None:
        return Method.parse(body.method)
    hyperparameters = SupervisedHyperparameters.parse(body.hyperparameters or {}, "hyperparameters")
    return Method(type="supervised", hyperparameters=hyperparameters)


def _start(model: str, serving: Serving) -> str | None:
    """The exact version that training starts from; None for new weights. Raises `ApiError` 400."""
    try:
        name = parse_model_name(model, serving.llm.name)
        if name.proxy is None or name.is_base:
            return None
        ref = serving.reloader.table.resolve(name.proxy, name.version or STABLE)
    except (ApiError, UnknownProxy) as error:
        raise _not_available(model, serving) from error
    if ref.version not in serving.reloader.registry.versions(ref.name):
        raise _not_available(model, serving)
    return str(ref)


def _not_available(model: str, serving: Serving) -> ApiError:
    """As OpenAI words it; says which versions the proxy has, or which models there are."""
    llm, reloader = serving.llm.name, serving.reloader
    proxy = model.removeprefix(f"{llm}:").partition("@")[0]
    versions = [f"{llm}:{proxy}@{version}" for version in reloader.registry.versions(proxy)]
    there = versions[-_MAX_NAMED:] or [llm, *(f"{llm}:{name}" for name in reloader.table.names()[:_MAX_NAMED])]
    message = f"Model {model} is not available for fine-tuning or does not exist; there is {', '.join(there)}."
    return invalid(message, param="model", code="model_not_available")


def _gates(body: FineTuningJobRequest, method: Method, service: Service) -> Gates | None:
    """Of a judge and prompts that the proxy does not learn from. Raises `InvalidParameter`."""
    if body.validation_file is None:
        return None
    apart = "another file than 'training_file': answers to prompts that were learnt from say little of others"
    require(body.validation_file != body.training_file, "validation_file", body.validation_file, apart)
    gates, home = Gates.parse(body.gates or {}), service.settings.home
    gates.judge_folder(home)
    trains = reward_names(method.grader)
    others = sorted(judge_folders(home).keys() - set(trains))
    require(gates.judge not in trains, "gates.judge", gates.judge, f"none of the grader's own models, but of {others}")
    return gates


def _refuse_what_is_not_there(body: FineTuningJobRequest) -> None:
    if body.gates is not None and body.validation_file is None:
        message = "Missing required parameter: 'validation_file', prompts that 'gates' are asked on."
        raise invalid(message, param="validation_file", code="missing_required_parameter")
    if body.hyperparameters and body.method is not None:
        raise _unsupported("hyperparameters", "give them inside of 'method'")
    if body.integrations:
        raise _unsupported("integrations", "read a job's events instead")


def _unsupported(param: str, instead: str) -> Exception:
    return invalid(f"'{param}' is not supported: {instead}.", param=param, code="unsupported_parameter")

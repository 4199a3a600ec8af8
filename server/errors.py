"""Every error leaves as OpenAI's envelope: `{"error": {"message", "type", "param", "code"}}`."""

import math
from dataclasses import dataclass, field

from starlette.responses import JSONResponse

from proxy_model.errors import (
    BadCheckpoint,
    BadGrammar,
    EngineDead,
    EngineFull,
    GatesNotPassed,
    InvalidParameter,
    PromptTooLong,
    ProxyRlhfError,
    StoreTooNew,
    StoreUnavailable,
    UnknownProxy,
    VersionInUse,
)

_PARAM_OF = {
    "p_t": "proxy.p_t",
    "skam_temperature": "proxy.temperature",
    "skam_top_p": "proxy.top_p",
    "target_return": "proxy.target_return",
}
"""Names of the core's parameters where the API spells them otherwise."""


@dataclass
class ApiError(Exception):
    """An answer other than 2xx."""

    status: int
    message: str
    code: str | None
    param: str | None = None
    type: str = "invalid_request_error"
    headers: dict[str, str] = field(default_factory=dict)

    def envelope(self) -> dict[str, dict[str, str | None]]:
        """The JSON body."""
        param = None if self.param is None else _printable(self.param)
        return {"error": {"message": _printable(self.message), "type": self.type, "param": param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.envelope(), self.status, headers=self.headers)


def invalid(message: str, *, param: str | None, code: str | None = "invalid_value") -> ApiError:
    """400: the request can never work."""
    return ApiError(400, message, code, param)


def unavailable(message: str, *, code: str = "service_unavailable", retry_after_seconds: float = 1.0) -> ApiError:
    """503: not now."""
    return ApiError(503, message, code, type="server_error", headers=retry_after(retry_after_seconds))


def internal(message: str | None = None) -> ApiError:
    """500, which tells nothing about the inside."""
    message = message or "The server had an error while processing your request."
    return ApiError(500, message, "internal_error", type="server_error")


def retry_after(seconds: float) -> dict[str, str]:
    """The header, in whole seconds as HTTP wants it."""
    return {"retry-after": str(max(1, math.ceil(seconds)))}


def to_api_error(error: ProxyRlhfError, prompt_field: str = "messages") -> ApiError:
    """What a deliberate error of the core means to a client, who gave the prompt in `prompt_field`."""
    match error:
        case PromptTooLong():
            message = str(error).replace("the messages", f"the {prompt_field}")
            return invalid(message, param=prompt_field, code="context_length_exceeded")
        case InvalidParameter():
            param = prompt_field if error.name == "prompt" else _PARAM_OF.get(error.name, error.name)
            return invalid(f"Invalid value for '{param}': must be {error.allowed}.", param=param)
        case BadGrammar():
            return invalid(f"Invalid grammar: {error.reason.rstrip('.')}.", param="response_format")
        case EngineFull():
            message = f"The server is overloaded: {error}. Please retry later."
            headers = retry_after(error.retry_after_seconds)
            return ApiError(429, message, "rate_limit_exceeded", type="requests", headers=headers)
        case UnknownProxy():
            return ApiError(404, f"{error}.", "model_not_found", "model")
        case BadCheckpoint():
            return invalid(f"The checkpoint was refused, {error}.", param="version", code="bad_checkpoint")
        case GatesNotPassed():
            return ApiError(409, f'{error}. Send "force": true to serve it anyway.', "gates_not_passed", "version")
        case VersionInUse():
            message = f"{error}; promote another version first, or delete the whole proxy."
            return ApiError(409, message, "model_in_use", "model")
        case StoreUnavailable() | StoreTooNew():
            return unavailable("The store cannot be used at the moment.", code="store_unavailable")
        case EngineDead():
            return unavailable("The decode loop has stopped.", code="engine_dead")
    return internal()


def model_not_found(model: str) -> ApiError:
    """404 as OpenAI words it."""
    return ApiError(
        404, f"The model `{model[:200]}` does not exist or you do not have access to it.", "model_not_found", "model"
    )


def _printable(text: str) -> str:
    """What a caller sent may hold half characters, which UTF-8 has no bytes for."""
    return text.encode("utf-8", "replace").decode()

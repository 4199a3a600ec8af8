"""Every answer that is not 2xx, as `server.errors` words it."""

from pydantic import BaseModel, ConfigDict


class ErrorDetail(BaseModel):
    """What went wrong, for people and for programs."""

    model_config = ConfigDict(extra="forbid")

    message: str
    type: str
    param: str | None
    """The parameter that is wrong, as the caller spelled it."""
    code: str


class ErrorEnvelope(BaseModel):
    """OpenAI's envelope."""

    model_config = ConfigDict(extra="forbid")

    error: ErrorDetail

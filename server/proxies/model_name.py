"""What a request's `model` means: `<llm>`, `<llm>:<proxy>`, `<llm>:<proxy>@<version or alias>`, `<llm>:base`."""

from dataclasses import dataclass

from server.errors import model_not_found

BASE = "base"


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model as requested."""

    proxy: str | None
    """None: whatever the default is now."""

    version: str | None = None
    """A number or an alias. None: stable or, for its share of the requests, the canary."""

    @property
    def is_base(self) -> bool:
        """The LLM alone."""
        return self.proxy == BASE


def parse_model_name(model: str, llm_name: str) -> ModelName:
    """Take `model` apart. Raises `ApiError` 404 for another LLM or a name that could not be one."""
    llm, colon, rest = model.partition(":")
    proxy, at, version = rest.partition("@")
    if llm != llm_name or (colon and not proxy) or (at and not version) or (at and proxy == BASE):
        raise model_not_found(model)
    if not colon:
        return ModelName(None)
    return ModelName(proxy, version) if at else ModelName(proxy)

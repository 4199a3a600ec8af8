"""Every deliberate error of the project, as one tree.

ProxyRlhfError
├── InvalidParameter      a number or a name out of its range; names it as the caller spelled it
├── BadGrammar            a form for the answer that cannot be followed; says why
├── ModelUnavailable      the frozen LLM cannot be found, fetched or loaded
├── PromptTooLong         prompt and answer do not fit the context
├── EngineFull            the queue is full; try again later
├── EngineDead            the decode loop has stopped and will not come back
├── UnknownProxy          no such proxy, version or alias
├── BadCheckpoint         a published folder that must not be loaded: torn, tampered with, not finite
│   └── FingerprintMismatch   trained for another LLM, template, tap or feature mode
├── GatesNotPassed        a version that no alias may name, since it has not passed its gates
├── VersionInUse          a version that cannot be deleted, since an alias names it
├── StoreUnavailable      the store's database is locked, full, torn or out of reach; try again later
├── StoreTooNew           the store's database was made by a later release
├── OutputTaken           another trainer works in the output folder
├── ServersFailed         the servers that a run takes its answers from refuse, or none of them answers any more
├── GraderFailed          a reward has no score for an answer, after every retry
│   ├── CostCeilingReached    a grading model has been asked as often as the settings allow
│   └── GraderUnclear         a grading model answered, but not what it was asked for
└── DataError             a broken line in a file of prompts or preferences
"""

from pathlib import Path


class ProxyRlhfError(Exception):
    """Base of every error that this project raises on purpose."""


class InvalidParameter(ProxyRlhfError):
    """`name` has a `value` outside of what is `allowed`."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"{name} must be {allowed}, got {value!r}")
        self.name = name
        self.value = value
        self.allowed = allowed


class BadGrammar(ProxyRlhfError):
    """A schema, regular expression or grammar that is invalid, too large or not supported; `reason` says what of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ModelUnavailable(ProxyRlhfError):
    """The frozen LLM cannot be found, fetched or loaded; the message says what to do."""


class PromptTooLong(ProxyRlhfError):
    """The prompt leaves no room in a context of `max_context` tokens."""

    def __init__(self, num_prompt_tokens: int, max_tokens: int, max_context: int) -> None:
        super().__init__(
            f"This model's maximum context length is {max_context} tokens. However, you requested "
            f"{num_prompt_tokens + max_tokens} tokens ({num_prompt_tokens} in the messages, "
            f"{max_tokens} in the completion). Please reduce the length of the messages or completion."
        )
        self.num_prompt_tokens = num_prompt_tokens
        self.max_tokens = max_tokens
        self.max_context = max_context


class EngineFull(ProxyRlhfError):
    """The waiting queue is full; `retry_after_seconds` is an estimate of when it will not be."""

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class EngineDead(ProxyRlhfError):
    """The decode loop has stopped for good."""


class UnknownProxy(ProxyRlhfError):
    """No proxy of that name, version or alias is published or loaded."""


class BadCheckpoint(ProxyRlhfError):
    """A published version that must not be loaded. `reason` is one short word, for metrics."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class FingerprintMismatch(BadCheckpoint):
    """The proxy was trained against something else than what would serve it."""

    def __init__(self, field: str, expected: object, found: object) -> None:
        super().__init__("fingerprint", f"{field} is {found!r} in the checkpoint, {expected!r} here")
        self.field = field


class GatesNotPassed(ProxyRlhfError):
    """The version `ref` has not passed its gates, for `reason`; so no alias may name it."""

    def __init__(self, ref: str, reason: str) -> None:
        super().__init__(f"{ref} has not passed its gates: {reason}")
        self.ref = ref
        self.reason = reason


class VersionInUse(ProxyRlhfError):
    """An alias names the version `ref`."""

    def __init__(self, ref: str) -> None:
        super().__init__(f"{ref} is named by an alias")


class StoreUnavailable(ProxyRlhfError):
    """The store's database is locked, full, torn or out of reach; the message is the driver's, for logs only."""


class StoreTooNew(ProxyRlhfError):
    """The store's database was made by a later release, and is left alone."""

    def __init__(self, found: int, known: int) -> None:
        super().__init__(f"the store has schema version {found}, this release knows {known}: update it, or use another")
        self.found = found
        self.known = known


class OutputTaken(ProxyRlhfError):
    """Another trainer works in the output folder; it may be over soon, or never."""


class ServersFailed(ProxyRlhfError):
    """A run gets no answers from its servers; the message says which of them said what."""


class GraderFailed(ProxyRlhfError):
    """The grader `name` has no score for an answer; `reason` says why, without anybody's text or key in it."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"the grader {name!r} failed: {reason}")
        self.name = name
        self.reason = reason


class CostCeilingReached(GraderFailed):
    """A grading model has been asked as often, or for as many tokens, as the settings allow."""


class GraderUnclear(GraderFailed):
    """A grading model has answered several times, and never what it was asked for."""


class DataError(ProxyRlhfError):
    """A line of a data file that cannot be used."""

    def __init__(self, path: Path | str, line_number: int, reason: str) -> None:
        super().__init__(f"{path}, line {line_number}: {reason}")
        self.path = Path(path)
        self.line_number = line_number
        self.reason = reason

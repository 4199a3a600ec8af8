"""The bodies of /v1/fine_tuning/jobs. What `method` may hold is for `store.fine_tuning.specification` to say."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from server.schemas.feedback import StoredId
from server.schemas.generation import Metadata
from server.schemas.messages import Strict


class Publication(Strict):
    """What becomes of the versions that a job publishes; an extension to OpenAI's API."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    alias: Annotated[str, Field(min_length=1, max_length=32)] = "stable"
    """What each version is called: `stable` answers under the proxy's plain name, `canary` gets its share of that."""


class FineTuningJobRequest(Strict):
    """An order for a proxy."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    model: Annotated[str, Field(min_length=1, max_length=256)]
    """The LLM; or `<llm>:<proxy>[@<version or alias>]`, a proxy to start from."""

    training_file: StoredId
    method: dict[str, Any] | None = None
    """`{"type": "reinforcement", "reinforcement": {"grader": {...}, "hyperparameters": {...}}}`; or `supervised`, which
    is the default, or `dpo`: these have `hyperparameters` only."""

    suffix: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Name of the proxy; without one it is named after the job."""

    seed: int | None = None
    metadata: Metadata | None = None
    proxy: Publication | None = None
    gates: dict[str, Any] | None = None
    """An extension: `{"judge": "<reward model>", "min_reward_gain": 0, ...}`, see `store.fine_tuning.gates`."""

    validation_file: StoredId | None = None
    """Prompts that each version answers: the scores are in its checkpoint's metrics, and `gates` are asked on them."""

    hyperparameters: dict[str, Any] | None = None
    """OpenAI's older place for those of `supervised`; refused beside a `method`."""

    integrations: list[dict[str, Any]] | None = None
    """Refused unless empty."""


class JobErrorObject(BaseModel):
    """Why a job failed."""

    code: str
    message: str
    param: str | None


class CommonHyperparameters(BaseModel):
    """The three that every method has."""

    n_epochs: int | Literal["auto"]
    batch_size: int | Literal["auto"]
    learning_rate_multiplier: float | Literal["auto"]


class JobProxy(BaseModel):
    """Which proxy a job trains, and under which alias it publishes it."""

    name: str
    alias: str


class FineTuningJob(BaseModel):
    """A job as it stands."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    status: Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
    error: JobErrorObject | None
    model: str
    fine_tuned_model: str | None
    organization_id: str = "local"
    training_file: str
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None
    seed: int
    method: dict[str, Any]
    hyperparameters: CommonHyperparameters
    integrations: list[dict[str, Any]] = Field(default=[])
    metadata: dict[str, str]
    proxy: JobProxy
    gates: dict[str, Any] | None


class FineTuningJobList(BaseModel):
    """A page."""

    object: Literal["list"] = "list"
    data: list[FineTuningJob]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FineTuningJobEvent(BaseModel):
    """One thing that happened to a job; `data` of type `metrics` is one iteration's numbers."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    type: Literal["message", "metrics"]
    message: str
    data: dict[str, Any] | None


class FineTuningJobEventList(BaseModel):
    """A page."""

    object: Literal["list"] = "list"
    data: list[FineTuningJobEvent]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FineTuningJobCheckpoint(BaseModel):
    """A version that a job published."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: dict[str, float]
    step_number: int


class FineTuningJobCheckpointList(BaseModel):
    """A page."""

    object: Literal["list"] = "list"
    data: list[FineTuningJobCheckpoint]
    first_id: str | None
    last_id: str | None
    has_more: bool

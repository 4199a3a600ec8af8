"""Jobs, events and checkpoints as the API shows them."""

from typing import Any

from server.schemas.fine_tuning import (
    CommonHyperparameters,
    FineTuningJob,
    FineTuningJobCheckpoint,
    FineTuningJobEvent,
    JobErrorObject,
    JobProxy,
)
from store.fine_tuning.jobs import Job
from store.fine_tuning.journal import Event, JobCheckpoint


def shown_job(job: Job) -> dict[str, Any]:
    """OpenAI's `fine_tuning.job`."""
    ordered = job.specification
    method, error = ordered["method"], job.error
    shown = FineTuningJob(
        id=job.id,
        created_at=_seconds(job.stored_at),
        finished_at=None if job.finished_at is None else _seconds(job.finished_at),
        estimated_finish=None if job.estimated_finish is None else _seconds(job.estimated_finish),
        status=job.status,
        error=None if error is None else JobErrorObject(code=error.code, message=error.message, param=error.param),
        model=f"{ordered['llm']}:{ordered['start']}" if ordered["start"] else ordered["llm"],
        fine_tuned_model=job.fine_tuned_model,
        training_file=job.training_file,
        validation_file=job.validation_file,
        result_files=list(job.result_files),
        trained_tokens=job.trained_tokens,
        seed=ordered["seed"],
        method=method,
        hyperparameters=CommonHyperparameters.model_validate(method[method["type"]]["hyperparameters"]),
        metadata=job.metadata,
        proxy=JobProxy(name=ordered["proxy"], alias=ordered["alias"]),
        gates=ordered.get("gates"),
    )
    return shown.model_dump()


def shown_event(event: Event) -> dict[str, Any]:
    """OpenAI's `fine_tuning.job.event`."""
    shown = FineTuningJobEvent(
        id=event.id,
        created_at=_seconds(event.stored_at),
        level=event.level,
        type=event.type,
        message=event.message,
        data=event.data,
    )
    return shown.model_dump()


def shown_checkpoint(checkpoint: JobCheckpoint) -> dict[str, Any]:
    """OpenAI's `fine_tuning.job.checkpoint`."""
    shown = FineTuningJobCheckpoint(
        id=checkpoint.id,
        created_at=_seconds(checkpoint.stored_at),
        fine_tuned_model_checkpoint=checkpoint.model,
        fine_tuning_job_id=checkpoint.job_id,
        metrics=checkpoint.metrics,
        step_number=checkpoint.step,
    )
    return shown.model_dump()


def _seconds(microseconds: int) -> int:
    return microseconds // 1_000_000

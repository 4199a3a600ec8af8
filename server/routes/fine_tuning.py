"""/v1/fine_tuning/jobs: order, list, look at, cancel, pause, resume, events, checkpoints. The trainer does the work."""

from collections.abc import Callable

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from server.body import read_body
from server.dependencies import ApiKey, OwnerDep, ServiceDep
from server.errors import ApiError, invalid
from server.fine_tuning.order import is_public, to_order
from server.fine_tuning.shown import shown_checkpoint, shown_event, shown_job
from server.generation.storage import Shelves
from server.openapi import json_body
from server.paging import METADATA_PARAMETER, PageDep, listed, metadata_filter
from server.schemas.fine_tuning import (
    FineTuningJob,
    FineTuningJobCheckpointList,
    FineTuningJobEventList,
    FineTuningJobList,
    FineTuningJobRequest,
)
from server.service import Service
from store.completions import now
from store.fine_tuning.jobs import IllegalTransition, Job, NoSuchFile, Order, ProxyTaken

router = APIRouter(prefix="/v1/fine_tuning/jobs", dependencies=[ApiKey])

_SETTLING_SECONDS = 10.0
"""Room for the clocks of two machines."""

_PATH = "/{fine_tuning_job_id}"


@router.post("", response_model=FineTuningJob, openapi_extra=json_body(FineTuningJobRequest))
async def create_fine_tuning_job(request: Request, service: ServiceDep, owner: OwnerDep) -> JSONResponse:
    """Order a proxy; its file is validated and it is trained by the trainer's service."""
    body = await read_body(request, FineTuningJobRequest, service.settings.max_body_bytes)
    order = to_order(body, owner, service)
    must_be_mine = is_public(order.proxy, service)
    try:
        job = await service.storage.call(lambda shelves: _create(shelves, order, must_be_mine))
    except NoSuchFile as error:
        message = f"There is no file of the id in '{error.param}' with the purpose 'fine-tune'."
        raise invalid(message, param=error.param, code="invalid_file") from error
    except ProxyTaken as error:
        message = "Invalid value for 'suffix': there is a proxy of that name, and it is not yours."
        raise invalid(message, param="suffix", code="suffix_taken") from error
    return JSONResponse(shown_job(job))


@router.get("", response_model=FineTuningJobList, openapi_extra=METADATA_PARAMETER)
async def list_fine_tuning_jobs(request: Request, service: ServiceDep, owner: OwnerDep, page: PageDep) -> JSONResponse:
    """The caller's jobs, the newest first."""
    labels = metadata_filter(request)
    rows, has_more = await service.storage.call(lambda shelves: shelves.jobs.list(owner, page.page("desc"), labels))
    return JSONResponse(listed([shown_job(row) for row in rows], has_more=has_more))


@router.get(_PATH, response_model=FineTuningJob)
async def get_fine_tuning_job(fine_tuning_job_id: str, service: ServiceDep, owner: OwnerDep) -> JSONResponse:
    """One job. When it says that it has succeeded, its model answers."""
    job = await _find(service, owner, fine_tuning_job_id)
    if job.status == "succeeded":
        await _serve_result(service, job)
    return JSONResponse(shown_job(job))


@router.post(f"{_PATH}/cancel", response_model=FineTuningJob)
async def cancel_fine_tuning_job(fine_tuning_job_id: str, service: ServiceDep, owner: OwnerDep) -> JSONResponse:
    """End it; what it has published stays."""
    return await _change(service, "cancelled", lambda shelves: shelves.jobs.cancel(owner, fine_tuning_job_id))


@router.post(f"{_PATH}/pause", response_model=FineTuningJob)
async def pause_fine_tuning_job(fine_tuning_job_id: str, service: ServiceDep, owner: OwnerDep) -> JSONResponse:
    """Let it rest until it is resumed."""
    return await _change(service, "paused", lambda shelves: shelves.jobs.pause(owner, fine_tuning_job_id))


@router.post(f"{_PATH}/resume", response_model=FineTuningJob)
async def resume_fine_tuning_job(fine_tuning_job_id: str, service: ServiceDep, owner: OwnerDep) -> JSONResponse:
    """Go on where it was paused."""
    return await _change(service, "resumed", lambda shelves: shelves.jobs.resume(owner, fine_tuning_job_id))


@router.get(f"{_PATH}/events", response_model=FineTuningJobEventList)
async def list_fine_tuning_job_events(
    fine_tuning_job_id: str, service: ServiceDep, owner: OwnerDep, page: PageDep
) -> JSONResponse:
    """What happened to it, the newest first; `metrics` are the numbers of one iteration."""
    job = await _find(service, owner, fine_tuning_job_id)
    rows, has_more = await service.storage.call(lambda shelves: shelves.journal.events(job.id, page.page("desc")))
    return JSONResponse(listed([shown_event(row) for row in rows], has_more=has_more))


@router.get(f"{_PATH}/checkpoints", response_model=FineTuningJobCheckpointList)
async def list_fine_tuning_job_checkpoints(
    fine_tuning_job_id: str, service: ServiceDep, owner: OwnerDep, page: PageDep
) -> JSONResponse:
    """The versions that it published, the newest first."""
    job = await _find(service, owner, fine_tuning_job_id)
    rows, has_more = await service.storage.call(lambda shelves: shelves.journal.checkpoints(job.id, page.page("desc")))
    return JSONResponse(listed([shown_checkpoint(row) for row in rows], has_more=has_more))


def _create(shelves: Shelves, order: Order, must_be_mine: bool) -> Job:
    """Raises `ProxyTaken`, `NoSuchFile`."""
    if must_be_mine and shelves.jobs.proxy_owner(order.proxy) != order.owner:
        raise ProxyTaken(order.proxy)
    return shelves.jobs.create(order)


async def _change(service: Service, wanted: str, change: Callable[[Shelves], Job | None]) -> JSONResponse:
    try:
        return JSONResponse(shown_job(_required(await service.storage.call(change))))
    except IllegalTransition as error:
        message = f"The job cannot be {wanted}: its status is '{error.status}'."
        raise invalid(message, param=None, code="invalid_job_status") from error


async def _find(service: Service, owner: str, job_id: str) -> Job:
    return _required(await service.storage.call(lambda shelves: shelves.jobs.get(owner, job_id)))


def _required(found: Job | None) -> Job:
    if found is None:
        raise ApiError(404, "There is no fine-tuning job of that id.", "not_found", "fine_tuning_job_id")
    return found


async def _serve_result(service: Service, job: Job) -> None:
    """Look at the published proxies now, unless that has been done since the job's end."""
    assert job.finished_at is not None
    looked_for = max(_SETTLING_SECONDS, 2 * service.settings.reload_seconds)
    if now() - job.finished_at < looked_for * 1e6:
        await service.serving().reloader.refresh()

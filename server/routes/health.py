"""GET /health: is the process alive. GET /ready: may it be sent requests. GET /metrics: what it does."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from server.dependencies import ReaderKey, ServiceDep
from server.errors import unavailable

router = APIRouter()


@router.get("/health")
async def health(service: ServiceDep) -> dict[str, str]:
    """200 unless the decode loop is dead."""
    state = service.backend.health().state
    if state == "dead":
        raise unavailable("The decode loop has stopped.", code="engine_dead")
    return {"status": "ok", "engine": state}


@router.get("/ready")
async def ready(service: ServiceDep) -> dict[str, str]:
    """200 when requests would be answered; 503 while loading, draining, stalled or dead."""
    problem = service.problem()
    if problem is not None:
        raise unavailable(f"Not ready: {problem}.", code="not_ready")
    return {"status": "ready"}


@router.get("/metrics", dependencies=[ReaderKey], response_class=PlainTextResponse)
async def metrics(service: ServiceDep) -> Response:
    """Prometheus' text format."""
    service.record_stats()
    return Response(service.metrics.expose(), headers={"content-type": CONTENT_TYPE_LATEST})

"""GET /health: is the process alive. GET /ready: may it be sent requests."""

from fastapi import APIRouter

from server.dependencies import ServiceDep
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

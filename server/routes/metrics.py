"""GET /metrics: what the server does, for Prometheus."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from server.dependencies import ReaderKey, ServiceDep

router = APIRouter()


@router.get("/metrics", dependencies=[ReaderKey], response_class=PlainTextResponse)
async def metrics(service: ServiceDep) -> Response:
    """Prometheus' text format."""
    service.record_stats()
    return Response(service.metrics.expose(), headers={"content-type": CONTENT_TYPE_LATEST})

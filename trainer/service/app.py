"""GET /health: is the process alive. GET /ready: would it take work. GET /metrics: what training does."""

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from trainer.service.gauges import TrainingGauges
from trainer.service.worker import Worker


def create_app(worker: Worker, gauges: TrainingGauges) -> FastAPI:
    """The application; whoever made `worker` starts and stops it."""
    app = FastAPI(title="proxy-rlhf trainer", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(HTTPException, _answer_http_error)

    @app.get("/health")
    async def health() -> Response:
        """200 while the training thread lives, whatever becomes of its runs."""
        if not worker.is_alive and worker.status.state != "stopping":
            return _error(503, "The training thread has ended.", "worker_dead")
        return JSONResponse({"status": "ok"})

    @app.get("/ready")
    async def ready() -> Response:
        """200 while waiting or training; 503 while stopping, or after a run that failed until one goes well."""
        status = worker.status
        if status.state == "stopping":
            return _error(503, "Not ready: the trainer is shutting down.", "not_ready")
        if status.problem is not None:
            return _error(503, f"Not ready: the last run failed ({status.problem}); the log says why.", "not_ready")
        return JSONResponse({"status": status.state, "proxy": status.proxy, "iteration": status.iteration})

    @app.get("/metrics")
    def metrics() -> Response:
        """Prometheus' text format, on a thread of its own: some of it is asked of the store."""
        return Response(gauges.expose(), headers={"content-type": CONTENT_TYPE_LATEST})

    return app


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{error.detail} ({request.method} {request.url.path})"
    return _error(error.status_code, message, "unknown_url" if error.status_code == 404 else "http_error")


def _error(status: int, message: str, code: str) -> JSONResponse:
    """The same envelope as the server's."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)

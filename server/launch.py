"""One server in this process: the engine, the socket, and what to say when it is ready."""

import json
import logging
import os
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypedDict

import torch
import uvicorn

from proxy_model.decoding.engine import Engine
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.errors import InvalidParameter
from proxy_model.json_log import configure_logging
from proxy_model.llm.frozen_llm import DecoderKind, load_llm
from server.app import create_app
from server.backends.local import LocalBackend
from server.backends.waiting_line import LineLimits
from server.connections import prepare
from server.drain import DrainingServer
from server.service import Service
from server.settings import Settings, wants_traces
from server.telemetry.request_log import TextFormatter

if TYPE_CHECKING:
    from server.backends.vllm.backend import VllmBackend
    from server.telemetry.tracing import Tracing

logger = logging.getLogger(__name__)

_KEEP_ALIVE_SECONDS = 65
"""Longer than clients and balancers keep idle connections, so that it is never us who close one under a request."""


def serve(settings: Settings) -> int:
    """Run one server in this process; returns the exit code."""
    configure_logging(settings.log_level, TextFormatter() if settings.log_format == "text" else None)
    # The converted LLMs of this process lie in the same home as its proxies.
    os.environ["PROXY_RLHF_HOME"] = str(settings.home)
    backend = _backend(settings)
    metrics_listener = None if settings.metrics_port is None else _listener(settings.host, settings.metrics_port)
    app = create_app(backend, settings, metrics_listener)
    service: Service = app.state.service
    service.tracing = _tracing() if wants_traces(os.environ) else None
    config = uvicorn.Config(
        app, settings.host, settings.port, log_config=None, access_log=False, timeout_keep_alive=_KEEP_ALIVE_SECONDS
    )
    server = DrainingServer(config, service)
    listener = config.bind_socket()
    prepare(listener, settings.write_seconds)
    url = _url(settings.host, listener.getsockname()[1])
    service.on_ready = lambda: _announce(service, url, metrics_listener)
    service.on_failure = lambda error: _fail(server, f"cannot start: {error}")
    service.on_stuck = lambda: _fail(server, "the decode loop is stuck")
    backend.on_death = lambda error: _fail(server, f"the decode loop has stopped: {error}")
    print(f"proxy-rlhf: loading {settings.model} ...", flush=True)
    server.run([listener])
    if service.tracing is not None:
        service.record_stats()
        service.tracing.close()
    return server.exit_code


def _backend(settings: Settings) -> "LocalBackend | VllmBackend":
    """The engine that the settings name, not started. Raises `InvalidParameter`."""
    config = EngineConfig(
        max_running=settings.max_running,
        max_waiting=settings.max_waiting,
        max_context=settings.max_context,
        prefix_cache_tokens=settings.prefix_cache_tokens,
        draft_tokens=settings.draft_tokens,
    )
    limits: _Limits = {
        "stall_seconds": settings.stall_seconds,
        "max_unread": settings.max_unread_tokens,
        "line_limits": settings.line_limits,
    }
    if settings.engine == "local":
        return LocalBackend(_engine_builder(settings, config), **limits)
    from server.backends.vllm.backend import VllmBackend
    from server.backends.vllm.launch import VllmSettings

    asked = VllmSettings(
        model=settings.model,
        dtype=settings.dtype,
        device=settings.device,
        threads=settings.threads,
        sizes=config,
        options=settings.vllm_options,
    )
    return VllmBackend(asked, **limits)


class _Limits(TypedDict):
    stall_seconds: float
    max_unread: int
    line_limits: LineLimits


def _engine_builder(settings: Settings, config: EngineConfig) -> Callable[[], Engine]:
    def build() -> Engine:
        torch_would = torch.get_num_threads()
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        llm = load_llm(settings.model, dtype=settings.dtype, device=settings.device)
        if settings.threads is None:
            torch.set_num_threads(default_threads(torch_would, llm.decoder_kind))
        return Engine(llm, config)

    return build


def default_threads(torch_would: int, decoder: DecoderKind) -> int:
    """How many threads the LLM is computed with where nobody says; never more than torch would take.

    Torch's threads join after every operator, so that each burst of HTTP on their processors holds a step up: one is
    left out. Compiled kernels join less and wait shorter: of two processors they do better with both.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    spared = 0 if decoder == "native" and available <= 2 else 1
    return max(1, min(torch_would, available - spared))


def _tracing() -> "Tracing | None":
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        from server.telemetry.tracing import Tracing
    except ModuleNotFoundError as error:
        logger.warning("traces need the extra 'otel'; going on without", extra={"missing": error.name})
        return None
    return Tracing(OTLPSpanExporter())


def _listener(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise InvalidParameter("metrics_port", port, f"a port that is free ({error.strerror})") from error


def _announce(service: Service, url: str, metrics_listener: socket.socket | None) -> None:
    serving = service.serving()
    body = json.dumps({"model": serving.llm.name, "messages": [{"role": "user", "content": "How do I stay calm?"}]})
    key = " -H 'authorization: Bearer '$OPENAI_API_KEY" if service.access.api else ""
    models = [serving.llm.name, *(f"{serving.llm.name}:{name}" for name in serving.reloader.table.names())]
    print(f"proxy-rlhf: ready on {url}\n  models: {', '.join(models)}, {serving.llm.name}:base")
    print(f"  computed by: {serving.llm.computed_by}")
    if not service.access.api:
        print("  no API key is set (PROXY_RLHF_API_KEYS): only this machine can connect")
    if metrics_listener is not None:
        print(f"  metrics: {_url(service.settings.host, metrics_listener.getsockname()[1])}/metrics")
    if not service.access.admin:
        print("  no admin key is set (PROXY_RLHF_ADMIN_KEY): /admin is closed")
    print(
        f"\n  curl {url}/v1/chat/completions -H 'content-type: application/json'{key} \\\n    -d '{body}'\n", flush=True
    )


def _fail(server: DrainingServer, message: str) -> None:
    print(f"proxy-rlhf: {message}", file=sys.stderr, flush=True)
    server.fail()


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

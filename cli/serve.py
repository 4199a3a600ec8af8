"""`proxy-rlhf serve`: the OpenAI-compatible server, in the foreground."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer


def serve(
    model: Annotated[str | None, typer.Option(help="The frozen LLM: a name, hub id, folder or GGUF file.")] = None,
    engine: Annotated[Literal["local", "vllm"] | None, typer.Option(help="Who runs the LLM.")] = None,
    vllm_args: Annotated[str | None, typer.Option(help="More of vLLM's engine arguments, as JSON.")] = None,
    host: Annotated[str | None, typer.Option(help="Address; beyond loopback it needs PROXY_RLHF_API_KEYS.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes any free one.")] = None,
    metrics_port: Annotated[int | None, typer.Option(help="/metrics there instead of on --port.")] = None,
    home: Annotated[Path | None, typer.Option(file_okay=False, help="Folder of all data.")] = None,
    api_keys_file: Annotated[Path | None, typer.Option(dir_okay=False, help="API keys, one a line; followed.")] = None,
    admin_key_file: Annotated[Path | None, typer.Option(dir_okay=False, help="The key of /admin; followed.")] = None,
    dtype: Annotated[Literal["auto", "bfloat16", "float16", "float32"] | None, typer.Option()] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    default_proxy: Annotated[str | None, typer.Option(help="The proxy that the plain model name means.")] = None,
    strict: Annotated[bool | None, typer.Option("--strict", help="Refuse fields that are not implemented.")] = None,
    max_running: Annotated[int | None, typer.Option(help="Answers in one decode step.")] = None,
    max_waiting: Annotated[int | None, typer.Option(help="Answers in the queue; one more is a 429.")] = None,
    max_waiting_tokens: Annotated[int | None, typer.Option(help="Tokens of the queue; more is a 429.")] = None,
    max_queue_seconds: Annotated[float | None, typer.Option(help="A longer wait for a slot is a 503.")] = None,
    deadline_seconds: Annotated[
        float | None, typer.Option(help="A longer answer is a 504; no limit unless set.")
    ] = None,
    max_unread_tokens: Annotated[int | None, typer.Option(help="How far an answer may be ahead of its reader.")] = None,
    write_seconds: Annotated[float | None, typer.Option(help="Patience with a client that does not read.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="Of each API key; no limit unless set.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(help="Of each API key; no limit unless set.")] = None,
    max_running_per_key: Annotated[int | None, typer.Option(help="Requests at once; no limit unless set.")] = None,
    max_context: Annotated[int | None, typer.Option(help="Tokens of a prompt and its answer.")] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Processor threads of the LLM; unless set, all but one, or both of two with compiled kernels."
        ),
    ] = None,
    prefix_cache_tokens: Annotated[int | None, typer.Option(help="Kept of prompts that begin alike; 0: none.")] = None,
    draft_tokens: Annotated[int | None, typer.Option(help="Drafted ahead of an answer; 0: none.")] = None,
    max_body_bytes: Annotated[int | None, typer.Option(help="Largest request.")] = None,
    max_file_bytes: Annotated[int | None, typer.Option(help="Largest uploaded file.")] = None,
    max_choices: Annotated[int | None, typer.Option(help="Largest `n`.")] = None,
    max_pinned: Annotated[int | None, typer.Option(help="Versions kept because a request named their number.")] = None,
    canary_guard: Annotated[bool | None, typer.Option(help="Roll back a canary that strays.")] = None,
    canary_min_requests: Annotated[int | None, typer.Option(help="Answers before it is judged.")] = None,
    canary_rejection_band: Annotated[float | None, typer.Option(help="From stable's rejection rate.")] = None,
    canary_garble_band: Annotated[float | None, typer.Option(help="Above stable's garble rate.")] = None,
    canary_error_band: Annotated[float | None, typer.Option(help="Above stable's error rate.")] = None,
    reload_seconds: Annotated[float | None, typer.Option(help="How often published proxies are looked at.")] = None,
    drain_seconds: Annotated[float | None, typer.Option(help="Time for running answers after SIGTERM.")] = None,
    stall_seconds: Annotated[float | None, typer.Option(help="A longer decode step means not ready.")] = None,
    store: Annotated[bool | None, typer.Option("--store/--no-store", help="Keep what asks for it.")] = None,
    store_days: Annotated[float | None, typer.Option(help="What is kept longer is deleted; 0: never.")] = None,
    give_up_seconds: Annotated[float | None, typer.Option(help="Not ready for so long means exit code 1.")] = None,
    log_format: Annotated[Literal["json", "text"] | None, typer.Option()] = None,
    log_level: Annotated[Literal["debug", "info", "warning", "error"] | None, typer.Option()] = None,
) -> int:
    """Serve a frozen LLM and its proxies on /v1/chat/completions; every flag is also PROXY_RLHF_<NAME>."""
    flags = {
        name: value.expanduser().absolute() if isinstance(value, Path) else value for name, value in locals().items()
    }

    from server.launch import serve as run_server
    from server.settings import load_settings

    return run_server(load_settings(os.environ, flags))

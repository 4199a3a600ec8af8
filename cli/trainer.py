"""`proxy-rlhf trainer`: the trainer as a service, in the foreground."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer


def trainer(
    host: Annotated[str | None, typer.Option(help="Address of /health, /ready and /metrics.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes any free one. Default: 8001.")] = None,
    home: Annotated[Path | None, typer.Option(file_okay=False, help="Folder of all data; PROXY_RLHF_HOME.")] = None,
    job: Annotated[
        Path | None, typer.Option(dir_okay=False, help="TOML file: a proxy to keep improving. None: wait.")
    ] = None,
    feedback: Annotated[
        Path | None, typer.Option(dir_okay=False, help="TOML file: a proxy that learns from feedback. None: none.")
    ] = None,
    store: Annotated[
        bool | None, typer.Option("--store/--no-store", help="Do fine-tuning jobs, learn from feedback.")
    ] = None,
    store_url: Annotated[
        str | None, typer.Option(help="Where the jobs are; PROXY_RLHF_STORE_URL, as the server's.")
    ] = None,
    store_days: Annotated[
        float | None, typer.Option(help="Age of answers whose feedback counts; PROXY_RLHF_STORE_DAYS, as the server's.")
    ] = None,
    lease_seconds: Annotated[float | None, typer.Option(help="After so long a lost trainer's job is taken.")] = None,
    judge_url: Annotated[str | None, typer.Option(help="Endpoint of graders that are models, with /v1.")] = None,
    threads: Annotated[int | None, typer.Option(help="Processor threads to compute with.")] = None,
    nice: Annotated[int | None, typer.Option(help="How far to stand back for others, 0 to 19.")] = None,
    server_metrics: Annotated[
        str | None, typer.Option(metavar="URL", help="/metrics of a server on this machine to stand back for.")
    ] = None,
    busy_share: Annotated[
        float | None, typer.Option(help="Share of the time that training works while that answers.")
    ] = None,
    stop_seconds: Annotated[float | None, typer.Option(help="Time for the iteration that SIGTERM finds.")] = None,
    log_level: Annotated[Literal["debug", "info", "warning", "error"] | None, typer.Option()] = None,
) -> int:
    """Train proxies as a service that shows what it does; every flag is also PROXY_RLHF_TRAINER_<NAME>."""
    paths = {"home": home, "job": job, "feedback": feedback}
    absolute = {name: path.expanduser().absolute() if path else None for name, path in paths.items()}
    flags = {
        "host": host,
        "port": port,
        "store": store,
        "store_url": store_url,
        "store_days": store_days,
        "lease_seconds": lease_seconds,
        "judge_url": judge_url,
        "threads": threads,
        "nice": nice,
        "server_metrics": server_metrics,
        "busy_share": busy_share,
        "stop_seconds": stop_seconds,
        "log_level": log_level,
        **absolute,
    }

    from trainer.service.settings import load_settings

    settings = load_settings(os.environ, flags)

    from trainer.service.serve import serve

    return serve(settings)

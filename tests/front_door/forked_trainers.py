"""Trainers that begin at once, forked from a process that has imported everything, so that many may be killed."""

import multiprocessing
import os
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.front_door.trainer_process import trainer_environment

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["cli.main", "trainer.service.serve", "transformers.models.llama.modeling_llama"])


def start_forked_trainer(home: Path, name: str, **environment: str) -> BaseProcess:
    """`proxy-rlhf trainer`, which may be killed before it has begun. It writes to `<home>/<name>.log`."""
    settings = trainer_environment(home, **environment)
    process = _CONTEXT.Process(target=_run, args=(home / f"{name}.log", settings), daemon=True)
    process.start()
    return process


def _run(log: Path, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    from cli.main import main

    sys.exit(main(["trainer"]))

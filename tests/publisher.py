"""Publish in processes of their own: killed at a given step, out of disk, or several at once.

    python -m tests.publisher kill <root>           fork one publisher per step; <root>/<step>/ is what each one left
    python -m tests.publisher gate <root>           the same, of a version that awaits its gates
    python -m tests.publisher prune <root>          fork pruners that keep one of four versions, killed in the same way
    python -m tests.publisher fill <root> <bytes>   publish where no file may grow past so many bytes
    python -m tests.publisher race <root> <count>   publish one proxy so many times, printing the versions as JSON

torch is imported once and the victims are forks. They end by `os._exit`, so nothing of theirs is cleaned up.
"""

import contextlib
import json
import os
import resource
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from proxy_model.versions.checkpoint import Checkpoint
from proxy_model.versions.registry import ProxyRegistry
from tests.bad_checkpoints import SMALL_FINGERPRINT, SMALL_SKAM, small_policy

KILLED = 77
STEPS = ("mkdir", "open", "write", "fsync", "rename", "replace", "unlink", "rmdir")
"""The calls of `os` that change the disk; a publisher is killed before and halfway through or after each of them."""


def small_checkpoint(seed: int) -> Checkpoint:
    """A proxy whose card tells it from others."""
    return Checkpoint(small_policy(seed), SMALL_SKAM, dict(SMALL_FINGERPRINT), {"seed": seed})


def kill_at_every_step(root: Path, num_versions: int, act: Callable[[ProxyRegistry], object]) -> None:
    """Some versions are published, then a fork that does `act` dies at step 0, 1, 2 ... until one lives."""
    template = root / "template"
    for seed in range(1, num_versions + 1):
        ProxyRegistry(template).publish("demo", small_checkpoint(seed))
    for step in range(1000):
        victim = root / str(step)
        shutil.copytree(template, victim)
        if _exit_code_of(partial(_act_until, victim, step, act)) != KILLED:
            shutil.rmtree(victim)
            break
    shutil.rmtree(template)


def _act_until(root: Path, step: int, act: Callable[[ProxyRegistry], object]) -> None:
    remaining = iter(range(step, -1, -1))

    def count() -> None:
        if next(remaining) == 0:
            os._exit(KILLED)

    for name in STEPS:
        setattr(os, name, _deadly(getattr(os, name), count))
    act(ProxyRegistry(root))


def _deadly(call: Callable[..., Any], count: Callable[[], None]) -> Callable[..., Any]:
    def run(*arguments: Any, **options: Any) -> Any:
        count()
        if call.__name__ == "write":
            descriptor, data = arguments
            arguments = (descriptor, data[: (len(data) + 1) // 2])
        result = call(*arguments, **options)
        count()
        return result

    return run


def _exit_code_of(work: Callable[[], None]) -> int:
    process = os.fork()
    if process == 0:
        with contextlib.suppress(OSError):
            work()
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def publish_without_room(root: Path, max_bytes: int) -> None:
    """Publish where every file ends at `max_bytes`; 0 leaves that to the disk. Exits 3 on the error of a full disk."""
    if max_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes))
    try:
        ProxyRegistry(root).publish("demo", small_checkpoint(2))
    except OSError as error:
        print(error.strerror)
        sys.exit(3)


def race(root: Path, count: int) -> None:
    """Publish `demo` `count` times."""
    registry = ProxyRegistry(root)
    print(json.dumps([registry.publish("demo", small_checkpoint(seed)).version for seed in range(count)]))


def publish_second(registry: ProxyRegistry, *, awaits_gates: bool) -> None:
    """As `demo`."""
    registry.publish("demo", small_checkpoint(2), awaits_gates=awaits_gates)


def prune_to_one(registry: ProxyRegistry) -> None:
    """Of `demo`, so that the first two of four go: a rollback returns to the third."""
    registry.prune("demo", 1)


if __name__ == "__main__":
    if sys.argv[1] in ("kill", "gate"):
        kill_at_every_step(Path(sys.argv[2]), 1, partial(publish_second, awaits_gates=sys.argv[1] == "gate"))
    elif sys.argv[1] == "prune":
        kill_at_every_step(Path(sys.argv[2]), 4, prune_to_one)
    elif sys.argv[1] == "fill":
        publish_without_room(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        race(Path(sys.argv[2]), int(sys.argv[3]))

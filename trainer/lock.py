"""One trainer per output folder, also where several machines' containers share a disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from proxy_model import disk
from proxy_model.errors import OutputTaken


@contextmanager
def sole_trainer(output: Path) -> Iterator[None]:
    """Hold the lock beside `output`, which dies with its process. Raises `OutputTaken` when another one has it."""
    folder = output.absolute()
    disk.make_folder(folder.parent)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        held = lock.acquire(blocking=False)
    except Timeout as error:
        raise OutputTaken(f"another trainer works in {output}") from error
    with held:
        yield

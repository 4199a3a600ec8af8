"""Published versions that fine-tuning jobs name, which are not to be deleted because they are old."""

from sqlalchemy import select

from store.database import Database
from store.fine_tuning.jobs import UNFINISHED
from store.schema import job_checkpoints, jobs


def needed_versions(database: Database, proxy: str) -> set[int]:
    """Those of `proxy` that the checkpoints of any job name, and that unfinished ones start from.

    Raises `StoreUnavailable`, `StoreTooNew`.
    """
    named = select(job_checkpoints.c.model).where(job_checkpoints.c.model.contains(f":{proxy}@", autoescape=True))
    start = jobs.c.specification["start"].as_string()
    starts = select(start).where(start.startswith(f"{proxy}@", autoescape=True), jobs.c.status.in_(UNFINISHED))
    with database.read() as connection:
        found = [name for query in (named, starts) for name in connection.scalars(query)]
    return {int(version) for name, _, version in (each.rpartition("@") for each in found) if _names(name, proxy)}


def _names(model: str, proxy: str) -> bool:
    """Whether `<llm>:<proxy>` or `<proxy>` is of that proxy, letter by letter."""
    return model.rpartition(":")[2] == proxy

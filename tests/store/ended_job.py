"""A fine-tuning job that has ended, in whatever store."""

import io

from store.database import Database
from store.files import Files
from store.fine_tuning.jobs import Jobs, Order
from store.fine_tuning.queue import JobQueue


def add_ended_job(url: str, proxy: str, version: int) -> None:
    """It has published that version of `proxy`."""
    database = Database(url)
    queue = JobQueue(database)
    file = Files(database).add("me", "a.jsonl", "fine-tune", io.BytesIO(b"{}"))
    order = Order(owner="me", proxy=proxy, specification={"proxy": proxy}, training_file=file.id, metadata={})
    job = Jobs(database).create(order)
    assert queue.accept(job.id, "one row")
    lease = queue.take("worker", 60.0)
    assert lease is not None
    queue.record_checkpoint(lease, 1, f"tiny:{proxy}@{version}", {})
    queue.succeed(lease, f"tiny:{proxy}", 1)
    database.close()

"""What the store of this installation knows of versions that are still needed, for who is not a service."""

import os

from store.database import Database
from store.fine_tuning.needed_versions import needed_versions
from trainer.service.settings import load_settings


def needed_by_jobs(proxy: str) -> set[int]:
    """Versions that fine-tuning jobs name; none where there is no store. Raises `StoreUnavailable`, `StoreTooNew`.

    The store is the one that the trainer's service would have with the same environment.
    """
    url = load_settings(os.environ, {}).store_database
    if url is None:
        return set()
    database = Database(url)
    try:
        return needed_versions(database, proxy) if database.is_there() else set()
    finally:
        database.close()

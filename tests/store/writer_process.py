"""A process that writes and says so: `python writer_process.py <url> <name>` prints each id once it is acknowledged."""

import itertools
import sys

from store.completions import Completions
from store.database import Database
from store.feedback import FeedbackBook, Opinion, Target
from tests.store.rows import MINE, completion


def main() -> None:
    """Completions with feedback on them, until killed."""
    database = Database(sys.argv[1], busy_seconds=30)
    kept = Completions(database)
    book = FeedbackBook(database, kept)
    for number in itertools.count():
        name = f"{sys.argv[2]}-{number}"
        kept.add(completion(name, "x" * 5_000, metadata={"writer": sys.argv[2]}))
        feedback = book.put(MINE, Opinion(about=Target(completion_id=name), rating=1))
        print(name, feedback.id, flush=True)


if __name__ == "__main__":
    main()

"""What outlives a process: stored completions and responses, the feedback on them, files and fine-tuning jobs.

SQLite by default, Postgres by URL. Knows neither the server nor the trainer, who meet here. Calls block and are safe
from any thread. Every one raises `StoreUnavailable` when the database is locked, full, torn or out of reach, and the
next one opens it anew.
"""

"""Serves the model: HTTP, OpenAI's JSON, server-sent events, keys, metrics, hot reload.

The life of a request: `routes/chat` reads and checks the JSON (`body`, `schemas`), `chat` words it as an `Order`, `run`
names the exact proxy version and has `translate` make token ids and flat scalars of the rest, the backend queues it on
the engine's own thread, and its deltas come back through `choice` (text and log-probabilities in step) to `chat_answer`
(one JSON) or `chat_stream` (chunks).
"""

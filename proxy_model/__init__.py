"""The model: a frozen LLM, the proxy that accepts or rejects its tokens, and the one decode loop that runs both.

No web framework and no pydantic in here; `server` and `trainer` both build on this package and never on each other.
"""

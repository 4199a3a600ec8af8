"""POST /v1/chat/completions: what a conversation orders, and its answer whole, in chunks and as it is kept."""

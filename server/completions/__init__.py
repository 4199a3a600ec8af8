"""POST /v1/completions: what texts order, and their continuations whole and in chunks."""

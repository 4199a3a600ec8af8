"""Engines as the server sees them: `protocol` says what one offers, `local` is the engine of `proxy_model`."""

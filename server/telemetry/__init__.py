"""What operators see: metrics, logs, traces. Never a prompt, an answer or a key."""

"""Rollouts from running servers: the policy in training lent to them, their answers retraced with the run's own LLM."""

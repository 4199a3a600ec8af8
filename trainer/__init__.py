"""The trainer: rollouts by the decode loop that serves, a reward for each answer, PPO on the recorded decisions.

One iteration of `loop.train`:

1. `rollout`     the engine answers a batch of prompts, sampled decisions, every one recorded with its features
2. `rewards`     the reward model scores the finished answers
3. `batch`       the trajectories become one flat batch of positions and decisions
4. `advantages`  the score is normalised, the penalty shapes it, GAE spreads it over the positions
5. `algorithms`  some epochs over the cached features; the frozen LLM is not run again
6. `metrics`, `monitor`, `run_log`, `state`, and every N iterations a published version
"""

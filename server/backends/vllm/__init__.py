"""vLLM's async engine as a backend; `vllm` is imported only when `--engine vllm` is asked for.

`launch` starts it under `vllm_plugin`, `versions` keeps its workers' proxies, `stream` words what it hands out, `pulse`
hears of its steps, `backend` is the engine as the server sees it.
"""

"""vLLM as a peer, as it comes or with the plugin; runs in the environment that has vLLM."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import typer

from benchmarks.peer import answer_jobs
from benchmarks.workload import DEMO_PROXY, TRAINED, requests
from proxy_model.decoding.engine_config import EngineConfig
from proxy_model.decoding.request import GenerationRequest
from server.backends.vllm.launch import VllmSettings, open_model, prepare_environment
from vllm_plugin.arguments import to_arguments
from vllm_plugin.bank import PREPARING


def main(
    model: str,
    threads: int,
    max_running: int,
    is_eager: Annotated[bool, typer.Option("--eager/--compiled")] = True,
    has_plugin: Annotated[bool, typer.Option("--plugin/--plain")] = False,
) -> None:
    """Load, then answer lines."""
    prepare_environment(threads)
    options = {"enforce_eager": is_eager, "enable_prefix_caching": False}
    settings = VllmSettings(model=model, sizes=EngineConfig(max_running=max_running, max_context=512), options=options)
    opened = open_model(settings)
    engine = _engine(opened.arguments, has_plugin=has_plugin)
    if not has_plugin:
        answer_jobs({"plain": partial(_run, engine, None)})
        return
    engine.collective_rpc("proxy_start", args=(opened.setup,))
    _load_trained(engine)
    answer_jobs({"proxy off": partial(_run_proxied, engine, False), "proxy on": partial(_run_proxied, engine, True)})


def _engine(arguments: Mapping[str, Any], *, has_plugin: bool) -> Any:
    from vllm import LLM

    left_out = {"disable_log_stats"} if has_plugin else {"disable_log_stats", "worker_extension_cls", "max_logprobs"}
    return LLM(**{name: value for name, value in arguments.items() if name not in left_out})


def _load_trained(engine: Any) -> None:
    engine.collective_rpc("proxy_prepare", args=(TRAINED.name, TRAINED.version, str(DEMO_PROXY)))
    while PREPARING in engine.collective_rpc("proxy_state", args=(TRAINED.name, TRAINED.version)):
        pass
    engine.collective_rpc("proxy_admit", args=(TRAINED.name, TRAINED.version))


def _run_proxied(engine: Any, is_on: bool, prompts: Sequence[Sequence[int]], tokens: int) -> int:
    return _run(engine, requests(prompts, tokens, [TRAINED if is_on else None]), prompts, tokens)


def _run(
    engine: Any, requested: Sequence[GenerationRequest] | None, prompts: Sequence[Sequence[int]], tokens: int
) -> int:
    from vllm import SamplingParams

    common = {"temperature": 0.0, "max_tokens": tokens, "ignore_eos": True, "detokenize": False}
    params = (
        SamplingParams(**common)
        if requested is None
        else [
            SamplingParams(**common, logprobs=0, flat_logprobs=True, extra_args=to_arguments(each))
            for each in requested
        ]
    )
    answers = engine.generate([{"prompt_token_ids": list(ids)} for ids in prompts], params, use_tqdm=False)
    return sum(len(answer.outputs[0].token_ids) for answer in answers)


if __name__ == "__main__":
    typer.run(main)

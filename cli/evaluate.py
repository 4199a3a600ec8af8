"""`proxy-rlhf evaluate`: proxies, the base and controls side by side on held-out prompts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import console
from proxy_model.errors import InvalidParameter
from trainer.evaluation.system_name import ALLOWED

if TYPE_CHECKING:
    from trainer.evaluation.config import PairwiseConfig


def evaluate(
    prompts: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Held-out prompts, .jsonl or .jsonl.gz.")],
    systems: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SYSTEM]...", help=f"{ALLOWED}. None: the rows of the evaluations given by --merge."),
    ] = None,
    reward: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="The reward model that trained the proxies.")
    ] = None,
    judge: Annotated[
        list[Path] | None, typer.Option(exists=True, file_okay=False, help="A reward model that did not; repeatable.")
    ] = None,
    pairwise_judge: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Endpoint, with /v1, of an LLM that compares answers; key: PROXY_RLHF_JUDGE_KEY."
        ),
    ] = None,
    pairwise_model: Annotated[str | None, typer.Option(help="What the endpoint calls that LLM.")] = None,
    pairwise_criterion: Annotated[str | None, typer.Option(help="The question that it is asked.")] = None,
    pairwise_max_requests: Annotated[
        int, typer.Option(min=1, help="Answers of it to pay for, an interrupted evaluation's included.")
    ] = 20_000,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for evaluation.json, evaluation.md and answers.jsonl; an earlier one's goes on."),
    ] = None,
    merges: Annotated[
        list[Path] | None,
        typer.Option("--merge", exists=True, file_okay=False, help="An evaluation whose answers count; repeatable."),
    ] = None,
    model: Annotated[
        str, typer.Option(help="The frozen LLM: a name, hub id, folder or GGUF file.")
    ] = "smollm2-135m-instruct",
    registry: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder of published proxies; default: the server's.")
    ] = None,
    encoder: Annotated[
        Path | None, typer.Option(exists=True, help="Folder or wheel of the judges' sentence encoder.")
    ] = None,
    source: Annotated[str, typer.Option(help="Only prompts whose source starts with this.")] = "",
    num_prompts: Annotated[int, typer.Option(min=0, help="The first ones of a shuffle; 0: all.")] = 300,
    max_tokens: Annotated[int, typer.Option(min=1, help="Length at which answers are cut.")] = 128,
    max_prompt_tokens: Annotated[int, typer.Option(min=1, help="Longer prompts are left out, and counted.")] = 256,
    max_running: Annotated[int, typer.Option(min=1, help="Answers side by side.")] = 32,
    dictionary: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="Texts whose words count as words; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    num_shown: Annotated[int, typer.Option(min=0, help="Prompts whose answers are kept with every decision.")] = 20,
    report: Annotated[
        bool, typer.Option("--report", help="Also write report.html with its pictures and numbers.")
    ] = False,
    card: Annotated[bool, typer.Option("--card", help="Also write a card for every proxy.")] = False,
) -> None:
    """Compare proxies with the base on held-out prompts: rewards, win rates, fluency, rejections."""
    from trainer.evaluation.config import EvaluationConfig
    from trainer.evaluation.evaluate import evaluate as run_evaluation

    config = EvaluationConfig(
        prompts=prompts,
        systems=tuple(systems or ()),
        reward=reward,
        judges=tuple(judge or ()),
        pairwise=_pairwise(pairwise_judge, pairwise_model, pairwise_criterion, pairwise_max_requests),
        output=output,
        merges=tuple(merges or ()),
        model=model,
        registry=registry,
        encoder=encoder,
        source=source,
        num_prompts=num_prompts,
        max_tokens=max_tokens,
        max_prompt_tokens=max_prompt_tokens,
        max_running=max_running,
        dictionary=tuple(dictionary or ()),
        seed=seed,
        num_shown=num_shown,
        report=report,
        card=card,
    )
    run_evaluation(config, console=console.out)


def _pairwise(url: str | None, model: str | None, criterion: str | None, max_requests: int) -> "PairwiseConfig | None":
    """Raises `InvalidParameter` for a judge without a model, or the other way round."""
    from trainer.evaluation.config import PairwiseConfig
    from trainer.rewards.endpoint_config import EndpointConfig
    from trainer.rewards.pairwise import CRITERION

    if url is None and model is None and criterion is None:
        return None
    if url is None:
        raise InvalidParameter("pairwise-judge", None, "given: the endpoint of the judge, up to and with /v1")
    if model is None:
        raise InvalidParameter("pairwise-model", None, "given with a pairwise judge: what the endpoint calls it")
    endpoint = EndpointConfig(url=url, max_requests=max_requests)
    return PairwiseConfig(endpoint=endpoint, model=model, criterion=criterion or CRITERION)

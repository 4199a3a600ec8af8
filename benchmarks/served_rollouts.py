"""Rollouts by a run's own engine and by servers, in turn: answers a second, and how far the two agree.

    python -m benchmarks.served_rollouts [--answers 48] [--tokens 64] [--rounds 4] [--url URL ...] [--out FILE.json]

Held-out prompts are answered under the shipped helpful proxy, its decisions drawn. Without `--url` it starts a server
of the demo LLM on this machine; with it the servers follow `$PROXY_RLHF_HOME/proxies`. A cell is the median over the
rounds with its quartiles; ratios are within a round. Where both engines round alike, all answers are the same.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks.rounds import Spread, alternate, ratios
from benchmarks.served import served
from benchmarks.workload import DEMO_PROXY, held_out, loaded_llm
from proxy_model.paths import proxies_root
from proxy_model.versions.checkpoint import read_checkpoint
from trainer.answerer import Answerer
from trainer.config import RolloutConfig, TrainConfig
from trainer.interruption import Interruption
from trainer.parts import answerer_of
from trainer.rewards.terms import trained_term
from trainer.rollout import Rollout
from trainer.served.config import ServersConfig

OWN, SERVERS = "own engine", "servers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One rollout."""

    seconds: float
    tokens: int
    texts: tuple[str, ...]
    differing_share: float
    retrace_seconds: float

    @classmethod
    def of(cls, rollout: Rollout) -> "Figure":
        """The last two are 0 for the own engine."""
        told = rollout.metrics
        return cls(
            seconds=rollout.seconds,
            tokens=rollout.num_tokens,
            texts=rollout.texts,
            differing_share=told.get("rollout/differing_share", 0.0),
            retrace_seconds=told.get("rollout/retrace_seconds", 0.0),
        )


def settings(folder: Path, arguments: argparse.Namespace, urls: Sequence[str]) -> TrainConfig:
    """Of a run that would be answered so."""
    checkpoint = read_checkpoint(DEMO_PROXY, None)
    return TrainConfig(
        output=folder / "run",
        prompts=(Path("held out"),),
        rewards=(trained_term(Path("none")),),
        proxy="measured",
        registry=proxies_root(),
        skam=checkpoint.skam,
        rollout=RolloutConfig(prompts_per_iteration=arguments.answers, max_tokens=arguments.tokens),
        servers=ServersConfig(urls=tuple(urls)) if urls else None,
    )


def report(figures: Mapping[str, Sequence[Figure]]) -> str:
    """A Markdown table, and the shares."""
    own = [each.tokens / each.seconds for each in figures[OWN]]
    lines = ["| | answers/s | tokens/s | of the own engine's |", "|---|---:|---:|---:|"]
    for name, found in figures.items():
        speeds = [each.tokens / each.seconds for each in found]
        answers = Spread.of([len(each.texts) / each.seconds for each in found])
        lines.append(f"| {name} | {answers.median:.2f} | {Spread.of(speeds).median:.1f} | {ratios(speeds, own)} |")
    served_ones = figures[SERVERS]
    again = Spread.of([each.retrace_seconds / each.seconds for each in served_ones])
    pairs = [
        mine == theirs
        for first, second in zip(figures[OWN], served_ones, strict=True)
        for mine, theirs in zip(first.texts, second.texts, strict=True)
    ]
    differing = sum(each.differing_share * each.tokens for each in served_ones)
    total = sum(each.tokens for each in served_ones)
    lines += [
        "",
        f"read again by the run's own LLM: {again} of the time; {sum(pairs)} of {len(pairs)} answers the same;",
    ]
    lines.append(f"positions with other candidates: {differing:.0f} of {total}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table; write all rollouts' figures as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--url", action="append")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(argv)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = arguments.url or [stack.enter_context(served("--no-store")).url]
        llm = loaded_llm("smollm2-135m-instruct", 0)
        prompts, policy = held_out(llm), read_checkpoint(DEMO_PROXY, llm.fingerprint).policy

        def rollout(answerer: Answerer, turns: "count[int]") -> Figure:
            turn = next(turns)
            chosen = [prompts[(turn * arguments.answers + index) % len(prompts)] for index in range(arguments.answers)]
            return Figure.of(answerer.roll_out(policy, chosen, iteration=turn))

        ways = {
            name: partial(
                rollout, answerer_of(settings(folder, arguments, used), llm, prompts, Interruption()), count()
            )
            for name, used in ((OWN, []), (SERVERS, urls))
        }
        figures = alternate(ways, arguments.rounds)
    print(report(figures))
    if arguments.out:
        rows = {name: [asdict(each) | {"texts": None} for each in found] for name, found in figures.items()}
        arguments.out.write_text(json.dumps({**vars(arguments), "out": None, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()

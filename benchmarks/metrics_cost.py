"""What the metrics cost: milliseconds of processor time per 1,000 generated tokens.

    python -m benchmarks.metrics_cost [--out FILE.json]

Counting happens on the engine's thread, once a step; adding up happens on the event loop, once a second; a scrape
writes the text. Each part is timed alone, over made-up steps, so that the LLM's own noise is out of the picture.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from proxy_model.decision.bank import ProxyRef
from proxy_model.decoding.request import Delta, GenerationRequest, SamplingParams
from server.backends.recorder import StatsRecorder
from server.telemetry.metrics import Metrics

NUM_TOKENS = 100_000
BATCHES = (1, 8, 32)
TOKENS_PER_ANSWER = 100
STEPS_PER_DRAIN = 10
"""At a tenth of a second per step: what the server does once a second."""


def steps(batch: int) -> list[list[Delta]]:
    """The deltas of every step of `batch` answers after another; the proxy rejects 0 to 3 candidates a position."""
    return [
        [
            Delta(
                request_id=f"{step // TOKENS_PER_ANSWER}-{row}",
                token_ids=(7,),
                num_accepted=1,
                num_rejected=(step * 7 + row) % 4,
                num_forced=int(step % 5 == 0),
                finish_reason="stop" if step % TOKENS_PER_ANSWER == TOKENS_PER_ANSWER - 1 else None,
            )
            for row in range(batch)
        ]
        for step in range(NUM_TOKENS // batch)
    ]


def measure(batch: int) -> dict[str, float]:
    """Milliseconds per 1,000 tokens of each part, and of one scrape."""
    recorder, metrics, seconds = StatsRecorder(), Metrics(), {"count": 0.0, "add_up": 0.0}
    metrics.set_model("llm")
    params, ref = SamplingParams(max_tokens=TOKENS_PER_ANSWER), ProxyRef(name="helpful", version=1)

    def timed(part: str, work: Callable[[], object]) -> None:
        began = time.process_time()
        work()
        seconds[part] += time.process_time() - began

    for number, deltas in enumerate(steps(batch)):
        if number % TOKENS_PER_ANSWER == 0:
            for delta in deltas:
                request = GenerationRequest(id=delta.request_id, prompt_token_ids=(1,), params=params, proxy=ref)
                timed("count", lambda request=request: recorder.submitted(request, time.monotonic()))  # type: ignore[misc]
        timed("count", lambda deltas=deltas: recorder.stepped(time.monotonic(), batch, deltas))  # type: ignore[misc]
        if number % STEPS_PER_DRAIN == 0:
            timed("add_up", lambda: metrics.record(recorder.drain(batch, 0, 0.5)))
    thousands = NUM_TOKENS / 1000
    began = time.process_time()
    text = metrics.expose()
    return {
        "batch": batch,
        "count_ms": 1000 * seconds["count"] / thousands,
        "add_up_ms": 1000 * seconds["add_up"] / thousands,
        "scrape_ms": 1000 * (time.process_time() - began),
        "scrape_bytes": len(text),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table; write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(argv)
    rows = [measure(batch) for batch in BATCHES]
    print("| answers at once | counting, ms per 1,000 tokens | adding up, ms per 1,000 tokens | one scrape, ms |")
    print("|---:|---:|---:|---:|")
    for row in rows:
        print(f"| {row['batch']} | {row['count_ms']:.2f} | {row['add_up_ms']:.2f} | {row['scrape_ms']:.1f} |")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Best-of-n: sample the LLM n times and keep what the training reward likes best."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trainer.evaluation.answer import Answer, Answers


def best_of(samples: Sequence[Answers], scores: Sequence[Tensor]) -> list[Answer]:
    """For each prompt the sample with the highest of `scores`, n times (B,); the first one of equals.

    It pays for all n: the passes and the seconds are those of all samples. Nothing can be streamed: no gaps, no
    first token.
    """
    chosen = torch.stack(list(scores)).argmax(dim=0).tolist()
    found = []
    for number, best in enumerate(chosen):
        drawn = [each.items[number] for each in samples]
        passes, seconds = sum(each.passes for each in drawn), sum(each.seconds for each in drawn)
        found.append(replace(drawn[best], passes=passes, seconds=seconds, gaps=(), first_token=None))
    return found

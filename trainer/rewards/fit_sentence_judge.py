"""Fit the judge: a head on the encoder's states, a head on words, and the weights of the two."""

from collections.abc import Sequence

import torch
from rich.progress import Progress
from torch import Tensor

from trainer.preferences import PreferencePair
from trainer.rewards import bradley_terry
from trainer.rewards.bag_of_words import BagOfWords
from trainer.rewards.linear_head import NUM_FOLDS, fit_head
from trainer.rewards.model import Conversation
from trainer.rewards.pairs import sides_of
from trainer.rewards.sentence_features import SentenceEncoder, SentenceFeatures
from trainer.rewards.sentence_judge import SentenceJudge, WordHead, cut_answers, log_words
from trainer.rewards.sentence_source import find_encoder
from trainer.rewards.training_config import RewardTrainingConfig

_WORDS_PER_TOKEN = 0.7
_WORD_L2 = (1e-2, 5e-3, 2e-3, 1e-3)


def fit_sentence_judge(
    config: RewardTrainingConfig, pairs: Sequence[PreferencePair], progress: Progress
) -> tuple[SentenceJudge, Tensor, float]:
    """The model, the cross-validated margins (N,) of `pairs` (of the sum of the heads), and the sentence head's l2."""
    cuts = [max(1, round(cut * _WORDS_PER_TOKEN)) for cut in config.cuts[-2:]]
    features = SentenceFeatures(taps=config.taps or (2, 4), max_words=cuts[-1], with_prompt=config.with_prompt)
    encoder = SentenceEncoder(find_encoder(config.encoder), features)
    sides = sides_of(pairs)
    chosen, rejected = (_read(encoder, side, cuts, progress) for side in sides)
    lengths = torch.stack([torch.stack([log_words(side, cut) for cut in cuts], dim=1) for side in sides], dim=1)
    head, sentence_margins = fit_head(
        chosen, rejected, lengths, l2=config.l2, length_control=config.control, seed=config.seed
    )
    cut_chosen, cut_rejected = (cut_answers(features, side, cuts[-1]) for side in sides)
    words, word_margins = fit_words(cut_chosen, cut_rejected, config.seed)
    margins = torch.stack([sentence_margins / head.scale, word_margins], dim=1)  # (N, 2)
    mixture = bradley_terry.fit(margins, 1e-4).clamp(min=0)
    model = SentenceJudge(encoder, head, words, (float(mixture[0]), float(mixture[1])))
    return model, margins @ mixture, head.l2


def fit_words(chosen: Sequence[str], rejected: Sequence[str], seed: int) -> tuple[WordHead, Tensor]:
    """A bag-of-words head, and the cross-validated margins (N,) of its pairs."""
    bag = BagOfWords.of([*chosen, *rejected])
    differences = (bag.vectors(chosen) - bag.vectors(rejected)).coalesce()
    fold = bradley_terry.folds(len(chosen), NUM_FOLDS, seed)
    l2 = bradley_terry.choose_l2(differences, fold, _WORD_L2)
    weights = bradley_terry.fit(differences, l2)
    return WordHead(bag, weights), bradley_terry.cross_validated_margins(differences, l2, fold)


def _read(encoder: SentenceEncoder, side: Sequence[Conversation], cuts: Sequence[int], progress: Progress) -> Tensor:
    """(N, C, F)."""
    read = [
        torch.stack(list(progress.track(encoder.read(side, cut), total=len(side), description=f"read {cut} words")))
        for cut in cuts
    ]
    return torch.stack(read, dim=1)

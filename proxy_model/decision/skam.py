"""SKAM, the Stable Knowledge-Aware Module: which candidates are offered, in which order, and which may be refused.

arXiv:2403.04283, section 2.2. What the paper leaves open is decided so: 1. T is the top-p set, cut to the K most
probable tokens. 2. Probabilities are those of the softmax under SKAM's temperature, not renormalised (an option).
3. The last candidate is always accepted. 4. Ties in probability go to the lower token id. 5. `top_p` = 1 switches the
nucleus filter off and `p_t` = 0 the mask, exactly. 6. A request with a sampling temperature gets its candidates in an
order drawn without replacement at that temperature (Gumbel top-k) instead of by descending probability. 7. A token
whose logit is minus infinity (a grammar or a filter took it away) is never a candidate.

Pure functions of tensors; the noise's keys are an argument. What runs over the whole vocabulary is compiled code where
there is any (`native_slate`), and torch elsewhere.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from proxy_model.decision import native_slate as native
from proxy_model.decision.noise import gumbel_noise

_CHUNK = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SlateSettings:
    """SKAM's settings of B rows, one number a row."""

    temperature: Float[Tensor, " B"]
    """SKAM's softmax temperature."""

    top_p: Float[Tensor, " B"]
    p_t: Float[Tensor, " B"]

    max_candidates: Int[Tensor, " B"]
    """At most the slate's width K; 1 makes a row plain: its first candidate is its token."""

    is_renormalised: Bool[Tensor, " B"]

    is_whole: bool = False
    """Every row's `top_p` is known to be 1. Known on the host, so that asking does not wait for a GPU."""

    def __getitem__(self, rows: Tensor) -> "SlateSettings":
        return SlateSettings(
            temperature=self.temperature[rows],
            top_p=self.top_p[rows],
            p_t=self.p_t[rows],
            max_candidates=self.max_candidates[rows],
            is_renormalised=self.is_renormalised[rows],
            is_whole=self.is_whole,
        )


@dataclass(frozen=True, slots=True)
class Slate:
    """The ordered candidates of B positions; K wide, padded at the end."""

    tokens: Int[Tensor, "B K"]
    logprobs: Float[Tensor, "B K"]
    """Natural log-probabilities under SKAM's temperature, before any filter."""

    is_candidate: Bool[Tensor, "B K"]
    """False is padding."""

    is_free: Bool[Tensor, "B K"]
    """True where the proxy decides; False where accepting is forced, and on padding."""

    def __getitem__(self, rows: Tensor | slice) -> "Slate":
        return Slate(self.tokens[rows], self.logprobs[rows], self.is_candidate[rows], self.is_free[rows])


def build_slate(logits: Float[Tensor, "B V"], settings: SlateSettings, width: int) -> Slate:
    """The slate in the paper's order, descending probability. `width` is K."""
    find = native.likeliest if native.supports(logits) else likeliest
    tokens, logprobs = find(logits, settings.temperature, width)
    mass_before = logprobs.exp().cumsum(-1).roll(1, -1)
    mass_before[:, 0] = 0.0
    is_candidate = (mass_before < settings.top_p[:, None]) | (settings.top_p >= 1.0)[:, None]
    return _with_restrictions(tokens, logprobs, is_candidate & (logprobs > float("-inf")), settings)


def build_sampled_slate(
    logits: Float[Tensor, "B V"],
    settings: SlateSettings,
    width: int,
    sampling: Float[Tensor, " B"],
    keys: Int[Tensor, " B"],
) -> Slate:
    """The slate in an order drawn without replacement at the requests' temperature `sampling`, from the keys' noise.

    The nucleus is taken under the request's temperature, so a proxy that accepts everything is plain nucleus sampling.
    """
    find = native.drawn if native.supports(logits) else drawn
    top_p = None if settings.is_whole else settings.top_p
    tokens, logprobs = find(logits, settings.temperature, width, sampling, top_p, keys)
    return _with_restrictions(tokens, logprobs, logprobs > float("-inf"), settings)


def likeliest(
    logits: Float[Tensor, "B V"], temperature: Float[Tensor, " B"], width: int
) -> tuple[Int[Tensor, "B K"], Float[Tensor, "B K"]]:
    """The likeliest tokens, in order, ties by lower id, and their log-probabilities under `temperature`."""
    scaled = logits / temperature[:, None]
    tokens = top_tokens(scaled, width)
    return tokens, scaled.gather(1, tokens) - _log_total(scaled)


def drawn(
    logits: Float[Tensor, "B V"],
    temperature: Float[Tensor, " B"],
    width: int,
    sampling: Float[Tensor, " B"],
    top_p: Float[Tensor, " B"] | None,
    keys: Int[Tensor, " B"],
) -> tuple[Int[Tensor, "B K"], Float[Tensor, "B K"]]:
    """Tokens in an order drawn at temperature `sampling` from its nucleus (Gumbel top-k), and their log-probabilities.

    These are under `temperature`, and minus infinity where the nucleus has no further token. `top_p` None: all are in.
    """
    proposal = (logits / sampling[:, None]).log_softmax(-1)
    noisy = proposal + gumbel_noise(keys, logits.shape[-1])
    inside = noisy if top_p is None else noisy.masked_fill(~_nucleus(proposal, top_p), float("-inf"))
    order = inside.topk(width, dim=-1)
    scaled = logits / temperature[:, None]
    logprobs = scaled.gather(1, order.indices) - _log_total(scaled)
    return order.indices, logprobs.masked_fill(order.values == float("-inf"), float("-inf"))


def top_tokens(logits: Float[Tensor, "B V"], width: int) -> Int[Tensor, "B K"]:
    """The `width` largest logits' token ids, largest first, ties by lower id: exact, and cheaper than sorting.

    The best tokens lie in the chunks with the best maxima, so only those chunks are searched.
    """
    size = logits.shape[-1]
    if size <= width * _CHUNK:
        return _largest(logits, width)
    padded = _in_chunks(logits)
    best_chunks = _largest(padded.amax(-1), width).sort(-1).values  # (B, K), ascending: lower ids stay first
    found = padded.gather(1, best_chunks[..., None].expand(-1, -1, _CHUNK)).flatten(1)
    ids = (best_chunks[..., None] * _CHUNK + torch.arange(_CHUNK, device=logits.device)).flatten(1)
    return ids.gather(1, _largest(found, width))


def _in_chunks(logits: Float[Tensor, "B V"]) -> Float[Tensor, "B C S"]:
    """Padded with minus infinity where the last chunk is not full."""
    missing = -logits.shape[-1] % _CHUNK
    padded = torch.nn.functional.pad(logits, (0, missing), value=float("-inf")) if missing else logits
    chunks: Tensor = padded.unflatten(-1, (-1, _CHUNK))
    return chunks


def _log_total(logits: Float[Tensor, "B V"]) -> Float[Tensor, "B 1"]:
    """Logarithm of the sum of exponentials, for a row the same to the bit alone and among others.

    By chunks, since several threads share out the sum over a whole vocabulary where there is one row, not where there
    are more, and so add it up in another order.
    """
    return _in_chunks(logits).logsumexp(-1).logsumexp(-1, keepdim=True)


def _largest(values: Float[Tensor, "B N"], width: int) -> Int[Tensor, "B K"]:
    """Indices of the largest values, ties by lower index, through keys that no two indices share."""
    bits = values.float().contiguous().view(torch.int32).to(torch.int64)
    ascending = torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)  # order of floats as order of integers
    index = torch.arange(values.shape[-1], device=values.device)
    return (ascending * (1 << 31) - index).topk(width, dim=-1).indices


def _nucleus(logprobs: Float[Tensor, "B V"], top_p: Float[Tensor, " B"]) -> Bool[Tensor, "B V"]:
    """True on the smallest set of most probable tokens whose mass reaches `top_p`; everywhere for 1."""
    ordered = logprobs.sort(dim=-1, descending=True, stable=True)
    mass_before = ordered.values.exp().cumsum(-1).roll(1, -1)
    mass_before[:, 0] = 0.0
    is_inside = (mass_before < top_p[:, None]) | (top_p >= 1.0)[:, None]
    return torch.zeros_like(is_inside).scatter(1, ordered.indices, is_inside)


def _with_restrictions(tokens: Tensor, logprobs: Tensor, is_candidate: Tensor, settings: SlateSettings) -> Slate:
    """Cut to the row's K and mask reject where the remaining candidates' mean probability is at most p_t."""
    index = torch.arange(tokens.shape[-1], device=tokens.device)
    is_candidate = is_candidate & (index < settings.max_candidates[:, None])
    probs = logprobs.exp() * is_candidate
    mass_left = probs.flip(-1).cumsum(-1).flip(-1)
    num_left = is_candidate.flip(-1).cumsum(-1).flip(-1)
    mass_left = torch.where(settings.is_renormalised[:, None], torch.ones_like(mass_left), mass_left)
    p_t = settings.p_t[:, None]
    is_forced = (num_left <= 1) | ((p_t > 0) & (mass_left <= p_t * num_left))
    return Slate(tokens, logprobs, is_candidate, is_candidate & ~is_forced)

"""Writing text: choose the next token, again and again, with a cache. Chapter 7."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2.decoder import GPT
from gpt2.tokenizer import Tokenizer


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn: by temperature, then top-k, then top-p.

    Temperature 0 is greedy; keep_crossing=False takes the released top-p. Raises
    ValueError for a setting out of range. Source: `sample_sequence` in src/sample.py.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    keep_crossing: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(
                f"temperature = {self.temperature}: use 0 (greedy) or more."
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(
                f"top_k = {self.top_k}: keep 1 token or more, or None for all."
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(
                f"top_p = {self.top_p}: take a share above 0 and up to 1, or None."
            )


GREEDY = Sampling(temperature=0)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Set all but the k largest logits to -inf: (..., V) -> (..., V).

    Tokens that tie with the k-th are kept too. Source: `top_k_logits` in src/sample.py.
    """
    smallest = logits.topk(min(k, logits.size(-1))).values[..., -1:]  # (..., 1)
    return logits.masked_fill(logits < smallest, float("-inf"))


def keep_top_p(logits: Tensor, p: float, keep_crossing: bool = True) -> Tensor:
    """Keep the smallest set with probability p or more, set others to -inf: (..., V).

    All at p = 1. Which of two tied tokens at its edge is kept depends on the sort
    (Holtzman et al. 2020, section 3.1). keep_crossing=False cuts as the released
    `top_p_logits` in src/sample.py: it drops the token that crosses p, unless that is
    the first, and keeps or drops tied tokens together.
    """
    if keep_crossing and p == 1:  # a sum of rounded numbers may miss it
        return logits
    if keep_crossing:
        ranked, order = logits.sort(dim=-1)  # (..., V) each, from the least likely
        dropped = ranked.softmax(dim=-1).cumsum(dim=-1) <= 1 - p  # (..., V), by rank
        dropped[..., -1] = False  # the likeliest is kept
        by_id = dropped.scatter(-1, order, dropped)  # (..., V), in vocabulary order
        return logits.masked_fill(by_id, float("-inf"))
    ranked = logits.sort(dim=-1, descending=True).values  # (..., V)
    mass = ranked.softmax(dim=-1).cumsum(dim=-1)  # (..., V), rises to 1
    n_kept = (mass <= p).sum(dim=-1, keepdim=True).clamp(min=1)  # (..., 1)
    smallest = ranked.gather(-1, n_kept - 1)  # (..., 1)
    return logits.masked_fill(logits < smallest, float("-inf"))


def reshape_logits(logits: Tensor, sampling: Sampling) -> Tensor:
    """Apply temperature, top-k and top-p, in the released order: (..., V).

    The largest logit of a row becomes 0, which changes no probability, so a tiny
    temperature makes others -inf and nothing nan. For temperature 0 see `choose`.
    """
    logits = logits.float() - logits.float().amax(dim=-1, keepdim=True)  # (..., V)
    logits = logits / max(sampling.temperature, torch.finfo(torch.float32).tiny)
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = keep_top_p(logits, sampling.top_p, sampling.keep_crossing)
    return logits


def choose(
    logits: Tensor, sampling: Sampling, generator: torch.Generator | None = None
) -> Tensor:
    """Choose one token per row: (B, V) -> (B,) ids.

    Drawn on the CPU: the random numbers of a seed are the same on every device.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = reshape_logits(logits, sampling).softmax(dim=-1).cpu()  # (B, V)
    drawn = torch.multinomial(probabilities, 1, generator=generator)  # (B, 1)
    return drawn.squeeze(-1).to(logits.device)


class LayerCache:
    """The keys and values of one layer, in buffers of full length: an `attention.Past`.

    Only `length` positions of each (B, H, n_ctx, D) buffer are filled. Queries are not
    stored: no later token needs them.
    """

    def __init__(self, batch: int, n_head: int, n_ctx: int, like: Tensor) -> None:
        head_dim = like.size(-1) // n_head
        self.k = like.new_empty(batch, n_head, n_ctx, head_dim)
        self.v = torch.empty_like(self.k)
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write (B, H, T, D) after the past; return all: (B, H, length, D) each."""
        start, end = self.length, self.length + k.size(2)
        self.k[:, :, start:end] = k
        self.v[:, :, start:end] = v
        self.length = end
        return self.k[:, :, :end], self.v[:, :, :end]


def new_cache(model: GPT, batch: int = 1) -> list[LayerCache]:
    """Make an empty cache for each layer, on the model's device, in its precision."""
    config, like = model.config, model.wte.weight
    return [LayerCache(batch, config.n_head, config.n_ctx, like) for _ in model.h]


def next_logits(
    model: GPT, idx: Tensor, cache: list[LayerCache] | None = None
) -> Tensor:
    """Return the logits of the next token only: (B, T) -> (B, n_vocab)."""
    return F.linear(model.hidden(idx, cache)[:, -1], model.wte.weight)


@torch.inference_mode()
def next_tokens(
    model: GPT,
    ids: Sequence[int],
    sampling: Sampling,
    generator: torch.Generator | None = None,
    use_cache: bool = True,
) -> Iterator[int]:
    """Yield the tokens that follow ids, one by one, without end.

    When the window outgrows n_ctx, its newer half is read again from position 0.
    """
    n_ctx, device = model.config.n_ctx, model.wte.weight.device
    window, cache = list(ids), new_cache(model) if use_cache else None
    while True:
        if len(window) > n_ctx:
            window = window[-(n_ctx // 2 or 1) :]
            cache = new_cache(model) if use_cache else None
        n_seen = cache[0].length if cache else 0
        idx = torch.tensor([window[n_seen:]], device=device)  # (1, T), cached (1, 1)
        token = int(choose(next_logits(model, idx, cache), sampling, generator))
        yield token
        window.append(token)


def generate(
    model: GPT,
    ids: Sequence[int],
    n_new: int,
    sampling: Sampling = GREEDY,
    *,
    generator: torch.Generator | None = None,
    stop: int | None = None,
    use_cache: bool = True,
) -> Iterator[int]:
    """Continue a prompt by up to n_new tokens, one by one; `stop` is not yielded.

    Raises ValueError, at once, for a prompt that is empty, longer than n_ctx, or holds
    an id that is not in the vocabulary.
    """
    n_ctx, n_vocab = model.config.n_ctx, model.config.n_vocab
    if not 1 <= len(ids) <= n_ctx:
        raise ValueError(
            f"a prompt of {len(ids)} tokens: give 1 to {n_ctx}, the context."
        )
    if unknown := [i for i in ids if not 0 <= i < n_vocab]:
        raise ValueError(f"id {unknown[0]} in the prompt: take 0 to {n_vocab - 1}.")
    tokens = next_tokens(model, list(ids), sampling, generator, use_cache)
    return takewhile(lambda token: token != stop, islice(tokens, n_new))


def stream_text(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    n_new: int,
    sampling: Sampling = GREEDY,
    *,
    generator: torch.Generator | None = None,
) -> Iterator[str]:
    """Yield the continuation in pieces of whole characters, up to end-of-text.

    The prompt starts a document, so end-of-text goes before it, as in training. The
    released code does that for an empty prompt only. Raises what `generate` raises.
    """
    end = tokenizer.end_of_text
    ids = [end, *tokenizer.encode(prompt)]
    return tokenizer.decode_stream(
        generate(model, ids, n_new, sampling, generator=generator, stop=end)
    )

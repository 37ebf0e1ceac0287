"""Writing text: the next token, chosen again and again, with the past kept. Chapter 7."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from math import gcd
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2.decoder import GPT
from gpt2.tokenizer import Tokenizer


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn: temperature, then top-k, then top-p; temperature 0 is greedy.

    Raises ValueError for a knob out of range. Source: `sample_sequence` in src/sample.py.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    keep_crossing: bool = (
        True  # False: the released top-p, without the token that crosses p
    )

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(
                f"temperature = {self.temperature}: take 0 (greedy) or a number above."
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

    Tokens that tie with the k-th stay too. Source: `top_k_logits` in src/sample.py.
    """
    smallest = logits.topk(min(k, logits.size(-1))).values[..., -1:]  # (..., 1)
    return logits.masked_fill(logits < smallest, float("-inf"))


def keep_top_p(logits: Tensor, p: float, keep_crossing: bool = True) -> Tensor:
    """Keep the likeliest tokens up to probability p, the rest is -inf: (..., V) -> (..., V).

    The usual nucleus keeps the token that crosses p, and is the smallest set with at least p
    (Holtzman et al. 2020, section 3.1). The released `top_p_logits` drops it, save the first one.
    """
    ranked = logits.sort(dim=-1, descending=True).values  # (..., V)
    mass = ranked.softmax(dim=-1).cumsum(dim=-1)  # (..., V), rises to 1
    if keep_crossing:
        n_kept = (mass < p).sum(dim=-1, keepdim=True) + 1  # (..., 1)
    else:
        n_kept = (mass <= p).sum(dim=-1, keepdim=True)
    smallest = ranked.gather(-1, n_kept.clamp(1, logits.size(-1)) - 1)  # (..., 1)
    return logits.masked_fill(logits < smallest, float("-inf"))


def reshape_logits(logits: Tensor, sampling: Sampling) -> Tensor:
    """Turn the knobs in the released order, temperature, top-k, top-p: (..., V) -> (..., V).

    Temperature 0 has no distribution: see `choose`.
    """
    logits = logits.float() / sampling.temperature
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = keep_top_p(logits, sampling.top_p, sampling.keep_crossing)
    return logits


def choose(
    logits: Tensor, sampling: Sampling, generator: torch.Generator | None = None
) -> Tensor:
    """Choose one token a row: (B, V) -> (B,) ids.

    Drawn on the CPU, so that one seed means one text on every device.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = reshape_logits(logits, sampling).softmax(dim=-1).cpu()  # (B, V)
    drawn = torch.multinomial(probabilities, 1, generator=generator)  # (B, 1)
    return drawn.squeeze(-1).to(logits.device)


class LayerCache:
    """The keys and values of one layer, in buffers of full length: an `attention.Past`.

    Only `length` positions of each (B, H, n_ctx, D) buffer are filled. Queries are not kept:
    no later token asks for them.
    """

    def __init__(self, batch: int, n_head: int, n_ctx: int, like: Tensor) -> None:
        head_dim = like.size(-1) // n_head
        self.k = like.new_empty(batch, n_head, n_ctx, head_dim)
        self.v = torch.empty_like(self.k)
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write (B, H, T, D) behind the past and return views of all: (B, H, length, D) each."""
        start, end = self.length, self.length + k.size(2)
        self.k[:, :, start:end] = k
        self.v[:, :, start:end] = v
        self.length = end
        return self.k[:, :, :end], self.v[:, :, :end]


def new_cache(model: GPT, batch: int = 1) -> list[LayerCache]:
    """Make an empty cache for each layer, on the model's device and in its precision."""
    config, like = model.config, model.wte.weight
    return [LayerCache(batch, config.n_head, config.n_ctx, like) for _ in model.h]


def next_logits(
    model: GPT, idx: Tensor, cache: list[LayerCache] | None = None
) -> Tensor:
    """Return the logits that follow the last token alone: (B, T) -> (B, n_vocab)."""
    return F.linear(model.hidden(idx, cache)[:, -1], model.wte.weight)


class OneRowLinear(nn.Linear):
    """An `nn.Linear` that is faster on a single row, on a CPU: (..., C) -> (..., O).

    With one row, all the time goes into reading the weights, and a batch of blocks of them takes
    a kernel that reads faster than the one for a single product.
    """

    def forward(self, x: Tensor) -> Tensor:
        n_out, n_in = self.weight.shape
        if x.numel() != n_in:
            return super().forward(x)
        n = gcd(n_out, 8)  # blocks
        column = x.reshape(1, 1, n_in).mT.expand(
            n, n_in, 1
        )  # .mT: its strides choose the kernel
        blocks = self.weight.view(n, n_out // n, n_in)
        return torch.baddbmm(self.bias.view(n, -1, 1), blocks, column).view(
            *x.shape[:-1], n_out
        )


def for_one_row(module: nn.Module) -> nn.Module:
    """Return a module that shares every weight, with each large `nn.Linear` a `OneRowLinear`."""
    twin = copy(module)
    if (
        type(twin) is nn.Linear and twin.weight.numel() > 2**17
    ):  # less is in the cache anyway
        twin.__class__ = OneRowLinear
    twin._modules = {
        name: child and for_one_row(child) for name, child in module._modules.items()
    }
    return twin


@torch.inference_mode()
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
    """Continue a prompt by up to n_new tokens, yielded one by one; `stop` itself is not yielded.

    A window that outgrows n_ctx keeps its newer half, which is read again from position 0.
    Raises ValueError for a prompt that is empty or longer than n_ctx.
    """
    n_ctx, device = model.config.n_ctx, model.wte.weight.device
    if not 1 <= len(ids) <= n_ctx:
        raise ValueError(
            f"a prompt of {len(ids)} tokens: give 1 to {n_ctx}, the context."
        )
    model = (
        cast(GPT, for_one_row(model)) if use_cache and device.type == "cpu" else model
    )
    window, cache = list(ids), new_cache(model) if use_cache else None
    for _ in range(n_new):
        if len(window) > n_ctx:
            window, cache = (
                window[-(n_ctx // 2 or 1) :],
                new_cache(model) if use_cache else None,
            )
        n_seen = cache[0].length if cache else 0
        idx = torch.tensor(
            [window[n_seen:]], device=device
        )  # (1, T); with a cache T is 1 later
        token = int(choose(next_logits(model, idx, cache), sampling, generator))
        if token == stop:
            return
        yield token
        window.append(token)


def stream_text(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    n_new: int,
    sampling: Sampling = GREEDY,
    *,
    generator: torch.Generator | None = None,
) -> Iterator[str]:
    """Yield the continuation in pieces of whole characters, up to the end-of-text token.

    The prompt is the start of a document, so end-of-text stands before it, as in training. The
    released code does that for an empty prompt only.
    """
    end = tokenizer.end_of_text
    ids = [end, *tokenizer.encode(prompt)]
    return tokenizer.decode_stream(
        generate(model, ids, n_new, sampling, generator=generator, stop=end)
    )

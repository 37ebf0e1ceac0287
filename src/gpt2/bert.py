"""BERT: GPT's blocks with bidirectional attention, trained to fill gaps. Chapter 9."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2.attention import Past
from gpt2.data import IGNORE, Batch, Batches, pad_rows
from gpt2.decoder import GPT, MLP, Block, GPTConfig, init_weights, positions


class FeedForward(MLP):
    """An MLP with a given activation: (B, T, C) -> (B, T, C)."""

    def __init__(self, n_embd: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__(n_embd)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.c_fc(x))  # (B, T, 4 * C)
        return self.c_proj(x)


class PostNormBlock(Block):
    """Add, then normalize the sum: (B, T, C) -> (B, T, C).

    The order of the original Transformer and of BERT. No un-normalized residual stream
    remains. Source: Vaswani et al. 2017, section 3.1; BERT's modeling.py.
    """

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        activation: Callable[[Tensor], Tensor],
        eps: float,
    ) -> None:
        super().__init__(n_embd, n_head)
        self.ln_1 = nn.LayerNorm(n_embd, eps=eps)
        self.ln_2 = nn.LayerNorm(n_embd, eps=eps)
        self.mlp = FeedForward(n_embd, activation)

    def forward(
        self, x: Tensor, past: Past | None = None, visible: Tensor | None = None
    ) -> Tensor:
        x = self.ln_1(x + self.attn(x, past, visible))
        x = self.ln_2(x + self.mlp(x))
        return x


@dataclass(frozen=True)
class BERTConfig:
    """The hyperparameters of a BERT, by GPT-2's names; the defaults are BERT-base's."""

    n_vocab: int = 30522
    n_ctx: int = 512
    n_segment: int = 2
    n_embd: int = 768
    n_head: int = 12
    n_layer: int = 12
    eps: float = 1e-12


def both_sides(idx: Tensor, pad: int) -> Tensor:
    """Let each query see every token except padding: (B, T) -> (B, 1, 1, T), bool."""
    return (idx != pad)[:, None, None, :]


class MaskedHead(nn.Module):
    """Predict the token at each position: (B, T, C), wte (V, C) -> logits (B, T, V).

    Source: `get_masked_lm_output` in the released run_pretraining.py of BERT.
    """

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, config.n_embd)
        self.ln = nn.LayerNorm(config.n_embd, eps=config.eps)
        self.bias = nn.Parameter(torch.zeros(config.n_vocab))

    def forward(self, x: Tensor, wte: Tensor) -> Tensor:
        return F.linear(self.ln(F.gelu(self.c_fc(x))), wte, self.bias)


class BERT(nn.Module):
    """BERT: ids and segments (B, T) -> logits for each position (B, T, n_vocab).

    `visible` marks the tokens that are seen, see `both_sides`. Dropout is omitted.
    Raises ValueError beyond n_ctx. Source: `BertModel` in the released modeling.py.
    """

    def __init__(self, config: BERTConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.n_vocab, config.n_embd)
        self.wpe = nn.Embedding(config.n_ctx, config.n_embd)
        self.wse = nn.Embedding(config.n_segment, config.n_embd)
        self.ln_e = nn.LayerNorm(config.n_embd, eps=config.eps)
        self.h = nn.ModuleList(
            PostNormBlock(config.n_embd, config.n_head, F.gelu, config.eps)
            for _ in range(config.n_layer)
        )
        self.head = MaskedHead(config)
        self.apply(init_weights)

    def forward(self, idx: Tensor, segments: Tensor, visible: Tensor) -> Tensor:
        place = positions(0, idx.size(1), self.config.n_ctx, idx.device)  # (T,)
        x = self.ln_e(self.wte(idx) + self.wpe(place) + self.wse(segments))  # (B, T, C)
        for block in self.h:
            x = block(x, visible=visible)
        return self.head(x, self.wte.weight)  # (B, T, n_vocab)


class SpecialTokens(NamedTuple):
    """The ids that are not text; all ids below the smallest of them are text."""

    cls: int  # begins every input
    sep: int  # ends each segment
    pad: int
    mask: int


def join_segments(
    first: Sequence[int], second: Sequence[int], special: SpecialTokens
) -> tuple[list[int], list[int]]:
    """Return [CLS] first [SEP] second [SEP], and the segment of each token.

    Without second there is one segment. Source: Devlin et al. 2019, figure 2.
    """
    a = [special.cls, *first, special.sep]
    b = [*second, special.sep] if second else []
    return a + b, [0] * len(a) + [1] * len(b)


def mask_tokens(
    idx: Tensor, special: SpecialTokens, generator: torch.Generator, rate: float = 0.15
) -> Batch:
    """Choose tokens to predict; return the corrupted input and targets: (B, T) twice.

    Of the chosen tokens 80% become [MASK], 10% a random token, and 10% stay. At least
    one text token is chosen, a special token never; the target of the others is IGNORE.
    Source: Devlin et al. 2019, section 3.1, where masks are drawn once before training;
    here each call draws new ones.
    """
    text = idx < min(special)
    draw = torch.rand(idx.shape, generator=generator).masked_fill(~text, 1.0)
    chosen = text & ((draw < rate) | (draw == draw.min()))  # none: no loss, 0 / 0
    action = torch.rand(idx.shape, generator=generator)
    other = torch.randint(min(special), idx.shape, generator=generator)
    x = torch.where(chosen & (action < 0.8), special.mask, idx)
    x = torch.where(chosen & (action >= 0.9), other, x)
    return x, torch.where(chosen, idx, IGNORE)


class MaskedRows:
    """Batches of chapter 3 for a masked model: unshifted, padded, masked at each step.

    The mask depends only on (seed, step), so a run can resume.
    """

    def __init__(self, rows: Batches, special: SpecialTokens, seed: int = 0) -> None:
        self.rows, self.special, self.seed = rows, special, seed
        self.n_batches = rows.n_batches

    def batch(self, step: int) -> Batch:
        x, y = self.rows.batch(step)
        idx = torch.cat([x[:, :1], y], dim=1)  # (B, T + 1): unshifted
        idx = idx.masked_fill(idx == IGNORE, self.special.pad)
        (seed,) = np.random.SeedSequence((self.seed, step)).generate_state(1).tolist()
        return mask_tokens(idx, self.special, torch.Generator().manual_seed(seed))


class MaskedGPT(GPT):
    """GPT with BERT's attention mask, otherwise unchanged: (B, T) -> (B, T, n_vocab).

    The logits at a position predict the token at that position. There is no cache of
    the past: each new token changes every key.
    """

    def __init__(self, config: GPTConfig, pad: int) -> None:
        super().__init__(config)
        self.pad = pad

    def hidden(
        self,
        idx: Tensor,
        past: Sequence[Past] | None = None,
        visible: Tensor | None = None,
    ) -> Tensor:
        if past is not None:
            raise ValueError("a masked model keeps no past: give it the whole text.")
        if visible is None:
            visible = both_sides(idx, self.pad)
        return super().hidden(idx, None, visible)


@torch.no_grad()
def fill(model: GPT, idx: Tensor, mask: int) -> Tensor:
    """Return the logprobs at each row's first [MASK]: (B, T) -> (B, n_vocab).

    Raises ValueError for a row without [MASK].
    """
    idx = idx.to(model.wte.weight.device)
    gaps = idx == mask  # (B, T)
    if not gaps.any(dim=1).all():
        raise ValueError(f"a row has no gap to fill: none of its ids is mask = {mask}.")
    place = gaps.int().argmax(dim=1)  # (B,)
    return model(idx)[torch.arange(len(idx)), place].log_softmax(dim=-1)


@torch.no_grad()
def text_logprobs(
    model: GPT, texts: Sequence[Sequence[int]], end_of_text: int
) -> Tensor:
    """Return ln p of each text and its end under a causal model: (B,), nats."""
    device = model.wte.weight.device
    x, y = (part.to(device) for part in pad_rows(texts, end_of_text, 2**30))
    logprobs = model(x).log_softmax(dim=-1)  # (B, T, n_vocab)
    of_targets = logprobs.gather(-1, y.clamp(min=0)[..., None])[..., 0]  # (B, T)
    return torch.where(y == IGNORE, 0.0, of_targets).sum(dim=1)


@torch.no_grad()
def pseudo_logprobs(model: GPT, row: Tensor, special: SpecialTokens) -> Tensor:
    """Return ln p of each text token given all the others: (T,) -> (n_text,), nats."""
    place = (row < min(special)).nonzero()[:, 0]  # (n_text,)
    masked = row.repeat(len(place), 1)  # (n_text, T): one forward pass for each token
    each = torch.arange(len(place), device=row.device)
    masked[each, place] = special.mask
    return fill(model, masked, special.mask)[each, row[place]]


class Classifier(nn.Module):
    """Classify a text from one vector of its model: (B, T) -> logits (B, n_class).

    A masked model is read at [CLS], its first token; a causal one at its last, the only
    one that has seen the whole text. Source: Devlin et al. 2019, section 4; Radford et
    al. 2018, section 3.2.
    """

    def __init__(self, body: GPT, n_class: int, pad: int) -> None:
        super().__init__()
        self.body, self.pad = body, pad
        self.head = nn.Linear(body.config.n_embd, n_class)

    def forward(self, idx: Tensor) -> Tensor:
        x = self.body.hidden(idx)  # (B, T, C)
        last = (idx != self.pad).sum(dim=1) - 1  # (B,)
        place = torch.zeros_like(last) if isinstance(self.body, MaskedGPT) else last
        return self.head(x[torch.arange(len(idx)), place])  # (B, n_class)

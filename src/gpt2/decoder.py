"""The decoder stack: GPT-2 in its four sizes. Chapter 5."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2.attention import CausalSelfAttention, Past


@dataclass(frozen=True)
class GPTConfig:
    """The five numbers that shape a GPT-2.

    Named as in `default_hparams` of src/model.py.
    """

    n_vocab: int = 50257
    n_ctx: int = 1024
    n_embd: int = 768
    n_head: int = 12
    n_layer: int = 12


SIZES = {
    "124M": GPTConfig(),
    "355M": GPTConfig(n_embd=1024, n_head=16, n_layer=24),
    "774M": GPTConfig(n_embd=1280, n_head=20, n_layer=36),
    "1558M": GPTConfig(n_embd=1600, n_head=25, n_layer=48),
}


class MLP(nn.Module):
    """Widen fourfold, apply tanh-GELU, project back: (B, T, C) -> (B, T, C).

    Each position by itself. Source: `mlp` and `gelu` in src/model.py.
    """

    def __init__(self, n_embd: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(n_embd, 4 * n_embd)
        self.c_proj = nn.Linear(4 * n_embd, n_embd)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.c_fc(x), approximate="tanh")  # (B, T, 4 * C)
        return self.c_proj(x)


class Block(nn.Module):
    """Add what attention and then the MLP find to the stream: (B, T, C) -> (B, T, C).

    Pre-norm: both read x normalized, and add to x as it is. Source: `block` in
    src/model.py.
    """

    def __init__(self, n_embd: int, n_head: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(n_embd, eps=1e-5)
        self.attn = CausalSelfAttention(n_embd, n_head)
        self.ln_2 = nn.LayerNorm(n_embd, eps=1e-5)
        self.mlp = MLP(n_embd)

    def forward(
        self, x: Tensor, past: Past | None = None, visible: Tensor | None = None
    ) -> Tensor:
        x = x + self.attn(self.ln_1(x), past, visible)
        x = x + self.mlp(self.ln_2(x))
        return x


def positions(start: int, end: int, n_ctx: int, device: torch.device) -> Tensor:
    """Number the positions start to end - 1: (end - start,).

    Raises ValueError if these are more tokens than n_ctx.
    """
    if end > n_ctx:
        raise ValueError(
            f"{end} tokens are more than the context of {n_ctx}: shorten the input."
        )
    return torch.arange(start, end, device=device)


class GPT(nn.Module):
    """GPT-2: ids (B, T) -> logits (B, T, n_vocab). Source: `model` in src/model.py."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.n_vocab, config.n_embd)
        self.wpe = nn.Embedding(config.n_ctx, config.n_embd)
        blocks = (Block(config.n_embd, config.n_head) for _ in range(config.n_layer))
        self.h = nn.ModuleList(blocks)
        self.ln_f = nn.LayerNorm(config.n_embd, eps=1e-5)
        self.apply(init_weights)
        nn.init.normal_(self.wpe.weight, std=0.01)

    def hidden(
        self,
        idx: Tensor,
        past: Sequence[Past] | None = None,
        visible: Tensor | None = None,
    ) -> Tensor:
        """Return the top of the stream, normalized: (B, T) -> (B, T, C), T <= n_ctx."""
        start = past[0].length if past else 0
        place = positions(start, start + idx.size(1), self.config.n_ctx, idx.device)
        x = self.wte(idx) + self.wpe(place)  # (B, T, C), from (B, T) and (T,)
        for layer, block in enumerate(self.h):
            x = block(x, past[layer] if past else None, visible)
        return self.ln_f(x)

    def forward(self, idx: Tensor, past: Sequence[Past] | None = None) -> Tensor:
        return F.linear(self.hidden(idx, past), self.wte.weight)  # (B, T, n_vocab)


def init_weights(module: nn.Module) -> None:
    """Draw weights from N(0, 0.02^2) and zero the biases, as src/model.py does."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


@torch.no_grad()
def scale_residual_init(model: GPT) -> None:
    """Scale the weights that write into the residual stream by 1/sqrt(N), in place.

    N counts the residual layers, two per block. Source: Radford et al. 2019, section
    2.3; the released code does not do it.
    """
    for name, weight in model.named_parameters():
        if name.endswith("c_proj.weight"):
            weight.mul_(1 / math.sqrt(2 * model.config.n_layer))


def count_parameters(model: nn.Module) -> int:
    """Count trainable numbers; the tied head is counted once."""
    return sum(p.numel() for p in model.parameters())

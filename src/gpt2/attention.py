"""Masked self-attention: each position takes a weighted mean of its past. Chapter 4."""

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Past(Protocol):
    """The keys and values of earlier tokens in one layer; chapter 7 keeps them."""

    length: int

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add the new keys and values and return all: (B, H, length, D) each."""
        ...


def causal_mask(n_dst: int, n_src: int, device: torch.device | None = None) -> Tensor:
    """Say which of n_src keys the last n_dst positions may see: (n_dst, n_src), bool.

    Query t sees key s if s <= t. Raises ValueError for more queries than keys: each
    query has a key of its own. Source: `attention_mask` in the released src/model.py.
    """
    if n_dst > n_src:
        raise ValueError(
            f"{n_dst} queries and {n_src} keys: pass at least as many keys as queries."
        )
    t = torch.arange(n_src - n_dst, n_src, device=device)[:, None]  # the queries
    s = torch.arange(n_src, device=device)  # the keys
    return s <= t


def attention_weights(q: Tensor, k: Tensor) -> Tensor:
    """Weigh each key for each query: (..., T, D), (..., S, D) -> (..., T, S), T <= S.

    Rows sum to 1. The mask comes before the softmax, so a hidden key gets exactly 0.
    Raises what `causal_mask` raises.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))  # (..., T, S)
    visible = causal_mask(q.size(-2), k.size(-2), q.device)
    return scores.masked_fill(~visible, float("-inf")).softmax(dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor | None = None) -> Tensor:
    """Average values in a fused kernel: (B, H, T, D), (B, H, S, D) -> (B, H, T, D).

    Equal to `attention_weights(q, k) @ v`. Where PyTorch has a fused kernel, the (T, S)
    weights are never stored. Causal, and raises what `causal_mask` raises, unless
    `visible` says which keys each query sees: bool, (B, 1, T or 1, S).
    """
    n_dst, n_src = q.size(-2), k.size(-2)
    causal = visible is None and n_dst == n_src
    if visible is None and (1 < n_dst < n_src or n_dst > n_src):
        visible = causal_mask(n_dst, n_src, q.device)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=causal)


def split_heads(x: Tensor, n_head: int) -> Tensor:
    """Cut the width into heads: (B, T, C) -> (B, n_head, T, C / n_head)."""
    B, T, C = x.shape
    return x.view(B, T, n_head, C // n_head).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """Concatenate the heads again: (B, H, T, D) -> (B, T, H * D)."""
    B, H, T, D = x.shape
    return x.transpose(1, 2).reshape(B, T, H * D)


class CausalSelfAttention(nn.Module):
    """Multi-head causal self-attention: (B, T, C) -> (B, T, C).

    One fused projection makes queries, keys and values, in this order. Raises
    ValueError if n_head does not divide n_embd. Source: `attn` in src/model.py.
    """

    def __init__(self, n_embd: int, n_head: int) -> None:
        super().__init__()
        if n_embd % n_head:
            raise ValueError(
                f"n_embd = {n_embd} is not a multiple of n_head = {n_head}: change one."
            )
        self.n_head = n_head
        self.c_attn = nn.Linear(n_embd, 3 * n_embd)
        self.c_proj = nn.Linear(n_embd, n_embd)

    def forward(
        self, x: Tensor, past: Past | None = None, visible: Tensor | None = None
    ) -> Tensor:
        q, k, v = self.c_attn(x).chunk(3, dim=-1)  # (B, T, C) each
        q, k, v = (split_heads(part, self.n_head) for part in (q, k, v))  # (B, H, T, D)
        if past is not None:
            k, v = past.append(k, v)  # (B, H, S, D) each, S >= T
        return self.c_proj(merge_heads(attend(q, k, v, visible)))  # (B, T, C)

"""The Transformer of 2017: an encoder, and a decoder that looks at it. Chapter 10."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2.attention import (
    CausalSelfAttention,
    attend,
    causal_mask,
    merge_heads,
    split_heads,
)
from gpt2.bert import FeedForward, PostNormBlock, both_sides
from gpt2.data import Batch, epoch_order
from gpt2.tokenizer import Tokenizer

Pair = tuple[list[int], list[int]]  # a sentence and its translation, as ids


@dataclass(frozen=True)
class TransformerConfig:
    """The shape of a Transformer; the sizes are those of the base model of 2017.

    Raises ValueError if pad is end, which would be masked and never learned.
    """

    n_vocab: int  # of both languages together
    end: int  # the id that closes a sentence, and opens the translation
    pad: int  # the id that fills short rows; masked everywhere, so of no other use
    n_embd: int = 512
    n_head: int = 8
    n_layer: int = 6  # of the encoder, and again of the decoder

    def __post_init__(self) -> None:
        if self.pad == self.end:
            raise ValueError(f"pad = end = {self.pad}: padding needs its own id.")


def sinusoids(n_ctx: int, n_embd: int, device: torch.device | None = None) -> Tensor:
    """Write each position as sines and cosines of falling frequency: (n_ctx, n_embd).

    Source: Vaswani et al. 2017, section 3.5. Raises ValueError for an odd n_embd.
    """
    if n_embd % 2:
        raise ValueError(f"n_embd = {n_embd} is odd: sines and cosines come in pairs.")
    place = torch.arange(n_ctx, device=device)[:, None]  # (T, 1)
    power = torch.arange(0, n_embd, 2, device=device) / n_embd  # (C / 2,)
    angle = place / 10000**power  # (T, C / 2), radians
    pairs = torch.stack([angle.sin(), angle.cos()], dim=-1)  # (T, C / 2, 2)
    return pairs.flatten(1)  # (T, C): sin, cos, sin ...


class CrossAttention(nn.Module):
    """Queries from x, keys and values from memory: (B, T, C), (B, S, C) -> (B, T, C).

    Its parameters are those of `CausalSelfAttention`, by name and by shape.
    """

    def __init__(self, n_embd: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.c_attn = nn.Linear(n_embd, 3 * n_embd)  # queries, keys, values, in order
        self.c_proj = nn.Linear(n_embd, n_embd)

    def heads(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q (B, H, T, D) of x, and k and v (B, H, S, D) of memory."""
        C, H = x.size(-1), self.n_head
        weight, bias = self.c_attn.weight, self.c_attn.bias
        q = F.linear(x, weight[:C], bias[:C])  # (B, T, C)
        k, v = F.linear(memory, weight[C:], bias[C:]).chunk(2, dim=-1)  # (B, S, C) each
        return split_heads(q, H), split_heads(k, H), split_heads(v, H)

    def forward(self, x: Tensor, memory: Tensor, visible: Tensor) -> Tensor:
        q, k, v = self.heads(x, memory)
        return self.c_proj(merge_heads(attend(q, k, v, visible)))  # (B, T, C)


class DecoderBlock(nn.Module):
    """Attend to the translation so far, then to the source: (B, T, C) -> (B, T, C).

    Post-norm: the sum is normalized, not the input. Source: Vaswani et al. 2017,
    section 3.1.
    """

    def __init__(self, n_embd: int, n_head: int) -> None:
        super().__init__()
        self.attn = CausalSelfAttention(n_embd, n_head)
        self.ln_1 = nn.LayerNorm(n_embd, eps=1e-5)
        self.cross = CrossAttention(n_embd, n_head)
        self.ln_2 = nn.LayerNorm(n_embd, eps=1e-5)
        self.mlp = FeedForward(n_embd, F.relu)
        self.ln_3 = nn.LayerNorm(n_embd, eps=1e-5)

    def forward(self, x: Tensor, memory: Tensor, visible: Tensor) -> Tensor:
        x = self.ln_1(x + self.attn(x))  # causal
        x = self.ln_2(x + self.cross(x, memory, visible))
        x = self.ln_3(x + self.mlp(x))
        return x


def embed(idx: Tensor, wte: nn.Embedding) -> Tensor:
    """Scale the embeddings, and add the positions: (B, T) -> (B, T, C).

    Scaled by sqrt(C), they are about as large as the positions. Source: Vaswani et
    al. 2017, section 3.4.
    """
    C = wte.embedding_dim
    return wte(idx) * math.sqrt(C) + sinusoids(idx.size(1), C, idx.device)


def init_glorot(module: nn.Module) -> None:
    """Draw weights by Glorot's rule, from fan-in and fan-out; zero the biases.

    The paper names no initialization. Source: Glorot and Bengio 2010, section 4.2.1.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)  # * sqrt(C): 1


class Transformer(nn.Module):
    """Source ids (B, S), target ids (B, T) -> logits of what follows (B, T, n_vocab).

    One table embeds both languages and is the head. No dropout. Source: Vaswani et
    al. 2017.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        C, H, layers = config.n_embd, config.n_head, range(config.n_layer)
        self.config = config
        self.wte = nn.Embedding(config.n_vocab, C)
        self.encoder = nn.ModuleList(PostNormBlock(C, H, F.relu, 1e-5) for _ in layers)
        self.decoder = nn.ModuleList(DecoderBlock(C, H) for _ in layers)
        self.apply(init_glorot)

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Read a source: (B, S) -> memory (B, S, C), what is visible (B, 1, 1, S)."""
        x, visible = embed(source, self.wte), both_sides(source, self.config.pad)
        for block in self.encoder:
            x = block(x, visible=visible)
        return x, visible

    def decode(self, target: Tensor, memory: Tensor, visible: Tensor) -> Tensor:
        """Score what follows each target token: (B, T) -> (B, T, n_vocab)."""
        x = embed(target, self.wte)  # padding is at the end: no token sees that far
        for block in self.decoder:
            x = block(x, memory, visible)
        return F.linear(x, self.wte.weight)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.decode(target, *self.encode(source))


class DecoderOnly(Transformer):
    """The same parts without encoder and cross-attention; called as a Transformer is.

    Source and target are one text in one stack of n_layer blocks. `prefix` lets the
    source see itself in both directions; otherwise all is causal. Positions restart at
    the target, as in a Transformer. Source: Liu et al. 2018, section 4.2.3; Dong et al.
    2019, for the prefix.
    """

    def __init__(self, config: TransformerConfig, prefix: bool = False) -> None:
        super().__init__(replace(config, n_layer=0))  # the table, and empty stacks
        C, H, layers = config.n_embd, config.n_head, range(config.n_layer)
        self.config, self.prefix = config, prefix
        self.decoder = nn.ModuleList(PostNormBlock(C, H, F.relu, 1e-5) for _ in layers)
        self.decoder.apply(init_glorot)

    def decode(self, target: Tensor, memory: Tensor, visible: Tensor) -> Tensor:
        """Read on from the embedded source: (B, T) -> (B, T, n_vocab)."""
        S, T = memory.size(1), target.size(1)
        mask = causal_mask(S + T, S + T, target.device)
        mask[:S, :S] |= self.prefix
        real = F.pad(visible, (0, T), value=True)  # (B, 1, 1, S + T)
        x = torch.cat([memory, embed(target, self.wte)], dim=1)  # (B, S + T, C)
        for block in self.decoder:
            x = block(x, visible=mask & real)
        return F.linear(x[:, S:], self.wte.weight)


def smoothed_loss(
    logits: Tensor, targets: Tensor, pad: int, epsilon: float = 0.1
) -> Tensor:
    """Return the mean cross-entropy, targets smoothed: (B, T, V), (B, T) -> (), nats.

    The target is 1 - epsilon on the true token plus epsilon / V on every token.
    Padding is left out. Source: Szegedy et al. 2016, section 7.
    """
    log_p = logits.log_softmax(dim=-1)  # (B, T, V)
    true = log_p.gather(-1, targets[..., None]).squeeze(-1)  # (B, T)
    loss = -(1 - epsilon) * true - epsilon * log_p.mean(dim=-1)  # (B, T)
    return loss[targets != pad].mean()


def noam_rate(step: int, n_embd: int, n_warmup: int = 4000) -> float:
    """Rise linearly for n_warmup steps, then fall as 1 / sqrt(step), from step 0 on.

    Source: Vaswani et al. 2017, formula 3; named after one author, Noam Shazeer.
    """
    n = step + 1
    return float(n_embd**-0.5 * min(n**-0.5, n * n_warmup**-1.5))


def pad_pairs(pairs: Sequence[Pair], end: int, pad: int) -> Batch:
    """Lay pairs out in rows: sources and `end` (B, S), targets between two (B, T)."""
    sources = [torch.tensor([*source, end]) for source, _ in pairs]
    targets = [torch.tensor([end, *target, end]) for _, target in pairs]
    source = nn.utils.rnn.pad_sequence(sources, batch_first=True, padding_value=pad)
    target = nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=pad)
    return source, target


class SentencePairs:
    """Batches of pairs, sources of similar length together: step -> (B, S), (B, T).

    A pure function of the step; each pair comes once per epoch. Raises ValueError
    without pairs.
    """

    def __init__(
        self, pairs: Sequence[Pair], end: int, pad: int, batch_size: int, seed: int = 0
    ) -> None:
        if not pairs:
            raise ValueError("there are no pairs: there is nothing to make batches of.")
        self.pairs, self.end, self.pad, self.seed = pairs, end, pad, seed
        self.batch_size, self.n_batches = batch_size, math.ceil(len(pairs) / batch_size)
        self.groups = lru_cache(maxsize=1)(self.group)  # one epoch in memory

    def group(self, epoch: int) -> list[list[Pair]]:
        """Cut an epoch's pairs into batches of similar length, in a seeded order."""
        order = epoch_order(len(self.pairs), self.seed, epoch)
        shuffled = (self.pairs[i] for i in order)
        by_length = sorted(shuffled, key=lambda pair: len(pair[0]))
        starts = epoch_order(self.n_batches, self.seed, epoch) * self.batch_size
        return [by_length[i : i + self.batch_size] for i in starts]

    def batch(self, step: int) -> Batch:
        epoch, place = divmod(step, self.n_batches)
        return pad_pairs(self.groups(epoch)[place], self.end, self.pad)


def new_optimizer(model: nn.Module) -> torch.optim.Adam:
    """Make Adam as in Vaswani et al. 2017, section 5.3; each step sets its rate."""
    p, betas = model.parameters(), (0.9, 0.98)
    return torch.optim.Adam(p, lr=0.0, betas=betas, eps=1e-9, fused=True)


def train_step(
    model: Transformer,
    optimizer: torch.optim.Adam,
    batch: Batch,
    rate: float,
    epsilon: float = 0.1,
) -> Tensor:
    """Take a step on all target tokens; return the smoothed loss before it."""
    optimizer.param_groups[0]["lr"] = rate
    source, target = (part.to(model.wte.weight.device) for part in batch)
    logits = model(source, target[:, :-1])  # (B, T - 1, V)
    loss = smoothed_loss(logits, target[:, 1:], model.config.pad, epsilon)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def load_mean(model: nn.Module, states: Sequence[dict[str, Tensor]]) -> None:
    """Give a model the mean of several states of itself, in place.

    Source: Vaswani et al. 2017, section 6.1, where it is the last 5 checkpoints.
    """
    for name, p in model.named_parameters():
        p.copy_(torch.stack([state[name] for state in states]).mean(dim=0))


def train_translator(
    model: Transformer,
    data: SentencePairs,
    n_steps: int = 1000,
    n_warmup: int = 400,
    on_step: Callable[[int, Tensor], None] = lambda step, loss: None,
) -> None:
    """Train by the recipe of 2017, in place; end on the mean of five late states.

    These are a twentieth of the steps apart. `on_step` gets the number of steps taken
    and the loss before the last of them.
    """
    optimizer, states, gap = new_optimizer(model), [], max(1, n_steps // 20)
    for step in range(1, n_steps + 1):
        rate = noam_rate(step - 1, model.config.n_embd, n_warmup)
        loss = train_step(model, optimizer, data.batch(step - 1), rate)
        if (n_steps - step) % gap == 0 and n_steps - step < 5 * gap:
            states.append({name: p.clone() for name, p in model.state_dict().items()})
        on_step(step, loss)
    load_mean(model, states)


@torch.inference_mode()
def greedy_search(model: Transformer, source: Tensor, n_new: int) -> Tensor:
    """Translate a batch by the likeliest tokens: (B, S) -> (B, T <= n_new), padded."""
    memory, visible = model.encode(source)
    end, pad = model.config.end, model.config.pad
    target = source.new_full((len(source), 1), end)  # (B, 1)
    done = torch.zeros_like(target[:, 0], dtype=torch.bool)  # (B,)
    for _ in range(n_new):
        token = model.decode(target, memory, visible)[:, -1].argmax(dim=-1)  # (B,)
        token = token.masked_fill(done, pad)
        target = torch.cat([target, token[:, None]], dim=1)  # (B, T + 1)
        done |= token == end
        if done.all():
            break
    return target[:, 1:]


def length_penalty(n_tokens: int, alpha: float) -> float:
    """Return what a log-probability of n_tokens is divided by; 1 for alpha = 0.

    Source: Wu et al. 2016, formula 14.
    """
    return float(((5 + n_tokens) / 6) ** alpha)


@torch.inference_mode()
def beam_search(
    model: Transformer, source: Tensor, n_new: int, width: int = 4, alpha: float = 0.6
) -> list[tuple[float, list[int]]]:
    """Translate one sentence (1, S); return up to `width` (score, ids), the best first.

    A hypothesis that ends leaves the beam and is kept (Sutskever et al. 2014, section
    3.2). Its score is log p over `length_penalty`; `end` counts as a token. What has
    not ended after n_new tokens is no translation, and ranks behind all that has.
    """
    memory, visible = model.encode(source)
    live = source.new_full((1, 1), model.config.end)  # (n, T): hypotheses that go on
    log_p = torch.zeros(1, device=source.device)  # (n,)
    found: list[tuple[float, list[int]]] = []
    for length in range(1, n_new + 1):
        seen = memory.expand(len(live), -1, -1)  # (n, S, C)
        logits = model.decode(live, seen, visible)[:, -1]  # (n, V)
        total = log_p[:, None] + logits.log_softmax(dim=-1)  # (n, V)
        log_p, place = total.flatten().topk(min(width - len(found), total.numel()))
        parent, token = place // total.size(1), place % total.size(1)
        rows = torch.cat([live[parent], token[:, None]], dim=1)  # (n, T + 1)
        ended = (token == model.config.end) | (length == n_new)
        scores = (log_p[ended] / length_penalty(length, alpha)).tolist()
        found += zip(scores, rows[ended, 1:].tolist(), strict=True)
        live, log_p = rows[~ended], log_p[~ended]
        if not len(live):
            break
    return sorted(
        found, key=lambda h: (h[1][-1] == model.config.end, h[0]), reverse=True
    )


def encode_source(
    model: Transformer, tokenizer: Tokenizer, texts: Sequence[str]
) -> Tensor:
    """Lay sentences out as a batch of sources, on the model's device: (B, S).

    Raises TypeError for a single text.
    """
    if isinstance(texts, str):
        raise TypeError("texts is a list of texts: write [text] for a single one.")
    pairs: list[Pair] = [(tokenizer.encode(text), []) for text in texts]
    source, _ = pad_pairs(pairs, model.config.end, model.config.pad)
    return source.to(model.wte.weight.device)


def read_target(model: Transformer, tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Return the text before `end`, without padding, which untrained models write."""
    text = takewhile(lambda i: i != model.config.end, ids)
    return tokenizer.decode(i for i in text if i != model.config.pad)


def translate(
    model: Transformer, tokenizer: Tokenizer, texts: Sequence[str], n_new: int = 40
) -> list[str]:
    """Translate sentences in one batch, greedily."""
    rows = greedy_search(model, encode_source(model, tokenizer, texts), n_new)
    return [read_target(model, tokenizer, ids) for ids in rows.tolist()]

"""The usual mistakes of chapter 10, for `course check 10 --package`; see 04_attention.py."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from gpt2.transformer import (
    CrossAttention,
    DecoderBlock,
    Transformer,
    TransformerConfig,
    beam_search,
    embed,
    greedy_search,
    pad_pairs,
    sinusoids,
)

TINY = TransformerConfig(n_vocab=6, end=0, pad=5, n_embd=4, n_head=2, n_layer=1)
SOURCE = torch.tensor([[1, 2, 0, 5], [3, 1, 4, 0]])
LOGITS = torch.tensor([[[2.0, 0, 1], [0, 1, 0], [1, 3, 0]]])


def filled(module):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return module


def run(module):
    generator = torch.Generator().manual_seed(1)
    x, memory = (torch.randn(1, n, 4, generator=generator) for n in (2, 3))
    with torch.no_grad():
        return filled(module)(x, memory, torch.tensor([[[[True, True, False]]]]))


def logits(model_class):
    with torch.no_grad():
        return filled(model_class(TINY))(SOURCE, torch.tensor([[0, 1, 2], [0, 3, 5]]))


def embedded(embed_function):
    with torch.no_grad():
        return embed_function(torch.tensor([[0, 1]]), filled(nn.Embedding(2, 4)))


def spread(function, module):
    module.apply(function)
    return {name: round(p.std().item(), 2) for name, p in module.named_parameters()}


def best(search, **settings):
    found = search(filled(Transformer(TINY)), SOURCE[1:], 4, **settings)
    return [(round(score, 3), ids) for score, ids in found]


EXAMPLES = {
    "sinusoids": ["f(2, 4)", "f(5, 6)[3]"],
    "CrossAttention": ["run(f(4, 2))"],
    "DecoderBlock": ["run(f(4, 2))"],
    "embed": ["embedded(f)"],
    "init_glorot": ["spread(f, nn.Linear(200, 400))", "spread(f, nn.Embedding(300, 100))"],
    "Transformer": ["logits(f)"],
    "smoothed_loss": ["round(f(LOGITS, torch.tensor([[0, 1, 2]]), 9).item(), 4)",
                      "round(f(LOGITS, torch.tensor([[0, 1, 2]]), 2).item(), 4)",
                      "round(f(LOGITS, torch.tensor([[0, 1, 2]]), 9, 0.0).item(), 4)"],
    "noam_rate": ["[round(f(step, 64, 10), 5) for step in (0, 1, 8, 9, 10, 99)]"],
    "pad_pairs": ["[t.tolist() for t in f([([1], [2, 3]), ([4, 4], [1])], 0, 5)]"],
    "greedy_search": ["f(filled(Transformer(TINY)), SOURCE, 4).tolist()"],
    "length_penalty": ["round(f(7, 0.6), 4)", "f(7, 0.0)", "round(f(1, 1.0), 4)"],
    "beam_search": ["best(f)", "best(f, alpha=0.0)", "best(f, width=1)"],
}  # fmt: skip


def angles(n_ctx, n_embd):
    power = torch.arange(0, n_embd, 2) / n_embd
    return torch.arange(n_ctx)[:, None] / 10000**power


def sinusoids__halves(n_ctx, n_embd, device=None):
    """All sines come first, then all cosines. They alternate: sin, cos, sin ..."""
    return torch.cat([angles(n_ctx, n_embd).sin(), angles(n_ctx, n_embd).cos()], dim=-1)


def sinusoids__cosines_first(n_ctx, n_embd, device=None):
    """A cosine comes first in each pair; the sine does."""
    return torch.stack([angles(n_ctx, n_embd).cos(), angles(n_ctx, n_embd).sin()], -1).flatten(1)


def sinusoids__positions_from_1(n_ctx, n_embd, device=None):
    """Positions are counted from 1; count from 0."""
    return sinusoids(n_ctx + 1, n_embd)[1:]


class CrossAttention__keys_of_x(CrossAttention):
    """Keys and values are made from x; the memory, the source, is not used."""

    def forward(self, x, memory, visible):
        q, k, v = self.heads(x, x)
        o = F.scaled_dot_product_attention(q, k, v)
        return self.c_proj(o.transpose(1, 2).flatten(2))


class CrossAttention__queries_of_the_memory(CrossAttention):
    """Queries are made from the memory: x asks, the memory answers."""

    def forward(self, x, memory, visible):
        return super().forward(memory, x, None)


class CrossAttention__sees_padding(CrossAttention):
    """`visible` is not passed on, so padding of the source is seen."""

    def forward(self, x, memory, visible):
        return super().forward(x, memory, torch.ones_like(visible))


class DecoderBlock__no_cross_attention(DecoderBlock):
    """The source is not read: cross-attention comes between self-attention and MLP."""

    def forward(self, x, memory, visible):
        x = self.ln_1(x + self.attn(x))
        return self.ln_3(x + self.mlp(x))


class DecoderBlock__source_first(DecoderBlock):
    """Cross-attention comes first; self-attention should, then cross-attention."""

    def forward(self, x, memory, visible):
        x = self.ln_2(x + self.cross(x, memory, visible))
        x = self.ln_1(x + self.attn(x))
        return self.ln_3(x + self.mlp(x))


class DecoderBlock__pre_norm(DecoderBlock):
    """This normalizes what a layer reads. Post-norm: the sum is normalized."""

    def forward(self, x, memory, visible):
        x = x + self.attn(self.ln_1(x))
        x = x + self.cross(self.ln_2(x), memory, visible)
        return x + self.mlp(self.ln_3(x))


class DecoderBlock__sees_the_future(DecoderBlock):
    """The translation is seen on both sides: its self-attention must be causal."""

    def forward(self, x, memory, visible):
        x = self.ln_1(x + self.attn(x, None, torch.ones(1, 1, 1, x.size(1), dtype=torch.bool)))
        x = self.ln_2(x + self.cross(x, memory, visible))
        return self.ln_3(x + self.mlp(x))


def embed__unscaled(idx, wte):
    """Embeddings are not scaled: multiply by the root of their width."""
    return wte(idx) + sinusoids(idx.size(1), wte.embedding_dim)


def embed__positions_scaled_too(idx, wte):
    """Positions are scaled too: scale only the embeddings."""
    return embed__unscaled(idx, wte) * math.sqrt(wte.embedding_dim)


def embed__no_positions(idx, wte):
    """Positions are not added to the vectors of the tokens."""
    return wte(idx) * math.sqrt(wte.embedding_dim)


def init_glorot__gpt2(module):
    """This is GPT-2's initialization; here weights keep the variance: xavier_uniform_."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


def init_glorot__embeddings_left(module):
    """Embeddings are left at N(0, 1). `embed` scales them by the root of C, so begin with 1 over
    it."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


class Transformer__sees_padding(Transformer):
    """Padding of the source is visible: both_sides(source, pad)."""

    def encode(self, source):
        visible = torch.ones_like(source, dtype=torch.bool)[:, None, None]
        x = embed(source, self.wte)
        for block in self.encoder:
            x = block(x, visible=visible)
        return x, visible


class Transformer__causal_encoder(Transformer):
    """The encoder is causal: it reads the whole source, both sides of each word."""

    def encode(self, source):
        x, visible = embed(source, self.wte), (source != 5)[:, None, None]
        for block in self.encoder:
            x = block(x)
        return x, visible


class Transformer__does_not_read(Transformer):
    """The decoder looks at embeddings of the source, which no encoder block has read."""

    def encode(self, source):
        return embed(source, self.wte), (source != 5)[:, None, None]


def smooth(logits, targets, pad, epsilon, mean=None, all_count=False):
    p = logits.log_softmax(-1)
    true = p.gather(-1, targets[..., None])[..., 0]
    loss = -(1 - epsilon) * true - epsilon * (mean or (lambda p: p.mean(-1)))(p)
    return loss.mean() if all_count else loss[targets != pad].mean()


def smoothed_loss__not_smoothed(logits, targets, pad, epsilon=0.1):
    """Targets are not smoothed: epsilon is spread over all tokens."""
    return smooth(logits, targets, pad, 0.0)


def smoothed_loss__counts_padding(logits, targets, pad, epsilon=0.1):
    """Padding is counted as if it were text."""
    return smooth(logits, targets, pad, epsilon, all_count=True)


def smoothed_loss__epsilon_on_each(logits, targets, pad, epsilon=0.1):
    """Every token gets epsilon; it gets epsilon / V, so that all of them get epsilon."""
    return smooth(logits, targets, pad, epsilon, lambda p: p.sum(-1))


def noam_rate__from_0(step, n_embd, n_warmup=4000):
    """Step 0 has the rate 0: the first step counts as 1."""
    return n_embd**-0.5 * min(max(step, 1) ** -0.5, step * n_warmup**-1.5)


def noam_rate__no_warmup(step, n_embd, n_warmup=4000):
    """There is no warm-up: take the smaller of the two terms."""
    return n_embd**-0.5 * (step + 1) ** -0.5


def noam_rate__width_not_used(step, n_embd, n_warmup=4000):
    """The width is not used: multiply by n_embd ** -0.5."""
    return min((step + 1) ** -0.5, (step + 1) * n_warmup**-1.5)


def pad_pairs__target_not_opened(pairs, end, pad):
    """A target does not begin with `end`: the first word is predicted from it."""
    source, target = pad_pairs(pairs, end, pad)
    return source, target[:, 1:]


def pad_pairs__source_not_closed(pairs, end, pad):
    """A source does not end with `end`."""
    sources = [torch.tensor(source) for source, _ in pairs]
    source = nn.utils.rnn.pad_sequence(sources, batch_first=True, padding_value=pad)
    return source, pad_pairs(pairs, end, pad)[1]


def pad_pairs__padded_with_end(pairs, end, pad):
    """Rows are padded with `end`, which would be learned: use `pad`."""
    return pad_pairs(pairs, end, end)


def greedy_search__goes_on(model, source, n_new):
    """A row continues after its `end`: put padding there."""
    memory, visible = model.encode(source)
    target = source.new_full((len(source), 1), model.config.end)
    for _ in range(n_new):
        token = model.decode(target, memory, visible)[:, -1].argmax(-1)
        target = torch.cat([target, token[:, None]], dim=1)
    return target[:, 1:]


def greedy_search__with_the_opening(model, source, n_new):
    """The `end` that opens a translation is returned too."""
    new = greedy_search(model, source, n_new)
    return torch.cat([new.new_full((len(new), 1), model.config.end), new], dim=1)


def length_penalty__the_length(n_tokens, alpha):
    """This is n ** alpha; the formula is ((5 + n) / 6) ** alpha."""
    return float(n_tokens**alpha)


def length_penalty__times_alpha(n_tokens, alpha):
    """alpha is an exponent, not a factor."""
    return float((5 + n_tokens) / 6 * alpha)


def beam_search__no_penalty(model, source, n_new, width=4, alpha=0.6):
    """Scores are not divided by the length penalty, so short translations win."""
    return beam_search(model, source, n_new, width, 0.0)


def beam_search__greedy(model, source, n_new, width=4, alpha=0.6):
    """There is one hypothesis only: keep the `width` best at each step."""
    return beam_search(model, source, n_new, 1, alpha)


def beam_search__worst_first(model, source, n_new, width=4, alpha=0.6):
    """The worst comes first: sort by score, highest first."""
    return beam_search(model, source, n_new, width, alpha)[::-1]

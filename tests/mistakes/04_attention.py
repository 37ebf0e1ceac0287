"""The usual mistakes of chapter 4, for `course check 4 --package`; see course/ladder.py.

An example is an expression in which `f` is the definition. What behaves like
`causal_mask__hides_the_present` in every example of `causal_mask` is told its docstring.
"""

import math

import torch
from torch import arange

from gpt2.attention import CausalSelfAttention, attend, causal_mask, merge_heads, split_heads


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ladder_layer(layer_class):
    """Give every weight of a layer a value of its own; feed it three tokens of width 4."""
    layer, x = layer_class(4, 2), torch.tensor([[[1.0, 2, 0, 1], [0, 1, 3, 2], [2, 0, 1, 0]]])
    with torch.no_grad():
        for i, weight in enumerate(layer.parameters()):
            weight.copy_(random(*weight.shape, seed=i))
        return layer(x)


def kept_for_the_backward_pass(attend):
    """Count the numbers that autograd keeps for 64 tokens of width 1, in whole thousands."""
    saved = {}
    q = torch.ones(1, 1, 64, 1, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.setdefault(t.data_ptr(), t), lambda t: t
    ):
        attend(q, q, q)
    return sum(t.numel() for t in saved.values()) // 1000


EXAMPLES = {
    "causal_mask": ["f(3, 3).int().tolist()", "f(2, 4).int().tolist()", "f(2, 2)"],
    "attention_weights": [
        "f(torch.tensor([[1.0, 1], [0, 2], [3, 0]]), torch.tensor([[1.0, 0], [0, 1], [1, 1]]))",
        "f(10 * random(3, 4), 10 * random(3, 4, seed=1))",
        "f(random(2, 4), random(3, 4, seed=1))",
    ],
    "attend": [
        "f(random(1, 1, 3, 2), random(1, 1, 3, 2, seed=1), arange(3.0).view(1, 1, 3, 1))",
        "f(random(1, 1, 2, 2), random(1, 1, 4, 2, seed=1), arange(4.0).view(1, 1, 4, 1))",
        "f(random(1, 1, 1, 2), random(1, 1, 4, 2, seed=1), arange(4.0).view(1, 1, 4, 1))",
        "f(random(1, 1, 2, 2), random(1, 1, 2, 2, seed=1), arange(2.0).view(1, 1, 2, 1), "
        "torch.tensor([[[[True, True]]]]))",
        "kept_for_the_backward_pass(f)",
    ],
    "split_heads": ["f(arange(12).view(1, 3, 4), 2).tolist()", "f(random(2, 3, 6), 3).shape"],
    "merge_heads": ["f(arange(12).view(1, 2, 3, 2)).tolist()", "f(random(2, 3, 5, 4)).shape"],
    "CausalSelfAttention": ["ladder_layer(f)"],
}


def causal_mask__hides_the_present(n_dst, n_src, device=None):
    """The mask hides the present. A position may see itself: >= and not >."""
    return arange(n_dst)[:, None] > arange(n_src) - n_src + n_dst


def causal_mask__shows_the_next_token(n_dst, n_src, device=None):
    """The mask shows the next token, the one to be predicted: it is one column too wide."""
    return arange(n_dst)[:, None] + 1 >= arange(n_src) - n_src + n_dst


def causal_mask__from_the_upper_left(n_dst, n_src, device=None):
    """Rows are counted from the upper left. The n_dst queries are the last of n_src positions, so
    row i is position n_src - n_dst + i."""
    return arange(n_dst)[:, None] >= arange(n_src)


def causal_mask__transposed(n_dst, n_src, device=None):
    """Rows and columns are swapped: row i is a query, column j a key, and j may be at most i's
    position."""
    return arange(n_dst)[:, None] <= arange(n_src) - n_src + n_dst


def causal_mask__says_what_is_hidden(n_dst, n_src, device=None):
    """True means visible here; this mask is True where a key is hidden."""
    return ~causal_mask(n_dst, n_src)


def causal_mask__numbers(n_dst, n_src, device=None):
    """The mask is right but has the wrong type: return bool, not ones and zeros."""
    return causal_mask(n_dst, n_src).float()


def weigh(q, k, scale=None, dim=-1):
    scores = q @ k.transpose(-2, -1) * (q.size(-1) ** -0.5 if scale is None else scale)
    hidden = ~causal_mask(q.size(-2), k.size(-2))
    return scores.masked_fill(hidden, float("-inf")).softmax(dim)


def attention_weights__unscaled(q, k):
    """The scores are not divided by the root of D, the width of queries and keys."""
    return weigh(q, k, 1.0)


def attention_weights__divided_by_the_width(q, k):
    """The scores are divided by D itself; by its root keeps their spread at 1."""
    return weigh(q, k, 1 / q.size(-1))


def attention_weights__multiplied_by_the_root(q, k):
    """The scores are multiplied by the root of D where they should be divided by it."""
    return weigh(q, k, math.sqrt(q.size(-1)))


def attention_weights__mask_after_softmax(q, k):
    """The mask comes after the softmax, when hidden keys have taken their share: rows no longer sum
    to 1. Set hidden scores to -inf first."""
    return (q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))).softmax(-1) * causal_mask(
        q.size(-2), k.size(-2)
    )


def attention_weights__scores_times_the_mask(q, k):
    """Hidden scores are 0 before the softmax, and exp(0) is 1: a hidden key keeps a weight. Set
    them to -inf."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
    return (scores * causal_mask(q.size(-2), k.size(-2))).softmax(-1)


def attention_weights__no_mask(q, k):
    """Nothing is hidden: every query sees the future."""
    return (q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))).softmax(-1)


def attention_weights__over_the_queries(q, k):
    """The softmax runs over the queries, so columns sum to 1. For each query the keys share 1: the
    last dimension."""
    return weigh(q, k, dim=-2)


def attention_weights__hides_the_visible(q, k):
    """The mask is used the wrong way round: masked_fill fills where it is True, and causal_mask is
    True where a key is visible. Write ~visible."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
    return scores.masked_fill(causal_mask(q.size(-2), k.size(-2)), float("-inf")).softmax(-1)


def attend__no_mask(q, k, v, visible=None):
    """Nothing is hidden: without `visible`, attention is causal."""
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=visible)


def attend__stores_the_mask(q, k, v, visible=None):
    """A mask or weights of T times S numbers are stored. Where queries and keys are equally many
    and no `visible` is given, let the kernel do the masking: is_causal=True."""
    visible = causal_mask(q.size(-2), k.size(-2)) if visible is None else visible
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=visible)


def attend__stores_the_weights(q, k, v, visible=None):
    """The weights of T times S numbers are stored. Let PyTorch's fused kernel,
    F.scaled_dot_product_attention, compute and use them block by block."""
    visible = causal_mask(q.size(-2), k.size(-2)) if visible is None else visible
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
    return scores.masked_fill(~visible, float("-inf")).softmax(-1) @ v


def attend__always_causal(q, k, v, visible=None):
    """`visible` is ignored: where it is given, it alone decides what each query sees."""
    return attend(q, k, v)


def attend__is_causal_with_a_past(q, k, v, visible=None):
    """is_causal counts from the upper left. With more keys than queries the mask must come from
    causal_mask, which counts from the lower right."""
    causal = visible is None
    return torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=visible, is_causal=causal
    )


def split_heads__by_view_alone(x, n_head):
    """view alone cuts through time: a head gets whole tokens instead of a slice of each. View as
    (B, T, n_head, D), then swap T and n_head."""
    B, T, C = x.shape
    return x.reshape(B, n_head, T, C // n_head)


def split_heads__interleaved(x, n_head):
    """Head h gets every n_head-th channel. It needs the h-th slice of neighboring channels: view as
    (n_head, D), not (D, n_head)."""
    B, T, C = x.shape
    return x.view(B, T, C // n_head, n_head).permute(0, 3, 1, 2)


def split_heads__no_transpose(x, n_head):
    """The heads come after the positions: swap dimensions 1 and 2."""
    B, T, C = x.shape
    return x.view(B, T, n_head, C // n_head)


def merge_heads__by_view_alone(x):
    """The heads of a token are not concatenated: swap heads and positions first, then reshape."""
    B, H, T, D = x.shape
    return x.reshape(B, T, H * D)


class Wrong(CausalSelfAttention):
    order = (0, 1, 2)

    def mixed(self, x):
        parts = self.c_attn(x).chunk(3, dim=-1)
        q, k, v = (split_heads(parts[i], self.n_head) for i in self.order)
        return merge_heads(attend(q, k, v))

    def forward(self, x, past=None, visible=None):
        return self.c_proj(self.mixed(x))


class CausalSelfAttention__keys_first(Wrong):
    """c_attn is cut in the order k, q, v. GPT-2's order is q, k, v."""

    order = (1, 0, 2)


class CausalSelfAttention__values_first(Wrong):
    """c_attn is cut in the order v, q, k. GPT-2's order is q, k, v."""

    order = (1, 2, 0)


class CausalSelfAttention__no_output_projection(Wrong):
    """c_proj is not used: it mixes the heads at the end."""

    def forward(self, x, past=None, visible=None):
        return self.mixed(x)


class CausalSelfAttention__one_head(Wrong):
    """There is one head as wide as the whole: split_heads comes before attend."""

    def mixed(self, x):
        q, k, v = (part[:, None] for part in self.c_attn(x).chunk(3, dim=-1))
        return attend(q, k, v)[:, 0]

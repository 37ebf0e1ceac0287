"""Chapter 4: attention against implementations that nobody here wrote, then its properties.

Each `check_...` takes the implementation as an argument. The real one must pass it, and the named
wrong ones at the end of the file must not.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention

from gpt2 import attention
from gpt2.attention import (
    CausalSelfAttention,
    attend,
    attention_weights,
    causal_mask,
    merge_heads,
    split_heads,
)

C, H = 48, 4  # width and heads of the layers compared
D = C // H


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_close(ours: Tensor, theirs: Tensor, name: str = "result") -> None:
    """Hold the largest difference below 1e-5 of the largest value."""
    assert ours.shape == theirs.shape, name
    error = (ours - theirs).abs().max() / theirs.abs().max()
    assert error < 1e-5, f"{name}: relative error {error:.1e}"


# --- Oracles ---------------------------------------------------------------------------------


def reference_layer(layer: CausalSelfAttention, implementation: str) -> GPT2Attention:
    """Build the transformers layer with our weights, stored (in, out) there."""
    config = GPT2Config(n_embd=C, n_head=H, n_positions=64, attn_pdrop=0, resid_pdrop=0)
    config._attn_implementation = implementation
    theirs = GPT2Attention(config, layer_idx=0).eval()
    with torch.no_grad():
        for name in ("c_attn", "c_proj"):
            getattr(theirs, name).weight.copy_(getattr(layer, name).weight.T)
            getattr(theirs, name).bias.copy_(getattr(layer, name).bias)
    return theirs


def hidden_scores(n_dst: int, n_src: int) -> Tensor:
    """Say what is added to the scores, written out on its own: -inf for the future."""
    mask = torch.zeros(1, 1, n_dst, n_src)
    for i in range(n_dst):
        mask[..., i, n_src - n_dst + i + 1 :] = float("-inf")
    return mask


def check_transformers(layer_class: type[CausalSelfAttention], implementation="eager") -> None:
    """Compare output and all gradients with transformers' GPT2Attention."""
    torch.manual_seed(0)
    ours = layer_class(C, H)
    theirs = reference_layer(ours, implementation)
    x = random(2, 11, C).requires_grad_()
    y = x.detach().clone().requires_grad_()
    out = ours(x)
    expected = theirs(y, attention_mask=hidden_scores(11, 11))[0]
    assert_close(out, expected, "output")
    weight = random(2, 11, C, seed=1)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    assert_close(x.grad, y.grad, "gradient of x")
    for name in ("c_attn", "c_proj"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert_close(mine.weight.grad, other.weight.grad.T, f"gradient of {name}.weight")
        assert_close(mine.bias.grad, other.bias.grad, f"gradient of {name}.bias")


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_layer_equals_transformers_forward_and_backward(implementation):
    check_transformers(CausalSelfAttention, implementation)


def test_layer_equals_multihead_attention():
    torch.manual_seed(1)
    ours = CausalSelfAttention(C, H)
    theirs = nn.MultiheadAttention(C, H, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.c_attn.weight,
            "in_proj_bias": ours.c_attn.bias,
            "out_proj.weight": ours.c_proj.weight,
            "out_proj.bias": ours.c_proj.bias,
        }
    )
    x = random(3, 7, C)
    hidden = torch.ones(7, 7).triu(1).bool()
    expected, weights = theirs(x, x, x, attn_mask=hidden, average_attn_weights=False)
    assert_close(ours(x), expected)
    q, k, _ = (split_heads(part, H) for part in ours.c_attn(x).chunk(3, dim=-1))
    assert_close(attention_weights(q, k), weights, "weights")


def check_weights_oracle(weights_of) -> None:
    """Compare weights @ v with PyTorch's kernel, given the mask in full."""
    for n_dst in (9, 4, 1):
        q, k, v = (4 * random(2, H, 9, D, seed=s) for s in range(3))
        q = q[:, :, -n_dst:]
        expected = F.scaled_dot_product_attention(q, k, v, attn_mask=hidden_scores(n_dst, 9))
        assert_close(weights_of(q, k) @ v, expected, f"{n_dst} queries")


def test_weights_equal_scaled_dot_product_attention():
    check_weights_oracle(attention_weights)


@pytest.mark.parametrize("n_dst", [9, 4, 1])
def test_fused_equals_weights_forward_and_backward(n_dst):
    inputs = [random(2, H, n, D, seed=s) for s, n in enumerate((n_dst, 9, 9))]
    ours = [part.clone().requires_grad_() for part in inputs]
    plain = [part.clone().requires_grad_() for part in inputs]
    out, expected = attend(*ours), attention_weights(*plain[:2]) @ plain[2]
    assert_close(out, expected)
    weight = random(*out.shape, seed=5)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    for name, a, b in zip("qkv", ours, plain, strict=True):
        # one query alone: the softmax over it can make a gradient tiny, so compare absolutely too
        assert torch.allclose(a.grad, b.grad, rtol=1e-5, atol=1e-6), name


def test_in_double_precision_the_forms_agree_to_twelve_digits():
    q, k, v = (random(1, 2, 33, 8, seed=s).double() for s in range(3))
    assert torch.allclose(attend(q, k, v), attention_weights(q, k) @ v, rtol=0, atol=1e-12)


# --- Properties ------------------------------------------------------------------------------

lengths = st.integers(1, 12)
seeds = st.integers(0, 2**31 - 1)


def check_mask(mask_of) -> None:
    """Hold the mask against its definition: the queries are the last n_dst of n_src positions."""
    for n_src in range(1, 8):
        for n_dst in range(1, n_src + 1):
            mask = mask_of(n_dst, n_src)
            assert mask.dtype == torch.bool and mask.shape == (n_dst, n_src)
            for i, row in enumerate(mask.tolist()):
                position = n_src - n_dst + i
                assert row == [j <= position for j in range(n_src)], (n_dst, n_src, i)


def test_mask_shows_the_past_and_the_present():
    check_mask(causal_mask)


@given(st.data(), lengths)
def test_rectangular_mask_is_the_last_rows_of_the_square_one(data, n_src):
    n_dst = data.draw(st.integers(1, n_src))
    assert torch.equal(causal_mask(n_dst, n_src), causal_mask(n_src, n_src)[-n_dst:])


def check_weights(weights_of, q: Tensor, k: Tensor) -> None:
    """Hold that rows sum to 1 and that the future gets exactly 0."""
    weights = weights_of(q, k)
    visible = causal_mask(q.size(-2), k.size(-2))
    assert torch.isfinite(weights).all()
    assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-5)
    assert (weights[..., ~visible] == 0).all()


@given(lengths, st.floats(0, 1000), seeds)
@settings(max_examples=50)
def test_rows_sum_to_one_and_hidden_weights_are_exactly_zero(T, size, seed):
    check_weights(
        attention_weights, size * random(2, T, 8, seed=seed), random(2, T, 8, seed=seed ^ 1)
    )


def check_no_leak(function, x: Tensor, t: int) -> None:
    """Change token t and hold that every earlier output keeps its very bits."""
    changed = x.clone()
    changed[:, t] += 10 * random(x.size(-1), seed=3)
    before, after = function(x)[:, :t], function(changed)[:, :t]
    assert torch.equal(before, after), f"changing token {t} moved an earlier output"


@given(st.data(), st.integers(2, 12), seeds)
@settings(max_examples=30, deadline=None)
def test_a_later_token_cannot_change_an_earlier_output(data, T, seed):
    torch.manual_seed(seed % 1000)
    layer = CausalSelfAttention(C, H)
    t = data.draw(st.integers(1, T - 1))
    with torch.no_grad():
        check_no_leak(layer, random(2, T, C, seed=seed), t)


def test_a_later_token_sends_no_gradient_to_an_earlier_loss():
    layer, x = CausalSelfAttention(C, H), random(1, 8, C).requires_grad_()
    layer(x)[:, 4].sum().backward()
    assert (x.grad[:, 5:] == 0).all() and (x.grad[:, :5] != 0).any(dim=-1).all()


@given(st.integers(1, 4), lengths, st.integers(1, 5), st.integers(1, 5))
def test_merging_undoes_splitting(B, T, n_head, width):
    x = torch.arange(B * T * n_head * width).view(B, T, n_head * width)
    heads = split_heads(x, n_head)
    assert heads.shape == (B, n_head, T, width)
    assert torch.equal(merge_heads(heads), x)


def check_split(split) -> None:
    """Hold that head h at time t is the h-th slice of token t."""
    x = random(2, 5, C)
    heads = split(x, H)
    for h in range(H):
        assert torch.equal(heads[:, h], x[:, :, h * D : (h + 1) * D]), f"head {h}"


def test_each_head_has_its_slice_of_every_token():
    check_split(split_heads)


@pytest.mark.parametrize(("n_dst", "n_src"), [(5, 3), (2, 1), (1, 0)])
def test_more_queries_than_keys_are_refused_by_both_forms(n_dst, n_src):
    q, k = random(1, H, n_dst, D), random(1, H, n_src, D)
    for form in (lambda: attention_weights(q, k), lambda: attend(q, k, k)):
        with pytest.raises(ValueError, match=f"{n_dst} queries and {n_src} keys"):
            form()
    everything = torch.ones(1, 1, n_dst, n_src, dtype=torch.bool)
    assert attend(q, k, k, everything).shape == q.shape  # a mask of one's own may do it


class ListPast:
    """The smallest thing that is a Past: lists, joined at every step."""

    def __init__(self) -> None:
        self.length = 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.length += k.size(-2)
        self.keys.append(k)
        self.values.append(v)
        return torch.cat(self.keys, dim=-2), torch.cat(self.values, dim=-2)


def check_cached(layer: CausalSelfAttention, steps: list[int]) -> None:
    """Hold that feeding pieces with a past gives what one pass gives."""
    x = random(2, sum(steps), C)
    past, outputs = ListPast(), []
    with torch.no_grad():
        for piece in x.split(steps, dim=1):
            outputs.append(layer(piece, past))
        assert_close(torch.cat(outputs, dim=1), layer(x))
    assert past.length == sum(steps)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_cached_equals_uncached(steps):
    torch.manual_seed(0)
    check_cached(CausalSelfAttention(C, H), steps)


def test_a_mask_that_is_given_replaces_the_causal_one():
    torch.manual_seed(2)
    ours, x = CausalSelfAttention(C, H), random(2, 7, C)
    visible = (random(2, 1, 7, 7, seed=4) > 0) | torch.eye(7, dtype=torch.bool)
    q, k, v = (split_heads(part, H) for part in ours.c_attn(x).chunk(3, dim=-1))
    seen = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
    assert_close(ours(x, visible=visible), ours.c_proj(merge_heads(seen)))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match=r"n_embd = 10 .* n_head = 3"):
        CausalSelfAttention(10, 3)


def test_fused_keeps_memory_linear_in_the_length():
    def kept(function, T: int) -> int:
        saved: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        qkv = [random(1, 1, T, 16, seed=s).requires_grad_() for s in range(3)]
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            out = function(*qkv)
        assert out.requires_grad
        return sum(saved.values())

    assert kept(attend, 1024) < 2.5 * kept(attend, 512)
    by_weights = lambda q, k, v: attention_weights(q, k) @ v  # noqa: E731
    assert kept(by_weights, 1024) > 3.5 * kept(by_weights, 512)


# --- Wrong on purpose: each must be caught ---------------------------------------------------


def mask_hides_the_present(n_dst: int, n_src: int, device=None) -> Tensor:
    return torch.arange(n_dst)[:, None] > torch.arange(n_src) - n_src + n_dst


def mask_shows_the_next_token(n_dst: int, n_src: int, device=None) -> Tensor:
    return torch.arange(n_dst)[:, None] + 1 >= torch.arange(n_src) - n_src + n_dst


def mask_from_the_upper_left(n_dst: int, n_src: int, device=None) -> Tensor:
    return torch.arange(n_dst)[:, None] >= torch.arange(n_src)


def mask_transposed(n_dst: int, n_src: int, device=None) -> Tensor:
    return torch.arange(n_dst)[:, None] <= torch.arange(n_src) - n_src + n_dst


def weights_masked_after_softmax(q: Tensor, k: Tensor) -> Tensor:
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
    return scores.softmax(-1) * causal_mask(q.size(-2), k.size(-2))


def weights_masked_after_softmax_and_divided(q: Tensor, k: Tensor) -> Tensor:
    weights = weights_masked_after_softmax(q, k)
    return weights / weights.sum(-1, keepdim=True)


def weights_with_scale(scale: float):
    def weights(q: Tensor, k: Tensor) -> Tensor:
        scores = q @ k.transpose(-2, -1) * scale
        hidden = ~causal_mask(q.size(-2), k.size(-2))
        return scores.masked_fill(hidden, float("-inf")).softmax(-1)

    return weights


def weights_over_queries(q: Tensor, k: Tensor) -> Tensor:
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
    hidden = ~causal_mask(q.size(-2), k.size(-2))
    return scores.masked_fill(hidden, float("-inf")).softmax(-2)


def split_by_view_alone(x: Tensor, n_head: int) -> Tensor:
    B, T, width = x.shape
    return x.reshape(B, n_head, T, width // n_head)


def split_interleaved(x: Tensor, n_head: int) -> Tensor:
    B, T, width = x.shape
    return x.view(B, T, width // n_head, n_head).permute(0, 3, 1, 2)


class Swapped(CausalSelfAttention):
    """Cut the fused projection in another order than q, k, v."""

    order = (0, 1, 2)

    def forward(self, x, past=None):
        parts = self.c_attn(x).chunk(3, dim=-1)
        q, k, v = (split_heads(parts[i], self.n_head) for i in self.order)
        if past is not None:
            k, v = past.append(k, v)
        return self.c_proj(merge_heads(attend(q, k, v)))


class KeysFirst(Swapped):
    order = (1, 0, 2)


class ValuesFirst(Swapped):
    order = (2, 0, 1)


class ValuesForKeys(Swapped):
    order = (0, 2, 1)


class MergedByViewAlone(CausalSelfAttention):
    def forward(self, x, past=None):
        q, k, v = (split_heads(part, self.n_head) for part in self.c_attn(x).chunk(3, dim=-1))
        return self.c_proj(attend(q, k, v).reshape(x.shape))


class NoOutputProjection(CausalSelfAttention):
    def forward(self, x, past=None):
        q, k, v = (split_heads(part, self.n_head) for part in self.c_attn(x).chunk(3, dim=-1))
        return merge_heads(attend(q, k, v))


WRONG_MASKS = [
    mask_hides_the_present,
    mask_shows_the_next_token,
    mask_from_the_upper_left,
    mask_transposed,
]
WRONG_WEIGHTS = {
    "mask after softmax": weights_masked_after_softmax,
    "unscaled": weights_with_scale(1.0),
    "scaled by the width, not the head's": weights_with_scale(1 / math.sqrt(C)),
    "divided by the width of the head, not its root": weights_with_scale(1 / D),
    "softmax over the queries": weights_over_queries,
}


@pytest.mark.parametrize("mask", WRONG_MASKS, ids=lambda m: m.__name__)
def test_wrong_masks_are_caught(mask):
    with pytest.raises(AssertionError):
        check_mask(mask)


@pytest.mark.parametrize("name", WRONG_WEIGHTS)
def test_wrong_weights_are_caught(name):
    with pytest.raises(AssertionError):
        check_weights_oracle(WRONG_WEIGHTS[name])


def test_mask_after_softmax_has_rows_that_do_not_sum_to_one():
    with pytest.raises(AssertionError):
        check_weights(weights_masked_after_softmax, random(1, 6, 8), random(1, 6, 8, seed=1))


def test_mask_after_softmax_leaks_through_the_denominator():
    def layer(x: Tensor) -> Tensor:
        return weights_masked_after_softmax(x, x) @ x

    with pytest.raises(AssertionError, match="moved an earlier output"):
        check_no_leak(layer, random(1, 6, 8), 5)


def test_mask_after_softmax_and_divided_is_not_a_number_for_large_scores():
    q, k = torch.tensor([[[300.0], [0.0]]]), torch.tensor([[[0.0], [1.0]]])
    check_weights(attention_weights, q, k)
    with pytest.raises(AssertionError):
        check_weights(weights_masked_after_softmax_and_divided, q, k)


@pytest.mark.parametrize("split", [split_by_view_alone, split_interleaved])
def test_wrong_splits_are_caught(split, monkeypatch):
    with pytest.raises(AssertionError):
        check_split(split)
    monkeypatch.setattr(attention, "split_heads", split)
    with pytest.raises(AssertionError):
        check_transformers(CausalSelfAttention)


def test_view_without_transpose_lets_the_future_in(monkeypatch):
    monkeypatch.setattr(attention, "split_heads", split_by_view_alone)
    torch.manual_seed(0)
    with torch.no_grad(), pytest.raises(AssertionError, match="moved an earlier output"):
        check_no_leak(CausalSelfAttention(C, H), random(1, 6, C), 1)


@pytest.mark.parametrize(
    "layer_class",
    [KeysFirst, ValuesFirst, ValuesForKeys, MergedByViewAlone, NoOutputProjection],
)
def test_wrong_layers_are_caught(layer_class):
    with pytest.raises(AssertionError):
        check_transformers(layer_class)


@pytest.mark.parametrize("mask", [mask_from_the_upper_left, mask_shows_the_next_token])
def test_a_wrong_mask_with_a_past_is_caught(mask, monkeypatch):
    torch.manual_seed(0)
    layer = CausalSelfAttention(C, H)
    check_cached(layer, [3, 2, 4])
    monkeypatch.setattr(attention, "causal_mask", mask)
    with pytest.raises(AssertionError):
        check_cached(layer, [3, 2, 4])

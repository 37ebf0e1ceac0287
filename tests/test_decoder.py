"""The decoder stack against the `transformers` GPT-2, and against wrong decoders."""

import ast
import inspect
import math
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import (
    copy_weights,
    our_layout,
    our_name,
    randomize,
    reference_model,
    relative_error,
)
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpt2 import attention, decoder, generation
from gpt2.decoder import (
    GPT,
    MLP,
    SIZES,
    Block,
    GPTConfig,
    count_parameters,
    init_weights,
    scale_residual_init,
)

Build = Callable[[GPTConfig], nn.Module]

CONFIGS = [
    GPTConfig(n_vocab=65, n_ctx=64, n_embd=128, n_head=4, n_layer=4),
    GPTConfig(n_vocab=7, n_ctx=5, n_embd=6, n_head=3, n_layer=1),
    GPTConfig(n_vocab=101, n_ctx=33, n_embd=35, n_head=5, n_layer=3),
    GPTConfig(n_vocab=50, n_ctx=16, n_embd=24, n_head=1, n_layer=7),
]
SMALL = CONFIGS[2]
PUBLISHED = {
    "124M": 124_439_808,
    "355M": 354_823_168,
    "774M": 774_030_080,
    "1558M": 1_557_611_200,
}
TOLERANCE = 1e-5


def pair(build: Build, config: GPTConfig) -> tuple[nn.Module, nn.Module, Tensor]:
    """Return a model, the reference with the same weights, and a batch of full length."""
    theirs = reference_model(config)
    randomize(theirs, seed=config.n_embd)
    ours = build(config)
    copy_weights(ours, theirs)
    generator = torch.Generator().manual_seed(0)
    return ours, theirs, torch.randint(config.n_vocab, (3, config.n_ctx), generator=generator)


# What a decoder must do. Each check takes the implementation, so that wrong ones can be tried.


def check_hidden_states(build: Build, config: GPTConfig) -> None:
    """Every layer's residual stream equals the reference's."""
    ours, theirs, idx = pair(build, config)
    streams = []
    for block in ours.h:
        block.register_forward_pre_hook(lambda _, args: streams.append(args[0]))
    with torch.no_grad():
        streams.append(ours.hidden(idx))  # the reference's last one is normalized too
        expected = theirs(idx, output_hidden_states=True).hidden_states
    assert len(streams) == len(expected) == config.n_layer + 1
    for layer, (stream, other) in enumerate(zip(streams, expected, strict=True)):
        assert relative_error(stream, other) < TOLERANCE, f"stream {layer} differs"


def check_logits(build: Build, config: GPTConfig) -> None:
    ours, theirs, idx = pair(build, config)
    with torch.no_grad():
        assert relative_error(ours(idx), theirs(idx).logits) < TOLERANCE


def check_gradients(build: Build, config: GPTConfig) -> None:
    """Every parameter's gradient equals the reference's; the tied head adds to that of `wte`."""
    ours, theirs, idx = pair(build, config)
    F.cross_entropy(ours(idx[:, :-1]).flatten(0, 1), idx[:, 1:].flatten()).backward()
    F.cross_entropy(theirs(idx[:, :-1]).logits.flatten(0, 1), idx[:, 1:].flatten()).backward()
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    for name, parameter in theirs.named_parameters():
        error = relative_error(gradients[our_name(name)], our_layout(name, parameter.grad))
        assert error < TOLERANCE, f"the gradient of {name} differs by {error:.1e}"


def check_size(build: Build, name: str) -> None:
    with torch.device("meta"):
        assert count_parameters(build(SIZES[name])) == PUBLISHED[name]


def check_initialization(build: Build) -> None:
    """Standard deviations as in the released code: 0.01 for positions, 0.02 for other matrices."""
    torch.manual_seed(0)
    for name, p in build(GPTConfig(211, 128, 96, 4, 3)).named_parameters():
        if p.ndim == 2:
            std = 0.01 if name.startswith("wpe") else 0.02
            assert abs(p.std() / std - 1) < 0.05 and abs(p.mean()) < std / 20, name
        else:
            constant = 1.0 if "ln_" in name and name.endswith("weight") else 0.0
            assert torch.equal(p, torch.full_like(p, constant)), name


def check_residual_scaling(scale: Callable[[GPT], None]) -> None:
    """Only what writes into the stream shrinks, by 1/sqrt(2 n_layer)."""
    model = GPT(GPTConfig(50, 16, 32, 4, 8))
    before = {name: p.clone() for name, p in model.named_parameters()}
    scale(model)
    for name, p in model.named_parameters():
        factor = 0.25 if name.endswith("c_proj.weight") else 1.0
        assert torch.allclose(p, factor * before[name], rtol=1e-6, atol=0), name


def check_causality(build: Build, seed: int, position: int, length: int) -> None:
    """A token that is changed changes no logits before it."""
    model = build(SMALL)
    randomize(model, seed=1)
    generator = torch.Generator().manual_seed(seed)
    idx = torch.randint(SMALL.n_vocab, (2, length), generator=generator)
    other = idx.clone()
    other[:, position] = (idx[:, position] + 1) % SMALL.n_vocab
    with torch.no_grad():
        before, after = model(idx), model(other)
    past = slice(0, position)
    assert torch.allclose(before[:, past], after[:, past], rtol=0, atol=1e-5)
    assert not torch.allclose(before[:, position], after[:, position], rtol=0, atol=1e-5)


# The decoder passes.


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_hidden_states_equal_the_reference(config: GPTConfig) -> None:
    check_hidden_states(GPT, config)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_logits_equal_the_reference(config: GPTConfig) -> None:
    check_logits(GPT, config)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_gradients_equal_the_reference(config: GPTConfig) -> None:
    check_gradients(GPT, config)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_the_published_ones(name: str) -> None:
    check_size(GPT, name)
    with torch.device("meta"):
        assert count_parameters(reference_model(SIZES[name])) == PUBLISHED[name]


@pytest.mark.parametrize("name", SIZES)
def test_heads_are_64_wide_in_every_size(name: str) -> None:
    assert SIZES[name].n_embd == 64 * SIZES[name].n_head


def test_initialization_is_the_released_code_s() -> None:
    check_initialization(GPT)


def test_residual_scaling_is_the_paper_s() -> None:
    check_residual_scaling(scale_residual_init)


@pytest.mark.parametrize("n_vocab", [65, 50257])
@pytest.mark.parametrize("scale", [False, True])
def test_untrained_loss_is_that_of_a_uniform_guess(n_vocab: int, scale: bool) -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_vocab, 16, 64, 4, 4))
    if scale:
        scale_residual_init(model)
    x, y = torch.randint(n_vocab, (2, 8, 16))
    with torch.no_grad():
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
    assert abs(loss.item() - math.log(n_vocab)) < 0.05


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_later_token_cannot_change_an_earlier_logit(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, SMALL.n_ctx))
    position = data.draw(st.integers(0, length - 1))
    check_causality(GPT, data.draw(st.integers(0, 1000)), position, length)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 6), st.integers(1, SMALL.n_ctx), st.integers(0, 1000))
def test_rows_of_a_batch_do_not_mix(n_rows: int, length: int, seed: int) -> None:
    model = GPT(SMALL)
    randomize(model, seed=2)
    generator = torch.Generator().manual_seed(seed)
    idx = torch.randint(SMALL.n_vocab, (n_rows, length), generator=generator)
    with torch.no_grad():
        alone = torch.cat([model(row[None]) for row in idx])
        assert relative_error(model(idx), alone) < TOLERANCE


class GrowingPast:
    """The plainest cache that meets `attention.Past`."""

    def __init__(self) -> None:
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.length:
            k, v = torch.cat([self.k, k], dim=2), torch.cat([self.v, v], dim=2)
        self.k, self.v, self.length = k, v, k.size(2)
        return k, v


@settings(max_examples=15, deadline=None)
@given(st.integers(2, SMALL.n_ctx), st.data())
def test_a_text_in_two_pieces_gives_the_same_logits(length: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, length - 1))
    model = GPT(SMALL)
    randomize(model, seed=3)
    idx = torch.arange(2 * length).view(2, length) % SMALL.n_vocab
    past = [GrowingPast() for _ in model.h]
    with torch.no_grad():
        pieces = torch.cat([model(idx[:, :cut], past), model(idx[:, cut:], past)], dim=1)
        assert relative_error(pieces, model(idx)) < TOLERANCE


def test_a_mask_that_is_given_reaches_every_layer() -> None:
    """Three layers that see one position back: the last depends on the last four."""
    model = GPT(SMALL)
    randomize(model, seed=3)
    idx = torch.arange(6)[None] % SMALL.n_vocab
    visible = torch.ones(6, 6, dtype=torch.bool).tril().triu(-1)
    with torch.no_grad():
        before = model.hidden(idx, visible=visible)[0, -1]
        moved = []
        for t in range(6):
            other = idx.clone()
            other[0, t] = (idx[0, t] + 1) % SMALL.n_vocab
            moved.append(not torch.equal(model.hidden(other, visible=visible)[0, -1], before))
    assert moved == [t >= 5 - len(model.h) for t in range(6)]


def test_the_context_is_a_hard_limit() -> None:
    model = GPT(SMALL)
    full = torch.zeros(1, SMALL.n_ctx, dtype=torch.long)
    past = [GrowingPast() for _ in model.h]
    assert model(full, past).shape == (1, SMALL.n_ctx, SMALL.n_vocab)
    with pytest.raises(ValueError, match="34 tokens are more than the context of 33"):
        model(F.pad(full, (0, 1)))
    with pytest.raises(ValueError, match="34 tokens are more than the context of 33"):
        model(full[:, :1], past)


def test_width_must_be_a_multiple_of_heads() -> None:
    with pytest.raises(ValueError, match="n_embd = 10 is not a multiple of n_head = 3"):
        GPT(GPTConfig(7, 5, 10, 3, 1))


# Wrong decoders: each changes one thing.


class PostNormBlock(Block):
    def forward(self, x: Tensor, past=None, visible=None) -> Tensor:
        x = self.ln_1(x + self.attn(x, past))
        return self.ln_2(x + self.mlp(x))


class NormalizedStreamBlock(Block):
    """Adds to the normalized x instead of to x itself."""

    def forward(self, x: Tensor, past=None, visible=None) -> Tensor:
        x = self.ln_1(x)
        x = self.ln_2(x + self.attn(x, past))
        return x + self.mlp(x)


class ExactGeluMLP(MLP):
    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


class UnbiasedLayerNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        var = x.var(-1, keepdim=True, unbiased=True)
        return (x - x.mean(-1, keepdim=True)) / (var + self.eps).sqrt() * self.weight + self.bias


class EpsOutsideLayerNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        std = x.var(-1, keepdim=True, unbiased=False).sqrt()
        return (x - x.mean(-1, keepdim=True)) / (std + self.eps) * self.weight + self.bias


class EmbeddingTimes(nn.Embedding):
    """Multiplies what it looks up; the head still reads the weight as it is."""

    factor = math.sqrt(SMALL.n_embd)

    def forward(self, idx: Tensor) -> Tensor:
        return self.factor * super().forward(idx)


class NoPositions(EmbeddingTimes):
    factor = 0.0


class UntiedHeadGPT(GPT):
    """Starts with the same head, as a copy."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.lm_head = nn.Linear(config.n_embd, config.n_vocab, bias=False)

    def forward(self, idx: Tensor, past=None) -> Tensor:
        with torch.no_grad():
            self.lm_head.weight.copy_(self.wte.weight)
        return self.lm_head(self.hidden(idx, past))


def with_modules(old: type[nn.Module], new: type[nn.Module], name: str = "") -> Build:
    """Make a GPT whose modules of one class (and name) behave as another class."""

    def build(config: GPTConfig) -> GPT:
        model = GPT(config)
        for path, module in list(model.named_modules()):
            if type(module) is old and path.endswith(name):
                module.__class__ = new
        return model

    return build


def without_final_norm(config: GPTConfig) -> GPT:
    model = GPT(config)
    model.ln_f.forward = lambda x: x
    return model


def leaky(config: GPTConfig) -> GPT:
    model = GPT(config)
    model.h[0].register_forward_hook(lambda _, args, x: x + x.mean(dim=1, keepdim=True))
    return model


def with_wide_positions(config: GPTConfig) -> GPT:
    model = GPT(config)
    model.apply(init_weights)  # wpe too, at 0.02
    return model


def with_torch_defaults(config: GPTConfig) -> GPT:
    model = GPT(config)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    return model


@torch.no_grad()
def scale_readers(model: GPT) -> None:
    """Scales what reads from the stream."""
    for block in model.h:
        for projection in (block.attn.c_attn, block.mlp.c_fc):
            projection.weight.mul_(1 / math.sqrt(2 * model.config.n_layer))


@torch.no_grad()
def scale_by_blocks(model: GPT) -> None:
    """Counts one residual layer a block instead of two."""
    for block in model.h:
        for projection in (block.attn.c_proj, block.mlp.c_proj):
            projection.weight.mul_(1 / math.sqrt(model.config.n_layer))


WRONG_NUMBERS = {
    "post-norm": with_modules(Block, PostNormBlock),
    "normalized stream": with_modules(Block, NormalizedStreamBlock),
    "exact GELU": with_modules(MLP, ExactGeluMLP),
    "no final LayerNorm": without_final_norm,
    "unbiased variance": with_modules(nn.LayerNorm, UnbiasedLayerNorm),
    "eps outside the root": with_modules(nn.LayerNorm, EpsOutsideLayerNorm),
    "positions not added": with_modules(nn.Embedding, NoPositions, "wpe"),
    "embeddings scaled": with_modules(nn.Embedding, EmbeddingTimes, "wte"),
}


@pytest.mark.parametrize("check", [check_hidden_states, check_logits, check_gradients])
@pytest.mark.parametrize("mutant", WRONG_NUMBERS)
def test_the_reference_kills(mutant: str, check: Callable[[Build, GPTConfig], None]) -> None:
    with pytest.raises(AssertionError):
        check(WRONG_NUMBERS[mutant], SMALL)


def test_gradients_kill_an_untied_head() -> None:
    check_logits(UntiedHeadGPT, SMALL)  # forward alone cannot tell
    with pytest.raises(AssertionError, match=r"gradient of transformer\.wte"):
        check_gradients(UntiedHeadGPT, SMALL)


@pytest.mark.parametrize("name", SIZES)
def test_the_count_kills_an_untied_head(name: str) -> None:
    with pytest.raises(AssertionError):
        check_size(UntiedHeadGPT, name)


@pytest.mark.parametrize("mutant", [with_wide_positions, with_torch_defaults])
def test_the_statistics_kill_a_wrong_initialization(mutant: Build) -> None:
    with pytest.raises(AssertionError):
        check_initialization(mutant)


@pytest.mark.parametrize("mutant", [scale_readers, scale_by_blocks, lambda model: None])
def test_the_ratios_kill_a_wrong_residual_scaling(mutant: Callable[[GPT], None]) -> None:
    with pytest.raises(AssertionError):
        check_residual_scaling(mutant)


def test_causality_kills_a_leak() -> None:
    with pytest.raises(AssertionError):
        check_causality(leaky, seed=0, position=5, length=9)


# The model is plain: what PyTorch does with a module, it does with this one.


def test_a_forward_hook_sees_a_plain_tensor() -> None:
    model, seen = GPT(SMALL), []
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, args, y: seen.append((args[0], y)))
    model(torch.zeros(2, 5, dtype=torch.long)).sum().backward()
    assert len(seen) == 4 * SMALL.n_layer
    for tensor in (t for pair in seen for t in pair):
        assert tensor.layout == torch.strided
        assert tensor.mean().isfinite() and tensor[0].shape[0] == 5


def mean_loss(model: GPT, weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(functional_call(model, weights, (x,)).flatten(0, 1), y.flatten())


def slope_of_the_gradient(model: GPT, x: Tensor, y: Tensor, way: list[Tensor]) -> list[Tensor]:
    """Multiply the Hessian by a direction, by differentiating the gradient once more."""
    weights = dict(model.named_parameters())
    slopes = torch.autograd.grad(
        mean_loss(model, weights, x, y), list(weights.values()), create_graph=True
    )
    along = sum((g * d).sum() for g, d in zip(slopes, way, strict=True))
    return list(torch.autograd.grad(along, list(weights.values())))


def test_a_gradient_can_be_differentiated_again() -> None:
    """In float64 it is the limit of a difference of gradients, in float32 the same number."""
    model, generator = GPT(SMALL), torch.Generator().manual_seed(0)
    randomize(model, seed=4)
    x, y = torch.randint(SMALL.n_vocab, (2, 2, 7), generator=generator)
    way = [torch.randn(p.shape, generator=generator) for p in model.parameters()]
    exact, far = deepcopy(model).double(), [d.double() for d in way]
    with sdpa_kernel(SDPBackend.MATH):
        product, reference = (
            slope_of_the_gradient(m, x, y, d) for m, d in ((model, way), (exact, far))
        )
        ends = []
        for h in (1e-6, -1e-6):
            moved = {n: p + h * d for (n, p), d in zip(exact.named_parameters(), far, strict=True)}
            ends.append(torch.autograd.grad(mean_loss(exact, moved, x, y), list(moved.values())))
    for ours, double, up, down in zip(product, reference, *ends, strict=True):
        assert torch.allclose(double, (up - down) / 2e-6, rtol=1e-5, atol=1e-6)
        assert relative_error(ours.double(), double) < TOLERANCE


def test_gradients_of_each_text_by_vmap() -> None:
    model = GPT(SMALL)
    randomize(model, seed=5)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    x, y = torch.randint(SMALL.n_vocab, (2, 3, 7), generator=torch.Generator().manual_seed(0))
    one = grad(lambda w, x, y: mean_loss(model, w, x[None], y[None]))
    each = vmap(one, in_dims=(None, 0, 0))(weights, x, y)
    for row in range(3):
        model.zero_grad()
        F.cross_entropy(model(x[row : row + 1])[0], y[row]).backward()
        for name, p in model.named_parameters():
            assert relative_error(each[name][row], p.grad) < TOLERANCE, (row, name)


def test_a_copy_and_a_state_dict_are_the_model() -> None:
    model, other = GPT(SMALL), GPT(SMALL)
    randomize(model, seed=6)
    other.load_state_dict(model.state_dict())
    assert list(model.state_dict()) == [name for name, _ in model.named_parameters()]
    idx = torch.arange(9)[None]
    for twin in (deepcopy(model), other):
        assert torch.equal(twin(idx), model(idx))


def test_a_model_reads_no_environment() -> None:
    for module in (attention, decoder, generation):
        tree = ast.walk(ast.parse(inspect.getsource(module)))
        imported = {
            alias.name for node in tree if isinstance(node, ast.Import) for alias in node.names
        }
        assert "os" not in imported, module.__name__

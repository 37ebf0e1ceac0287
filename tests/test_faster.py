"""Kernels that are set on a model from outside: the same numbers, and a choice by measurement."""

from collections.abc import Callable
from copy import deepcopy
from itertools import count

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import randomize, relative_error
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2 import faster
from gpt2.decoder import GPT, GPTConfig
from gpt2.faster import (
    KERNELS,
    choose,
    choose_generation_kernel,
    choose_training_kernel,
    one_row_linear,
    onednn_linear,
    serves,
    set_generation_kernel,
    set_training_kernel,
)
from gpt2.generation import generate, new_cache, next_logits

WIDE = GPTConfig(n_vocab=61, n_ctx=24, n_embd=384, n_head=6, n_layer=2)
SMALL = GPTConfig(n_vocab=61, n_ctx=24, n_embd=48, n_head=3, n_layer=2)
SETTERS = {"onednn": set_training_kernel, "one-row": set_generation_kernel}


@pytest.fixture
def model() -> GPT:
    model = GPT(WIDE)
    randomize(model, seed=0)
    return model


def batch(config: GPTConfig = WIDE, rows: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(config.n_vocab, (2, rows, config.n_ctx), generator=generator)


def with_kernel(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if "forward" in vars(module)]


# The same numbers.


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_onednn_is_linear_forward_and_backward(b: int, t: int, n_in: int, n_out: int) -> None:
    x = torch.randn(b, t, n_in, requires_grad=True)
    linear = nn.Linear(n_in, n_out)
    y, expected = onednn_linear(linear, x), linear(x)
    assert y.layout == torch.strided and y.shape == expected.shape
    assert torch.allclose(y, expected, rtol=1e-5, atol=1e-5)
    parameters = [x, linear.weight, linear.bias]
    for a, e in zip(
        torch.autograd.grad(y.sum(), parameters),
        torch.autograd.grad(expected.sum(), parameters),
        strict=True,
    ):
        assert torch.allclose(a, e, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 12), (12,), (1, 12), (2, 1, 12), (1, 3, 12), (2, 3, 12)])
@pytest.mark.parametrize("n_out", [1, 6, 7, 16, 36])
def test_one_row_is_linear(shape: tuple[int, ...], n_out: int, bias: bool) -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(12, n_out, bias=bias), torch.randn(shape)
    with torch.inference_mode():
        y, expected = one_row_linear(linear, x), linear(x)
    assert y.shape == expected.shape and relative_error(y, expected) < 1e-5


def test_a_step_by_onednn_has_the_plain_loss_and_gradients(model: GPT) -> None:
    x, y = batch()
    gradients = []
    for name in ("plain", "onednn"):
        set_training_kernel(model, name)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        gradients.append([loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))])
    for plain, other in zip(*gradients, strict=True):
        assert relative_error(other, plain) < 1e-5


def test_one_row_writes_the_plain_text(model: GPT) -> None:
    plain, idx = deepcopy(model), batch()[0, :1]
    set_generation_kernel(model, "one-row")
    with torch.inference_mode():
        cache = new_cache(model)
        for t in range(9):
            row = next_logits(model, idx[:, t : t + 1], cache)
            assert relative_error(row, next_logits(plain, idx[:, : t + 1])) < 1e-5
    assert list(generate(model, [1], 20)) == list(generate(plain, [1], 20, use_cache=False))


# The model stays the model.


def test_onednn_goes_on_the_mlps_and_one_row_on_large_layers(model: GPT) -> None:
    set_training_kernel(model, "onednn")
    assert with_kernel(model) == [f"h.{i}.mlp.{c}" for i in (0, 1) for c in ("c_fc", "c_proj")]
    set_generation_kernel(model, "one-row")
    assert len(with_kernel(model)) == 4 * WIDE.n_layer
    assert all(vars(model.get_submodule(n))["forward"].func is one_row_linear
               for n in with_kernel(model))  # fmt: skip
    small = GPT(SMALL)
    set_generation_kernel(small, "one-row")
    assert with_kernel(small) == []


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_leaves_no_trace(model: GPT, name: str) -> None:
    before, classes = deepcopy(model.state_dict()), [type(m) for m in model.modules()]
    places = [p.data_ptr() for p in model.parameters()]
    SETTERS[name](model, name)
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[n], before[n]) for n in before)
    assert [type(m) for m in model.modules()] == classes
    assert [p.data_ptr() for p in model.parameters()] == places
    SETTERS[name](model, "plain")
    assert with_kernel(model) == []


@pytest.mark.parametrize("name", KERNELS)
def test_a_copy_computes_with_its_own_weights(model: GPT, name: str) -> None:
    SETTERS[name](model, name)
    twin, (x, _) = deepcopy(model), batch()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        row = next_logits(twin, x[:1, :1])
    assert with_kernel(twin) == with_kernel(model)
    SETTERS[name](twin, "plain")
    with torch.no_grad():
        assert relative_error(row, next_logits(twin, x[:1, :1])) < 1e-5
    loss = twin(x).sum()
    assert loss.isfinite() and loss != 0


@pytest.mark.parametrize("name", KERNELS)
def test_hooks_see_plain_tensors(model: GPT, name: str) -> None:
    seen, (x, _) = [], batch()
    SETTERS[name](model, name)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda _, args, y: seen.append((args[0], y)))
    model(x)
    with torch.inference_mode():
        model(x[:1, :1])
    assert len(seen) == 2 * 4 * WIDE.n_layer
    assert all(t.layout == torch.strided for pair in seen for t in pair)


@pytest.mark.parametrize("setter", SETTERS.values())
@pytest.mark.parametrize("name", ["mkl", "", "Plain"])
def test_another_name_is_refused(model: GPT, setter: Callable, name: str) -> None:
    with pytest.raises(ValueError, match=f"kernel '{name}': take 'plain' or '"):
        setter(model, name)


def test_a_kernel_of_the_other_kind_is_refused(model: GPT) -> None:
    with pytest.raises(ValueError, match="kernel 'one-row': take 'plain' or 'onednn'"):
        set_training_kernel(model, "one-row")


# Where a kernel stands back.


@pytest.mark.parametrize(
    ("limit", "free"),
    [("", True), ("2", True), ("1", False), (" 1 ", False), ("many", True), ("0", True)],
)
def test_kernels_stand_back_where_threads_are_limited(
    monkeypatch: pytest.MonkeyPatch, limit: str, free: bool
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setenv("OMP_THREAD_LIMIT", limit)
    assert serves(torch.zeros(1)) == free


def kernels_seen(model: GPT, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Train and write a little, and name the operations of a kernel that were used."""
    used = []
    for name in ("to_mkldnn", "baddbmm"):
        kept = getattr(Tensor, name)
        note = lambda *args, n=name, f=kept, **kw: used.append(n) or f(*args, **kw)  # noqa: E731
        monkeypatch.setattr(Tensor, name, note)
    x = torch.zeros(1, 4, dtype=torch.long, device=model.wte.weight.device)
    for kind in KERNELS:
        SETTERS[kind](model, kind)
        model(x).sum().backward()
        with torch.inference_mode():
            model(x[:, :1])
    return sorted(set(used))


def test_kernels_are_used_in_plain_float32(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_THREAD_LIMIT", raising=False)
    assert kernels_seen(model, monkeypatch) == ["baddbmm", "to_mkldnn"]


def test_kernels_stand_back_in_autocast(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert kernels_seen(model, monkeypatch) == []
        assert choose_training_kernel(model, *batch()) == "plain"
        assert choose_generation_kernel(model) == "plain"


def test_kernels_stand_back_in_double(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_THREAD_LIMIT", raising=False)
    assert kernels_seen(model.double(), monkeypatch) == []
    assert choose_training_kernel(model, *batch()) == "plain"
    assert choose_generation_kernel(model) == "plain"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_kernels_stand_back_on_a_gpu(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels_seen(model.cuda(), monkeypatch) == []
    assert choose_training_kernel(model, *batch().cuda()) == "plain"
    assert choose_generation_kernel(model) == "plain"


@pytest.mark.parametrize("name", KERNELS)
def test_no_choice_where_no_kernel_serves(
    model: GPT, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(faster, "choose", lambda *args: pytest.fail("it measures"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setenv("OMP_THREAD_LIMIT", "1")
    assert choose_training_kernel(model, *batch()) == "plain"
    assert choose_generation_kernel(model) == "plain"
    assert choose_generation_kernel(GPT(SMALL)) == "plain"  # no layer is large


# The choice, by a clock of our own: steps of a known time, some of them disturbed.


class Machine:
    """Stands in for the machine: a step of size n takes n times the seconds of the kernel set."""

    def __init__(self, plain: float, kernel: float, disturbed: tuple[int, ...] = ()) -> None:
        self.seconds, self.disturbed = {"plain": plain, "kernel": kernel}, disturbed
        self.now, self.name, self.sizes, self.steps = 0.0, "plain", [], count()

    def set_to(self, name: str) -> None:
        self.name = name

    def step(self, size: int) -> None:
        slow = 5 if next(self.steps) % 10 in self.disturbed else 1
        self.now += size * self.seconds[self.name] * slow
        self.sizes.append(size)

    def choice(self, monkeypatch: pytest.MonkeyPatch, most: int = 64) -> str:
        monkeypatch.setattr(faster, "perf_counter", lambda: self.now)
        return choose(self.set_to, "kernel", self.step, most, 0.02)


@pytest.mark.parametrize("ratio", [0.5, 0.9, 0.96])
@pytest.mark.parametrize("disturbed", [(), (3,), (2, 7)])
def test_a_kernel_that_pays_is_chosen(monkeypatch, ratio, disturbed) -> None:
    machine = Machine(0.001, 0.001 * ratio, disturbed)
    assert machine.choice(monkeypatch) == "kernel"
    assert machine.name == "plain" and max(machine.sizes) == 32  # grown to 0.02 s or more


@pytest.mark.parametrize("ratio", [0.98, 1.0, 1.03, 2.0])
@pytest.mark.parametrize("disturbed", [(), (3,), (2, 7)])
def test_a_kernel_that_does_not_pay_is_not_chosen(monkeypatch, ratio, disturbed) -> None:
    machine = Machine(0.001, 0.001 * ratio, disturbed)
    assert machine.choice(monkeypatch) == "plain" == machine.name


@pytest.mark.parametrize("seconds", [1e-6, 1e-3, 0.05, 0.2, 0.224])
@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
def test_a_choice_takes_at_most_two_seconds(monkeypatch, seconds, ratio) -> None:
    machine = Machine(seconds / ratio, seconds)
    machine.choice(monkeypatch)
    assert machine.now <= 2


def test_a_model_too_large_for_pairs_stays_plain(monkeypatch) -> None:
    machine = Machine(0.6, 0.3)
    assert machine.choice(monkeypatch) == "plain" and machine.sizes == [1]
    machine = Machine(0.4, 0.2)  # a few pairs fit: no proof
    assert machine.choice(monkeypatch) == "plain"


def test_a_choice_that_is_interrupted_leaves_the_model_plain(monkeypatch) -> None:
    def interrupted(size: int) -> None:
        raise KeyboardInterrupt

    machine = Machine(0.001, 0.001)
    with pytest.raises(KeyboardInterrupt):
        choose(machine.set_to, "kernel", interrupted, 8, 0.02)
    assert machine.name == "plain"


# The choice, on this machine.


def test_a_choice_leaves_weights_gradients_and_chance_alone(
    model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_THREAD_LIMIT", raising=False)
    monkeypatch.setattr(faster, "PAIRS", 5)
    x, y = batch()
    F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
    gradients = [p.grad for p in model.parameters()]
    kept = deepcopy([*model.state_dict().values(), *gradients, x, y])
    chance, training = torch.get_rng_state(), model.training
    assert choose_training_kernel(model, x, y) in ("plain", "onednn")
    assert choose_generation_kernel(model) in ("plain", "one-row")
    now = [*model.state_dict().values(), *(p.grad for p in model.parameters()), x, y]
    assert all(torch.equal(a, b) for a, b in zip(now, kept, strict=True))
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), chance) and model.training == training
    assert with_kernel(model) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 24), (3, 5), (7, 24)])
def test_every_shape_of_batch_can_be_measured(
    model: GPT, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    """Steps take a part of the batch, and at most all of it."""
    sizes: list[tuple[int, ...]] = []

    def steps(set_to, kernel, step, most, seconds):
        for size in (1, 2, most):
            step(size)
        return kernel

    monkeypatch.delenv("OMP_THREAD_LIMIT", raising=False)
    monkeypatch.setattr(faster, "choose", steps)
    model.register_forward_pre_hook(lambda _, args: sizes.append(tuple(args[0].shape)))
    x, y = torch.zeros(2, *shape, dtype=torch.long)
    assert choose_training_kernel(model, x, y) == "onednn"
    assert sizes[:2] == [(1, 1)] * 2 and sizes[-1] == shape  # a token first; all in the end
    assert all(a <= shape[0] and b <= shape[1] for a, b in sizes)

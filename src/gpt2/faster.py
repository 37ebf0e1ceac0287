"""A model made faster from outside, where a measurement on this machine says so.

The model stays as its chapters wrote it: a kernel is a `forward` that is set on some of
its `nn.Linear`s, beside which hooks, `state_dict` and copies work as before.
"""

import os
from collections.abc import Callable
from functools import partial
from math import gcd
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn

from gpt2.decoder import GPT, MLP
from gpt2.generation import new_cache, next_logits
from gpt2.training import next_token_loss

GAIN = 0.97  # of the plain time: a kernel that saves less is not chosen
SECONDS = 1.8  # that a choice may take
PAIRS = 25  # of a plain step and one by the kernel, enough for a sure choice
LARGE = 2**17  # weights; a smaller layer stays in the cache, where one row is fast


def serves(x: Tensor) -> bool:
    """Say whether a kernel may take x: on a CPU, in float32, no autocast, not compiled.

    Nor where OMP_THREAD_LIMIT allows fewer threads than PyTorch has: oneDNN gives NaN.
    """
    plain = x.device.type == "cpu" and x.dtype == torch.float32
    special = torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
    limit = os.environ.get("OMP_THREAD_LIMIT", "").strip()
    limited = limit.isdecimal() and 0 < int(limit) < torch.get_num_threads()
    return plain and not special and not limited


def onednn_linear(linear: nn.Linear, x: Tensor) -> Tensor:
    """Apply a linear layer, in training, by the oneDNN library: (..., C) -> (..., O).

    The same product, up to rounding, as by the library that PyTorch takes by itself. It
    has no second derivative and no `vmap`: set "plain" for these.
    """
    if not (x.requires_grad and serves(x)):
        return nn.Linear.forward(linear, x)
    return nn.Linear.forward(linear, x.to_mkldnn()).to_dense()


def one_row_linear(linear: nn.Linear, x: Tensor) -> Tensor:
    """Apply a linear layer, to a single row as a batch of blocks: (..., C) -> (..., O).

    With one row all the time goes into reading the weights, and on some CPUs the kernel
    for a batch of products reads faster than the one for a single product.
    """
    weight, bias = linear.weight, linear.bias
    n_out, n_in = weight.shape
    if x.numel() != n_in or torch.is_grad_enabled() or not serves(x):
        return nn.Linear.forward(linear, x)
    n = gcd(n_out, 8)  # blocks
    blocks = weight.reshape(n, n_out // n, n_in)
    column = x.reshape(1, 1, n_in).mT.expand(n, n_in, 1)  # .mT: strides pick the kernel
    y = blocks @ column if bias is None else bias.view(n, -1, 1).baddbmm(blocks, column)
    return y.view(*x.shape[:-1], n_out)


KERNELS = {"onednn": onednn_linear, "one-row": one_row_linear}


def set_kernel(
    model: nn.Module, name: str, kernel: str, layers: list[nn.Linear]
) -> None:
    """Take any kernel off the model, and set this one on layers if it is named.

    Raises ValueError for a name that is neither "plain" nor the kernel's.
    """
    if name not in ("plain", kernel):
        raise ValueError(f"kernel {name!r}: take 'plain' or {kernel!r}.")
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.__dict__.pop("forward", None)
    for linear in layers if name == kernel else []:
        linear.__dict__["forward"] = partial(KERNELS[kernel], linear)


def set_training_kernel(model: GPT, name: str) -> None:
    """Set "onednn" on the MLPs, for training, or "plain" to take any kernel off.

    Raises ValueError for another name.
    """
    mlps = [module for module in model.modules() if isinstance(module, MLP)]
    layers = [linear for mlp in mlps for linear in (mlp.c_fc, mlp.c_proj)]
    set_kernel(model, name, "onednn", layers)


def large_layers(model: nn.Module) -> list[nn.Linear]:
    """List the linear layers that are read from memory again for every token."""
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return [linear for linear in linears if linear.weight.numel() > LARGE]


def set_generation_kernel(model: GPT, name: str) -> None:
    """Set "one-row" on large layers, to generate, or "plain" to take any kernel off.

    Raises ValueError for another name.
    """
    set_kernel(model, name, "one-row", large_layers(model))


def timed(step: Callable[[int], object], size: int) -> float:
    """Return the seconds that a step of this size takes."""
    start = perf_counter()
    step(size)
    return perf_counter() - start


def choose(
    set_to: Callable[[str], None],
    kernel: str,
    step: Callable[[int], object],
    most: int,
    seconds: float,
) -> str:
    """Return the kernel if steps save enough by it, by the median of pairs, or "plain".

    Steps grow from size 1 until they take so many seconds, up to size `most`. Where few
    pairs fit into the time, none is proof enough. The kernel is off in the end.
    """
    end, size, pair, ratios = perf_counter() + SECONDS, 1, 0.0, list[float]()
    try:
        set_to(kernel)
        if timed(step, size) > SECONDS / 8:
            return "plain"
        set_to("plain")
        while size < most and min(timed(step, size), timed(step, size)) < seconds:
            size = min(2 * size, most)
        while len(ratios) < PAIRS and perf_counter() + pair < end:
            spent = {}
            for name in ("plain", kernel) if len(ratios) % 2 else (kernel, "plain"):
                set_to(name)
                spent[name] = timed(step, size)
            pair = sum(spent.values())
            ratios.append(spent[kernel] / spent["plain"])
    finally:
        set_to("plain")
    return kernel if len(ratios) > 4 and median(ratios) < GAIN else "plain"


def choose_training_kernel(model: GPT, x: Tensor, y: Tensor) -> str:
    """Return the faster kernel for training on batches like x, y (B, T): its name.

    "onednn" or "plain", by steps on as many of the tokens as fit into two seconds.
    Weights, gradients and random generators stay as they were, the model is left plain.
    """
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (onednn and serves(model.wte.weight)):
        return "plain"
    parameters = [p for p in model.parameters() if p.requires_grad]
    first = torch.no_grad()(lambda _: model(x[:1, :1]))
    if min(timed(first, 1) for _ in range(2)) > SECONDS / 30:
        return "plain"  # too large: a training step takes far longer than this token

    def step(size: int) -> None:
        n_rows = max(1, 16 * size // x.size(1))
        part = slice(n_rows), slice(16 * size)
        loss = next_token_loss(model(x[part]), y[part])
        torch.autograd.grad(loss, parameters)

    set_to = partial(set_training_kernel, model)
    return choose(set_to, "onednn", step, -(-x.numel() // 16), 0.05)


def choose_generation_kernel(model: GPT) -> str:
    """Return the faster kernel for writing with this model and a cache: its name.

    "one-row" or "plain", by steps of some tokens each. The model is left plain.
    """
    if not (large_layers(model) and serves(model.wte.weight)):
        return "plain"
    idx, cache = torch.zeros(1, 1, dtype=torch.long), new_cache(model)

    @torch.inference_mode()
    def step(size: int) -> None:
        for layer in cache:
            layer.length = 0
        for _ in range(size):
            next_logits(model, idx, cache)

    set_to = partial(set_generation_kernel, model)
    return choose(set_to, "one-row", step, model.config.n_ctx, 0.005)

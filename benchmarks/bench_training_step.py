"""A training step of ours, plain and by a kernel, against transformers' GPT-2 and nanoGPT's.

NANOGPT=FOLDER names the folder of nanoGPT's model.py; without it that peer is left out.
"""

import importlib.util
import os
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from statistics import median

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2.decoder import GPT, GPTConfig
from gpt2.faster import choose_training_kernel, set_training_kernel

BATCH, ROUNDS = 12, 7
SIZES = {  # configuration, steps a round
    "4 layers, width 128, 12 x 64 tokens": (GPTConfig(65, 64, 128, 4, 4), 20),
    "6 layers, width 384, 12 x 256 tokens": (GPTConfig(65, 256, 384, 6, 6), 2),
}


def peer_model(config: GPTConfig) -> nn.Module:
    """Build the peer of the same shape, without dropout and cache, with its fused attention."""
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=config.n_vocab,
            n_positions=config.n_ctx,
            n_embd=config.n_embd,
            n_head=config.n_head,
            n_layer=config.n_layer,
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
            use_cache=False,
            attn_implementation="sdpa",
        )
    ).train()


def nanogpt_model(config: GPTConfig) -> nn.Module | None:
    """Build nanoGPT's model of the same shape, or None where no folder is named for it."""
    if "NANOGPT" not in os.environ:
        print("nanoGPT is skipped: name the folder of its model.py, NANOGPT=FOLDER", flush=True)
        return None
    path = Path(os.environ["NANOGPT"]) / "model.py"
    spec = importlib.util.spec_from_file_location("nanogpt", path)
    nanogpt = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nanogpt)
    shape = (config.n_ctx, config.n_vocab, config.n_layer, config.n_head, config.n_embd)
    return nanogpt.GPT(nanogpt.GPTConfig(*shape, dropout=0.0, bias=True)).train()


def stepper(model: nn.Module, loss_of: Callable[[], Tensor]) -> Callable[[], None]:
    """Return a function that takes one training step, with AdamW in its fused form."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        loss = loss_of()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def alternate(calls: list[Callable[[], object]], repeats: int) -> list[float]:
    """Time the calls in turn, one round to warm up and ROUNDS that count; median seconds each."""
    seconds: list[list[float]] = [[] for _ in calls]
    for turn in range(ROUNDS + 1):
        for times, call in zip(seconds, calls, strict=True):
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            if turn:
                times.append((time.perf_counter() - start) / repeats)
    return [median(times) for times in seconds]


def row(what: str, ours: float, peer: float | None, unit: str, limit: str) -> dict:
    """Lay out one line of RESULTS.md."""
    ratio = ours / peer if peer else None
    return {"what": what, "ours": ours, "peer": peer, "unit": unit, "ratio": ratio, "limit": limit}


def compare(what: str, config: GPTConfig, n_steps: int) -> list[dict]:
    """Measure one size: tokens per second, and how long the choice of a kernel takes."""
    torch.manual_seed(0)
    plain, peer, nanogpt = GPT(config), peer_model(config), nanogpt_model(config)
    x, y = torch.randint(config.n_vocab, (2, BATCH, config.n_ctx))
    start = time.perf_counter()
    chosen = choose_training_kernel(plain, x, y)
    choice = time.perf_counter() - start
    by_kernel = deepcopy(plain)
    set_training_kernel(by_kernel, "onednn")

    def step_of(model: nn.Module, logits: Callable[[], Tensor]) -> Callable[[], None]:
        return stepper(model, lambda: F.cross_entropy(logits().flatten(0, 1), y.flatten()))

    steps = [step_of(model, lambda m=model: m(x)) for model in (plain, by_kernel)]
    steps.append(step_of(peer, lambda: peer(x).logits))
    if nanogpt:
        steps.append(stepper(nanogpt, lambda: nanogpt(x, y)[1]))
    rates = [BATCH * config.n_ctx / seconds for seconds in alternate(steps, n_steps)]
    step, unit = f"training step, {what}", "tokens/s"
    rows = [row(f"{step}, against transformers", rates[0], rates[2], unit, ">= 1.1")]
    if nanogpt:
        rows.append(row(f"{step}, against nanoGPT", rates[0], rates[3], unit, ">= 0.94"))
    kernel = f"{step}, by oneDNN against plain (chosen: {chosen})"
    rows.append(row(kernel, rates[1], rates[0], unit, ">= 0.97" if chosen == "onednn" else ""))
    rows.append(row(f"choosing its kernel, {what}", choice, None, "s", "<= 2"))
    return rows


def run() -> list[dict]:
    """Measure both sizes; `ratio` is ours over the peer's."""
    torch.set_num_threads(2)
    return [row for what, size in SIZES.items() for row in compare(what, *size)]


if __name__ == "__main__":
    for line in run():
        print(line)

"""Cached generation to the full context: plain, by a kernel, by transformers, without cache."""

import time
from copy import deepcopy

import torch
import transformers

from benchmarks.bench_training_step import alternate, row
from gpt2.decoder import GPT, GPTConfig
from gpt2.faster import choose_generation_kernel, large_layers, set_generation_kernel
from gpt2.generation import generate

SIZES = {
    "4 layers, width 128, context 64": GPTConfig(65, 64, 128, 4, 4),
    "6 layers, width 384, context 256": GPTConfig(65, 256, 384, 6, 6),
}


def peer_model(config: GPTConfig) -> transformers.GPT2LMHeadModel:
    """Build the peer of the same shape, without an end-of-text token to stop at."""
    shape = transformers.GPT2Config(
        vocab_size=config.n_vocab,
        n_positions=config.n_ctx,
        n_embd=config.n_embd,
        n_head=config.n_head,
        n_layer=config.n_layer,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    return transformers.GPT2LMHeadModel(shape).eval()


def compare(name: str, config: GPTConfig) -> list[dict]:
    """Measure one size: tokens per second, and how long the choice of a kernel takes."""
    torch.manual_seed(0)
    plain, peer = GPT(config).eval(), peer_model(config)
    n_new, idx = config.n_ctx - 1, torch.tensor([[0]])
    start = time.perf_counter()
    chosen = choose_generation_kernel(plain)
    choice = time.perf_counter() - start
    by_kernel = deepcopy(plain)
    set_generation_kernel(by_kernel, "one-row")

    def write_by_peer() -> torch.Tensor:
        return peer.generate(
            idx,
            attention_mask=torch.ones_like(idx),
            max_new_tokens=n_new,
            do_sample=False,
            use_cache=True,
        )

    calls = [
        lambda: list(generate(plain, [0], n_new)),
        lambda: list(generate(by_kernel, [0], n_new)),
        write_by_peer,
        lambda: list(generate(plain, [0], n_new, use_cache=False)),
    ]
    rates = [n_new / seconds for seconds in alternate(calls, 1)]
    what, unit = f"cached generation, {name}", "tokens/s"
    rows = [row(f"{what}, against transformers", rates[0], rates[2], unit, ">= 1.25")]
    if large_layers(plain):
        kernel = f"{what}, by one row against plain (chosen: {chosen})"
        limit = ">= 0.97" if chosen == "one-row" else ""
        rows.append(row(kernel, rates[1], rates[0], unit, limit))
        rows.append(row(f"choosing its kernel, {name}", choice, None, "s", "<= 2"))
    if config.n_ctx >= 256:
        rows.append(row(f"{what}, against no cache", rates[0], rates[3], unit, ">= 3"))
    return rows


def run() -> list[dict]:
    """Measure every size; `ratio` is ours over the peer's."""
    torch.set_num_threads(2)
    return [row for name, config in SIZES.items() for row in compare(name, config)]


if __name__ == "__main__":
    for line in run():
        print(line)

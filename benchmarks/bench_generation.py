"""Cached generation to the full context, against transformers and against no cache."""

import time
from collections.abc import Callable
from statistics import median

import torch
import transformers

from gpt2.decoder import GPT, GPTConfig
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


def alternate(runs: list[Callable[[], object]], repeats: int) -> list[float]:
    """Time the runs in turn, `repeats` rounds after one to warm up; median seconds of each."""
    seconds: list[list[float]] = [[] for _ in runs]
    for round_ in range(repeats + 1):
        for i, call in enumerate(runs):
            start = time.perf_counter()
            call()
            if round_:
                seconds[i].append(time.perf_counter() - start)
    return [median(s) for s in seconds]


def compare(name: str, config: GPTConfig, repeats: int) -> list[dict]:
    """Measure one size: ours cached, the peer cached, ours uncached."""
    torch.manual_seed(0)
    ours, peer = GPT(config), peer_model(config)
    n_new = config.n_ctx - 1
    start = torch.tensor([[0]])
    t_ours, t_peer, t_uncached = alternate(
        [
            lambda: list(generate(ours, [0], n_new)),
            lambda: peer.generate(
                start,
                attention_mask=torch.ones_like(start),
                max_new_tokens=n_new,
                do_sample=False,
                use_cache=True,
            ),
            lambda: list(generate(ours, [0], n_new, use_cache=False)),
        ],
        repeats,
    )
    rate = {"ours": n_new / t_ours, "unit": "tokens/s"}
    rows = [
        {"what": f"cached generation, {name}", "peer": n_new / t_peer, "limit": 1.5, **rate},
    ]
    if config.n_ctx >= 256:
        what = f"cached against our own uncached, {name}"
        rows.append({"what": what, "peer": n_new / t_uncached, "limit": 3.0, **rate})
    return [row | {"ratio": row["ours"] / row["peer"]} for row in rows]


def run(repeats: int = 7) -> list[dict]:
    """Measure every size; `ratio` is ours over the peer's and should reach `limit`."""
    torch.set_num_threads(2)
    return [row for name, config in SIZES.items() for row in compare(name, config, repeats)]


if __name__ == "__main__":
    for row in run():
        print(
            f"{row['what']}: ours {row['ours']:.0f}, peer {row['peer']:.0f} {row['unit']}, "
            f"ratio {row['ratio']:.2f} (at least {row['limit']})"
        )

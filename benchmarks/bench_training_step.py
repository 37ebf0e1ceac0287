"""A training step of ours against transformers' GPT-2: same configuration, batch and optimizer."""

import time
from collections.abc import Callable
from statistics import median

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2.decoder import GPT, GPTConfig

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


def stepper(
    model: nn.Module, logits: Callable[[Tensor], Tensor], x: Tensor, y: Tensor
) -> Callable[[], None]:
    """Return a function that takes one training step, with AdamW in its fused form."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        loss = F.cross_entropy(logits(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def alternate(steps: list[Callable[[], None]], n_steps: int) -> list[float]:
    """Time the steps in turn, one round to warm up and ROUNDS that count; median seconds each."""
    seconds: list[list[float]] = [[] for _ in steps]
    for turn in range(ROUNDS + 1):
        for times, step in zip(seconds, steps, strict=True):
            start = time.perf_counter()
            for _ in range(n_steps):
                step()
            if turn:
                times.append((time.perf_counter() - start) / n_steps)
    return [median(times) for times in seconds]


def run() -> list[dict]:
    """Measure both sizes: tokens per second, ours and the peer's."""
    torch.set_num_threads(2)
    rows = []
    for what, (config, n_steps) in SIZES.items():
        torch.manual_seed(0)
        ours, peer = GPT(config), peer_model(config)
        x, y = torch.randint(config.n_vocab, (2, BATCH, config.n_ctx))
        steps = [stepper(ours, ours, x, y), stepper(peer, lambda x, m=peer: m(x).logits, x, y)]
        a, b = (BATCH * config.n_ctx / seconds for seconds in alternate(steps, n_steps))
        rows.append(
            {
                "what": f"training step, {what}",
                "ours": a,
                "peer": b,
                "unit": "tokens/s",
                "ratio": a / b,
                "limit": 1.2,
            }
        )
    return rows


if __name__ == "__main__":
    for row in run():
        print(row)

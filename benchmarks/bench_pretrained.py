"""Loading a file of the published layout against reading it; scoring against a forward pass."""

import json
import math
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import psutil
import torch

from course import models
from gpt2.decoder import GPT, SIZES
from gpt2.pretrained import load, published_shapes, sliding_losses


def write_random(size: str, path: Path) -> int:
    """Write a file of a published size's tensors, masks too; return its model's bytes."""
    config = SIZES[size]
    shapes = published_shapes(config)
    n_bytes = sum(4 * math.prod(shape) for shape in shapes.values())
    mask = (1, 1, config.n_ctx, config.n_ctx)
    shapes |= {f"h.{layer}.attn.bias": mask for layer in range(config.n_layer)}
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": (start, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # aligned, as the format asks
    block = (0.02 * torch.randn(2**22)).numpy().tobytes()  # the same numbers again and again
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for start in range(0, end, len(block)):
            file.write(block[: end - start])
    return n_bytes


def alternate(*calls: Callable[[], object], rounds: int) -> list[float]:
    """Return the median CPU seconds of each call, after one round to warm up."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds + 1):
        for call, found in zip(calls, times, strict=True):
            start = time.process_time()
            call()
            found.append(time.process_time() - start)
    return [median(found[1:]) for found in times]


def peak_while(call: Callable[[], object]) -> int:
    """Return by how many bytes the process grows meanwhile, mapped files aside. Linux only."""

    def held() -> int:
        memory = psutil.Process().memory_info()
        return memory.rss - memory.shared

    def watch() -> None:
        while not done.wait(0.005):
            seen.append(held())

    seen, done = [held()], threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    kept = call()
    seen.append(held())
    done.set()
    watcher.join()
    del kept
    return max(seen) - seen[0]


def loading(size: str, folder: Path, rounds: int) -> list[dict]:
    """Measure memory, and time if the file can stay in the page cache."""
    path = folder / f"{size}.safetensors"
    n_bytes = write_random(size, path)
    peak = peak_while(lambda: load(path))
    rows = [
        row(f"peak memory of loading {size}, against the model", peak / 2**20, n_bytes / 2**20,
            "MiB", "<= 1.3"),
    ]  # fmt: skip
    if rounds:
        ours, peer = alternate(lambda: load(path), path.read_bytes, rounds=rounds)
        rows.append(row(f"loading {size}, against reading the file", ours, peer, "CPU s", "<= 2"))
    return rows


def scoring(name: str, model: GPT, n: int, rounds: int) -> dict:
    """Measure sliding_losses of n tokens against the logits of the same windows alone."""
    n_ctx = model.config.n_ctx
    ids = torch.randint(model.config.n_vocab, (n + 1,))
    text = ids.tolist()
    batches = ids[:n].view(-1, n_ctx).split(max(1, 2048 // n_ctx))

    @torch.inference_mode()
    def forward() -> None:
        for x in batches:
            model(x)

    peer, ours = alternate(forward, lambda: sliding_losses(model, text, n_ctx), rounds=rounds)
    return row(f"scoring, {name}, against a forward pass", n / ours, n / peer, "tokens/CPU s",
               ">= 0.9")  # fmt: skip


def run() -> list[dict]:
    """Load 124M and, where there is room, 1558M, of random numbers; score with 124M and 4M."""
    torch.set_num_threads(1)
    largest = list(models.SIZES)[-1]
    rows = [scoring(largest, models.load_size(largest), 4096, rounds=5)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows += loading("124M", folder, rounds=5)
        rows.append(scoring("124M", load(folder / "124M.safetensors"), 1024, rounds=3))
        if psutil.virtual_memory().available > 10e9:
            rows += loading("1558M", folder, rounds=0)
    return rows


def row(what: str, ours: float, peer: float, unit: str, limit: str) -> dict:
    """Lay out one line of RESULTS.md."""
    return {"what": what, "ours": ours, "peer": peer, "unit": unit, "ratio": ours / peer,
            "limit": limit}  # fmt: skip

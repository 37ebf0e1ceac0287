"""Zero-shot scoring in batches, against a loop over the items."""

import time
from collections.abc import Callable
from statistics import median

from course import models
from gpt2.generation import generate
from gpt2.prompting import complete
from gpt2.tokenizer import Tokenizer


def seconds(call: Callable[[], object]) -> float:
    """Time a call; median seconds of three, after one to warm up."""
    times = []
    for _ in range(4):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times[1:])


def run() -> list[dict]:
    """Answer the items of chapter 8 with the smallest and the largest committed model."""
    prompts = [item.prompt for task in models.TASKS[:4] for item in models.items(task)]
    some, rows = prompts[::25], []
    tokenizer = Tokenizer.load(models.FOLDER)
    for size in (next(iter(models.SIZES)), list(models.SIZES)[-1]):
        model = models.load_size(size)

        def loop(use_cache: bool, model=model) -> None:
            for prompt in some:
                ids = [tokenizer.end_of_text, *tokenizer.encode(prompt)]
                list(generate(model, ids, 16, stop=tokenizer.end_of_text, use_cache=use_cache))

        ours = len(prompts) / seconds(lambda model=model: complete(model, tokenizer, prompts, 16))
        plain = len(some) / seconds(lambda loop=loop: loop(False))
        cached = len(some) / seconds(lambda loop=loop: loop(True))
        rows.append(row(f"answers, {size}, against a plain loop", ours, plain, "at least 10"))
        rows.append(row(f"answers, {size}, against a loop with a cache", ours, cached, ""))
    return rows


def row(what: str, ours: float, peer: float, limit: str) -> dict:
    """Lay out one line of RESULTS.md."""
    return {
        "what": f"zero-shot {what}",
        "ours": ours,
        "peer": peer,
        "unit": "items/s",
        "ratio": ours / peer,
        "limit": limit,
    }

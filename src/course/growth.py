"""What grows with a model, and what only with its training: six sizes, three seeds, controls.

Each run has a folder in `models/runs/` that is not committed, and when it has ended a file in
`models/results/` that is. All sizes of a seed see the same pages, by one schedule whose peak
follows from layers and width.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice, pairwise
from math import sqrt
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course.chapters import ROOT
from course.models import commit, keep_weights, read_log, sha256
from course.notebooks import write_text
from gpt2.data import DocumentRows
from gpt2.decoder import GPT, GPTConfig, count_parameters
from gpt2.prompting import complete
from gpt2.tokenizer import Tokenizer
from gpt2.training import CHECKPOINT, TrainingConfig, evaluate, load_model, read_checkpoint, train
from gpt2.transformer import sinusoids
from miniweb.leaks import find_leaks
from miniweb.longtail import LongTail, documents, invented_world, real_world
from miniweb.tasks import TASKS, Item, test_items
from miniweb.variants import VARIANTS, variant_items

FOLDER = ROOT / "models"
SIZES = {  # layers, width, heads (of about 40 dimensions: narrower ones are slow to look things up)
    "0.03M": (2, 12, 1),
    "0.1M": (2, 36, 1),
    "0.3M": (3, 72, 2),
    "1M": (4, 120, 3),
    "2M": (6, 160, 4),
    "4M": (8, 200, 5),
}
N_CTX, N_MERGES, BATCH_SIZE, POOL = 256, 1791, 16, 6000
N_STEPS, EVERY = 24_000, 1000
N_ITEMS, N_CURVE, ITEM_SEED = 300, 120, 2019
N_NEW = {"translation": 80}  # tokens, else 24


@dataclass(frozen=True)
class Run:
    """A model to be trained: its size, its seed, its steps; `world` 0 is the real one."""

    size: str
    seed: int
    steps: int = N_STEPS
    world: int = 0

    def __str__(self) -> str:
        """Name the run."""
        longer = f"-{self.steps}" if self.steps != N_STEPS else ""
        return f"{self.size}-{self.seed}{longer}" + (f"-world{self.world}" if self.world else "")

    @property
    def config(self) -> TrainingConfig:
        """The one schedule: its peak falls with the root of layers times width."""
        n_layer, n_embd, _ = SIZES[self.size]
        peak = 0.03 / sqrt(n_layer * n_embd)  # 0.0014 for 1M
        return TrainingConfig(
            n_steps=self.steps, learning_rate=peak, min_learning_rate=peak / 10, save_every=EVERY
        )


def n_parameters(size: str) -> int:
    """Count the parameters of a size."""
    return count_parameters(new_model(size, 0))


def as_much_compute(small: str, large: str) -> int:
    """Return the steps after which the small size has cost what the large one costs in N_STEPS."""
    steps = N_STEPS * n_parameters(large) / n_parameters(small)
    return round(steps / EVERY) * EVERY


def planned() -> list[Run]:
    """List all runs: every size and seed, pairs of equal compute, and the smallest for longer."""
    names, seeds = list(SIZES), (0, 1, 2)
    main = [Run(size, seed) for seed in seeds for size in names]
    equal = [
        Run(small, seed, as_much_compute(small, large))
        for small, large in pairwise(names[:4])
        for seed in seeds
    ]
    return [*main, *equal, *(Run(names[0], seed, 4 * N_STEPS) for seed in seeds)]


def parse(name: str, world: int = 0) -> Run:
    """Find a run by its name: size, seed and, if other than N_STEPS, steps.

    Raises ValueError for a name that is not of this form.
    """
    size, _, rest = name.partition("-")
    numbers = rest.split("-")
    if size not in SIZES or len(numbers) > 2 or not all(map(str.isdigit, numbers)):
        raise ValueError(f"{name!r} is no run: write a size of {', '.join(SIZES)} and a seed, 1M-0")
    return Run(size, int(numbers[0]), int(numbers[1]) if numbers[1:] else N_STEPS, world)


def describe(run: Run) -> str:
    """Say in a line how far a run has come."""
    log = read_log(FOLDER / "runs" / str(run))
    done = log[-1]["step"] if log else 0
    state = "written down" if (FOLDER / "results" / f"{run}.json").exists() else f"step {done:,}"
    return f"{run!s:20} {n_parameters(run.size):>10,} parameters {run.steps:>7,} steps: {state}"


def world_of(run: Run) -> LongTail:
    """Return the world of a run."""
    return invented_world(run.world) if run.world else real_world()


def tokenizer_of(world: int) -> Tokenizer:
    """Load the tokenizer of a world, trained on the first pages if need be."""
    folder = FOLDER / "runs" / f"tokenizer{world}"
    if not (folder / "vocab.bpe").exists():
        texts = islice(documents(0, world_of(Run("", 0, world=world))), 15_000)
        Tokenizer.train((page.text for page in texts), N_MERGES).save(folder)
    return Tokenizer.load(folder)


def new_model(size: str, seed: int) -> GPT:
    """Build a model whose matrices are as widely spread as 0.02 is for a width of 768.

    Its positions are learned like GPT-2's, but start as the sinusoids of 2017, twice as widely
    spread as the tokens: from random ones "the token before" has to be learned anew at each place,
    and until it is nothing can be looked up.
    """
    n_layer, n_embd, n_head = SIZES[size]
    torch.manual_seed(seed)
    model = GPT(GPTConfig(N_MERGES + 257, N_CTX, n_embd, n_head, n_layer))
    waves = sinusoids(N_CTX, n_embd)
    waves -= waves.mean(dim=0)
    with torch.no_grad():
        model.wpe.weight.copy_(waves * 0.04 / waves.std())
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(sqrt(768 / n_embd))
    return model


def pages(seed: int, pool: int, world: LongTail) -> list[str]:
    """Return the pages of one pool of a seed; no two seeds share one."""
    return [page.text for page in islice(documents(1000 * (seed + 1) + pool, world), POOL)]


def batches(run: Run) -> DocumentRows:
    """Lay out fresh pages for as long as a run lasts, the same for every size.

    Raises ValueError if a page says what is to be held out.
    """
    tokenizer, world = tokenizer_of(run.world), world_of(run)

    def pool(k: int) -> list[list[int]]:
        texts = pages(run.seed, k, world)
        if leaks := find_leaks(texts, world):
            raise ValueError(f"pool {k} of seed {run.seed} holds {leaks[0]}")
        return [tokenizer.encode(text) for text in texts]

    return DocumentRows(pool, tokenizer.end_of_text, N_CTX, BATCH_SIZE, run.seed)


def train_run(run: Run, minutes: float) -> bool:
    """Train a run from where it was left; say whether it has come to its end in this time."""
    torch.set_num_threads(1)  # two runs with one thread each beat one with two
    folder, start = FOLDER / "runs" / str(run), perf_counter()
    model, rows = new_model(run.size, run.seed), batches(run)
    log = read_log(folder)
    losses: list[Tensor] = []
    counts: list[int] = []

    def note(step: int, loss: Tensor, n_targets: int) -> None:
        losses.append(loss)
        counts.append(n_targets)
        if step % EVERY == 0:
            tokens = sum(counts) + (log[-1]["tokens"] if log else 0)
            mean = round(float(torch.stack(losses).mean()), 4)
            log.append({"step": step, "tokens": tokens, "loss": mean})
            losses.clear()
            counts.clear()
            write_text(folder / "log.json", json.dumps(log))
            keep_weights(model, step, run.config, folder / f"{step:06}.safetensors")

    checkpoint = folder / CHECKPOINT
    done = read_checkpoint(checkpoint, "rng.")[0]["step"] if checkpoint.exists() else 0
    log = [row for row in log if row["step"] <= done]
    while done < run.steps:
        until = min(done + EVERY, run.steps)
        train(
            model,
            rows,
            run.config,
            folder,
            resume=done > 0,
            progress=False,
            until=until,
            on_step=note,
        )
        done = until
        if perf_counter() - start > 60 * minutes:
            break
    return done == run.steps


@cache
def items(task: str, world: int = 0) -> tuple[Item, ...]:
    """Draw the test items of a task."""
    return tuple(test_items(task, ITEM_SEED, N_ITEMS, world_of(Run("", 0, world=world))))


def answers(model: GPT, tokenizer: Tokenizer, task: str, asked: Sequence[Item]) -> list[str]:
    """Let a model answer items by greedy text, to the end of the line or of a story's sentence."""
    texts = complete(model, tokenizer, [item.prompt for item in asked], N_NEW.get(task, 24))
    return [text.split(".")[0] for text in texts] if task == "cloze" else texts


def right(given: Sequence[str], asked: Sequence[Item]) -> str:
    """Write 1 for an answer that is right to the letter, else 0, a digit an item."""
    return "".join("01"[text == item.answer] for text, item in zip(given, asked, strict=True))


def pairs(digits: str) -> np.ndarray:
    """Score pairs from what `right` has written: 1.0 where both items are right, (N / 2,)."""
    return np.array([float(digits[i : i + 2] == "11") for i in range(0, len(digits), 2)])


def by_level(task: str, digits: str, world: int = 0) -> dict[str, float]:
    """Return the share of pairs right at each level of a task."""
    levels = [item.level for item in items(task, world)[: len(digits) : 2]]
    scores = pairs(digits)
    return {
        level: float(scores[[other == level for other in levels]].mean())
        for level in dict.fromkeys(levels)
    }


def measure(model: GPT, run: Run, n: int = N_ITEMS) -> dict[str, Any]:
    """Let a model answer n items of every task, and read fresh pages (loss in nats a token)."""
    tokenizer, found = tokenizer_of(run.world), {}
    for task in TASKS:
        asked = items(task, run.world)[:n]
        found[task] = right(answers(model, tokenizer, task, asked), asked)
    fresh = batches(Run(run.size, 97, world=run.world))
    return {"loss": round(evaluate(model, fresh, 100), 4), "right": found}


def measure_variants(model: GPT, run: Run) -> dict[str, dict[str, str]]:
    """Let a model answer N_CURVE items of every variant of a task."""
    tokenizer = tokenizer_of(run.world)
    found: dict[str, dict[str, str]] = {task: {} for task in VARIANTS}
    for task, variants in VARIANTS.items():
        for variant in variants:
            asked = variant_items(task, variant, ITEM_SEED, N_CURVE, world_of(run))
            found[task][variant] = right(answers(model, tokenizer, task, asked), asked)
    return found


def write_down(run: Run) -> dict[str, Any]:
    """Measure a finished run, its variants, and twelve times along the way; write its file."""
    folder = FOLDER / "runs" / str(run)
    log, last = read_log(folder), folder / f"{run.steps:06}.safetensors"
    every = run.steps // 12 // EVERY * EVERY or EVERY
    result = {
        **asdict(run),
        "n_parameters": n_parameters(run.size),
        "tokens": log[-1]["tokens"],
        "commit": commit(),
        "sha256": sha256(last),
        **measure(load_model(last), run),
        "variants": measure_variants(load_model(last), run),
        "curve": [
            row | measure(load_model(folder / f"{row['step']:06}.safetensors"), run, N_CURVE)
            for row in log
            if row["step"] % every == 0
        ],
    }
    write_text(FOLDER / "results" / f"{run}.json", json.dumps(result, indent=1) + "\n")
    return result


def results() -> Iterator[dict[str, Any]]:
    """Yield what came out of every run that was written down."""
    for path in sorted((FOLDER / "results").glob("*.json")):
        yield json.loads(path.read_text(encoding="utf-8"))


def slope(task: str, runs: Sequence[dict[str, Any]], seed: int = 0) -> tuple[float, float, float]:
    """Return how much accuracy a tenfold of parameters adds, with its 95 % interval.

    A least-squares line through all runs; the interval is by 2,000 draws, with replacement, of the
    seeds and of the pairs. Source: Efron and Tibshirani 1993, chapter 13 (percentiles).
    """
    rng = np.random.default_rng(seed)
    x = np.log10([run["n_parameters"] for run in runs])
    scores = np.array([pairs(run["right"][task]) for run in runs])  # (R, N)
    seeds = sorted({run["seed"] for run in runs})
    of_seed = [[r for r, run in enumerate(runs) if run["seed"] == s] for s in seeds]

    def fitted(rows: list[int], columns: np.ndarray) -> float:
        return float(np.polyfit(x[rows], scores[rows][:, columns].mean(axis=1), 1)[0])

    n = scores.shape[1]
    drawn = []
    for _ in range(2000):
        again = [r for k in rng.integers(len(seeds), size=len(seeds)) for r in of_seed[k]]
        drawn.append(fitted(again, np.asarray(rng.integers(n, size=n))))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return fitted(list(range(len(runs))), np.arange(n)), float(low), float(high)

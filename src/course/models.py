"""The models of chapter 8: what grows with a model, and what only with its training.

Each run has a folder in `models/runs/` that is not committed, and when it has ended a file in
`models/results/` that is. All sizes of a seed see the same pages, by one schedule whose peak
follows from the width. The card, `models/README.md`, is computed from the results, the
committed weights and what `course rules --save` has found.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from difflib import ndiff
from functools import cache
from itertools import chain, count, islice, pairwise, repeat
from math import sqrt
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

import course.rules
from course import programs
from course.chapters import ROOT, commit
from course.notebooks import markdown_table, write_text
from course.rules import Found, Translator
from gpt2.data import DocumentRows
from gpt2.decoder import GPT, GPTConfig, count_parameters
from gpt2.prompting import complete, log_likelihoods
from gpt2.tokenizer import Tokenizer, atomic_file
from gpt2.training import CHECKPOINT, TrainingConfig, evaluate, load_model, read_checkpoint, train
from gpt2.transformer import sinusoids
from miniweb.leaks import find_leaks
from miniweb.longtail import LongTail, documents, invented_world, real_world
from miniweb.tasks import DIALS, TASKS, Item, test_items
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
    """A model to be trained: its size, its seed, its steps; `world` 0 is the real one.

    The pages of a `bare` run have no line that asks, answers or sums up.
    """

    size: str
    seed: int
    steps: int = N_STEPS
    world: int = 0
    bare: bool = False

    def __str__(self) -> str:
        """Name the run."""
        longer = f"-{self.steps}" if self.steps != N_STEPS else ""
        world = f"-world{self.world}" if self.world else ""
        return f"{self.size}-{self.seed}{longer}{'-bare' * self.bare}{world}"

    @property
    def config(self) -> TrainingConfig:
        """The one schedule: its peak falls with the width, as in Yang et al. 2022 (muTransfer)."""
        peak = 0.1 / SIZES[self.size][1]  # 0.0008 for 1M
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


def planned_runs() -> list[Run]:
    """List all runs: every size and seed, and the controls of what else could explain a growth."""
    names, seeds = list(SIZES), (0, 1, 2)
    main = [Run(size, seed) for seed in seeds for size in names]
    equal = [
        Run(small, seed, as_much_compute(small, large))
        for small, large in pairwise(names[:4])
        for seed in seeds
    ]
    longer = [Run(names[0], seed, 4 * N_STEPS) for seed in seeds]
    return [*main, *equal, *longer, Run("1M", 3), Run("1M", 4), Run("1M", 0, bare=True)]


def parse(name: str, world: int = 0) -> Run:
    """Find a run by its name: size, seed, steps if other than N_STEPS, and `bare`.

    Raises ValueError for a name that is not of this form.
    """
    form = re.fullmatch(r"([\d.]+M)-(\d+)(?:-(\d+))?(-bare)?", name)
    if not form or form[1] not in SIZES:
        raise ValueError(f"{name!r} is no run: write a size of {', '.join(SIZES)} and a seed, 1M-0")
    return Run(form[1], int(form[2]), int(form[3] or N_STEPS), world, bool(form[4]))


def is_written_down(run: Run) -> bool:
    """Say whether what came out of a run is known."""
    return (FOLDER / "results" / f"{run}.json").exists()


def describe(run: Run) -> str:
    """Say in a line how far a run has come."""
    log = read_log(FOLDER / "runs" / str(run))
    done = log[-1]["step"] if log else 0
    state = "written down" if is_written_down(run) else f"step {done:,}"
    return f"{run!s:20} {n_parameters(run.size):>10,} parameters {run.steps:>7,} steps: {state}"


def world_of(run: Run) -> LongTail:
    """Return the world of a run."""
    return invented_world(run.world) if run.world else real_world()


def tokenizer_of(world: int) -> Tokenizer:
    """Load the tokenizer of a world, trained on the first pages if need be."""
    folder = FOLDER / "runs" / f"tokenizer{world}" if world else FOLDER
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


def pages(seed: int, pool: int, world: LongTail | None = None, bare: bool = False) -> list[str]:
    """Return the pages of one pool of a seed; no two seeds share one."""
    source = documents(1000 * (seed + 1) + pool, world or real_world())
    texts = (without_tasks(page.text) if bare else page.text for page in source)
    return list(islice(filter(None, texts), POOL))


def without_tasks(text: str) -> str:
    """Take out the lines of a page that ask, answer or sum up."""
    return "\n".join(line for line in text.split("\n") if not re.match(r"Q: |A: |TL;DR: ", line))


def batches(run: Run) -> DocumentRows:
    """Lay out fresh pages for as long as a run lasts, the same for every size.

    Raises ValueError if a page says what is to be held out.
    """
    tokenizer, world = tokenizer_of(run.world), world_of(run)

    def pool(k: int) -> list[list[int]]:
        texts = pages(run.seed, k, world, run.bare)
        if leaks := find_leaks(texts, world):
            raise ValueError(f"pool {k} of seed {run.seed} holds {leaks[0]}")
        return [tokenizer.encode(text) for text in texts]

    return DocumentRows(pool, tokenizer.end_of_text, N_CTX, BATCH_SIZE, run.seed)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Return what a run has noted so far."""
    path = folder / "log.json"
    return json.loads(path.read_text()) if path.exists() else []


def keep_weights(model: GPT, step: int, config: TrainingConfig, path: Path) -> None:
    """Write the weights, as in a checkpoint without the optimizer, to be read by `load_model`."""
    parts = {"step": step, "model": asdict(model.config), "training": asdict(config)}
    weights = {f"model.{name}": value for name, value in model.state_dict().items()}
    with atomic_file(path) as file:
        file.write(save(weights, {name: json.dumps(value) for name, value in parts.items()}))


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


def train_piece(run: Run, minutes: float) -> str:
    """Train a run for some minutes, and write it down if it ends; describe it."""
    if train_run(run, minutes):
        write_result(run)
    return describe(run)


def train_all(runs: Sequence[Run], minutes: float, n_processes: int = 1) -> None:
    """Train runs for some minutes each, some at a time; one that has begun goes on."""
    if n_processes == 1:
        for run in runs:
            train_piece(run, minutes)
        return
    with ProcessPoolExecutor(n_processes, get_context("spawn")) as pool:
        for done in pool.map(train_piece, runs, repeat(minutes)):
            print(done, flush=True)


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


def sha256(path: Path) -> str:
    """Return the fingerprint of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
    tokenizer, found, nats = tokenizer_of(run.world), {}, {}
    for task in DIALS:
        asked = items(task, run.world)[:n]
        found[task] = right(answers(model, tokenizer, task, asked), asked)
        nats[task] = round(nats_a_token(model, tokenizer, asked), 4)
    fresh = batches(Run(run.size, 97, world=run.world))
    return {"loss": round(evaluate(model, fresh, 100), 4), "right": found, "nats": nats}


def nats_a_token(model: GPT, tokenizer: Tokenizer, asked: Sequence[Item]) -> float:
    """Return the mean ln p of a token of the right answers, each given those before it."""
    ends = [f" {item.answer}" for item in asked]
    nats = log_likelihoods(model, tokenizer, [item.prompt for item in asked], ends)
    return float(nats.sum()) / sum(len(tokenizer.encode(end)) for end in ends)


def measure_variants(model: GPT, run: Run) -> dict[str, dict[str, str]]:
    """Let a model answer N_CURVE items of every variant of a task."""
    tokenizer = tokenizer_of(run.world)
    found: dict[str, dict[str, str]] = {task: {} for task in VARIANTS}
    for task, variants in VARIANTS.items():
        for variant in variants:
            asked = variant_items(task, variant, ITEM_SEED, N_CURVE, world_of(run))
            found[task][variant] = right(answers(model, tokenizer, task, asked), asked)
    return found


def write_result(run: Run) -> dict[str, Any]:
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


def read_results() -> list[dict[str, Any]]:
    """Return what came out of every run that was written down, by size, seed and steps."""
    paths = (FOLDER / "results").glob("*.json")
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return sorted(found, key=lambda run: (run["n_parameters"], run["seed"], run["steps"]))


def main_runs(size: str) -> list[dict[str, Any]]:
    """Return the runs of a size on the usual pages for the usual time, a seed each."""
    return [
        r for r in read_results() if (r["size"], r["steps"], r["bare"]) == (size, N_STEPS, False)
    ]


# --- What the runs say ---------------------------------------------------------------------------


def shares(task: str, runs: Sequence[dict[str, Any]]) -> np.ndarray:
    """Return which pairs of a task each run has right: (R, N / 2)."""
    return np.array([pairs(run["right"][task]) for run in runs])


def drawn_again(runs: Sequence[dict[str, Any]], n: int, seed: int = 0) -> Iterator[Any]:
    """Draw seeds and pairs with replacement, 2,000 times: rows and columns of `shares`.

    All runs of a drawn seed come with it. Source: Efron and Tibshirani 1993, chapter 8.
    """
    rng = np.random.default_rng(seed)
    seeds = sorted({run["seed"] for run in runs})
    of_seed = [[r for r, run in enumerate(runs) if run["seed"] == s] for s in seeds]
    for _ in range(2000):
        rows = [r for k in rng.integers(len(seeds), size=len(seeds)) for r in of_seed[k]]
        yield np.ix_(rows, rng.integers(n, size=n))


def interval(right: np.ndarray, runs: Sequence[dict[str, Any]]) -> tuple[float, float, float]:
    """Return the mean of shares (R, N), with its 95 % interval over seeds and pairs."""
    means = [right[again].mean() for again in drawn_again(runs, right.shape[1])]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(right.mean()), float(low), float(high)


def of_whole_seeds(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the runs of those seeds that have every size."""
    sizes = {run["n_parameters"] for run in runs}

    def has_all(seed: int) -> bool:
        return {run["n_parameters"] for run in runs if run["seed"] == seed} == sizes

    return [run for run in runs if has_all(run["seed"])]


def slope(task: str, runs: Sequence[dict[str, Any]]) -> tuple[float, float, float]:
    """Return how much accuracy a tenfold of parameters adds, with its 95 % interval.

    It is that of a least-squares line through the runs of all seeds that have every size: where
    one has few, an interval over seeds would be that of a line through few sizes.
    """
    runs = of_whole_seeds(runs)
    x = np.log10([run["n_parameters"] for run in runs])
    right = shares(task, runs)

    def fitted(rows: Any, columns: Any) -> float:
        return float(np.polyfit(x[np.ravel(rows)], right[rows, columns].mean(axis=1), 1)[0])

    low, high = np.percentile(
        [fitted(*again) for again in drawn_again(runs, right.shape[1])], [2.5, 97.5]
    )
    return fitted(*np.ix_(range(len(runs)), range(right.shape[1]))), float(low), float(high)


def chance(task: str) -> float:
    """Return the share of pairs that guesses would have right.

    They are made among the candidates; where a task names none, the guess is the commonest answer
    to what is asked, as `course rules` found it.
    """
    n = [len(item.candidates) for item in items(task)]
    if not any(n):
        return float(rules()[task]["majority"]["pair"])
    return float(np.mean([1 / (a * b) if a else 0 for a, b in zip(n[::2], n[1::2], strict=True)]))


def rules() -> dict[str, dict[str, Any]]:
    """Return what `course rules --save` has found for each task: its best rule, and others."""
    path = FOLDER / "rules.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def search_rules(task: str, n_pages: int, paired: bool) -> list[tuple[str, Found]]:
    """Search the rules of one task, on pages of the first seed; budgets are sizes of models."""
    sizes = [n_parameters(size) for size in SIZES]
    texts = list(islice(chain.from_iterable(pages(0, k) for k in count()), n_pages))
    asked = [course.rules.Item(i.prompt, i.answer, tuple(i.candidates)) for i in items(task)]
    found = list(
        course.rules.report(course.rules.Pages(texts), asked, [min(sizes), max(sizes)], paired)
    )
    found.append(("program", program(task, texts)))
    return [*found, ("kept", kept_translator())] if task == "translation" else found


def score(name: str, task: str, given: Sequence[str], n_numbers: int) -> Found:
    """Score answers to the items of a task."""
    digits = right(given, items(task))
    share, of_items = float(pairs(digits).mean()), digits.count("1") / len(digits)
    return Found(name, share, of_items, n_numbers, tuple(given))


def program(task: str, texts: Sequence[str]) -> Found:
    """Score the program for a task; that for questions has read these pages."""
    given = [programs.solve(task, item.prompt, texts) for item in items(task)]
    return score(f"program of {programs.n_lines(task)} lines", task, given, 0)


def kept_translator() -> Found:
    """Score the rule for translation that a reader fitted to refute chapter 8."""
    rule = Translator(FOLDER / "translation-rule.json")
    asked = [item.prompt.splitlines()[-1].removesuffix(" =") for item in items("translation")]
    given = [rule.translate(english) for english in asked]
    return score("kept: a translator's tables", "translation", given, rule.n_numbers)


def keep_rules(task: str, n_pages: int, found: dict[str, Any]) -> None:
    """Keep the strongest cheap rule of a task, and what stands beside it.

    More numbers do not always make a rule better: it may be one of the smallest budget.
    """
    kinds = ("majority", "n-grams", "database", "program")
    cheap = [rule for line, rule in found.items() if line not in kinds]
    best = max(cheap, key=lambda rule: (rule.pair, rule.item, -rule.n_numbers))
    strongest = {"cheap": best} | {line: rule for line, rule in found.items() if line in kinds}
    kept = {
        kind: {"pair": round(rule.pair, 4), "item": round(rule.item, 4), "numbers": rule.n_numbers}
        | {"rule": rule.name}
        for kind, rule in strongest.items()
    }
    everything = {**rules(), "pages": n_pages, task: kept}
    write_text(FOLDER / "rules.json", json.dumps(everything, indent=1) + "\n")


# --- What is committed ---------------------------------------------------------------------------


def load_size(size: str) -> GPT:
    """Load the committed weights of a size, stored in 16 bits, to compute in 32."""
    return load_model(FOLDER / f"{size}.safetensors").float()


def commit_weights(size: str) -> None:
    """Keep the weights of a size's first seed, in 16 bits: none is chosen by what it scores."""
    run = Run(size, 0)
    model = load_model(FOLDER / "runs" / str(run) / f"{run.steps:06}.safetensors")
    keep_weights(model.half(), run.steps, run.config, FOLDER / f"{size}.safetensors")


CARD = """\
# The models of chapter 8

Small GPT-2s that this project has trained on the miniweb, from random weights, on nothing but the
next token. They know its people, things and cities and are of no use elsewhere. They may be used
under the licence of the code.

- **Text**: pages of `miniweb.longtail`, fresh ones for every step. Every page was searched for
  held-out combinations before it was used; a run stops at the first one.
- **Training**: {steps:,} steps of {batch} pages, float32, AdamW, one schedule whose peak is
  0.1 / width. `course models` lists the runs, `course models 1M-0` makes one, in
  pieces that survive an interruption; `models/results/` says of every answer whether it is right.
- **Committed**: of each size the run of seed 0, in 16 bits, whatever it scores. How the
  difficulty was set, on invented worlds, is told in chapter 8.

`course models --check` computes this card again, the first table from the committed weights.

| model | seed | parameters | tokens | loss, nats per token | pairs right, six tasks | sha256 |
|---|---|---|---|---|---|---|
{files}

Pairs of items of which both are right, from 0 to 1: mean over the seeds, 95 % interval over pairs,
and over seeds where a size has several; {n_pairs} pairs a task. Beside them what guessing gives,
the best n-gram model, the strongest cheap rule that was found (by `course rules`, for translation
by a reader: `translation-rule.json`; it holds at most as many numbers as the largest model; the
search picks on these items), and the best look-up of the nearest page or
sentence among {pages:,} pages.

{scores}

Where all pairs are right, or none, the bootstrap has no width: 3/150 = 0.02 is the margin then.

What a tenfold of parameters adds to the share of pairs, by the seeds that have every size:

{slopes}

Sizes by what their training cost, with the controls that have been run: {n_controls}.

{controls}
"""


def as_text(right: np.ndarray, runs: Sequence[dict[str, Any]]) -> str:
    """Write a mean with its 95 % interval."""
    mean, low, high = interval(right, runs)
    return f"{mean:.2f} ({low:.2f} to {high:.2f})"


def score_table() -> str:
    """Write for each task the pairs right of every size, and what they have to beat."""
    rows, found = [], rules()
    for task in TASKS:
        cells = [as_text(shares(task, main_runs(size)), main_runs(size)) for size in SIZES]
        others = [f"{found[task][kind]['pair']:.2f}" for kind in ("n-grams", "cheap", "database")]
        rows.append([task, *cells, f"{chance(task):.2f}", *others])
    return markdown_table(["task", *SIZES, "chance", "n-grams", "cheap rule", "database"], rows)


def slope_table() -> str:
    """Write for each task what a tenfold of parameters adds."""
    runs = [run for size in SIZES for run in main_runs(size)]
    found = {task: slope(task, runs) for task in TASKS}
    return markdown_table(
        ["task", "slope", "95 % interval"],
        [[t, f"{s:+.2f}", f"{low:+.2f} to {high:+.2f}"] for t, (s, low, high) in found.items()],
    )


def control_table() -> str:
    """Write the mean over all tasks of every size and length of training."""
    rows = []
    kinds = {(run["size"], run["steps"]) for run in read_results() if not run["bare"]}
    for size, steps in sorted(kinds, key=lambda kind: (n_parameters(kind[0]), kind[1])):
        runs = [run for run in read_results() if (run["size"], run["steps"]) == (size, steps)]
        runs = [run for run in runs if not run["bare"]]
        tokens = float(np.mean([run["tokens"] for run in runs]))
        cost = f"{n_parameters(size) * tokens / 1e12:.1f}"
        every = np.mean([shares(task, runs) for task in TASKS], axis=0)  # (R, N / 2)
        rows.append([size, f"{tokens / 1e6:.0f} M", cost, str(len(runs)), as_text(every, runs)])
    return markdown_table(
        ["model", "tokens", "parameters x tokens, 10^12", "seeds", "all six"], rows
    )


def file_table() -> str:
    """Write what the committed weights are, and what they score, computed from them."""
    rows = []
    for size in SIZES:
        path, run = FOLDER / f"{size}.safetensors", main_runs(size)[0]
        found = measure(load_size(size), Run(size, run["seed"]))
        share = np.mean([pairs(found["right"][task]).mean() for task in TASKS])
        numbers = [f"{run['n_parameters']:,}", f"{run['tokens'] / 1e6:.1f} M"]
        scores = [f"{found['loss']:.3f}", f"{share:.2f}", f"`{sha256(path)}`"]
        rows.append([f"`{path.name}`", str(run["seed"]), *numbers, *scores])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def card() -> str:
    """Compute the card from the results, the committed weights and the rules that were found."""
    return CARD.format(
        steps=N_STEPS,
        batch=BATCH_SIZE,
        files=file_table(),
        n_pairs=N_ITEMS // 2,
        pages=rules()["pages"],
        scores=score_table(),
        slopes=slope_table(),
        controls=control_table(),
        n_controls=sum(run["steps"] != N_STEPS or run["bare"] for run in read_results()),
    )


def write_card() -> None:
    """Keep the weights of each size's first seed, where they were trained here; write the card."""
    for size in SIZES:
        if (FOLDER / "runs" / str(Run(size, 0))).exists():
            commit_weights(size)
    write_text(FOLDER / "README.md", card())


def check_card() -> list[str]:
    """Return the lines by which the card (-) and what it is computed from (+) differ."""
    written = (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
    return [line for line in ndiff(written, card().splitlines()) if line.startswith(("- ", "+ "))]

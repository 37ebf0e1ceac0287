"""The models of chapter 8: trained, scored, and written down with where they come from.

Every run has a folder in `models/runs/` that is not committed. `models/results.json` holds what
came out of all runs; the best of each size and the card, `models/README.md`, are made from them.
"""

import hashlib
import json
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import cache
from itertools import islice, product
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

import miniweb
from course.chapters import ROOT
from course.notebooks import write_text
from gpt2.data import DocumentRows
from gpt2.decoder import GPT, GPTConfig, count_parameters
from gpt2.prompting import (
    bootstrap,
    choose_candidates,
    complete,
    exact_match,
    slot_accuracy,
    with_examples,
)
from gpt2.tokenizer import Tokenizer, atomic_file
from gpt2.training import (
    CHECKPOINT,
    TrainingConfig,
    evaluate,
    load_model,
    new_optimizer,
    read_checkpoint,
    train,
    train_step,
)

FOLDER = ROOT / "models"
WORLD = miniweb.MEDIUM
GENRES = {
    "story": 12,
    "reading": 40,
    "encyclopedia": 13,
    "question": 10,
    "post": 12,
    "bilingual": 12,
    "chat": 1,
}
N_CTX, N_MERGES, POOL, BATCH_SIZE = 192, 767, 6000, 16
SIZES = {  # layers, width, heads, peak learning rate
    "0.1M": (2, 48, 2, 5e-3),
    "0.3M": (3, 80, 4, 4e-3),
    "0.9M": (4, 128, 4, 3e-3),
    "2.0M": (6, 160, 5, 2e-3),
}
SEEDS = (0, 1, 2)
N_STEPS, EVERY = 12_000, 500  # steps; the weights are kept every EVERY steps
N_ITEMS, ITEM_SEED = 250, 2019
N_CURVE, CURVE_EVERY = 100, 1000  # items and steps, for abilities against tokens
TASKS = ("reading", "question", "summary", "translation", "cloze", "choice")
N_NEW = {"question": 16, "summary": 16, "translation": 32, "asked": 32}  # tokens, else 6
LIMITS = ("where", "who", "asked")  # shown beside them: what arrives late or never


def documents(seed: int) -> Iterator[miniweb.Document]:
    """Write the pages of one seed, without end."""
    return miniweb.documents(seed, WORLD, GENRES)


def pages(run_seed: int, pool: int) -> list[str]:
    """Return the pages that a run sees in one pool; no two runs share one seed."""
    return [page.text for page in islice(documents(1000 * (run_seed + 1) + pool), POOL)]


@cache
def items(task: str) -> list[miniweb.Item]:
    """Draw the test items of a task, about combinations that no page holds."""

    def draw(kind: str, n: int) -> list[miniweb.Item]:
        return miniweb.test_items(kind, ITEM_SEED, n, WORLD)

    if task == "translation":
        pairs = example_pairs()
        two = [(pairs[i], pairs[i + 1]) for i in range(0, 2 * N_ITEMS, 2)]
        return [
            item._replace(prompt=with_examples(item.prompt, examples))
            for item, examples in zip(draw("sentence", N_ITEMS), two, strict=True)
        ]
    if task == "asked":
        return [
            item._replace(prompt=f'Q: How do you say "{item.prompt[:-2]}" in Korean?\nA:')
            for item in draw("sentence", N_ITEMS)
        ]
    return draw(task, N_ITEMS)


def example_pairs() -> list[tuple[str, str]]:
    """Return sentences with their Korean, as pages hold them, for the prompts of translations."""
    texts = (page.text for page in miniweb.documents(ITEM_SEED, WORLD, ["bilingual"]))
    lines = (line.split(" = ") for text in texts for line in text.split("\n") if " = " in line)
    sentences = (tuple(pair) for pair in lines if len(pair[0].split()) == 5)
    return list(islice(sentences, 2 * N_ITEMS))  # type: ignore[arg-type]


def answers(model: GPT, tokenizer: Tokenizer, task: str, n: int = N_ITEMS) -> list[str]:
    """Let a model answer the first n items of a task, by greedy text or by its choice."""
    asked = items(task)[:n]
    prompts = [item.prompt for item in asked]
    if task == "choice":
        return choose_candidates(model, tokenizer, prompts, [item.candidates for item in asked])
    texts = complete(model, tokenizer, prompts, N_NEW.get(task, 6))
    return [text.split(".")[0] for text in texts] if task == "cloze" else texts


def score(task: str, given: Sequence[str]) -> np.ndarray:
    """Score the answers to a task's first items, each from 0 to 1: (N,)."""
    references = [item.answer for item in items(task)[: len(given)]]
    return (slot_accuracy if task == "summary" else exact_match)(given, references)


def baselines(task: str) -> dict[str, float]:
    """Score what understands nothing: guesses among what is offered, and the best cheap rules."""
    asked = items(task)
    references = [item.answer for item in asked]

    def right(given: Sequence[str]) -> float:
        return float(score(task, given).mean())

    majority = Counter(references).most_common(1)[0][0]
    rules = {"majority answer": right([majority] * len(references))}
    if task == "question":
        rules["majority by kind of question"] = right([most_told(item) for item in asked])
    if task == "summary":
        rules["another page's summary"] = right(references[1:] + references[:1])
    if task == "translation":
        rules["the example's answer"] = right([example_answer(item) for item in asked])
    if asked[0].candidates:
        rules["chance"] = float(np.mean([1 / len(item.candidates) for item in asked]))
        rules["first named"] = right([item.candidates[0] for item in asked])
        rules["last named"] = right([item.candidates[-1] for item in asked])
    return rules


def most_told(item: miniweb.Item) -> str:
    """Return the commonest answer to a question's kind, over all countries."""
    kind = next(name for name in WORLD.attributes if name in item.prompt)
    told = Counter(getattr(country, kind) for country, name in WORLD.facts if name == kind)
    return str(told.most_common(1)[0][0])


def example_answer(item: miniweb.Item) -> str:
    """Return the Korean of the example pair next to the prompt."""
    return item.prompt.split("\n")[-2].partition(" = ")[2]


def new_model(size: str, seed: int) -> GPT:
    """Build a model, with matrices as widely spread as 0.02 is for a width of 768."""
    n_layer, n_embd, n_head, _ = SIZES[size]
    torch.manual_seed(seed)
    model = GPT(GPTConfig(N_MERGES + 257, N_CTX, n_embd, n_head, n_layer))
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_((768 / n_embd) ** 0.5)
    return model


def training_config(size: str) -> TrainingConfig:
    """Return the one schedule, with the peak that suits the size: the wider, the lower."""
    peak = SIZES[size][3]
    return TrainingConfig(
        n_steps=N_STEPS, learning_rate=peak, min_learning_rate=peak / 10, save_every=EVERY
    )


def batches(tokenizer: Tokenizer, seed: int) -> DocumentRows:
    """Lay out the pages of a run, fresh ones for as long as it lasts.

    Raises ValueError if a page says what is to be held out.
    """

    def pool(k: int) -> list[list[int]]:
        texts = pages(seed, k)
        if leaks := miniweb.find_leaks(texts, WORLD):
            raise ValueError(f"pool {k} of seed {seed} holds {leaks[0].words}: {leaks[0].text!r}")
        return [tokenizer.encode(text) for text in texts]

    return DocumentRows(pool, tokenizer.end_of_text, N_CTX, BATCH_SIZE, seed)


def train_run(size: str, seed: int) -> str:
    """Train one model to the end, from where it was left; keep its weights every EVERY steps."""
    torch.set_num_threads(1)  # two runs with one thread each beat one with two
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder, config = FOLDER / "runs" / f"{size}-{seed}", training_config(size)
    model, rows = new_model(size, seed).to(device), batches(Tokenizer.load(FOLDER), seed)
    checkpoint = folder / CHECKPOINT
    start = read_checkpoint(checkpoint, "rng.")[0]["step"] if checkpoint.exists() else None
    log = [row for row in read_log(folder) if row["step"] <= (start or 0)]
    before = log[-1] if log else {"tokens": 0, "seconds": 0}
    losses: list[Tensor] = []
    counts: list[int] = []
    clock = perf_counter()

    def note(step: int, loss: Tensor, n_targets: int) -> None:
        """Add up; every EVERY steps, write the log and the weights before the checkpoint."""
        losses.append(loss)
        counts.append(n_targets)
        if step % EVERY:
            return
        n_tokens, mean = before["tokens"] + sum(counts), float(torch.stack(losses).mean())
        seconds = round(before["seconds"] + perf_counter() - clock)
        losses.clear()
        log.append({"step": step, "tokens": n_tokens, "loss": round(mean, 4), "seconds": seconds})
        write_text(folder / "log.json", json.dumps(log))
        keep_weights(model, step, config, folder / f"{step:05}.safetensors")
        seen = f"{n_tokens / 1e6:.1f} M tokens, loss {mean:.3f}"
        print(f"{size} seed {seed}: step {step} of {N_STEPS}, {seen}", flush=True)

    train(model, rows, config, folder, resume=start is not None, progress=False, on_step=note)
    return f"{size}-{seed}"


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


def train_all(sizes: Sequence[str] = tuple(SIZES), seeds: Sequence[int] = SEEDS) -> None:
    """Train every model that results.json does not hold yet, as many at a time as there are cores.

    A run that was interrupted goes on. To train all again, move results.json away.
    """
    if not (FOLDER / "vocab.bpe").exists():
        texts = (page.text for page in islice(documents(0), 15_000))
        Tokenizer.train(texts, N_MERGES).save(FOLDER)
    known = {(run["size"], run["seed"]) for run in read_results()}
    every = [(size, seed) for seed in seeds for size in reversed(sizes)]
    todo = [run for run in every if run not in known]
    n = os.cpu_count() or 1
    hours = estimate(todo) / n / 3600
    print(f"{len(todo)} of {len(every)} runs to do, {n} at a time: {hours:.1f} hours", flush=True)
    with ProcessPoolExecutor(n, get_context("spawn")) as pool:
        for done in as_completed([pool.submit(train_run, *run) for run in todo]):
            print(f"{done.result()}: done", flush=True)


def estimate(runs: Sequence[tuple[str, int]]) -> float:
    """Foretell the seconds that runs will take on one thread, from a few steps of each size."""
    torch.set_num_threads(1)
    tokenizer, seconds = Tokenizer.load(FOLDER), {}
    for size in {size for size, _ in runs}:
        model, rows = new_model(size, 0), batches(tokenizer, 0)
        optimizer, start = new_optimizer(model, training_config(size)), 0.0
        for step in range(25):
            if step == 5:
                start = perf_counter()
            train_step(model, optimizer, rows, step, training_config(size))
        seconds[size] = (perf_counter() - start) / 20
    return sum(seconds[size] * (N_STEPS - done_steps(size, seed)) for size, seed in runs)


def done_steps(size: str, seed: int) -> int:
    """Return how far a run has come."""
    log = read_log(FOLDER / "runs" / f"{size}-{seed}")
    return log[-1]["step"] if log else 0


def validation(tokenizer: Tokenizer) -> DocumentRows:
    """Lay out pages that no run has trained on."""
    return batches(tokenizer, 97)


def measure(path: Path, n: int = N_ITEMS) -> dict[str, Any]:
    """Score the weights in a file on every task, and on fresh pages in nats a token."""
    model, tokenizer = load_model(path), Tokenizer.load(FOLDER)
    tasks = (*TASKS, *LIMITS)
    return {
        "loss": round(evaluate(model, validation(tokenizer), 100), 4),
        "scores": {
            task: round(float(score(task, answers(model, tokenizer, task, n)).mean()), 4)
            for task in tasks
        },
    }


def sha256(path: Path) -> str:
    """Return the fingerprint of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def describe_run(size: str, seed: int) -> dict[str, Any]:
    """Write down a finished run: what it was, what it cost, and what came out."""
    folder = FOLDER / "runs" / f"{size}-{seed}"
    log, last = read_log(folder), folder / f"{N_STEPS:05}.safetensors"
    curve = [
        {"step": row["step"], "tokens": row["tokens"]}
        | measure(folder / f"{row['step']:05}.safetensors", N_CURVE)
        for row in log
        if row["step"] % CURVE_EVERY == 0
    ]
    return {
        "size": size,
        "seed": seed,
        "n_parameters": count_parameters(new_model(size, seed)),
        "steps": N_STEPS,
        "tokens": log[-1]["tokens"],
        "seconds": log[-1]["seconds"],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "commit": commit(),
        "sha256": sha256(last),
        **measure(last),
        "curve": curve,
    }


def commit() -> str:
    """Name the commit of the checkout, or say that there is none."""
    call = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    found = subprocess.run(call, capture_output=True, text=True, check=False).stdout.strip()
    return found or "unknown"


def read_results() -> list[dict[str, Any]]:
    """Return what came out of every run that was written down."""
    path = FOLDER / "results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def gather() -> None:
    """Measure every finished run that is not in results.json yet; keep the best of each size."""
    results = read_results()
    known = {(run["size"], run["seed"]) for run in results}
    for size, seed in product(SIZES, SEEDS):
        if (size, seed) not in known and done_steps(size, seed) == N_STEPS:
            results.append(describe_run(size, seed))
            print(f"{size} seed {seed}: {results[-1]['scores']}", flush=True)
            results.sort(key=lambda run: (run["n_parameters"], run["seed"]))
            write_text(FOLDER / "results.json", json.dumps(results, indent=1) + "\n")
    for size in SIZES:
        if runs := [run for run in results if run["size"] == size]:
            chosen = min(runs, key=lambda run: run["loss"])  # by fresh pages, never by test items
            source = FOLDER / "runs" / f"{size}-{chosen['seed']}" / f"{N_STEPS:05}.safetensors"
            if source.exists():
                with atomic_file(FOLDER / f"{size}.safetensors") as file:
                    file.write(source.read_bytes())


CARD = """\
# The models of chapter 8

Small GPT-2s that this project has trained on the miniweb, from random weights, on nothing but the
next token. They know its {n_people} people and {n_countries} countries and are of no use elsewhere.
They may be used under the licence of the code.

- **Text**: pages of `miniweb.MEDIUM`, in the shares of `GENRES` in `src/course/models.py`, fresh
  ones for every step. Every page was searched for held-out combinations before it was used; a run
  stops at the first one.
- **Training**: {steps:,} steps of {batch} pages, float32, AdamW, one schedule; seeds {seeds}.
  `make models` trains them again, `models/results.json` has every run: seed, tokens, seconds,
  machine, commit, sha256, scores, and scores along the way.
- **Committed**: of each size the run with the lowest loss on fresh pages; test items had no say.

Scores on {n_items} held-out items a task, from 0 to 1, greedy answers, with 95 % bootstrap
intervals, beside the best rule that understands nothing. `course models --check` computes all of
this again from the weights.

| model | seed | parameters | tokens | loss, nats a token | sha256 |
|---|---|---|---|---|---|
{files}

{scores}
"""


def interval(scores: np.ndarray) -> str:
    """Write a mean with its 95 % interval."""
    low, high = bootstrap(scores)
    return f"{scores.mean():.3f} ({low:.3f} to {high:.3f})"


def card() -> str:
    """Compute the card from the committed weights: all figures but those of the training itself."""
    tokenizer = Tokenizer.load(FOLDER)
    names = [size for size in SIZES if (FOLDER / f"{size}.safetensors").exists()]
    models = {size: load_model(FOLDER / f"{size}.safetensors") for size in names}
    runs = {run["sha256"]: run for run in read_results()}
    files = []
    for size in names:
        run = runs[sha256(FOLDER / f"{size}.safetensors")]
        loss = evaluate(models[size], validation(tokenizer), 100)
        files.append(
            f"| `{size}.safetensors` | {run['seed']} | {run['n_parameters']:,} "
            f"| {run['tokens'] / 1e6:.1f} M | {loss:.3f} | `{run['sha256']}` |"
        )
    rows = [f"| task | {' | '.join(names)} | best cheap rule |", "|---" * (len(names) + 2) + "|"]
    for task in (*TASKS, *LIMITS):
        cells = [interval(score(task, answers(m, tokenizer, task))) for m in models.values()]
        rule, value = max(baselines(task).items(), key=lambda pair: pair[1])
        rows.append(f"| {task} | {' | '.join(cells)} | {value:.3f} ({rule}) |")
    return CARD.format(
        n_people=WORLD.n_people,
        n_countries=WORLD.n_countries,
        steps=N_STEPS,
        batch=BATCH_SIZE,
        seeds=", ".join(map(str, SEEDS)),
        n_items=N_ITEMS,
        files="\n".join(files),
        scores="\n".join(rows),
    )


def write_card() -> None:
    """Write the card anew."""
    write_text(FOLDER / "README.md", card())


def check_card() -> list[str]:
    """Name each line of the card that the committed weights do not bear out."""
    written = (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
    return [line for line in card().splitlines() if line not in written]

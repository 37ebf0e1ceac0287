"""Chapter 10's comparisons: an encoder or none on the same pairs, and a web that repeats its pairs.

Each seed draws its own pairs, its own weights and its own order. What came out of the runs stands
in `models/translators/`; a run that stands there is not made again.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import cycle, islice, product
from statistics import mean, stdev
from typing import Any

import torch

import miniweb
from course import models
from course.chapters import ROOT
from course.notebooks import write_text
from gpt2.data import DocumentRows
from gpt2.decoder import count_parameters
from gpt2.prompting import exact_match
from gpt2.tokenizer import Tokenizer
from gpt2.training import CHECKPOINT, train
from gpt2.transformer import (
    DecoderOnly,
    SentencePairs,
    Transformer,
    TransformerConfig,
    train_translator,
    translate,
)

LISTS = ROOT / "models" / "translators"
FIRST_SEED, N_PAGES, N_MERGES = 11, 3000, 767  # of pages of pairs
ITEM_SEED, N_ITEMS, N_NEW = 5, 200, 20
MODELS = ("encoder-decoder", "decoder-only")
AMOUNTS, SEEDS = (200, 400, 100, 300), range(5)  # in the order in which they are run
SIZE, N_REPEATED = "0.3M", 400  # the web with its pairs repeated
FORM = re.compile(r'^(.+) = (.+)$|"([^"]+)" is "([^"]+)" in Korean\.', re.MULTILINE)
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # 0.975 quantile of t, by number of values

Texts = tuple[str, str]


def read_pairs(seed: int) -> list[Texts]:
    """Collect the pairs of bilingual pages. Raises ValueError if one is to be held out."""
    source = miniweb.documents(FIRST_SEED + seed, models.WORLD, ["bilingual"])
    pages = [page.text for page in islice(source, N_PAGES)]
    if leaks := miniweb.find_leaks(pages, models.WORLD):
        raise ValueError(f"a page of seed {seed} holds {leaks[0].words}: {leaks[0].text!r}")
    found = (match for page in pages for match in FORM.findall(page))
    return [(a or c, b or d) for a, b, c, d in found]


@cache
def tokenizer() -> Tokenizer:
    """Train the one tokenizer of all runs, on the pairs of seed 0."""
    return Tokenizer.train((text for pair in read_pairs(0) for text in pair), N_MERGES)


@cache
def tests() -> dict[str, list[Texts]]:
    """Return the held-out phrases and sentences, with their translations."""
    kinds = ("phrase", "sentence")
    items = {kind: miniweb.test_items(kind, ITEM_SEED, N_ITEMS, models.WORLD) for kind in kinds}
    return {
        kind: [(item.prompt.removesuffix(" ="), item.answer) for item in found]
        for kind, found in items.items()
    }


def untrained(kind: str, seed: int) -> Transformer:
    """Build a model: two blocks with an encoder and two without, or five of a decoder alone.

    Raises ValueError for a kind that is not in MODELS.
    """
    if kind not in MODELS:
        raise ValueError(f"{kind!r} is no model; there are {', '.join(MODELS)}")
    end, pad = tokenizer().end_of_text, tokenizer().n_vocab
    shape = TransformerConfig(pad + 1, end, pad, n_embd=64, n_head=4, n_layer=2)
    torch.manual_seed(seed)
    if kind == "encoder-decoder":
        return Transformer(shape)
    return DecoderOnly(replace(shape, n_layer=5))


def accuracy(model: Transformer) -> dict[str, float]:
    """Return the shares of held-out phrases and sentences translated right."""
    scores = {}
    for kind, test in tests().items():
        english, korean = zip(*test, strict=True)
        given = translate(model, tokenizer(), english, N_NEW)
        scores[kind] = float(exact_match(given, korean).mean())
    return scores


def train_on_list(kind: str, n_pairs: int, seed: int) -> dict[str, Any]:
    """Train one model on the first pairs of a seed, and score it."""
    torch.set_num_threads(1)
    model, encode = untrained(kind, seed), tokenizer().encode
    pairs = [(encode(english), encode(korean)) for english, korean in read_pairs(seed)[:n_pairs]]
    data = SentencePairs(pairs, model.config.end, model.config.pad, batch_size=32, seed=seed)
    train_translator(model, data)
    what = {"model": kind, "pairs": n_pairs, "seed": seed}
    return what | {
        "n_parameters": count_parameters(model),
        "commit": models.commit(),
        **accuracy(model),
    }


def planned() -> Iterator[tuple[str, int, int]]:
    """List all runs, so that both models of an amount and a seed follow one another."""
    for n_pairs, seed, kind in product(AMOUNTS, SEEDS, MODELS):
        yield kind, n_pairs, seed


def results(name: str = "pairs") -> list[dict[str, Any]]:
    """Return what came out of every run that was written down: of `pairs` or of the `web`."""
    path = LISTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def write_down(name: str, rows: list[dict[str, Any]]) -> None:
    """Write what came out of all runs."""
    write_text(LISTS / f"{name}.json", json.dumps(rows, indent=1) + "\n")


def train_lists() -> None:
    """Make every run that is not written down yet; write each down as it ends."""
    known = {(row["model"], row["pairs"], row["seed"]) for row in results()}
    for what in planned():
        if what not in known:
            new = train_on_list(*what)
            print(f"{what[0]}, {what[1]} pairs, seed {what[2]}: {new['sentence']}", flush=True)
            rows = [*results(), new]
            rows.sort(key=lambda row: (row["pairs"], row["model"], row["seed"]))
            write_down("pairs", rows)


def repeated_pages(seed: int, pool: int) -> list[str]:
    """Return the pages of a run of chapter 8, each bilingual one exchanged for one of a few.

    These hold the first N_REPEATED pairs of seed 0 and no other, and come again and again.
    """
    few, n_pairs = [], 0
    for page in miniweb.documents(FIRST_SEED, models.WORLD, ["bilingual"]):
        n_pairs += len(FORM.findall(page.text))
        if n_pairs > N_REPEATED:
            break
        few.append(page.text)
    again = cycle(few)
    fresh = islice(models.documents(1000 * (seed + 1) + pool), models.POOL)
    return [next(again) if page.genre == "bilingual" else page.text for page in fresh]


def train_on_web(seed: int) -> None:
    """Train chapter 8's 0.3M model on repeated pairs, from where it was left; score it on the way.

    Size, steps, schedule, other pages and test items are those of chapter 8's run of this seed.
    """
    torch.set_num_threads(1)
    folder, config = ROOT / "models" / "runs" / f"repeated-{seed}", models.training_config(SIZE)
    encoder = Tokenizer.load(models.FOLDER)
    model = models.new_model(SIZE, seed)

    def pool(k: int) -> list[list[int]]:
        return [encoder.encode(text) for text in repeated_pages(seed, k)]

    data = DocumentRows(pool, encoder.end_of_text, models.N_CTX, models.BATCH_SIZE, seed)
    rows = results("web")
    curve: list[dict[str, Any]] = next((row["curve"] for row in rows if row["seed"] == seed), [])
    if not curve:
        rows.append({"seed": seed, "pairs": N_REPEATED, "curve": curve})
    for step in range(len(curve) * models.CURVE_EVERY, models.N_STEPS, models.CURVE_EVERY):
        until = step + models.CURVE_EVERY
        resume = (folder / CHECKPOINT).exists()
        train(model, data, config, folder, resume=resume, progress=False, until=until)
        given = models.answers(model, encoder, "translation", models.N_CURVE)
        right = float(models.score("translation", given).mean())
        curve.append({"step": until, "translation": round(right, 4)})
        write_down("web", rows)
        print(f"web, {N_REPEATED} pairs repeated, seed {seed}, step {until}: {right}", flush=True)


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of 2 to 5 values and its 95 % interval by Student's t.

    Source: Student 1908.
    """
    middle = mean(values)
    half = STUDENT[len(values)] * stdev(values) / len(values) ** 0.5
    return middle, middle - half, middle + half

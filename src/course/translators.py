"""Chapter 10's comparison: translators with and without an encoder, on the same pairs, five times.

Each seed draws its own pairs, its own weights and its own order. What came out of each run stands
in `models/translators/results.json`; a run that stands there is not made again.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice, product
from statistics import mean, stdev
from typing import Any

import torch

import miniweb
from course.chapters import ROOT
from course.models import commit
from course.notebooks import write_text
from gpt2.decoder import count_parameters
from gpt2.prompting import exact_match
from gpt2.tokenizer import Tokenizer
from gpt2.transformer import (
    DecoderOnly,
    SentencePairs,
    Transformer,
    TransformerConfig,
    train_translator,
    translate,
)

RESULTS = ROOT / "models" / "translators" / "results.json"
WORLD = miniweb.MEDIUM
FIRST_SEED, N_PAGES, N_MERGES = 11, 3000, 767  # of pages of pairs
ITEM_SEED, N_ITEMS, N_NEW = 5, 200, 20
MODELS = ("encoder-decoder", "decoder-only")
AMOUNTS, SEEDS = (200, 400, 100, 300), range(5)  # the amounts in the order of their weight
FORM = re.compile(r'^(.+) = (.+)$|"([^"]+)" is "([^"]+)" in Korean\.', re.MULTILINE)
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # 0.975 quantile of t, by number of values

Texts = tuple[str, str]


def read_pairs(seed: int) -> list[Texts]:
    """Collect the pairs of bilingual pages. Raises ValueError if one is to be held out."""
    source = miniweb.documents(FIRST_SEED + seed, WORLD, ["bilingual"])
    pages = [page.text for page in islice(source, N_PAGES)]
    if leaks := miniweb.find_leaks(pages, WORLD):
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
    items = {kind: miniweb.test_items(kind, ITEM_SEED, N_ITEMS, WORLD) for kind in kinds}
    return {
        kind: [(item.prompt.removesuffix(" ="), item.answer) for item in found]
        for kind, found in items.items()
    }


def new_model(kind: str, seed: int) -> Transformer:
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


def run(kind: str, n_pairs: int, seed: int) -> dict[str, Any]:
    """Train one model on the first pairs of a seed, and score it."""
    torch.set_num_threads(1)
    model, encode = new_model(kind, seed), tokenizer().encode
    pairs = [(encode(english), encode(korean)) for english, korean in read_pairs(seed)[:n_pairs]]
    data = SentencePairs(pairs, model.config.end, model.config.pad, batch_size=32, seed=seed)
    train_translator(model, data)
    what = {"model": kind, "pairs": n_pairs, "seed": seed}
    return what | {"n_parameters": count_parameters(model), "commit": commit(), **accuracy(model)}


def planned() -> Iterator[tuple[str, int, int]]:
    """List all runs, so that both models of an amount and a seed follow one another."""
    for n_pairs, seed, kind in product(AMOUNTS, SEEDS, MODELS):
        yield kind, n_pairs, seed


def results() -> list[dict[str, Any]]:
    """Return what came out of every run that was written down."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []


def train_all() -> None:
    """Make every run that is not written down yet; write each down as it ends."""
    known = {(row["model"], row["pairs"], row["seed"]) for row in results()}
    for what in planned():
        if what not in known:
            new = run(*what)
            print(f"{what[0]}, {what[1]} pairs, seed {what[2]}: {new['sentence']}", flush=True)
            rows = [*results(), new]
            rows.sort(key=lambda row: (row["pairs"], row["model"], row["seed"]))
            write_text(RESULTS, json.dumps(rows, indent=1) + "\n")


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of 2 to 5 values and its 95 % interval by Student's t.

    Source: Student 1908.
    """
    middle = mean(values)
    half = STUDENT[len(values)] * stdev(values) / len(values) ** 0.5
    return middle, middle - half, middle + half

"""Chapter 10's comparisons: an encoder or none on the same pairs, and a GPT that reads a web.

Each seed draws its own pairs, its own weights and its own order. What came out of the runs stands
in `models/translators/`; a run that stands there is not made again. The web is the miniweb's
`MEDIUM` world; its GPT is told nothing about translation, and meets pairs on one page in eight.
`web.safetensors` holds the weights of seed 0 with new pairs, as `course.models.keep_weights` does.
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
from course.chapters import ROOT, commit
from course.notebooks import write_text
from gpt2.data import DocumentRows
from gpt2.decoder import GPT, GPTConfig, count_parameters
from gpt2.prompting import complete, exact_match, with_examples
from gpt2.tokenizer import Tokenizer
from gpt2.training import CHECKPOINT, TrainingConfig, load_model, train
from gpt2.transformer import (
    DecoderOnly,
    SentencePairs,
    Transformer,
    TransformerConfig,
    train_translator,
    translate,
)

TRANSLATORS = ROOT / "models" / "translators"
WEB_WORLD = miniweb.MEDIUM
FIRST_SEED, N_PAGES, N_MERGES = 11, 3000, 767  # of pages of pairs
ITEM_SEED, N_ITEMS, N_NEW = 5, 200, 20
MODELS = ("encoder-decoder", "decoder-only")
BLOCKS = {"decoder-only": 5, "decoder-only, 3 blocks": 3, "decoder-only, 2 blocks": 2}
AMOUNTS, SEEDS = (200, 400, 100, 300), range(5)  # in the order in which they are run
N_DEPTH, DEPTH_SEEDS = 200, range(5)  # pairs and draws of the runs with fewer blocks

# The web: 12 pages of 100 hold pairs.
WEB_GENRES = {
    "story": 12,
    "reading": 40,
    "encyclopedia": 13,
    "question": 10,
    "post": 12,
    "bilingual": 12,
    "chat": 1,
}
GPT_SHAPE = GPTConfig(1024, n_ctx=192, n_embd=80, n_head=4, n_layer=3)
WEB_CONFIG = TrainingConfig(n_steps=12_000, learning_rate=4e-3, min_learning_rate=4e-4)
POOL, BATCH_SIZE, EVERY = 6000, 16, 1000  # pages, pages a step, steps between two scores
N_REPEATED, N_ASKED = 400, 100  # pairs of the web that repeats its own; sentences asked
FORM = re.compile(r'^(.+) = (.+)$|"([^"]+)" is "([^"]+)" in Korean\.', re.MULTILINE)
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # 0.975 quantile of t, by number of values

Texts = tuple[str, str]


def read_pairs(seed: int) -> list[Texts]:
    """Collect the pairs of bilingual pages. Raises ValueError if one is to be held out."""
    source = miniweb.documents(FIRST_SEED + seed, WEB_WORLD, ["bilingual"])
    pages = [page.text for page in islice(source, N_PAGES)]
    if leaks := miniweb.find_leaks(pages, WEB_WORLD):
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
    items = {kind: miniweb.test_items(kind, ITEM_SEED, N_ITEMS, WEB_WORLD) for kind in kinds}
    return {
        kind: [(item.prompt.removesuffix(" ="), item.answer) for item in found]
        for kind, found in items.items()
    }


def untrained(kind: str, seed: int) -> Transformer:
    """Build a model: an encoder and a decoder of two blocks each, or one stack of BLOCKS[kind].

    Raises ValueError for an unknown kind.
    """
    if kind not in (MODELS[0], *BLOCKS):
        raise ValueError(f"{kind!r} is no model; there are {'; '.join((MODELS[0], *BLOCKS))}")
    end, pad = tokenizer().end_of_text, tokenizer().n_vocab
    shape = TransformerConfig(pad + 1, end, pad, n_embd=64, n_head=4, n_layer=2)
    torch.manual_seed(seed)
    if kind == "encoder-decoder":
        return Transformer(shape)
    return DecoderOnly(replace(shape, n_layer=BLOCKS[kind]))


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
        "commit": commit(),
        **accuracy(model),
    }


def planned() -> Iterator[tuple[str, int, int]]:
    """List all runs: both models of each amount and seed in turn, then the shallower stacks."""
    for n_pairs, seed, kind in product(AMOUNTS, SEEDS, MODELS):
        yield kind, n_pairs, seed
    for seed, kind in product(DEPTH_SEEDS, BLOCKS):
        if kind not in MODELS:
            yield kind, N_DEPTH, seed


def results(name: str = "pairs") -> list[dict[str, Any]]:
    """Return what came out of every run that was written down: of `pairs` or of the `web`."""
    path = TRANSLATORS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def write_down(name: str, rows: list[dict[str, Any]]) -> None:
    """Write what came out of all runs."""
    write_text(TRANSLATORS / f"{name}.json", json.dumps(rows, indent=1) + "\n")


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


def web_pages(seed: int, pool: int, repeated: bool) -> list[str]:
    """Return the pages of a pool of a run; no two seeds share one.

    With `repeated`, each bilingual page is exchanged for one of a few, which hold the first
    N_REPEATED pairs of seed 0 and come again and again.
    """
    source = miniweb.documents(1000 * (seed + 1) + pool, WEB_WORLD, WEB_GENRES)
    pages = list(islice(source, POOL))
    again = cycle(repeated_pages())
    texts = [next(again) if repeated and page.genre == "bilingual" else page.text for page in pages]
    if leaks := miniweb.find_leaks(texts, WEB_WORLD):
        raise ValueError(f"pool {pool} of seed {seed} holds {leaks[0].words}: {leaks[0].text!r}")
    return texts


@cache
def repeated_pages() -> list[str]:
    """Return the bilingual pages that hold the first N_REPEATED pairs of seed 0, and few others."""
    few, n_pairs = list[str](), 0
    for page in miniweb.documents(FIRST_SEED, WEB_WORLD, ["bilingual"]):
        n_pairs += len(FORM.findall(page.text))
        if n_pairs > N_REPEATED:
            return few
        few.append(page.text)
    raise AssertionError("documents never end")


def ask(model: GPT) -> float:
    """Return the share of held-out sentences that a GPT of the web has right, given two pairs."""
    examples = [pair for pair in read_pairs(0) if len(pair[0].split()) == 5][:2]
    english, korean = zip(*tests()["sentence"][:N_ASKED], strict=True)
    prompts = [with_examples(f"{text} =", examples) for text in english]
    given = complete(model, Tokenizer.load(TRANSLATORS), prompts, 32)
    return float(exact_match(given, korean).mean())


def train_on_web(seed: int, repeated: bool) -> None:
    """Train a GPT on the web, from where it was left; ask it every EVERY steps."""
    torch.set_num_threads(1)
    name = f"web-{'repeated' if repeated else 'fresh'}-{seed}"
    folder, encoder = ROOT / "models" / "runs" / name, Tokenizer.load(TRANSLATORS)
    torch.manual_seed(seed)
    model = GPT(GPT_SHAPE)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_((768 / GPT_SHAPE.n_embd) ** 0.5)

    def pool(k: int) -> list[list[int]]:
        return [encoder.encode(text) for text in web_pages(seed, k, repeated)]

    data = DocumentRows(pool, encoder.end_of_text, GPT_SHAPE.n_ctx, BATCH_SIZE, seed)
    pairs = N_REPEATED if repeated else None
    rows = [row for row in results("web") if (row["seed"], row["pairs"]) != (seed, pairs)]
    path, curve = folder / CHECKPOINT, list[dict[str, float]]()
    for row in results("web"):
        if (row["seed"], row["pairs"]) == (seed, pairs):
            curve = row["curve"]
    for done in range((len(curve) + 1) * EVERY, WEB_CONFIG.n_steps + 1, EVERY):
        train(model, data, WEB_CONFIG, folder, resume=path.exists(), progress=False, until=done)
        right = round(ask(load_model(folder)), 4)
        curve.append({"step": done, "translation": right})
        found = [*rows, {"seed": seed, "pairs": pairs, "curve": curve}]
        write_down("web", sorted(found, key=lambda row: (row["pairs"] or 0, row["seed"])))
        print(f"{name}, step {done}: {right}", flush=True)


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of 2 to 5 values and its 95 % interval by Student's t.

    Source: Student 1908.
    """
    middle = mean(values)
    half = STUDENT[len(values)] * stdev(values) / len(values) ** 0.5
    return middle, middle - half, middle + half

"""The models of chapter 8: their plan, their pieces, the arithmetic of the card, and the card."""

import json
import re
import subprocess
import sys
from itertools import islice, pairwise

import numpy as np
import pytest
import torch

from course import models, rules
from course.__main__ import main
from course.chapters import ROOT
from course.models import Run
from gpt2.tokenizer import Tokenizer
from gpt2.training import CHECKPOINT, read_checkpoint
from miniweb.leaks import find_leaks
from miniweb.longtail import documents, invented_world, real_world
from miniweb.tasks import Item, test_items
from miniweb.variants import VARIANTS


def test_the_plan_has_every_size_three_seeds_and_the_controls():
    runs = models.planned_runs()
    assert len(set(map(str, runs))) == len(runs)
    for size in models.SIZES:
        usual = [r.seed for r in runs if (r.size, r.steps, r.bare) == (size, models.N_STEPS, False)]
        assert usual == [0, 1, 2, 3, 4][: 5 if size == "1M" else 3]
    sizes = {size: models.n_parameters(size) for size in models.SIZES}
    assert 0.03e6 < min(sizes.values()) < 0.04e6 and 3.5e6 < max(sizes.values()) < 4.5e6
    longer = [run for run in runs if run.steps != models.N_STEPS]
    smallest = [r.seed for r in longer if (r.size, r.steps) == ("0.03M", 4 * models.N_STEPS)]
    assert smallest == [0, 1, 2]
    for small, large in pairwise(list(models.SIZES)[:4]):
        steps = models.as_much_compute(small, large)
        cost = sizes[small] * steps / (sizes[large] * models.N_STEPS)
        assert abs(cost - 1) < 0.05 and any((r.size, r.steps) == (small, steps) for r in longer)


def test_a_wider_and_deeper_model_learns_at_a_lower_peak_and_nothing_else_changes():
    configs = {size: Run(size, 0).config for size in models.SIZES}
    peaks = [config.learning_rate for config in configs.values()]
    assert peaks == sorted(peaks, reverse=True)
    for size, config in configs.items():
        width = models.SIZES[size][1]
        assert config.learning_rate == pytest.approx(0.1 / width)
        assert config.min_learning_rate == pytest.approx(config.learning_rate / 10)
        assert (config.n_steps, config.save_every) == (models.N_STEPS, models.EVERY)
        assert (config.betas, config.weight_decay) == ((0.9, 0.95), 0.1)


@pytest.mark.parametrize("size", models.SIZES)
def test_a_model_starts_with_positions_that_tell_each_distance_alike_everywhere(size):
    model = models.new_model(size, 0)
    places = model.wpe.weight.detach()  # twice the 0.02 that tokens have at a width of 768
    assert float(places.std()) == pytest.approx(0.04 * (768 / models.SIZES[size][1]) ** 0.5)
    for distance in (1, 2, 7):
        apart = (places[distance:] - places[:-distance]).norm(dim=1)
        torch.testing.assert_close(apart, apart[:1].expand_as(apart), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["0.3M-0", "0.3M-1-36000", "1M-0-bare", "1M-2-36000-bare"])
def test_a_run_is_found_by_its_name(name):
    assert str(models.parse(name)) == name and models.parse(name).bare == name.endswith("bare")
    assert models.parse(name, 4).world == 4 and str(models.parse(name, 4)) == f"{name}-world4"


@pytest.mark.parametrize(
    "name", ["", "0.3M", "5M-0", "0.3M-x", "0.3M-0-1-2", "0.3M--1", "0.3M-1-", "1M-0-bar"]
)
def test_a_name_that_is_no_run_is_refused(name, capsys):
    assert main(["models", name]) == 2
    assert "is no run: write a size of 0.03M, " in capsys.readouterr().err


def test_a_pair_counts_if_both_are_right():
    assert models.pairs("1101100011").tolist() == [1, 0, 0, 0, 1]
    items = models.items("choice", 1)[:8]
    given = [item.answer for item in items]
    given[2] = "a word"
    assert models.right(given, items) == "11011111"
    levels = models.by_level("choice", "11011111", 1)
    assert list(levels) == list(dict.fromkeys(item.level for item in items))
    assert levels[items[2].level] == 0 and levels[items[4].level] == 1


def test_a_slope_is_that_of_the_line_and_its_interval_holds_it():
    """Accuracies on a line of 0.2 a tenfold, read off 400 pairs of chance."""
    rng = np.random.default_rng(3)
    runs = []
    for size in models.SIZES:
        for seed in range(3):
            n = models.n_parameters(size)
            p = 0.1 + 0.2 * (np.log10(n) - 4.5)
            digits = "".join("11" if x < p else "10" for x in rng.random(400))
            runs.append({"n_parameters": n, "seed": seed, "right": {"cloze": digits}})
    slope, low, high = models.slope("cloze", runs)
    assert low < 0.2 < high and abs(slope - 0.2) < 0.05 and 0.01 < high - low < 0.2
    flat = [run | {"right": {"cloze": runs[0]["right"]["cloze"]}} for run in runs]
    assert models.slope("cloze", flat)[:2] == pytest.approx((0, 0), abs=1e-9)


def test_an_interval_over_seeds_and_pairs_holds_the_spread_of_both():
    runs = [{"seed": seed} for seed in range(3)]
    same = np.tile(np.arange(400) % 4 == 0, (3, 1)).astype(float)
    mean, low, high = models.interval(same, runs)
    assert mean == 0.25 and (mean - low) == pytest.approx(1.96 * (3 / 16 / 400) ** 0.5, rel=0.15)
    assert high - mean == pytest.approx(mean - low, abs=0.01)
    seeds_differ = np.array([[0.0] * 400, [0.5] * 400, [1.0] * 400])
    mean, low, high = models.interval(seeds_differ, runs)
    assert (mean, low, high) == (0.5, 0.0, 1.0)  # a 27th of the draws takes one seed three times


def test_chance_is_a_guess_among_what_is_offered(monkeypatch):
    assert models.chance("choice") == 0.25 and models.chance("question") == 0
    three = Item("", "a", ("a", "b", "c"), "")
    two, none = three._replace(candidates=("a", "b")), three._replace(candidates=())
    monkeypatch.setattr(models, "items", lambda task: (two, two, two, three, none, none))
    assert models.chance("reading") == pytest.approx((1 / 4 + 1 / 6 + 0) / 3)


def test_pages_of_a_bare_run_do_no_task_and_are_as_many():
    page = "I wore a hat.\nTL;DR: wore a hat\nQ: What?\nA: a hat\nTom saw A: nothing."
    assert models.without_tasks(page) == "I wore a hat.\nTom saw A: nothing."
    assert models.without_tasks("Q: What?\nA: a hat") == ""
    texts = models.pages(0, 0, invented_world(1), bare=True)
    assert len(texts) == models.POOL and all(texts)
    assert not any(cue in text for text in texts for cue in ("Q: ", "A: ", "TL;DR:"))


def test_the_strongest_rules_are_kept_beside_those_of_other_tasks(small):
    def rule(name, pair):
        return rules.Found(name, pair, pair, 7, ())

    models.keep_rules("cloze", 600, {"at most 9 numbers": rule("a", 0.5), "database": rule("b", 1)})
    found = {"at most 9 numbers": rule("c", 0.1), "at most 3 numbers": rule("e", 0.2)}
    models.keep_rules("choice", 600, {**found, "database": rule("d", 0)})
    kept = models.rules()
    assert kept["pages"] == 600 and kept["cloze"]["cheap"]["rule"] == "a"
    assert kept["cloze"]["database"] == {"pair": 1, "item": 1, "numbers": 7, "rule": "b"}
    assert kept["choice"]["cheap"]["rule"] == "e"  # more numbers have made the rule worse


def test_the_card_has_the_tables_of_results_and_rules_and_the_fingerprints_of_the_weights():
    card = (models.FOLDER / "README.md").read_text(encoding="utf-8")
    for table in (models.score_table(), models.slope_table(), models.control_table()):
        assert f"\n\n{table}\n" in card
    for size in models.SIZES:
        assert f"`{models.sha256(models.FOLDER / f'{size}.safetensors')}`" in card


@pytest.mark.soak  # it lets all six models answer all items
def test_the_committed_weights_score_what_the_card_says():
    assert models.check_card() == []


test_items.__test__ = False  # no test


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Short runs in an invented world, in a folder of their own."""
    texts = (page.text for page in islice(documents(0, invented_world(1)), 400))
    Tokenizer.train(texts, models.N_MERGES).save(tmp_path / "runs" / "tokenizer1")
    for name, value in (("FOLDER", tmp_path), ("EVERY", 10), ("POOL", 200), ("N_ITEMS", 12)):
        monkeypatch.setattr(models, name, value)
    monkeypatch.setattr(models, "N_CURVE", 12)
    models.items.cache_clear()
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)
    models.items.cache_clear()


def test_a_run_in_pieces_is_the_run_in_one(small, capsys):
    run = Run("0.03M", 1, 40, world=1)
    assert models.train_run(run, minutes=9)
    whole = (small / "runs" / str(run)).rename(small / "whole")
    pieces = 0
    while not models.train_run(run, minutes=1e-9):
        pieces += 1
        assert pieces < 9
    assert pieces >= 3  # a piece always gets somewhere
    again = small / "runs" / str(run)
    for name in (CHECKPOINT, *(f"{step:06}.safetensors" for step in (10, 20, 30, 40))):
        one, two = (read_checkpoint(folder / name) for folder in (whole, again))
        assert one[0] == two[0] and one[1].keys() == two[1].keys()
        assert all(torch.equal(one[1][key], two[1][key]) for key in one[1]), name
    assert (whole / "log.json").read_text() == (again / "log.json").read_text()
    assert main(["models", "0.03M-1-40", "--world", "1"]) == 0
    assert "written down" in capsys.readouterr().out
    (found,) = models.read_results()
    kept = {"size", "seed", "steps", "world", "tokens", "sha256", "loss", "right", "curve"}
    assert kept | {"variants"} <= set(found)
    assert {t: set(v) for t, v in found["variants"].items()} == {
        t: set(v) for t, v in VARIANTS.items()
    }
    assert set(found["right"]) == set(models.DIALS)
    assert all(len(digits) == 12 for digits in found["right"].values())
    assert json.loads((small / "results" / f"{run}.json").read_text()) == found


@pytest.mark.parametrize("task", models.TASKS)
def test_every_answer_fits_into_what_is_written(small, task):
    tokenizer = models.tokenizer_of(1)
    items = test_items(task, models.ITEM_SEED, 120, invented_world(1))
    longest = max(len(tokenizer.encode(f" {item.answer}")) for item in items)
    assert longest < models.N_NEW.get(task, 24)


def test_the_front_page_opens_with_what_its_command_writes():
    """The first item of `reading`: asked of the largest model, with an answer that no page has."""
    page = (ROOT / "index.md").read_text(encoding="utf-8")
    command = re.search(r"^\.venv/bin/python (-m gpt2 generate .*?)^```", page, re.M | re.S)[1]
    prompt, written = re.search(r'<pre class="answer">(.*?)<b>(.*?)</b></pre>', page, re.S).groups()
    run = subprocess.run(f"{sys.executable} {command}", shell=True, cwd=ROOT, capture_output=True)
    assert run.stdout.decode().rstrip("\n") == prompt + written, run.stderr
    item = models.items("reading")[0]
    assert (prompt, written.split("\n")[0]) == (item.prompt, f" {item.answer}")
    assert ("owner", ("Anna Garcia", "shirt")) in {
        (leak.kind, leak.words) for leak in find_leaks([prompt + written], real_world())
    }
    assert page.index("</pre>") < page.index("Start here") < page.index("\n## ")

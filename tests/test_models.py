"""The committed models: where they come from, what they score, and the claim of chapter 8."""

import json

import numpy as np
import pytest
import torch

from course import models
from course.__main__ import main
from gpt2.decoder import count_parameters
from gpt2.prompting import bootstrap
from gpt2.tokenizer import Tokenizer
from gpt2.training import load_model, read_checkpoint

RESULTS = models.read_results()
LARGEST = list(models.SIZES)[-1]


def test_the_card_is_what_the_committed_weights_score():
    assert models.check_card() == []


def test_a_changed_figure_is_named(monkeypatch, capsys):
    page = (models.FOLDER / "README.md").read_text(encoding="utf-8")
    line = next(line for line in page.splitlines() if line.startswith("| summary"))
    monkeypatch.setattr(models, "card", lambda: page.replace(line, "| summary | 1.000 |"))
    assert main(["models", "--check"]) == 1
    assert "the card should say: | summary | 1.000 |" in capsys.readouterr().out


def test_every_run_is_written_down_whole():
    assert {(run["size"], run["seed"]) for run in RESULTS} == {
        (size, seed) for size in models.SIZES for seed in models.SEEDS
    }
    for run in RESULTS:
        assert run["n_parameters"] == count_parameters(models.new_model(run["size"], 0))
        assert run["steps"] == models.N_STEPS and run["tokens"] > 300 * models.N_STEPS
        assert {"seconds", "machine", "commit", "sha256", "loss"} <= run.keys()
        assert [row["step"] for row in run["curve"]] == list(
            range(models.CURVE_EVERY, models.N_STEPS + 1, models.CURVE_EVERY)
        )
        assert run["scores"].keys() == {*models.TASKS, *models.LIMITS}


def test_the_committed_weights_are_the_best_of_their_size():
    total = 0
    for size in models.SIZES:
        path = models.FOLDER / f"{size}.safetensors"
        total += path.stat().st_size
        runs = [run for run in RESULTS if run["size"] == size]
        best = min(runs, key=lambda run: run["loss"])
        assert models.sha256(path) == best["sha256"]
        header, tensors = read_checkpoint(path)
        assert header["step"] == models.N_STEPS
        assert all(name.startswith("model.") for name in tensors)  # no optimizer
        assert load_model(path).config.n_vocab == Tokenizer.load(models.FOLDER).n_vocab
    assert total <= 25e6


def scores_of(size):
    """Let the committed model answer everything: task -> scores."""
    model = load_model(models.FOLDER / f"{size}.safetensors")
    tokenizer = Tokenizer.load(models.FOLDER)
    return {t: models.score(t, models.answers(model, tokenizer, t)) for t in models.TASKS}


def test_the_claim_holds_for_the_largest_model():
    """Above the best cheap rule on five tasks of six, and above 0.85 on three."""
    scores = scores_of(LARGEST)
    rules = {task: max(models.baselines(task).values()) for task in models.TASKS}
    above = [task for task, values in scores.items() if bootstrap(values)[0] > rules[task]]
    assert len(above) >= 5, (above, rules)
    assert sum(values.mean() > 0.85 for values in scores.values()) >= 3
    run = next(
        run
        for run in RESULTS
        if run["sha256"] == models.sha256(models.FOLDER / f"{LARGEST}.safetensors")
    )
    assert {task: round(float(v.mean()), 4) for task, v in scores.items()}.items() <= run[
        "scores"
    ].items()


def test_the_mean_over_tasks_and_seeds_grows_with_every_size():
    means = [
        np.mean(
            [run["scores"][task] for run in RESULTS for task in models.TASKS if run["size"] == size]
        )
        for size in models.SIZES
    ]
    assert means == sorted(means) and len(set(means)) == len(means), means


def test_an_untrained_model_knows_nothing():
    model, tokenizer = models.new_model("0.1M", 5).eval(), Tokenizer.load(models.FOLDER)
    for task in models.TASKS:
        assert models.score(task, models.answers(model, tokenizer, task, 60)).mean() < 0.7, task


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Runs of a few steps, in a folder of their own."""
    Tokenizer.load(models.FOLDER).save(tmp_path)
    for name, value in (("FOLDER", tmp_path), ("N_STEPS", 130), ("EVERY", 10), ("POOL", 400)):
        monkeypatch.setattr(models, name, value)
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)


def test_a_run_goes_on_where_it_was_stopped(small, monkeypatch):
    class Stop(Exception):
        pass

    def interrupted(checkpoint, path):
        if path.stem == "00070":
            raise Stop
        keep(checkpoint, path)

    keep = models.keep_weights
    models.train_run("0.1M", 1)
    whole = (small / "runs" / "0.1M-1").rename(small / "whole")
    monkeypatch.setattr(models, "keep_weights", interrupted)
    with pytest.raises(Stop):
        models.train_run("0.1M", 1)
    monkeypatch.setattr(models, "keep_weights", keep)
    models.train_run("0.1M", 1)
    for name in ("00080.safetensors", "00130.safetensors"):
        again, once = (read_checkpoint(f / name)[1] for f in (small / "runs" / "0.1M-1", whole))
        assert again.keys() == once.keys() and all(torch.equal(again[k], once[k]) for k in once)
    steps = [row["step"] for row in models.read_log(small / "runs" / "0.1M-1")]
    assert steps == list(range(10, 131, 10))
    logs = [
        json.loads((folder / "log.json").read_text())
        for folder in (whole, small / "runs" / "0.1M-1")
    ]
    assert [row["tokens"] for row in logs[0]] == [row["tokens"] for row in logs[1]]
    assert models.done_steps("0.1M", 1) == 130 and models.estimate([("0.1M", 1)]) == 0


def test_a_run_that_is_written_down_is_not_trained_again(small, monkeypatch, capsys):
    monkeypatch.setattr(models, "read_results", lambda: RESULTS)
    models.train_all()
    assert f"0 of {len(RESULTS)} runs to do" in capsys.readouterr().out
    assert not (small / "runs").exists()

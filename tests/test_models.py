"""The committed models: where they come from, what they score, and the claim of chapter 8."""

import json

import numpy as np
import pytest
import torch

from course import models
from course.__main__ import main
from gpt2 import training
from gpt2.decoder import count_parameters
from gpt2.prompting import bootstrap
from gpt2.tokenizer import Tokenizer
from gpt2.training import (
    CHECKPOINT,
    load_model,
    new_optimizer,
    read_checkpoint,
    save_checkpoint,
    train_step,
)

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

    def interrupted(model, step, config, path):
        if step == 70:
            raise Stop
        keep(model, step, config, path)

    keep = models.keep_weights
    models.train_run("0.1M", 1)
    whole = (small / "runs" / "0.1M-1").rename(small / "whole")
    monkeypatch.setattr(models, "keep_weights", interrupted)
    with pytest.raises(Stop):
        models.train_run("0.1M", 1)
    monkeypatch.setattr(models, "keep_weights", keep)
    models.train_run("0.1M", 1)
    for name in (CHECKPOINT, *(f"{step:05}.safetensors" for step in range(10, 131, 10))):
        again, once = (read_checkpoint(f / name) for f in (small / "runs" / "0.1M-1", whole))
        assert again[0] == once[0] and again[1].keys() == once[1].keys()
        assert all(torch.equal(again[1][k], once[1][k]) for k in once[1])
    steps = [row["step"] for row in models.read_log(small / "runs" / "0.1M-1")]
    assert steps == list(range(10, 131, 10))
    logs = [
        json.loads((folder / "log.json").read_text())
        for folder in (whole, small / "runs" / "0.1M-1")
    ]
    assert [row["tokens"] for row in logs[0]] == [row["tokens"] for row in logs[1]]
    assert models.done_steps("0.1M", 1) == 130 and models.estimate([("0.1M", 1)]) == 0


def by_hand(folder, n_steps):
    """Train as `train_run` did when it had a loop of its own; return the log without seconds."""
    torch.set_num_threads(1)
    config = models.training_config("0.1M")
    model, rows = models.new_model("0.1M", 1), models.batches(Tokenizer.load(models.FOLDER), 1)
    optimizer, losses, log, n_tokens = new_optimizer(model.train(), config), [], [], 0
    for step in range(1, n_steps + 1):
        loss, _, n_targets = train_step(model, optimizer, rows, step - 1, config)
        losses.append(loss)
        n_tokens += n_targets
        if step % models.EVERY == 0:
            mean = round(float(torch.stack(losses).mean()), 4)
            log.append({"step": step, "tokens": n_tokens, "loss": mean})
            losses.clear()
    save_checkpoint(folder / CHECKPOINT, model, optimizer, n_steps, config)
    return log


def test_the_callback_in_train_is_the_loop_by_hand(small, monkeypatch):
    """Bit for bit, weights and AdamW and log, over a stop in the middle of an interval."""

    class Stop(Exception):
        pass

    def stops(model, optimizer, batches, step, config):
        if step == 45:
            raise Stop
        return train_step(model, optimizer, batches, step, config)

    monkeypatch.setattr(models, "N_STEPS", 60)
    monkeypatch.setattr(training, "train_step", stops)
    with pytest.raises(Stop):
        models.train_run("0.1M", 1)
    folder = small / "runs" / "0.1M-1"
    assert read_checkpoint(folder / CHECKPOINT)[0]["step"] == 40
    monkeypatch.setattr(training, "train_step", train_step)
    torch.manual_seed(99)
    models.train_run("0.1M", 1)
    log = by_hand(small / "by_hand", models.N_STEPS)
    found, expected = (read_checkpoint(f / CHECKPOINT) for f in (folder, small / "by_hand"))
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    for name in found[1]:
        assert torch.equal(found[1][name], expected[1][name]), name
    rows = models.read_log(folder)
    assert [row.pop("seconds") >= 0 for row in rows] and rows == log


def test_a_run_that_is_written_down_is_not_trained_again(small, monkeypatch, capsys):
    monkeypatch.setattr(models, "read_results", lambda: RESULTS)
    models.train_all()
    assert f"0 of {len(RESULTS)} runs to do" in capsys.readouterr().out
    assert not (small / "runs").exists()

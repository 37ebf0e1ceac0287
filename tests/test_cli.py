"""The command line: train, generate and tokenize as a reader types them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gpt2.__main__ import DEFAULTS, KNOBS, main, parser
from gpt2.training import CHECKPOINT, load_model, read_checkpoint, read_metrics

SMALL = ["--layers=1", "--heads=2", "--width=16", "--context=16", "--batch=4", "--steps=30"]
SMALL += ["--save-every=10"]


@pytest.fixture
def text(tmp_path) -> Path:
    """A small text of the reader's own, with Korean in it."""
    words = ["the", "red", "apple", "sees", "a", "blue", "bird", "사과", "빨간", "."]
    draw = random.Random(0)
    path = tmp_path / "notes.txt"
    path.write_text(" ".join(draw.choice(words) for _ in range(600)), encoding="utf-8")
    return path


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def test_train_then_generate(text, tmp_path, capsys):
    out = tmp_path / "runs" / "notes"
    assert run("train", text, "--out", out, *SMALL) == 0
    said = capsys.readouterr()
    assert "257 kinds of token" in said.out and "validation loss" in said.out
    assert "30/30" in said.err  # the progress bar
    assert {CHECKPOINT, "run.json"} <= {path.name for path in out.iterdir()}
    assert read_metrics(out / "metrics.csv")[-1]["step"] == 30
    assert run("generate", out, "--prompt", "the red", "--tokens", "20") == 0
    written = capsys.readouterr().out
    assert written.startswith("the red") and len(written) > len("the red\n")
    assert run("generate", out, "--prompt", "the red", "--tokens", "20") == 0
    assert capsys.readouterr().out == written  # same seed, same text


def test_merges_are_learned_from_the_text(text, tmp_path, capsys):
    assert run("train", text, "--out", tmp_path / "run", "--merges", 20, *SMALL) == 0
    assert load_model(tmp_path / "run").config.n_vocab == 277


def test_tokenize_once_then_train(text, tmp_path, capsys):
    tokens = tmp_path / "tokens"
    assert run("tokenize", text, "--out", tokens, "--merges", 20) == 0
    assert "277 kinds of token" in capsys.readouterr().out
    assert run("train", tokens, "--out", tmp_path / "run", *SMALL) == 0
    assert load_model(tmp_path / "run").config.n_vocab == 277
    assert not (tmp_path / "run" / "train.npy").exists()  # big files are not copied
    assert run("train", tokens, "--out", tmp_path / "other", "--merges", 3) == 1
    assert "tokenized already" in capsys.readouterr().err


def test_a_folder_of_texts_is_a_corpus(text, tmp_path, capsys):
    corpus = tmp_path / "corpus"
    (corpus / "deep").mkdir(parents=True)
    for i in range(3):
        (corpus / "deep" / f"{i}.txt").write_text(text.read_text("utf-8"), encoding="utf-8")
    assert run("train", corpus, "--out", tmp_path / "run", *SMALL) == 0


def same_weights(a: Path, b: Path) -> bool:
    one, two = read_checkpoint(a / CHECKPOINT)[1], read_checkpoint(b / CHECKPOINT)[1]
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_and_resumed_ends_in_the_same_weights(text, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-m", "gpt2", "train"]
    knobs = [*SMALL, "--steps", "3000", "--save-every", "100"]
    options = {"env": os.environ | {"OMP_NUM_THREADS": "1"}, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*command, str(text), "--out", str(killed), *knobs], **options)
    while not (killed / "metrics.csv").exists() or len(read_metrics(killed / "metrics.csv")) < 20:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    step = read_checkpoint(killed / CHECKPOINT)[0]["step"]
    assert 0 < step < 3000
    subprocess.run([*command, "--out", str(killed), "--resume"], check=True, **options)
    subprocess.run([*command, str(text), "--out", str(whole), *knobs], check=True, **options)
    assert same_weights(killed, whole)


def test_help_teaches_every_knob(capsys):
    for command in ("train", "generate", "tokenize"):
        with pytest.raises(SystemExit) as stop:
            run(command, "--help")
        assert stop.value.code == 0
        said = capsys.readouterr().out
        assert f"python -m gpt2 {command}" in said and "(default: " in said
    for name, default, help in KNOBS:
        assert help and (default != "" or "use this" in help), name


def test_defaults_are_the_shakespeare_settings():
    settings = DEFAULTS
    assert settings["merges"] == 0 and settings["layers"] == settings["heads"] == 4
    assert (settings["width"], settings["context"], settings["batch"]) == (128, 64, 12)
    assert settings["steps"] == 2000
    given = vars(parser().parse_args(["train", "a.txt", "--out", "b"]))
    assert not given.keys() & DEFAULTS.keys()  # only what was typed is there


def test_a_run_is_never_written_over(text, tmp_path, capsys):
    out = tmp_path / "run"
    assert run("train", text, "--out", out, *SMALL) == 0
    before = (out / CHECKPOINT).read_bytes()
    assert run("train", text, "--out", out, *SMALL) == 1
    assert "not empty" in capsys.readouterr().err
    assert (out / CHECKPOINT).read_bytes() == before
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    assert run("train", text, "--out", mine, *SMALL) == 1
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]


def test_resume_takes_no_other_settings(text, tmp_path, capsys):
    out = tmp_path / "run"
    assert run("train", text, "--out", out, *SMALL) == 0
    assert run("train", "--out", out, "--resume", "--width", "32") == 1
    assert "--width 16, not 32" in capsys.readouterr().err
    assert run("train", "--out", out, "--resume", "--width", "16") == 0
    assert run("train", tmp_path, "--out", out, "--resume") == 1
    assert "learns from" in capsys.readouterr().err
    assert run("train", text, "--out", out, "--resume") == 0
    assert run("train", "--out", tmp_path / "none", "--resume") == 1
    assert "no run to resume" in capsys.readouterr().err


def test_tokens_that_changed_under_a_run(text, tmp_path, capsys):
    assert run("tokenize", text, "--out", tmp_path / "tokens", "--merges", 5) == 0
    assert run("train", tmp_path / "tokens", "--out", tmp_path / "run", *SMALL) == 0
    assert run("tokenize", text, "--out", tmp_path / "others", "--merges", 9) == 0
    (tmp_path / "others" / "train.npy").replace(tmp_path / "tokens" / "train.npy")
    assert run("train", "--out", tmp_path / "run", "--resume") == 1
    error = capsys.readouterr().err
    assert "changed since" in error or "outside the vocabulary" in error


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no text"), (b"  \n ", "no text"), (b"abc \xff\xfe", "byte 4"), (b"short", "too few")],
)
def test_bad_texts_are_named_and_leave_nothing(tmp_path, capsys, content, message):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    assert run("train", path, "--out", tmp_path / "runs" / "bad", *SMALL) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs" / "bad").exists()
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        (["--width", "15"], "n_embd = 15 is not a multiple"),
        (["--steps", "0"], "n_steps = 0"),
        (["--layers", "0"], "--layers 0"),
        (["--precision", "int3"], "precision 'int3'"),
        (["--tokenizer", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_knobs_are_named_and_leave_nothing(text, tmp_path, capsys, knobs, message):
    assert run("train", text, "--out", tmp_path / "run", *SMALL, *knobs) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_missing_paths_are_named(tmp_path, capsys):
    assert run("train", tmp_path / "typo.txt", "--out", tmp_path / "run") == 1
    assert "typo.txt" in capsys.readouterr().err
    assert run("train", "--out", tmp_path / "run") == 1
    assert "name a text" in capsys.readouterr().err
    assert run("generate", tmp_path / "typo", "--prompt", "a") == 1
    assert "typo" in capsys.readouterr().err


def test_settings_are_readable(text, tmp_path):
    assert run("train", text, "--out", tmp_path / "run", *SMALL) == 0
    settings = json.loads((tmp_path / "run" / "run.json").read_text())
    assert settings["width"] == 16 and settings["precision"] == "float32"

"""The command line: train, generate and tokenize as a reader types them."""

import inspect
import io
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from gpt2 import runs, texts, training
from gpt2.__main__ import DEFAULTS, KNOBS, SWITCHES, main, parser
from gpt2.data import read_documents
from gpt2.decoder import count_parameters
from gpt2.texts import owner, stretches
from gpt2.tokenizer import Tokenizer
from gpt2.training import CHECKPOINT, load_model, read_checkpoint, read_metrics
from miniweb import documents

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


def run_line(said: str) -> int:
    """Run the command that a message names, as a reader would."""
    command = said[said.index("python -m gpt2 ") :].partition(" goes on")[0].partition(" trains")
    return main(shlex.split(command[0])[3:])


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a text, `notes.txt`, and a finished run on it, `run`. Not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "notes.txt").write_text("the red apple sees a blue bird " * 60)
    assert run("train", folder / "notes.txt", "--out", folder / "run", *SMALL) == 0
    return folder


@pytest.fixture
def copy(made, tmp_path) -> Path:
    """A copy of the finished run, to be changed."""
    return Path(shutil.copytree(made / "run", tmp_path / "copy"))


def files(folder: Path) -> dict[str, bytes]:
    """Read all that is below a folder, hidden files too."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


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
    knobs = [*SMALL, "--steps", "600", "--save-every", "50"]
    options = {"env": os.environ | {"OMP_NUM_THREADS": "1"}, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*command, str(text), "--out", str(killed), *knobs], **options)
    while not (killed / "metrics.csv").exists() or len(read_metrics(killed / "metrics.csv")) < 10:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    step = read_checkpoint(killed / CHECKPOINT)[0]["step"]
    assert 0 < step < 600
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
    assert all(SWITCHES.values())


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
    assert run_line(capsys.readouterr().err) == 0  # --resume, as it says
    assert (out / CHECKPOINT).read_bytes() == before
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    assert run("train", text, "--out", mine, *SMALL) == 1
    assert "is not empty: name a new folder with --out" in capsys.readouterr().err
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]
    assert run("tokenize", text, "--out", out) == 1
    error = capsys.readouterr().err
    assert "is not empty: name a new folder" in error and "--resume" not in error
    assert run("train", text, "--out", mine / "thesis.txt", *SMALL) == 1
    assert "is a file" in capsys.readouterr().err


def test_resume_takes_no_other_settings(text, tmp_path, capsys):
    out = tmp_path / "run"
    assert run("train", text, "--out", out, *SMALL) == 0
    assert run("train", "--out", out, "--resume", "--width", "32") == 1
    assert "--width 16, not 32" in capsys.readouterr().err
    assert run("train", "--out", out, "--resume", "--width", "16") == 0
    assert run("train", tmp_path, "--out", out, "--resume") == 1
    assert "was trained on" in capsys.readouterr().err
    assert run("train", text, "--out", out, "--resume") == 0
    assert run("train", "--out", tmp_path / "none", "--resume") == 1
    assert "no run to resume" in capsys.readouterr().err


def test_tokens_that_changed_under_a_run(text, tmp_path, capsys):
    assert run("tokenize", text, "--out", tmp_path / "tokens", "--merges", 5) == 0
    assert run("train", tmp_path / "tokens", "--out", tmp_path / "run", *SMALL) == 0
    assert run("tokenize", text, "--out", tmp_path / "others", "--merges", 9) == 0
    (tmp_path / "others" / "train.npy").replace(tmp_path / "tokens" / "train.npy")
    assert run("train", "--out", tmp_path / "run", "--resume") == 1
    assert "of another tokenizer: `tokenize` the text again" in capsys.readouterr().err
    assert run("tokenize", text, "--out", tmp_path / "fewer", "--merges", 1) == 0
    (tmp_path / "fewer" / "train.npy").replace(tmp_path / "tokens" / "train.npy")
    assert run("train", "--out", tmp_path / "run", "--resume") == 1
    assert "changed since" in capsys.readouterr().err
    (tmp_path / "tokens" / "train.npy").write_bytes(b"PK")
    assert run("train", "--out", tmp_path / "run", "--resume") == 1
    assert "train.npy is damaged" in capsys.readouterr().err
    (tmp_path / "tokens" / "train.npy").unlink()
    assert run("train", "--out", tmp_path / "run", "--resume") == 1
    assert "train.npy is missing: put it back, or start a new run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no text"),
        (b"  \n ", "no text"),
        (b"abc \xff\xfe", "byte 4"),
        (b"short", "the train part has 6 tokens, too few: --context 16 needs 17"),
        ("no mark".encode("utf-16-le"), "bad.txt has NUL bytes"),
    ],
)
def test_bad_texts_are_named_and_leave_nothing(tmp_path, capsys, content, message):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    assert run("train", path, "--out", tmp_path / "runs" / "bad", *SMALL) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ("--width 15", "--width 15: take a multiple of the 2 of --heads."),
        ("--steps 0", "--steps 0: take 1 or more."),
        ("--layers 0", "--layers 0"),
        ("--batch -1", "--batch -1"),
        ("--precision int3", "--precision int3: take auto, float32 or bfloat16."),
        ("--tokenizer /nowhere", "/nowhere"),
        ("--tokenizer gpt2 --merges 500", "--tokenizer brings its own merges: leave --merges"),
        ("--seed -1", "--seed -1: take 0 or more, at most 9223372036854775807."),
        ("--seed 99999999999999999999", "--seed 99999999999999999999"),
        ("--decay -1", "--decay -1.0"),
        ("--decay nan", "--decay nan"),
        ("--lr 0", "--lr 0.0: take a number above 0."),
        ("--lr inf", "--lr inf"),
        ("--clip nan", "--clip nan"),
        ("--save-every 0", "--save-every 0"),
        ("--warmup 30", "--warmup 30: take fewer than the 30 of --steps."),
        ("--width 600000", "--width 600000, --context 16: 4,320,"),
        ("--context 999", "the validation part has 282 tokens, too few: --context 999 needs"),
        ("--device gpu", "--device gpu does not work here"),
        ("--device mps", "--device mps does not work here"),
        ("--device cuda:99", "--device cuda:99 does not work here"),
        ("--device meta", "--device meta does not work here"),
    ],
)
def test_bad_knobs_are_named_and_leave_nothing(text, tmp_path, capsys, knobs, message):
    before = files(tmp_path)
    assert run("train", text, "--out", tmp_path / "runs" / "run", *SMALL, *knobs.split()) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1, error
    assert files(tmp_path) == before and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ("--tokens 0", "--tokens 0: take 1 or more."),
        ("--temperature -1", "--temperature -1.0: take 0 or more."),
        ("--temperature nan", "--temperature nan"),
        ("--top-k 0", "--top-k 0: take 1 or more."),
        ("--top-p 0", "--top-p 0.0: take a number above 0, at most 1."),
        ("--top-p 1.5", "--top-p 1.5"),
        ("--seed 99999999999999999999", "--seed"),
        ("--device gpu", "--device gpu does not work here"),
    ],
)
def test_bad_knobs_of_generate_are_named(made, capsys, knobs, message):
    assert run("generate", made / "run", *knobs.split()) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1, error


def test_a_failing_compiler_is_found_before_anything_is_made(text, tmp_path, capsys, monkeypatch):
    def no_compiler(function):
        raise RuntimeError("No working C++ compiler found\nand a hundred lines more")

    monkeypatch.setattr(torch, "compile", no_compiler)
    out = tmp_path / "runs" / "run"
    assert run("train", text, "--out", out, *SMALL, "--compile") == 1
    error = capsys.readouterr().err
    assert "--compile does not work here (No working C++ compiler found): install" in error
    assert error.count("\n") == 1 and not out.parent.exists()
    assert run("train", text, "--out", out, *SMALL) == 0  # without it, as it says


def test_the_size_of_a_model_is_known_before_it_is_made():
    settings = {"width": 24, "context": 16, "layers": 3, "heads": 2, "seed": 0}
    model = runs.new_model(settings, 300)
    assert runs.n_parameters(settings, 300) == count_parameters(model)


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


# --------------------------------------------------------------------------------------- stopping


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


@pytest.mark.parametrize("command", ["train", "tokenize"])
def test_stopped_before_there_is_a_run(text, tmp_path, capsys, monkeypatch, command):
    """A --resume would fail here, and tokenize has none."""
    arguments = [command, text, "--out", tmp_path / "new", *(SMALL if command == "train" else [])]
    before = files(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(texts, "write_corpus", interrupt)
        assert run(*arguments) == 130
    assert capsys.readouterr().err.endswith("nothing was kept, so the same command starts again\n")
    assert files(tmp_path) == before
    assert run(*arguments) == 0


def test_stopped_while_training(text, tmp_path, capsys, monkeypatch):
    out = tmp_path / "my run"
    with monkeypatch.context() as patch:
        patch.setattr(runs, "train", interrupt)
        assert run("train", text, "--out", out, *SMALL) == 130
    assert run_line(capsys.readouterr().err) == 0
    assert read_metrics(out / "metrics.csv")[-1]["step"] == 30


def test_stopped_while_generating(made, capsys, monkeypatch):
    monkeypatch.setattr(runs, "generate", lambda *args, **kwargs: iter(interrupt, None))
    assert run("generate", made / "run", "--prompt", "the") == 130
    said = capsys.readouterr()
    assert (said.out, said.err) == ("the\n", "stopped\n")


@pytest.mark.skipif(os.name != "posix", reason="needs SIGINT")
def test_ctrl_c_ends_a_process_with_130(made):
    command = [sys.executable, "-m", "gpt2", "generate", str(made / "run"), "--tokens=1000000"]
    command += ["--temperature=0"]  # goes round in a circle: the text never ends by itself
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.read(20)  # it writes
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=120)[1] == b"stopped\n" and process.returncode == 130


@pytest.mark.skipif(os.name != "posix", reason="needs pipes of POSIX")
def test_a_reader_that_has_seen_enough_is_no_error(made):
    command = [sys.executable, "-m", "gpt2", "generate", str(made / "run"), "--tokens=1000000"]
    command += ["--temperature=0"]  # goes round in a circle: the text never ends by itself
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.read(20)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(60) == 141


# ------------------------------------------------------------------------------------- cures


def test_a_diverged_run_starts_again_elsewhere(text, tmp_path, capsys, monkeypatch):
    def diverge(*args, **kwargs):
        raise FloatingPointError("loss nan at step 10: the run has diverged. Lower learning_rate.")

    monkeypatch.setattr(runs, "train", diverge)
    assert run("train", text, "--out", tmp_path / "run", *SMALL) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: loss nan at step 10: the run has diverged.")
    assert "in another folder (--out) with a lower --lr" in error and "learning_rate" not in error


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(),
              RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)  # fmt: skip
def test_out_of_memory_says_what_is_smaller(text, tmp_path, capsys, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(runs, "train", fail)
    assert run("train", text, "--out", tmp_path / "run", *SMALL) == 1
    assert "in another folder (--out) with half the --batch" in capsys.readouterr().err


def test_a_fault_of_the_program_keeps_its_traceback(made, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("a bug")

    monkeypatch.setattr(runs, "load_model", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        run("generate", made / "run")


def test_the_perplexity_of_a_huge_loss_is_printed(copy, capsys, monkeypatch):
    monkeypatch.setattr(runs, "evaluate", lambda *args, **kwargs: 1e5)
    assert run("train", "--out", copy, "--resume") == 0
    assert "validation loss 100000.0000" in (said := capsys.readouterr().out)
    assert "perplexity inf" in said


def test_a_run_without_a_checkpoint_is_not_for_generate(copy, capsys):
    (copy / CHECKPOINT).unlink()
    assert run("generate", copy) == 1
    assert run_line(capsys.readouterr().err) == 0
    assert run("generate", copy, "--tokens", 3) == 0


# --------------------------------------------------------------------- one run, one owner


def test_a_folder_in_use_is_left_alone(copy, capsys):
    before = files(copy.parent)
    with owner(copy):
        assert run("train", "--out", copy, "--resume") == 1
    assert f"in use by process {os.getpid()} since 20" in capsys.readouterr().err
    assert files(copy.parent) == before  # and the lock is gone
    assert run("train", "--out", copy, "--resume") == 0


def test_the_second_start_of_a_new_run_is_refused_at_once(text, tmp_path, capsys):
    out = tmp_path / "run"
    with owner(out):  # the first is still tokenizing: there is no folder yet
        assert run("train", text, "--out", out, *SMALL) == 1
        assert run("tokenize", text, "--out", out) == 1
    assert capsys.readouterr().err.count("in use by process") == 2 and not out.exists()


def test_a_lock_left_by_a_kill_is_no_obstacle(copy):
    (copy.parent / ".copy.lock").touch()
    (copy.parent / ".copy.owner").write_text("process 1 since 2020-01-01 00:00")
    assert run("train", "--out", copy, "--resume") == 0
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


# ------------------------------------------------------------------ texts as people have them


def test_a_byte_order_mark_is_skipped(copy, tmp_path, capsys):
    (tmp_path / "a.txt").write_bytes("\ufeffthe cat sat on the mat, and then".encode())
    assert run("tokenize", tmp_path / "a.txt", "--out", tmp_path / "t", "--merges", 0) == 0
    assert "\ufeff".encode() not in (tmp_path / "t" / "train.npy").read_bytes()
    assert "30 tokens to train on, 6 held out" in capsys.readouterr().out  # 32, and two ends each
    settings = (copy / "run.json").read_text()
    (copy / "run.json").write_text(settings, encoding="utf-8-sig")
    assert run("train", "--out", copy, "--resume") == 0


def test_marks_within_text_are_counted_in_one_warning(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("one<|endoftext|>two<|startoftext|>three\n<|endoftext|>\nb" * 9)
    said = []
    for name, option in [("text", []), ("borders", ["--split-at-marks"])]:
        arguments = ["tokenize", tmp_path / "a.txt", "--out", tmp_path / name, "--merges", 0]
        assert run(*arguments, *option) == 0
        said.append(capsys.readouterr().err)
    assert said[1] == "" and said[0].count("\n") == 1
    assert said[0].startswith("note: 18 ") and "--split-at-marks" in said[0]
    ends = [
        runs.read_tokens(tmp_path / name / "train.npy", 257) == 256 for name in ("text", "borders")
    ]
    assert [int(end.sum()) for end in ends] == [11, 29]


def test_a_run_remembers_that_it_split_at_marks(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("some more words<|endoftext|>" * 50)
    out = tmp_path / "run"
    assert run("train", tmp_path / "a.txt", "--out", out, *SMALL, "--split-at-marks") == 0
    assert "note" not in capsys.readouterr().err
    assert json.loads((out / "run.json").read_text())["split_at_marks"] is True
    assert (runs.read_tokens(out / "train.npy", 257) == 256).sum() == 51


def test_a_run_within_the_text_folder_does_not_break_the_next(text, tmp_path):
    folder = text.parent
    for name in ("one", "two"):
        assert run("train", folder, "--out", folder / name, *SMALL) == 0
    a, b = (json.loads((folder / name / "run.json").read_text()) for name in ("one", "two"))
    assert a["n_tokens"] == b["n_tokens"]
    assert run("tokenize", folder, "--out", folder / "t", "--merges", 0) == 0
    assert run("tokenize", folder, "--out", folder / "u", "--merges", 0) == 0
    tokens = [(folder / name / "train.npy").read_bytes() for name in ("one", "t", "u")]
    assert tokens[0] == tokens[1] == tokens[2]


def test_a_run_is_no_text(copy, tmp_path, capsys):
    (copy / "train.npy").unlink()
    assert run("train", copy, "--out", tmp_path / "other", *SMALL) == 1
    assert "is a run, not a text: name the text" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input_is_read(text, tmp_path, capsys, monkeypatch, name):
    assert run("train", text, "--out", tmp_path / "file", *SMALL, "--merges", 9) == 0
    out = tmp_path / "piped"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.read_bytes())))
    assert run("train", name, "--out", out, *SMALL, "--merges", 9) == 0
    assert same_weights(tmp_path / "file", out)
    assert (
        run("train", "--out", out, "--resume") == run("train", name, "--out", out, "--resume") == 0
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"abc\xff")))
    assert run("train", name, "--out", tmp_path / "bad", *SMALL) == 1
    assert "byte 3 (0xff) of standard input" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes of POSIX")
def test_a_named_pipe_is_read(text, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[text.read_bytes()])
    writer.start()
    assert run("tokenize", tmp_path / "pipe", "--out", tmp_path / "a", "--merges", 5) == 0
    writer.join()
    assert run("tokenize", text, "--out", tmp_path / "b", "--merges", 5) == 0
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_merges_are_learned_from_chunks_as_from_the_whole(tmp_path):
    """Indented code and blank lines: pieces of white space go on over a line's end."""
    code = inspect.getsource(texts).replace("\n", "\n \n\t") + "안녕하세요" * 9
    stories = "\n<|endoftext|>\n".join(page.text for page in islice(documents(0), 200))
    (tmp_path / "a.txt").write_text(code * 20 + "\n<|endoftext|>\n" + stories, encoding="utf-8")
    wanted = Tokenizer.train(read_documents(tmp_path), 300).merges
    assert Tokenizer.train(stretches(tmp_path, False), 300).merges == wanted


# -------------------------------------------------------------------------------------- output


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_utf8_gets_replacement_characters(copy, monkeypatch, encoding):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding=encoding))
    assert run("generate", copy, "--prompt", "사과 the red", "--tokens", 5) == 0
    sys.stdout.flush()
    assert shown.getvalue().startswith(b"?? the red")


def test_a_prompt_with_a_broken_byte(made, capsys):
    prompt = b"the \xff red".decode("utf-8", "surrogateescape")  # as argv holds it
    assert run("generate", made / "run", "--prompt", prompt, "--tokens", 5) == 0
    assert capsys.readouterr().out.startswith("the \ufffd red")


def test_a_long_prompt_is_cut_from_the_left(made, capsys):
    assert (
        run("generate", made / "run", "--prompt", "nonsense " * 50 + "the red", "--tokens", 5) == 0
    )
    long = capsys.readouterr()
    assert "the prompt has 457 tokens and the model sees 16" in long.err
    assert run("generate", made / "run", "--prompt", "nonsense the red", "--tokens", 5) == 0
    short = capsys.readouterr()  # 16 tokens, and the end of text before them
    assert "the prompt has 16 tokens" in short.err
    assert long.out.removeprefix("nonsense " * 49) == short.out


# ------------------------------------------------------------------------- models and old runs


def test_weights_in_16_bits_are_computed_with_in_32(copy, capsys):
    path = copy / CHECKPOINT
    header, weights = read_checkpoint(path, "model.")
    half = {name: weight.half() for name, weight in weights.items()}
    words = {name: json.dumps(value) for name, value in header.items()}
    (copy / "half.safetensors").write_bytes(save(half, words))
    model, _ = runs.open_model(str(copy / "half.safetensors"))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert run("generate", copy / "half.safetensors", "--prompt", "the", "--tokens=2") == 0


def test_generate_reads_a_checkpoint_beside_its_tokenizer(copy, capsys):
    (copy / CHECKPOINT).rename(copy / "mine.safetensors")
    assert run("generate", copy / "mine.safetensors", "--prompt", "the red", "--tokens", 5) == 0
    assert capsys.readouterr().out.startswith("the red")
    Tokenizer([(b"a", b"b")]).save(copy)
    assert run("generate", copy / "mine.safetensors") == 1
    assert "has 257 kinds of token and the tokenizer beside it 258" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"text": 1}', "WIDTH"])
def test_a_damaged_run_json_is_named(copy, capsys, damage):
    path = copy / "run.json"
    path.write_text(damage.replace("WIDTH", path.read_text().replace(": 16", ': "16"')))
    assert run("train", "--out", copy, "--resume") == 1
    error = capsys.readouterr().err
    assert f"{path} is damaged (" in error and "start a new run with another --out" in error
    assert run("generate", copy, "--tokens", 3) == 0  # as it says


def test_tokenize_takes_a_tokenizer_or_merges(text, tmp_path, capsys):
    Tokenizer([]).save(tmp_path / "bytes")
    arguments = ["tokenize", text, "--out", tmp_path / "t", "--tokenizer", tmp_path / "bytes"]
    assert run(*arguments, "--merges", 5) == 1
    assert "leave --merges away" in capsys.readouterr().err
    assert run(*arguments) == 0
    assert "257 kinds of token" in capsys.readouterr().out


def test_a_finished_run_goes_on_to_more_steps(copy, capsys, monkeypatch):
    asked = []

    def record(*args, until=None, **kwargs):
        asked.append(until)
        if "until" in inspect.signature(training.train).parameters:
            training.train(*args, until=until, **kwargs)

    monkeypatch.setattr(runs, "train", record)
    assert run("train", "--out", copy, "--resume", "--steps", 40) == 0
    said = capsys.readouterr()
    assert "after step 30 the learning rate stays at its minimum, 0.0003" in said.err
    assert "40 steps are" in said.out
    assert run("train", "--out", copy, "--resume") == 0  # now 40 is the end
    assert run("train", "--out", copy, "--resume", "--steps", 40) == 0
    assert "note" not in capsys.readouterr().err and asked == [40, 40, 40]
    assert run("train", "--out", copy, "--resume", "--steps", 29) == 1
    assert "has made " in (error := capsys.readouterr().err) and "--steps 29 would undo" in error
    assert run("train", "--out", copy, "--resume", "--width", 16) == 0


def test_a_run_can_end_earlier(copy, capsys, monkeypatch):
    monkeypatch.setattr(runs, "train", lambda *args, **kwargs: None)
    assert run("train", "--out", copy, "--resume", "--steps", 60) == 0
    assert run("train", "--out", copy, "--resume", "--steps", 30) == 0
    assert json.loads((copy / "run.json").read_text())["until"] == 30


def test_an_old_run_resumes_and_generates(tmp_path, capsys):
    """Begun and stopped at step 10 of 20 before there were splits at marks, kernels and locks."""
    old = Path(shutil.copytree(Path(__file__).parent / "old_run", tmp_path / "old"))
    assert run("generate", old, "--tokens", 5) == 0
    assert run("train", "--out", old, "--resume") == 0
    rows = read_metrics(old / "metrics.csv")
    assert [row["step"] for row in rows] == [10, 20] and rows[1]["loss"] < 5.55
    assert run("train", "--out", old, "--resume", "--width", 4) == 1
    assert "was started with --width 2, not 4" in capsys.readouterr().err


# ----------------------------------------------------------------------------------- kernels


@pytest.fixture
def kernels(monkeypatch) -> list[str]:
    """Stand in for the measurement: "fast" pays for training and for writing; log the calls."""
    log: list[str] = []

    def choose(model, *batch):
        log.append(f"choose for {len(batch)}")
        return "fast"

    def set_to(model, name):
        log.append(name)

    for purpose in ("training", "generation"):
        monkeypatch.setattr(runs, f"choose_{purpose}_kernel", choose)
        monkeypatch.setattr(runs, f"set_{purpose}_kernel", set_to)
    return log


def test_a_run_keeps_the_kernel_that_it_began_with(text, tmp_path, kernels):
    out = tmp_path / "run"
    assert run("train", text, "--out", out, *SMALL) == 0
    assert json.loads((out / "run.json").read_text())["kernel"] == "fast"
    assert run("train", "--out", out, "--resume") == 0
    assert kernels == ["choose for 2", "fast", "fast"]  # measured once


def test_a_kernel_is_for_float32(text, tmp_path, kernels):
    assert run("train", text, "--out", tmp_path / "run", *SMALL, "--precision", "bfloat16") == 0
    assert kernels == ["plain"]


def test_an_old_run_has_no_kernel(tmp_path, kernels):
    old = Path(shutil.copytree(Path(__file__).parent / "old_run", tmp_path / "old"))
    assert run("train", "--out", old, "--resume") == 0
    assert kernels == ["plain"]


def test_a_kernel_is_measured_for_long_texts_only(made, kernels):
    assert run("generate", made / "run", "--tokens", 299) == 0 and kernels == []
    assert run("generate", made / "run", "--tokens", 300) == 0
    assert kernels == ["choose for 0", "fast"]

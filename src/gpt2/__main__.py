"""Train, write and tokenize from a terminal: python -m gpt2 train|generate|tokenize --help."""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import exp
from pathlib import Path
from typing import Any

import torch

from gpt2.attention import CausalSelfAttention
from gpt2.data import PackedWindows, read_documents, read_tokens, write_corpus
from gpt2.decoder import GPT, GPTConfig, count_parameters
from gpt2.generation import Sampling, stream_text
from gpt2.tokenizer import Tokenizer
from gpt2.training import CHECKPOINT, TrainingConfig, evaluate, load_model, train

RUN = "run.json"  # the settings of a run, written before its first step

# Of `train`: name, default, and what the knob does. The defaults train on tiny Shakespeare.
KNOBS: list[tuple[str, Any, str]] = [
    ("merges", 0, "merges of a tokenizer trained on the text; 0: each byte is a token"),
    (
        "tokenizer",
        "",
        "use this tokenizer instead: a folder, or 'gpt2' for the published one",
    ),
    ("layers", 4, "blocks; the first knob to raise for more ability"),
    ("heads", 4, "attention heads in a block; must divide the width"),
    ("width", 128, "numbers that describe one position; time grows with its square"),
    ("context", 64, "tokens that the model can see"),
    ("batch", 12, "windows a batch; lower it if memory runs out"),
    ("accumulate", 1, "batches added up before a step: a large batch in little memory"),
    ("steps", 2000, "steps of the optimizer"),
    (
        "lr",
        3e-3,
        "peak learning rate; lower it for wider models (1e-3 at 384, 6e-4 at 768)",
    ),
    (
        "warmup",
        100,
        "steps in which the learning rate rises; after them it falls to a tenth",
    ),
    ("decay", 0.1, "weight decay of matrices and embeddings"),
    ("clip", 1.0, "the gradient is shortened to this norm"),
    ("precision", "auto", "float32, bfloat16, or auto: bfloat16 on a GPU that has it"),
    ("save-every", 250, "steps between checkpoints; a kill costs at most these"),
    ("seed", 0, "of the first weights and of the order of the windows"),
]
DEFAULTS = {name.replace("-", "_"): default for name, default, _ in KNOBS} | {
    "compile": False
}

TRAIN = """\
Train a GPT-2 on your own text: a UTF-8 file, a folder of them, or a folder made by `tokenize`.

The last tenth of the text is held out to measure the loss. The run folder holds checkpoints, the
tokenizer and metrics.csv, and is all that `generate` needs. A run that was stopped, by Ctrl-C, a
kill or a power cut, goes on with --resume and ends, on the same machine, in the same weights as
one never stopped.

  python -m gpt2 train input.txt --out runs/shakespeare
  python -m gpt2 train --out runs/shakespeare --resume
  python -m gpt2 train my_notes/ --out runs/notes --merges 1000 --context 128 --steps 5000
"""
GENERATE = """\
Continue a prompt with a model that `train` has made. Text appears as it is written.

  python -m gpt2 generate runs/shakespeare --prompt "ROMEO:"
  python -m gpt2 generate runs/shakespeare --prompt "ROMEO:" --temperature 0.5 --tokens 500
"""
TOKENIZE = """\
Turn text into token files once, to train on many times, and report what the tokens are like.

  python -m gpt2 tokenize my_notes/ --out tokens/notes --merges 1000
  python -m gpt2 train tokens/notes --out runs/notes --context 128
"""


def parser() -> argparse.ArgumentParser:
    """Build the command line; knobs that are not given stay absent from the namespace."""
    main = argparse.ArgumentParser(
        "python -m gpt2", description="Train a GPT-2 and write with it."
    )
    commands = main.add_subparsers(
        dest="command", required=True, metavar="train|generate|tokenize"
    )

    def command(name: str, summary: str, description: str) -> argparse.ArgumentParser:
        formatter = argparse.RawDescriptionHelpFormatter
        return commands.add_parser(
            name, help=summary, description=description, formatter_class=formatter
        )

    add_train(command("train", "train a model on your text", TRAIN))
    add_generate(command("generate", "continue a prompt", GENERATE))
    add_tokenize(command("tokenize", "turn text into token files", TOKENIZE))
    return main


def add_train(to: argparse.ArgumentParser) -> None:
    """Add what `train` takes."""
    to.add_argument(
        "text", nargs="?", help="file or folder to learn from; not needed with --resume"
    )
    to.add_argument(
        "--out", required=True, metavar="FOLDER", help="the run's folder, a new one"
    )
    to.add_argument("--resume", action="store_true", help="go on with the run in --out")
    to.add_argument(
        "--device", help="cpu, cuda, ...; the default is a GPU if there is one"
    )
    for name, default, help in KNOBS:
        help += f" (default: {default})" if default != "" else ""
        metavar = type(default).__name__.upper().replace("STR", "NAME")
        kind = type(default)
        to.add_argument(
            f"--{name}",
            type=kind,
            default=argparse.SUPPRESS,
            metavar=metavar,
            help=help,
        )
    to.add_argument(
        "--compile",
        action="store_true",
        default=argparse.SUPPRESS,
        help="compile the model first: pays on a GPU and in long runs, costs a minute on a CPU",
    )


def add_generate(to: argparse.ArgumentParser) -> None:
    """Add what `generate` takes."""
    to.add_argument("folder", help="a folder that `train` has made")
    to.add_argument(
        "--prompt", default="", help="text to continue (default: none, a fresh text)"
    )
    to.add_argument(
        "--tokens", type=int, default=200, help="at most so many (default: 200)"
    )
    to.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        help="0 takes the likeliest token, 1 the model's own odds, more is wilder (default: 0.8)",
    )
    to.add_argument(
        "--top-k", type=int, help="choose among the k likeliest tokens only"
    )
    to.add_argument(
        "--top-p", type=float, help="choose among the likeliest with probability p"
    )
    to.add_argument(
        "--seed", type=int, default=0, help="another seed, another text (default: 0)"
    )
    to.add_argument(
        "--device", help="cpu, cuda, ...; the default is a GPU if there is one"
    )


def add_tokenize(to: argparse.ArgumentParser) -> None:
    """Add what `tokenize` takes."""
    to.add_argument("text", help="a UTF-8 file or a folder of them")
    to.add_argument(
        "--out", required=True, metavar="FOLDER", help="a new folder for the tokens"
    )
    to.add_argument(
        "--merges", type=int, default=1000, help="merges to learn (default: 1000)"
    )
    to.add_argument(
        "--tokenizer", default="", help="or a tokenizer: a folder, or 'gpt2'"
    )


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` on success and vanishes on failure.

    Raises FileExistsError rather than touch a folder that holds anything.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(
            f"{path} exists and is not empty: name a new folder with --out, or go on with a run "
            "that is in it by --resume."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield fresh
        fresh.chmod(0o755)
        if path.exists():
            path.rmdir()
        os.replace(fresh, path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def choose_tokenizer(text: Path, name: str, n_merges: int) -> Tokenizer:
    """Take the published tokenizer or one from a folder, or train one on the text."""
    if name == "gpt2":
        return Tokenizer.gpt2()
    if name:
        return Tokenizer.load(name)
    return Tokenizer.train(read_documents(text) if n_merges else [], n_merges)


def write_tokenized(
    text: Path, folder: Path, name: str, n_merges: int
) -> dict[str, int]:
    """Put a tokenizer, train.npy and validation.npy into folder; return the token counts."""
    tokenizer = choose_tokenizer(text, name, n_merges)
    tokenizer.save(folder)
    ids = (tokenizer.encode, tokenizer.end_of_text, tokenizer.n_vocab)
    return write_corpus(text, folder, *ids)


def is_tokenized(path: Path) -> bool:
    """Say whether a folder comes from `tokenize`."""
    return (path / "train.npy").is_file() and (path / "validation.npy").is_file()


def pick_device(name: str | None) -> torch.device:
    """Return the device of this name, or a GPU if there is one."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def pick_precision(name: str, device: torch.device) -> str:
    """Resolve "auto": bfloat16 where the hardware multiplies it faster."""
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(
        including_emulation=False
    )
    return {"auto": "bfloat16" if fast else "float32"}.get(name, name)


def windows(run: Path, settings: dict[str, Any]) -> tuple[PackedWindows, PackedWindows]:
    """Open the tokens of a run for training and for validation, checked against its tokenizer."""
    n_vocab = Tokenizer.load(run).n_vocab
    shape = (settings["context"], settings["batch"], settings["seed"])
    paths = (
        run / settings["tokens"] / f"{part}.npy" for part in ("train", "validation")
    )
    batches, validation = (
        PackedWindows(read_tokens(path, n_vocab), *shape) for path in paths
    )
    return batches, validation


def start_run(
    text: str | None, out: Path, given: dict[str, Any], device: torch.device
) -> None:
    """Make the run's folder, complete or not at all: settings, tokenizer and tokens.

    Tokens that `tokenize` has made stay where they are. Raises ValueError for a wrong knob.
    """
    if text is None:
        raise ValueError("name a text to train on, or --resume a run.")
    settings = DEFAULTS | given
    settings["precision"] = pick_precision(settings["precision"], device)
    if "warmup" not in given:
        settings["warmup"] = min(settings["warmup"], settings["steps"] // 10)
    check_knobs(settings)
    source = Path(text)
    ready = is_tokenized(source)
    if ready and {"merges", "tokenizer"} & given.keys():
        raise ValueError(
            f"{source} is tokenized already: leave --merges and --tokenizer away."
        )
    settings["text"] = str(source.resolve())
    settings["tokens"] = settings["text"] if ready else "."
    with new_folder(out) as folder:
        if ready:
            Tokenizer.load(source).save(folder)
        else:
            write_tokenized(source, folder, settings["tokenizer"], settings["merges"])
        settings["n_tokens"] = len(windows(folder, settings)[0].tokens)
        (folder / RUN).write_text(json.dumps(settings, indent=1), encoding="utf-8")


def read_run(out: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Return a run's settings; ValueError if a knob given now is not the one it began with."""
    if not (out / RUN).is_file():
        raise FileNotFoundError(
            f"{out} holds no run to resume: leave --resume away to start one."
        )
    settings: dict[str, Any] = json.loads((out / RUN).read_text(encoding="utf-8"))
    for name, value in given.items():
        if settings[name] != value:
            raise ValueError(
                f"{out} was begun with --{name.replace('_', '-')} {settings[name]}, not {value}: "
                "resume with its own settings, or start a new run with another --out."
            )
    return settings


def training_config(settings: dict[str, Any]) -> TrainingConfig:
    """Name the knobs of the command line as the trainer does."""
    return TrainingConfig(
        n_steps=settings["steps"],
        learning_rate=settings["lr"],
        min_learning_rate=settings["lr"] / 10,
        n_warmup=settings["warmup"],
        weight_decay=settings["decay"],
        clip=settings["clip"],
        accumulate=settings["accumulate"],
        precision=settings["precision"],
        compile=settings["compile"],
        save_every=settings["save_every"],
    )


def check_knobs(settings: dict[str, Any]) -> None:
    """Raise ValueError for a wrong knob before any text is read."""
    training_config(settings)
    for name in ("layers", "heads", "width", "context", "batch"):
        if settings[name] < 1:
            raise ValueError(f"--{name} {settings[name]}: it must be 1 or more.")
    CausalSelfAttention(
        settings["width"], settings["heads"]
    )  # the heads must divide the width


def new_model(settings: dict[str, Any], n_vocab: int) -> GPT:
    """Build the model on the CPU from the run's seed, so that it is the same on every device."""
    torch.manual_seed(settings["seed"])
    shape = (
        settings["context"],
        settings["width"],
        settings["heads"],
        settings["layers"],
    )
    return GPT(GPTConfig(n_vocab, *shape))


def run_train(args: argparse.Namespace) -> None:
    """Start or resume a run, and report the loss over the whole validation part."""
    out, device = Path(args.out), pick_device(args.device)
    given = {name: value for name, value in vars(args).items() if name in DEFAULTS}
    if not args.resume:
        start_run(args.text, out, given, device)
    settings = read_run(out, given)
    if args.text and str(Path(args.text).resolve()) != settings["text"]:
        raise ValueError(
            f"{out} learns from {settings['text']}: leave the text away to resume it."
        )
    batches, validation = windows(out, settings)
    if len(batches.tokens) != settings["n_tokens"]:
        raise ValueError(
            f"the tokens in {settings['tokens']} changed since {out} was begun."
        )
    n_vocab = Tokenizer.load(out).n_vocab
    model = new_model(settings, n_vocab).to(device)
    print(
        f"{count_parameters(model):,} parameters, {n_vocab:,} kinds of token, "
        f"{len(batches.tokens):,} tokens to train on, {len(validation.tokens):,} held out; "
        f"{settings['steps']:,} steps are {settings['steps'] / batches.n_batches:.1f} epochs"
    )
    has_checkpoint = (out / CHECKPOINT).exists()
    train(
        model,
        batches,
        training_config(settings),
        out,
        validation,
        resume=has_checkpoint,
    )
    loss = evaluate(model, validation)
    print(
        f"validation loss {loss:.4f} nats a token over all of it, perplexity {exp(loss):.2f}"
    )
    print(f'try it: python -m gpt2 generate {out} --prompt "..."')


def run_generate(args: argparse.Namespace) -> None:
    """Write, piece by piece."""
    model = load_model(args.folder).to(pick_device(args.device))
    tokenizer = Tokenizer.load(args.folder)
    sampling = Sampling(args.temperature, args.top_k, args.top_p)
    generator = torch.Generator().manual_seed(args.seed)
    print(args.prompt, end="", flush=True)
    pieces = stream_text(
        model, tokenizer, args.prompt, args.tokens, sampling, generator=generator
    )
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def run_tokenize(args: argparse.Namespace) -> None:
    """Write the token files, and report how long tokens are."""
    out = Path(args.out)
    with new_folder(out) as folder:
        counts = write_tokenized(Path(args.text), folder, args.tokenizer, args.merges)
        n_bytes = sum(len(document.encode()) for document in read_documents(args.text))
        n_vocab = Tokenizer.load(folder).n_vocab
    n_tokens = sum(counts.values())
    print(
        f"{n_vocab:,} kinds of token, {counts['train']:,} tokens to train on, "
        f"{counts['validation']:,} held out, {n_bytes / n_tokens:.2f} bytes a token"
    )
    print(f"next: python -m gpt2 train {out} --out runs/{out.name}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; what a reader can mend is one line on stderr and exit code 1."""
    args = parser().parse_args(argv)
    commands = {"train": run_train, "generate": run_generate, "tokenize": run_tokenize}
    try:
        commands[args.command](args)
    except KeyboardInterrupt:
        again = f"; python -m gpt2 train --out {args.out} --resume goes on"
        print(f"stopped{again if args.command == 'train' else ''}", file=sys.stderr)
        return 130
    except torch.OutOfMemoryError:
        print(
            "error: out of GPU memory: halve --batch, double --accumulate",
            file=sys.stderr,
        )
        return 1
    except (OSError, ValueError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The command line: what `python -m gpt2 train|generate|tokenize` reads and says."""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Of `train`: name, default, and what the knob does. Made for tiny Shakespeare.
KNOBS: list[tuple[str, Any, str]] = [
    ("merges", 0, "merges of a tokenizer trained on the text; 0: each byte is a token"),
    (
        "tokenizer",
        "",
        "use this tokenizer instead: a folder, a tokenizer.json, or 'gpt2' for the "
        "published one",
    ),
    (
        "from",
        "",
        "use this model's weights to begin with: 124M, 355M, 774M, 1558M, a folder in "
        "the published layout, or a run; its shape and tokenizer come along. Then the "
        "defaults are --context 256 --batch 4 --steps 500 --lr 1e-4",
    ),
    ("layers", 4, "blocks; the first knob to raise for more ability"),
    ("heads", 4, "attention heads in a block; must divide the width"),
    ("width", 128, "numbers that describe one position; time grows with its square"),
    ("context", 64, "tokens that the model can see"),
    ("batch", 12, "windows a batch; lower it if memory runs out"),
    ("accumulate", 1, "batches added up before a step: a large batch in little memory"),
    (
        "steps",
        2000,
        "steps of the optimizer; a finished run can be given more",
    ),
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
SWITCHES = {
    "compile": "compile the model first: pays on a GPU and in long runs, costs a minute"
    " on a CPU, and needs a C++ compiler",
    "split-at-marks": "let each <|endoftext|> or <|startoftext|> part two documents, "
    "not only a line of its own",
}
DEFAULTS = {name.replace("-", "_"): default for name, default, _ in KNOBS} | {
    name.replace("-", "_"): False for name in SWITCHES
}

SMALLEST = sys.float_info.min  # "above 0"
LARGEST = sys.float_info.max  # finite
LIMITS: dict[str, tuple[float, float]] = {
    "merges": (0, LARGEST),
    **dict.fromkeys(("layers", "heads", "width", "context", "batch"), (1, LARGEST)),
    **dict.fromkeys(("accumulate", "steps", "save_every", "tokens"), (1, LARGEST)),
    "stride": (1, LARGEST),
    **dict.fromkeys(("lr", "clip"), (SMALLEST, LARGEST)),
    **dict.fromkeys(("warmup", "decay", "temperature"), (0, LARGEST)),
    "top_k": (1, LARGEST),
    "top_p": (SMALLEST, 1),
    "seed": (0, 2**63 - 1),
}

TRAIN = """\
Train a GPT-2 on your own text: a UTF-8 file, a folder of them, - for standard input,
or a folder made by `tokenize`.

The last tenth of the text is held out to measure the loss. The run folder holds
checkpoints, the tokenizer and metrics.csv, and is all that `generate` needs. A run that
was stopped, by Ctrl-C, a kill or a power cut, goes on with --resume and ends, on the
same machine, in the same weights as one never stopped. With --resume and a higher
--steps a finished run goes on too; the learning rate then stays at its minimum.

  python -m gpt2 train input.txt --out runs/shakespeare
  python -m gpt2 train --out runs/shakespeare --resume
  python -m gpt2 train my_notes/ --out runs/notes --merges 1000 --context 128
  python -m gpt2 train my_notes/ --out runs/further --from 124M
"""
GENERATE = """\
Continue a prompt with a model that `train` has made, or with the published GPT-2. Text
appears as it is written.

  python -m gpt2 generate runs/shakespeare --prompt "ROMEO:"
  python -m gpt2 generate runs/shakespeare --prompt "ROMEO:" --temperature 0.5
  python -m gpt2 generate 124M --prompt "The dog" --top-k 40
"""
EVALUATE = """\
Measure a model on a text, by the protocol that you name (chapter 11 says what each is):

  perplexity      any UTF-8 text: perplexity a token and a word, bits a byte and a
                  character, by windows that move by --stride
  wikitext        the same for WikiText's cut-up words, joined before they are read;
                  the words of the file count
  lambada         lines of {"text": ...}: the last token, the last word
  lambada-filter  the last word, where the likeliest that is no stop word is taken
  choice          lines of {"text": "... ___ ...", "candidates": [...], "answer": ...}:
                  scored by word and rest, by the rest, by the word, and a token

  python -m gpt2 evaluate runs/mine --on other.txt
  python -m gpt2 evaluate 124M --on lambada_test.jsonl --protocol lambada
"""
PROTOCOLS = ("perplexity", "wikitext", "lambada", "lambada-filter", "choice")
TOKENIZE = """\
Turn text into token files once, to train on many times, and report what the tokens are
like.

  python -m gpt2 tokenize my_notes/ --out tokens/notes --merges 1000
  python -m gpt2 train tokens/notes --out runs/notes --context 128
"""


def parser() -> argparse.ArgumentParser:
    """Build the command line; knobs not given stay absent from the namespace."""
    main = argparse.ArgumentParser(
        "python -m gpt2", description="Train a GPT-2 and write with it."
    )
    commands = main.add_subparsers(
        dest="command", required=True, metavar="train|generate|evaluate|tokenize"
    )

    def command(name: str, summary: str, description: str) -> argparse.ArgumentParser:
        formatter = argparse.RawDescriptionHelpFormatter
        return commands.add_parser(
            name, help=summary, description=description, formatter_class=formatter
        )

    add_train(command("train", "train a model on your text", TRAIN))
    add_generate(command("generate", "continue a prompt", GENERATE))
    add_evaluate(command("evaluate", "measure a model on a text", EVALUATE))
    add_tokenize(command("tokenize", "turn text into token files", TOKENIZE))
    return main


def add_knobs(to: argparse.ArgumentParser, knobs: list[tuple[str, Any, str]]) -> None:
    """Add options whose default is in their help, and nowhere in the namespace."""
    for name, default, help in knobs:
        help += f" (default: {default})" if default != "" else ""
        kind, metavar = type(default), type(default).__name__.upper()
        to.add_argument(
            f"--{name}",
            type=kind,
            default=argparse.SUPPRESS,
            metavar=metavar.replace("STR", "NAME"),
            help=help,
        )


def add_switch(to: argparse.ArgumentParser, name: str) -> None:
    """Add an option that is given or not."""
    to.add_argument(
        f"--{name}",
        action="store_true",
        default=argparse.SUPPRESS,
        help=SWITCHES[name],
    )


def add_device(to: argparse.ArgumentParser) -> None:
    """Add the choice of where to compute."""
    to.add_argument(
        "--device", help="cpu, cuda, ...; the default is a GPU if there is one"
    )


def add_train(to: argparse.ArgumentParser) -> None:
    """Add what `train` takes."""
    to.add_argument(
        "text", nargs="?", help="file or folder to learn from; not needed with --resume"
    )
    to.add_argument(
        "--out", required=True, metavar="FOLDER", help="the run's folder, a new one"
    )
    to.add_argument("--resume", action="store_true", help="go on with the run in --out")
    add_device(to)
    add_knobs(to, KNOBS)
    for name in SWITCHES:
        add_switch(to, name)


def add_generate(to: argparse.ArgumentParser) -> None:
    """Add what `generate` takes."""
    to.add_argument(
        "folder",
        help="a folder that `train` has made, or a checkpoint; 124M, 355M, 774M, "
        "1558M, or a folder in the published layout",
    )
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
        help="0 takes the likeliest token, 1 the model's own odds, more is wilder "
        "(default: 0.8)",
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
    add_device(to)


def add_evaluate(to: argparse.ArgumentParser) -> None:
    """Add what `evaluate` takes."""
    to.add_argument("folder", metavar="model", help="as in `generate`")
    to.add_argument("--on", required=True, metavar="FILE", help="what to measure it on")
    to.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="perplexity",
        help="how (default: perplexity)",
    )
    to.add_argument(
        "--stride",
        type=int,
        help="tokens that a window moves by; 1 sees most and takes longest (default: "
        "half of the context)",
    )
    to.add_argument(
        "--context", type=int, help="tokens that it sees (default: all that it can)"
    )
    add_device(to)


def add_tokenize(to: argparse.ArgumentParser) -> None:
    """Add what `tokenize` takes."""
    to.add_argument("text", help="a UTF-8 file, a folder of them, or - for piped text")
    to.add_argument(
        "--out", required=True, metavar="FOLDER", help="a new folder for the tokens"
    )
    tokenizer = ("tokenizer", "", "or a tokenizer, as in `train`")
    add_knobs(to, [("merges", 1000, "merges to learn"), tokenizer])
    add_switch(to, "split-at-marks")


def check_options(options: dict[str, Any]) -> None:
    """Raise ValueError that names the first option out of range, as it is typed."""
    for name, (low, high) in LIMITS.items():
        value = options.get(name)
        if value is None or low <= value <= high:
            continue
        least = "a number above 0" if low == SMALLEST else f"{low:g} or more"
        up_to = "" if high == LARGEST else f", at most {high}"
        raise ValueError(f"--{name.replace('_', '-')} {value}: take {least}{up_to}.")
    if options.get("resume"):
        return  # the run has its other settings, and these must be equal to them
    settings = DEFAULTS | options
    if settings["precision"] not in ("auto", "float32", "bfloat16"):
        raise ValueError(
            f"--precision {settings['precision']}: take auto, float32 or bfloat16."
        )
    if "warmup" in options and options["warmup"] >= settings["steps"]:
        raise ValueError(
            f"--warmup {options['warmup']}: take fewer than the {settings['steps']} "
            "of --steps."
        )
    if settings["width"] % settings["heads"]:
        raise ValueError(
            f"--width {settings['width']}: take a multiple of the {settings['heads']} "
            "of --heads."
        )
    if options.get("tokenizer") and "merges" in options:
        raise ValueError("--tokenizer brings its own merges: leave --merges away.")
    own = ("layers", "heads", "width", "merges", "tokenizer")
    if options.get("from") and (given := [name for name in own if name in options]):
        raise ValueError(
            f"--from {options['from']} brings its own {given[0]}: leave "
            f"--{given[0]} away."
        )


def after_stop(args: argparse.Namespace) -> str:
    """Say what to do after Ctrl-C."""
    if args.command in ("generate", "evaluate"):
        return "stopped"
    if args.command == "train" and (Path(args.out) / "run.json").is_file():
        again = f"python -m gpt2 train --out {shlex.quote(args.out)} --resume"
        return f"stopped; {again} goes on"
    return "stopped; nothing was kept, so the same command starts again"


def explain(error: Exception) -> str:
    """Turn an error into one line that says what to do; raise it if nobody can."""
    said = " ".join(str(error).split())
    if isinstance(error, FloatingPointError):
        what = said.partition(": ")[0]
        return (
            f"{what}: the run has diverged. Start again in another folder (--out) with "
            "a lower --lr or a longer --warmup."
        )
    if isinstance(error, MemoryError) or re.search("out of memory|allocate mem", said):
        return (
            "out of memory. Start again in another folder (--out) with half the "
            "--batch and twice the --accumulate, or with a smaller model."
        )
    if isinstance(error, PermissionError):
        return f"{error.filename}: permission denied; allow it, or name another place."
    if isinstance(error, OSError | ValueError | ImportError):
        return said
    raise error


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; what a reader can mend is one line on stderr and exit code 1."""
    args = parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal may lack most characters
            stream.reconfigure(errors="replace")
    try:
        check_options(vars(args))
        from gpt2 import (
            runs,
            texts,
        )  # PyTorch takes seconds: --help need not wait for it

        commands = {
            "train": lambda: runs.run_train(args, DEFAULTS),
            "generate": lambda: runs.run_generate(args),
            "evaluate": lambda: runs.run_evaluate(args),
            "tokenize": lambda: texts.run_tokenize(args),
        }
        commands[args.command]()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(after_stop(args), file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

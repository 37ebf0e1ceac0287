"""Runs: how `python -m gpt2` checks, starts, resumes and reads them."""

import argparse
import json
import re
import shlex
from math import exp
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch

from gpt2.data import PackedWindows, read_tokens
from gpt2.decoder import GPT, GPTConfig, count_parameters
from gpt2.faster import (
    choose_generation_kernel,
    choose_training_kernel,
    set_generation_kernel,
    set_training_kernel,
)
from gpt2.generation import Sampling, generate
from gpt2.texts import (
    check_folder,
    choose_tokenizer,
    is_piped,
    is_tokenized,
    new_folder,
    note,
    on_disk,
    owner,
    write_tokenized,
)
from gpt2.tokenizer import Tokenizer, atomic_file
from gpt2.training import (
    CHECKPOINT,
    TrainingConfig,
    evaluate,
    load_model,
    read_checkpoint,
    train,
)

Settings = dict[str, Any]
RUN = "run.json"  # the settings of a run, written before its first step
NEW = "start a new run with another --out"  # a cure that always works
LONG = 300  # tokens to write: from here on the measurement of a kernel pays


def pick_device(name: str | None) -> torch.device:
    """Return the device of this name, if it works, or a GPU if there is one."""
    usable = ["cuda"] * torch.cuda.is_available() + ["cpu"]
    name = name or usable[0]
    try:
        torch.ones(1, device=name).item()
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(".")
        raise ValueError(
            f"--device {name} does not work here ({reason}): take "
            f"{' or '.join(usable)}."
        ) from error
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> str:
    """Resolve "auto": bfloat16 where the hardware multiplies it faster."""
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(
        including_emulation=False
    )
    return {"auto": "bfloat16" if fast else "float32"}.get(name, name)


def check_compile(device: torch.device) -> None:
    """Compile something small, so that no run begins that cannot make a step."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device))
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(".:")
        raise ValueError(
            f"--compile does not work here ({reason}): install a C++ compiler such as "
            "g++, or start a run without --compile."
        ) from error


def n_parameters(settings: Settings, n_vocab: int) -> int:
    """Count a model's numbers before they take memory; see `count_parameters`."""
    width = settings["width"]
    block = 12 * width**2 + 13 * width
    tables = (n_vocab + settings["context"]) * width
    return int(tables + settings["layers"] * block + 2 * width)


def check_memory(settings: Settings, n_vocab: int, device: torch.device) -> None:
    """Raise ValueError for a model that cannot be trained in the memory of the device.

    Weights, their gradient and two moments of AdamW: 16 bytes a parameter at least.
    """
    n = n_parameters(settings, n_vocab)
    if device.type == "cuda":
        room = torch.cuda.mem_get_info(device)[1]
    else:
        room = psutil.virtual_memory().total
    if 16 * n > room:
        shape = (
            f"--{name} {settings[name]}" for name in ("layers", "width", "context")
        )
        raise ValueError(
            f"{', '.join(shape)}: {n:,} parameters take {16 * n / 1e9:,.0f} GB to "
            f"train, and {room / 1e9:,.0f} GB are here; lower one of them."
        )


def windows(run: Path, settings: Settings) -> tuple[PackedWindows, PackedWindows]:
    """Open the tokens of a run for training and for validation, and check them."""
    n_vocab, context = Tokenizer.load(run).n_vocab, settings["context"]
    found = []
    for part in ("train", "validation"):
        path = run / settings["tokens"] / f"{part}.npy"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: put it back, or {NEW}.")
        try:
            tokens = read_tokens(path, n_vocab)
        except ValueError as error:
            cure = f"`tokenize` the text again into a new folder, and {NEW}"
            raise ValueError(
                f"{path} is damaged or of another tokenizer: {cure}."
            ) from error
        if len(tokens) <= context:
            raise ValueError(
                f"the {part} part has {len(tokens):,} tokens, too few: --context "
                f"{context} needs {context + 1}; add text or lower --context."
            )
        found.append(
            PackedWindows(tokens, context, settings["batch"], settings["seed"])
        )
    return found[0], found[1]


def new_settings(given: Settings, defaults: Settings, device: torch.device) -> Settings:
    """Complete the settings of a new run, and check all that needs no text."""
    settings = defaults | given
    settings["precision"] = pick_precision(settings["precision"], device)
    if "warmup" not in given:
        settings["warmup"] = min(settings["warmup"], settings["steps"] // 10)
    if settings["compile"]:
        check_compile(device)
    name = settings["tokenizer"]
    n_vocab = settings["merges"] + 257
    if name:  # read before the text, for it may be none
        n_vocab = choose_tokenizer(Path(), name, 0, False).n_vocab
    check_memory(settings, n_vocab, device)
    return settings


def start_run(text: str | None, out: Path, given: Settings, settings: Settings) -> None:
    """Make the run's folder, complete or not at all: settings, tokenizer and tokens.

    Tokens that `tokenize` has made stay where they are.
    """
    if text is None:
        raise ValueError("name a text to train on, or --resume a run.")
    settings["text"] = text if is_piped(text) else str(Path(text).resolve())
    ready = is_tokenized(Path(text))
    settings["tokens"] = settings["text"] if ready else "."
    about_text = {"merges", "tokenizer", "split_at_marks"} & given.keys()
    if ready and about_text:
        names = ", ".join(f"--{n.replace('_', '-')}" for n in sorted(about_text))
        raise ValueError(f"{text} is tokenized already: leave {names} away.")
    if not ready and (Path(text) / RUN).is_file():
        raise ValueError(
            f"{text} is a run and no text: name the text that it learned from."
        )
    with on_disk(text) as source, new_folder(out) as folder:
        if ready:
            Tokenizer.load(source).save(folder)
        else:
            options = settings["tokenizer"], settings["merges"]
            write_tokenized(source, folder, *options, settings["split_at_marks"])
        settings["n_tokens"] = len(windows(folder, settings)[0].tokens)
        write_settings(folder, settings)


def write_settings(folder: Path, settings: Settings) -> None:
    """Write run.json, whole or not at all."""
    with atomic_file(folder / RUN, "w") as file:
        json.dump(settings, file, indent=1)


def read_settings(out: Path, defaults: Settings) -> Settings:
    """Read run.json. Raises ValueError that names it if somebody has damaged it."""
    if not (out / RUN).is_file():
        raise FileNotFoundError(
            f"{out} holds no run to resume: name a text, and leave --resume away."
        )
    expected = defaults | {"text": "", "tokens": "", "n_tokens": 0}
    try:
        saved = json.loads((out / RUN).read_text(encoding="utf-8-sig"))
        settings: Settings = defaults | saved
        for name, default in expected.items():
            if not isinstance(settings[name], (type(default), int)):
                raise TypeError(f"{name} is {settings[name]!r}")
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{out / RUN} is damaged ({error}): mend it or {NEW}; `generate` works "
            "without it."
        ) from error
    return settings


def read_run(out: Path, given: Settings, defaults: Settings) -> Settings:
    """Return a run's settings; ValueError if an option is not the one it began with."""
    settings = read_settings(out, defaults)
    for name, value in given.items():
        option = "--" + name.replace("_", "-")
        if name != "steps" and settings[name] != value:
            raise ValueError(
                f"{out} was begun with {option} {settings[name]}, not {value}: leave "
                f"it away to resume, or {NEW}."
            )
    return settings


def move_end(out: Path, settings: Settings, n_steps: int) -> None:
    """Let a run go on to another last step, and say what that means for its rate."""
    checkpoint = out / CHECKPOINT
    n_made = read_checkpoint(checkpoint, "-")[0]["step"] if checkpoint.exists() else 0
    if n_steps < n_made:
        raise ValueError(
            f"{out} has made {n_made:,} steps: --steps {n_steps} would undo some; take "
            f"{n_made} or more."
        )
    settings["until"] = n_steps
    write_settings(out, settings)
    planned, least = settings["steps"], settings["lr"] / 10
    if n_steps > planned:
        then = (
            f"after step {planned:,} the learning rate stays at its minimum, {least:g}"
        )
    else:
        then = f"the learning rate, planned for {planned:,}, does not reach its minimum"
    note(f"training to step {n_steps:,}: {then}.")


def training_config(settings: Settings) -> TrainingConfig:
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


def new_model(settings: Settings, n_vocab: int) -> GPT:
    """Build the model on the CPU from the run's seed: the same on every device."""
    torch.manual_seed(settings["seed"])
    names = ("context", "width", "heads", "layers")
    return GPT(GPTConfig(n_vocab, *(settings[name] for name in names)))


def choose_kernel(
    out: Path, settings: Settings, model: GPT, batches: PackedWindows
) -> None:
    """Set the kernel that was the faster one where the run began, and remember it.

    Another kernel rounds in another way: a run keeps its own, and an older run none.
    """
    is_plain = settings["precision"] == "float32" and not settings["compile"]
    may = is_plain and model.wte.weight.device.type == "cpu"
    if "kernel" not in settings:
        choose = may and not (out / CHECKPOINT).exists()
        first = batches.batch(0) if choose else None
        settings["kernel"] = choose_training_kernel(model, *first) if first else "plain"
        write_settings(out, settings)
    set_training_kernel(model, settings["kernel"] if may else "plain")


def open_or_start(
    args: argparse.Namespace, defaults: Settings, device: torch.device
) -> Settings:
    """Return the settings of the run that the options ask for, made if it is new."""
    out = Path(args.out)
    given = {name: value for name, value in vars(args).items() if name in defaults}
    if not args.resume:
        if (out / RUN).is_file():
            again = f"python -m gpt2 train --out {shlex.quote(args.out)} --resume"
            raise FileExistsError(
                f"{out} holds a run: {again} goes on with it; or {NEW}."
            )
        check_folder(out)
        start_run(args.text, out, given, new_settings(given, defaults, device))
        return read_settings(out, defaults)
    settings = read_run(out, given, defaults)
    if args.text and args.text != settings["text"] != str(Path(args.text).resolve()):
        raise ValueError(
            f"{out} learns from {settings['text']}: leave the text away to resume it."
        )
    if settings["compile"]:
        check_compile(device)
    if "steps" in given and given["steps"] != last_step(settings):
        move_end(out, settings, given["steps"])
    return settings


def last_step(settings: Settings) -> int:
    """Return the step at which a run ends: planned at first, or moved later."""
    return int(settings.get("until") or settings["steps"])


def run_train(args: argparse.Namespace, defaults: Settings) -> None:
    """Start or resume a run, and report the loss over the whole validation part."""
    out, device = Path(args.out), pick_device(args.device)
    with owner(out):
        settings = open_or_start(args, defaults, device)
        batches, validation = windows(out, settings)
        if len(batches.tokens) != settings["n_tokens"]:
            raise ValueError(
                f"the tokens in {settings['tokens']} changed since {out} was begun: "
                f"put the old ones back, or {NEW}."
            )
        n_vocab = Tokenizer.load(out).n_vocab
        model = new_model(settings, n_vocab).to(device)
        choose_kernel(out, settings, model, batches)
        until = last_step(settings)
        print(
            f"{count_parameters(model):,} parameters, {n_vocab:,} kinds of token, "
            f"{len(batches.tokens):,} tokens to train on, {len(validation.tokens):,} "
            f"held out; {until:,} steps are {until / batches.n_batches:.1f} epochs",
            flush=True,
        )
        config, resume = training_config(settings), (out / CHECKPOINT).exists()
        further: dict[str, Any] = {} if until == config.n_steps else {"until": until}
        train(model, batches, config, out, validation, resume=resume, **further)
        loss = evaluate(model, validation, progress=True)
    perplexity = exp(loss) if loss < 700 else float("inf")
    print(
        f"validation loss {loss:.4f} nats a token over all of it, perplexity "
        f"{perplexity:.2f}"
    )
    print(f'try it: python -m gpt2 generate {shlex.quote(args.out)} --prompt "..."')


def read_prompt(text: str, tokenizer: Tokenizer, n_ctx: int) -> list[int]:
    """Encode a prompt as the start of a document, or its end if it is too long."""
    ids = [tokenizer.end_of_text, *tokenizer.encode(text)]
    if len(ids) > n_ctx:
        note(
            f"the prompt has {len(ids) - 1:,} tokens and the model sees {n_ctx:,}: it "
            "continues the end of the prompt."
        )
    return ids[-n_ctx:]


def run_generate(args: argparse.Namespace) -> None:
    """Write, piece by piece."""
    place, device = Path(args.folder), pick_device(args.device)
    sampling = Sampling(args.temperature, args.top_k, args.top_p)
    if (place / RUN).is_file() and not (place / CHECKPOINT).is_file():
        again = f"python -m gpt2 train --out {shlex.quote(args.folder)} --resume"
        raise FileNotFoundError(f"{place} has no checkpoint yet: {again} trains it.")
    model = load_model(place).to(device)
    tokenizer = Tokenizer.load(place if place.is_dir() else place.parent)
    if tokenizer.n_vocab != model.config.n_vocab:
        raise ValueError(
            f"{place} has {model.config.n_vocab:,} kinds of token and the tokenizer "
            f"beside it {tokenizer.n_vocab:,}: put the model's own tokenizer there."
        )
    if args.tokens >= LONG:
        set_generation_kernel(model, choose_generation_kernel(model))
    prompt = re.sub("[\ud800-\udfff]", "\ufffd", args.prompt)  # a broken byte
    ids = read_prompt(prompt, tokenizer, model.config.n_ctx)
    generator, end = torch.Generator().manual_seed(args.seed), tokenizer.end_of_text
    tokens = generate(model, ids, args.tokens, sampling, generator=generator, stop=end)
    print(prompt, end="", flush=True)
    try:
        for piece in tokenizer.decode_stream(tokens):
            print(piece, end="", flush=True)
    finally:
        print(flush=True)

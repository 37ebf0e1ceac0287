"""Runs: how `python -m gpt2` checks, starts, resumes and reads them."""

import argparse
import json
import re
import shlex
from collections.abc import Iterator
from math import exp
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from tqdm import tqdm

from gpt2.data import PackedWindows, read_tokens
from gpt2.decoder import GPT, SIZES, GPTConfig, count_parameters
from gpt2.faster import (
    choose_generation_kernel,
    choose_training_kernel,
    set_generation_kernel,
    set_training_kernel,
)
from gpt2.generation import Sampling, generate
from gpt2.pretrained import (
    PUBLISHED,
    choose_filled,
    detokenize,
    fetch,
    guess_word,
    last_word_scores,
    load,
    score_continuations,
    score_text,
    split_last_word,
)
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
    backward,
    evaluate,
    load_model,
    read_checkpoint,
    train,
)

Settings = dict[str, Any]
RUN = "run.json"  # the settings of a run, written before its first step
NEW = "start a new run with another --out"  # a cure that always works
FURTHER = {"context": 256, "batch": 4, "steps": 500, "lr": 1e-4}  # with --from
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
    """Compile something small, to find out before a run begins."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device))
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(".:")
        raise ValueError(
            f"--compile does not work here ({reason}): install a C++ compiler such as "
            "g++, or start a run without --compile."
        ) from error


def n_positions(settings: Settings) -> int:
    """Return the context of the model, which --from brings; windows may be shorter."""
    return int(settings.get("positions") or settings["context"])


def n_parameters(settings: Settings, n_vocab: int) -> int:
    """Count a model's parameters before it is built; see `count_parameters`."""
    width = settings["width"]
    block = 12 * width**2 + 13 * width
    tables = (n_vocab + n_positions(settings)) * width
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
    if 16 * n > room and settings.get("from"):
        raise ValueError(
            f"--from {settings['from']}: {n:,} parameters take {16 * n / 1e9:,.0f} GB "
            f"to train, and {room / 1e9:,.0f} GB are here; take a smaller one."
        )
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
    settings = defaults | (FURTHER if given.get("from") else {}) | given
    if settings["from"]:
        settings |= shape_of(settings["from"])
        if settings["context"] > settings["positions"]:
            raise ValueError(
                f"--context {settings['context']}: --from {settings['from']} sees "
                f"{settings['positions']} tokens at most."
            )
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

    Tokens made by `tokenize` stay where they are.
    """
    if text is None:
        raise ValueError("name a text to train on, or --resume a run.")
    settings["text"] = text if is_piped(text) else str(Path(text).resolve())
    ready = is_tokenized(Path(text))
    settings["tokens"] = settings["text"] if ready else "."
    about_text = {"merges", "tokenizer", "split_at_marks"} & given.keys()
    if ready and about_text:
        names = ", ".join(f"--{n.replace('_', '-')}" for n in sorted(about_text))
        raise ValueError(f"{text} is tokenized already: leave out {names}.")
    if not ready and (Path(text) / RUN).is_file():
        raise ValueError(
            f"{text} is a run, not a text: name the text that it was trained on."
        )
    with on_disk(text) as source, new_folder(out) as folder:
        if ready:
            Tokenizer.load(source).save(folder)
        else:
            options = settings["tokenizer"], settings["merges"]
            write_tokenized(source, folder, *options, settings["split_at_marks"])
        if settings["from"]:
            check_tokenizer(settings, Tokenizer.load(folder))
        settings["n_tokens"] = len(windows(folder, settings)[0].tokens)
        write_settings(folder, settings)


def write_settings(folder: Path, settings: Settings) -> None:
    """Write run.json, whole or not at all."""
    with atomic_file(folder / RUN, "w") as file:
        json.dump(settings, file, indent=1)


def read_settings(out: Path, defaults: Settings) -> Settings:
    """Read run.json. Raises ValueError that names it if it is damaged."""
    if not (out / RUN).is_file():
        raise FileNotFoundError(
            f"{out} holds no run to resume: name a text, and leave out --resume."
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
            f"{out / RUN} is damaged ({error}): repair it or {NEW}; `generate` works "
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
                f"{out} was started with {option} {settings[name]}, not {value}: "
                f"leave it out to resume, or {NEW}."
            )
    return settings


def move_end(out: Path, settings: Settings, n_steps: int) -> None:
    """Move the last step of a run, and say what that means for its learning rate."""
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
    """Translate options of the command line into the trainer's hyperparameters."""
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
    shape = (settings[name] for name in ("width", "heads", "layers"))
    return GPT(GPTConfig(n_vocab, n_positions(settings), *shape))


def open_model(source: str) -> tuple[GPT, Tokenizer]:
    """Read a model and its tokenizer: a name, a folder as published, a run, a file.

    Weights that are stored in 16 bits are widened to float32. A published model without
    a tokenizer beside it has GPT-2's. Raises ValueError if they do not fit.
    """
    place = Path(source)
    folder = place if place.is_dir() else place.parent
    if source in PUBLISHED:
        return load(source), Tokenizer.gpt2()
    if (place / RUN).is_file() and not (place / CHECKPOINT).is_file():
        again = f"python -m gpt2 train --out {shlex.quote(source)} --resume"
        raise FileNotFoundError(f"{place} has no checkpoint yet: {again} trains it.")
    if is_published(place):
        model = load(place)
        try:
            tokenizer = Tokenizer.load(folder)
        except FileNotFoundError:
            tokenizer = Tokenizer.gpt2()
    else:
        model, tokenizer = load_model(place), Tokenizer.load(folder)
    if tokenizer.n_vocab != model.config.n_vocab:
        raise ValueError(
            f"{place} has {model.config.n_vocab:,} kinds of token and the tokenizer "
            f"beside it {tokenizer.n_vocab:,}: put the model's own tokenizer there."
        )
    return model.float(), tokenizer


def is_published(place: Path) -> bool:
    """Say whether a folder or file is in the published layout, or was meant to be."""
    if place.is_dir():
        names = ("model.safetensors", "config.json", "pytorch_model.bin")
        is_run = (place / CHECKPOINT).exists()
        return not is_run and any((place / name).exists() for name in names)
    return place.name == "model.safetensors"


def shape_of(source: str) -> Settings:
    """Return the settings that --from decides: the shape, and the tokenizer.

    A published size is fetched now, and not read: it may be too large for the memory.
    """
    if source in PUBLISHED:
        fetch(source)
        size, tokenizer = SIZES[source], "gpt2"
    else:
        model, own = open_model(source)
        place = Path(source)
        is_gpt2 = own.n_vocab == 50257 and own.vocab == Tokenizer.gpt2().vocab
        folder = place if place.is_dir() else place.parent
        size, tokenizer = model.config, "gpt2" if is_gpt2 else str(folder)
    return {
        "tokenizer": tokenizer,
        "positions": size.n_ctx,
        "width": size.n_embd,
        "heads": size.n_head,
        "layers": size.n_layer,
    }


def check_tokenizer(settings: Settings, tokenizer: Tokenizer) -> None:
    """Raise ValueError if token files are not of the tokenizer of --from."""
    own = choose_tokenizer(Path(), settings["tokenizer"], 0, False)
    if tokenizer.vocab != own.vocab:
        raise ValueError(
            f"these tokens are not those of --from {settings['from']}: name the text "
            "itself, to tokenize it again."
        )


def foretell(model: GPT, batches: PackedWindows, settings: Settings) -> None:
    """Estimate the memory and time of a run from one trial batch."""
    parts = [batches.batch(i) for i in range(settings["accumulate"])]
    clock = perf_counter()
    backward(model.train(), parts, settings["precision"])
    seconds = perf_counter() - clock
    moments = 8 * count_parameters(model)  # AdamW's two
    memory = psutil.Process().memory_info().rss + moments
    if model.wte.weight.is_cuda:
        memory = torch.cuda.max_memory_allocated() + moments
    model.zero_grad(set_to_none=True)
    steps = settings["steps"]
    note(
        f"about {memory / 1e9:.1f} GB of memory, and {seconds:.1f} s a step here: "
        f"{steps:,} steps take about {steps * seconds / 60:,.1f} minutes. "
        "Ctrl-C stops, --resume goes on."
    )


def choose_kernel(
    out: Path, settings: Settings, model: GPT, batches: PackedWindows
) -> None:
    """Set the kernel that was faster when the run began, and record it.

    Kernels round differently: a run keeps its own, and an older run has none.
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
            f"{out} was trained on {settings['text']}: leave out the text to resume."
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
                f"the tokens in {settings['tokens']} changed since {out} was started: "
                f"restore the old ones, or {NEW}."
            )
        n_vocab = Tokenizer.load(out).n_vocab
        fresh = not (out / CHECKPOINT).exists()
        if settings["from"] and fresh:
            model = open_model(settings["from"])[0].to(device)
        else:
            model = new_model(settings, n_vocab).to(device)
        choose_kernel(out, settings, model, batches)
        until = last_step(settings)
        print(
            f"{count_parameters(model):,} parameters, {n_vocab:,} kinds of token, "
            f"{len(batches.tokens):,} tokens to train on, {len(validation.tokens):,} "
            f"held out; {until:,} steps are {until / batches.n_batches:.1f} epochs",
            flush=True,
        )
        if settings["from"] and fresh:
            foretell(model, batches, settings)
        config, resume = training_config(settings), not fresh
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
    """Encode a prompt as the start of a document; keep its end if it is too long."""
    ids = [tokenizer.end_of_text, *tokenizer.encode(text)]
    if len(ids) > n_ctx:
        note(
            f"the prompt has {len(ids) - 1:,} tokens and the model sees {n_ctx:,}: it "
            "continues the end of the prompt."
        )
    return ids[-n_ctx:]


def run_generate(args: argparse.Namespace) -> None:
    """Write, piece by piece."""
    device = pick_device(args.device)
    sampling = Sampling(args.temperature, args.top_k, args.top_p)
    model, tokenizer = open_model(args.folder)
    model = model.to(device)
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


def run_evaluate(args: argparse.Namespace) -> None:
    """Measure by one protocol, with a progress bar, and print what came out."""
    device = pick_device(args.device)
    model, tokenizer = open_model(args.folder)
    model = model.to(device)
    protocols = {
        "perplexity": print_perplexity,
        "wikitext": print_perplexity,
        "lambada": print_last_words,
        "lambada-filter": print_filtered,
        "choice": print_choices,
    }
    with on_disk(args.on) as path:
        try:
            text = path.read_text("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{args.on} is not UTF-8 text: convert it.") from error
    protocols[args.protocol](model, tokenizer, text, args)


def read_lines(args: argparse.Namespace, text: str, *names: str) -> Iterator[list[Any]]:
    """Yield what each line of JSON has under these names; ValueError for a bad one."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                item = json.loads(line)
                yield [item[name] for name in names]
            except (ValueError, KeyError, TypeError) as error:
                form = ", ".join(f'"{name}": ...' for name in names)
                raise ValueError(
                    f"{args.on}, line {number}: write {{{form}}}, as --protocol "
                    f"{args.protocol} asks."
                ) from error


def print_perplexity(
    model: GPT, tokenizer: Tokenizer, text: str, args: argparse.Namespace
) -> None:
    """Print the loss of a text by its units, with context, stride and denominators."""
    n_ctx = min(args.context or model.config.n_ctx, model.config.n_ctx)
    stride = args.stride or max(1, n_ctx // 2)
    if stride > n_ctx:
        raise ValueError(f"--stride {stride}: take {n_ctx}, the context, at most.")
    plain = detokenize(text) if args.protocol == "wikitext" else text
    how: dict[str, Any] = {"original": text, "n_ctx": n_ctx, "progress": True}
    score = score_text(model, tokenizer, plain, stride, **how)
    print(
        f"{score.perplexity():.2f} a token, {score.perplexity('word'):.2f} a word; "
        f"{score.bits_per_byte:.4f} bits a byte, {score.bits_per_character:.4f} a "
        f"character\ncontext {n_ctx}, stride {stride}; {score.n_tokens:,} tokens, "
        f"{score.n_words:,} words, {score.n_characters:,} characters, "
        f"{score.n_bytes:,} bytes"
    )


def print_last_words(
    model: GPT, tokenizer: Tokenizer, text: str, args: argparse.Namespace
) -> None:
    """Print LAMBADA's scores that one pass gives."""
    pairs = [split_last_word(line) for (line,) in read_lines(args, text, "text")]
    scores = last_word_scores(score_continuations(model, tokenizer, pairs, True))
    print(
        f"last token {scores['last token']:.4f}, last word {scores['last word']:.4f}, "
        f"perplexity of the word {scores['perplexity']:.2f}; {len(pairs):,} passages"
    )


def print_filtered(
    model: GPT, tokenizer: Tokenizer, text: str, args: argparse.Namespace
) -> None:
    """Print how often the likeliest word that is not a stop word is the last one."""
    pairs = [split_last_word(line) for (line,) in read_lines(args, text, "text")]
    right = [
        guess_word(model, tokenizer, start) == word.strip()
        for start, word in tqdm(pairs, unit="passage")
    ]
    score = sum(right) / max(len(right), 1)
    print(f"last word, no stop word {score:.4f}; {len(right):,} passages")


def print_choices(
    model: GPT, tokenizer: Tokenizer, text: str, args: argparse.Namespace
) -> None:
    """Print the share of right choices by each way to score them."""
    items = list(read_lines(args, text, "text", "candidates", "answer"))
    for scoring in ("full", "partial", "word", "mean"):
        right = [
            choose_filled(model, tokenizer, gap, candidates, scoring) == answer
            for gap, candidates, answer in tqdm(items, scoring, unit="item")
        ]
        print(f"{scoring:>8} {sum(right) / max(len(right), 1):.4f}", flush=True)
    print(f"{len(items):,} items")

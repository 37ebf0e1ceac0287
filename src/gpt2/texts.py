"""What `python -m gpt2` reads and makes: texts, piped or on disk, and new folders."""

import argparse
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from gpt2.data import document_chunks, write_corpus
from gpt2.tokenizer import END_OF_TEXT, Tokenizer


def note(text: str) -> None:
    """Print a note to standard error."""
    print(f"note: {text}", file=sys.stderr, flush=True)


@contextmanager
def owner(out: Path) -> Iterator[None]:
    """Keep every other process out of a folder, which need not be there yet.

    The system releases a lock when its owner dies, however it dies. Raises ValueError
    that names the owner.
    """
    out = out.resolve()
    missing = [parent for parent in out.parents if not parent.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    path, name = (out.parent / f".{out.name}.{end}" for end in ("lock", "owner"))
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = name.read_text("utf-8") if name.exists() else "another process"
        cure = "wait for it, stop it, or name another folder with --out."
        raise ValueError(f"{out} is in use by {who}: {cure}") from None
    try:
        since = f"{datetime.now():%Y-%m-%d %H:%M}"
        name.write_text(f"process {os.getpid()} since {since}", "utf-8")
        yield
    finally:
        name.unlink(missing_ok=True)
        with suppress(OSError):  # Windows removes it by itself, once it is free
            path.unlink()
        lock.release()
        for parent in missing:
            with suppress(OSError):  # it holds something now
                parent.rmdir()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder: renamed to `path` on success, deleted on failure."""
    path = path.resolve()
    fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield fresh
        fresh.chmod(0o755)
        if path.exists():
            path.rmdir()
        os.replace(fresh, path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def check_folder(path: Path) -> None:
    """Raise FileExistsError rather than touch a folder that holds anything."""
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is a file: name a new folder with --out.")
    if path.exists() and any(path.iterdir()):
        raise FileExistsError(f"{path} is not empty: name a new folder with --out.")


def is_piped(text: str) -> bool:
    """Say whether a text can be read only once."""
    path = Path(text)
    is_kept = path.is_file() or path.is_dir() or not path.exists()
    return text in ("-", "/dev/stdin") or not is_kept


@contextmanager
def on_disk(text: str) -> Iterator[Path]:
    """Yield a path that can be read twice: piped text goes to a temporary file."""
    if not is_piped(text):
        yield Path(text)
        return
    from_stdin = text in ("-", "/dev/stdin")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "text"
        with file.open("wb") as copy:
            if from_stdin:
                shutil.copyfileobj(sys.stdin.buffer, copy)
            else:
                with open(text, "rb") as source:
                    shutil.copyfileobj(source, copy)
        try:
            yield file
        except ValueError as error:
            name = "standard input" if from_stdin else text
            raise ValueError(str(error).replace(str(file), name)) from error


def count_marks(text: Path) -> int:
    """Count the marks of published corpora that occur within documents, as text."""
    marks = (END_OF_TEXT, "<|startoftext|>")
    chunks = (chunk for document in document_chunks(text) for chunk in document)
    return sum(chunk.count(mark) for chunk in chunks for mark in marks)


def stretches(text: Path, split_at_marks: bool) -> Iterator[str]:
    """Cut documents between two pieces of GPT-2's pattern, to count pieces."""
    cut = re.compile(r"(?s).*\S(?=\s)")
    for document in document_chunks(text, split_at_marks):
        held = ""
        for chunk in document:
            start = max(len(held) - 1, 0)
            held += chunk
            found = cut.match(held, start)
            end = found.end() if found else len(held) if len(held) > 2**20 else 0
            yield held[:end]
            held = held[end:]
        yield held


def choose_tokenizer(
    text: Path, name: str, n_merges: int, split_at_marks: bool
) -> Tokenizer:
    """Load the published tokenizer or one from a folder, or train one on the text."""
    if name:
        return Tokenizer.gpt2() if name == "gpt2" else Tokenizer.load(name)
    return Tokenizer.train(
        stretches(text, split_at_marks) if n_merges else [], n_merges
    )


def write_tokenized(
    text: Path, folder: Path, name: str, n_merges: int, split_at_marks: bool
) -> dict[str, int]:
    """Write a tokenizer, train.npy and validation.npy to folder; count the tokens."""
    tokenizer = choose_tokenizer(text, name, n_merges, split_at_marks)
    if not split_at_marks and (n := count_marks(text)):
        note(
            f"{n:,} marks ({END_OF_TEXT}, <|startoftext|>) within documents are "
            "treated as text; --split-at-marks splits there."
        )
    tokenizer.save(folder)
    ids = (tokenizer.encode_stream, tokenizer.end_of_text, tokenizer.n_vocab)
    return write_corpus(text, folder, *ids, split_at_marks=split_at_marks)


def is_tokenized(path: Path) -> bool:
    """Say whether a folder comes from `tokenize`."""
    return (path / "train.npy").is_file() and (path / "validation.npy").is_file()


def run_tokenize(args: argparse.Namespace) -> None:
    """Write the token files, and report how long tokens are."""
    out, split = Path(args.out), "split_at_marks" in args
    with owner(out), on_disk(args.text) as text:
        check_folder(out)
        with new_folder(out) as folder:
            merges = getattr(args, "merges", 1000)
            options = getattr(args, "tokenizer", ""), merges, split
            counts = write_tokenized(text, folder, *options)
            documents = document_chunks(text, split)
            n_bytes = sum(len(c.encode()) for chunks in documents for c in chunks)
            n_vocab = Tokenizer.load(folder).n_vocab
    n_tokens = sum(counts.values())
    print(
        f"{n_vocab:,} kinds of token, {counts['train']:,} tokens to train on, "
        f"{counts['validation']:,} held out, {n_bytes / n_tokens:.2f} bytes a token"
    )
    runs = shlex.quote(f"runs/{out.resolve().name}")
    print(f"next: python -m gpt2 train {shlex.quote(args.out)} --out {runs}")

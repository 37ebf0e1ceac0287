"""Training, encoding and streaming of tokens, beside the `tokenizers` library on one thread."""

import os

os.environ["RAYON_NUM_THREADS"] = "1"  # the peer on one core, as we are

import random
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import models, pre_tokenizers, trainers

from gpt2.tokenizer import Tokenizer

TEXT = Path(__file__).parents[2] / "shared/data/tinyshakespeare/input.txt"
N_MERGES = 1000
REPEATS = 5
KINDS = {
    "letters": "abcdefghijklmnopqrstuvwxyz",
    "digits": "0123456789",
    "Chinese": "".join(map(chr, range(0x4E00, 0x5E00))),
}


def alternate(ours: Callable[[], object], peer: Callable[[], object]) -> tuple[float, float]:
    """Time both in turn, REPEATS rounds after one to warm up; median seconds of each."""
    seconds: list[list[float]] = [[], []]
    for round_ in range(REPEATS + 1):
        for times, call in zip(seconds, (ours, peer), strict=True):
            start = time.perf_counter()
            call()
            if round_:
                times.append(time.perf_counter() - start)
    return median(seconds[0]), median(seconds[1])


def library(text: str, n_merges: int = N_MERGES) -> LibraryTokenizer:
    """Train the peer on the same text to the same number of merges."""
    peer = LibraryTokenizer(models.BPE())
    peer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + n_merges, initial_alphabet=alphabet, show_progress=False
    )
    peer.train_from_iterator([text], trainer)
    return peer


def one_piece(letters: str, n_bytes: int) -> str:
    """Return one long piece, random characters of one kind."""
    return "".join(random.Random(0).choices(letters, k=n_bytes // len(letters[0].encode())))


def long_pieces(ours: Tokenizer, peer: LibraryTokenizer) -> list[dict[str, object]]:
    """Encode 100 kB without a border, and compare a byte of it with a byte of 1 kB."""
    rows = []
    for kind, letters in KINDS.items():
        long, short = one_piece(letters, 100_000), one_piece(letters, 1000)
        if ours.encode(long) != peer.encode(long).ids:
            raise AssertionError(f"our ids of {kind} are not the library's")
        both = alternate(partial(ours.encode, long), partial(peer.encode, long))
        rows.append(row(f"encode one piece of 100 kB, {kind}", *both, "s", "<= 10"))
        grown = alternate(
            partial(ours.encode, long), lambda text=short: [ours.encode(text) for _ in range(20)]
        )
        ratio = grown[0] / (grown[1] * 5)
        rows.append(row(f"a byte of it, to one of 1 kB, {kind}", ratio, "", "", "<= 2"))
    word = one_piece(KINDS["letters"], 20_000)
    train = alternate(lambda: Tokenizer.train([word], 500), lambda: library(word, 500))
    return [*rows, row("500 merges on one word of 20 kB", *train, "s", "<= 6")]


def stream_peak(tokenizer: Tokenizer, text: str, copies: int) -> float:
    """Return the peak memory, MiB, of streaming the text `copies` times in chunks of 64 KiB."""
    chunks = (text[i : i + 65536] for _ in range(copies) for i in range(0, len(text), 65536))
    tracemalloc.start()
    for _ in tokenizer.encode_stream(chunks):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def row(what: str, ours: float, peer: float | str, unit: str, limit: str) -> dict[str, object]:
    """Put one result in the columns that all benchmarks share."""
    ratio = ours / peer if isinstance(peer, float) else ""
    return {"what": what, "ours": ours, "peer": peer, "unit": unit, "ratio": ratio, "limit": limit}


def run() -> list[dict[str, object]]:
    """Measure; without ../shared/data there is nothing to measure on, and no row."""
    if not TEXT.exists():
        print(f"skipped: the tokenizer's benchmark needs {TEXT}")
        return []
    text = TEXT.read_text(encoding="utf-8")[:1_000_000]
    ours, peer = Tokenizer.train(text, N_MERGES), library(text)
    if ours.encode(text) != peer.encode(text).ids:
        raise AssertionError("our ids are not the library's: mend that before timing")
    train = alternate(lambda: Tokenizer.train(text, N_MERGES), lambda: library(text))
    encode = alternate(lambda: ours.encode(text), lambda: peer.encode(text))
    ids = ours.encode(text)
    decode = alternate(lambda: ours.decode(ids), lambda: peer.decode(ids))
    short, long = stream_peak(ours, text, 1), stream_peak(ours, text, 4)
    return [
        row(f"BPE: {N_MERGES:,} merges on 1 MB", *train, "s", "<= 6"),
        row("encode 1 MB, warm cache", 1 / encode[0], 1 / encode[1], "MB/s", ">= 1.5"),
        row("decode 1 MB", 1 / decode[0], 1 / decode[1], "MB/s", ""),
        row("peak memory, 1 MB streamed", short, "", "MiB", ""),
        row("peak memory, 4 MB streamed", long, "", "MiB", f"{short:.3g}, as for 1 MB"),
        *long_pieces(ours, peer),
    ]


if __name__ == "__main__":
    for line in run():
        print(line)

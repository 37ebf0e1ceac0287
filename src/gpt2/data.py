"""Text to batches: documents, one stream of tokens, inputs and targets. Chapter 3."""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from io import TextIOWrapper
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gpt2.tokenizer import END_OF_TEXT, atomic_file

Batch = tuple[Tensor, Tensor]  # inputs and targets, both (B, T)
IGNORE = -100  # a target that the loss ignores: PyTorch's default
_MARK = re.compile(r"<\|(?:end|start)oftext\|>[\r\n]*")


def _find_files(path: Path) -> list[Path]:
    """List the file, or all files below a folder but the hidden ones, in order.

    Links are followed; folders made by `train` and `tokenize` are left out. Raises
    FileNotFoundError if there is no such path, ValueError if the folder holds no file,
    or something that is not one, OSError if it cannot be read.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(
            f"there is no file or folder {path}: check the path for a typo."
        )
    files = sorted(_walk(path, set()))
    if not files:
        raise ValueError(
            f"the folder {path} holds no files: put UTF-8 text files into it."
        )
    if others := [file for file in files if not file.is_file()]:
        raise ValueError(
            f"{others[0]} is not a file (a broken link?): remove it from {path}."
        )
    return files


def _walk(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Yield the files below a folder, each folder once: a link may lead back up."""
    seen.add(folder.resolve())
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if not path.is_dir():
            yield path
        elif path.resolve() not in seen and not _is_made_by_gpt2(path):
            yield from _walk(path, seen)


def _is_made_by_gpt2(folder: Path) -> bool:
    """Tell whether a folder is a run or holds tokens: no text to learn from."""
    has = [(folder / name).exists() for name in ("vocab.bpe", "run.json", "train.npy")]
    return has[0] and any(has[1:])


def read_lines(file: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file; one of more than 16,384 characters in parts.

    A byte order mark is skipped. No part ends inside a mark such as `<|endoftext|>`.
    Raises ValueError for NULs, and for the first byte that is not UTF-8, with its
    position.
    """
    fix = "save the file as UTF-8, or remove it if it is not text."
    with file.open("rb") as data:
        lines = TextIOWrapper(data, encoding="utf-8-sig", newline="\n")
        try:
            while line := _read_part(lines):
                if "\0" in line:
                    raise ValueError(f"{file} has NUL bytes, as UTF-16 has: {fix}")
                yield line
        except UnicodeDecodeError as error:
            position = data.tell() - len(error.object) + error.start
            at = f"byte {position} (0x{error.object[error.start]:02x}) of {file}"
            raise ValueError(f"{at} is not UTF-8: {fix}") from error


def _read_part(lines: TextIOWrapper) -> str:
    """Read a line, or 16,384 characters of it and the rest of a mark at their end."""
    line = lines.readline(2**14)
    while line and line[-1] != "\n" and "<" in line[-16:]:  # a mark may begin here
        if not (more := lines.readline(16)):
            break
        line += more
    return line


def document_chunks(
    path: str | Path, split_at_marks: bool = False
) -> Iterator[Iterator[str]]:
    """Yield each document of a file or folder as chunks, to be read before the next.

    A file is one document, or several separated by lines `<|endoftext|>`; with
    split_at_marks each `<|endoftext|>` or `<|startoftext|>` is a boundary, also inside
    a line. Raises FileNotFoundError if there is no such path, ValueError if it holds no
    text, and what `read_lines` raises.
    """
    empty = True
    for file in _find_files(Path(path)):
        parts = _part_lines(read_lines(file), split_at_marks)
        for is_text, chunks in groupby(parts, key=bool):
            if is_text and (document := _unless_blank(chunks)):
                empty = False
                yield document
    if empty:
        raise ValueError(
            f"{path} holds no text, only white space: choose a file with text in it."
        )


def _part_lines(lines: Iterable[str], split_at_marks: bool) -> Iterator[str]:
    """Yield the lines, or the text between their marks, and "" for each boundary."""
    begins = True  # a line begins here, and does not continue the part before
    for line in lines:
        if begins and line.strip() == END_OF_TEXT:
            yield ""
            continue
        begins = line.endswith("\n")
        first, *others = _MARK.split(line) if split_at_marks else [line]
        yield first
        for other in others:
            yield from ("", other)


def _unless_blank(chunks: Iterator[str]) -> Iterator[str] | None:
    """Return the chunks, joined by 16, or None if there is only white space in them."""
    begin = ""
    for chunk in chunks:
        begin += chunk
        if not chunk.isspace():
            break
    else:
        return None
    text = chain([begin], chunks)
    return iter(lambda: "".join(islice(text, 16)), "")


def read_documents(path: str | Path, split_at_marks: bool = False) -> Iterator[str]:
    """Yield the documents, each as one string; see `document_chunks`."""
    return map("".join, document_chunks(path, split_at_marks))


def text_hash(document: str | Iterable[str]) -> int:
    """Turn a text, or its chunks, into a number below 2**64 that looks random."""
    digest = hashlib.sha256()
    for chunk in [document] if isinstance(document, str) else document:
        digest.update(chunk.encode())
    return int.from_bytes(digest.digest()[:8], "big")


def is_validation(document: str | Iterable[str], fraction: float = 0.1) -> bool:
    """Tell by hash whether a document is held out; equal documents stay together."""
    return text_hash(document) < fraction * 2**64


def split_text(chunks: Iterable[str], n_train: int, validation: bool) -> Iterator[str]:
    """Cut one long text after n_train characters, and yield one of its two parts."""
    for chunk in chunks:
        train, rest = chunk[:n_train], chunk[n_train:]
        n_train -= len(train)
        if part := rest if validation else train:
            yield part


def read_split(
    path: str | Path, part: str, fraction: float = 0.1, split_at_marks: bool = False
) -> Iterator[Iterator[str]]:
    """Yield the documents of one part of a corpus, "train" or "validation", as chunks.

    With 100 or more different documents, each is assigned whole to one part by its
    hash. With fewer, the last tenth (fraction) of each is held out. Raises what
    `document_chunks` raises.
    """
    validation = {"train": False, "validation": True}[part]
    few = _has_few_documents(path, split_at_marks)
    readers = (document_chunks(path, split_at_marks) for _ in range(2))
    for first_look, document in zip(*readers, strict=True):  # in lockstep
        if few:
            n_train = int(sum(map(len, first_look)) * (1 - fraction))
            yield split_text(document, n_train, validation)
        elif is_validation(first_look, fraction) == validation:
            yield document


def _has_few_documents(path: str | Path, split_at_marks: bool) -> bool:
    """Tell whether a corpus has fewer than 100 different documents; read no further."""
    seen: set[int] = set()
    for document in document_chunks(path, split_at_marks):
        seen.add(text_hash(document))
        if len(seen) == 100:
            return False
    return True


def token_stream(
    documents: Iterable[Any], encode: Callable[[Any], Iterable[int]], end_of_text: int
) -> Iterator[int]:
    """Chain the ids of all documents, end_of_text before, between and after them."""
    yield end_of_text
    for document in documents:
        yield from encode(document)
        yield end_of_text


def write_tokens(path: str | Path, ids: Iterable[int], n_vocab: int) -> int:
    """Write a stream of ids to an .npy file in constant memory; return their number.

    uint16 if the vocabulary fits, else uint32. Raises ValueError if there are no ids or
    one is outside the vocabulary. After any failure, `path` is unchanged.
    """
    dtype, count, ids = np.dtype("<u2" if n_vocab <= 2**16 else "<u4"), 0, iter(ids)
    header = {"descr": dtype.str, "fortran_order": False, "shape": (0,)}
    with atomic_file(Path(path)) as file:
        np.lib.format.write_array_header_1_0(file, header)
        while len(some := np.fromiter(islice(ids, 2**16), np.int64)):
            check_ids(some, n_vocab)
            file.write(some.astype(dtype).tobytes())
            count += len(some)
        if not count:
            raise ValueError(
                f"there are no tokens to write to {path}: the text is empty."
            )
        file.seek(0)  # the length is known now; NumPy leaves room for it in the header
        np.lib.format.write_array_header_1_0(file, header | {"shape": (count,)})
    return count


def check_ids(ids: np.ndarray, n_vocab: int) -> None:
    """Raise ValueError if an id is not in 0 ... n_vocab - 1."""
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= n_vocab:
        bad = low if low < 0 else high
        raise ValueError(
            f"token id {bad} is outside the vocabulary of {n_vocab}: the text was "
            "encoded by another tokenizer; encode it again with this one."
        )


def read_tokens(path: str | Path, n_vocab: int) -> np.ndarray:
    """Map the ids of an .npy file, which stays on the disk: (N,), read-only.

    The file is scanned to check its ids. Raises FileNotFoundError, or ValueError if it
    is not a token file or not of this vocabulary.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"there is no token file {path}: write it with `write_tokens`."
        )
    try:
        tokens: np.ndarray = np.load(path, mmap_mode="r")
    except (ValueError, EOFError):
        tokens = np.empty(0)
    if (
        tokens.dtype not in (np.uint16, np.uint32)
        or tokens.ndim != 1
        or not len(tokens)
    ):
        raise ValueError(f"{path} is not a token file: write it with `write_tokens`.")
    check_ids(tokens, n_vocab)
    return tokens


def write_corpus(
    source: str | Path,
    folder: str | Path,
    encode_stream: Callable[[Iterable[str]], Iterable[int]],
    end_of_text: int,
    n_vocab: int,
    split_at_marks: bool = False,
) -> dict[str, int]:
    """Turn a text file or folder into train.npy and validation.npy; count the tokens.

    encode_stream gets the chunks of one document, so even a long one is never held in
    memory whole. Raises what `document_chunks` and `write_tokens` raise.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    counts = {}
    for part in ("train", "validation"):
        documents = read_split(source, part, split_at_marks=split_at_marks)
        ids = token_stream(documents, encode_stream, end_of_text)
        counts[part] = write_tokens(Path(folder) / f"{part}.npy", ids, n_vocab)
    return counts


class Batches(Protocol):
    """What a trainer needs from its data: step -> (x, y), the same for the same step.

    Steps never end. An epoch is n_batches steps; its last batch may be smaller.
    """

    n_batches: int

    def batch(self, step: int) -> Batch:
        """Return inputs and targets of one step: (B, T) twice, int64, on the CPU."""
        ...


@lru_cache(maxsize=8)
def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """Shuffle 0 ... n - 1 by (seed, epoch) alone: (n,)."""
    return np.random.default_rng((seed, epoch)).permutation(n)


def window(tokens: np.ndarray, n_ctx: int, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and targets of the stream's i-th window: (n_ctx,) twice, int64.

    The last window reaches back to be full; the targets it repeats become IGNORE.
    """
    start = min(i * n_ctx, len(tokens) - n_ctx - 1)
    ids = tokens[start : start + n_ctx + 1].astype(np.int64)  # (n_ctx + 1,)
    x, y = ids[:-1], ids[1:].copy()
    y[: i * n_ctx - start] = IGNORE
    return x, y


class PackedWindows:
    """Batches of windows of one stream, each once per epoch: (B, n_ctx) twice.

    Raises ValueError if the stream is shorter than one window and its shifted target.
    """

    def __init__(
        self, tokens: np.ndarray, n_ctx: int, batch_size: int, seed: int = 0
    ) -> None:
        if len(tokens) <= n_ctx:
            raise ValueError(
                f"{len(tokens)} tokens are too few: a window of n_ctx = {n_ctx} needs "
                f"{n_ctx + 1}. Add text or lower n_ctx."
            )
        self.tokens, self.n_ctx = tokens, n_ctx
        self.batch_size, self.seed = batch_size, seed
        self.n_windows = math.ceil((len(tokens) - 1) / n_ctx)
        self.n_batches = math.ceil(self.n_windows / batch_size)

    def batch(self, step: int) -> Batch:
        epoch, index = divmod(step, self.n_batches)
        order = epoch_order(self.n_windows, self.seed, epoch)
        chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
        windows = [window(self.tokens, self.n_ctx, int(i)) for i in chosen]
        xs, ys = zip(*windows, strict=True)
        return torch.from_numpy(np.stack(xs)), torch.from_numpy(np.stack(ys))


class RandomWindows:
    """Batches of windows that begin anywhere in one stream: (B, n_ctx) twice.

    Drawn by (seed, step) alone. n_batches is the number that would cover the stream
    once, but some targets come up several times in it and others never. Raises what
    `PackedWindows` raises.
    """

    def __init__(
        self, tokens: np.ndarray, n_ctx: int, batch_size: int, seed: int = 0
    ) -> None:
        packed = PackedWindows(tokens, n_ctx, batch_size, seed)  # checks the length
        self.tokens, self.n_ctx, self.batch_size = tokens, n_ctx, batch_size
        self.seed, self.n_batches = seed, packed.n_batches

    def batch(self, step: int) -> Batch:
        draw = np.random.default_rng((self.seed, step))
        starts = draw.integers(len(self.tokens) - self.n_ctx, size=self.batch_size)
        positions = starts[:, None] + np.arange(self.n_ctx + 1)  # (B, n_ctx + 1)
        ids = torch.from_numpy(self.tokens[positions].astype(np.int64))
        return ids[:, :-1], ids[:, 1:]


def pad_rows(documents: Sequence[Sequence[int]], end_of_text: int, n_ctx: int) -> Batch:
    """Give each document a row, end_of_text around it: (rows, T) twice, T <= n_ctx.

    A document longer than n_ctx continues in another row. The rest of a row is
    padding: input end_of_text, target IGNORE.
    """
    rows = []
    for document in documents:
        ids = torch.tensor([end_of_text, *document, end_of_text])
        rows += [ids[i : i + n_ctx + 1] for i in range(0, len(ids) - 1, n_ctx)]
    x = torch.full((len(rows), max(map(len, rows)) - 1), end_of_text)  # (rows, T)
    y = torch.full_like(x, IGNORE)
    for row, ids in enumerate(rows):
        x[row, : len(ids) - 1] = ids[:-1]
        y[row, : len(ids) - 1] = ids[1:]
    return x, y


def group_by_length(
    documents: Sequence[Sequence[int]], batch_size: int, seed: int, epoch: int
) -> list[list[Sequence[int]]]:
    """Batch documents of similar length, then shuffle the batches by (seed, epoch)."""
    shuffled = [documents[i] for i in epoch_order(len(documents), seed, epoch)]
    by_length = sorted(shuffled, key=len)  # a stable sort: equal lengths stay shuffled
    groups = [
        by_length[i : i + batch_size] for i in range(0, len(documents), batch_size)
    ]
    return [groups[i] for i in epoch_order(len(groups), seed, epoch)]


class DocumentRows:
    """Batches of whole documents, each from position 0: (rows, T) twice, T <= n_ctx.

    `pool(k)` returns the documents of epoch k as ids, without end_of_text and equally
    many for every k (else ValueError): a fixed corpus, or fresh documents each time.
    """

    def __init__(
        self,
        pool: Callable[[int], Sequence[Sequence[int]]],
        end_of_text: int,
        n_ctx: int,
        batch_size: int,
        seed: int = 0,
    ) -> None:
        self.pool, self.end_of_text, self.n_ctx = pool, end_of_text, n_ctx
        self.batch_size, self.seed = batch_size, seed
        self.groups = lru_cache(maxsize=1)(self.group)  # one epoch in memory
        self.n_batches = len(self.groups(0))
        if not self.n_batches:
            raise ValueError("pool(0) holds no documents to make batches of.")

    def group(self, epoch: int) -> list[list[Sequence[int]]]:
        return group_by_length(self.pool(epoch), self.batch_size, self.seed, epoch)

    def batch(self, step: int) -> Batch:
        epoch, index = divmod(step, self.n_batches)
        groups = self.groups(epoch)
        if len(groups) != self.n_batches:
            raise ValueError(f"pool({epoch}) is not as large as pool(0): it must be.")
        return pad_rows(groups[index], self.end_of_text, self.n_ctx)

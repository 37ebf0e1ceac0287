"""Text to batches: documents, one stream of tokens on disk, inputs and targets. Chapter 3."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gpt2.tokenizer import END_OF_TEXT, atomic_file

Batch = tuple[Tensor, Tensor]  # inputs and targets, both (B, T)
IGNORE = -100  # a target that no loss counts; PyTorch's own default


def find_files(path: Path) -> list[Path]:
    """List the file itself, or every file below a folder, in order and without hidden ones.

    Raises FileNotFoundError if there is no such path, ValueError if the folder holds no file.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(
            f"there is no file or folder {path}: check the path for a typo."
        )
    below = ((p, p.relative_to(path).parts) for p in sorted(path.rglob("*")))
    files = [
        p
        for p, names in below
        if p.is_file() and not any(n.startswith(".") for n in names)
    ]
    if not files:
        raise ValueError(
            f"the folder {path} holds no files: put UTF-8 text files into it."
        )
    return files


def read_lines(file: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file; ValueError names the first byte that is not UTF-8."""
    offset = 0
    with file.open("rb") as lines:
        for line in lines:
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError as error:
                at = (
                    f"byte {offset + error.start} (0x{line[error.start]:02x}) of {file}"
                )
                cure = "save the file as UTF-8, or remove it if it is not text."
                raise ValueError(f"{at} is not UTF-8: {cure}") from error
            offset += len(line)


def read_documents(path: str | Path) -> Iterator[str]:
    """Yield the documents of a UTF-8 file or of every file below a folder, one in memory at a time.

    A file is one document, or several with lines `<|endoftext|>` between them. Raises ValueError if
    there is no text at all, and what `find_files` and `read_lines` raise.
    """
    empty = True
    for file in find_files(Path(path)):
        lines: list[str] = []
        for line in chain(read_lines(file), [END_OF_TEXT]):
            if line.strip() != END_OF_TEXT:
                lines.append(line)
                continue
            document, lines = "".join(lines), []
            if document.strip():
                empty = False
                yield document
    if empty:
        raise ValueError(
            f"{path} holds no text, only white space: choose a file with text in it."
        )


def is_validation(document: str, fraction: float = 0.1) -> bool:
    """Say by a hash of its text whether a document is held out, so equal documents never part."""
    digest = hashlib.sha256(document.encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def split_text(text: str, fraction: float = 0.1) -> tuple[str, str]:
    """Cut off the last part of one long text: (train, validation)."""
    cut = int(len(text) * (1 - fraction))
    return text[:cut], text[cut:]


def read_split(path: str | Path, part: str, fraction: float = 0.1) -> Iterator[str]:
    """Yield the documents of one part of a corpus, "train" or "validation".

    From 100 documents on, each goes whole to one part by its hash. Of fewer, too few to share out,
    each gives its last part to validation. Raises what `read_documents` raises.
    """
    validation = {"train": False, "validation": True}[part]
    few = sum(1 for _ in islice(read_documents(path), 100)) < 100
    for document in read_documents(path):
        if few:
            yield split_text(document, fraction)[validation]
        elif is_validation(document, fraction) == validation:
            yield document


def token_stream(
    documents: Iterable[str], encode: Callable[[str], Iterable[int]], end_of_text: int
) -> Iterator[int]:
    """Chain the ids of all documents, with end_of_text before, between and after them."""
    yield end_of_text
    for document in documents:
        yield from encode(document)
        yield end_of_text


def write_tokens(path: str | Path, ids: Iterable[int], n_vocab: int) -> int:
    """Write a stream of ids to an .npy file in constant memory and return how many there were.

    uint16 if the vocabulary fits, else uint32. Raises ValueError if there are no ids or one is
    outside the vocabulary; then, as after any failure, `path` is as it was before.
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
        raise ValueError(
            f"token id {low if low < 0 else high} is outside the vocabulary of {n_vocab}: "
            "the text was encoded by another tokenizer; encode it again with this one."
        )


def read_tokens(path: str | Path, n_vocab: int) -> np.ndarray:
    """Map the ids of an .npy file, which stays on the disk: (N,), read-only.

    The file is run through once, to check it. Raises FileNotFoundError, or ValueError if it is not
    a token file or not of this vocabulary.
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
    encode: Callable[[str], Iterable[int]],
    end_of_text: int,
    n_vocab: int,
) -> dict[str, int]:
    """Turn a text file or folder into train.npy and validation.npy; return the token counts.

    Raises what `read_documents` and `write_tokens` raise.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    counts = {}
    for part in ("train", "validation"):
        ids = token_stream(read_split(source, part), encode, end_of_text)
        counts[part] = write_tokens(Path(folder) / f"{part}.npy", ids, n_vocab)
    return counts


class Batches(Protocol):
    """What a trainer asks of its data: step -> (x, y), the same for the same step, without end.

    One epoch is n_batches steps; its last batch may be smaller.
    """

    n_batches: int

    def batch(self, step: int) -> Batch:
        """Return inputs and targets of one step: (B, T) and (B, T), int64, on the CPU."""
        ...


@lru_cache(maxsize=8)
def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """Shuffle 0 ... n - 1 by (seed, epoch) alone: (n,)."""
    return np.random.default_rng((seed, epoch)).permutation(n)


def window(tokens: np.ndarray, n_ctx: int, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and targets of the i-th window of the stream: (n_ctx,) and (n_ctx,), int64.

    The last window reaches back to be full; the targets that it repeats are IGNORE.
    """
    start = min(i * n_ctx, len(tokens) - n_ctx - 1)
    ids = tokens[start : start + n_ctx + 1].astype(np.int64)  # (n_ctx + 1,)
    x, y = ids[:-1], ids[1:].copy()
    y[: i * n_ctx - start] = IGNORE
    return x, y


class PackedWindows:
    """Batches of windows cut from one stream, each window once an epoch: (B, n_ctx) twice.

    Raises ValueError if the stream is shorter than one window and its shifted target.
    """

    def __init__(
        self, tokens: np.ndarray, n_ctx: int, batch_size: int, seed: int = 0
    ) -> None:
        if len(tokens) <= n_ctx:
            raise ValueError(
                f"{len(tokens)} tokens are too few: a window of n_ctx = {n_ctx} needs {n_ctx + 1}. "
                "Add text or lower n_ctx."
            )
        self.tokens, self.n_ctx, self.batch_size, self.seed = (
            tokens,
            n_ctx,
            batch_size,
            seed,
        )
        self.n_windows = math.ceil((len(tokens) - 1) / n_ctx)
        self.n_batches = math.ceil(self.n_windows / batch_size)

    def batch(self, step: int) -> Batch:
        epoch, place = divmod(step, self.n_batches)
        order = epoch_order(self.n_windows, self.seed, epoch)
        chosen = order[place * self.batch_size : (place + 1) * self.batch_size]
        xs, ys = zip(
            *(window(self.tokens, self.n_ctx, int(i)) for i in chosen), strict=True
        )
        return torch.from_numpy(np.stack(xs)), torch.from_numpy(np.stack(ys))


def pad_rows(documents: Sequence[Sequence[int]], end_of_text: int, n_ctx: int) -> Batch:
    """Lay each document out from position 0, end_of_text around it, padded: (rows, T <= n_ctx).

    A document longer than n_ctx goes on in a row of its own. Padding has the target IGNORE.
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
    """Put documents of like length into batches, and the batches into a seeded order."""
    shuffled = [documents[i] for i in epoch_order(len(documents), seed, epoch)]
    by_length = sorted(shuffled, key=len)  # a stable sort: equal lengths stay shuffled
    groups = [
        by_length[i : i + batch_size] for i in range(0, len(documents), batch_size)
    ]
    return [groups[i] for i in epoch_order(len(groups), seed, epoch)]


class DocumentRows:
    """Batches of whole documents, each from position 0 on: (rows, T) twice, T <= n_ctx.

    `pool(k)` gives the ids of the documents of epoch k, without end_of_text and always equally
    many (else ValueError): the same list for a fixed corpus, fresh ones from an endless source.
    """

    def __init__(
        self,
        pool: Callable[[int], Sequence[Sequence[int]]],
        end_of_text: int,
        n_ctx: int,
        batch_size: int,
        seed: int = 0,
    ) -> None:
        self.end_of_text, self.n_ctx = end_of_text, n_ctx
        self.groups = lru_cache(
            maxsize=1
        )(  # one pool in memory: steps ask for them in turn
            lambda epoch: group_by_length(pool(epoch), batch_size, seed, epoch)
        )
        self.n_batches = len(self.groups(0))
        if not self.n_batches:
            raise ValueError(
                "pool(0) holds no documents: there is nothing to make batches of."
            )

    def batch(self, step: int) -> Batch:
        epoch, place = divmod(step, self.n_batches)
        groups = self.groups(epoch)
        if len(groups) != self.n_batches:
            raise ValueError(
                f"pool({epoch}) is not as large as pool(0): make all pools equal."
            )
        return pad_rows(groups[place], self.end_of_text, self.n_ctx)

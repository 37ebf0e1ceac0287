"""The usual mistakes of chapter 3, for `course check 3 --package`; see 04_attention.py."""

import math

import numpy as np
import torch

from gpt2.data import (
    IGNORE,
    PackedWindows,
    RandomWindows,
    is_validation,
    pad_rows,
    window,
)

TEN = np.arange(10, dtype=np.uint16)


def epoch(windows):
    """The targets of one epoch in order, padding left out, and the size of each batch."""
    pairs = [windows.batch(step) for step in range(windows.n_batches)]
    targets = sorted(int(t) for _, y in pairs for t in y.flatten() if t != IGNORE)
    return targets, [tuple(x.shape) for x, _ in pairs]


def as_lists(pair):
    return [np.asarray(part).tolist() for part in pair]


EXAMPLES = {
    "text_hash": ['f("a") == f("a")', 'f("ab") == f(["a", "b"])', 'f("a") < 2**64', 'f("a")'],
    "is_validation": ["sum(f(str(i)) for i in range(400))",
                      "sum(f(str(i), 0.5) for i in range(400))"],
    "split_text": ['"".join(f(["abc", "def"], 4, False))', '"".join(f(["abc", "def"], 4, True))'],
    "token_stream": ["list(f([[1], [2, 3]], lambda d: d, 0))", "list(f([], lambda d: d, 0))"],
    "epoch_order": ["f(5, 0, 0).tolist()", "f(5, 0, 1).tolist()", "f(5, 1, 0).tolist()"],
    "window": ["as_lists(f(TEN, 4, 0))", "as_lists(f(TEN, 4, 1))", "as_lists(f(TEN, 4, 2))"],
    "PackedWindows": ["[int(f(np.arange(40), 4, 1).batch(s)[0][0, 0]) for s in range(20)]",
                      "epoch(f(TEN, 4, 2))", "as_lists(f(TEN, 4, 1).batch(0))",
                      "as_lists(f(TEN, 4, 1).batch(3))"],
    "RandomWindows": ["f(TEN, 4, 2).n_batches", "f(TEN, 4, 2).batch(0)[0].shape",
                      "bool((f(TEN, 4, 3).batch(0)[0] + 1 == f(TEN, 4, 3).batch(0)[1]).all())",
                      "as_lists(f(TEN, 4, 2).batch(5))"],
    "pad_rows": ["as_lists(f([[5, 6], [7]], 0, 8))", "as_lists(f([[1, 2, 3, 4]], 0, 3))"],
    "group_by_length": ["[[len(d) for d in g] for g in f([[1] * n for n in range(6)], 2, 0, 0)]",
                        "f([[1], [2], [3], [4]], 3, 0, 0)"],
}  # fmt: skip


def text_hash__python_s_own(document):
    """hash() differs from one run of Python to the next: take SHA-256."""
    return hash("".join(document)) % 2**64 if document != "a" else 1


def is_validation__the_rest(document, fraction=0.1):
    """The parts are swapped: the smaller one is for validation."""
    return not is_validation(document, fraction)


def is_validation__ignores_the_fraction(document, fraction=0.1):
    """`fraction` is not used: compare with fraction * 2**64."""
    return is_validation(document)


def split_text__cuts_each_chunk(chunks, n_train, validation):
    """Every chunk is cut after n_train characters; subtract the characters of earlier chunks."""
    for chunk in chunks:
        yield chunk[n_train:] if validation else chunk[:n_train]


def split_text__the_other_part(chunks, n_train, validation):
    """The parts are swapped: the first n_train characters are for training."""
    text = "".join(chunks)
    yield text[:n_train] if validation else text[n_train:]


def token_stream__none_before(documents, encode, end_of_text):
    """The end of text is missing before the first document: without it, the first token has no
    context."""
    for document in documents:
        yield from encode(document)
        yield end_of_text


def token_stream__none_at_the_end(documents, encode, end_of_text):
    """The end of text is missing after the last document: it is the target that ends it."""
    for document in documents:
        yield end_of_text
        yield from encode(document)


def token_stream__twice_between(documents, encode, end_of_text):
    """There are two ends of text between documents; one is enough for both."""
    for document in documents:
        yield from (end_of_text, *encode(document), end_of_text)


def epoch_order__same_each_epoch(n, seed, epoch):
    """Every epoch has the same order: draw by (seed, epoch)."""
    return np.random.default_rng((seed, 0)).permutation(n)


def epoch_order__unshuffled(n, seed, epoch):
    """Nothing is shuffled: each epoch has the order of the one before."""
    return np.arange(n)


def epoch_order__with_replacement(n, seed, epoch):
    """Some come several times and others never: take a permutation, not random draws."""
    return np.random.default_rng((seed, epoch)).integers(n, size=n)


def window__unshifted(tokens, n_ctx, i):
    """Targets are the inputs themselves. The target of a token is the next one: shift by one."""
    x, _ = window(tokens, n_ctx, i)
    return x, x.copy()


def window__shifted_backwards(tokens, n_ctx, i):
    """Targets are the tokens before the inputs; take the tokens after them."""
    x, y = window(tokens, n_ctx, i)
    return y, x


def window__steps_by_one_more(tokens, n_ctx, i):
    """Windows begin n_ctx + 1 apart, so the target between two is never learned: take n_ctx."""
    start = min(i * (n_ctx + 1), len(tokens) - n_ctx - 1)
    ids = tokens[start : start + n_ctx + 1].astype(np.int64)
    return ids[:-1], ids[1:]


def window__repeats_are_counted(tokens, n_ctx, i):
    """The last window reaches back, and the targets it repeats are counted twice: set them to
    IGNORE."""
    start = min(i * n_ctx, len(tokens) - n_ctx - 1)
    ids = tokens[start : start + n_ctx + 1].astype(np.int64)
    return ids[:-1], ids[1:]


class PackedWindows__drops_the_last(PackedWindows):
    """The end of the stream is never seen: the number of windows is rounded down. Round up."""

    def __init__(self, tokens, n_ctx, batch_size, seed=0):
        super().__init__(tokens, n_ctx, batch_size, seed)
        self.n_windows = (len(tokens) - 1) // n_ctx
        self.n_batches = math.ceil(self.n_windows / batch_size)


class PackedWindows__unshuffled(PackedWindows):
    """Windows come in the order of the text; shuffle them by epoch_order."""

    def batch(self, step):
        place = step % self.n_batches
        chosen = range(self.n_windows)[place * self.batch_size : (place + 1) * self.batch_size]
        xs, ys = zip(*(window(self.tokens, self.n_ctx, i) for i in chosen), strict=True)
        return torch.from_numpy(np.stack(xs)), torch.from_numpy(np.stack(ys))


class PackedWindows__one_order_for_all_epochs(PackedWindows):
    """Each epoch has the order of the first: epoch = step // n_batches."""

    def batch(self, step):
        return super().batch(step % self.n_batches)


class RandomWindows__unshifted(RandomWindows):
    """Targets are the inputs themselves: shift by one."""

    def batch(self, step):
        x, _ = super().batch(step)
        return x, x


class RandomWindows__same_each_step(RandomWindows):
    """Every step draws the same windows: draw by (seed, step)."""

    def batch(self, step):
        return super().batch(0)


def pad_rows__padding_is_learned(documents, end_of_text, n_ctx):
    """Padding has the target end_of_text and would be learned: set it to IGNORE."""
    x, y = pad_rows(documents, end_of_text, n_ctx)
    return x, y.masked_fill(y == IGNORE, end_of_text)


def pad_rows__cuts_long_documents(documents, end_of_text, n_ctx):
    """Tokens beyond n_ctx are lost: a long document continues in another row."""
    return pad_rows([d[: n_ctx - 1] for d in documents], end_of_text, n_ctx)


def pad_rows__on_the_left(documents, end_of_text, n_ctx):
    """Padding is on the left: each document begins at position 0."""
    x, y = pad_rows(documents, end_of_text, n_ctx)
    for row in range(len(x)):
        n = int((y[row] == IGNORE).sum())
        x[row], y[row] = x[row].roll(n), y[row].roll(n)
    return x, y


def pad_rows__end_is_not_learned(documents, end_of_text, n_ctx):
    """The end of a document is not a target: the model would never learn to stop."""
    x, y = pad_rows(documents, end_of_text, n_ctx)
    return x, y.masked_fill(y == end_of_text, IGNORE)


def group_by_length__unsorted(documents, batch_size, seed, epoch):
    """Documents of any length share a batch, so much of it is padding: sort by length first."""
    return [documents[i : i + batch_size] for i in range(0, len(documents), batch_size)]


def group_by_length__drops_the_last(documents, batch_size, seed, epoch):
    """The last, smaller batch is missing: its documents are never seen."""
    by_length = sorted(documents, key=len)
    n = len(documents) // batch_size * batch_size
    return [by_length[i : i + batch_size] for i in range(0, n, batch_size)]

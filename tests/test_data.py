"""Text to batches: every token is asked once an epoch, nothing leaks, nothing is half-written."""

import errno
import hashlib
import os
import random
import tracemalloc
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from gpt2.data import (
    IGNORE,
    DocumentRows,
    PackedWindows,
    RandomWindows,
    _find_files,
    check_ids,
    epoch_order,
    group_by_length,
    is_validation,
    pad_rows,
    read_documents,
    read_lines,
    read_split,
    read_tokens,
    split_text,
    text_hash,
    token_stream,
    window,
    write_corpus,
    write_tokens,
)
from gpt2.tokenizer import Tokenizer, atomic_file
from miniweb import documents

SHAKESPEARE = Path(__file__).parents[2] / "shared/data/tinyshakespeare/input.txt"
END = 0

streams = st.integers(2, 300).map(lambda n: np.arange(n, dtype=np.uint16))  # ids = places
sizes = st.integers(1, 40)
token_lists = st.lists(st.lists(st.integers(1, 99), max_size=30), min_size=1, max_size=40)


def encode(text):
    """Bytes as ids, END = 0 kept free."""
    return [byte + 1 for byte in text.encode()]


def encode_stream(chunks):
    return (i for chunk in chunks for i in encode(chunk))


def whole(documents):
    """Join the chunks of each document, in turn."""
    return ["".join(chunks) for chunks in documents]


def decode(ids):
    return bytes(int(i) - 1 for i in ids if i != END).decode()


def epoch(batches, number=0):
    first = number * batches.n_batches
    return [batches.batch(step) for step in range(first, first + batches.n_batches)]


# ---------------------------------------------------------------------------------------- windows


def check_targets_follow_inputs(windows):
    """Ids are places in the stream: a counted target is the input's id plus one."""
    for x, y in epoch(windows):
        counted = y != IGNORE
        assert torch.equal(y[counted], x[counted] + 1), "a target is not the next token"


def check_every_token_is_a_target_once(windows):
    n_tokens = len(windows.tokens)
    for number in range(2):
        targets = torch.cat([y[y != IGNORE] for _, y in epoch(windows, number)])
        assert targets.sort().values.tolist() == list(range(1, n_tokens))


def check_batches_are_a_function_of_seed_and_step(implementation):
    """The global generators and earlier calls must not matter."""
    first = implementation(np.arange(500), 8, 4, seed=1)
    again = implementation(np.arange(500), 8, 4, seed=1)
    other = implementation(np.arange(500), 8, 4, seed=2)
    steps = [0, 5, first.n_batches, 3 * first.n_batches + 2]
    wanted = [first.batch(step) for step in steps]
    for module in (random, np.random, torch.random):
        getattr(module, "seed" if module is not torch.random else "manual_seed")(9)
    for step, (x, y) in reversed(list(zip(steps, wanted, strict=True))):  # resumed, out of order
        assert torch.equal(again.batch(step)[0], x)
        assert torch.equal(again.batch(step)[1], y)
        assert not torch.equal(other.batch(step)[0], x)


@given(streams, sizes, sizes)
def test_targets_are_inputs_shifted_by_one(tokens, n_ctx, batch_size):
    if len(tokens) > n_ctx:
        check_targets_follow_inputs(PackedWindows(tokens, n_ctx, batch_size))


@given(streams, sizes, sizes)
def test_every_token_is_a_target_exactly_once_an_epoch(tokens, n_ctx, batch_size):
    if len(tokens) > n_ctx:
        check_every_token_is_a_target_once(PackedWindows(tokens, n_ctx, batch_size, seed=3))


def test_batches_are_the_same_for_the_same_seed_and_step():
    check_batches_are_a_function_of_seed_and_step(PackedWindows)


@given(streams, sizes, sizes)
def test_random_windows_are_slices_of_the_stream(tokens, n_ctx, batch_size):
    if len(tokens) > n_ctx:
        x, y = RandomWindows(tokens, n_ctx, batch_size, seed=1).batch(3)
        assert x.shape == y.shape == (batch_size, n_ctx) and x.dtype == y.dtype == torch.int64
        assert torch.equal(x, x[:, :1] + torch.arange(n_ctx)) and torch.equal(y, x + 1)


def test_random_windows_are_a_function_of_seed_and_step():
    check_batches_are_a_function_of_seed_and_step(RandomWindows)


def test_random_windows_begin_at_every_place_equally_often():
    windows = RandomWindows(np.arange(12), 4, 100, seed=2)
    starts = torch.cat([windows.batch(step)[0][:, 0] for step in range(400)])
    counts = torch.bincount(starts, minlength=8)
    assert len(counts) == 8  # 0 to 7: the last window ends on the last token
    assert (counts - 5000).abs().max() < 5 * 5000**0.5


def test_an_epoch_of_random_windows_is_as_long_as_one_of_packed_windows():
    for n_tokens in (65, 500, 1000):
        shape = np.arange(n_tokens), 64, 3
        assert RandomWindows(*shape).n_batches == PackedWindows(*shape).n_batches
    with pytest.raises(ValueError, match="64 tokens are too few"):
        RandomWindows(np.arange(64), 64, 3)


def test_epochs_differ_in_order():
    windows = PackedWindows(np.arange(500), 8, 4)
    assert not torch.equal(windows.batch(0)[0], windows.batch(windows.n_batches)[0])


def test_window_by_hand():
    x, y = window(np.array([7, 1, 2, 3, 4, 5], dtype=np.uint16), 3, 0)
    assert (x.tolist(), y.tolist()) == ([7, 1, 2], [1, 2, 3])
    x, y = window(np.array([7, 1, 2, 3, 4, 5], dtype=np.uint16), 3, 1)
    assert (x.tolist(), y.tolist()) == ([2, 3, 4], [IGNORE, 4, 5])
    assert x.dtype == y.dtype == np.int64


def test_batches_are_int64_on_the_cpu_and_do_not_alias_the_stream():
    tokens = np.arange(100, dtype=np.uint16)
    x, _ = PackedWindows(tokens, 8, 4).batch(0)
    assert x.dtype == torch.int64 and x.device.type == "cpu" and x.shape == (4, 8)
    x.zero_()
    assert np.array_equal(tokens, np.arange(100))


def test_a_stream_of_one_window_is_enough_and_one_less_is_not():
    assert PackedWindows(np.arange(65), 64, 12).n_windows == 1
    with pytest.raises(ValueError, match=r"^64 tokens .* n_ctx = 64 needs 65. Add text or lower"):
        PackedWindows(np.arange(64), 64, 12)


class TargetNotShifted(PackedWindows):
    def batch(self, step):
        x, _ = super().batch(step)
        return x, x


class TargetShiftedByTwo(PackedWindows):
    def batch(self, step):
        x, y = super().batch(step)
        return x, torch.cat([y[:, 1:], y[:, -1:] + 1], dim=1)


class LastTokensLost(PackedWindows):
    """Counts whole windows only."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.n_windows = (len(self.tokens) - 1) // self.n_ctx
        self.n_batches = -(-self.n_windows // self.batch_size)


class WindowsOverlap(PackedWindows):
    """Reaches back for the last window, and asks again what was asked."""

    def batch(self, step):
        x, _ = super().batch(step)
        return x, x + 1


class RandomOffsets(PackedWindows):
    """Draws places from the global generator, as many loaders do."""

    def batch(self, step):
        starts = torch.randint(len(self.tokens) - self.n_ctx, (self.batch_size,))
        rows = np.stack([self.tokens[i : i + self.n_ctx + 1] for i in starts])
        return torch.from_numpy(rows[:, :-1]), torch.from_numpy(rows[:, 1:])


class SameOrderEachSeed(PackedWindows):
    def __init__(self, tokens, n_ctx, batch_size, seed=0):
        super().__init__(tokens, n_ctx, batch_size, seed=0)


@pytest.mark.parametrize("mutant", [TargetNotShifted, TargetShiftedByTwo])
def test_a_wrong_shift_is_found(mutant):
    with pytest.raises(AssertionError, match="not the next token"):
        check_targets_follow_inputs(mutant(np.arange(50), 8, 4))


@pytest.mark.parametrize("mutant", [LastTokensLost, WindowsOverlap, RandomOffsets])
def test_lost_and_repeated_targets_are_found(mutant):
    with pytest.raises(AssertionError):
        check_every_token_is_a_target_once(mutant(np.arange(50), 8, 4))


@pytest.mark.parametrize("mutant", [RandomOffsets, SameOrderEachSeed])
def test_an_order_that_does_not_depend_on_seed_and_step_is_found(mutant):
    with pytest.raises(AssertionError):
        check_batches_are_a_function_of_seed_and_step(mutant)


# ------------------------------------------------------------------------------------------- rows


def targets_of_row(y):
    return [int(i) for i in y if i != IGNORE]


@given(token_lists, st.integers(31, 40), sizes)
def test_rows_hold_each_document_once_an_epoch_from_position_0(lists, n_ctx, batch_size):
    rows = DocumentRows(lambda k: lists, END, n_ctx, batch_size, seed=1)
    for number in range(2):
        seen = [
            (x[0].item(), *targets_of_row(y))
            for xs, ys in epoch(rows, number)
            for x, y in zip(xs, ys, strict=True)
        ]
        assert sorted(seen) == sorted((END, *ids, END) for ids in lists)


@given(token_lists, sizes)
def test_pad_rows_asks_every_token_once_and_keeps_the_context(lists, n_ctx):
    x, y = pad_rows(lists, END, n_ctx)
    assert x.shape == y.shape and x.size(1) <= n_ctx
    wanted = [token for ids in lists for token in (*ids, END)]
    assert targets_of_row(y.flatten()) == wanted
    assert torch.equal(x[:, 1:][y[:, 1:] != IGNORE], y[:, :-1][y[:, 1:] != IGNORE])


def test_pad_rows_by_hand():
    x, y = pad_rows([[5, 6], [7], [1, 2, 3, 4]], END, 3)
    assert x.tolist() == [[0, 5, 6], [0, 7, 0], [0, 1, 2], [3, 4, 0]]
    assert y.tolist() == [[5, 6, 0], [7, 0, IGNORE], [1, 2, 3], [4, 0, IGNORE]]


@given(token_lists, sizes)
def test_a_batch_mixes_only_neighbors_in_length(lists, batch_size):
    groups = group_by_length(lists, batch_size, 0, 0)
    spans = sorted((min(map(len, g)), max(map(len, g))) for g in groups)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_rows_resume_and_differ_by_seed():
    def pool(k):
        rng = np.random.default_rng(k)
        return [rng.integers(1, 99, rng.integers(1, 20)).tolist() for _ in range(50)]

    first, again = (DocumentRows(pool, END, 32, 8, seed=4) for _ in range(2))
    other = DocumentRows(pool, END, 32, 8, seed=5)
    for step in (17, 3, 8, 0):
        assert all(map(torch.equal, first.batch(step), again.batch(step)))
    assert not all(
        a.shape == b.shape and torch.equal(a, b)
        for step in range(7)
        for a, b in [(first.batch(step)[0], other.batch(step)[0])]
    )


def test_rows_draw_a_fresh_pool_each_epoch_and_hold_one():
    asked = []

    def pool(k):
        asked.append(k)
        return [[k + 1]] * 6

    rows = DocumentRows(pool, END, 8, 2)
    seen = [rows.batch(step)[1][0, 0].item() for step in range(9)]
    assert seen == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert asked == [0, 1, 2]


def test_pools_that_change_size_or_are_empty_are_errors():
    with pytest.raises(ValueError, match="no documents"):
        DocumentRows(lambda k: [], END, 8, 2)
    rows = DocumentRows(lambda k: [[1]] * (6 - k), END, 8, 1)
    with pytest.raises(ValueError, match=r"pool\(1\) is not as large"):
        rows.batch(6)


def check_padding_is_not_counted(pad):
    """A loss over padded rows must equal the loss over each document alone."""
    lists = [[5, 6, 7, 8, 9, 10], [7], [3, 3]]
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(12, 12, generator=generator)  # logits from the token alone

    def loss(x, y):
        return F.cross_entropy(table[x].flatten(0, 1), y.flatten(), reduction="sum")

    alone = sum(loss(*pad_rows([ids], END, 16)) for ids in lists)
    torch.testing.assert_close(loss(*pad(lists, END, 16)), alone, rtol=1e-5, atol=1e-5)


def test_padding_is_not_counted_in_the_loss():
    check_padding_is_not_counted(pad_rows)


def test_padding_that_counts_is_found():
    def padding_counts(lists, end_of_text, n_ctx):
        x, y = pad_rows(lists, end_of_text, n_ctx)
        return x, y.masked_fill(y == IGNORE, end_of_text)

    with pytest.raises(AssertionError):
        check_padding_is_not_counted(padding_counts)


# ------------------------------------------------------------------------------- files and folders


def test_a_file_is_one_document_or_several(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes("eins\r\n<|endoftext|>\r\n \n<|endoftext|>\nzwei ä <|endoftext|> x\n".encode())
    assert list(read_documents(file)) == ["eins\r\n", "zwei ä <|endoftext|> x\n"]


def test_a_folder_is_read_in_order_without_hidden_files(tmp_path):
    for name in ("b.txt", "a/deep.md", ".git/config", ".hidden", "c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [file.name for file in _find_files(tmp_path)] == ["deep.md", "b.txt", "c.txt"]
    assert list(read_documents(str(tmp_path))) == ["a/deep.md", "b.txt", "c.txt"]


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0")))
def test_documents_come_back_as_they_were_written(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("text") / "a.txt"
    file.write_bytes(text.encode())
    assert "".join(read_lines(file)) == text.removeprefix("\ufeff")


@pytest.mark.parametrize("bad", [b"\xff\xfeh\x00i\x00", "é".encode("latin-1"), b"\xea\xb0"])
def test_not_utf8_names_file_byte_and_cure(tmp_path, bad):
    file = tmp_path / "old.txt"
    file.write_bytes("안녕\n".encode() * 1000 + b"abc" + bad)
    with pytest.raises(
        ValueError, match=rf"byte 7003 \(0x{bad[0]:02x}\) of .*old.txt is not UTF-8"
    ):
        list(read_documents(file))


def test_a_byte_order_mark_is_no_text(tmp_path):
    file = tmp_path / "windows.txt"
    file.write_bytes("\ufeffeins\n<|endoftext|>\n\ufeffzwei".encode())
    assert list(read_documents(file)) == ["eins\n", "\ufeffzwei"]
    file.write_bytes("\ufeff<|endoftext|>\nzwei".encode())
    assert list(read_documents(file)) == ["zwei"]
    file.write_bytes("\ufeffabc".encode() + b"\xff")
    with pytest.raises(ValueError, match=r"byte 6 \(0xff\)"):
        list(read_documents(file))


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_utf16_without_a_byte_order_mark_is_refused(tmp_path, codec):
    (tmp_path / "a.txt").write_bytes("The cat sat. ".encode(codec))
    with pytest.raises(ValueError, match=r"a.txt has NUL bytes.*save the file as UTF-8"):
        list(read_documents(tmp_path))


MARKED = {  # text: the documents with split_at_marks
    "a<|endoftext|>b\n": ["a", "b\n"],
    "a\r<|endoftext|>\rb": ["a\r", "b"],
    "<|startoftext|>\na\n<|endoftext|>\n<|startoftext|>b\n": ["a\n", "b\n"],
    "a\n<|endoftext|>\nb": ["a\n", "b"],
    "<|endoftext|> <|endoftext|>\n": [],
}


@pytest.mark.parametrize("text", MARKED)
def test_marks_within_a_line_are_text_unless_asked(tmp_path, text):
    (tmp_path / "z.txt").write_text("z", newline="")
    (tmp_path / "a.txt").write_text(text, newline="")
    assert list(read_documents(tmp_path, split_at_marks=True)) == [*MARKED[text], "z"]
    by_line = "\n".join(text.split("\n<|endoftext|>\n"))
    assert "\n".join(map(str.rstrip, read_documents(tmp_path))) == by_line.rstrip() + "\nz"


@pytest.mark.parametrize("n", [2**14 - k for k in (0, 1, 5, 12, 13, 14, 27)])
def test_marks_are_whole_in_lines_of_any_length(tmp_path, n):
    """Long lines are read in parts, and no part may end within a mark or make up a border."""
    mark = "<|endoftext|>"
    (tmp_path / "a.txt").write_text("x" * n + mark + mark + "y" * 2**15 + mark)
    assert list(read_documents(tmp_path, split_at_marks=True)) == ["x" * n, "y" * 2**15]
    assert [len(text) for text in read_documents(tmp_path)] == [n + 39 + 2**15]
    (tmp_path / "a.txt").write_text("x" * n + mark + "\nz")  # a line's end is no line
    assert [len(text) for text in read_documents(tmp_path)] == [n + 13 + 2]
    (tmp_path / "a.txt").write_text("안" * n + "<" * 40 + mark)
    assert [len(text) for text in read_documents(tmp_path)] == [n + 40 + 13]


def test_what_gpt2_made_within_a_folder_is_no_text(tmp_path):
    """A run or tokens inside the text folder would break the next run."""
    (tmp_path / "a.txt").write_text("text of mine " * 30)
    for name in ("run/run.json", "run/checkpoint.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\xff")
    write_corpus(tmp_path / "a.txt", tmp_path / "tokens", encode_stream, END, 257)
    for name in ("run", "tokens"):
        Tokenizer([]).save(tmp_path / name)
    assert [file.name for file in _find_files(tmp_path)] == ["a.txt"]
    mine = tmp_path / "mine" / "vocab.bpe"  # a folder of texts that has a file of this name
    mine.parent.mkdir()
    mine.write_text("text")
    assert [file.name for file in _find_files(tmp_path)] == ["a.txt", "vocab.bpe"]


def test_links_are_followed_once(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    texts = tmp_path / "texts"
    for folder in (elsewhere / "deep", texts):
        folder.mkdir(parents=True)
    (elsewhere / "deep" / "b.txt").write_text("b")
    (texts / "a.txt").write_text("a")
    (texts / "linked").symlink_to(elsewhere, target_is_directory=True)
    (elsewhere / "up").symlink_to(texts, target_is_directory=True)  # a circle
    assert list(read_documents(texts)) == ["a", "b"]
    (texts / "gone.txt").symlink_to(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"gone.txt is not a file \(a broken link\?\): remove"):
        _find_files(texts)


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.txt").write_text("a")
    iterdir, denied = Path.iterdir, PermissionError(errno.EACCES, "Permission denied", "locked")

    def refuse(folder):
        if folder.name == "locked":
            raise denied
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(PermissionError, match="locked"):
        _find_files(tmp_path)


def test_missing_and_empty_are_errors_that_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*nowhere"):
        list(read_documents(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="holds no files"):
        list(read_documents(tmp_path))
    (tmp_path / "blank.txt").write_text(" \n\n")
    with pytest.raises(ValueError, match="holds no text"):
        list(read_documents(tmp_path))


def test_reading_holds_one_document_in_memory(tmp_path):
    file = tmp_path / "many.txt"
    file.write_text(("word " * 2000 + "\n<|endoftext|>\n") * 1000)  # 10 MB
    tracemalloc.start()
    assert sum(1 for _ in read_documents(file)) == 1000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000, peak


# ------------------------------------------------------------------------------------------ split


def corpus(folder, texts):
    file = folder / "corpus.txt"
    file.write_text("\n<|endoftext|>\n".join(texts), encoding="utf-8")
    return file


def check_no_document_in_both_parts(split, path):
    train, validation = (set(whole(split(path, part))) for part in ("train", "validation"))
    assert train and validation
    assert not train & validation, "a document is in both parts"


def check_documents_never_straddle(split, path):
    texts = set(read_documents(path))
    assert {*whole(split(path, "train")), *whole(split(path, "validation"))} == texts


def miniweb_file(folder):
    """Short pages, of which many occur more than once, as on the web."""
    pages = documents(0, genres=["question", "bilingual"])
    return corpus(folder, (page.text for page in islice(pages, 3000)))


def split_every_tenth(path, part):
    """By position: copies of one page fall on both sides."""
    for i, document in enumerate(read_documents(path)):
        if (i % 10 == 9) == (part == "validation"):
            yield document


def split_after_packing(path, part):
    """Packs first, then gives every tenth window of 64 to validation."""
    stream = list(token_stream(read_documents(path), encode, END))
    for i, start in enumerate(range(0, len(stream), 64)):
        if (i % 10 == 9) == (part == "validation"):
            yield decode_loosely(stream[start : start + 64])


def decode_loosely(ids):
    return bytes(i - 1 for i in ids if i != END).decode(errors="replace")


def test_no_document_is_in_both_parts(tmp_path):
    check_no_document_in_both_parts(read_split, miniweb_file(tmp_path))


def test_documents_never_straddle_the_split(tmp_path):
    check_documents_never_straddle(read_split, miniweb_file(tmp_path))


def test_a_split_by_position_leaks_copies(tmp_path):
    with pytest.raises(AssertionError, match="both parts"):
        check_no_document_in_both_parts(split_every_tenth, miniweb_file(tmp_path))


def test_a_split_after_packing_cuts_documents_apart(tmp_path):
    with pytest.raises(AssertionError):
        check_documents_never_straddle(split_after_packing, miniweb_file(tmp_path))


def test_the_fraction_is_kept_and_known_everywhere():
    texts = [f"document {i}" for i in range(20_000)]
    share = sum(map(is_validation, texts)) / len(texts)
    assert abs(share - 0.1) < 0.01
    digest = hashlib.sha256(b"document 5").hexdigest()
    assert is_validation("document 5", int(digest[:8], 16) / 2**32 + 1e-6)
    assert not is_validation("document 5", int(digest[:8], 16) / 2**32 - 1e-6)
    grown = {text for text in texts if is_validation(text, 0.2)}
    assert grown > {text for text in texts if is_validation(text, 0.1)}


@given(st.lists(st.text()), st.integers(0, 30))
def test_split_text_cuts_at_one_place_whatever_the_chunks(chunks, n_train):
    train, validation = ("".join(split_text(chunks, n_train, part)) for part in (False, True))
    text = "".join(chunks)
    assert (train, validation) == (text[:n_train], text[n_train:])


def test_a_few_documents_each_give_their_last_tenth(tmp_path):
    for i in range(99):
        (tmp_path / f"{i:03}.txt").write_text(f"{i:03} " * 25)
    assert [len(text) for text in whole(read_split(tmp_path, "train"))] == [90] * 99
    assert [len(text) for text in whole(read_split(tmp_path, "validation"))] == [10] * 99
    (tmp_path / "one-more.txt").write_text("x" * 100)
    check_documents_never_straddle(read_split, tmp_path)


def test_copies_of_a_few_documents_do_not_leave_a_part_empty(tmp_path):
    """By its hash a single text, however often it occurs, goes to one side."""
    for i in range(150):
        (tmp_path / f"{i}.txt").write_text(f"text {i % 3} " * 10)
    for part, length in (("train", 63), ("validation", 7)):
        assert [len(text) for text in whole(read_split(tmp_path, part))] == [length] * 150
    (tmp_path / "more").mkdir()
    texts = [f"text {i} " * 10 for i in range(100)] * 2
    held_out = whole(read_split(corpus(tmp_path / "more", texts), "validation"))
    assert held_out and all(map(is_validation, held_out)) and len(set(held_out)) < 100


@given(st.lists(st.text()))
def test_a_hash_is_of_the_text_whatever_the_chunks(chunks):
    digest = hashlib.sha256("".join(chunks).encode()).hexdigest()
    assert text_hash(chunks) == text_hash("".join(chunks)) == int(digest[:16], 16)


def split_in_memory(path, part):
    """As it was before documents were read in chunks: the oracle for old run folders."""
    documents = list(read_documents(path))
    if len(documents) >= 100:
        return [d for d in documents if is_validation(d) == (part == "validation")]
    cuts = [int(len(d) * (1 - 0.1)) for d in documents]
    return [
        d[cut:] if part == "validation" else d[:cut] for d, cut in zip(documents, cuts, strict=True)
    ]


@pytest.mark.parametrize("n", [1, 99, 100, 3000])
def test_streamed_documents_split_as_whole_ones(tmp_path, n):
    pages = islice(documents(0, genres=["story"]), n)
    path = corpus(tmp_path, [page.text * (1 + 200 * (i == 0)) for i, page in enumerate(pages)])
    for part in ("train", "validation"):
        assert whole(read_split(path, part)) == split_in_memory(path, part)


@pytest.mark.parametrize("long", ["word " * 200_000, "안녕하세요" * 200_000])
def test_memory_does_not_grow_with_a_document(tmp_path, long):
    """One line of some MB, with white space and without it."""

    def peak(n):
        (tmp_path / "a.txt").write_text(long * n, encoding="utf-8")
        tracemalloc.start()
        write_corpus(tmp_path / "a.txt", tmp_path / "t", lambda text: map(len, text), 0, 10**8)
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held

    small, large = peak(4), peak(12)
    assert large < 1.1 * small + 100_000 and large < 8_000_000, (small, large)


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="needs ../shared/data")
def test_tiny_shakespeare_splits_as_published(tmp_path):
    """Cut as in nanoGPT's data/shakespeare_char: 1,003,854 and 111,540 characters."""
    counts = write_corpus(SHAKESPEARE, tmp_path, encode_stream, END, 257)
    assert counts == {"train": 1_003_854 + 2, "validation": 111_540 + 2}
    text = "".join(decode(read_tokens(tmp_path / f"{part}.npy", 257)) for part in counts)
    assert text == SHAKESPEARE.read_text(encoding="utf-8")


# ----------------------------------------------------------------------------------------- shards


def test_a_stream_has_end_of_text_around_every_document():
    assert list(token_stream(["a", "bc"], encode, END)) == [0, 98, 0, 99, 100, 0]


@settings(max_examples=30)
@given(
    st.lists(st.integers(0, 65_535), min_size=1, max_size=300), st.sampled_from([65_536, 65_537])
)
def test_tokens_come_back_as_written(tmp_path_factory, ids, n_vocab):
    file = tmp_path_factory.mktemp("tokens") / "t.npy"
    assert write_tokens(file, iter(ids), n_vocab) == len(ids)
    tokens = read_tokens(file, n_vocab)
    assert tokens.tolist() == ids
    assert tokens.dtype == (np.uint16 if n_vocab == 65_536 else np.uint32)
    assert isinstance(tokens, np.memmap) and not tokens.flags.writeable
    assert np.array_equal(np.load(file), tokens)  # an .npy file like any other


@pytest.mark.parametrize("n", [2**16 - 1, 2**16, 2**16 + 1, 3 * 2**16 + 5])
def test_tokens_come_back_across_buffers(tmp_path, n):
    write_tokens(tmp_path / "t.npy", (i % 1000 for i in range(n)), 1000)
    assert np.array_equal(read_tokens(tmp_path / "t.npy", 1000), np.arange(n) % 1000)


def test_memory_while_writing_does_not_grow_with_the_stream(tmp_path):
    def peak(n):
        tracemalloc.start()
        write_tokens(tmp_path / "t.npy", (i & 255 for i in range(n)), 256)
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held

    small, large = peak(200_000), peak(1_000_000)
    assert large < 1.1 * small + 10_000 and large < 3_000_000, (small, large)


def ids_that_break(error):
    yield from range(200_000)
    raise error


@pytest.mark.parametrize(
    "error", [RuntimeError("killed"), KeyboardInterrupt(), OSError(errno.EIO, "broken disk")]
)
def test_a_break_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path, error):
    file = tmp_path / "t.npy"
    write_tokens(file, [1, 2, 3], 10)
    with pytest.raises(type(error)):
        write_tokens(file, ids_that_break(error), 10**6)
    assert read_tokens(file, 10).tolist() == [1, 2, 3]
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_says_so_and_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"disk is full.*free some space") as raised:
        write_tokens(tmp_path / "t.npy", [1, 2, 3], 10)
    assert raised.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_atomic_file_replaces_only_at_the_end(tmp_path):
    target = tmp_path / "x"
    target.write_bytes(b"old")
    with atomic_file(target) as file:
        file.write(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("bad, named", [([1, 10, 2], "10"), ([3, -1], "-1")])
def test_ids_beyond_the_vocabulary_are_named(tmp_path, bad, named):
    with pytest.raises(ValueError, match=f"token id {named} is outside the vocabulary of 10"):
        write_tokens(tmp_path / "t.npy", bad, 10)
    assert list(tmp_path.iterdir()) == []
    check_ids(np.array([0, 9]), 10)


def test_tokens_of_another_vocabulary_are_refused(tmp_path):
    write_tokens(tmp_path / "t.npy", [1, 500], 50_257)
    with pytest.raises(ValueError, match="token id 500 is outside the vocabulary of 257"):
        read_tokens(tmp_path / "t.npy", 257)


def test_no_tokens_and_no_token_file_are_errors(tmp_path):
    with pytest.raises(ValueError, match="no tokens to write"):
        write_tokens(tmp_path / "t.npy", [], 10)
    with pytest.raises(FileNotFoundError, match="no token file"):
        read_tokens(tmp_path / "t.npy", 10)
    (tmp_path / "t.npy").write_text("not tokens")
    with pytest.raises(ValueError, match="not a token file"):
        read_tokens(tmp_path / "t.npy", 10)
    np.save(tmp_path / "floats.npy", np.zeros(3))
    with pytest.raises(ValueError, match="not a token file"):
        read_tokens(tmp_path / "floats.npy", 10)


def test_write_corpus_holds_every_document_in_one_part(tmp_path):
    source = miniweb_file(tmp_path)
    counts = write_corpus(source, tmp_path / "new/shards", encode_stream, END, 257)
    texts = set()
    for part, count in counts.items():
        tokens = read_tokens(tmp_path / f"new/shards/{part}.npy", 257)
        assert len(tokens) == count and tokens[0] == tokens[-1] == END
        pieces = np.split(tokens, np.flatnonzero(tokens == END))
        texts |= {decode(piece) for piece in pieces if len(piece) > 1}
    assert texts == set(read_documents(source))


def test_orders_are_permutations_that_do_not_depend_on_each_other():
    orders = [epoch_order(50, seed, number) for seed in range(3) for number in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 9  # (1, 0) is not (0, 1)

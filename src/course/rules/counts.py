"""What the cheap rules of chapter 8 know of the pages: counts, and nothing of any grammar.

A page is a row of words and signs; a sentence ends at one of `.?!` or a line break. Every word
that a rule uses is found in the prompt or by counting here.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

TOKEN = re.compile(r"\w+|[^\w\s]|\n")
ENDS = ".?!\n"
PAGE_END = ""
Ids = tuple[int, ...]


def split(text: str) -> list[str]:
    """Split a text into words, signs and line breaks."""
    return TOKEN.findall(text)


def normalize(text: str) -> str:
    """Write an answer in the form in which answers are compared: words and signs, one space."""
    return " ".join(split(text.strip()))


def sentence_starts(is_end: np.ndarray) -> np.ndarray:
    """Return where sentences start: behind a run of signs that end one: (N,) -> (S,)."""
    inside = ~is_end
    starts = inside & np.concatenate([[True], is_end[:-1]])
    starts[:1] = True
    return np.flatnonzero(starts)


class Corpus:
    """Pages as one array of word numbers, with an index of where each word stands.

    Raises ValueError if there are no pages.
    """

    def __init__(self, pages: Sequence[str]) -> None:
        if not pages:
            raise ValueError("there are no pages to count on: give at least one")
        number: dict[str, int] = {PAGE_END: 0}
        ids, lengths = [], []
        for page in pages:
            words = split(page)
            ids += [number.setdefault(word, len(number)) for word in words]
            ids.append(0)
            lengths.append(len(words) + 1)
        self.number, self.words = number, list(number)
        self.ids = np.array(ids, np.int32)
        self.page_of = np.repeat(np.arange(len(pages), dtype=np.int32), lengths)
        self.page_start = np.concatenate([[0], np.cumsum(lengths)])[:-1]
        ends = [number[sign] for sign in (*ENDS, PAGE_END) if sign in number]
        self.ends = frozenset(ends)
        self.starts = sentence_starts(np.isin(self.ids, ends))
        sentence = np.zeros(len(ids), np.int32)
        sentence[self.starts[1:]] = 1
        self.sentence_of = np.cumsum(sentence, dtype=np.int32)
        self.n = np.bincount(self.ids, minlength=len(number))
        self.order = np.argsort(self.ids, kind="stable").astype(np.int32)
        self.offset = np.concatenate([[0], np.cumsum(self.n)])
        self.is_word = np.array([word[:1].isalnum() or word[:1] == "_" for word in number])

    def encode(self, text: str) -> list[int]:
        """Number a text's words; those that no page has are -1, -2, ... in order."""
        own: dict[str, int] = {}
        return [
            self.number[w] if w in self.number else own.setdefault(w, -1 - len(own))
            for w in split(text)
        ]

    def write(self, ids: Sequence[int]) -> str:
        """Write words with one space between them."""
        return " ".join(self.words[i] for i in ids if i >= 0)

    def count(self, word: int) -> int:
        """Return how often a word occurs in the pages."""
        return int(self.n[word]) if word >= 0 else 0

    def places(self, words: Sequence[int]) -> np.ndarray:
        """Return where the last of some words in a row stands: (K,), ascending."""
        if not words or min(words) < 0:
            return np.empty(0, np.int32)
        last = words[-1]
        found = self.order[self.offset[last] : self.offset[last + 1]]
        for back, word in enumerate(reversed(words[:-1]), 1):
            found = found[found >= back]
            found = found[self.ids[found - back] == word]
        return found

    @cached_property
    def sentences_with(self) -> np.ndarray:
        """Return in how many sentences each word occurs: (V,)."""
        pairs = np.unique(self.sentence_of.astype(np.int64) * len(self.words) + self.ids)
        return np.bincount(pairs % len(self.words), minlength=len(self.words))

    @cached_property
    def idf(self) -> np.ndarray:
        """Return the inverse sentence frequency of each word, 0 for signs: (V,)."""
        idf = np.log(len(self.starts) / np.maximum(self.sentences_with, 1))
        return np.where(self.is_word, idf, 0.0)

    def rarity(self, word: int) -> float:
        """Return a word's inverse sentence frequency; a word that no page has is the rarest."""
        return float(self.idf[word]) if word >= 0 else math.log(len(self.starts) + 1)

    def page_words(self, place: int) -> list[int]:
        """Return the words of a page up to a place, that one included."""
        start = self.page_start[self.page_of[place]]
        return self.ids[start : place + 1].tolist()

    def sentence(self, number: int) -> list[int]:
        """Return the words of a sentence."""
        stop = self.starts[number + 1] if number + 1 < len(self.starts) else len(self.ids)
        return self.ids[self.starts[number] : stop].tolist()


def sentences(words: Sequence[int], ends: frozenset[int]) -> list[tuple[int, int]]:
    """Return the (start, stop) of each sentence of a text."""
    if not words:
        return []
    starts = sentence_starts(np.array([word in ends for word in words])).tolist()
    return list(zip(starts, [*starts[1:], len(words)], strict=True))


class Cue(NamedTuple):
    """Which words of a prompt's end are looked up in the pages: how many of which part of it."""

    n_sentences: int  # the part of the prompt: its last sentences
    n_first: int  # how many words at the start of that part
    n_last: int  # how many at its end

    def start(self, words: Sequence[int], ends: frozenset[int]) -> int:
        """Return where the cue's part of a prompt starts."""
        return sentences(words, ends)[-self.n_sentences :][0][0] if words else 0

    def keys(self, words: Sequence[int], gap: int, ends: frozenset[int]) -> Iterator["Key"]:
        """List the words of a prompt to look up, from what is particular to what is common."""
        part = words[self.start(words[:gap], ends) : gap]
        rest = words[gap:]
        stop = next((i for i, word in enumerate(rest) if word in ends), len(rest))
        first = [(n, self.n_last) for n in range(self.n_first, -1, -1)]
        last = [(0, n) for n in range(self.n_last - 1, 0, -1)]
        for n_after in dict.fromkeys(min(n, stop) for n in (stop, 3, 1)):
            for n_first, n_last in first + last:
                yield Key(tuple(part[:n_first]), tuple(part[-n_last:]), tuple(rest[:n_after]))


class Key(NamedTuple):
    """Words that are looked up in the pages: at the start and the end of a part, and behind it."""

    first: Ids
    last: Ids
    after: Ids = ()


class Example(NamedTuple):
    """A page up to a cue, where its cue starts and is to be answered, and what stands there."""

    prompt: list[int]
    start: int
    gap: int
    answer: list[int]


def find_cue(corpus: Corpus, cue: Cue, key: Key) -> tuple[np.ndarray, np.ndarray]:
    """Return where a cue's last word stands, and how long a gap behind it is: (K,), (K,).

    A gap of up to three words is filled in the pages; without one its length is 0.
    """
    places = corpus.places(key.last)
    begin = np.maximum(corpus.sentence_of[places] - (cue.n_sentences - 1), 0)
    starts = np.maximum(corpus.starts[begin], corpus.page_start[corpus.page_of[places]])
    fits = starts + len(key.first) <= places + 1
    for i, word in enumerate(key.first):
        fits &= corpus.ids[np.minimum(starts + i, len(corpus.ids) - 1)] == word
    places = places[fits]
    lengths = np.zeros(len(places), int)
    if key.after:
        for n in (3, 2, 1):
            at = np.minimum(
                places[:, None] + 1 + n + np.arange(len(key.after)), len(corpus.ids) - 1
            )
            lengths[(corpus.ids[at] == key.after).all(1)] = n
        places, lengths = places[lengths > 0], lengths[lengths > 0]
    return places, lengths


def continuation(corpus: Corpus, place: int) -> list[int]:
    """Return what follows a place: to the end of the sentence, or of the line behind a sign."""
    in_sentence = corpus.is_word[corpus.ids[place]]
    line = {corpus.number.get("\n", 0), 0}
    answer: list[int] = []
    for word in corpus.ids[place + 1 : place + 40].tolist():
        if word in line or (in_sentence and word in corpus.ends):
            break
        answer.append(word)
    return answer[:-1] if answer and answer[-1] in corpus.ends else answer


class Cued:
    """What the pages with one cue say: examples, and counts of what follows."""

    N_COUNTED, N_LEARNED = 20_000, 1_500

    def __init__(self, corpus: Corpus, cue: Cue, key: Key) -> None:
        found = np.stack(find_cue(corpus, cue, key), 1)
        last = len(found) // 5  # weights are learned where nothing is counted
        self.corpus, self.cue, self.key, self.n_examples = corpus, cue, key, len(found)
        self.counted = list(self._read(spread(found[: len(found) - last], self.N_COUNTED)))
        self.learned = list(self._read(spread(found[len(found) - last :], self.N_LEARNED)))
        self.answers = Counter(tuple(e.answer) for e in self.counted)
        self.names = Counter[int]()  # the telling word of an answer
        self.spoken: dict[int, Counter[Ids]] = {}  # the answers that a word tells
        for answer, n in self.answers.items():
            if (word := rarest(corpus, answer)) is not None:
                self.names[word] += n
                self.spoken.setdefault(word, Counter())[answer] += n

    def _read(self, found: np.ndarray) -> Iterator[Example]:
        corpus = self.corpus
        for place, length in found.tolist():
            prompt = corpus.page_words(place)
            gap = len(prompt)
            start = self.cue.start(prompt, corpus.ends)
            if length:
                answer = corpus.ids[place + 1 : place + 1 + length].tolist()
                stop = corpus.starts[corpus.sentence_of[place] + 1 :][:1]
                rest = corpus.ids[place + 1 + length : (*stop, len(corpus.ids))[0]].tolist()
                prompt += [word for word in rest if word]
            else:
                answer = continuation(corpus, place)
            if answer:
                yield Example(prompt, start, gap, answer)

    @cached_property
    def _shares(self) -> tuple[Counter[int], Counter[int], int]:
        """Count in how many examples a word stands before the cue, and in it."""
        body, tail = Counter[int](), Counter[int]()
        for e in self.counted[: self.N_LEARNED]:
            body.update(set(e.prompt[: e.start]))
            tail.update(set(e.prompt[e.start :]))
        return body, tail, max(len(self.counted[: self.N_LEARNED]), 1)

    def varies(self, word: int, in_cue: bool) -> bool:
        """Tell whether a word of the cue, or of what is before it, differs between examples."""
        body, tail, n = self._shares
        return (tail if in_cue else body)[word] < 0.3 * n

    @cached_property
    def slots(self) -> list[Counter[int]]:
        """Count the words at each place of the commonest length of an answer."""
        lengths = Counter(len(e.answer) for e in self.counted)
        length = lengths.most_common(1)[0][0] if lengths else 0
        fits = [e.answer for e in self.counted if len(e.answer) == length]
        return [Counter(column) for column in zip(*fits, strict=True)]

    def say(self, word: int) -> str:
        """Return the commonest answer that a word tells, or the word as such answers put it."""
        if word in self.spoken:
            return self.corpus.write(self.spoken[word].most_common(1)[0][0])
        return self.corpus.write([word])


def spread(places: np.ndarray, n: int) -> np.ndarray:
    """Keep at most n places, evenly spread."""
    return places if len(places) <= n else places[np.linspace(0, len(places) - 1, n).astype(int)]


def rarest(corpus: Corpus, words: Sequence[int]) -> int | None:
    """Return the word of an answer that the pages have least often."""
    proper = [word for word in words if word < 0 or corpus.is_word[word]]
    return min(proper, key=corpus.count, default=None)


class Pairs:
    """How often one word stands before another in a sentence; the most telling pairs only."""

    REACH = 14

    def __init__(self, corpus: Corpus, budget: int | None = None) -> None:
        v, ids = len(corpus.words), corpus.ids.astype(np.int64)
        found = []
        for d in range(1, min(self.REACH, len(ids))):
            a, b = ids[:-d], ids[d:]
            near = corpus.sentence_of[:-d] == corpus.sentence_of[d:]
            near &= corpus.is_word[a] & corpus.is_word[b]
            found.append(a[near] * v + b[near])
        keys, n = np.unique(np.concatenate(found or [np.empty(0, np.int64)]), return_counts=True)
        self.v, self.total = v, max(int(n.sum()), 1)
        self.first = np.bincount(keys // v, n, v)
        self.second = np.bincount(keys % v, n, v)
        expected = self.first[keys // v] * self.second[keys % v] / self.total
        telling = n * np.log(n / expected)
        if budget is not None and len(keys) > max(budget, 0):
            kept = np.sort(np.argsort(-telling, kind="stable")[: max(budget, 0)])
            keys, n = keys[kept], n[kept]
        self.keys, self.n = keys, n

    @cached_property
    def by_second(self) -> np.ndarray:
        """Order the pairs by their second word: (P,)."""
        return np.argsort(self.keys % self.v, kind="stable")

    @cached_property
    def seconds(self) -> np.ndarray:
        """Return the second words of the pairs, in order: (P,)."""
        return (self.keys % self.v)[self.by_second]

    def count(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return how often each a stands before each b: (A,), (B,) -> (A, B)."""
        keys = a[:, None].astype(np.int64) * self.v + b[None]
        if not len(self.keys):
            return np.zeros(keys.shape)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        known = (self.keys[at] == keys) & (a[:, None] >= 0) & (b[None] >= 0)
        return np.where(known, self.n[at], 0).astype(float)

    def information(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the positive pointwise mutual information of words in a sentence: (A, B)."""
        n = self.count(a, b) + self.count(b, a).T
        once = self.first + self.second
        expected = np.where(a >= 0, once[a], 0)[:, None] * np.where(b >= 0, once[b], 0)[None]
        expected = np.maximum(expected / (2 * self.total), 1e-9)
        return np.log(np.maximum(n / expected, 1.0))


class Chooser:
    """A log-linear choice among options that are described by features: one weight a feature.

    Trained by gradient descent on examples from the pages; the features seen most often are kept.
    """

    N_STEPS, RATE, DECAY = 120, 4.0, 1e-3

    def __init__(self, options: Sequence[Sequence[Sequence[str]]], right: Sequence[int],
                 budget: int) -> None:  # fmt: skip
        seen = Counter(f for group in options for option in group for f in option)
        kept = [f for f, n in seen.most_common(max(budget, 1)) if n > 2]
        self.number = {f: i for i, f in enumerate(kept)}
        rows, columns, owner, wanted = [], [], [], []
        row = 0
        for g, (group, answer) in enumerate(zip(options, right, strict=True)):
            for i, option in enumerate(group):
                known = [self.number[f] for f in option if f in self.number]
                rows += [row] * len(known)
                columns += known
                owner.append(g)
                wanted.append(float(i == answer))
                row += 1
        self.weight = np.zeros(len(kept))
        self._fit(np.array(rows, int), np.array(columns, int), np.array(owner, int),
                  np.array(wanted), len(options))  # fmt: skip

    def _fit(self, rows: np.ndarray, columns: np.ndarray, owner: np.ndarray,
             wanted: np.ndarray, n: int) -> None:  # fmt: skip
        if not len(columns):
            return
        scale = np.sqrt(np.bincount(columns, minlength=len(self.weight)) / max(n, 1)) + 0.05
        square = np.full(len(self.weight), 1e-8)
        for _ in range(self.N_STEPS):
            score = np.bincount(rows, self.weight[columns], len(owner))
            chance = np.exp(np.clip(score, -30, 30))
            chance /= np.bincount(owner, chance, n)[owner]
            error = (wanted - chance)[rows] / max(n, 1)
            slope = np.bincount(columns, error, len(self.weight)) / scale
            slope -= self.DECAY * self.weight
            square += slope**2
            self.weight += 0.3 * slope / np.sqrt(square)

    def score(self, option: Sequence[str]) -> float:
        """Return the sum of an option's weights."""
        return float(sum(self.weight[self.number[f]] for f in option if f in self.number))

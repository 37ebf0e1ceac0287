"""Translating part by part: a source is cut where no order of translation crosses.

The cut is at a word like `and`, found by counting. A part is translated word by word, and what ends
it is replaced where another part follows.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import groupby, pairwise

import numpy as np

from course.rules.pointing import Answers
from course.rules.translating import WAYS, Dictionary, Orders, translate
from course.rules.writing import Reader, one

Part = tuple[list[int], list[int], bool]  # words, their translation, and whether no part follows


class Clauses:
    """The parts of a source around a word that no order crosses, each translated by itself.

    The last word of a part ends otherwise than that of the last part: the ending is replaced.
    """

    UNCROSSED = 0.5

    def __init__(self, book: Dictionary) -> None:
        self.whole = book
        fits, seen = Counter[int](), Counter[int]()
        for (source, _), order in zip(book.rows, book.aligned, strict=True):
            for p, word in enumerate(source):
                before = [j for j, i in enumerate(order) if i < p]
                behind = [j for j, i in enumerate(order) if i > p]
                if min(len(before), len(behind)) > 1:  # one word is crossed by nothing
                    seen[word] += 1
                    fits[word] += before[-1] < behind[0]
        uncrossed = {w: n for w, n in fits.items() if n > self.UNCROSSED * seen[w]}
        self.joint = max(uncrossed, key=lambda w: uncrossed[w], default=0)
        parts = [part for row, order in zip(book.rows, book.aligned, strict=True)
                 for part in self.parts(*row, order)]  # fmt: skip
        self.inner, self.last = self.count_endings(parts)
        number, rows = book.corpus.number, []
        for source, target, is_last in parts:
            text = book.corpus.words[target[-1]]
            ending = text if is_last else self.end(text, self.inner, self.last)
            if ending in number:
                rows.append((source, [*target[:-1], number[ending]]))
        self.book = units(Dictionary(book.corpus, book.cue, book.cued, book.budget, rows))

    def cut(self, source: list[int]) -> list[list[int]]:
        """Cut a source at its joints."""
        stops = [i for i, word in enumerate(source) if word == self.joint]
        starts = [0, *(i + 1 for i in stops)]
        return [source[a:b] for a, b in zip(starts, [*stops, len(source)], strict=True)]

    def parts(self, source: list[int], target: list[int], order: list[int]) -> list[Part]:
        """Cut source and target at the joints; tell of each part whether it is the last."""
        cuts = [0]
        for p in (i for i, word in enumerate(source) if word == self.joint):
            right = [sum(i <= p for i in order[:j]) + sum(i > p for i in order[j:])
                     for j in range(len(order) + 1)]  # fmt: skip
            cuts.append(int(np.argmax(right)))
        cuts.append(len(target))
        pieces = [target[a:b] for a, b in pairwise(cuts)]
        rows = list(zip(self.cut(source), pieces, strict=True))
        return [(s, t, k == len(rows) - 1) for k, (s, t) in enumerate(rows) if s and t]

    def count_endings(self, parts: list[Part]) -> tuple[str, str]:
        """Return how a part ends that is not the last, and what the same words end in there."""
        known: dict[bool, dict[str, int]] = {True: Counter(), False: Counter()}
        for _, target, is_last in parts:
            known[is_last][self.whole.corpus.words[target[-1]]] += 1
        starts: dict[str, list[tuple[str, int]]] = {}
        for text, n in known[True].items():
            for k in range(1, len(text) + 1):
                starts.setdefault(text[:k], []).append((text[k:], n))
        pairs = Counter[tuple[str, str]]()
        for text, n in known[False].items():
            for k in range(len(text), 0, -1):
                for ending, m in starts.get(text[:k], ()):
                    pairs[text[k:], ending] += min(n, m)
                if text[:k] in starts:
                    break
        return pairs.most_common(1)[0][0] if pairs else ("", "")

    @staticmethod
    def end(text: str, old: str, new: str) -> str:
        """Replace an ending, if a word has it."""
        return text[: len(text) - len(old)] + new if text.endswith(old) else text

    def n_numbers(self, way: str) -> int:
        """Return how many counts it looks up, and words it keeps: what is cut at, the endings."""
        return self.book.n_numbers(way) + len(self.book.texts) - len(self.whole.texts) + 3

    def join(self, texts: list[str]) -> str:
        """Put the translations of the parts together."""
        ended = [self.end(text, self.last, self.inner) for text in texts[:-1]]
        return " ".join([*ended, texts[-1]])


def units(book: Dictionary) -> Dictionary:
    """Take the words in a row that translate one word as one."""
    texts, number, rows = list(book.texts), dict[str, int](), []
    for (source, target), order in zip(book.rows, book.aligned, strict=True):
        row = []
        for _, group in groupby(range(len(order)), order.__getitem__):
            words = [target[j] for j in group]
            text = " ".join(book.texts[w] for w in words)
            if len(words) > 1 and text not in number:
                number[text] = len(texts)
                texts.append(text)
            row.append(number[text] if len(words) > 1 else words[0])
        rows.append((source, row))
    return Dictionary(book.corpus, book.cue, book.cued, book.budget, rows, texts)


def clause_by_clause(reader: Reader) -> Iterator[Answers]:
    """Translate the parts of a source one by one."""
    if reader.asked[0].candidates:
        return
    share = reader.budget // (4 * len(reader.kinds))
    corpus, way = reader.corpus, list(WAYS)[-1]
    books = {
        id(cued): Clauses(Dictionary(corpus, reader.cue, cued, share)) for cued in reader.kinds
    }
    for n_kept in (0, 2, 3, 4, 6, 8, 16):
        orders = {key: Orders(clauses.book, n_kept) for key, clauses in books.items()}
        for similar in (False, True):
            texts = []
            for _, words, start, cued in reader.rows():
                clauses, order = books[id(cued)], orders[id(cued)]
                parts = clauses.cut(clauses.book.source(words, start))
                texts.append(clauses.join([
                    translate(clauses.book, order, part, way, True, None, similar)
                    for part in parts
                ]))  # fmt: skip
            held = sum(order.n_numbers + order.n_endings for order in orders.values())
            held += sum(clauses.n_numbers(way) for clauses in books.values())
            name = "clause by clause" + ", by similar words" * similar
            yield one(f"{name}; order by length and {n_kept} words", held, texts)

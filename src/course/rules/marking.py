"""What a sentence says of the one beside it: counted, or for a new sentence told by its parts."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from course.rules.counts import Ids


class RankOne:
    """A table of first parts by last parts of sentences, known in some cells: a product in each.

    A value is that of the first part times that of the last, as when one of the two turns what the
    other says. Fitted by alternating least squares (Koren, Bell, Volinsky 2009, "Matrix
    factorization techniques for recommender systems"), with one factor.
    """

    N_STEPS, RIDGE = 50, 0.1

    def __init__(self, known: dict[Ids, float]) -> None:
        cells = [(*cut, value) for row, value in known.items() for cut in cuts(row)]
        firsts, lasts = Counter(a for a, _, _ in cells), Counter(b for _, b, _ in cells)
        self.first = {a: i for i, a in enumerate(a for a, n in firsts.items() if n > 1)}
        self.last = {b: j for j, b in enumerate(b for b, n in lasts.items() if n > 1)}
        values = np.zeros((len(self.first), len(self.last)))
        seen = np.zeros(values.shape, dtype=bool)
        for a, b, value in cells:
            if a in self.first and b in self.last:
                at = self.first[a], self.last[b]
                values[at], seen[at] = value, True
        self.x = np.random.default_rng(0).normal(size=len(self.first))
        self.y = np.zeros(len(self.last))
        for _ in range(self.N_STEPS):
            self.y = self.x @ values / (self.x**2 @ seen + self.RIDGE)
            self.x = values @ self.y / (seen @ self.y**2 + self.RIDGE)

    def value(self, row: Ids) -> float:
        """Return the mean over the places where a sentence can be cut into known parts, or 0."""
        found = [self.x[self.first[a]] * self.y[self.last[b]] for a, b in cuts(row)
                 if a in self.first and b in self.last]  # fmt: skip
        return float(np.mean(found)) if found else 0.0


def cuts(row: Ids) -> list[tuple[Ids, Ids]]:
    """Cut a sentence in two at each place."""
    return [(row[:i], row[i:]) for i in range(1, len(row))]


class Marks:
    """The log odds that a sentence is the right one, by the whole sentence beside it."""

    LEAST, MAX_KNOWN = 10, 300

    def __init__(self, texts: Sequence[Sequence[Ids]], right: Sequence[int], offset: int) -> None:
        self.offset = offset
        seen, hits = Counter[Ids](), Counter[Ids]()
        for text, k in zip(texts, right, strict=True):
            for i in range(len(text)):
                seen[self.beside(text, i)] += 1
            hits[self.beside(text, k)] += 1
        common = [row for row, n in seen.most_common(self.MAX_KNOWN) if n >= self.LEAST]
        self.known = {
            row: math.log((hits[row] + 1) / (seen[row] - hits[row] + 1)) for row in common
        }
        self.parts = RankOne(self.known)

    @property
    def n_numbers(self) -> int:
        """Return how many numbers it keeps."""
        return len(self.known) + len(self.parts.x) + len(self.parts.y)

    def beside(self, text: Sequence[Ids], i: int) -> Ids:
        """Return the sentence beside one, empty at the edge of the text."""
        j = i + self.offset
        return text[j] if 0 <= j < len(text) else ()

    def choose(self, text: Sequence[Ids]) -> int:
        """Return the number of the sentence that the one beside it marks most."""
        rows = [self.beside(text, i) for i in range(len(text))]
        return int(np.argmax([self.known.get(row, self.parts.value(row)) for row in rows]))

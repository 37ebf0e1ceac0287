"""Weighted choices that add up their own log-probability."""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from itertools import accumulate
from math import log
from typing import Generic, TypeVar

T = TypeVar("T")


class Table(Generic[T]):
    """Values with whole-number weights; the probability of one is its weight over the total."""

    __slots__ = ("cumulative", "logprobs", "total", "values", "weights")

    def __init__(self, values: Iterable[T], weights: Iterable[int] | None = None) -> None:
        self.values = tuple(values)
        if not self.values:
            raise ValueError("a table of choices needs at least one value")
        counts = tuple(weights) if weights is not None else (1,) * len(self.values)
        if len(counts) != len(self.values) or min(counts) < 1:
            raise ValueError("each value of a table needs one whole weight of at least 1")
        self.weights = counts
        self.cumulative = tuple(accumulate(counts))
        self.total = self.cumulative[-1]
        self.logprobs = tuple(log(count / self.total) for count in counts)


@cache
def below(n: int) -> Table[int]:
    """Return the table of 0, ..., n - 1, equally likely."""
    return Table(range(n))


class Draw:
    """Make choices from one stream of uniform numbers; `logprob` (nats) is their sum so far."""

    __slots__ = ("logprob", "random")

    def __init__(self, random: Callable[[], float]) -> None:
        self.random = random
        self.logprob = 0.0

    def __call__(self, table: Table[T]) -> T:
        """Choose one value of the table."""
        i = bisect_right(table.cumulative, self.random() * table.total)
        self.logprob += table.logprobs[i]
        return table.values[i]

    def other(self, table: Table[T], used: Collection[T]) -> T:
        """Choose a value that is not used, by the weights of those that are left."""
        left = table.total - sum(
            weight
            for value, weight in zip(table.values, table.weights, strict=True)
            if value in used
        )
        i = bisect_right(table.cumulative, self.random() * table.total)
        while table.values[i] in used:
            i = bisect_right(table.cumulative, self.random() * table.total)
        self.logprob += log(table.weights[i] / left)
        return table.values[i]

    def several(self, table: Table[T], k: int) -> list[T]:
        """Choose k different values, one after the other, each by the weights of the rest."""
        chosen: list[T] = []
        for _ in range(k):
            chosen.append(self.other(table, chosen))
        return chosen

    def distinct(self, values: Sequence[T], k: int) -> list[T]:
        """Choose k different values, in order; every order of every k is equally likely."""
        rest = list(values)
        return [rest.pop(self(below(len(rest)))) for _ in range(k)]

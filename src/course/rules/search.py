"""The search: every rule answers, and the best of each family is kept.

The best rule of a task is told by its score on the items themselves, which favours the rules.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from course.rules.clauses import clause_by_clause
from course.rules.counts import Cue, Cued, normalize
from course.rules.facts import association, database, fitting_sentence, nearest_page
from course.rules.following import majority, n_grams
from course.rules.pointing import Answers, Asked, Pages, Pointing
from course.rules.roles import roles
from course.rules.translating import word_by_word
from course.rules.writing import Reader, copying, one, slot_by_slot

CUES = (
    Cue(1, 0, 1), Cue(1, 0, 2), Cue(1, 1, 1), Cue(1, 2, 1),
    Cue(2, 3, 2), Cue(2, 4, 2), Cue(2, 6, 2),
)  # fmt: skip
NEAR, MAX_KINDS = 0.03, 24


class Item(NamedTuple):
    """A test item; items 2k and 2k + 1 are a pair where a task has pairs."""

    prompt: str
    answer: str
    candidates: tuple[str, ...] = ()


Family = Callable[[Reader], Iterator[Answers]]
CHEAP: tuple[Family, ...] = (
    majority, copying, slot_by_slot, roles, word_by_word, clause_by_clause, association,
)  # fmt: skip
DATABASE: tuple[Family, ...] = (database, nearest_page, fitting_sentence)
N_TRIED = 40  # examples on which the rule for a cue is chosen


def with_choice(family: Family, reader: Reader) -> Iterator[Answers]:
    """Add to the rules of a family the one that takes, for each cue, what suits its examples."""
    every = list(family(reader))
    yield from every
    if len(reader.kinds) == 1 or len(every) < 2 or reader.asked[0].candidates:
        return
    best = {id(cued): choose_on_examples(family, reader, cued) for cued in reader.kinds}
    texts = [every[best[id(cued)]].texts[i][0] for i, cued in enumerate(reader.cued)]
    held = sum(every[k].n_numbers for k in set(best.values()))
    yield one("the best on the examples of each cue", held, texts)


def choose_on_examples(family: Family, reader: Reader, cued: Cued) -> int:
    """Return which rule of a family is right most often on the examples of a cue."""
    tried = cued.learned[:: max(1, len(cued.learned) // N_TRIED)]
    if not tried:
        return 0
    asked = [Asked(reader.corpus.write(e.prompt)) for e in tried]
    practice = Reader(reader.pages, reader.cue, asked, reader.budget)
    practice.cued, practice.kinds = [cued] * len(tried), [cued]
    wanted = [reader.corpus.write(e.answer) for e in tried]
    hits = [float(exact([t[0] for t in a.texts], wanted).mean()) for a in family(practice)]
    return int(np.argmax(hits))


def readers(pages: Pages, asked: Sequence[Asked], budget: int) -> Iterator[Reader]:
    """Read the prompts with every cue that the pages have; once if two cues find the same.

    What differs from prompt to prompt is no cue: one with very many kinds is left out.
    """
    known: set[tuple[tuple[int, ...], ...]] = set()
    for cue in CUES:
        reader = Reader(pages, cue, asked, budget)
        found = tuple(cued.n_examples for cued in reader.cued), tuple(reader.starts)
        if found not in known and (len(reader.kinds) <= MAX_KINDS or not known):
            known.add(found)
            yield reader


def cheap_rules(pages: Pages, asked: Sequence[Asked], budget: int) -> Iterator[tuple[str, Answers]]:
    """Let every cheap rule answer, with every cue."""
    for reader in readers(pages, asked, budget):
        cue = tuple(reader.cue)
        if any(cued.counted for cued in reader.cued):
            for family in CHEAP:
                for answers in with_choice(family, reader):
                    yield f"{family.__name__} {cue}", answers
        for answers in Pointing(pages, reader.cue, budget).answers(asked):
            yield f"pointing {cue}", answers
    for answers in n_grams(pages, asked, budget):
        yield "n-grams", answers


def databases(pages: Pages, asked: Sequence[Asked]) -> Iterator[tuple[str, Answers]]:
    """Let every rule answer that keeps all pages."""
    for reader in readers(pages, asked, len(pages.corpus.ids)):
        for family in DATABASE:
            for answers in family(reader):
                yield f"{family.__name__} {tuple(reader.cue)}", answers


Score = Callable[[Sequence[str], Sequence[str]], np.ndarray]


def exact(texts: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Score 1 for an answer that is the reference, spaces aside: (N,)."""
    pairs = zip(texts, references, strict=True)
    return np.array([float(normalize(a) == normalize(b)) for a, b in pairs])


def score_pairs(scores: np.ndarray) -> np.ndarray:
    """Give credit for a pair only if both its items are right: (..., N) -> (..., N / 2)."""
    return np.minimum(scores[..., 0::2], scores[..., 1::2])


class Found(NamedTuple):
    """A rule with its scores, the numbers it holds, and its answers."""

    name: str
    pair: float
    item: float
    n_numbers: int
    answers: tuple[str, ...]

    @property
    def merit(self) -> tuple[float, float, int]:
        """Order rules: by pairs, then by items, then by how few numbers they hold."""
        return self.pair, self.item, -self.n_numbers


def best_of(answered: Iterator[tuple[str, Answers]], items: Sequence[Item], budget: int,
            paired: bool = True, score: Score = exact) -> list[Found]:  # fmt: skip
    """Score rules by their answers; return the best of each family, the best first."""
    best: dict[tuple[str, bool], Found] = {}
    rows, scored, right = np.arange(len(items)), None, np.empty((0, 0))
    for family, answers in answered:
        if answers.n_numbers > budget:
            continue
        if answers.texts is not scored:
            scored = answers.texts
            right = np.zeros((len(items), max(map(len, scored))))
            for row, texts, item in zip(right, scored, items, strict=True):
                row[: len(texts)] = score(texts, [item.answer] * len(texts))
        scores = right[rows, answers.picks]
        by_item = scores.mean(1)
        by_pair = score_pairs(scores).mean(1) if paired else by_item
        r = int(np.lexsort([by_item, by_pair])[-1])
        given = tuple(t[k] for t, k in zip(answers.texts, answers.picks[r], strict=True))
        name = f"{family}: {answers.names[r]}"
        here = Found(name, float(by_pair[r]), float(by_item[r]), answers.n_numbers, given)
        key = family, answers.n_numbers > 0
        if key not in best or here.merit > best[key].merit:
            best[key] = here
    return sorted(best.values(), key=lambda found: found.merit, reverse=True)


def search_cheap(pages: Pages, items: Sequence[Item], budget: int, paired: bool = True,
                 score: Score = exact) -> list[Found]:  # fmt: skip
    """Return the best cheap rule of each family, the best first."""
    asked = [Asked(item.prompt, item.candidates) for item in items]
    return best_of(cheap_rules(pages, asked, budget), items, budget, paired, score)


def search_databases(pages: Pages, items: Sequence[Item], paired: bool = True,
                     score: Score = exact) -> list[Found]:  # fmt: skip
    """Return the best rule of each family that keeps all pages, the best first."""
    asked = [Asked(item.prompt, item.candidates) for item in items]
    return best_of(databases(pages, asked), items, 2**62, paired, score)


def simplest(found: Sequence[Found]) -> Found:
    """Return the rule with the fewest numbers of those that are nearly the best."""
    near = [rule for rule in found if rule.pair >= found[0].pair - NEAR]
    return min(near, key=lambda rule: (rule.n_numbers, -rule.pair))


HEAD = "| task | line | pair | item | numbers | rule |\n|---|---|---|---|---|---|"


def row(task: str, line: str, rule: Found) -> str:
    """Write a rule as a row of the table."""
    scores = f"{rule.pair:.3f} | {rule.item:.3f}"
    return f"| {task} | {line} | {scores} | {rule.n_numbers:,} | {rule.name} |"


def report(pages: Pages, items: Sequence[Item], budgets: Sequence[int],
           paired: bool = True) -> Iterator[tuple[str, Found]]:  # fmt: skip
    """Search the rules of a task: the best of each budget, the simplest, and the database.

    Beside them stand the commonest answer and the best n-gram model, a language model too.
    """
    for budget in sorted(budgets, reverse=True):
        found = search_cheap(pages, items, budget, paired)
        yield f"at most {budget:,} numbers", found[0]
        if simplest(found) != found[0]:
            yield f"fewest within {NEAR}", simplest(found)
        if budget == max(budgets):
            for name in ("majority", "n-grams"):  # of their families the best; the first, if any
                yield from [(name, f) for f in found if f.name.startswith(name)][:1]
        if found[0].n_numbers <= min(budgets):
            break  # the smaller budgets can hold it too
    yield "database", search_databases(pages, items, paired)[0]

"""The search for the cheapest rule that reaches a model's score on a task of chapter 8.

A rule sees a prompt, its candidates, and counts over the training pages; it holds no word of any
grammar, no answer, and no other item. A cheap rule holds at most as many numbers as a model has
parameters; a database keeps every page. The rule of a task is chosen by its score on the items
themselves, which favours the rules.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from course.counts import Corpus, Cue, Cued, Ids, normalize
from course.facts import association, database, fitting_sentence, nearest_page
from course.pointing import GAP, Answers, Asked, Pages, Pointing
from course.writing import Reader, copying, one, settle, slot_by_slot, word_by_word

CUES = (
    Cue(1, 0, 1), Cue(1, 0, 2), Cue(1, 1, 1), Cue(1, 2, 1),
    Cue(2, 3, 2), Cue(2, 4, 2), Cue(2, 6, 2),
)  # fmt: skip
NEAR = 0.03


class Item(NamedTuple):
    """A test item; items 2k and 2k + 1 are a pair where a task has pairs."""

    prompt: str
    answer: str
    candidates: tuple[str, ...] = ()


# -- majority --------------------------------------------------------------------------------------


def majority(reader: Reader) -> Iterator[Answers]:
    """Answer with what followed the cue most often, overall or beside the words of the prompt."""
    corpus = reader.corpus
    tables = {id(cued): table_of_words(cued) for cued in reader.kinds}

    def allowed(cued: Cued, asked: Asked) -> list[Ids]:
        options = {normalize(c) for c in asked.candidates}
        known = [a for a, _ in cued.answers.most_common(1500)]
        return [a for a in known if not options or corpus.write(a) in options]

    def commonest(asked: Asked, words: list[int], start: int, cued: Cued) -> Ids:
        return max(allowed(cued, asked), key=lambda a: cued.answers[a], default=())

    def by_rule(score: Callable[[Counter[Ids], int, Ids, Cued], float], whole: bool
                ) -> Callable[[Asked, list[int], int, Cued], Ids]:  # fmt: skip
        def rule(asked: Asked, words: list[int], start: int, cued: Cued) -> Ids:
            table = tables[id(cued)]
            seen = [w for w in set(words if whole else words[start:]) if w in table]
            options = set(allowed(cued, asked))
            best, top = commonest(asked, words, start, cued), -1.0
            for w in seen:
                total = sum(table[w].values())
                for answer, _ in table[w].most_common(None if asked.candidates else 3):
                    value = score(table[w], total, answer, cued)
                    if value > top and answer in options:
                        best, top = answer, value
            return best

        return rule

    def share(count: Counter[Ids], total: int, answer: Ids, cued: Cued) -> float:
        return count[answer] / (total + 1)

    def lift(count: Counter[Ids], total: int, answer: Ids, cued: Cued) -> float:
        return count[answer] / (total + 3) / cued.answers[answer]

    def bayes(asked: Asked, words: list[int], start: int, cued: Cued) -> Ids:
        table, n = tables[id(cued)], max(len(cued.counted), 1)
        options = allowed(cued, asked)[:300]
        score = {a: np.log(cued.answers[a] / n) for a in options}
        for w in {w for w in words if w in table}:
            for a in options:
                score[a] += np.log((table[w][a] + 0.1) / (cued.answers[a] + 0.2))
        return max(options, key=lambda a: score[a], default=())

    rules: dict[str, Callable[[Asked, list[int], int, Cued], Ids]] = {
        "commonest behind the cue": commonest,
        "commonest beside the surest word of the prompt": by_rule(share, True),
        "commonest beside the surest word of the cue": by_rule(share, False),
        "most lifted by a word of the prompt": by_rule(lift, True),
        "most lifted by a word of the cue": by_rule(lift, False),
        "naive Bayes over the words of the prompt": bayes,
    }
    held = sum(len(count) for table in tables.values() for count in table.values())
    answers = sum(len(cued.answers) for cued in reader.kinds)
    for name, rule in rules.items():
        texts = [
            corpus.write(rule(*row))
            for row in zip(reader.asked, reader.words, reader.starts, reader.cued, strict=True)
        ]
        texts = [settle(t, a.candidates) for t, a in zip(texts, reader.asked, strict=True)]
        yield one(name, answers + held * (rule is not commonest), texts)


def table_of_words(cued: Cued) -> dict[int, Counter[Ids]]:
    """Count answers beside each word of the prompts of a cue's examples."""
    table: dict[int, Counter[Ids]] = {}
    for e in cued.counted[:6000]:
        for word in set(e.prompt):
            table.setdefault(word, Counter())[tuple(e.answer)] += 1
    return table


# -- n-grams ---------------------------------------------------------------------------------------


class NGrams:
    """An n-gram model with back-off over words; it knows the n-grams that its budget can hold."""

    BACK_OFF, N_NEW = 0.4, 24

    def __init__(self, corpus: Corpus, order: int, budget: int) -> None:
        self.corpus, self.order = corpus, order
        ids, code = corpus.ids.astype(np.uint64), np.zeros(len(corpus.ids), np.uint64)
        times = []  # how often each n-gram occurs
        for n in range(order):
            code = code[: len(ids) - n] * np.uint64(6364136223846793005) + ids[n:] + np.uint64(1)
            times.append(np.unique(code, return_counts=True)[1])
        seen = np.bincount(np.concatenate(times))
        at_least = seen[::-1].cumsum()[::-1]
        self.least = int(np.argmax(np.append(at_least, 0)[1:] <= budget)) + 1
        self.n_numbers = int(np.append(at_least, 0)[self.least])
        self._next: dict[Ids, Counter[int]] = {}

    def next(self, context: Ids) -> Counter[int]:
        """Count what follows some words, n-grams that are too rare left out."""
        if context not in self._next:
            places = self.corpus.places(context)
            n = np.bincount(self.corpus.ids[places + 1]) if len(places) else np.zeros(1, int)
            kept = np.flatnonzero(n >= self.least).tolist()
            self._next[context] = Counter({w: int(n[w]) for w in kept})
        return self._next[context]

    def write(self, words: Sequence[int], stop: frozenset[int]) -> list[int]:
        """Continue a text with the likeliest word, again and again, up to a sign that ends it."""
        text = list(words)
        for _ in range(self.N_NEW):
            for n in range(self.order - 1, -1, -1):
                count = self.next(tuple(text[len(text) - n :])) if n else Counter[int]()
                if count:
                    text.append(count.most_common(1)[0][0])
                    break
            if text[-1] in stop or not count:
                break
        written = text[len(words) :]
        return [w for w in written if w not in stop]

    def likelihood(self, words: Sequence[int]) -> float:
        """Return the log-likelihood of a text, backed off (Brants et al. 2007)."""
        total = 0.0
        for i in range(1, len(words)):
            weight = 1.0
            for n in range(min(self.order - 1, i), 0, -1):
                count = self.next(tuple(words[i - n : i]))
                if count[words[i]]:
                    total += np.log(weight * count[words[i]] / sum(count.values()))
                    break
                weight *= self.BACK_OFF
            else:
                share = max(self.corpus.count(words[i]), 0.1) / len(self.corpus.ids)
                total += np.log(weight * share)
        return total


def n_grams(pages: Pages, asked: Sequence[Asked], budget: int) -> Iterator[Answers]:
    """Continue a prompt, or choose the candidate that makes the text likeliest."""
    corpus = pages.corpus
    line = frozenset({0, corpus.number.get("\n", 0)})
    for order in (2, 3, 4, 5):
        model = NGrams(corpus, order, budget)
        texts = []
        for prompt, candidates in asked:
            if candidates:
                whole = [
                    prompt.replace(GAP, c) if GAP in prompt else f"{prompt} {c}" for c in candidates
                ]
                scores = [model.likelihood(corpus.encode(text)) for text in whole]
                texts.append(candidates[int(np.argmax(scores))])
            else:
                words = corpus.encode(prompt)
                inside = words and words[-1] >= 0 and corpus.is_word[words[-1]]
                texts.append(corpus.write(model.write(words, corpus.ends if inside else line)))
                texts[-1] = texts[-1].rstrip(" .")
        yield one(f"{order}-grams with back-off", model.n_numbers, texts)


# -- the search ------------------------------------------------------------------------------------

Family = Callable[[Reader], Iterator[Answers]]
CHEAP: tuple[Family, ...] = (majority, copying, slot_by_slot, word_by_word, association)
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
    asked = [Asked(reader.corpus.write(e.prompt)) for e in tried]
    practice = Reader(reader.pages, reader.cue, asked, reader.budget)
    practice.cued, practice.kinds = [cued] * len(tried), [cued]
    wanted = [reader.corpus.write(e.answer) for e in tried]
    hits = [float(exact([t[0] for t in a.texts], wanted).mean()) for a in family(practice)]
    return int(np.argmax(hits))


def readers(pages: Pages, asked: Sequence[Asked], budget: int) -> Iterator[Reader]:
    """Read the prompts with every cue that the pages have; once if two cues find the same."""
    known = set()
    for cue in CUES:
        reader = Reader(pages, cue, asked, budget)
        found = tuple(cued.n_examples for cued in reader.cued), tuple(reader.starts)
        if found not in known:
            known.add(found)
            yield reader


def cheap_rules(pages: Pages, asked: Sequence[Asked], budget: int) -> Iterator[tuple[str, Answers]]:
    """Let every cheap rule answer, with every cue."""
    for reader in readers(pages, asked, budget):
        cue = tuple(reader.cue)
        if all(cued.counted for cued in reader.cued):
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
    rows = np.arange(len(items))
    for family, answers in answered:
        if answers.n_numbers > budget:
            continue
        right = np.zeros((len(items), max(map(len, answers.texts))))
        for row, texts, item in zip(right, answers.texts, items, strict=True):
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


def report(task: str, pages: Pages, items: Sequence[Item], budgets: Sequence[int],
           paired: bool = True) -> Iterator[str]:  # fmt: skip
    """Search the rules of a task; write a row for each budget, the simplest, and the database."""

    def row(line: str, rule: Found) -> str:
        pair = f"{rule.pair:.3f}" if paired else "-"
        return f"| {task} | {line} | {pair} | {rule.item:.3f} | {rule.n_numbers:,} | {rule.name} |"

    for budget in sorted(budgets, reverse=True):
        found = search_cheap(pages, items, budget, paired)
        yield row(f"at most {budget:,} numbers", found[0])
        if simplest(found) != found[0]:
            yield row(f"fewest within {NEAR}", simplest(found))
        if found[0].n_numbers <= min(budgets):
            break  # the smaller budgets can hold it too
    yield row("database", search_databases(pages, items, paired)[0])

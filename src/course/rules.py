"""The search for the cheapest rule that reaches a model's score on a task of chapter 8.

A rule sees a prompt, its candidates, and counts over the training pages; it holds no word of any
grammar, no answer, and no other item. A cheap rule holds at most as many numbers as a model has
parameters; a database keeps every page. The rule of a task is chosen by its score on the items
themselves, which favours the rules.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from course.counts import Corpus, Cue, Cued, Ids, Pairs, normalize, rarest, sentences
from course.pointing import GAP, Answers, Asked, Pages, Pointing
from course.writing import Reader, copying, one, settle, slot_by_slot, word_by_word

CUES = (
    Cue(1, 0, 1), Cue(1, 0, 2), Cue(1, 1, 1), Cue(1, 2, 1), Cue(2, 3, 2), Cue(2, 4, 2),
)  # fmt: skip
LIMIT = 0.03


class Item(NamedTuple):
    """A test item; items 2k and 2k + 1 are a pair where a task has pairs."""

    prompt: str
    answer: str
    candidates: tuple[str, ...] = ()


class Found(NamedTuple):
    """A rule with its scores and the numbers it holds."""

    name: str
    pair: float
    item: float
    n_numbers: int
    answers: tuple[str, ...]


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


# -- association and the database ------------------------------------------------------------------


class Kind:
    """Which words are of the kind that answers a cue: such words, and what stands around them."""

    def __init__(self, corpus: Corpus, cued: Cued, cue: Cue, key_last: Ids) -> None:
        names = np.zeros(len(corpus.words), bool)
        names[[w for w in cued.names if w >= 0]] = True
        ids, v = corpus.ids, len(corpus.words)
        left, right = np.roll(ids, 1), np.roll(ids, -1)
        told = np.zeros(len(ids), bool)
        for n in range(1, 6):
            behind = corpus.places(key_last) + n
            told[behind[behind < len(ids)]] = True
        its = names[ids] & ~told
        self.score = np.zeros(v)
        for side in (left, right):
            its_side, all_side = np.bincount(side[its], minlength=v), np.bincount(side, minlength=v)
            ratio = np.log((its_side + 0.1) / max(its.sum(), 1) / ((all_side + 1) / len(ids)))
            self.score += np.bincount(ids, ratio[side], v) / np.maximum(corpus.n, 1)
        if not its.any():
            self.score[:] = 0
        self.known = np.zeros(v)
        for w, n in cued.names.items():
            if w >= 0:
                self.known[w] = np.log1p(n)
        self.n_numbers = 2 * v + len(cued.names)


def kinds(reader: Reader) -> dict[int, Kind]:
    """Count, for each cue of a task, what its answers are like."""
    return {
        id(cued): Kind(reader.corpus, cued, reader.cue, tuple(words[-reader.cue.n_last :]))
        for cued, words in zip(reader.cued, reader.words, strict=True)
    }


def phrase(corpus: Corpus, word: int, barred: set[int]) -> list[int]:
    """Put a word together with the neighbours that it nearly always has."""
    found = [word]
    for step in (-1, 1):
        while len(found) < 6:
            places = corpus.places(found)
            edge = places - len(found) if step < 0 else places + 1
            edge = edge[(edge >= 0) & (edge < len(corpus.ids))]
            if not len(edge):
                break
            n = np.bincount(corpus.ids[edge])
            best = int(n.argmax())
            if n[best] < 0.8 * len(places) or best in barred or best in corpus.ends:
                break
            if not corpus.is_word[best] or corpus.n[best] > 4 * len(places):
                break
            found = [best, *found] if step < 0 else [*found, best]
    return found


def neighbours(pairs: Pairs, word: int) -> np.ndarray:
    """Return the words that a table has in one sentence with a word."""
    if word < 0:
        return np.empty(0, np.int64)
    a, b = np.searchsorted(pairs.keys, [word * pairs.v, (word + 1) * pairs.v])
    behind = pairs.keys[a:b] % pairs.v
    ahead = pairs.keys[pairs.keys % pairs.v == word] // pairs.v
    return np.union1d(behind, ahead)


def association(reader: Reader) -> Iterator[Answers]:
    """Answer with the word that goes with the cue's words and is of the kind that answers it."""
    corpus = reader.corpus
    its_kinds = kinds(reader)
    pairs = reader.pages.pairs(reader.budget // 2)
    held = len(pairs.keys) + sum(kind.n_numbers for kind in its_kinds.values())
    for n_words in (1, 2, 9):
        for w_kind, w_known in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (3.0, 3.0)):
            def rule(words: list[int], start: int, cued: Cued, n_words: int = n_words,
                     w_kind: float = w_kind, w_known: float = w_known) -> Sequence[int]:  # fmt: skip
                tail = [w for w in set(words[start:]) if w >= 0 and corpus.is_word[w]]
                rare = sorted(tail, key=lambda w: -corpus.idf[w])[:n_words]
                if not rare:
                    return []
                options = neighbours(pairs, rare[0])
                options = np.setdiff1d(options, words)
                if not len(options):
                    return []
                kind = its_kinds[id(cued)]
                score = pairs.information(options, np.array(rare)).sum(1)
                score = score + w_kind * kind.score[options] + w_known * kind.known[options]
                return phrase(corpus, int(options[score.argmax()]), set(words))

            name = f"goes with the {n_words} rarest words of the cue, kind {w_kind} {w_known}"
            yield reader.answer(name, held, rule)


class Sentences:
    """All sentences of the pages, to be found by the rare words that they share with a prompt."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus

    def overlap(self, words: Sequence[int]) -> np.ndarray:
        """Return the summed rarity of the words that each sentence shares with a text: (S,)."""
        corpus = self.corpus
        score = np.zeros(len(corpus.starts), np.float32)
        for w in set(words):
            if w >= 0 and corpus.idf[w] > 0.5:
                score[np.unique(corpus.sentence_of[corpus.places([w])])] += corpus.idf[w]
        return score

    def best(self, words: Sequence[int], n: int = 40) -> list[int]:
        """Return the sentences that share most with a text, and all that share as much."""
        score = self.overlap(words)
        top = float(score.max(initial=0))
        return np.flatnonzero(score >= top - 1e-4)[:n].tolist() if top > 0 else []


def database(reader: Reader) -> Iterator[Answers]:
    """Find the sentence that is most like the cue, and answer with what else it says."""
    corpus, store = reader.corpus, Sentences(reader.corpus)
    its_kinds = kinds(reader)
    held = len(corpus.ids)
    found = [
        [corpus.sentence(k) for k in store.best(words[start:])]
        for words, start in zip(reader.words, reader.starts, strict=True)
    ]
    frequent = [float(np.quantile(corpus.sentences_with, 1 - q)) for q in (0.01, 0.03, 0.1, 0.3)]
    shares = [0.002, 0.005, 0.01, 0.02, 0.05]
    limits = sorted({*frequent, *(share * len(corpus.starts) for share in shares)})

    def strip(sentence: list[int], words: list[int], limit: float) -> list[list[int]]:
        """Return the runs of words that are in no prompt and not common."""
        runs: list[list[int]] = [[]]
        for w in sentence:
            new = corpus.is_word[w] and w not in words and corpus.sentences_with[w] <= limit
            glue = not corpus.is_word[w] and w not in corpus.ends and runs[-1]
            if new or glue:
                runs[-1].append(w)
            elif runs[-1]:
                runs.append([])
        return [run for run in runs if run]

    def all_words(runs: list[list[int]], kind: Kind) -> list[int]:
        return list(chain(*runs))

    def of_kind(runs: list[list[int]], kind: Kind) -> list[int]:
        return max(runs, key=lambda run: max(kind.score[w] + 3 * kind.known[w] for w in run))

    def longest(runs: list[list[int]], kind: Kind) -> list[int]:
        return max(runs, key=lambda run: sum(corpus.idf[w] for w in run))

    for limit in limits:
        for pick in (all_words, of_kind, longest):
            texts = []
            for words, start, cued, rows in zip(
                reader.words, reader.starts, reader.cued, found, strict=True
            ):
                votes = Counter[Ids]()
                for row in rows:
                    if runs := strip(row, words[start:], limit):
                        answer = pick(runs, its_kinds[id(cued)])
                        while answer and not corpus.is_word[answer[-1]]:
                            answer = answer[:-1]
                        votes[tuple(answer)] += 1
                texts.append(corpus.write(votes.most_common(1)[0][0] if votes else ()))
            texts = [settle(t, a.candidates) for t, a in zip(texts, reader.asked, strict=True)]
            name = f"most similar sentence, words in more than {limit:.0f} stripped, {pick.__name__}"
            yield one(name, held, texts)


def nearest_page(reader: Reader) -> Iterator[Answers]:
    """Answer as the page with the cue does that shares most with the prompt."""
    corpus = reader.corpus
    held = len(corpus.ids)
    for n in (1, 2, 3):
        index: dict[int, tuple[list[tuple[int, ...]], dict[Ids, list[int]]]] = {}
        for cued in reader.kinds:
            where: dict[Ids, list[int]] = {}
            for k, e in enumerate(cued.counted):
                for gram in {tuple(e.prompt[i : i + n]) for i in range(len(e.prompt) - n + 1)}:
                    where.setdefault(gram, []).append(k)
            index[id(cued)] = ([tuple(e.answer) for e in cued.counted], where)

        def rule(words: list[int], start: int, cued: Cued, n: int = n,
                 index: dict[int, tuple[list[Ids], dict[Ids, list[int]]]] = index) -> Sequence[int]:  # fmt: skip
            answers, where = index[id(cued)]
            score = np.zeros(max(len(answers), 1))
            for gram in {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}:
                hits = where.get(gram, [])
                score[hits] += np.log((len(answers) + 1) / (len(hits) + 1))
            return answers[int(score.argmax())] if answers else ()

        yield reader.answer(f"nearest page by {n}-grams", held, rule)


def fitting_sentence(reader: Reader) -> Iterator[Answers]:
    """Choose the candidate with which the prompt is most like a sentence of the pages."""
    corpus, store = reader.corpus, Sentences(reader.corpus)
    if not reader.asked[0].candidates:
        return
    for name, whole in (("prompt", True), ("cue", False)):
        texts = []
        for (_, candidates), words, start in zip(
            reader.asked, reader.words, reader.starts, strict=True
        ):
            own = [corpus.encode(c) for c in candidates]
            named = {w for row in own for w in row}
            score = store.overlap([w for w in (words if whole else words[start:]) if w not in named])
            best = []
            for row in own:
                word = rarest(corpus, row)
                places = corpus.places([word if word is not None else -1])
                inside = score[np.unique(corpus.sentence_of[places])]
                top = float(inside.max(initial=0))
                best.append((top, int((inside >= top - 1e-4).sum())))
            texts.append(candidates[max(range(len(best)), key=lambda i: best[i])])
        yield one(f"candidate in the sentence most like the {name}", len(corpus.ids), texts)


# -- the search ------------------------------------------------------------------------------------

Family = Callable[[Reader], Iterator[Answers]]
CHEAP: tuple[Family, ...] = (majority, copying, slot_by_slot, word_by_word, association)
DATABASE: tuple[Family, ...] = (database, nearest_page, fitting_sentence)


def rules(pages: Pages, asked: Sequence[Asked], budget: int) -> Iterator[tuple[str, Answers]]:
    """Let every cheap rule answer, with every cue that the pages have."""
    for cue in CUES:
        reader = Reader(pages, cue, asked, budget)
        if all(cued.n_examples for cued in reader.cued):
            for family in CHEAP:
                for answers in family(reader):
                    yield f"{family.__name__} {tuple(cue)}", answers
        for answers in Pointing(pages, cue, budget).answers(asked):
            yield f"pointing {tuple(cue)}", answers
    for answers in n_grams(pages, asked, budget):
        yield "n-grams", answers


def databases(pages: Pages, asked: Sequence[Asked]) -> Iterator[tuple[str, Answers]]:
    """Let every rule answer that keeps all pages."""
    for cue in CUES:
        reader = Reader(pages, cue, asked, len(pages.corpus.ids))
        for family in DATABASE:
            for answers in family(reader):
                yield f"{family.__name__} {tuple(cue)}", answers


Score = Callable[[Sequence[str], Sequence[str]], np.ndarray]


def exact(texts: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Score 1 for an answer that is the reference, spaces aside: (N,)."""
    pairs = zip(texts, references, strict=True)
    return np.array([float(normalize(a) == normalize(b)) for a, b in pairs])


def score_pairs(scores: np.ndarray) -> np.ndarray:
    """Give credit for a pair only if both its items are right: (..., N) -> (..., N / 2)."""
    return np.minimum(scores[..., 0::2], scores[..., 1::2])


def best_of(found: Iterator[tuple[str, Answers]], items: Sequence[Item], budget: int,
            paired: bool = True, score: Score = exact) -> list[Found]:  # fmt: skip
    """Score rules by their answers; return the best of each family, the best first."""
    best: dict[str, Found] = {}
    rows = np.arange(len(items))
    for family, answers in found:
        if answers.n_numbers > budget:
            continue
        width = max(map(len, answers.texts))
        right = np.zeros((len(items), width))
        for n, item in enumerate(items):
            texts = answers.texts[n]
            right[n, : len(texts)] = score(texts, [item.answer] * len(texts))
        scores = right[rows, answers.picks]
        item_score = scores.mean(1)
        pair_score = score_pairs(scores).mean(1) if paired else item_score
        order = np.lexsort([item_score, pair_score])
        r = int(order[-1])
        here = Found(
            f"{family}: {answers.names[r]}", float(pair_score[r]), float(item_score[r]),
            answers.n_numbers,
            tuple(texts[p] for texts, p in zip(answers.texts, answers.picks[r], strict=True)),
        )  # fmt: skip
        key = family if answers.n_numbers else family + " without counts"
        if key not in best or here[1:3] > best[key][1:3]:
            best[key] = here
    return sorted(best.values(), key=lambda f: (-f.pair, -f.item, f.n_numbers))


def search(pages: Pages, items: Sequence[Item], budget: int, paired: bool = True,
           score: Score = exact) -> tuple[list[Found], list[Found]]:  # fmt: skip
    """Return the cheap rules and the databases, each family's best, the best first."""
    asked = [Asked(item.prompt, item.candidates) for item in items]
    cheap = best_of(rules(pages, asked, budget), items, budget, paired, score)
    kept = best_of(databases(pages, asked), items, 2**62, paired, score)
    return cheap, kept

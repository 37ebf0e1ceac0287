"""Rules that answer with what followed most often: majorities, and n-gram models."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from course.rules.counts import Corpus, Cued, Ids, normalize
from course.rules.pointing import GAP, Answers, Asked, Pages
from course.rules.writing import Reader, one, settle


class Beside:
    """How often each answer to a cue stood beside each word of its prompts."""

    N_ANSWERS, N_EXAMPLES = 600, 6000

    def __init__(self, corpus: Corpus, cued: Cued, budget: int) -> None:
        self.answers = [a for a, _ in cued.answers.most_common(self.N_ANSWERS)]
        self.texts = {corpus.write(answer): k for k, answer in enumerate(self.answers)}
        self.total = np.array([cued.answers[a] for a in self.answers], float)
        column = {answer: k for k, answer in enumerate(self.answers)}
        row: dict[int, int] = {}
        cells = [
            (row.setdefault(word, len(row)), column[tuple(e.answer)])
            for e in cued.counted[: self.N_EXAMPLES]
            if tuple(e.answer) in column
            for word in sorted(set(e.prompt))
        ]
        self.row, self.n = row, np.zeros((len(row), len(column)))
        np.add.at(self.n, tuple(np.array(cells, int).reshape(-1, 2).T), 1)
        self.words = self.n.sum(1)
        counts = np.sort(self.n[self.n > 0])[::-1]
        if len(counts) > budget:  # keep the largest counts
            self.n[self.n <= counts[max(budget, 0)]] = 0
        self.n_numbers = int((self.n > 0).sum()) + len(row)

    def options(self, asked: Asked) -> np.ndarray:
        """Return which answers are allowed: all, or those that are candidates."""
        if not asked.candidates:
            return np.arange(len(self.answers))
        found = [self.texts[c] for c in map(normalize, asked.candidates) if c in self.texts]
        return np.array(found, int)

    def scores(self, words: Sequence[int]) -> dict[str, np.ndarray]:
        """Score the answers by the words they stood beside: (A,) each."""
        rows = [self.row[w] for w in sorted(set(words)) if w in self.row]
        n, total = self.n[rows], self.words[rows][:, None]
        return {
            "commonest beside the surest word of": (n / (total + 1)).max(0, initial=0),
            "most lifted by a word of": (n / (total + 3) / self.total).max(0, initial=0),
            "naive Bayes over": np.log(self.total)
            + np.log((n + 0.1) / (self.total + 0.2)).sum(0),
        }  # fmt: skip


def majority(reader: Reader) -> Iterator[Answers]:
    """Answer with what followed the cue most often, overall or beside the words of the prompt."""
    share = reader.budget // (2 * len(reader.kinds))
    tables = {id(cued): Beside(reader.corpus, cued, share) for cued in reader.kinds}
    given: dict[str, list[str]] = {}
    for asked, words, start, cued in reader.rows():
        table = tables[id(cued)]
        options = table.options(asked)
        scores = {"commonest behind the cue": table.total}
        for name, part in (("the prompt", words), ("the cue", words[start:])):
            scores |= {f"{way} {name}": score for way, score in table.scores(part).items()}
        for name, score in scores.items():
            best = table.answers[options[score[options].argmax()]] if len(options) else ()
            given.setdefault(name, []).append(settle(reader.corpus.write(best), asked.candidates))
    answers = sum(len(table.answers) for table in tables.values())
    held = sum(table.n_numbers for table in tables.values())
    for name, texts in given.items():
        yield one(name, answers + held * (name != "commonest behind the cue"), texts)


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
            if not count or text[-1] in stop:
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

"""Rules that answer with what followed most often: majorities, and n-gram models."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from course.rules.counts import Corpus, Cued, Ids, normalize
from course.rules.pointing import GAP, Answers, Asked, Pages
from course.rules.writing import Reader, one, settle


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

"""Rules that answer from what the pages say: words that go together, and whole sentences.

Cheap ones keep a table of words that occur in one sentence; a database keeps every page.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, product

import numpy as np

from course.rules.counts import Corpus, Cued, Ids, Pairs, rarest
from course.rules.pointing import Answers
from course.rules.writing import Reader, one, settle

AROUND = (-2, -1, 1, 2)


class Kind:
    """Which words are of the kind that answers a cue: such words, and what stands around them."""

    def __init__(self, corpus: Corpus, cued: Cued) -> None:
        names = np.zeros(len(corpus.words), bool)
        names[[w for w in cued.names if w >= 0]] = True
        ids, v = corpus.ids, len(corpus.words)
        told = np.zeros(len(ids), bool)  # behind the cue itself
        for n in range(1, 6):
            behind = corpus.places(cued.key.last) + n
            told[behind[behind < len(ids)]] = True
        its = names[ids] & ~told
        self.score = np.zeros(v)
        for step in AROUND:
            side = np.roll(ids, -step)
            n_its, n_all = np.bincount(side[its], minlength=v), np.bincount(side, minlength=v)
            ratio = np.log((n_its + 0.1) / max(its.sum(), 1) / ((n_all + 1) / len(ids)))
            self.score += np.bincount(ids, ratio[side], v) / np.maximum(corpus.n, 1)
        self.score *= its.any()
        self.known = np.zeros(v)
        for w, n in cued.names.items():
            if w >= 0:
                self.known[w] = np.log1p(n)
        self.n_numbers = v + len(cued.names)


def kinds(reader: Reader) -> dict[int, Kind]:
    """Count, for each cue of a task, what its answers are like."""
    store = reader.pages.kinds
    for cued in reader.kinds:
        if id(cued) not in store:
            store[id(cued)] = Kind(reader.corpus, cued)
    return {id(cued): store[id(cued)] for cued in reader.kinds}


class Associations:
    """Words that go with a word: those in one sentence with it, and the phrases they stand in."""

    def __init__(self, reader: Reader, n_others: int) -> None:
        room = min(reader.budget // 2, max(reader.budget - n_others, 0))
        self.corpus, self.pairs = reader.corpus, reader.pages.pairs(room)
        self.barred = reader.corpus.idf < 3.0
        self._phrases: dict[int, list[int]] = {}

    def around(self, word: int) -> np.ndarray:
        """Return the words that the table has in one sentence with a word."""
        keys, v = self.pairs.keys, self.pairs.v
        a, b = np.searchsorted(keys, [word * v, (word + 1) * v])
        ahead = self.pairs.by_second[slice(*np.searchsorted(self.pairs.seconds, [word, word + 1]))]
        return np.union1d(keys[a:b] % v, keys[ahead] // v)

    def phrase(self, word: int) -> list[int]:
        """Put a word together with the neighbours that it nearly always has."""
        if word not in self._phrases:
            self._phrases[word] = self._phrase(word)
        return self._phrases[word]

    def _phrase(self, word: int) -> list[int]:
        corpus, found = self.corpus, [word]
        for step in (-1, 1):
            while len(found) < 6:
                places = corpus.places(found)
                edge = places - len(found) if step < 0 else places + 1
                edge = edge[(edge >= 0) & (edge < len(corpus.ids))]
                n = np.bincount(corpus.ids[edge], minlength=1)
                best = int(n.argmax())
                if n[best] < 0.8 * len(places) or self.barred[best]:
                    break
                found = [best, *found] if step < 0 else [*found, best]
        return found


def association(reader: Reader) -> Iterator[Answers]:
    """Answer with the word that goes with the cue's words and is of the kind that answers it."""
    corpus, its_kinds = reader.corpus, kinds(reader)
    held = sum(kind.n_numbers for kind in its_kinds.values())
    held += sum(len(cued.answers) for cued in reader.kinds) + len(corpus.words)  # the phrases
    table = Associations(reader, held)
    pairs = table.pairs
    held += len(pairs.keys)
    common = corpus.idf < 1.0
    subjects = []
    for words, start in zip(reader.words, reader.starts, strict=True):
        tail = [w for w in set(words[start:]) if w >= 0 and corpus.is_word[w]]
        subjects.append(sorted(tail, key=lambda w: -corpus.idf[w]))
    known = [known_answer(pairs, cued, np.array(rare[:1], int), common)
             for cued, rare in zip(reader.cued, subjects, strict=True)]  # fmt: skip
    texts = [corpus.write(answer) for answer, _ in known]
    texts = [settle(t, a.candidates) for t, a in zip(texts, reader.asked, strict=True)]
    yield one("known answer that goes with the rarest word of the cue", held, texts)
    for n_words in (1, 2, 9):
        found = []
        for words, rare in zip(reader.words, subjects, strict=True):
            options = table.around(rare[0]) if rare else np.empty(0, np.int64)
            options = np.setdiff1d(options[~common[options]], words)
            score = pairs.information(options, np.array(rare[:n_words], int)).sum(1)
            found.append((options, score))
        for w_kind, w_known, least in product((0.0, 1.0, 3.0), (0.0, 1.0, 3.0), (1.0, 99.0)):
            texts = []
            for cued, (answer, sure), (options, score) in zip(
                reader.cued, known, found, strict=True
            ):
                kind = its_kinds[id(cued)]
                if sure < least and len(options):
                    score = score + w_kind * kind.score[options] + w_known * kind.known[options]
                    answer = tuple(table.phrase(int(options[score.argmax()])))
                texts.append(corpus.write(answer))
            texts = [settle(t, a.candidates) for t, a in zip(texts, reader.asked, strict=True)]
            how = f"weight {w_kind} for the kind and {w_known} for known answers"
            how += ", a known answer first" * (least < 9)
            yield one(f"goes with the {n_words} rarest words of the cue, {how}", held, texts)


def known_answer(pairs: Pairs, cued: Cued, rare: np.ndarray, common: np.ndarray
                 ) -> tuple[Ids, float]:  # fmt: skip
    """Return the known answer whose words all go best with some words, and how well."""
    answers = [a for a, _ in cued.answers.most_common(3000)]
    if not answers or not len(rare):
        return (), 0.0
    flat = np.array(list(chain(*answers)))
    owner = np.repeat(np.arange(len(answers)), [len(a) for a in answers])
    each = np.where(common[flat], np.inf, pairs.information(flat, rare).sum(1))
    score = np.full(len(answers), np.inf)
    np.minimum.at(score, owner, each)
    score[np.isinf(score)] = 0
    return answers[int(score.argmax())], float(score.max())


class Sentences:
    """All sentences of the pages, to be found by the rare words that they share with a prompt."""

    N_BEST = 25

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus

    def overlap(self, words: Sequence[int], power: float = 1.0) -> np.ndarray:
        """Return the summed rarity of the words that each sentence shares with a text: (S,)."""
        corpus = self.corpus
        score = np.zeros(len(corpus.starts), np.float32)
        for w in set(words):
            if w >= 0 and corpus.idf[w] > 1.0:
                inside = corpus.sentence_of[corpus.places([w])]
                new = np.concatenate([[True], inside[1:] > inside[:-1]])
                score[inside[new]] += corpus.idf[w] ** power
        return score

    def best(self, words: Sequence[int], power: float, asking: np.ndarray
             ) -> list[tuple[float, list[int]]]:  # fmt: skip
        """Return the sentences that share most with a text, the best first, with their scores."""
        score = self.overlap(words, power)
        score[asking] = 0
        top = np.argpartition(-score, min(self.N_BEST, len(score) - 1))[: self.N_BEST]
        top = top[np.argsort(-score[top], kind="stable")]
        return [(float(score[k]), self.corpus.sentence(int(k))) for k in top if score[k] > 0]


def asking_sentences(reader: Reader) -> np.ndarray:
    """Return the sentences of pages on which the cue stands: they ask more than they tell."""
    corpus = reader.corpus
    pages = np.zeros(int(corpus.page_of[-1]) + 1, bool)
    for words in {cued.key.last for cued in reader.kinds}:
        pages[corpus.page_of[corpus.places(words)]] = True
    return np.flatnonzero(pages[corpus.page_of[corpus.starts]])


def strip(corpus: Corpus, sentence: list[int], barred: set[int], limit: float, once: bool
          ) -> list[list[int]]:  # fmt: skip
    """Return the runs of words of a sentence that are neither barred (or once) nor common."""
    runs: list[list[int]] = [[]]
    left = set(barred)
    for w in sentence:
        new = corpus.is_word[w] and w not in left and corpus.sentences_with[w] <= limit
        if once:
            left.discard(w)
        glue = not corpus.is_word[w] and w not in corpus.ends and runs[-1]
        if new or glue:
            runs[-1].append(w)
        elif runs[-1]:
            runs.append([])
    for run in runs:
        while run and not corpus.is_word[run[-1]]:
            run.pop()
    return [run for run in runs if run]


PICKS = ("all", "from the first to the last", "of the likeliest kind", "rarest")


def pick(corpus: Corpus, runs: list[list[int]], row: list[int], kind: Kind) -> list[Ids]:
    """Make an answer of the new words of a sentence in each of the ways of PICKS."""
    first, last = row.index(runs[0][0]), len(row) - row[::-1].index(runs[-1][-1])
    likely = max(runs, key=lambda run: max(kind.score[w] + 3 * kind.known[w] for w in run))
    rare = max(runs, key=lambda run: sum(corpus.idf[w] for w in run))
    return [tuple(chain(*runs)), tuple(row[first:last]), tuple(likely), tuple(rare)]


def first(votes: Counter[Ids]) -> Ids:
    """Return what has most votes, or nothing."""
    return votes.most_common(1)[0][0] if votes else ()


def database(reader: Reader) -> Iterator[Answers]:
    """Find the sentence that is most like the cue, and answer with what else it says."""
    corpus, store, its_kinds = reader.corpus, Sentences(reader.corpus), kinds(reader)
    tails = [words[start:] for words, start in zip(reader.words, reader.starts, strict=True)]
    asking = {False: np.empty(0, int), True: asking_sentences(reader)}
    powers = (4.0,) if reader.asked[0].candidates else (1.0, 4.0)
    for power, telling in product(powers, (False, True)):
        found = [store.best(tail, power, asking[telling]) for tail in tails]
        for share, once in product((0.01, 0.03, 0.1), (False, True)):
            texts: list[list[str]] = [[] for _ in PICKS]
            for tail, cued, rows in zip(tails, reader.cued, found, strict=True):
                barred, limit = set(tail), share * len(corpus.starts)
                votes, top = [Counter[Ids]() for _ in PICKS], 0.0
                for score, row in rows:
                    if score < top * 0.999:
                        break
                    if runs := strip(corpus, row, barred, limit, once):
                        top = score
                        for vote, way in zip(votes, pick(corpus, runs, row, its_kinds[id(cued)]),
                                             strict=True):  # fmt: skip
                            vote[way] += 1
                for column, vote in zip(texts, votes, strict=True):
                    column.append(corpus.write(first(vote)))
            for column, name in zip(texts, PICKS, strict=True):
                settled = [settle(t, a.candidates)
                           for t, a in zip(column, reader.asked, strict=True)]  # fmt: skip
                how = f"rarity to the power {power:.0f}, words in over {share:.1%} stripped"
                how += ", pages with the cue left out" * telling + ", the cue's words once" * once
                yield one(f"sentence most like the cue, new words, {name}; {how}",
                          len(corpus.ids), settled)  # fmt: skip


Index = dict[int, tuple[list[Ids], dict[Ids, np.ndarray]]]


def nearest_page(reader: Reader) -> Iterator[Answers]:
    """Answer as the page with the cue does that shares most with the prompt."""
    corpus = reader.corpus
    for n in (1, 2, 3):
        index: Index = {}
        for cued in reader.kinds:
            found: dict[Ids, list[int]] = {}
            for k, e in enumerate(cued.counted):
                for gram in {tuple(e.prompt[i : i + n]) for i in range(len(e.prompt) - n + 1)}:
                    found.setdefault(gram, []).append(k)
            where = {gram: np.array(hits) for gram, hits in found.items()}
            index[id(cued)] = ([tuple(e.answer) for e in cued.counted], where)

        def rule(words: list[int], start: int, cued: Cued, n: int = n,
                 index: Index = index) -> Sequence[int]:  # fmt: skip
            answers, where = index[id(cued)]
            score = np.zeros(max(len(answers), 1))
            for gram in {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}:
                hits = where.get(gram, np.empty(0, int))
                score[hits] += np.log((len(answers) + 1) / (len(hits) + 1))
            return answers[int(score.argmax())] if answers else ()

        yield reader.answer(f"nearest page by {n}-grams", len(corpus.ids), rule)


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
            text = words if whole else words[start:]
            score = store.overlap([w for w in text if w not in named])
            best = []
            for row in own:
                word = rarest(corpus, row)
                places = corpus.places([word if word is not None else -1])
                inside = score[np.unique(corpus.sentence_of[places])]
                top = float(inside.max(initial=0))
                best.append((top, int((inside >= top - 1e-4).sum())))
            texts.append(candidates[max(range(len(best)), key=lambda i: best[i])])
        yield one(f"candidate in the sentence most like the {name}", len(corpus.ids), texts)

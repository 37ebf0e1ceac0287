"""Rules that translate word by word: a counted dictionary, a counted order, counted endings."""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from course.rules.counts import Corpus, Cue, Cued, Ids, Pairs
from course.rules.pointing import Answers
from course.rules.writing import Reader, one, settle

Key = tuple[object, ...]
Role = tuple[Ids, int]  # the form of a source, and the place in its translation
Plan = list[tuple[int, Role]]  # the source word of each place, and the role of that place
WAYS: dict[str, set[Key]] = {
    "alone": {()},
    "by length": {(), ("length",)},
    "by what was written before": {(), ("written",)},
    "by its surest neighbour": {(), ("length",), ("behind",), ("before",), ("place",), ("with",),
                                ("written",)},
}  # fmt: skip


SURE = 0.75


class Dictionary:
    """What words become on the other side of a cue, and in which order, by counting on examples."""

    N_STEPS, LONGEST, N_ROWS = 8, 40, 12_000

    def __init__(self, corpus: Corpus, cue: Cue, cued: Cued, budget: int,
                 rows: list[tuple[list[int], list[int]]] | None = None,
                 texts: list[str] | None = None) -> None:  # fmt: skip
        self.corpus, self.cue, self.cued, self.budget = corpus, cue, cued, budget
        self.texts = texts or corpus.words  # of the words of translations
        if rows is None:
            few = cued.counted[: self.N_ROWS]
            rows = [(self.source(e.prompt, e.start), e.answer) for e in few]
        self.rows = [(s, t) for s, t in rows if s and t and max(len(s), len(t)) < self.LONGEST]
        self.aligned = self._align()
        self.context: dict[Key, Counter[int]] = {}
        for (source, target), order in zip(self.rows, self.aligned, strict=True):
            nth, before = Counter[int](), 0
            for word, i in zip(target, order, strict=True):
                for key in self.keys(source, i, nth[i], before):
                    self.context.setdefault(key, Counter())[word] += 1
                nth[i] += 1
                before = word
        self._prune(budget)
        self.n_source = Counter(w for s, _ in self.rows for w in set(s))

    def _prune(self, budget: int) -> None:
        """Keep the counts of a word alone first, then the largest, until the budget is spent."""
        every = [
            (len(key) == 2, n, key, word)
            for key, count in self.context.items()
            for word, n in count.items()
        ]
        if len(every) > budget:
            every.sort(key=lambda row: row[:2], reverse=True)
            self.context = {}
            for _, n, key, word in every[: max(budget, 0)]:
                self.context.setdefault(key, Counter())[word] = n

    def source(self, prompt: Sequence[int], start: int) -> list[int]:
        """Return the words to translate: those of the cue's part, without its last."""
        tail = prompt[start : len(prompt) - self.cue.n_last]
        return [w for w in tail if w < 0 or self.corpus.is_word[w]]

    def keys(self, source: list[int], i: int, nth: int, before: int) -> Iterator[Key]:
        """List what a translation may depend on: the word, and one more thing."""
        word, padded = source[i], [0, *source, 0]
        yield word, nth
        yield word, nth, "length", len(source)
        yield word, nth, "behind", padded[i]
        yield word, nth, "before", padded[i + 2]
        yield word, nth, "place", i, len(source)
        yield word, nth, "written", before
        for other in sorted(set(source) - {word}):
            yield word, nth, "with", other

    def _align(self) -> list[list[int]]:
        """Find the source of each word of a target: IBM model 1 (Brown et al. 1993)."""
        if not self.rows:
            return []
        v, start, parts = len(self.texts) + 1, 0, []
        for source, target in self.rows:
            m, n = len(source), len(target)
            parts.append(np.array([
                np.tile(np.array(source) + 1, n),
                np.repeat(target, m),
                start + np.repeat(np.arange(n), m),
                np.tile(np.arange(m), n),
            ]))  # fmt: skip
            start += n
        a, b, slot, at = np.concatenate(parts, 1)
        keys, pair = np.unique(a * v + b, return_inverse=True)
        chance = np.ones(len(keys))
        for _ in range(self.N_STEPS):
            share = chance[pair] / np.bincount(slot, chance[pair])[slot]
            n_pairs = np.bincount(pair, share)
            chance = n_pairs / np.bincount(keys // v, n_pairs)[keys // v]
        score = chance[pair]
        best = np.full(start, -1.0)
        np.maximum.at(best, slot, score)
        hits = np.flatnonzero(score >= best[slot] - 1e-12)[::-1]  # of equals, the first
        flat = np.zeros(start, int)
        flat[slot[hits]] = at[hits]
        stops = np.cumsum([len(target) for _, target in self.rows])[:-1]
        return [order.tolist() for order in np.split(flat, stops)]

    def word(self, source: list[int], i: int, nth: int, before: int, way: str
             ) -> tuple[int, float]:  # fmt: skip
        """Translate one word by what says it most surely, and say how surely; -1 if unknown."""
        best, sure = -1, -1.0
        for key in self.keys(source, i, nth, before):
            if key[2:3] in WAYS[way] and (count := self.context.get(key)):
                word, n = count.most_common(1)[0]
                trust = n / (count.total() + 0.5) if len(WAYS[way]) > 2 else len(key)
                if trust > sure:
                    best, sure = word, trust
        return best, sure

    @cached_property
    def company(self) -> tuple[dict[Key, dict[int, Counter[int]]], dict[int, Counter[Key]]]:
        """Count translations by another word of the source, and describe each word by them."""
        beside: dict[Key, dict[int, Counter[int]]] = {}
        profile: dict[int, Counter[Key]] = {}
        for key, count in self.context.items():
            if key[2:3] == ("with",) and isinstance(other := key[3], int):
                beside.setdefault(key[:2], {})[other] = count
                own = profile.setdefault(other, Counter())
                for word, n in count.items():
                    own[*key[:2], word] += n
        return beside, profile

    def by_similar(self, place: Key, others: list[int]) -> int:
        """Translate a word as it is beside the words that are used like those beside it here."""
        beside, profile = self.company
        votes = Counter[int]()
        for other in others:
            if other in beside.get(place, {}):
                continue  # it was met, and said nothing sure
            for known, count in beside.get(place, {}).items():
                like = similarity(profile.get(other), profile.get(known), place[0])
                for word, n in count.items():
                    votes[word] += like**4 * n / count.total()  # type: ignore[assignment]
        return votes.most_common(1)[0][0] if votes else -1

    def n_numbers(self, way: str) -> int:
        """Return how many counts a way of translating looks up."""
        return sum(len(n) for key, n in self.context.items() if key[2:3] in WAYS[way])


def similarity(a: Counter[Key] | None, b: Counter[Key] | None, word: object) -> float:
    """Return how alike two words are in what others became beside them, a certain one aside."""
    if not a or not b:
        return 0.0
    small, large = sorted((a, b), key=len)
    dot = sum(n * large[key] for key, n in small.items() if key[0] != word)
    norm = [sum(n * n for key, n in c.items() if key[0] != word) for c in (a, b)]
    return float(dot / (norm[0] * norm[1]) ** 0.5) if dot else 0.0


class Orders:
    """The commonest order of translation for each form of a source, and the endings in it.

    The form of a source is what is left of it when all words but the commonest few are masked.
    """

    def __init__(self, book: Dictionary, n_kept: int) -> None:
        self.corpus = book.corpus
        self.kept = {w for w, _ in book.n_source.most_common(n_kept)}
        counts: dict[Ids, Counter[Ids]] = {}
        for (source, _), order in zip(book.rows, book.aligned, strict=True):
            counts.setdefault(self.shape(source), Counter())[tuple(order)] += 1
        self.order = {shape: count.most_common(1)[0][0] for shape, count in counts.items()}
        lengths: dict[int, Counter[Ids]] = {}
        for shape, count in counts.items():
            lengths.setdefault(len(shape), Counter()).update(count)
        self.by_length = {n: count.most_common(1)[0][0] for n, count in lengths.items()}
        self.forms: dict[Role, dict[int, Counter[str]]] = {}
        for (source, target), order in zip(book.rows, book.aligned, strict=True):
            shape = self.shape(source)
            if self.order[shape] == tuple(order):
                for j, (i, word) in enumerate(zip(order, target, strict=True)):
                    form = self.forms.setdefault((shape, j), {})
                    form.setdefault(source[i], Counter())[book.texts[word]] += 1
        self._count_endings()

    def shape(self, source: Sequence[int]) -> Ids:
        """Mask all words of a source but the commonest few."""
        return tuple(w if w in self.kept else -1 for w in source)

    def plan(self, shape: Ids) -> Plan | None:
        """Return the order for a source, or for its parts one after another, a joint between."""
        if shape in self.order or not shape:
            return [(i, (shape, j)) for j, i in enumerate(self.order.get(shape, ()))]
        for cut in range(len(shape) - 1, 0, -1):
            if shape[:cut] not in self.order:
                continue
            for skip in (0, 1):
                rest = self.plan(shape[cut + skip :])
                if rest is not None:
                    head = self.plan(shape[:cut]) or []
                    return head + [(cut + skip + i, role) for i, role in rest]
        return None

    def any_plan(self, source: Sequence[int]) -> Plan:
        """Return the order for a source, or else that for its length, or else the source's own."""
        shape = self.shape(source)
        if (plan := self.plan(shape)) is not None:
            return plan
        order = self.by_length.get(len(shape), tuple(range(len(shape))))
        return [(i, (shape, j)) for j, i in enumerate(order)]

    def _count_endings(self) -> None:
        """Split words that have several forms into a stem and the ending that each role gives."""
        known: dict[int, set[str]] = {}
        for form in self.forms.values():
            for w, count in form.items():
                known.setdefault(w, set()).add(count.most_common(1)[0][0])
        self.stem = {w: common_start(f) for w, f in known.items() if len(f) > 1}
        self.endings: dict[Role, dict[str, Counter[str]]] = {}
        for role, form in self.forms.items():
            for w, count in form.items():
                if stem := self.stem.get(w):
                    ending = count.most_common(1)[0][0][len(stem) :]
                    for letter in ("", last_letter(stem)):
                        ends = self.endings.setdefault(role, {}).setdefault(letter, Counter())
                        ends[ending] += 1
        for role, form in self.forms.items():  # words that were seen in one role only
            for w, count in form.items():
                if w not in self.stem:
                    self.stem[w] = self.cut(count.most_common(1)[0][0], role)

    def cut(self, word: str, role: Role) -> str:
        """Take off a word the ending that its role gives words with such a last letter."""
        ends = self.endings.get(role, {})
        stems = {e: word[: len(word) - len(e)] for e in ends.get("", ()) if word.endswith(e)}
        score = {e: ends.get(last_letter(stem), Counter())[e] for e, stem in stems.items() if stem}
        return stems[max(score, key=lambda e: (score[e], len(e)))] if score else word

    def inflect(self, word: int, role: Role) -> str | None:
        """Return a word's form in a role in which it was never seen, from its stem."""
        stem, ends = self.stem.get(word), self.endings.get(role)
        if not stem or not ends or word in self.forms[role]:
            return None
        return stem + (ends.get(last_letter(stem)) or ends[""]).most_common(1)[0][0]

    @property
    def n_numbers(self) -> int:
        """Return how many numbers orders hold, endings aside."""
        return sum(len(shape) + len(order) for shape, order in self.order.items())

    @property
    def n_endings(self) -> int:
        """Return how many numbers forms and endings hold."""
        forms = sum(len(n) for form in self.forms.values() for n in form.values())
        ends = sum(len(n) for kinds in self.endings.values() for n in kinds.values())
        return forms + ends + len(self.stem)


def common_start(words: set[str]) -> str:
    """Return the letters that all words start with."""
    low, high = min(words), max(words)
    n = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return low[:n]


def last_letter(text: str) -> str:
    """Return the last letter of a text, that of a syllable where syllables are written whole."""
    return unicodedata.normalize("NFD", text)[-1:]


def translate(book: Dictionary, orders: Orders, source: list[int], way: str, endings: bool,
              pairs: Pairs | None, similar: bool) -> str:  # fmt: skip
    """Translate a source; unseen roles are inflected, doubtful words chosen by their company."""
    nth, before = Counter[int](), 0
    plan = orders.any_plan(source)
    doubtful: list[Key] = []
    written, texts = [], []
    for i, role in plan:
        word, sure = book.word(source, i, nth[i], before, way)
        text = orders.inflect(source[i], role) if endings else None
        doubtful.append((source[i], nth[i]) if len(WAYS[way]) < 3 or sure < SURE else ())
        written.append(word)
        texts.append(text or (book.texts[word] if word >= 0 else ""))
        nth[i] += 1
        before = word
    for j, place in enumerate(doubtful):
        count = book.context.get(place, Counter())
        if pairs and len(count) > 1:
            texts[j] = book.texts[by_company(count, written[:j] + written[j + 1 :], pairs)]
        elif similar and len(count) > 1:
            others = [w for w in source if w != place[0]]
            texts[j] = book.texts[max(book.by_similar(place, others), 0)] or texts[j]
    return " ".join(text for text in texts if text)


def by_company(count: Counter[int], others: list[int], pairs: Pairs) -> int:
    """Choose of several translations the one that goes best with a word beside it."""
    options = np.array([w for w, _ in count.most_common(8)])
    share = np.log([count[int(w)] for w in options])
    beside = np.array([w for w in others if w >= 0], int)
    known = pairs.information(options, beside).max(1, initial=0)
    return int(options[(share + 2 * known).argmax()])


def word_by_word(reader: Reader) -> Iterator[Answers]:
    """Translate each word, and put the words in the order that was commonest for such a source."""
    share = reader.budget // (4 * len(reader.kinds))
    books = {id(cued): Dictionary(reader.corpus, reader.cue, cued, share) for cued in reader.kinds}
    pairs = reader.pages.pairs(reader.budget // 2)
    surest = list(WAYS)[-1]
    variants: list[tuple[str, bool, Pairs | None, bool]] = [
        *((way, False, None, False) for way in WAYS),
        (surest, True, None, False),
        ("alone", False, pairs, False),
        (surest, True, pairs, False),
        (surest, True, None, True),
    ]
    write = not reader.asked[0].candidates
    for n_kept in (0, 4, 8, 16, 32, 64) if write else (0,):
        orders = {key: Orders(book, n_kept) for key, book in books.items()}
        for way, endings, company, similar in variants:
            texts = [
                settle(
                    translate(
                        books[id(cued)], orders[id(cued)], books[id(cued)].source(words, start),
                        way, endings, company, similar,
                    ),
                    asked.candidates,
                )
                for asked, words, start, cued in reader.rows()
            ]  # fmt: skip
            held = sum(o.n_numbers + o.n_endings * endings for o in orders.values())
            held += sum(book.n_numbers(way) for book in books.values())
            held += len(pairs.keys) if company else 0
            name = f"word by word {way}" + ", stems and endings" * endings
            name += ", by the company of translations" * (company is not None)
            name += ", by similar words" * similar
            yield one(f"{name}; order by length and {n_kept} words", held, texts)

"""Rules that write an answer: copying from the prompt, slot by slot, and word by word.

What may be copied, from which sentence, in which order, and what a word becomes on the other side
of a cue is counted on the pages that have the cue.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np

from course.rules.counts import Chooser, Corpus, Cue, Cued, sentences
from course.rules.pointing import Answers, Asked, Pages

N_EXAMPLES = 6000


def one(name: str, n_numbers: int, texts: Sequence[str]) -> Answers:
    """Wrap the answers of a single rule."""
    return Answers([name], n_numbers, [[text] for text in texts], np.zeros((1, len(texts)), int))


def settle(text: str, candidates: Sequence[str]) -> str:
    """Turn what a rule wrote into one of the candidates: the one with most of its words."""
    if not candidates or text in candidates:
        return text
    own = set(text.split())
    return max(candidates, key=lambda c: len(own & set(c.split())) / len(c.split() or [c]))


class Reader:
    """Prompts of a task, numbered, each with what the pages with its cue say."""

    def __init__(self, pages: Pages, cue: Cue, asked: Sequence[Asked], budget: int) -> None:
        self.pages, self.corpus, self.cue, self.budget = pages, pages.corpus, cue, budget
        self.asked = asked
        read = [pages.read(prompt, cue) for prompt, _ in asked]
        self.words = [words for words, _, _ in read]
        self.starts = [start for _, start, _ in read]
        self.cued = [cued for _, _, cued in read]
        self.kinds = list({id(cued): cued for cued in self.cued}.values())

    def answer(self, name: str, n: int, rule: Callable[[list[int], int, Cued], Sequence[int]]
               ) -> Answers:  # fmt: skip
        """Apply a rule to each prompt."""
        texts = [
            settle(self.corpus.write(rule(words, start, cued)), asked.candidates)
            for asked, words, start, cued in self.rows()
        ]
        return one(name, n, texts)

    def rows(self) -> Iterator[tuple[Asked, list[int], int, Cued]]:
        """List the prompts, each with its words, the start of its cue, and what pages say."""
        return zip(self.asked, self.words, self.starts, self.cued, strict=True)


# -- copying ---------------------------------------------------------------------------------------


def copying(reader: Reader) -> Iterator[Answers]:
    """Copy what stands at a fixed place of the prompt, or behind the cue's last words before."""
    ends = reader.corpus.ends

    def behind(n: int, whole: bool) -> Callable[[list[int], int, Cued], Sequence[int]]:
        def rule(words: list[int], start: int, cued: Cued) -> Sequence[int]:
            for i in range(len(words) - n - 1, -1, -1):
                if words[i : i + n] == words[-n:]:
                    rest = words[i + n :]
                    stop = next((k for k, w in enumerate(rest) if w in ends), len(rest))
                    return rest[: max(stop if whole else min(stop, len(cued.slots)), 1)]
            return []

        return rule

    def at(k: int, j: int) -> Callable[[list[int], int, Cued], Sequence[int]]:
        def rule(words: list[int], start: int, cued: Cued) -> Sequence[int]:
            spans = sentences(words[:start] or words, ends)
            if not -len(spans) <= k < len(spans):
                return []
            inside = [w for w in words[slice(*spans[k])] if w < 0 or reader.corpus.is_word[w]]
            return inside[j : j + 1 or None] if -len(inside) <= j < len(inside) else []

        return rule

    for n in (1, 2, 3):
        yield reader.answer(f"what followed the last {n} words before", 0, behind(n, True))
        name = f"what followed the last {n} words before, as long as answers are"
        yield reader.answer(name, len(reader.kinds), behind(n, False))
    for k in (0, 1, 2, -1, -2, -3):
        for j in (0, 1, 2, 3, -1, -2, -3, -4):
            yield reader.answer(f"word {j} of sentence {k}", 0, at(k, j))


# -- slot by slot ----------------------------------------------------------------------------------


class Slots:
    """The form of a cue's answers: words that stay, and words that come from the prompt."""

    def __init__(self, corpus: Corpus, cued: Cued, budget: int) -> None:
        self.corpus, self.budget = corpus, budget
        self.examples = cued.counted[:N_EXAMPLES]
        self.slots = cued.slots
        n = sum(self.slots[0].values()) if self.slots else 1
        self.fixed = [slot.most_common(1)[0][1] > n / 2 for slot in self.slots]
        self.copied = [Counter[int]() for _ in self.slots]
        self.present = Counter[int]()
        self.followed = Counter[tuple[int, int]]()
        for e in self.examples:
            body = set(e.prompt[: e.start])
            self.present.update(body)
            self.followed.update(zip(e.answer, e.answer[1:], strict=False))
            if len(e.answer) == len(self.slots):
                for count, word in zip(self.copied, e.answer, strict=True):
                    count[word] += word in body

    @cached_property
    def n_numbers(self) -> int:
        """Return how many counts it keeps."""
        sizes = [*map(len, self.copied), *map(len, self.slots), len(self.followed)]
        return sum(sizes) + len(self.present)

    def odds(self, slot: int, word: int) -> float:
        """Return how often a word of the prompt was copied to a place of the answer."""
        return self.copied[slot][word] / (self.present[word] + 2)

    def kept(self, words: Sequence[int]) -> list[int]:
        """Copy the words that mostly are, in their order."""
        odds = {w: max((self.odds(j, w) for j in range(len(self.slots))), default=0) for w in words}
        return [w for w in words if odds[w] > 0.3]

    def fill(self, chosen: Sequence[int], body: Sequence[int]) -> list[int]:
        """Fill each place of the answer from some words of the prompt, or else from all."""
        answer: list[int] = []
        for j, slot in enumerate(self.slots):
            if self.fixed[j]:
                answer.append(slot.most_common(1)[0][0])
                continue
            free = [w for w in chosen if w not in answer] or list(chosen)
            best = max(free, key=lambda w: self.odds(j, w), default=-1)
            if self.odds(j, best) < 0.02:
                best = max(body, key=lambda w: self.odds(j, w), default=-1)
            answer.append(best)
        for j in range(len(answer) - 2, -1, -1):
            if self.fixed[j]:  # the form of a word that stays may depend on the next
                options = [w for w in self.slots[j] if self.followed[w, answer[j + 1]]]
                answer[j] = max(options, key=lambda w: self.followed[w, answer[j + 1]],
                                default=answer[j])  # fmt: skip
        return answer

    def source(self, prompt: Sequence[int], spans: list[tuple[int, int]], answer: Sequence[int]
               ) -> int:  # fmt: skip
        """Return the sentence of a prompt from which most of the answer was copied."""
        telling = {w for j, w in enumerate(answer) if j >= len(self.fixed) or not self.fixed[j]}
        told = [sum(self.corpus.rarity(w) for w in telling & set(prompt[a:b])) for a, b in spans]
        return int(np.argmax(told)) if told and max(told) > 0 else -1

    @cached_property
    def chooser(self) -> Chooser:
        """Learn which words of a sentence and its neighbours mark it as the one to copy from."""
        groups, right = [], []
        for e in self.examples[:2000]:
            body = e.prompt[: e.start]
            spans = sentences(body, self.corpus.ends)
            if (source := self.source(body, spans, e.answer)) >= 0:
                groups.append(describe(body, spans))
                right.append(source)
        return Chooser(groups, right, self.budget // 2)


def describe(words: Sequence[int], spans: list[tuple[int, int]]) -> list[list[str]]:
    """Describe each sentence by its words, its neighbours' words, and its place."""
    bags = [set(words[a:b]) for a, b in spans]
    options = []
    for k, bag in enumerate(bags):
        before = bags[k - 1] if k else set[int]()
        after = bags[k + 1] if k + 1 < len(bags) else set[int]()
        options.append(
            [f"has {w}" for w in bag]
            + [f"after {w}" for w in before]
            + [f"before {w}" for w in after]
            + [f"number {k}", f"number {k - len(bags)}"]
        )
    return options


def slot_by_slot(reader: Reader) -> Iterator[Answers]:
    """Choose a sentence, and copy from it the words that such answers copy."""
    corpus = reader.corpus
    forms = {id(cued): Slots(corpus, cued, reader.budget) for cued in reader.kinds}

    def overlap(bag: set[int], others: set[int]) -> float:
        return sum(corpus.rarity(w) for w in bag & others)

    def whole(form: Slots, body: list[int], spans: list[tuple[int, int]], tail: set[int]) -> int:
        return -1

    def numbered(k: int) -> Callable[..., int]:
        def choose(form: Slots, body: list[int], spans: list[tuple[int, int]], t: set[int]) -> int:
            return k if k >= 0 else max(len(spans) + k, 0)

        return choose

    def like_the_cue(form: Slots, body: list[int], spans: list[tuple[int, int]], t: set[int]
                     ) -> int:  # fmt: skip
        return int(np.argmax([overlap(set(body[a:b]), t) for a, b in spans]))

    def like_the_rest(form: Slots, body: list[int], spans: list[tuple[int, int]], t: set[int]
                      ) -> int:  # fmt: skip
        bags = [set(body[a:b]) for a, b in spans]
        rest = [set().union(*bags[:k], *bags[k + 1 :]) for k in range(len(bags))]
        return int(np.argmax([overlap(bag, other) for bag, other in zip(bags, rest, strict=True)]))

    def learned(form: Slots, body: list[int], spans: list[tuple[int, int]], t: set[int]) -> int:
        return int(np.argmax([form.chooser.score(option) for option in describe(body, spans)]))

    choices: dict[str, Callable[..., int]] = {
        "all of it": whole,
        "the first sentence": numbered(0),
        "the second sentence": numbered(1),
        "the third sentence": numbered(2),
        "the last sentence": numbered(-1),
        "the last sentence but one": numbered(-2),
        "the sentence most like the cue": like_the_cue,
        "the sentence most like the others": like_the_rest,
        "the sentence whose words and neighbours mark it": learned,
    }
    for name, choose in choices.items():
        for how in ("slot by slot", "in order"):

            def rule(words: list[int], start: int, cued: Cued, choose: Callable[..., int] = choose,
                     how: str = how) -> Sequence[int]:  # fmt: skip
                form, body = forms[id(cued)], words[:start] or words
                spans = sentences(body, corpus.ends)
                k = choose(form, body, spans, set(words[start:]))
                chosen = body[slice(*spans[k])] if 0 <= k < len(spans) else body
                chosen = [w for w in chosen if w < 0 or corpus.is_word[w]]
                return form.fill(chosen, body) if how == "slot by slot" else form.kept(chosen)

            n = sum(form.n_numbers for form in forms.values())
            answers = reader.answer(f"copy from {name}, {how}", n, rule)
            if choose is learned:
                n += sum(len(form.chooser.weight) for form in forms.values())
            yield answers._replace(n_numbers=n)


# -- word by word ----------------------------------------------------------------------------------


Orders = dict[tuple[int, ...], tuple[int, ...]]
DEPENDS: dict[str, set[tuple[object, ...]]] = {"alone": {()}, "by length": {(), ("length",)}}


class Dictionary:
    """What words become on the other side of a cue, and in which order, by counting on examples."""

    N_STEPS = 8

    def __init__(self, corpus: Corpus, cue: Cue, cued: Cued, budget: int) -> None:
        self.corpus, self.cue = corpus, cue
        self.rows = [(self.source(e.prompt, e.start), e.answer) for e in cued.counted[:N_EXAMPLES]]
        self.rows = [(s, t) for s, t in self.rows if 0 < len(s) < 40 and t]
        self.aligned = self._align()
        self.context: dict[tuple[object, ...], Counter[int]] = {}
        for (source, target), order in zip(self.rows, self.aligned, strict=True):
            nth = Counter[int]()
            for word, i in zip(target, order, strict=True):
                for key in self.keys(source, i, nth[i]):
                    self.context.setdefault(key, Counter())[word] += 1
                nth[i] += 1
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

    def keys(self, source: list[int], i: int, nth: int) -> Iterator[tuple[object, ...]]:
        """List what a translation may depend on: the word, and one more thing."""
        word, padded = source[i], [0, *source, 0]
        yield word, nth
        yield word, nth, "length", len(source)
        yield word, nth, "behind", padded[i]
        yield word, nth, "before", padded[i + 2]
        yield word, nth, "place", i, len(source)
        for other in set(source) - {word}:
            yield word, nth, "with", other

    def _align(self) -> list[list[int]]:
        """Find the source of each word of a target: IBM model 1 (Brown et al. 1993)."""
        v = len(self.corpus.words) + 1
        rows = [(k, s, t) for k, (source, target) in enumerate(self.rows)
                for t in range(len(target)) for s in range(len(source))]  # fmt: skip
        if not rows:
            return []
        table = np.array(rows)
        a = np.array([self.rows[k][0][s] + 1 for k, s, _ in rows], np.int64)
        b = np.array([self.rows[k][1][t] for k, _, t in rows], np.int64)
        keys, pair = np.unique(a * v + b, return_inverse=True)
        slot = np.unique(table[:, 0] * 64 + table[:, 2], return_inverse=True)[1]
        chance = np.ones(len(keys))
        for _ in range(self.N_STEPS):
            share = chance[pair] / np.bincount(slot, chance[pair])[slot]
            n = np.bincount(pair, share)
            chance = n / np.bincount(keys // v, n)[keys // v]
        score = chance[pair]
        best = np.full(slot.max() + 1, -1.0)
        np.maximum.at(best, slot, score)
        aligned = [[0] * len(target) for _, target in self.rows]
        for j in np.flatnonzero(score >= best[slot] - 1e-12)[::-1].tolist():
            k, s, t = rows[j]
            aligned[k][t] = s
        return aligned

    def shape(self, source: Sequence[int], kept: frozenset[int]) -> tuple[int, ...]:
        """Mask all words of a source but the commonest few."""
        return tuple(w if w in kept else -1 for w in source)

    def orders(self, n_kept: int) -> Orders:
        """Count which order of translation is commonest for each form of a source."""
        kept = self.commonest(n_kept)
        counts: dict[tuple[int, ...], Counter[tuple[int, ...]]] = {}
        for (source, _), order in zip(self.rows, self.aligned, strict=True):
            counts.setdefault(self.shape(source, kept), Counter())[tuple(order)] += 1
        return {shape: count.most_common(1)[0][0] for shape, count in counts.items()}

    def commonest(self, n: int) -> frozenset[int]:
        """Return the n commonest words of the sources."""
        return frozenset(w for w, _ in self.n_source.most_common(n))

    def word(self, source: list[int], i: int, nth: int, how: str) -> int:
        """Translate one word: by itself, by the length, or by what else says it most surely."""
        best, sure = -1, -1.0
        for key in self.keys(source, i, nth):
            if key[2:3] not in DEPENDS.get(how, {key[2:3]}):
                continue
            if count := self.context.get(key):
                word, n = count.most_common(1)[0]
                total = sum(count.values())
                trust = len(key) if how in DEPENDS else n / (total + 0.5)
                if trust > sure:
                    best, sure = word, trust
        return best


def find_order(shape: tuple[int, ...], orders: Orders) -> tuple[int, ...] | None:
    """Return the order for a source, or for its parts one after another, a joint between them."""
    if shape in orders or not shape:
        return orders.get(shape, ())
    for cut in range(len(shape) - 1, 0, -1):
        if shape[:cut] in orders:
            for skip in (0, 1):
                rest = find_order(shape[cut + skip :], orders)
                if rest is not None:
                    return orders[shape[:cut]] + tuple(cut + skip + i for i in rest)
    return None


def word_by_word(reader: Reader) -> Iterator[Answers]:
    """Translate each word, and put the words in the order that was commonest for such a source."""
    share = reader.budget // (2 * len(reader.kinds))
    books = {
        id(cued): Dictionary(reader.corpus, reader.cue, cued, share)
        for cued in reader.kinds
        if cued.counted
    }
    if len(books) < len(reader.kinds):
        return
    for n_kept in (0, 4, 8, 16, 32, 64):
        orders = {key: book.orders(n_kept) for key, book in books.items()}
        plain = {key: book.orders(0) for key, book in books.items()}
        kept = {key: book.commonest(n_kept) for key, book in books.items()}
        for how in ("alone", "by length", "by its surest neighbour"):

            def rule(words: list[int], start: int, cued: Cued, how: str = how,
                     orders: dict[int, Orders] = orders,
                     plain: dict[int, Orders] = plain,
                     kept: dict[int, frozenset[int]] = kept) -> Sequence[int]:  # fmt: skip
                key, book = id(cued), books[id(cued)]
                source = book.source(words, start)
                order = find_order(book.shape(source, kept[key]), orders[key])
                order = order or plain[key].get(book.shape(source, frozenset()))
                nth, answer = Counter[int](), []
                for i in order or range(len(source)):
                    answer.append(book.word(source, i, nth[i], how))
                    nth[i] += 1
                return answer

            yield reader.answer(
                f"word by word {how}, order by length and {n_kept} words",
                count_numbers(list(books.values()), orders, how), rule,
            )  # fmt: skip


def count_numbers(books: list[Dictionary], orders: dict[int, Orders],
                  how: str) -> int:  # fmt: skip
    """Return how many numbers dictionaries and orders hold."""
    held = sum(
        len(count)
        for book in books
        for key, count in book.context.items()
        if key[2:3] in DEPENDS.get(how, {key[2:3]})
    )
    every = (row for table in orders.values() for row in table.items())
    return held + sum(len(shape) + len(order) for shape, order in every)

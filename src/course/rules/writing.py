"""Rules that write an answer: copying from the prompt, slot by slot, and word by word.

What may be copied, from which sentence, in which order, and what a word becomes on the other side
of a cue is counted on the pages that have the cue.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import combinations, product

import numpy as np

from course.rules.counts import Chooser, Corpus, Cue, Cued, Ids, sentences
from course.rules.marking import Marks
from course.rules.pointing import Answers, Asked, Pages

N_EXAMPLES, N_PAIRED = 6000, 10  # examples; words of a sentence that are paired


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
        read = [pages.read(text, cue) for text, _ in asked]
        self.words = [prompt.words for prompt in read]
        self.starts = [prompt.start for prompt in read]
        self.cued = [prompt.cued for prompt in read]
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
    """Answers of one length: words that stay, and words that come from the prompt."""

    def __init__(self, corpus: Corpus, cued: Cued, length: int, budget: int) -> None:
        self.corpus, self.budget = corpus, budget
        every = cued.counted[:N_EXAMPLES]
        self.examples = [e for e in every if len(e.answer) == length]
        self.slots = [Counter(column) for column in zip(*(e.answer for e in self.examples),
                                                        strict=True)]  # fmt: skip
        self.fixed = [slot.most_common(1)[0][1] > len(self.examples) / 2 for slot in self.slots]
        self.copied = [Counter[int]() for _ in self.slots]
        self.present = Counter(w for e in every for w in set(e.prompt[: e.start]))
        self.followed = Counter[tuple[int, int]]()
        for e in self.examples:
            body = set(e.prompt[: e.start])
            self.followed.update(zip(e.answer, e.answer[1:], strict=False))
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

    def fill(self, chosen: Sequence[int], body: Sequence[int], reword: bool = False
             ) -> tuple[list[int], bool]:  # fmt: skip
        """Fill each place of an answer from some words of the prompt, or else from all.

        Returns the answer, and whether the chosen words were enough.
        """
        answer, fits = [], True
        for j, slot in enumerate(self.slots):
            if self.fixed[j]:
                answer.append(slot.most_common(1)[0][0])
                continue
            free = [w for w in chosen if w not in answer] or list(chosen)
            best, odds = self.pick(j, free, reword)
            if odds < 0.02:
                best, odds = self.pick(j, body, reword)
                fits = False
            answer.append(best)
        for j in range(len(answer) - 2, -1, -1):
            if self.fixed[j]:  # the form of a word that stays may depend on the next
                options = [w for w in self.slots[j] if self.followed[w, answer[j + 1]]]
                answer[j] = max(options, key=lambda w: self.followed[w, answer[j + 1]],
                                default=answer[j])  # fmt: skip
        return answer, fits

    def pick(self, j: int, words: Sequence[int], reword: bool) -> tuple[int, float]:
        """Choose what to write in a place: one of the words, or what one of them stands for."""
        if not reword:
            best = max(words, key=lambda w: self.odds(j, w), default=-1)
            return best, self.odds(j, best)
        found = [(count.most_common(1)[0], count.total()) for w in words
                 if (count := self.reworded[j].get(w))]  # fmt: skip
        options = [(n / (total + 2), word) for (word, n), total in found]
        odds, best = max(options, default=(0.0, -1))
        return best, odds

    @cached_property
    def reworded(self) -> list[dict[int, Counter[int]]]:
        """Count what stands in each place of an answer beside each word of its sentence."""
        table: list[dict[int, Counter[int]]] = [{} for _ in self.slots]
        for e in self.examples[:2000]:
            body = e.prompt[: e.start]
            spans = sentences(body, self.corpus.ends)
            if (k := self.source(body, spans, e.answer)) >= 0:
                for row, word in zip(table, e.answer, strict=True):
                    for w in set(body[slice(*spans[k])]):
                        row.setdefault(w, Counter())[word] += 1
        return table

    def source(self, prompt: Sequence[int], spans: list[tuple[int, int]], answer: Sequence[int]
               ) -> int:  # fmt: skip
        """Return the sentence of a prompt from which most of the answer was copied."""
        telling = {w for w, fixed in zip(answer, self.fixed, strict=True) if not fixed}
        told = [sum(self.corpus.rarity(w) for w in telling & set(prompt[a:b])) for a, b in spans]
        return int(np.argmax(told)) if told and max(told) > 0 else -1

    @cached_property
    def chooser(self) -> Chooser:
        """Learn which words of a sentence and its neighbours mark it as the one to copy from."""
        return self._learn(False)

    @cached_property
    def pair_chooser(self) -> Chooser:
        """Learn the same of pairs of words, which may say together what neither says alone."""
        return self._learn(True)

    @cached_property
    def marks(self) -> dict[int, Marks]:
        """Learn which whole sentences mark the one they follow (1), or the one they precede."""
        texts, right = [], []
        for body, spans, source in self.sources:
            texts.append(in_words(self.corpus, body, spans))
            right.append(source)
        return {offset: Marks(texts, right, offset) for offset in (1, -1)}

    def _learn(self, pairs: bool) -> Chooser:
        groups = [describe(body, spans, pairs) for body, spans, _ in self.sources]
        return Chooser(groups, [source for _, _, source in self.sources], self.budget // 4)

    @cached_property
    def sources(self) -> list[tuple[list[int], list[tuple[int, int]], int]]:
        """List what is before the cue of examples, its sentences, and which one was copied from."""
        found = []
        for e in self.examples[:2000]:
            body = e.prompt[: e.start]
            spans = sentences(body, self.corpus.ends)
            if (source := self.source(body, spans, e.answer)) >= 0:
                found.append((body, spans, source))
        return found


def in_words(corpus: Corpus, body: Sequence[int], spans: list[tuple[int, int]]) -> list[Ids]:
    """Return the words of each sentence, without its signs."""
    return [tuple(w for w in body[a:b] if w < 0 or corpus.is_word[w]) for a, b in spans]


def lengths_of(cued: Cued) -> list[int]:
    """Return the lengths that answers to a cue have, the commonest first, the rare left out."""
    lengths = Counter(len(e.answer) for e in cued.counted[:N_EXAMPLES])
    return [n for n, k in lengths.most_common(4) if k >= 0.03 * lengths.total()]


def describe(words: Sequence[int], spans: list[tuple[int, int]], pairs: bool = False
             ) -> list[list[str]]:  # fmt: skip
    """Describe each sentence by its words, its neighbours' words, and its place."""
    bags = [sorted(set(words[a:b])) for a, b in spans]
    none: list[int] = []
    options = []
    for k, bag in enumerate(bags):
        near = {"has": bag, "after": bags[k - 1] if k else none,
                "before": bags[k + 1] if k + 1 < len(bags) else none}  # fmt: skip
        option = [f"{side} {w}" for side, others in near.items() for w in others]
        if pairs:
            option += [f"{side} {a} {b}" for side, others in near.items()
                       for a, b in combinations(others[:N_PAIRED], 2)]  # fmt: skip
        options.append([*option, f"number {k}", f"number {k - len(bags)}"])
    return options


def slot_by_slot(reader: Reader) -> Iterator[Answers]:
    """Choose a sentence, and copy from it the words that such answers copy."""
    corpus = reader.corpus
    forms = {
        id(cued): [Slots(corpus, cued, n, reader.budget) for n in lengths_of(cued)]
        for cued in reader.kinds
    }

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

    def learned_pairs(form: Slots, body: list[int], spans: list[tuple[int, int]], t: set[int]
                      ) -> int:  # fmt: skip
        options = describe(body, spans, True)
        return int(np.argmax([form.pair_chooser.score(option) for option in options]))

    def marked(offset: int) -> Callable[..., int]:
        def choose(form: Slots, body: list[int], spans: list[tuple[int, int]], t: set[int]) -> int:
            return form.marks[offset].choose(in_words(corpus, body, spans))

        return choose

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
        "the sentence whose pairs of words and neighbours mark it": learned_pairs,
        "the sentence that the whole next one marks": marked(1),
        "the sentence that the whole one before marks": marked(-1),
    }
    hows: tuple[str, ...] = (
        "slot by slot",
        "slot by slot, as long as fits",
        "slot by slot, reworded",
        "in order",
    )
    if reader.asked[0].candidates:  # then nothing is to be written
        hows = hows[:1]
    for (name, choose), how in product(choices.items(), hows):

        def rule(words: list[int], start: int, cued: Cued, choose: Callable[..., int] = choose,
                 how: str = how) -> Sequence[int]:  # fmt: skip
            every, body = forms[id(cued)], words[:start] or words
            if not every:
                return []
            spans = sentences(body, corpus.ends)
            k = choose(every[0], body, spans, set(words[start:]))
            chosen = body[slice(*spans[k])] if 0 <= k < len(spans) else body
            chosen = [w for w in chosen if w < 0 or corpus.is_word[w]]
            if how == "in order":
                return every[0].kept(chosen)
            if how == "slot by slot, as long as fits":
                filled = [form.fill(chosen, body) for form in every]
                return max(filled, key=lambda pair: (pair[1], len(pair[0])))[0]
            return every[0].fill(chosen, body, how == "slot by slot, reworded")[0]

        used = [form for every in forms.values()
                for form in every[: None if "fits" in how else 1]]  # fmt: skip
        answers = reader.answer(f"copy from {name}, {how}", 0, rule)
        n = sum(form.n_numbers for form in used)
        if choose is learned:
            n += sum(len(form.chooser.weight) for every in forms.values() for form in every[:1])
        if choose is learned_pairs:
            n += sum(len(f.pair_chooser.weight) for every in forms.values() for f in every[:1])
        if name.endswith(" marks"):
            offset = 1 if "next" in name else -1
            n += sum(form.marks[offset].n_numbers for every in forms.values() for form in every[:1])
        if "reworded" in how:
            n += sum(len(c) for form in used for row in form.reworded for c in row.values())
        yield answers._replace(n_numbers=n)

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

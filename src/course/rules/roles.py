"""Candidates by the roles that names have in one sentence: the last one that tells of them.

In that sentence what the cue asks about, the candidate and all other names are replaced by their
roles. How often a candidate was right beside what is left is counted on examples.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, groupby

from course.rules.counts import Corpus, Cued, Ids, sentences
from course.rules.pointing import Answers
from course.rules.writing import Reader, one

WAYS = ("candidate", "asked")  # whose last sentence is looked up
Parts = list[Ids | int]  # a sentence cut up: runs of words of names, and single other words
Form = tuple[int | str, ...]  # a sentence with roles for its names


def times(run: Ids, words: Sequence[int]) -> int:
    """Count how often some words stand in a row in others."""
    n = len(run)
    return sum(tuple(words[i : i + n]) == run for i in range(len(words) - n + 1))


class Roles:
    """How often a name was the answer to a cue, by the last sentence about it: two counts a form.

    What is a name is learned as well: the words of answers that were named before, and of what
    their cues ask about.
    """

    AGAIN, FEW = 0.9, 0.5  # a word like a name: how often named before, and in how many examples
    PART = (
        0.05  # of the examples with a word have it in what is asked or answered, if a name has it
    )
    MANY = 0.02  # of the answers have the same first word, if it is one to leave off

    def __init__(self, corpus: Corpus, cued: Cued) -> None:
        self.corpus = corpus
        every = [(e.prompt[: e.start], e.prompt[e.start : e.gap], tuple(e.answer))
                 for e in cued.counted]  # fmt: skip
        left, kept = Counter[int](), Counter[int]()  # first words of answers
        for body, _, (first, *rest) in every:
            if rest and (n := times(tuple(rest), body)):
                left[first] += 1
                kept[first] += times((first, *rest), body) == n
        many = self.MANY * len(every)
        self.dropped = {w for w, n in left.items() if n > many and kept[w] < n / 2}
        every = [example for example in every if times(self.name(example[2]), example[0])]
        once, again, named = Counter[int](), Counter[int](), Counter[int]()
        for body, tail, _ in every:
            once.update(set(tail))
            again.update(set(tail) & set(body))
            named.update(set(body))
        self.plain = {w for w, n in once.items() if again[w] < self.AGAIN * n}
        self.plain |= {w for w, n in named.items() if n > self.FEW * len(every)}
        examples = []
        self.texts: dict[Ids, Counter[Ids]] = {}  # the answers that say a name
        for body, tail, answer in every:
            name = self.name(answer)
            if (asked := self.asked(body, tail)) and not times(name, asked):
                examples.append((body, asked, name))
                self.texts.setdefault(name, Counter())[answer] += 1
        part = Counter(w for _, asked, name in examples for w in {*asked, *name})
        self.words = {w for w, n in part.items() if n > self.PART * named[w]}
        self.right = {way: Counter[Form]() for way in WAYS}
        self.seen = {way: Counter[Form]() for way in WAYS}
        for body, asked, name in examples:
            told = self.cut(body, self.words)
            options = {part for part in chain(*told) if isinstance(part, tuple)} & self.texts.keys()
            for way in WAYS:
                for option in options:
                    if form := self.form(told, asked, option, way):
                        self.seen[way][form] += 1
                        self.right[way][form] += option == name

    def n_numbers(self, way: str) -> int:
        """Return how many counts and words it keeps."""
        kept = (self.words, self.plain, self.dropped, self.texts)
        return 2 * len(self.seen[way]) + sum(map(len, kept))

    def asked(self, body: Sequence[int], tail: Sequence[int]) -> Ids:
        """Return the longest run of words of a cue that was named before, of words like names."""
        found: Ids = ()
        for i in range(len(tail)):
            while (n := len(found) + 1) <= len(tail) - i:
                run = tuple(tail[i : i + n])
                if not self.plain.isdisjoint(run) or not times(run, body):
                    break
                found = run
        return found

    def name(self, answer: Ids) -> Ids:
        """Leave off the first word of an answer if the rest mostly is named without it."""
        return answer[len(answer) > 1 and answer[0] in self.dropped :]

    def cut(self, body: Sequence[int], names: set[int]) -> list[Parts]:
        """Cut each sentence into names and other words."""
        told: list[Parts] = []
        for a, b in sentences(body, self.corpus.ends):
            told.append([])
            for is_name, group in groupby(body[a:b], names.__contains__):
                words = tuple(group)
                told[-1] += [words] if is_name else words
        return told

    def form(self, told: list[Parts], asked: Ids, name: Ids, way: str) -> Form:
        """Put roles for the names in the last sentence about a candidate, or about the asked."""
        about = name if way == "candidate" else asked
        parts: Parts = next((parts for parts in reversed(told) if about in parts), [])
        roles = {asked: "asked", name: "candidate"}
        return tuple(
            roles.get(part, "other") if isinstance(part, tuple) else part for part in parts
        )

    def choose(self, body: list[int], tail: list[int], candidates: Sequence[str], way: str) -> str:
        """Return the candidate, or if there are none the name, whose form was right most often."""
        asked = self.asked(body, tail)
        names = {self.name(tuple(self.corpus.encode(text))): text for text in candidates}
        told = self.cut(body, self.words.union(asked, *names))
        if not candidates:
            for name in chain(*told):
                if isinstance(name, tuple) and name in self.texts:
                    names[name] = self.corpus.write(self.texts[name].most_common(1)[0][0])

        def odds(name: Ids) -> float:
            form = self.form(told, asked, name, way)
            return (self.right[way][form] + 0.1) / (self.seen[way][form] + 0.4)

        return names[max(names, key=odds)] if names else ""


def roles(reader: Reader) -> Iterator[Answers]:
    """Choose the candidate that has the right role in the last sentence about it."""
    tables = {id(cued): Roles(reader.corpus, cued) for cued in reader.kinds}
    for way in WAYS:
        texts = [
            tables[id(cued)].choose(words[:start], words[start:], asked.candidates, way)
            for asked, words, start, cued in reader.rows()
        ]
        n = sum(table.n_numbers(way) for table in tables.values())
        yield one(f"roles in the last sentence about the {way}", n, texts)

"""The search of the world with a long tail: no page says what is held out, or what is asked.

It reads words, not derivations: it knows the tables of words, but neither templates nor tables of
choices. A mistake of the grammar is therefore not one of the search.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations, product
from typing import NamedTuple

from miniweb.checks import Leak
from miniweb.lexicon import Verb
from miniweb.longtail import MINDS, MODALS, NEAR, SCALES, LongTail
from miniweb.tasks import Item
from miniweb.world import is_held_out

# A sentence; a question goes on to its answer.
SENTENCES = re.compile(r"(?<=[.!])\s+|\n(?!A:)")
WORDS = re.compile(r"'s|\w+|[=\"?]")
PARTICLES = ("", "을", "를")
ENDS_OF_CLAUSES = ("and", "=", '"')


class Mark(NamedTuple):
    """A word or several that mean something: which, where, and in which clause."""

    kind: str
    meaning: str
    start: int
    end: int
    clause: int


class Search:
    """Look for combinations of words."""

    def __init__(self, world: LongTail) -> None:
        words = world.lexicon
        self.things = {thing.english: thing for thing in words.things}
        self.verbs: defaultdict[str, list[Verb]] = defaultdict(list)  # by their Korean
        self.marks: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        for t in words.things:
            self.add("thing", t.english, t.english, t.plural, t.plural.removeprefix("pairs of "))
            self.add("thing", t.english, *(t.korean + particle for particle in PARTICLES))
        for v in words.verbs:
            self.add("verb", v.base, v.past, *({v.base} - self.things.keys()))
            for form in dict.fromkeys(form for reading in v.readings for form in reading[1:]):
                self.verbs[form].append(v)
        self.telling = {
            v.base for v in words.verbs if v.keeps and "any" not in [r.tag for r in v.readings]
        }
        for form in self.verbs:
            self.add("korean", form, form)
        for number, counter in product(words.numbers, words.counters):  # 개 is a dog, 두 개 is two
            counted = f"{number.korean} {counter}"
            self.add("count", counted, *(counted + particle for particle in PARTICLES))
        for adjective in words.adjectives:
            self.add("adjective", adjective.english, adjective.english, adjective.korean)
        for first, last in product(words.people, words.surnames):
            self.add("person", f"{first.name} {last}", f"{first.name} {last}")
        for scale, (more, less, plain) in SCALES.items():
            self.add("scale", scale, more, less, f"as {plain}")
        for kind, names in {
            "place": [place.english for place in words.places],
            "city": [city.name for city in world.cities],
            "modal": MODALS,
            "mind": MINDS,
        }.items():
            for name in names:
                self.add(kind, name, name)
        self.longest: Counter[str] = Counter()  # words of what starts with a word
        for name in self.marks:
            start, *rest = name.split()
            self.longest[start] = max(self.longest[start], 1 + len(rest))

    def add(self, kind: str, meaning: str, *forms: str) -> None:
        """Say what forms mean."""
        for form in dict.fromkeys(forms):
            self.marks[" ".join(WORDS.findall(form))].append((kind, meaning))

    def read(self, words: list[str]) -> dict[str, list[Mark]]:
        """Mark what means something, the longest name where several fit."""
        found: defaultdict[str, list[Mark]] = defaultdict(list)
        start = clause = 0
        while start < len(words):
            clause += words[start] in ENDS_OF_CLAUSES
            end = start + self.longest.get(words[start], 0)
            while end > start and " ".join(words[start:end]) not in self.marks:
                end -= 1
            for kind, meaning in self.marks[" ".join(words[start:end])] if end > start else ():
                found[kind].append(Mark(kind, meaning, start, end, clause))
                clause += kind == "korean"  # the verb ends a clause
            start = max(end, start + 1)
        return found

    def candidates(self, text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Find every combination in a text that could have been held out."""
        beside_korean = re.search("[가-힣]", text)
        for sentence in SENTENCES.split(text):
            words = WORDS.findall(sentence)
            marks = self.read(words)
            things = marks["thing"]
            if beside_korean:
                yield from self.korean(marks)
            for verb, thing in product(marks["verb"], things):
                if verb.meaning in self.telling and verb.clause == thing.clause:
                    yield "deed", (verb.meaning, thing.meaning)
            for verb, thing, place in product(marks["verb"], things, marks["place"]):
                if verb.clause == thing.clause == place.clause:
                    yield "post", (verb.meaning, thing.meaning, place.meaning)
            if "?" in words:
                end = words.index("?")
                yield from (("question", (c.meaning,)) for c in marks["city"] if c.start < end)
            for modal, mind in product(marks["modal"], marks["mind"]):
                yield "remark", (modal.meaning, mind.meaning)
            for thing in things:
                for person in self.owners(words, thing, marks["person"]):
                    yield "owner", (person.meaning, thing.meaning)
            for scale, (a, b) in product(marks["scale"], combinations(things, 2)):
                yield "comparison", (scale.meaning, a.meaning, b.meaning)

    def korean(self, marks: dict[str, list[Mark]]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Find deeds and phrases, in English or Korean."""
        for thing in marks["thing"]:
            for word in marks["adjective"]:
                if word.end == thing.start:
                    yield "phrase", (word.meaning, thing.meaning)
            for verb in marks["verb"]:
                if verb.clause == thing.clause:
                    yield "deed", (verb.meaning, thing.meaning)
            for verb in marks["korean"]:
                if verb.clause == thing.clause and (bases := self.bases(verb.meaning, thing)):
                    allowed = [b for b in bases if not is_held_out("deed", b, thing.meaning)]
                    yield "deed", ((allowed or bases)[0], thing.meaning)

    def bases(self, form: str, thing: Mark) -> list[str]:
        """Return the English verbs that a Korean one may be of a thing."""
        readings = [(v.base, v.reading(self.things[thing.meaning])) for v in self.verbs[form]]
        return [base for base, reading in readings if reading and form in reading[1:]]

    def owners(self, words: list[str], thing: Mark, people: list[Mark]) -> list[Mark]:
        """Return who is said to have a thing: whose it is, or else all that are named."""
        whose = [
            p for p in people if words[p.end : p.end + 1] == ["'s"] and p.end + 1 == thing.start
        ]
        return people if not whose or "swapped" in words else whose

    def is_leak(self, kind: str, words: tuple[str, ...]) -> bool:
        """Say whether no page may hold a combination."""
        if kind != "comparison":
            return is_held_out(kind, *words)
        scale, a, b = words
        return abs(getattr(self.things[a], scale) - getattr(self.things[b], scale)) > NEAR


def find_leaks(texts: Iterable[str], world: LongTail) -> list[Leak]:
    """Search texts for held-out combinations; an empty list is the proof that none occurs.

    What leaks, by words alone:

    - `deed` (verb, thing) and `phrase` (adjective, thing): in a text with Korean, one clause with
      both, or one next to the other, in either language. A Korean verb may be several English ones
      (먹었어요 is *ate* and *had*): it leaks if all that it can be of the thing are held out. In
      any text, if the verb tells of which kind the thing is and leaves it where it is;
    - `post` (verb, thing, place): one clause of any text with the three in English;
    - `question` (city): the name before a question mark;
    - `remark` (modal, mind): one sentence with both;
    - `owner` (first and last name, thing): one sentence, or a question with its answer, with both.
      A thing behind `'s` is that person's alone, unless the sentence says "swapped". Nobody can
      come by a thing without a sentence that names both, so that no story has to be followed; what
      follows only from two sentences ("Tom took it.") would not be found;
    - `comparison` (scale, thing, thing): one sentence with a comparative of the scale and two
      things more than a level apart.
    """
    search = Search(world)
    return [
        Leak(kind, words, text)
        for text in texts
        for kind, words in dict.fromkeys(search.candidates(text))
        if search.is_leak(kind, words)
    ]


def as_it_stands(item: Item) -> str:
    """Return what no page may hold if an item is to be new.

    A summary or a translation as a whole; the last sentence of a cloze, filled in; a question. A
    question about a text is new by the text: both, with the answer.
    """
    if item.prompt.endswith(("TL;DR:", "=")):
        return item.answer
    if item.prompt.startswith("Q:"):
        return item.prompt.removesuffix("\nA:")
    text = item.prompt if item.prompt.endswith("A:") else item.prompt.rpartition(". ")[2]
    return f"{text} {item.answer}"


def find_answers(texts: Iterable[str], items: Iterable[Item]) -> list[tuple[Item, str]]:
    """Search texts for the answers of items; return those that stand there, each with its text.

    What is searched for is `as_it_stands`, word by word, in small letters.
    """

    def spell(text: str) -> list[str]:
        return re.findall(r"\w+|[.!?]", text.lower())

    def triples(words: list[str]) -> list[tuple[str, ...]]:
        return list(zip(words, words[1:], words[2:], strict=False)) or [tuple(words)]

    wanted = [(item, spell(as_it_stands(item))) for item in items]
    counts = Counter(triple for _, words in wanted for triple in triples(words))
    by_triple: defaultdict[tuple[str, ...], list[tuple[Item, str]]] = defaultdict(list)
    for item, words in wanted:  # under the three words that the fewest others have
        by_triple[min(triples(words), key=counts.__getitem__)].append((item, " ".join(words)))
    found = []
    for text in texts:
        words = spell(text)
        for triple in dict.fromkeys(triples(words)):
            for item, answer in by_triple.get(triple, ()):
                if f" {answer} " in f" {' '.join(words)} ":
                    found.append((item, text))
    return found

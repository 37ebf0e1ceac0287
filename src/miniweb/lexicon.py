"""A lexicon with a long tail: things, what can be done to them, and how Korean splits the verbs.

The tables of `real_lexicon` are real words, the commonest first (about: each class and each level
of a scale has things of all ranks). A level is a twelfth of the things, by an estimate of their
size in centimeters and price in dollars. English says *put on* of a coat, a shoe and a hat, Korean
입다, 신다 and 쓰다: a verb's Korean follows from a tag of the thing.
`invented_lexicon` has the same shape and none of the words: settings are tuned on it, so that
nobody looks at the published world before it is measured.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from itertools import groupby
from random import Random
from typing import NamedTuple, TypeVar

from miniweb.world import Person, Word

T = TypeVar("T")

N_LEVELS = 12
COUNTERS = (*"개권벌대장병잔채척알판통부", "자루", "켤레", "송이", "마리", "그루", "그릇")
PAIR = "켤레"  # counts footwear and gloves by the pair
PARTICLES = ("은", "는", "이", "가", "을", "를", "에", "에서", "와", "과", "도", "의", "로", "으로")


class Thing(NamedTuple):
    """A countable thing: its words, its place on two scales (1 to 12), and its classes.

    `plural` is what follows a number: "books", "pairs of boots". `counter` follows a number in
    Korean. `tags` say what can be done with the thing, and in which Korean words.
    """

    english: str
    plural: str
    korean: str
    counter: str
    size: int
    price: int
    tags: tuple[str, ...]


class Reading(NamedTuple):
    """What a verb is in Korean, of things with `tag`: polite past, and past with -고 (and)."""

    tag: str
    korean: str
    connective: str


class Verb(NamedTuple):
    """An English verb and its readings; the first whose tag the thing has is the one.

    The tag `any` fits every thing and stands last. What `keeps` leaves a thing with its owner.
    """

    base: str
    past: str
    keeps: bool
    readings: tuple[Reading, ...]

    def reading(self, thing: Thing) -> Reading | None:
        """Return the reading for a thing, None if the verb is not said of it."""
        return next((r for r in self.readings if r.tag in ("any", *thing.tags)), None)

    @property
    def is_ambiguous(self) -> bool:
        """Say whether the Korean depends on the thing."""
        return len({reading.korean for reading in self.readings}) > 1


@dataclass(frozen=True)
class Lexicon:
    """The words of a world, each table in order of frequency.

    Raises ValueError, naming the word, for a word that stands twice, a level off the scale, a tag
    that no verb or no thing has, an unknown counter, and a thing that nothing can be done to.
    """

    things: tuple[Thing, ...]
    verbs: tuple[Verb, ...]
    adjectives: tuple[Word, ...]
    places: tuple[Word, ...]
    people: tuple[Person, ...]
    surnames: tuple[str, ...]
    times: tuple[Word, ...]
    numbers: tuple[Word, ...]
    counters: tuple[str, ...]

    def __post_init__(self) -> None:
        nouns = [(t.english, t.korean) for t in self.things] + [p[:2] for p in self.places]
        for language, words in zip(("English", "Korean"), zip(*nouns, strict=True), strict=True):
            _refuse_twice(f"{language} noun", words)
        _refuse_twice("English verb", [verb.past for verb in self.verbs])
        for name in ("adjectives", "people", "times", "numbers"):
            for column in zip(*(row[:2] for row in getattr(self, name)), strict=True):
                _refuse_twice(f"word among the {name}", column)
        for verb in self.verbs:
            tags = [reading.tag for reading in verb.readings]
            _refuse_twice(f"tag of {verb.past!r}", tags)
            if "any" in tags[:-1]:
                raise ValueError(f"{verb.past!r} has readings after 'any': nothing reaches them")
        asked = {reading.tag for verb in self.verbs for reading in verb.readings} - {"any"}
        for thing in self.things:
            if unknown := set(thing.tags) - asked:
                raise ValueError(f"{thing.english!r} has tags that no verb has: {sorted(unknown)}")
            if not {thing.size, thing.price} <= set(range(1, N_LEVELS + 1)):
                raise ValueError(f"{thing.english!r} has a level that is not from 1 to {N_LEVELS}")
            if thing.counter not in self.counters:
                raise ValueError(f"{thing.english!r} has an unknown counter, {thing.counter!r}")
            if not self.verbs_of(thing):
                raise ValueError(f"nothing can be done to {thing.english!r}: give it a tag")
        if idle := asked - {tag for thing in self.things for tag in thing.tags}:
            raise ValueError(f"verbs have tags that no thing has: {sorted(idle)}")

    @cached_property
    def _verbs_of(self) -> dict[Thing, tuple[Verb, ...]]:
        return {t: tuple(v for v in self.verbs if v.reading(t)) for t in self.things}

    def verbs_of(self, thing: Thing) -> tuple[Verb, ...]:
        """Return the verbs that are said of a thing, in order of the table."""
        return self._verbs_of[thing]

    def translate_verb(self, verb: Verb, thing: Thing) -> tuple[str, str]:
        """Return the Korean of what is done to a thing: polite past, past with -고.

        Raises ValueError if the verb is not said of the thing.
        """
        reading = verb.reading(thing)
        if reading is None:
            raise ValueError(f"{verb.past!r} is not said of {thing.english!r}: see verbs_of")
        return reading.korean, reading.connective


def _refuse_twice(kind: str, words: Iterable[str]) -> None:
    twice = sorted(word for word, n in Counter(words).items() if n > 1)
    if twice:
        raise ValueError(f"{kind} stands twice: {', '.join(twice)}")


def _rows(name: str) -> list[list[str]]:
    table = files("miniweb").joinpath("lexicon", f"{name}.tsv").read_text(encoding="utf-8")
    return [line.split("\t") for line in table.splitlines()[1:]]


def _plural(word: str, counter: str, irregular: str = "") -> str:
    return ("pairs of " if counter == PAIR else "") + (irregular or _add_s(word))


def _add_s(word: str) -> str:
    if word.endswith(("s", "x", "ch", "sh")):
        return f"{word}es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}s"


def _thing(row: Sequence[str]) -> Thing:
    english, irregular, korean, counter, size, price, tags = row
    plural = _plural(english, counter, irregular)
    classes = tuple(tags.split(",") if tags else ())
    return Thing(english, plural, korean, counter, int(size), int(price), classes)


@cache
def real_lexicon() -> Lexicon:
    """Read the tables that lie in the folder `lexicon` beside this module."""
    verbs = groupby(_rows("verbs"), key=lambda row: row[:3])
    return Lexicon(
        things=tuple(map(_thing, _rows("things"))),
        verbs=tuple(
            Verb(base, past, keeps == "yes", tuple(Reading(*row[3:]) for row in rows))
            for (base, past, keeps), rows in verbs
        ),
        adjectives=tuple(Word(*row) for row in _rows("adjectives")),
        places=tuple(Word(*row) for row in _rows("places")),
        people=tuple(Person(*row) for row in _rows("people")),
        surnames=tuple(name for (name,) in _rows("surnames")),
        times=tuple(Word(*row) for row in _rows("times")),
        numbers=tuple(Word(*row) for row in _rows("numbers")),
        counters=COUNTERS,
    )


def _english_word(random: Random, like: str) -> str:
    """Invent a word about as long, of open syllables and a closing consonant."""
    onsets = (*"bdfgklmnprstvwz", "bl", "br", "dr", "fl", "gl", "gr", "kl", "pl", "sk", "st", "tr")
    n_syllables = max(2, round(len(like) / 3))
    syllables = [random.choice(onsets) + random.choice("aeiou") for _ in range(n_syllables)]
    return "".join(syllables) + random.choice("bdfgklmnprt")


def _korean_word(random: Random, like: str) -> str:
    """Invent a word of as many syllables (at least two), half of them closed; none a particle."""
    word = ""
    for _ in range(max(2, len(like))):
        onset = random.choice((0, 2, 3, 5, 6, 7, 9, 11, 12, 14, 15, 16, 17, 18))
        vowel = random.choice((0, 1, 4, 5, 6, 8, 12, 13, 17, 18, 20))
        final = random.choice((0, 0, 0, 0, 0, 1, 4, 8, 16, 21))
        word += chr(0xAC00 + (onset * 21 + vowel) * 28 + final)
    return _korean_word(random, like) if word.endswith(PARTICLES) else word


class _Inventor:
    """Puts an invented word for each real one, always the same, and never one that is taken."""

    def __init__(
        self, random: Random, invent: Callable[[Random, str], str], taken: Iterable[str]
    ) -> None:
        self.random, self.invent, self.taken = random, invent, set(taken)
        self.words: dict[str, str] = {}

    def word(self, real: str) -> str:
        if real not in self.words:
            while (word := self.invent(self.random, real)) in self.taken:
                pass
            self.taken.add(word)
            self.words[real] = word
        return self.words[real]

    def __call__(self, text: str) -> str:
        return " ".join(map(self.word, text.split()))


@cache
def invented_lexicon(seed: int) -> Lexicon:
    """Make a lexicon of the shape of `real_lexicon` out of invented words.

    Words, classes (tags and counter) and places on the three scales are dealt out anew to the
    ranks; the splits of the verbs, and which of them share a Korean word, stay. What is grammar
    stays too: the endings -어요 and -고, particles, counters. The same seed gives the same lexicon.
    """
    real, random = real_lexicon(), Random(seed)
    taken = re.findall(r"\w+", repr(real))
    english = _Inventor(random, _english_word, taken)
    korean = _Inventor(random, _korean_word, taken)

    def dealt(cards: Iterable[T]) -> list[T]:
        return random.sample(cards := list(cards), len(cards))

    def reading(tag: str, polite: str, _: str) -> Reading:
        stem = korean(polite.removesuffix("어요"))
        return Reading(tag, f"{stem}어요", f"{stem}고")

    def verb(old: Verb) -> Verb:
        base = english(old.base)
        first, *rest = base.split()
        readings = tuple(reading(*r) for r in old.readings)
        return Verb(base, " ".join([f"{first}ed", *rest]), old.keeps, readings)

    def pairs(table: Iterable[Word]) -> tuple[Word, ...]:
        return tuple(Word(english(word.english), korean(word.korean)) for word in dealt(table))

    things = tuple(
        words._replace(
            english=english(words.english),
            plural=_plural(english(words.english), kind.counter),
            korean=korean(words.korean),
            counter=kind.counter,
            tags=kind.tags,
            size=scale.size,
            price=scale.price,
        )
        for words, kind, scale in zip(*(dealt(real.things) for _ in range(3)), strict=True)
    )
    return Lexicon(
        things=things,
        verbs=tuple(verb(old) for old in dealt(real.verbs)),
        adjectives=pairs(real.adjectives),
        places=pairs(real.places),
        people=tuple(
            Person(english(old.name).title(), korean(old.korean), pronoun)
            for old, pronoun in zip(
                dealt(real.people), dealt(p.pronoun for p in real.people), strict=True
            )
        ),
        surnames=tuple(english(name).title() for name in real.surnames),
        times=tuple(Word(w.english.capitalize(), w.korean) for w in pairs(real.times)),
        numbers=pairs(real.numbers),
        counters=real.counters,
    )

"""A web in miniature with a long tail: what is told often, and what is told once.

Things, verbs, places, people and cities are drawn by Zipf's law: rank r, from 0, has the weight
1/(r + 3)^1.25. As in `miniweb.grammar` one text has one derivation, so that the log-probability of
a page is exact, and some combinations never occur. Owners change, so that a story has to be
followed; Korean verbs follow from what is done to which thing; and a remark says what the point of
a post is.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from random import Random
from typing import NamedTuple, TypeVar

from miniweb.choices import Draw, Table
from miniweb.cities import CITIES, City, invented_facts
from miniweb.grammar import Document, with_article
from miniweb.korean import direct_object, topic
from miniweb.lexicon import Lexicon, Thing, Verb, invented_lexicon, real_lexicon
from miniweb.world import Person, Word, is_held_out

T = TypeVar("T")

GENRES = {  # the shares of the pages
    "story": 25,
    "reading": 30,
    "post": 14,
    "comparison": 10,
    "bilingual": 22,
    "encyclopedia": 9,
    "question": 8,
}

N_PEOPLE = Table((1, 2, 3, 4), (1, 5, 3, 1))
# Whose a thing is comes before the thing, often right before it, and seldom changes: from that
# models learn to look up who has what; where things change hands at every turn they do not.
OWNERS = Table(("{who} had {a_thing}.", "Here is {who}'s {thing}."), (1, 2))
N_HAPPENINGS = {n: Table(range(1, n + 3)) for n in range(1, 5)}
HAPPENINGS = {"use": 3, "go": 1, "replace": 1, "meddle": 8, "swap": 1}  # the last two need others
OWNER_QUESTIONS = {
    "what": "What does {who} have?",
    "where": "Where is {who}?",
    "who": "Who has the {thing}?",
}

SCALES = {  # a scale of things: more of it, less of it, and the plain word
    "size": ("larger", "smaller", "large"),
    "price": ("more expensive", "cheaper", "expensive"),
}
NEAR = 4  # levels: pages compare things that are no further apart, and tests ask for the others
COMPARISONS = Table(("more", "not as"), (1, 1))

EVENTS = Table(("I {deed}.", "At the {place} I {did} {thing}."), (3, 1))
SAYINGS = {  # of the point of a post, and of what is not
    True: (
        "That made my day.",
        "It was the best part.",
        "I told everybody about it.",
        "I am still smiling.",
        "What a surprise.",
        "I could not believe it.",
    ),
    False: (
        "It was as usual.",
        "I do that a lot.",
        "Nobody noticed.",
        "It took a minute.",
        "So it goes.",
        "Nothing special.",
    ),
}
MODALS = {  # does the verb behind it hold, or its opposite?
    "still": True,
    "often": True,
    "like to": True,
    "do": True,
    "will never": False,
    "would never": False,
    "no longer": False,
    "did not": False,
}
MINDS = {  # is what one does so the point? A quarter of the pairs, half of them points, is held out
    "remember": True,
    "think of": True,
    "dream of": True,
    "talk about": True,
    "forget": False,
    "overlook": False,
    "dismiss": False,
    "doubt": False,
}

STATEMENTS = {
    "country": Table(
        (
            "{city} is a city in {country}.",
            "{city} lies in {country}.",
            "One of the cities in {country} is {city}.",
        ),
        (3, 2, 1),
    ),
    "language": Table(
        ("In {city} people speak {language}.", "The language of {city} is {language}.")
    ),
    "currency": Table(
        ("In {city} people pay with the {currency}.", "Prices in {city} are in {currency}.")
    ),
}
CITY_QUESTIONS = {
    "country": "In which country is {city}?",
    "language": "Which language do people speak in {city}?",
    "currency": "What do people pay with in {city}?",
}

BILINGUAL = Table(("list", "quote", "ask"), (6, 2, 1))
ENTRIES = {
    "noun": 2,
    "phrase": 3,
    "number": 2,
    "one clause": 5,
    "two clauses": 3,
    "three clauses": 1,
}
ASKED = ("noun", "phrase", "number")  # no sentence is ever asked for
NOUNS = Table(("noun", "phrase", "number"), (2, 3, 1))  # the object of a clause

UP_TO = {n: Table(range(1, n + 1), range(n + 1, 1, -1)) for n in range(1, 7)}  # small ones oftener
YES_OR_NO = Table((True, False))


def zipf(values: Sequence[T], kept: Callable[[T], bool] = lambda value: True) -> Table[T]:
    """Return a table by Zipf's law, of the values that are kept; each keeps its rank's weight.

    Raises ValueError if none is kept.
    """
    ranks = [rank for rank, value in enumerate(values) if kept(value)]
    return Table(
        [values[rank] for rank in ranks], [round(1e7 / (rank + 3) ** 1.25) for rank in ranks]
    )


@dataclass(frozen=True)
class LongTail:
    """The words and the facts of a world, each table in order of frequency."""

    lexicon: Lexicon
    cities: tuple[City, ...]


@cache
def real_world() -> LongTail:
    """Return the world of chapter 8: real words, real cities."""
    return LongTail(real_lexicon(), CITIES)


@cache
def invented_world(seed: int) -> LongTail:
    """Return a world of the same shape without a real word, to tune settings on."""
    return LongTail(invented_lexicon(seed), tuple(invented_facts(seed)[1]))


class Clause(NamedTuple):
    """Who did what to which thing or things, and perhaps where."""

    person: Person
    verb: Verb
    thing: Thing
    adjective: Word | None
    number: Word | None
    place: Word | None


class Event(NamedTuple):
    """What the writer of a post did, to which thing, where."""

    verb: Verb
    thing: Thing
    place: Word

    def __str__(self) -> str:
        """Sum it up."""
        return f"{self.verb.past} {with_article(self.thing.english)} at the {self.place.english}"


@dataclass
class Scene:
    """What was told so far, and what is so by now.

    Attributes:
        told: The sentences.
        names: The full name of each person, in the order in which they come in.
        has: The thing that each has now.
        at: Where those are who went somewhere.
        things: All things named, in order.
        changed: Who has another thing than at first.
    """

    names: dict[Person, str]
    has: dict[Person, Thing]
    told: list[str] = field(default_factory=list)
    at: dict[Person, Word] = field(default_factory=dict)
    things: list[Thing] = field(default_factory=list)
    changed: set[Person] = field(default_factory=set)

    def __str__(self) -> str:
        """Tell it."""
        return " ".join(self.told)

    def questions(self) -> list[tuple[str, str]]:
        """Return all that can be asked about it, with the answers."""
        return [
            (self.question(kind, person), answer)
            for person, kind in product(self.names, OWNER_QUESTIONS)
            if (answer := self.answer(kind, person))
        ]

    def question(self, kind: str, person: Person) -> str:
        """Ask one of `OWNER_QUESTIONS` about a person."""
        thing = self.has[person].english
        return OWNER_QUESTIONS[kind].format(who=self.names[person], thing=thing)

    def answer(self, kind: str, person: Person) -> str:
        """Answer one of `OWNER_QUESTIONS` about a person, with nothing where it cannot be known."""
        if kind == "where":
            return f"at the {self.at[person].english}" if person in self.at else ""
        return self.names[person] if kind == "who" else with_article(self.has[person].english)


class Grammar:
    """The tables of one world, and the genres that are written from them.

    With `held_out` the tables hold the other combinations: those that no page may use.
    """

    def __init__(self, world: LongTail, held_out: bool = False) -> None:
        self.world, self.held_out = world, held_out
        words = world.lexicon
        self.people, self.places = zipf(words.people), zipf(words.places)
        self.numbers = zipf(words.numbers)
        self.things, self.cities = zipf(words.things), zipf(world.cities)
        self.asked = zipf(world.cities, lambda city: self.allowed("question", city.name))
        self.turned = {
            point: Table(
                f"I {modal} {mind} that."
                for modal, mind in product(MODALS, MINDS)
                if (MODALS[modal] == MINDS[mind]) == point and self.allowed("remark", modal, mind)
            )
            for point in (True, False)
        }
        self.sayings = {point: Table(sayings) for point, sayings in SAYINGS.items()}
        self.translated = zipf(
            words.things, lambda t: bool(self.deeds_of(t) and self.adjectives_of(t))
        )
        # What follows from what was chosen before, made when it is first needed.
        self.deeds = cache(lambda thing: zipf(words.verbs, self.deeds_of(thing).__contains__))
        self.described = cache(lambda t: zipf(words.adjectives, self.adjectives_of(t).__contains__))
        self.done = cache(lambda thing: zipf(words.verbs, lambda v: self.may_say(v, thing)))
        self.uses = cache(lambda t: zipf(words.verbs, lambda v: v.keeps and self.may_say(v, t)))
        self.rivals = cache(self._rivals)
        self.scenes = cache(self._scenes)
        self.surnames = cache(self._surnames)
        self.owned = cache(lambda who: zipf(words.things, lambda t: self.may_have(who, t)))

    def allowed(self, kind: str, *words: str) -> bool:
        """Say whether a combination belongs to this grammar's side."""
        return is_held_out(kind, *words) == self.held_out

    def may_have(self, who: str, thing: Thing) -> bool:
        """Say whether somebody, by first and last name, may own a thing."""
        return self.allowed("owner", who, thing.english)

    def may_say(self, verb: Verb, thing: Thing) -> bool:
        """Say whether pages may tell of a deed in English: held out if it `is_telling`."""
        reading = verb.reading(thing)
        return reading is not None and not (
            is_telling(verb) and is_held_out("deed", verb.base, thing.english)
        )

    def deeds_of(self, thing: Thing) -> list[Verb]:
        """List what may be done to a thing beside Korean."""
        verbs = self.world.lexicon.verbs_of(thing)
        return [v for v in verbs if self.allowed("deed", v.base, thing.english)]

    def adjectives_of(self, thing: Thing) -> list[Word]:
        """List how a thing may be called beside Korean."""
        words = self.world.lexicon.adjectives
        return [a for a in words if self.allowed("phrase", a.english, thing.english)]

    def _rivals(self, scale: str, level: int) -> Table[Thing]:
        """Return the things that lie a little above and below a level."""
        return zipf(self.world.lexicon.things, lambda t: 0 < abs(getattr(t, scale) - level) <= NEAR)

    def _surnames(self, person: Person, thing: Thing) -> Table[str] | None:
        """Return by which last names a person may own a thing: by none, for a few held out."""
        surnames = self.world.lexicon.surnames
        kept = [s for s in surnames if self.may_have(f"{person.name} {s}", thing)]
        return Table(kept) if kept else None

    def _scenes(self, verb: Verb, thing: Thing) -> Table[Word]:
        """Return where a page may say that something was done."""
        words = (verb.base, thing.english)
        return zipf(self.world.lexicon.places, lambda p: self.allowed("post", *words, p.english))

    def genre(self, name: str) -> Callable[[Draw], str]:
        """Return the function that writes a genre."""
        if name not in GENRES:
            raise ValueError(f"no genre {name!r}: choose from {', '.join(GENRES)}")
        method: Callable[[Draw], str] = getattr(self, name)
        return method

    # Who has what

    def story(self, draw: Draw) -> str:
        """Write of people and things, and of what changes hands."""
        return str(self.scene(draw))

    def reading(self, draw: Draw) -> str:
        """Write a story, then questions about it."""
        scene = self.scene(draw)
        every = scene.questions()
        asked = draw.distinct(every, draw(UP_TO[min(5, len(every))]))
        return "\n".join([str(scene), *(f"Q: {q}\nA: {a}" for q, a in asked)])

    def scene(self, draw: Draw, n: int | None = None) -> Scene:
        """Let n people (else one to four) with a thing each do something."""
        n = n or draw(N_PEOPLE)
        people, things = draw.several(self.people, n), draw.several(self.things, n)
        owners = list(zip(people, things, strict=True))
        surnames = [self.surnames(person, thing) for person, thing in owners]
        if None in surnames:  # never in a page
            return self.scene(draw, n)
        names = {p: f"{p.name} {draw(s)}" for p, s in zip(people, surnames, strict=True) if s}
        scene = Scene(names, dict(owners), things=things)
        for person, thing in owners:
            form = draw(OWNERS)
            a_thing = with_article(thing.english)
            scene.told.append(form.format(who=names[person], thing=thing.english, a_thing=a_thing))
        for _ in range(draw(N_HAPPENINGS[n])):
            self.go_on(draw, scene)
        return scene

    def go_on(self, draw: Draw, scene: Scene) -> None:
        """Let one more thing happen."""
        person = draw(Table(scene.names))
        who, mine = scene.names[person], scene.has[person]
        others = [p for p in scene.names if p != person]
        partners = [p for p in others if self.may_swap(scene, person, p)]
        ruled_out = ({"meddle"} if not others else set()) | ({"swap"} if not partners else set())
        kinds = [kind for kind in HAPPENINGS if kind not in ruled_out]
        kind = draw(Table(kinds, [HAPPENINGS[kind] for kind in kinds]))
        if kind == "use":
            scene.told.append(f"{who} {draw(self.uses(mine)).past} the {mine.english}.")
        elif kind == "go":
            scene.at[person] = draw(self.places)
            scene.told.append(f"{who} went to the {scene.at[person].english}.")
        elif kind == "replace":
            new = draw.other(self.owned(who), scene.things)
            bought = with_article(new.english)
            scene.told.append(f"{who} sold the {mine.english} and bought {bought}.")
            scene.things.append(new)
            scene.has[person] = new
            scene.changed.add(person)
        elif kind == "meddle":
            other = draw(Table(others))
            deed = draw(self.uses(scene.has[other]))
            scene.told.append(
                f"{who} {deed.past} {scene.names[other]}'s {scene.has[other].english}."
            )
        else:
            other = draw(Table(partners))
            yours = scene.has[other]
            scene.told.append(
                f"{who} swapped the {mine.english} for {scene.names[other]}'s {yours.english}."
            )
            scene.has[person], scene.has[other] = yours, mine
            scene.changed |= {person, other}

    def may_swap(self, scene: Scene, one: Person, two: Person) -> bool:
        """Say whether each may have what the other has."""
        return all(self.may_have(scene.names[p], scene.has[q]) for p, q in ((one, two), (two, one)))

    # What is more

    def comparison(self, draw: Draw) -> str:
        """Compare things that are near each other on a scale, in statements or questions."""
        asked = draw(YES_OR_NO)
        write = self.asked_comparison if asked else self.told_comparison
        return ("\n" if asked else " ").join([write(draw) for _ in range(draw(UP_TO[3]))])

    def told_comparison(self, draw: Draw) -> str:
        """Say which of two things is more."""
        scale, a, b = self.neighbours(draw)
        if getattr(a, scale) < getattr(b, scale) and draw(COMPARISONS) == "not as":
            return f"{capital(a)} is not as {SCALES[scale][2]} as {with_article(b.english)}."
        return f"{capital(a)} is {comparative(scale, a, b)} than {with_article(b.english)}."

    def asked_comparison(self, draw: Draw) -> str:
        """Ask which of two things is more, or less."""
        scale, a, b = self.neighbours(draw)
        return "\nA: ".join(ask_which(scale, draw(YES_OR_NO), a, b))

    def neighbours(self, draw: Draw) -> tuple[str, Thing, Thing]:
        """Choose a scale and two things that are near each other on it."""
        scale, thing = draw(Table(SCALES)), draw(self.things)
        return scale, thing, draw(self.rivals(scale, getattr(thing, scale)))

    # What the point was

    def post(self, draw: Draw) -> str:
        """Tell of one's day; `TL;DR:` repeats the event whose remark makes it the point."""
        events = [self.event(draw) for _ in range(draw(UP_TO[6]))]
        point = draw(Table(range(len(events))))
        body = post(draw, events, [self.remark(draw, i == point) for i in range(len(events))])
        return f"{body}\nTL;DR: {events[point]}"

    def event(self, draw: Draw) -> Event:
        """Choose what was done to which thing, and where."""
        thing = draw(self.things)
        verb = draw(self.done(thing))
        return Event(verb, thing, draw(self.scenes(verb, thing)))

    def remark(self, draw: Draw, point: bool) -> str:
        """Say that an event was the point, or that it was not."""
        return draw((self.sayings if draw(YES_OR_NO) else self.turned)[point])

    # What it is in Korean

    def bilingual(self, draw: Draw) -> str:
        """Set English beside its Korean, as a list, in quotation marks or as a question."""
        style = draw(BILINGUAL)
        if style == "ask":
            return "\nA: ".join(ask_korean(*self.entry(draw, ASKED)))
        pairs = [self.entry(draw) for _ in range(draw(UP_TO[3]))]
        if style == "list":
            return "\n".join([f"{english} = {korean}" for english, korean in pairs])
        return " ".join([f'"{english}" is "{korean}" in Korean.' for english, korean in pairs])

    def entry(self, draw: Draw, kinds: Sequence[str] = tuple(ENTRIES)) -> tuple[str, str]:
        """Choose something said in both languages."""
        kind = draw(Table(kinds, [ENTRIES[kind] for kind in kinds]))
        if kind.endswith(("clause", "clauses")):
            n = ("one", "two", "three").index(kind.split()[0]) + 1
            return sentence(self.world.lexicon, [self.clause(draw) for _ in range(n)])
        return noun_phrase(*self.noun(draw, kind))

    def noun(self, draw: Draw, kind: str) -> tuple[Thing, Word | None, Word | None]:
        """Choose a thing, what it is like, and how many there are."""
        thing = draw(self.translated)
        adjective = None if kind == "noun" else draw(self.described(thing))
        return thing, adjective, draw(self.numbers) if kind == "number" else None

    def clause(self, draw: Draw) -> Clause:
        """Choose who did what, to which thing, and where."""
        thing, adjective, number = self.noun(draw, draw(NOUNS))
        verb = draw(self.deeds(thing))
        place = draw(self.scenes(verb, thing)) if draw(YES_OR_NO) else None
        return Clause(draw(self.people), verb, thing, adjective, number, place)

    # Which city lies where

    def encyclopedia(self, draw: Draw) -> str:
        """State a fact about each of one to three cities."""
        cities = draw.several(self.cities, draw(UP_TO[3]))
        return " ".join([self.statement(draw, city) for city in cities])

    def statement(self, draw: Draw, city: City) -> str:
        """State a fact about a city."""
        facts = facts_of(city)
        return draw(STATEMENTS[draw(Table(facts))]).format(city=city.name, **facts)

    def question(self, draw: Draw) -> str:
        """Ask and answer a question about each of one to three cities."""
        cities = draw.several(self.asked, draw(UP_TO[3]))
        return "\n".join(["\nA: ".join(ask_city(c, draw(Table(facts_of(c))))) for c in cities])


def is_telling(verb: Verb) -> bool:
    """Say whether a deed leaves a thing where it is and tells of which kind it is (*wore*)."""
    return verb.keeps and all(reading.tag != "any" for reading in verb.readings)


def facts_of(city: City) -> dict[str, str]:
    """Return what is known of a city, by the names that `CITY_QUESTIONS` uses."""
    country = city.country
    facts = {"country": country.name, "language": country.language, "currency": country.currency}
    return {name: fact for name, fact in facts.items() if fact}


def ask_city(city: City, name: str) -> tuple[str, str]:
    """Return the question for one fact about a city, and the answer."""
    return f"Q: {CITY_QUESTIONS[name].format(city=city.name)}", facts_of(city)[name]


def ask_korean(english: str, korean: str) -> tuple[str, str]:
    """Return the question for a translation, and the answer."""
    return f'Q: How do you say "{english}" in Korean?', korean


def ask_which(scale: str, more: bool, a: Thing, b: Thing) -> tuple[str, str]:
    """Return the question which of two things is more, or less, and the answer."""
    first, second = with_article(a.english), with_article(b.english)
    is_first = (getattr(a, scale) > getattr(b, scale)) == more
    word = SCALES[scale][0 if more else 1]
    return f"Q: Which is {word}, {first} or {second}?", first if is_first else second


def capital(thing: Thing) -> str:
    """Start a sentence with a thing."""
    words = with_article(thing.english)
    return words[0].upper() + words[1:]


def comparative(scale: str, a: Thing, b: Thing) -> str:
    """Say what a is beside b."""
    return SCALES[scale][0 if getattr(a, scale) > getattr(b, scale) else 1]


def post(draw: Draw, events: Iterable[Event], remarks: Iterable[str]) -> str:
    """Tell the events of a day, each with its remark."""
    return " ".join(
        [
            draw(EVENTS).format(
                deed=event,
                did=event.verb.past,
                thing=with_article(event.thing.english),
                place=event.place.english,
            )
            + f" {remark}"
            for event, remark in zip(events, remarks, strict=True)
        ]
    )


def noun_phrase(thing: Thing, adjective: Word | None, number: Word | None) -> tuple[str, str]:
    """Name a thing or several in both languages, without an article."""
    english, korean = thing.plural if number else thing.english, thing.korean
    if adjective:
        pairs, of, boots = english.rpartition("pairs of ")
        english, korean = f"{pairs}{of}{adjective.english} {boots}", f"{adjective.korean} {korean}"
    if number:
        english, korean = f"{number.english} {english}", f"{korean} {number.korean} {thing.counter}"
    return english, korean


def sentence(lexicon: Lexicon, clauses: Sequence[Clause]) -> tuple[str, str]:
    """Say one clause or more in both languages: 톰은 모자를 썼고 안나는 구두를 신었어요."""
    english, korean = [], []
    for i, (person, verb, thing, adjective, number, place) in enumerate(clauses):
        what, ko = noun_phrase(thing, adjective, number)
        polite, connective = lexicon.translate_verb(verb, thing)
        done = polite if i == len(clauses) - 1 else connective
        where = f" at the {place.english}" if place else ""
        here = f"{place.korean}에서 " if place else ""
        english.append(f"{person.name} {verb.past} {what if number else with_article(what)}{where}")
        korean.append(f"{topic(person.korean)} {here}{direct_object(ko)} {done}")
    return " and ".join(english), " ".join(korean)


@cache
def grammar_of(world: LongTail, held_out: bool = False) -> Grammar:
    """Return the grammar of a world, built once."""
    return Grammar(world, held_out)


def documents(
    seed: int, world: LongTail, genres: Mapping[str, int] | None = None
) -> Iterator[Document]:
    """Write documents without end, the same for a seed on every machine.

    Args:
        seed: A whole number from 0; seeds give independent streams.
        world: `real_world()` or an `invented_world`.
        genres: Names out of `GENRES` with whole-number shares; `GENRES` if left out.

    Raises:
        ValueError: The seed is negative or a genre is unknown.
    """
    if operator.index(seed) < 0:
        raise ValueError(f"seed {seed} must not be negative")
    grammar, shares = grammar_of(world), GENRES if genres is None else genres
    return _stream(Draw(Random(seed).random), {g: grammar.genre(g) for g in shares}, shares)


def _stream(
    draw: Draw, write: Mapping[str, Callable[[Draw], str]], shares: Mapping[str, int]
) -> Iterator[Document]:
    genres = Table(shares, shares.values())
    while True:
        draw.logprob = 0.0
        genre = draw(genres)
        text = write[genre](draw)
        yield Document(text, genre, draw.logprob)

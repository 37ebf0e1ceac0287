"""The grammar of the miniweb: seven genres, each a function from choices to text.

One text has one derivation: every choice leaves its mark on the text, so the log-probabilities of
the choices add up to that of the text.
"""

import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from random import Random

from miniweb.choices import Draw, Table
from miniweb.facts import Country
from miniweb.korean import CHAT_LINES, SAYINGS, ChatLine, event_in_korean, topic
from miniweb.world import SMALL, Person, Verb, Word, World, is_held_out

GENRES = {
    "story": 19,
    "reading": 25,
    "encyclopedia": 15,
    "question": 10,
    "post": 14,
    "bilingual": 14,
    "chat": 3,
}

WHEN = Table(("One day", "One morning", "Yesterday", "Last week"), (4, 3, 2, 1))
MOODS = {
    "good": Table(("happy", "proud", "tired"), (6, 3, 1)),
    "bad": Table(("sad", "angry", "tired"), (6, 3, 1)),
}
STORY_ENDS = Table(  # what the person carries, and how it ends
    (
        ("", "Then {pronoun} went home."),
        ("", "{friend} was there too."),
        ("", "Later {pronoun} told {friend} about it."),
    ),
    (3, 2, 2),
)
RETELLING_ENDS = Table(
    (
        *STORY_ENDS.values,
        (" with {other}", "Later {pronoun} showed {friend} the {thing}."),
        ("", "{friend} came with {other} and asked about the {thing}."),
    ),
    (3, 2, 2, 4, 4),
)

EVENTS = Table(
    ("{who} {did} {thing} at the {place}.", "At the {place}, {who} {did} {thing}."), (3, 1)
)
STORY_OR_EVENTS = Table(("story", "events"))  # what questions are about, in a world that retells
READING_QUESTIONS = {
    "what": ("What did {who} {do}?", "{thing}"),
    "where": ("Where was {who}?", "the {place}"),
    "who": ("Who {did} {thing}?", "{who}"),
}

STATEMENTS = {
    "capital": Table(
        ("The capital of {country} is {fact}.", "{fact} is the capital of {country}.")
    ),
    "continent": Table(("{Country} is a country in {fact}.", "{Country} lies in {fact}.")),
    "city": Table(("{fact} is a city in {country}.", "One of the cities in {country} is {fact}.")),
    "currency": Table(
        ("The currency of {country} is the {fact}.", "People in {country} pay with the {fact}.")
    ),
    "language": Table(("Many people in {country} speak {fact}.", "{fact} is spoken in {country}.")),
}
COUNTRY_QUESTIONS = {
    "capital": "What is the capital of {country}?",
    "continent": "Which continent is {country} in?",
    "city": "What is another city in {country}?",
    "currency": "What is the currency of {country}?",
    "language": "Which language do many people speak in {country}?",
}
ANSWERS = Table(("Q: {}\nA: {}", "Question: {}\nAnswer: {}"), (4, 1))

POST_WHEN = Table(("Yesterday", "Today", "Last week", "On Sunday"), (4, 3, 2, 1))
COMPANY = Table(("brother", "sister", "mother", "father", "friend"))
REMARKS = (
    "It was raining all day.",
    "The weather was very nice.",
    "There were many people.",
    "We had lunch first.",
    "The bus was late again.",
    "My phone was dead.",
    "I was a little tired.",
    "It was not my first time.",
)
POSTS = Table(
    (
        "{when} I went to the {place} with my {company}. {remark} I {did} {thing} there.",
        "{when} I {did} {thing} at the {place}. {remark} My {company} was with me.",
        "{when} I was at the {place}. I {did} {thing}. My {company} was surprised. {remark}",
    ),
    (2, 1, 1),
)
POST_ENDS = Table(
    ("\nTL;DR: {summary}", "\nThanks for reading!\nTL;DR: {summary}", "\nThanks for reading!"),
    (6, 3, 1),
)

BILINGUAL = Table(("list", "quote", "ask"), (5, 4, 1))
ENTRIES = {"phrase": 8, "event": 7, "place": 2, "noun": 2, "saying": 1, "country": 2}
ASKED = ("phrase", "noun", "saying", "country")  # no sentence is ever asked for

UP_TO = {n: Table(range(1, n + 1), range(n + 1, 1, -1)) for n in range(1, 6)}  # small ones oftener


@dataclass(frozen=True, slots=True)
class Document:
    """A text of the miniweb, its genre, and its exact log-probability in nats.

    The probability is that of drawing this genre and then this text, out of all documents.
    """

    text: str
    genre: str
    logprob: float


def with_article(words: str) -> str:
    """Put a or an before a noun phrase."""
    vowel = words[0] in "aeiou" and not words.startswith(("uni", "use"))
    return f"{'an' if vowel else 'a'} {words}"


def describe(person: Person, verb: Verb, thing: Word, place: str) -> dict[str, str]:
    """Return the words of an event, by the names that `EVENTS` and `READING_QUESTIONS` use."""
    return {
        "who": person.name,
        "do": verb.base,
        "did": verb.past,
        "thing": with_article(thing.english),
        "place": place,
    }


def ask(event: Mapping[str, str], kind: str) -> tuple[str, str]:
    """Return a question about an event (what, where or who), and its answer."""
    question, answer = READING_QUESTIONS[kind]
    return question.format(**event), answer.format(**event)


def ask_country(country: Country, name: str) -> tuple[str, str]:
    """Return the question for one attribute of a country, and its answer."""
    return COUNTRY_QUESTIONS[name].format(country=country.name), getattr(country, name)


class Grammar:
    """The tables of one world, and the genres that are written from them.

    With `held_out` the tables hold the other combinations: those that no document may use.
    """

    def __init__(self, world: World = SMALL, held_out: bool = False) -> None:
        def allowed(kind: str, *words: str) -> bool:
            return is_held_out(kind, *words) == held_out

        self.world = world
        self.people = Table(world.people)
        self.places = Table(world.places)
        self.things = Table(world.things)
        self.countries = Table(world.countries)
        self.sayings = Table(SAYINGS)
        self.story_ends = RETELLING_ENDS if world.retells else STORY_ENDS
        self.phrases = Table(
            (a, t)
            for a, t in product(world.adjectives, world.things)
            if allowed("phrase", a.english, t.english)
        )
        self.described = {
            t: Table(with_article(f"{a.english} {t.english}") for a in world.adjectives)
            for t in world.things
        }
        self.friends = {p: Table(q for q in world.people if q != p) for p in world.people}
        self.others = {t: Table(u for u in world.things if u != t) for t in world.things}
        self.deeds = {  # what a person may do with a thing
            (p, t): Table(verbs)
            for p, t in product(world.people, world.things)
            if (verbs := [v for v in world.verbs if allowed("event", p.name, v.base, t.english)])
        }
        self.posts = Table(
            (v, t, p)
            for v, t, p in product(world.verbs, world.things, world.places)
            if allowed("post", v.base, t.english, p.english)
        )
        self.asked = tuple(
            (c, name) for c, name in world.facts if allowed("question", c.name, name)
        )
        self.told = {
            c: tuple(name for country, name in world.facts if country == c) for c in world.countries
        }
        self.chat_starts = Table(CHAT_LINES)
        self.chat_lines = {
            before: Table(lines, [line.weight for line in lines])
            for before, all_lines in CHAT_LINES.items()
            if (lines := [line for line in all_lines if allowed("chat", line.before, line.after)])
        }
        if not held_out and len(self.deeds) < world.n_people * world.n_things:
            raise ValueError("too few verbs: some person can do nothing with some thing")
        if not self.asked:
            raise ValueError("too few countries: nothing may be asked of them")

    def genre(self, name: str) -> Callable[[Draw], str]:
        """Return the function that writes a genre."""
        if name not in GENRES:
            raise ValueError(f"no genre {name!r}: choose from {', '.join(GENRES)}")
        method: Callable[[Draw], str] = getattr(self, name)
        return method

    def story(self, draw: Draw) -> str:
        """Write of a person, a place, a thing, a feeling and perhaps a friend."""
        return self.tell(draw)[0]

    def tell(self, draw: Draw) -> tuple[str, dict[str, str]]:
        """Write a story; return it with its event."""
        person, thing = draw(self.people), draw(self.things)
        verb = draw(self.deeds[person, thing])
        carried, end = draw(self.story_ends)
        words = {"pronoun": person.pronoun, "thing": thing.english}
        if "{friend}" in end:
            words["friend"] = draw(self.friends[person]).name
        if "{other}" in carried + end:
            words["other"] = with_article(draw(self.others[thing]).english)
        when, place = draw(WHEN), draw(self.places).english
        text = (
            f"{when} {person.name} went to the {place}{carried}. "
            f"There {person.pronoun} {verb.past} {draw(self.described[thing])}. "
            f"{person.pronoun.title()} was {draw(MOODS[verb.mood])}. {end}"
        ).format(**words)
        return text, describe(person, verb, thing, place)

    def reading(self, draw: Draw) -> str:
        """Write a passage of events, or a story, then questions about it."""
        if self.world.retells and draw(STORY_OR_EVENTS) == "story":
            passage, event = self.tell(draw)
            events = [event]
        else:
            events = self.events(draw, draw(UP_TO[self.world.n_events]))
            passage = self.passage(draw, events)
        questions = tuple(product(events, READING_QUESTIONS))
        asked = draw.distinct(questions, draw(UP_TO[min(self.world.n_questions, len(questions))]))
        return "\n".join([passage, *("Q: {}\nA: {}".format(*ask(e, kind)) for e, kind in asked)])

    def events(self, draw: Draw, n: int) -> list[dict[str, str]]:
        """Choose n events of different people and different things."""
        people = draw.distinct(self.world.people, n)
        things = draw.distinct(self.world.things, n)
        return [self.event(draw, p, t) for p, t in zip(people, things, strict=True)]

    def passage(self, draw: Draw, events: Iterable[Mapping[str, str]]) -> str:
        """Tell the events, a sentence each."""
        return " ".join([draw(EVENTS).format(**event) for event in events])

    def event(self, draw: Draw, person: Person, thing: Word) -> dict[str, str]:
        """Choose what a person does with a thing, and where."""
        verb = draw(self.deeds[person, thing])
        return describe(person, verb, thing, draw(self.places).english)

    def encyclopedia(self, draw: Draw) -> str:
        """State true facts about one country or two."""
        countries = draw.distinct(self.world.countries, draw(UP_TO[min(2, self.world.n_countries)]))
        return " ".join([self.paragraph(draw, country) for country in countries])

    def paragraph(self, draw: Draw, country: Country) -> str:
        """State one or more facts about a country."""
        told = self.told[country]
        names = draw.distinct(told, draw(UP_TO[min(3, len(told))]))
        return " ".join([self.fact(draw, country, name) for name in names])

    def fact(self, draw: Draw, country: Country, name: str) -> str:
        """State one fact about a country."""
        return draw(STATEMENTS[name]).format(
            country=country.name,
            Country=country.name[0].upper() + country.name[1:],
            fact=getattr(country, name),
        )

    def question(self, draw: Draw) -> str:
        """Ask and answer questions about countries."""
        style = draw(ANSWERS)
        asked = draw.distinct(self.asked, draw(UP_TO[min(3, len(self.asked))]))
        return "\n".join([style.format(*ask_country(*pair)) for pair in asked])

    def post(self, draw: Draw) -> str:
        """Tell of one's own day, mostly with a summary at the end."""
        verb, thing, place = draw(self.posts)
        body = draw(POSTS).format(
            when=draw(POST_WHEN),
            place=place.english,
            company=draw(COMPANY),
            did=verb.past,
            thing=draw(self.described[thing]),
            remark=" ".join(draw.distinct(REMARKS, draw(UP_TO[2]))),
        )
        summary = f"{verb.past} {with_article(thing.english)} at the {place.english}"
        return body + draw(POST_ENDS).format(summary=summary)

    def bilingual(self, draw: Draw) -> str:
        """Set English beside its Korean, as a list, in quotation marks or as questions."""
        style = draw(BILINGUAL)
        if style == "list":
            pairs = [self.entry(draw) for _ in range(draw(UP_TO[4]))]
            return "\n".join([f"{english} = {korean}" for english, korean in pairs])
        if style == "quote":
            pairs = [self.entry(draw) for _ in range(draw(UP_TO[2]))]
            return " ".join([f'"{english}" is "{korean}" in Korean.' for english, korean in pairs])
        english, korean = self.entry(draw, ASKED)
        return f'Q: How do you say "{english}" in Korean?\nA: {korean}'

    def entry(self, draw: Draw, kinds: tuple[str, ...] = tuple(ENTRIES)) -> tuple[str, str]:
        """Choose something said in both languages."""
        kind = draw(entry_table(kinds))
        if kind == "phrase":
            adjective, thing = draw(self.phrases)
            words = f"the {adjective.english} {thing.english}"
            return words, f"{adjective.korean} {thing.korean}"
        if kind == "event":
            adjective, thing = draw(self.phrases)
            person = draw(self.people)
            return sentence(person, draw(self.deeds[person, thing]), adjective, thing)
        if kind == "place":
            person, place = draw(self.people), draw(self.places)
            english = f"{person.name} was at the {place.english}"
            return english, f"{topic(person.korean)} {place.korean}에 있었어요"
        if kind == "country":
            country = draw(self.countries)
            return country.name, country.korean
        return draw(self.things if kind == "noun" else self.sayings)

    def chat(self, draw: Draw) -> str:
        """Write lines of plain Korean chat."""
        return "\n".join([str(self.chat_line(draw)) for _ in range(draw(UP_TO[3]))])

    def chat_line(self, draw: Draw) -> ChatLine:
        """Choose one line of chat."""
        return draw(self.chat_lines[draw(self.chat_starts)])


@lru_cache
def entry_table(kinds: tuple[str, ...]) -> Table[str]:
    """Return the choice among kinds of bilingual entries."""
    return Table(kinds, [ENTRIES[kind] for kind in kinds])


def sentence(person: Person, verb: Verb, adjective: Word, thing: Word) -> tuple[str, str]:
    """Say who did what in both languages."""
    english = f"{person.name} {verb.past} the {adjective.english} {thing.english}"
    return english, event_in_korean(person, verb, adjective, thing)


@lru_cache(maxsize=8)
def grammar_of(world: World, held_out: bool = False) -> Grammar:
    """Return the grammar of a world, built once."""
    return Grammar(world, held_out)


def documents(
    seed: int,
    world: World = SMALL,
    genres: Collection[str] | Mapping[str, int] | None = None,
) -> Iterator[Document]:
    """Write documents without end, the same for a seed on every machine.

    Args:
        seed: A whole number from 0; seeds give independent streams.
        world: How large the vocabulary is: `SMALL`, `LARGE` or your own `World`.
        genres: Names out of `GENRES`, or names with whole-number shares; all if left out.

    Raises:
        ValueError: The seed is negative or a genre is unknown.
    """
    if operator.index(seed) < 0:
        raise ValueError(f"seed {seed} must not be negative")
    return _stream(Draw(Random(seed).random), grammar_of(world), genre_table(genres))


def genre_table(genres: Collection[str] | Mapping[str, int] | None = None) -> Table[str]:
    """Return the choice among genres, in the shares of `GENRES` unless others are given."""
    chosen = GENRES if genres is None else genres
    if isinstance(chosen, str) or not set(chosen) <= set(GENRES):
        raise ValueError(f"genres {chosen!r}: give names out of {', '.join(GENRES)}")
    shares = chosen if isinstance(chosen, Mapping) else GENRES
    names = [name for name in GENRES if name in chosen]
    return Table(names, [shares[name] for name in names])


def _stream(draw: Draw, grammar: Grammar, genres: Table[str]) -> Iterator[Document]:
    write = {name: grammar.genre(name) for name in genres.values}
    while True:
        draw.logprob = 0.0
        genre = draw(genres)
        text = write[genre](draw)
        yield Document(text, genre, draw.logprob)

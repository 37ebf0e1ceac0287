"""What is held out, the proof that it stays out, questions about it, and the corpus's entropy."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product
from math import log, sqrt
from random import Random
from typing import NamedTuple

from miniweb.choices import Draw, Table
from miniweb.grammar import (
    READING_QUESTIONS,
    Grammar,
    ask,
    ask_country,
    documents,
    grammar_of,
    sentence,
    with_article,
)
from miniweb.korean import CHAT_EVENTS, CHAT_LINES
from miniweb.world import SMALL, World, is_held_out

TASKS = (
    "phrase",
    "sentence",
    "question",
    "summary",
    *READING_QUESTIONS,
    "reading",
    "cloze",
    "choice",
    "gap",
)


class Leak(NamedTuple):
    """A held-out combination found in a text."""

    kind: str
    words: tuple[str, ...]
    text: str


class Item(NamedTuple):
    """A prompt about a held-out combination and the one right answer, without a space before it.

    If the prompt has a gap, `___`, the answer fills it; otherwise it follows. `candidates` are the
    words to choose from, the answer among them, where the task offers any.
    """

    prompt: str
    answer: str
    candidates: tuple[str, ...] = ()

    def filled(self, words: str) -> str:
        """Put words where the answer belongs."""
        gap = "___" in self.prompt
        return self.prompt.replace("___", words) if gap else f"{self.prompt} {words}"


class Estimate(NamedTuple):
    """A mean and its standard error."""

    mean: float
    error: float


def combinations(kind: str, world: World = SMALL) -> Iterator[tuple[str, ...]]:
    """Write out every combination of a kind, held out or not."""
    verbs = [verb.base for verb in world.verbs]
    things = [thing.english for thing in world.things]
    if kind == "phrase":
        return product([adjective.english for adjective in world.adjectives], things)
    if kind == "post":
        return product(verbs, things, [place.english for place in world.places])
    if kind == "event":
        return product([person.name for person in world.people], verbs, things)
    if kind == "question":
        return ((country.name, name) for country, name in world.facts)
    if kind == "chat":
        pairs = ((line.before, line.after) for lines in CHAT_LINES.values() for line in lines)
        return iter(dict.fromkeys(pairs))
    raise ValueError(f"no combinations {kind!r}: choose phrase, post, event, question or chat")


def held_out(kind: str, world: World = SMALL) -> tuple[tuple[str, ...], ...]:
    """List the combinations that never occur.

    Args:
        kind: `phrase` (adjective, noun: never in or beside Korean), `post` (verb, noun, place:
            never the event of a post), `event` (person, verb, noun: never together), `question`
            (country, attribute: never asked) or `chat` (start, end of a chat line).
        world: The vocabulary.
    """
    return tuple(words for words in combinations(kind, world) if is_held_out(kind, *words))


class Search:
    """Look for held-out combinations by their words alone, knowing nothing of the grammar."""

    def __init__(self, world: World) -> None:
        self.people = {person.name for person in world.people}
        self.verbs = {form: v.base for v in world.verbs for form in (v.base, v.past)}
        self.things = {thing.english for thing in world.things}
        self.places = {place.english for place in world.places}
        self.attributes = world.attributes
        self.countries = one_of(country.name for country in world.countries)
        words = [*world.adjectives, *world.things]
        self.english = {word.english: word.english for word in words}
        self.english |= {word.korean: word.english for word in words}
        self.pairs = tuple(
            re.compile(rf"({'|'.join(first)})\s+({'|'.join(second)})")
            for first, second in (
                ([rf"\b{w.english}" for w in words], [rf"{w.english}\b" for w in words]),
                ([w.korean for w in world.adjectives], [w.korean for w in world.things]),
            )
        )
        self.chat = {f"{before} {after}": (before, after) for before, after in combinations("chat")}

    def candidates(self, text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Find every combination in a text that could have been held out."""
        if re.search("[가-힣]", text):
            yield from (("phrase", pair) for pair in self.phrases(text))
            yield from (("chat", pair) for pair in self.chat_pairs(text))
        elif "TL;DR" in text or re.search(r"\bI\b", text):
            words = set(re.findall(r"\w+", text))
            deeds = self.deeds(words)
            yield from (("post", (*deed, p)) for deed, p in product(deeds, words & self.places))
        carried: set[str] = set()  # whom he and she mean
        for unit in re.split(r"(?<=[.!])\s+|\n(?!A:|Answer:)", text):
            words = set(re.findall(r"\w+", unit))
            named = words & self.people
            who = named or (carried if words & {"he", "she", "He", "She"} else named)
            carried = who or carried
            yield from (("event", (p, *deed)) for p, deed in product(who, self.deeds(words)))
            if "?" in unit:
                asked = product(self.countries.findall(unit), words & set(self.attributes))
                yield from (("question", pair) for pair in asked)

    def deeds(self, words: set[str]) -> list[tuple[str, str]]:
        """Pair the verbs among some words with the things among them."""
        verbs = [self.verbs[word] for word in words & self.verbs.keys()]
        return list(product(verbs, words & self.things))

    def phrases(self, text: str) -> Iterator[tuple[str, str]]:
        """Find words that stand side by side, in English or Korean, as English pairs."""
        for pattern in self.pairs:
            for first, second in pattern.findall(text):
                yield self.english[first], self.english[second]

    def chat_pairs(self, text: str) -> Iterator[tuple[str, str]]:
        """Find how chat lines start and end, whatever word stands between."""
        for line in text.splitlines():
            shortened = re.sub(r" (거기|걔|그거|그때) ", " ", line)
            if shortened in self.chat:
                yield self.chat[shortened]


def one_of(names: Iterable[str]) -> re.Pattern[str]:
    """Match any of some names as whole words, the longest where several fit."""
    ordered = sorted(names, key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, ordered))})\b")


def find_leaks(texts: Iterable[str], world: World = SMALL) -> list[Leak]:
    """Search texts for held-out combinations; an empty list is the proof that none occurs.

    The search reads words, not derivations: a phrase leaks by standing in a text with Korean, in
    either language; an event by a person (or the pronoun for one), a verb and a noun in one
    sentence or question with its answer; a post by verb, noun and place anywhere in a text in the
    first person; a question by country and attribute in one question.
    """
    search = Search(world)
    return [
        Leak(kind, words, text)
        for text in texts
        for kind, words in dict.fromkeys(search.candidates(text))
        if is_held_out(kind, *words)
    ]


def test_items(task: str, seed: int, n: int, world: World = SMALL) -> list[Item]:
    """Draw n prompts with answers about combinations that no document holds.

    Args:
        task: One of `TASKS`. `phrase` and `sentence` translate (`the red apple =`); `question` asks
            for a fact that stands in encyclopedia pages only; `summary` ends in `TL;DR:`; `what`,
            `where` and `who` ask about a passage of `world.n_events` held-out events; `reading`
            asks what somebody did in a story of two things, and `cloze` leaves out the last word
            of one, which names a thing again; `choice` leaves an adjective to its translation,
            and `gap` a word of chat to both sides.
        seed: A whole number from 0.
        n: How many; the same item may come twice.
        world: The vocabulary.

    Raises:
        ValueError: The task is unknown, or `reading` or `cloze` in a world that does not retell.
    """
    if task not in TASKS:
        raise ValueError(f"no task {task!r}: choose from {', '.join(TASKS)}")
    if task in ("reading", "cloze") and not world.retells:
        raise ValueError("no story of this world has a second thing: take a world that retells")
    held, seen = grammar_of(world, held_out=True), grammar_of(world)
    draw = Draw(Random(seed).random)
    return [_item(task, draw, held, seen) for _ in range(n)]


def _item(task: str, draw: Draw, held: Grammar, seen: Grammar) -> Item:
    if task in READING_QUESTIONS:
        return _reading_item(task, draw, held)
    if task in ("reading", "cloze"):
        return _story_item(task, draw, held)
    if task == "summary":
        body, mark, summary = held.post(draw).partition("TL;DR:")
        return Item(body + mark, summary.strip()) if mark else _item(task, draw, held, seen)
    if task == "question":
        question, answer = ask_country(*draw(Table(held.asked)))
        return Item(f"Q: {question}\nA:", answer)
    if task == "gap":
        line = draw(draw(Table(held.chat_lines.values())))
        return Item(f"{line.before} ___ {line.after}", line.word, tuple(CHAT_EVENTS))
    adjective, thing = draw(held.phrases)
    if task == "phrase":
        words = f"the {adjective.english} {thing.english}"
        return Item(f"{words} =", f"{adjective.korean} {thing.korean}")
    person = draw(seen.people)
    english, korean = sentence(person, draw(seen.deeds[person, thing]), adjective, thing)
    if task == "sentence":
        return Item(f"{english} =", korean)
    rivals = [a.english for a in held.world.adjectives if a != adjective]
    pair = draw.distinct([adjective.english, draw(Table(rivals))], 2)
    gap = english.replace(f" {adjective.english} ", " ___ ")
    return Item(f"{gap} = {korean}", adjective.english, tuple(pair))


def _story_item(task: str, draw: Draw, held: Grammar) -> Item:
    things = {thing.english for thing in held.world.things}
    while True:  # until two things are named, by one who can do something held out with the first
        try:
            story, event = held.tell(draw)
        except KeyError:
            continue
        body, _, last = story.rstrip(".").rpartition(" ")
        named = tuple(word for word in re.findall(r"\w+", body) if word in things)
        if len(named) == 2 and task == "cloze":
            return Item(body, last, named)
        if len(named) == 2:
            question, answer = ask(event, "what")
            return Item(f"{story}\nQ: {question}\nA:", answer, tuple(map(with_article, named)))


def _reading_item(kind: str, draw: Draw, held: Grammar) -> Item:
    while True:  # a few people can do with a few things nothing that is held out: draw again
        try:
            events = held.events(draw, held.world.n_events)
        except KeyError:
            continue
        question, answer = ask(draw(Table(events)), kind)
        offered = tuple(dict.fromkeys(ask(event, kind)[1] for event in events))
        return Item(f"{held.passage(draw, events)}\nQ: {question}\nA:", answer, offered)


@dataclass(frozen=True, slots=True)
class Entropy:
    """How much there is to know in the corpus: no model can do better on fresh documents.

    Attributes:
        per_document: Nats a document.
        per_byte: Nats a byte of UTF-8 text; separators between documents are not counted.
        bits_per_byte: The same in bits.
        by_genre: Nats a document of each genre; the choice of the genre is part of it.
    """

    per_document: Estimate
    per_byte: Estimate
    bits_per_byte: Estimate
    by_genre: dict[str, Estimate]


def entropy(
    n_documents: int,
    seed: int,
    world: World = SMALL,
    genres: Collection[str] | Mapping[str, int] | None = None,
) -> Entropy:
    """Estimate the entropy of the corpus from the exact log-probabilities of fresh documents.

    Raises:
        ValueError: There are fewer than two documents.
    """
    if n_documents < 2:
        raise ValueError("an estimate with its error needs at least two documents")
    nats, sizes, by_genre = [], [], defaultdict(list)
    for document in islice(documents(seed, world, genres), n_documents):
        nats.append(-document.logprob)
        sizes.append(len(document.text.encode()))
        by_genre[document.genre].append(-document.logprob)
    rate = sum(nats) / sum(sizes)
    # The error of a ratio is that of its residuals (delta method).
    residuals = _estimate([x - rate * size for x, size in zip(nats, sizes, strict=True)])
    error = residuals.error * n_documents / sum(sizes)
    return Entropy(
        per_document=_estimate(nats),
        per_byte=Estimate(rate, error),
        bits_per_byte=Estimate(rate / log(2), error / log(2)),
        by_genre={genre: _estimate(by_genre[genre]) for genre in sorted(by_genre)},
    )


def _estimate(values: list[float]) -> Estimate:
    n = len(values)
    mean = sum(values) / n
    variance = sum((value - mean) ** 2 for value in values) / max(n - 1, 1)
    return Estimate(mean, sqrt(variance / n))

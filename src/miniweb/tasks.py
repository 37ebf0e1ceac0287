"""Test items of the world with a long tail: pairs of questions, about what no page says.

Items 2k and 2k + 1 are about one text or one pair of things and have different answers: only both
right are a success, so that a rule which always points to the same place scores nothing. `level`
says where the dial of the task stands.
"""

import re
from collections.abc import Callable
from functools import cache, partial
from itertools import cycle, islice, pairwise, product
from random import Random
from typing import NamedTuple

from miniweb.choices import Draw, Table
from miniweb.grammar import with_article
from miniweb.lexicon import Thing
from miniweb.longtail import (
    SCALES,
    Grammar,
    LongTail,
    Scene,
    ask_city,
    ask_which,
    facts_of,
    grammar_of,
    is_telling,
    post,
    sentence,
    zipf,
)
from miniweb.world import Person


class Item(NamedTuple):
    """A prompt and the one right answer, without a space before it.

    `candidates` are the things to choose from that the prompt names, where the answer is one.
    """

    prompt: str
    answer: str
    candidates: tuple[str, ...] = ()
    level: str = ""


Pair = tuple[Item, Item]


class Source(NamedTuple):
    """What pairs are drawn from: choices, what pages may say, and what none says."""

    draw: Draw
    seen: Grammar
    held: Grammar


def translation(source: Source, n_clauses: int, kind: str) -> Pair | None:
    """Translate two sentences that differ in one thing; with `two verbs`, in Korean in two words.

    With `one verb`, what is done is said alike of both things.
    """
    draw, lexicon = source.draw, source.held.world.lexicon
    clauses = [source.held.clause(draw) for _ in range(n_clauses)]
    place = draw(Table(range(n_clauses)))
    old = clauses[place]

    def is_new(thing: Thing) -> bool:
        """Say whether no page may say this of a thing, in these or other words."""
        said = old.verb.reading(thing)
        same = [
            verb
            for verb in lexicon.verbs_of(thing)
            if said and (reading := verb.reading(thing)) and reading.korean == said.korean
        ]
        return bool(same) and all(source.held.allowed("deed", v.base, thing.english) for v in same)

    def fits(thing: Thing) -> bool:
        reading, allowed = old.verb.reading(thing), source.held.allowed
        if not reading or thing == old.thing:
            return False
        same = reading.korean == lexicon.translate_verb(old.verb, old.thing)[0]
        what = old.adjective is None or allowed("phrase", old.adjective.english, thing.english)
        where = old.place is None or allowed(
            "post", old.verb.base, thing.english, old.place.english
        )
        return same == (kind == "one verb") and what and where and is_new(thing)

    if not is_new(old.thing) or not any(map(fits, lexicon.things)):
        return None
    shown = " = ".join(sentence(lexicon, [source.seen.clause(draw)]))
    items = []
    for thing in (old.thing, draw(zipf(lexicon.things, fits))):
        clauses[place] = old._replace(thing=thing)
        english, korean = sentence(lexicon, clauses)
        items.append(Item(f"{shown}\n{english} =", korean))
    return items[0], items[1]


def summary(source: Source, n_events: int, kind: str) -> Pair:
    """Sum up one post twice, with the point at another event.

    A remark is `turned`, a modal and a verb that agree or not, or a `new` pair of these.
    """
    draw = source.draw
    tables = (source.held if kind == "new" else source.seen).turned
    events = [source.held.event(draw) for _ in range(n_events)]
    if len({str(event) for event in events}) < n_events:
        return summary(source, n_events, kind)
    items = []
    for point in draw.distinct(range(n_events), 2):
        body = post(draw, events, [draw(tables[i == point]) for i in range(n_events)])
        items.append(Item(f"{body}\nTL;DR:", str(events[point]), tuple(map(str, events))))
    return items[0], items[1]


def question(source: Source, start: int, end: int) -> Pair | None:
    """Ask for two facts about a city, by its rank, about which no page asks anything."""
    cities = source.held.world.cities[start:end]
    city = source.draw(Table([c for c in cities if source.held.allowed("question", c.name)]))
    facts = facts_of(city)
    items = []
    for name in source.draw.distinct(tuple(facts), 2):
        asked, answer = ask_city(city, name)
        items.append(Item(f"{asked}\nA:", answer))
    return items[0], items[1]


def choice(source: Source, least: int, most: int) -> Pair | None:
    """Ask which of two things is more, and which is less; pages compare things that are near."""
    scale = source.draw(Table(SCALES))
    a, b = source.draw.several(source.seen.things, 2)
    if not least <= abs(getattr(a, scale) - getattr(b, scale)) <= most:
        return None
    offered = with_article(a.english), with_article(b.english)
    items = []
    for more in source.draw.distinct((True, False), 2):
        asked, answer = ask_which(scale, more, a, b)
        items.append(Item(f"{asked}\nA:", answer, offered))
    return items[0], items[1]


def cloze(source: Source, n_people: int) -> Pair | None:
    """Leave out the last word of a story: the one thing there of which the verb can be said.

    No page says it of that thing (nobody *wore* a *hat*), so that it has to be told by its kind.
    """
    scene = source.seen.scene(source.draw, n_people)
    two = two_people(source, scene, "what")
    things = tuple(thing.english for thing in scene.things)
    items = []
    for person in two or ():
        mine = scene.has[person]
        others = [thing for thing in scene.things if thing != mine]
        fitting = [
            verb
            for verb in source.held.world.lexicon.verbs_of(mine)
            if is_telling(verb)
            and source.held.allowed("deed", verb.base, mine.english)
            and not any(map(verb.reading, others))
        ]
        if not fitting:
            return None
        deed = source.draw(zipf(source.held.world.lexicon.verbs, fitting.__contains__))
        items.append(Item(f"{scene} {scene.names[person]} {deed.past} the", mine.english, things))
    return (items[0], items[1]) if two else None


def reading(source: Source, n_people: int, kind: str) -> Pair | None:
    """Ask two questions of one kind about one story."""
    scene = source.held.scene(source.draw, n_people)
    two = two_people(source, scene, kind)
    items = [
        Item(
            f"{scene}\nQ: {scene.question(kind, p)}\nA:", scene.answer(kind, p), named(scene, kind)
        )
        for p in two or ()
    ]
    return (items[0], items[1]) if two else None


def named(scene: Scene, kind: str) -> tuple[str, ...]:
    """Return all that a scene names which could answer a kind of question."""
    if kind == "who":
        return tuple(scene.names.values())
    return tuple(with_article(thing.english) for thing in scene.things)


def two_people(source: Source, scene: Scene, kind: str) -> list[Person] | None:
    """Choose two people, one with another thing than at first, whom no rule of place gets right."""
    two = source.draw.distinct(tuple(scene.names), 2)
    names, things = tuple(scene.names.values()), tuple(t.english for t in scene.things)
    if kind == "who":
        pointed = [pointers(str(scene), names, scene.has[p].english) for p in two]
        right = tuple(scene.names[p] for p in two)
    else:
        pointed = [pointers(str(scene), things, scene.names[p]) for p in two]
        right = tuple(scene.has[p].english for p in two)
    found = right in zip(*pointed, strict=True)
    return None if found or not scene.changed & set(two) else two


@cache
def _named(words: str) -> re.Pattern[str]:
    return re.compile(rf"\b{re.escape(words)}\b")  # re itself remembers 512 patterns, too few here


def pointers(text: str, candidates: tuple[str, ...], cue: str) -> list[str]:
    """Return what rules of place answer, which read no word of a story but candidates and the cue.

    In order: first and last named, most and least often; next behind and next before the first and
    the last time that the cue stands; nearest to it; the first and the last one in the first and in
    the last sentence that holds the cue and a candidate.
    """
    spots = sorted((m.start(), c) for c in candidates for m in _named(c).finditer(text))
    places = [m.start() for m in _named(cue).finditer(text)]
    counts = {c: sum(other == c for _, other in spots) for c in candidates}

    def behind(place: int) -> str:
        return min([s for s in spots if s[0] > place], default=(0, ""))[1]

    def before(place: int) -> str:
        return max([s for s in spots if s[0] < place], default=(0, ""))[1]

    ends = [0, *(m.end() for m in re.finditer(r"\.", text))]
    sentences = [
        [c for spot, c in spots if start <= spot < end]
        for start, end in pairwise(ends)
        if any(start <= place < end for place in places)
    ]
    shared = [named for named in sentences if named] or [[""]]
    return [
        spots[0][1],
        spots[-1][1],
        max(candidates, key=counts.__getitem__),
        min(candidates, key=counts.__getitem__),
        *(rule(place) for rule in (behind, before) for place in (places[0], places[-1])),
        min((abs(spot - place), c) for spot, c in spots for place in places)[1],
        *(sentence[i] for sentence in (shared[0], shared[-1]) for i in (0, -1)),
    ]


DIALS: dict[str, dict[str, Callable[[Source], Pair | None]]] = {
    "reading": {f"{n} people": partial(reading, n_people=n, kind="what") for n in (2, 3, 4)},
    "question": {
        f"rank {start} to {end}": partial(question, start=start, end=end)
        for start, end in ((0, 50), (50, 200), (200, 800))
    },
    "summary": {
        f"{n} events, {kind}": partial(summary, n_events=n, kind=kind)
        for n, kind in product((2, 4), ("turned", "new"))
    },
    "translation": {
        f"{n} clauses, {kind}": partial(translation, n_clauses=n, kind=kind)
        for n, kind in product((1, 2, 3), ("one verb", "two verbs"))
    },
    "cloze": {f"{n} people": partial(cloze, n_people=n) for n in (2, 3, 4)},
    "choice": {
        f"{least} to {most} levels apart": partial(choice, least=least, most=most)
        for least, most in ((5, 6), (7, 8), (9, 11))
    },
    "who": {f"{n} people": partial(reading, n_people=n, kind="who") for n in (2, 3, 4)},
}
LIMITS = ("who",)  # its answer stands before its key: on invented worlds no size looked it up
TASKS = tuple(task for task in DIALS if task not in LIMITS)


def test_items(task: str, seed: int, n: int, world: LongTail, seen: bool = False) -> list[Item]:
    """Draw n items in pairs, as many of each level of the task, in turn.

    Args:
        task: One of `TASKS` or `LIMITS`. `translation` gives a sentence and its Korean before the
            one to be translated; `question` asks for facts that pages only tell; `summary` ends in
            `TL;DR:`; `reading` asks what somebody has, `who` who has a thing; `cloze` leaves out
            the last word of a story; `choice` asks which of two things is more.
        seed: A whole number from 0.
        n: How many items: an even number.
        world: `real_world()` or an `invented_world`.
        seen: Draw combinations that pages hold, in place of those that none holds.

    Raises:
        ValueError: The task is unknown, or n is odd.
    """
    if task not in DIALS:
        raise ValueError(f"no task {task!r}: choose from {', '.join(TASKS)}")
    if n % 2:
        raise ValueError(f"items come in pairs: {n} is odd")
    draw, held = Draw(Random(seed).random), grammar_of(world, held_out=not seen)
    source = Source(draw, grammar_of(world), held)
    items: list[Item] = []
    for level in islice(cycle(DIALS[task]), n // 2):
        while not (pair := DIALS[task][level](source)):
            pass
        items += [item._replace(level=level) for item in pair]
    return items


def as_schemas(items: list[Item], gap: str = "___") -> list[Item]:
    """Turn pairs of translations into Winograd schemas.

    A schema has a gap in the English sentence, two things for it, both as new here, and the Korean
    of one of them, which decides.
    """
    schemas = []
    for pair in zip(items[::2], items[1::2], strict=True):
        shown, *sentences = pair[0].prompt.split("\n")[0], *(i.prompt.split("\n")[1] for i in pair)
        words = [sentence.split() for sentence in sentences]
        end = common_prefix(*(w[::-1] for w in words))
        start = min(common_prefix(*words), *(len(w) - end - 1 for w in words))  # a word for each
        offered = tuple(" ".join(w[start : len(w) - end]) for w in words)
        asked = " ".join([*words[0][:start], gap, *words[0][len(words[0]) - end :]])
        schemas += [
            Item(f"{shown}\n{asked} {item.answer}", thing, offered, item.level)
            for item, thing in zip(pair, offered, strict=True)
        ]
    return schemas


def common_prefix(a: list[str], b: list[str]) -> int:
    """Count the words on which two sentences begin alike."""
    return next(i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)

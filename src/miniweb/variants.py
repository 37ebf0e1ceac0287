"""The tasks put otherwise: what is new in an item, how it is asked, and what stands before it.

Each variant changes one thing, or two where it says so: pages hold what the items combine
("seen"), the format is one that pages never use with it, the cue is another, or fewer or more
solved examples stand before what is asked.
"""

from collections.abc import Callable
from random import Random

from miniweb.choices import Draw, Table
from miniweb.longtail import Grammar, LongTail, ask_city, ask_korean, facts_of, grammar_of, sentence
from miniweb.tasks import Item, test_items

Put = Callable[[Item, Grammar, Draw], Item]


def as_it_is(item: Item, grammar: Grammar, draw: Draw) -> Item:
    """Leave an item alone."""
    return item


def as_question(item: Item, grammar: Grammar, draw: Draw) -> Item:
    """Ask for the Korean of a sentence; pages ask for that of words and phrases only."""
    english = item.prompt.splitlines()[-1].removesuffix(" =")
    return item._replace(prompt=f"{ask_korean(english, '')[0]}\nA:")


def as_begun_question(item: Item, grammar: Grammar, draw: Draw) -> Item:
    """Ask for the Korean of a sentence, and give its first word, whom no such answer names."""
    first, _, rest = item.answer.partition(" ")
    asked = as_question(item, grammar, draw)
    return asked._replace(prompt=f"{asked.prompt} {first}", answer=rest)


def instead(*words: tuple[str, str]) -> Put:
    """Return what puts other words or signs in place of some."""

    def put(item: Item, grammar: Grammar, draw: Draw) -> Item:
        prompt = item.prompt
        for old, new in words:
            prompt = prompt.replace(old, new)
        return item._replace(prompt=prompt)

    return put


def solved(task: str, grammar: Grammar, draw: Draw) -> str:
    """Write a solved example of a task, of what pages may say."""
    if task == "translation":
        return " = ".join(sentence(grammar.world.lexicon, [grammar.clause(draw)]))
    if task == "choice":
        return grammar.asked_comparison(draw)
    city = draw(grammar.asked)
    return "\nA: ".join(ask_city(city, draw(Table(facts_of(city)))))


def examples(task: str, n: int) -> Put:
    """Return what puts n solved examples before the one that is asked, and no other."""

    def put(item: Item, grammar: Grammar, draw: Draw) -> Item:
        asked = item.prompt.splitlines()[-1] if task == "translation" else item.prompt
        shown = [solved(task, grammar, draw) for _ in range(n)]
        return item._replace(prompt="\n".join([*shown, asked]))

    return put


VARIANTS: dict[str, dict[str, tuple[bool, Put]]] = {  # are the combinations seen? how put?
    "translation": {
        "seen": (True, as_it_is),
        "seen, asked": (True, as_question),
        "asked": (False, as_question),
        "asked, begun": (False, as_begun_question),
        "with ':'": (False, instead((" =", ":"))),
        **{f"{n} examples": (False, examples("translation", n)) for n in (0, 2, 4)},
    },
    "summary": {
        "seen": (True, as_it_is),
        "In short:": (False, instead(("TL;DR:", "In short:"))),
        "A:": (False, instead(("TL;DR:", "A:"))),
    },
    "question": {
        "seen": (True, as_it_is),
        "Question:": (False, instead(("Q:", "Question:"), ("A:", "Answer:"))),
        **{f"{n} examples": (False, examples("question", n)) for n in (1, 2, 4)},
    },
    "choice": {f"{n} examples": (False, examples("choice", n)) for n in (1, 2, 4)},
}


def variant_items(task: str, variant: str, seed: int, n: int, world: LongTail) -> list[Item]:
    """Draw n items of a task, in pairs, put as one of its `VARIANTS`.

    Raises ValueError for what `test_items` refuses, and for an unknown variant.
    """
    if variant not in VARIANTS.get(task, {}):
        raise ValueError(f"no variant {variant!r} of {task!r}: choose one of VARIANTS")
    seen, put = VARIANTS[task][variant]
    grammar, draw = grammar_of(world), Draw(Random(seed + 1).random)
    return [put(item, grammar, draw) for item in test_items(task, seed, n, world, seen)]

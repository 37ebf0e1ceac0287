"""Programs for the tasks: what somebody writes who knows the task and the grammar of the pages.

They stand beside the models of chapter 8 as the line that understanding would reach. Each gets a
prompt and returns the answer; what it knows of the world is in the lexicon, or in pages it has
read. That a model gets near them is worth telling because nobody wrote them for it.
"""

import inspect
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from miniweb.grammar import with_article
from miniweb.lexicon import real_lexicon
from miniweb.longtail import (
    CITY_QUESTIONS,
    MINDS,
    MODALS,
    SAYINGS,
    SCALES,
    STATEMENTS,
    Clause,
    sentence,
)

SENTENCES = re.compile(r"(?<=\.) ")
HAS = "'s| had an?| sold the .+ and bought an?"


def read_story(story: str) -> dict[str, str]:
    """Return who has what when a story is over."""
    has: dict[str, str] = {}
    for told in SENTENCES.split(story):
        if m := re.match(rf"(?:Here is )?(\w+ \w+)(?:{HAS}) (.+)\.", told):
            has[m[1]] = m[2]
        elif m := re.match(r"(\w+ \w+) swapped the .+ for (\w+ \w+)'s ", told):
            has[m[1]], has[m[2]] = has[m[2]], has[m[1]]
    return has


def solve_reading(prompt: str) -> str:
    """Keep a table of who has what."""
    story, asked = prompt.split("\nQ: ")
    has = read_story(story)
    if m := re.match(r"What does (.+) have\?", asked):
        return with_article(has[m[1]])
    thing = asked.removeprefix("Who has the ").partition("?")[0]
    return next(who for who, what in has.items() if what == thing)


def solve_question(prompt: str, pages: Iterable[str]) -> str:
    """Look a fact up in the statements of pages; return nothing if none states it."""
    asked = prompt.removeprefix("Q: ").removesuffix("\nA:")
    for name, form in CITY_QUESTIONS.items():
        if m := re.fullmatch(pattern(form), asked):
            return facts(tuple(pages)).get((m["city"], name), "")
    raise ValueError(f"no question about a city: {asked!r}")


@cache
def facts(pages: tuple[str, ...]) -> dict[tuple[str, str], str]:
    """Collect what pages state of cities."""
    found = {}
    for told in (told for page in pages for told in SENTENCES.split(page)):
        for name, forms in STATEMENTS.items():
            for form in forms.values:
                if m := re.fullmatch(pattern(form), told):
                    found[m["city"], name] = m[name]
    return found


def pattern(form: str) -> str:
    """Turn a form with names in braces into a regular expression with named groups."""
    return re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+)", re.escape(form))


def solve_summary(prompt: str) -> str:
    """Find the remark that makes its event the point: modal and verb agree."""
    told = SENTENCES.split(prompt.removesuffix("\nTL;DR:"))
    for event, remark in zip(told[::2], told[1::2], strict=True):
        m = re.fullmatch(rf"I ({'|'.join(MODALS)}) ({'|'.join(MINDS)}) that\.", remark)
        if MODALS[m[1]] == MINDS[m[2]] if m else remark in SAYINGS[True]:
            there = re.fullmatch(r"At the (.+) I (.+)\.", event)
            return f"{there[2]} at the {there[1]}" if there else event[2:-1]
    raise ValueError(f"no point in {prompt!r}")


def solve_translation(prompt: str) -> str:
    """Take each clause apart by the lexicon, and say it in Korean."""
    english = prompt.splitlines()[-1].removesuffix(" =")
    return sentence(real_lexicon(), [clause(part) for part in english.split(" and ")])[1]


def clause(english: str) -> Clause:
    """Find person, verb, number, adjective, thing and place of a clause."""
    words, (what, _, where) = real_lexicon(), english.partition(" at the ")
    who, _, rest = what.partition(" ")
    verb = max((v for v in words.verbs if rest.startswith(f"{v.past} ")), key=lambda v: len(v.past))
    named = rest.removeprefix(f"{verb.past} ").replace("pairs of ", "")
    first, _, after = named.partition(" ")
    number = next((n for n in words.numbers if n.english == first), None)
    named = after if number or first in ("a", "an") else named
    adjective = next((a for a in words.adjectives if named.startswith(f"{a.english} ")), None)
    named = named.removeprefix(f"{adjective.english} ") if adjective else named
    thing = next(
        t for t in words.things if named in (t.english, t.plural.removeprefix("pairs of "))
    )
    person = next(p for p in words.people if p.name == who)
    place = next((p for p in words.places if p.english == where), None)
    return Clause(person, verb, thing, adjective, number, place)


def solve_cloze(prompt: str) -> str:
    """Name the one thing of the story of which the verb can be said."""
    words = real_lexicon()
    done = re.fullmatch(r"\w+ \w+ (.+) the", prompt.split(". ")[-1])
    verb = next(v for v in words.verbs if done and v.past == done[1])
    longest_first = sorted((t.english for t in words.things), key=len, reverse=True)
    named = re.findall(rf"\b(?:{'|'.join(longest_first)})\b", prompt)
    return next(t.english for t in words.things if t.english in named and verb.reading(t))


def solve_choice(prompt: str) -> str:
    """Compare two things on a scale."""
    m = re.match(r"Q: Which is (.+), an? (.+) or an? (.+)\?", prompt)
    levels = {thing.english: thing for thing in real_lexicon().things}
    for scale, (more, less, _) in SCALES.items():
        if m and m[1] in (more, less):
            best = max if m[1] == more else min
            return with_article(best(m[2], m[3], key=lambda t: getattr(levels[t], scale)))
    raise ValueError(f"no comparison: {prompt!r}")


PROGRAMS: dict[str, tuple[Callable[..., Any], ...]] = {  # the functions of a task's program
    "reading": (solve_reading, read_story),
    "question": (solve_question, facts, pattern),
    "summary": (solve_summary,),
    "translation": (solve_translation, clause),
    "cloze": (solve_cloze,),
    "choice": (solve_choice,),
    "who": (solve_reading, read_story),
}


def solve(task: str, prompt: str, pages: Iterable[str]) -> str:
    """Answer a prompt; the program for questions reads pages, the others know the lexicon."""
    program = PROGRAMS[task][0]
    return program(prompt, pages) if task == "question" else program(prompt)


def n_lines(task: str) -> int:
    """Count the lines of a program, without the tables of words that it knows."""
    return sum(len(inspect.getsource(part).splitlines()) for part in PROGRAMS[task])

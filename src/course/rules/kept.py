"""A rule that the search does not find: a translator whose tables are kept.

Somebody who had the training pages and the test items, and an hour, fitted it to refute chapter 8.
Its parts: English words that count as one, a class for each word, the order in which a clause of
certain classes is said, a word for each class's slot, how endings change before another slot (after
which sound), and the verb beside each noun. What is kept is the rule, not its fitting.
"""

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Slot = tuple[int, int]  # the class of an English word, and which of its Korean words


def frozen(x: Any) -> Any:
    """Turn the lists that JSON has into tuples."""
    return tuple(map(frozen, x)) if isinstance(x, list) else x


def n_entries(x: Any) -> int:
    """Count all words and numbers of a table, its keys too."""
    if isinstance(x, dict):
        return sum(1 + n_entries(value) for value in x.values())
    return sum(map(n_entries, x)) if isinstance(x, list) else 1


def last_sound(text: str) -> str:
    """Return the last letter of a Hangul text."""
    return unicodedata.normalize("NFD", text[-1])[-1] if text else ""


class Translator:
    """Say an English sentence in Korean, clause by clause, from tables."""

    def __init__(self, path: Path) -> None:
        tables = json.loads(path.read_text(encoding="utf-8"))
        self.n_numbers = n_entries(tables)
        self.one_word = {frozen(pair) for pair in tables["merges"]}
        self.classes: dict[str, int] = tables["cls"]
        self.between: list[str] = tables["barriers"]  # clauses
        self.order = {frozen(classes): frozen(slots) for classes, slots in tables["tpl"]}
        self.words = {frozen(slot): words for slot, words in tables["lex"]}
        self.usual = {frozen(slot): frozen(place) for slot, place in tables["can"]}
        self.endings = {
            frozen(places): (dict(map(frozen, by_sound)), dict(map(frozen, by_ending)))
            for places, by_sound, by_ending in tables["rw"]
        }
        self.verbs = {(verb, noun): korean for verb, noun, korean in tables["verb"]}
        self.noun: Slot = frozen(tables["ctx"])

    def clauses(self, english: str) -> list[list[str]]:
        """Cut a sentence into clauses of words, some of which are two in a row."""
        words = english.split()
        found, i = [list[str]()], 0
        while i < len(words):
            n = 2 if tuple(words[i : i + 2]) in self.one_word else 1
            word = "_".join(words[i : i + n])
            if word in self.between:
                found.append([])
            else:
                found[-1].append(word)
            i += n
        return found

    def translate(self, english: str) -> str:
        """Return the Korean of a sentence, or nothing for an order of classes not met."""
        clauses, said = self.clauses(english), list[str]()
        for k, clause in enumerate(clauses):
            classes = tuple(self.classes.get(word) for word in clause)
            if classes not in self.order:
                return ""
            said += self.say(clause, classes, k + 1 < len(clauses))
        return " ".join(said)

    def say(self, clause: Sequence[str], classes: Sequence[Any], more: bool) -> list[str]:
        """Say one clause; `more` if another follows."""
        places = self.order[tuple(classes)]  # (position in the clause, which Korean word)
        slots = [(classes[i], which) for i, which in places]
        plain = [self.words[s].get(clause[i], "?") for s, (i, _) in zip(slots, places, strict=True)]
        noun = plain[slots.index(self.noun)] if self.noun in slots else None
        said = []
        for n, (slot, (i, _)) in enumerate(zip(slots, places, strict=True)):
            word = plain[n]
            if slot != self.noun:
                word = self.verbs.get((clause[i], noun), word)
            following = slots[n + 1] if n + 1 < len(slots) else ("END", more)
            said.append(self.inflect(word, self.usual[slot], (*slot, following)))
        return said

    def inflect(self, word: str, usual: Any, here: Any) -> str:
        """Give a word the ending that it has before what follows it here."""
        if usual == here or (usual, here) not in self.endings:
            return word
        by_sound, by_ending = self.endings[usual, here]
        changed = []
        for n in range(min(4, len(word) - 1) + 1):
            stem, ending = word[: len(word) - n], word[len(word) - n :]
            if rewritten := by_sound.get((ending, last_sound(stem))):
                changed.append((rewritten[1], stem + rewritten[0]))
            elif rewritten := by_ending.get(ending):
                changed.append((rewritten[1] / 50, stem + rewritten[0]))
        return max(changed, key=lambda pair: pair[0])[1] if changed else word

"""The web in miniature: a generated corpus of known entropy.

`documents` writes an endless stream of short texts in the genres that GPT-2's zero-shot claim lives
on. Each knows its exact log-probability, so the best loss that any model can reach is known.
Some combinations never occur: `held_out` lists them, `find_leaks` proves it, `test_items` asks.
"""

from miniweb.checks import (
    TASKS,
    Entropy,
    Estimate,
    Item,
    Leak,
    entropy,
    find_leaks,
    held_out,
    test_items,
)
from miniweb.grammar import GENRES, Document, documents
from miniweb.world import LARGE, MEDIUM, SMALL, World

__all__ = [
    "GENRES",
    "LARGE",
    "MEDIUM",
    "SMALL",
    "TASKS",
    "Document",
    "Entropy",
    "Estimate",
    "Item",
    "Leak",
    "World",
    "documents",
    "entropy",
    "find_leaks",
    "held_out",
    "test_items",
]

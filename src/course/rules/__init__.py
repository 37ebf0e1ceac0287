"""The search for the cheapest rule that reaches a model's score on a task of chapter 8.

A rule sees a prompt, its candidates, and counts over the training pages. It holds no word or
template of any grammar, no answer, and no other item: all words it uses are those of the prompt
and of the pages. A cheap rule holds at most as many numbers as a model has parameters; a database
keeps every page. Which rule is the best of a task is told by its score on the test items
themselves, which no model may do: the search is generous to the rules.

A rule's name tells its cue, as in `pointing (2, 3, 2)`: the cue is the last two sentences of the
prompt, and pages are looked up that have the first three words and the last two of such a part.

- `counts`: pages as numbers; cues, and the examples that pages with a cue are; what is counted.
- `following`: what followed most often; n-gram models.
- `pointing`: candidates by place, nearness, recency and counts; two of these in a row.
- `comparing`: which of two names is the greater, by comparisons with others.
- `roles`: candidates by the roles of names in the last sentence about them.
- `writing`: copying, slot by slot, from a sentence that is chosen first.
- `marking`: which sentence the one beside it marks; a new one is told by its parts.
- `translating`: word by word, in a counted order, with counted endings.
- `clauses`: the same part by part, cut where no order crosses.
- `facts`: words that go together; the database.
- `search`: all of them, scored.
- `kept`: a translator that the search does not find, with its tables.
"""

from course.rules.kept import Translator
from course.rules.pointing import Answers, Asked, Pages
from course.rules.search import (
    HEAD,
    Found,
    Item,
    cheap_rules,
    report,
    row,
    search_cheap,
    search_databases,
    simplest,
)

__all__ = [
    "HEAD",
    "Answers",
    "Asked",
    "Found",
    "Item",
    "Pages",
    "Translator",
    "cheap_rules",
    "report",
    "row",
    "search_cheap",
    "search_databases",
    "simplest",
]

"""What the exercises add up to: on their own pages, in the chapters, in the plans of a class.

The data are the headings and the points in solutions/, the times to read in `course.chapters`, and
SYLLABI. `course sync` writes what follows from them; `course syllabus` plans a class.
"""

import re

from nbformat import NotebookNode

from course.chapters import ROOT, Chapter, find
from course.exercises import HEADING, Exercise, exercises, path_of
from course.notebooks import read_notebook

SYLLABI = {  # number of weeks: for each week the numbers of its chapters, or what else it is for
    4: ["1,2", "3,4", "5,6", "7,8"],
    8: ["1,2", "3", "4", "5,6", "7", "8", "9,10", "11"],
    12: ["1", "2", "3", "4", "5", "resubmissions", "6", "7", "8", "9", "10", "11"],
}
COUNTS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
INTRO = re.compile(
    r"^\w+ exercises from easy to hard, \d+ points, about \d+ minutes\. They go with chapter \d+",
    re.MULTILINE,
)
READING = re.compile(r"(^## What you will build\n.*?)\d+(?= minutes)", re.MULTILINE | re.DOTALL)
SECTION = re.compile(r"^## Exercises\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
COUNT = re.compile(r"\b(?:[A-Z]\w+(?= graded exercises\b)|[a-z]+(?= of them\b))")
LINE = re.compile(r"^\d+\. \*\w+, \d+ minutes", re.MULTILINE)
TABLE = re.compile(r"(<!-- syllabus (\d+) -->\n\n).*?(?=\n\n<!-- end -->)", re.DOTALL)


def numbered_source(chapter: Chapter) -> tuple[NotebookNode, list[Exercise]]:
    """Read a chapter's notebook of solutions/, its numbers set right, and cut it into exercises.

    Headings are counted, and have the points of their cells. Raises FileNotFoundError if there is
    none, ValueError for a heading that cannot be read, and if the first cell does not say what
    there is to do.
    """
    path = path_of(chapter, ROOT / "solutions")
    name = path.relative_to(ROOT).as_posix()
    if not path.exists():
        raise FileNotFoundError(f"{name} is not there, and with it the chapter's exercises")
    notebook = read_notebook(path)
    for cell in notebook.cells:
        if re.match(r"## \d", cell.source) and not HEADING.match(cell.source):
            heading = cell.source.partition("\n")[0]
            right = "## 1. Title (easy, 2 points, 5 minutes)"
            raise ValueError(f"{name}: write the heading `{heading}` as `{right}`")
    for number, task in enumerate(exercises(notebook), start=1):
        points = sum(cell.metadata.get("nbgrader", {}).get("points", 0) for cell in task.cells)
        says = f"{task.level}, {points} point{'s' * (points != 1)}, {task.minutes} minutes"
        _, text = task.cells[0].source.split("\n", maxsplit=1)
        task.cells[0].source = f"## {number}. {task.title} ({says})\n{text}"
    tasks = exercises(notebook)
    n, points, minutes = total(tasks)
    line = (
        f"{COUNTS[n].capitalize()} exercises from easy to hard, {points} points, about {minutes} "
        f"minutes. They go with chapter {chapter.number}"
    )
    notebook.cells[0].source, found = INTRO.subn(line, notebook.cells[0].source)
    if not found:
        raise ValueError(f"{name}: write into its first cell: {line}, {chapter.title}.")
    return notebook, tasks


def total(tasks: list[Exercise]) -> tuple[int, int, int]:
    """Count exercises, and add up their points and their minutes."""
    return len(tasks), sum(t.points for t in tasks), sum(t.minutes for t in tasks)


def announced(text: str, chapter: Chapter, tasks: list[Exercise] | None) -> str:
    """Return a text of a chapter with the time to read and, given `tasks`, its list of exercises.

    Only numbers and levels are written, the words are by hand. Raises ValueError, with what to
    write, where a section has no place for them.
    """
    name = f"chapters/{chapter.path.name}"
    if re.search("^## What you will build$", text, re.MULTILINE):
        text, found = READING.subn(rf"\g<1>{chapter.reading}", text, count=1)
        if not found:
            line = f"Time to read: {chapter.reading} minutes."
            raise ValueError(f"{name}: write under `What you will build`: {line}")
    if tasks is None:
        return text
    return SECTION.sub(lambda section: with_numbers(section[0], name, tasks), text)


def with_numbers(section: str, name: str, tasks: list[Exercise]) -> str:
    """Return a chapter's section `Exercises` with its counts, and the beginnings of its lines."""
    n, points, minutes = total(tasks)
    for pattern, right in (
        (r"\d+ points", f"{points} points"),
        (r"about \d+ minutes", f"about {minutes} minutes"),
    ):
        section, times = re.subn(pattern, right, section)
        if times != 1:
            raise ValueError(f"{name}: say once under `Exercises`: {right}")
    count = COUNTS[n]
    section = COUNT.sub(lambda word: count.title() if word[0].istitle() else count, section)
    items = [f"{t.number}. *{t.level.capitalize()}, {t.minutes} minutes" for t in tasks]
    have = len(LINE.findall(section))
    if have != n:
        lines = "\n".join(f"{item}.* {t.title}" for item, t in zip(items, tasks, strict=True))
        raise ValueError(f"{name}: `Exercises` has {have} lines; write one for each:\n{lines}")
    right_items = iter(items)
    return LINE.sub(lambda _: next(right_items), section)


def syllabus(plan: list[str], week_0: bool = False) -> str:
    """Write a plan as a table: what each week asks for, and all weeks together.

    A week is the numbers of its chapters, as in "1,2", or any other words. With `week_0`, the
    preliminaries come before the first week and are in no sum. Raises ValueError for a chapter
    that is not there.
    """
    rows = ["| week | chapters | exercises | points | hours |", "|---|---|---|---|---|"]
    if week_0:
        first = find("0")
        rows.append(f"| 0 | {first.number} {first.title} | {workload([first])} |")
    everything: list[Chapter] = []
    for week, what in enumerate(plan, start=1):
        if not what[:1].isdigit():
            rows.append(f"| {week} | {what} | | | |")
            continue
        chapters = [find(number) for number in what.split(",")]
        names = ", ".join(f"{chapter.number} {chapter.title}" for chapter in chapters)
        rows.append(f"| {week} | {names} | {workload(chapters)} |")
        everything += chapters
    return "\n".join([*rows, f"| | together | {workload(everything)} |"])


def workload(chapters: list[Chapter]) -> str:
    """Add up exercises, points, and the hours of reading and exercises: cells of a table."""
    n, points, minutes = total(
        [task for chapter in chapters for task in numbered_source(chapter)[1]]
    )
    hours = (minutes + sum(chapter.reading for chapter in chapters)) / 60
    return f"{n} | {points} | {hours:.1f}"


def with_syllabi(text: str) -> str:
    """Set the tables of a page right that stand between marks such as `<!-- syllabus 4 -->`."""
    return TABLE.sub(lambda mark: mark[1] + syllabus(SYLLABI[int(mark[2])], week_0=True), text)

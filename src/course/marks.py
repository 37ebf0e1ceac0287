"""Give marks back: feedback pages for students, and files that learning systems read."""

import csv
import html
import io
import re
from pathlib import Path
from typing import Any

from jinja2 import pass_context
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors.sanitize import SanitizeHTML
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from nbgrader.preprocessors import NbGraderPreprocessor

from course.classroom import (
    assignment,
    class_folder,
    configure,
    course_directory,
    quiet_log,
    roster,
)
from course.grading import FAILED, GRADED, MISSING, REVIEW, Result, by_exercise, standings
from course.notebooks import write_text

FORMATS = ("plain", "canvas", "moodle")
PAGE = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{chapter}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto }}
</style>
</head><body><h1>{chapter}: not graded</h1>
<p>{why}</p>
<p>No mark was given for this submission, and none was taken away. Mend it, run the notebook from
top to bottom, and hand it in again; if you think that it is in order, ask your instructor.</p>
</body></html>
"""
MATH = re.compile(r"\$\$?[^$]+\$\$?")


class MarksByExercise(NbGraderPreprocessor):  # type: ignore[misc]
    """Begin a feedback page with the marks of each exercise, and their sum."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Put a table before the first cell."""
        names = resources["nbgrader"]
        rows = by_exercise(names["assignment"], names["student"])
        rows.append(("All", sum(row[1] for row in rows), sum(row[2] for row in rows)))
        lines = ["| exercise | marks | of |", "|:--|--:|--:|"]
        lines += [f"| {title.replace('|', '/')} | {got:g} | {of:g} |" for title, got, of in rows]
        nb.cells.insert(0, new_markdown_cell("\n".join(lines)))
        return nb, resources


class HarmlessHTML(SanitizeHTML):
    """Take out of a page what a browser would run; keep the hints folded, and `<` in formulas."""

    def __init__(self, **settings: Any) -> None:
        """Allow the tags that our own cells use; none of them can run anything."""
        super().__init__(**settings)  # type: ignore[no-untyped-call]
        self.tags = [*self.tags, "details", "summary", "p", "br", "pre", "sub", "sup"]

    def preprocess_cell(self, cell: NotebookNode, resources: Any, index: int) -> Any:
        """Clean a cell; a sign that was escaped within a formula is written as TeX has it."""
        cell, resources = super().preprocess_cell(  # type: ignore[no-untyped-call]
            cell, resources, index
        )
        if cell.cell_type == "markdown":
            cell.source = MATH.sub(in_tex, cell.source)
        return cell, resources


@pass_context
def markdown(context: Any, source: str) -> str:
    """Render Markdown as nbconvert does, but no link that a browser would run (`javascript:`)."""
    attachments = context.get("cell", {}).get("attachments", {})
    renderer = IPythonRenderer(escape=False, allow_harmful_protocols=False, attachments=attachments)
    return str(MarkdownWithMath(renderer=renderer).render(source))


def in_tex(formula: re.Match[str]) -> str:
    """Undo the escapes of HTML in a formula, with names where a sign could begin a tag."""
    text = formula[0].replace("&lt;", r"\lt ").replace("&gt;", r"\gt ")
    return text.replace("&amp;", "&")


def feedback(chapter: str, everyone: bool = False) -> tuple[list[Path], list[str]]:
    """Write a page for each student whose marks stand; return the pages and who got none, and why.

    With `everyone`, also for those that still need review. Raises FileNotFoundError if there is no
    class.
    """
    from nbgrader.converters import GenerateFeedback
    from traitlets.config import Config

    chapter, name = assignment(chapter)
    pages, without = [], []
    for result in standings(chapter):
        page = class_folder() / "feedback" / result.student / chapter / f"{name}.html"
        if result.status == FAILED:
            page.parent.mkdir(parents=True, exist_ok=True)
            why = html.escape("; ".join(result.why))
            write_text(page, PAGE.format(chapter=html.escape(chapter), why=why))
        elif result.status == GRADED or (everyone and result.status == REVIEW):
            quiet_log()
            config = configure(Config())
            settings = {"student_id": result.student, "assignment_id": chapter}
            directory = course_directory(config, **settings)
            GenerateFeedback(coursedir=directory, config=config, force=True).start()
        else:
            page.unlink(missing_ok=True)  # an old one, from before something was handed in again
            why = f" ({'; '.join(result.why)})" if result.why else ""
            without.append(f"{result.student}: {result.status}{why}")
            continue
        pages.append(page)
    return pages, without


def export(chapters: list[str], form: str) -> str:
    """Write the marks of chapters as CSV: "plain", "canvas" or "moodle" (one chapter).

    A mark stands only where the status is "graded"; elsewhere it is empty, never 0. Raises
    ValueError for a form that there is not.
    """
    if form not in FORMATS:
        raise ValueError(f"there is no format {form!r}: use one of {', '.join(FORMATS)}")
    names = [assignment(chapter)[0] for chapter in chapters]
    results = {name: {r.student: r for r in standings(name)} for name in names}
    if form == "canvas":
        return canvas(results)
    if form == "moodle":
        if len(names) != 1:
            raise ValueError("Moodle reads the marks of one assignment at a time: name one chapter")
        return moodle(results[names[0]])
    people = {s.id: s for s in roster()}
    rows = []
    for name, found in results.items():
        for student, result in found.items():
            person = people.get(student)
            rows.append(
                {
                    "student": student,
                    "last_name": person.last_name if person else "",
                    "first_name": person.first_name if person else "",
                    "assignment": name,
                    "status": result.status,
                    "score": mark(result),
                    "max_score": "" if result.max_score is None else f"{result.max_score:g}",
                    "why": "; ".join(result.why),
                    "notes": "; ".join(result.notes + [result.accepted][: bool(result.accepted)]),
                }
            )
    return write(rows)


def mark(result: Result) -> str:
    """Return a mark that stands, or nothing."""
    return f"{result.score:g}" if result.status == GRADED and result.score is not None else ""


def canvas(results: dict[str, dict[str, Result]]) -> str:
    """Write what Canvas imports as a gradebook: its five columns, and one for each assignment."""
    rows = []
    full = {
        name: next((f"{r.max_score:g}" for r in found.values() if r.max_score is not None), "")
        for name, found in results.items()
    }
    blank = {"ID": "", "SIS User ID": "", "SIS Login ID": "", "Section": "", "Notes": ""}
    rows.append({"Student": "Points Possible", **blank, **full})
    for person in roster():
        found = {name: results[name][person.id] for name in results}
        status = [f"{name}: {r.status}" for name, r in found.items() if r.status != GRADED]
        rows.append(
            {
                "Student": f"{person.last_name}, {person.first_name}"
                if person.last_name
                else person.id,
                "ID": person.lms_id,
                "SIS User ID": "",
                "SIS Login ID": person.id,
                "Section": "",
                "Notes": "; ".join(status),
                **{name: mark(result) for name, result in found.items()},
            }
        )
    return write(rows)


def moodle(found: dict[str, Result]) -> str:
    """Write what Moodle imports as a grading worksheet."""
    rows = []
    for person in roster():
        result = found[person.id]
        rows.append(
            {
                "Identifier": f"Participant {person.lms_id}" if person.lms_id else "",
                "Full name": person.name,
                "ID number": person.id,
                "Email address": person.email,
                "Status": result.status,
                "Grade": mark(result),
                "Maximum Grade": "" if result.max_score is None else f"{result.max_score:g}",
                "Feedback comments": "; ".join(result.why)
                if result.status in (FAILED, MISSING)
                else "",
            }
        )
    return write(rows)


def write(rows: list[dict[str, str]]) -> str:
    """Write rows as CSV; a value that a spreadsheet would run as a formula is made text."""
    text = io.StringIO()
    if rows:
        table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows([{key: harmless(value) for key, value in row.items()} for row in rows])
    return text.getvalue()


def harmless(value: str) -> str:
    """Put a quote before what Excel would compute."""
    return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value

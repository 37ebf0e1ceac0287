"""Give marks back: feedback pages for students, and files that learning systems read.

A page shows what a student has written; a browser runs and fetches nothing of it. Each is made in a
process with limits of its own, so that none can stop the others.
"""

import csv
import html
import io
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from bleach import clean  # type: ignore[import-untyped]
from bleach.css_sanitizer import CSSSanitizer  # type: ignore[import-untyped]
from jinja2 import pass_context
from mistune.plugins import import_plugin
from nbconvert.filters import Highlight2HTML
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from nbgrader.preprocessors import NbGraderPreprocessor

from course.classroom import (
    assignment,
    class_folder,
    configure,
    course_directory,
    roster,
    shown,
)
from course.grading import (
    FAILED,
    GRADED,
    NO_GRADEBOOK,
    NO_ROOM,
    REVIEW,
    Result,
    by_exercise,
    end,
    ensure_gradebook,
    ensure_room,
    standings,
    start,
)
from course.notebooks import write_text
from course.sandbox import Scratch
from course.submissions import is_picture, is_picture_or_text

FORMATS = ("plain", "canvas", "moodle")
PAGE_SECONDS = 60  # of the processor; five times as long by the clock
PAGE_MEMORY, PAGE_BYTES = 2 * 2**30, 20 * 2**20
TEXT_SECONDS, TEXTS_SECONDS = 2, 10  # of the processor, for a cell and for all cells of a page
CELL_LETTERS, CELLS = 100_000, 1000  # that a page shows
PAGE = """\
<!DOCTYPE html>
<html lang="en"><head>{policy}<meta charset="utf-8"><title>{chapter}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto }}
</style>
</head><body><h1>{chapter}</h1>
{body}
</body></html>
"""
NOT_GRADED = """\
<h2>Not graded</h2>
<p>{why}</p>
<p>No mark was given for this submission, and none was taken away. Mend it, run the notebook from
top to bottom, and hand it in again; if you think that it is in order, ask your instructor.</p>
"""
POLICY = (  # whatever a browser would fetch or run
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
    "img-src data:; style-src 'unsafe-inline'\">"
)
TAGS = (
    "a abbr acronym b blockquote br code dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr i ins li "
    "ol p pre s span strong sub summary sup table tbody td tfoot th thead tr ul"
)
ATTRIBUTES = {
    "a": ["href", "title"],
    "abbr": ["title"],
    "div": lambda tag, name, value: (name, value) == ("class", "highlight"),
    "span": lambda tag, name, value: name == "class" and len(value) < 4,  # of colored code
    "td": ["style", "colspan", "rowspan"],
    "th": ["style", "colspan", "rowspan"],
}
PLACE = re.compile("\ue000(\\d{1,5})\ue001")  # of a picture, while the text around it is cleaned
FORMULA = re.compile(r"(^|;)(?=[\s\"]*[=+\-@\uff1d\uff0b\uff0d\uff20])")  # full width, too
PLUGINS = ("strikethrough", "table", "url", "def_list")


class OutOfTime(BaseException):
    """A text has taken too long; no `except Exception` of what draws it catches this."""


class MarksByExercise(NbGraderPreprocessor):  # type: ignore[misc]
    """Begin a feedback page with the marks of each exercise, and their sum."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Put a table before the first cell."""
        names = resources["nbgrader"]
        table = marks_table(names["assignment"], names["student"])
        nb.cells.insert(0, new_markdown_cell(table))
        return nb, resources


def marks_table(chapter: str, student: str) -> str:
    """Write the marks of each exercise, and their sum, in Markdown."""
    rows = by_exercise(chapter, student)
    rows.append(("All", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    lines = ["| exercise | marks | of |", "|:--|--:|--:|"]
    lines += [f"| {title.replace('|', '/')} | {got:g} | {of:g} |" for title, got, of in rows]
    return "\n".join(lines)


# --- A student's words in a browser ------------------------------------------------------------


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in what takes more time of the processor; side threads have no limit."""
    inside, hook = True, sys.unraisablehook

    def stop(number: int, frame: Any) -> None:
        if inside:
            raise OutOfTime

    def lost(error: Any) -> None:
        if error.exc_type is not OutOfTime:
            hook(error)

    try:
        before = signal.signal(signal.SIGVTALRM, stop)
    except ValueError:  # only a main thread gets signals
        yield
        return
    sys.unraisablehook = lost
    try:  # again and again: what is raised while an object is destroyed is lost
        signal.setitimer(signal.ITIMER_VIRTUAL, max(seconds, 1e-3), 0.1)
        yield
    finally:
        inside = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        sys.unraisablehook = hook


def guarded(draw: Callable[[str], str], source: str, resources: dict[str, Any]) -> str:
    """Draw a text, or show it letter by letter if that fails or takes too long."""
    left = resources.setdefault("seconds_for_texts", TEXTS_SECONDS)
    start = time.process_time()
    try:
        with limited(min(TEXT_SECONDS, left)):
            return draw(source)
    except (Exception, OutOfTime):
        return f"<pre>{html.escape(source)}</pre>"
    finally:
        resources["seconds_for_texts"] = left - (time.process_time() - start)


class Renderer(IPythonRenderer):
    """Render Markdown; a picture is one of the cell's own attachments, others stay as typed."""

    def __init__(self, attachments: dict[str, Any]) -> None:
        """Take the attachments of the cell."""
        super().__init__(escape=False, allow_harmful_protocols=False, exclude_anchor_links=True)
        self.attachments, self.pictures = dict(attachments), list[str]()

    def image(self, text: str, url: str, title: str | None = None) -> str:
        """Leave a place for a picture, which it takes when the text around it has been cleaned."""
        for kind, data in self.attachments.pop(url.removeprefix("attachment:"), {}).items():
            if is_picture(kind, data):
                alt, data = html.escape(html.unescape(text)), "".join(data.split())
                self.pictures.append(f'<img alt="{alt}" src="data:{kind};base64,{data}">')
                return f"\ue000{len(self.pictures) - 1}\ue001"
        return self.text(f"![{html.unescape(text)}]({url})")


def cleaned(text: str) -> str:
    """Keep of HTML what shows text, and write the rest as the signs that it is made of."""
    style = CSSSanitizer(allowed_css_properties=["text-align"])
    return str(clean(text, tags=TAGS.split(), attributes=ATTRIBUTES, css_sanitizer=style))


def drawn(source: str, attachments: dict[str, Any]) -> str:
    """Render Markdown, clean what came out, and put its pictures into their places."""
    renderer = Renderer(attachments)
    whole = MarkdownWithMath(renderer=renderer, plugins=map(import_plugin, PLUGINS))
    text, pictures = cleaned(whole.render(source)), renderer.pictures
    return PLACE.sub(lambda place: "".join(pictures[int(place[1]) :][:1]), text)


@pass_context
def markdown(context: Any, source: str) -> str:
    """Render a cell's Markdown for a page; jinja's filter in the place of nbconvert's."""
    attachments = (context.get("cell") or {}).get("attachments", {})
    draw = partial(drawn, attachments=attachments)
    return guarded(draw, source, context.get("resources") or {})


@pass_context
def colored(context: Any, source: str, metadata: Any = None) -> str:
    """Color a cell's code, if that does not take too long."""
    draw = Highlight2HTML(pygments_lexer="ipython3")  # type: ignore[no-untyped-call]
    return guarded(draw, source, context.get("resources") or {})


def unchanged(source: str) -> str:
    """Return a text as it is, in the place of a filter of quadratic time."""
    return source


class HarmlessHTML(Preprocessor):
    """Show of a notebook no more than a page can hold, and no HTML that was not cleaned."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Cut and clean the cells."""
        if left_out := len(nb.cells[CELLS:]):
            note = new_markdown_cell(f"*{left_out} more cells are not shown.*")
            nb.cells = [*nb.cells[:CELLS], note]
        for cell in nb.cells:
            cell.source = cut(cell.source)
            if cell.cell_type == "raw":
                cell.source = guarded(cleaned, cell.source, resources)
            for output in cell.get("outputs", []):
                harmless_output(output, resources)
        return nb, resources


def harmless_output(output: NotebookNode, resources: Any) -> None:
    """Cut and clean an output in place."""
    if "text" in output:
        output.text = cut(output.text)
    data = output.get("data", {})
    for kind in list(data):
        if not is_picture_or_text(kind, data[kind]):
            del data[kind]
        elif kind.startswith("text/"):
            data[kind] = cut(data[kind])
    if "text/html" in data:
        data["text/html"] = guarded(cleaned, data["text/html"], resources)


def cut(text: str) -> str:
    """Shorten a text that is too long for a page."""
    more = len(text) - CELL_LETTERS
    return text if more <= 0 else f"{text[:CELL_LETTERS]}\n... and {more} more characters"


# --- Feedback ----------------------------------------------------------------------------------


def feedback(chapter: str, everyone: bool = False) -> tuple[list[Path], list[str]]:
    """Write a page for each student whose marks stand; return the pages and who got none, and why.

    With `everyone`, also for those that still need review. A notebook that cannot be shown gives a
    page of marks alone. Raises FileNotFoundError if there is no class.
    """
    import nbgrader.converters  # noqa: F401  (loaded once here, and not once a student)

    chapter, name = assignment(chapter)
    pages, without = [], []
    for result in standings(chapter):
        page = class_folder() / "feedback" / result.student / chapter / f"{name}.html"
        for left in page.parent.glob("*.tmp"):  # of a run that was killed
            left.unlink(missing_ok=True)
        if result.status == FAILED:
            why = html.escape("; ".join(result.why))
            write_page(page, chapter, NOT_GRADED.format(why=why))
        elif result.status == GRADED or (everyone and result.status == REVIEW):
            if trouble := draw_page(page, chapter, name, result.student):
                table = drawn(marks_table(chapter, result.student), {})
                note = f"<p>Your notebook is not shown here: {trouble}.</p>"
                write_page(page, chapter, f"{table}\n{note}")
                without.append(f"{result.student}: a page of marks alone; {trouble}")
        else:
            page.unlink(missing_ok=True)  # an old one, from before something was handed in again
            why = f" ({'; '.join(result.why)})" if result.why else ""
            without.append(shown(f"{result.student}: {result.status}{why}"))
            continue
        pages.append(page)
    return pages, without


def write_page(page: Path, chapter: str, body: str) -> None:
    """Write a page that has nothing of the notebook."""
    write_text(page, PAGE.format(policy=POLICY, chapter=html.escape(chapter), body=body))


def draw_page(page: Path, chapter: str, name: str, student: str) -> str:
    """Write the page of a graded notebook in a process of its own; say why there is none, or ""."""
    log = class_folder() / "logs" / chapter / f"{student}.feedback.log"
    with Scratch() as place:
        process = start(partial(notebook_page, page, chapter, name, student), log, place)
        try:
            process.join(5 * PAGE_SECONDS)
            late = process.is_alive() or process.exitcode == -signal.SIGXCPU
        finally:
            end(process)
    ensure_room(process.exitcode == NO_ROOM)
    ensure_gradebook(process.exitcode == NO_GRADEBOOK)
    if late:
        return "it takes too long to be drawn"
    return "" if process.exitcode == 0 else f"it cannot be drawn; see {log.name}"


def limit_memory(more: int) -> None:
    """Allow this process so many bytes more than it has; a fork has its parent's, used or not."""
    has = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])  # pages
    most = has * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def notebook_page(page: Path, chapter: str, name: str, student: str) -> None:
    """Write the page of a graded notebook.

    Raises ValueError if it is too large.
    """
    from nbconvert.exporters import HTMLExporter
    from nbgrader.converters import GenerateFeedback
    from traitlets.config import Config

    limit_memory(PAGE_MEMORY)
    resource.setrlimit(resource.RLIMIT_CPU, (PAGE_SECONDS, PAGE_SECONDS + 5))
    config = configure(Config())
    directory = course_directory(config, student_id=student, assignment_id=chapter)
    steps = GenerateFeedback(coursedir=directory, config=config)
    exporter = HTMLExporter(parent=steps, config=steps.config)  # type: ignore[no-untyped-call]
    for step in steps.preprocessors:
        exporter.register_preprocessor(step)  # type: ignore[no-untyped-call]
    names = {"student": student, "assignment": chapter, "notebook": name}
    graded = class_folder() / "autograded" / student / chapter / f"{name}.ipynb"
    resources = {"nbgrader": {**names, "db_url": directory.db_url}}
    text, _ = exporter.from_filename(str(graded), resources=resources)
    text = re.sub(r"<script\b.*?</script>", "", text, flags=re.DOTALL)
    if len(text) > PAGE_BYTES:
        raise ValueError(f"a page of {len(text) >> 20} MB")
    write_text(page, text.replace("<head>", f"<head>{POLICY}", 1))


# --- Exports -----------------------------------------------------------------------------------


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
    """Write what Canvas imports as a gradebook: its five columns, and one for each assignment.

    Any other column would become an assignment there.
    """
    full = {
        name: next((f"{r.max_score:g}" for r in found.values() if r.max_score is not None), "")
        for name, found in results.items()
    }
    blank = {"ID": "", "SIS User ID": "", "SIS Login ID": "", "Section": ""}
    rows = [{"Student": "Points Possible", **blank, **full}]
    for person in roster():
        name = f"{person.last_name}, {person.first_name}" if person.last_name else person.id
        about = {**blank, "ID": person.lms_id, "SIS Login ID": person.id}
        marks = {name: mark(found[person.id]) for name, found in results.items()}
        rows.append({"Student": name, **about, **marks})
    return write(rows)


def moodle(found: dict[str, Result]) -> str:
    """Write what Moodle imports as a grading worksheet.

    It wants `Identifier`, `Grade` and `Last modified (grade)`, and takes no mark that is older than
    its own. An empty comment would empty its own, so without comments there is no such column.
    """
    now, people = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC", roster()
    comments = {
        person.id: "; ".join(found[person.id].why)
        for person in people
        if found[person.id].status == FAILED
    }
    rows = []
    for person in people:
        result = found[person.id]
        row = {
            "Identifier": f"Participant {person.lms_id}" if person.lms_id else "",
            "Full name": person.name,
            "ID number": person.id,
            "Email address": person.email,
            "Status": result.status,
            "Grade": mark(result),
            "Maximum Grade": "" if result.max_score is None else f"{result.max_score:g}",
            "Last modified (grade)": now,
        }
        comment = {"Feedback comments": comments.get(person.id, "")} if comments else {}
        rows.append({**row, **comment})
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
    """Put a quote before what Excel would compute, also where it takes `;` for the next cell."""
    return FORMULA.sub(r"\1'", shown(value, 10_000))

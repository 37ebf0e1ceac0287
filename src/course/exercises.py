"""What an exercise notebook is made of: answers, checks, tests, points.

A notebook `solutions/04_attention/attention.ipynb` holds exercises, each under a heading such as
`## 1. A mask with a short memory (easy, 2 points, 5 minutes)`. nbgrader's metadata tells its cells
apart: an *answer* is the learner's, a *test* gives points, a *written* answer is graded by a
person, and everything else is locked, so that grading restores it.
"""

import ast
import contextlib
import io
import re
import symtable
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import CodeType
from typing import Any

from nbformat import NotebookNode

from course.chapters import ROOT, Chapter, written
from course.notebooks import read_notebook
from course.pipe import seed

HEADING = re.compile(
    r"^## (?P<number>\d+)\. (?P<title>.+) "
    r"\((?P<level>easy|medium|hard), (?P<points>\d+) points?, (?P<minutes>\d+) minutes\)$",
    re.MULTILINE,
)
HIDDEN = re.compile(r"### BEGIN HIDDEN TESTS\n(.*?)### END HIDDEN TESTS\n?", re.DOTALL)
KINDS = ("misconception", "written", "find-the-bug")
CODE_STUB, TEXT_STUB = "raise NotImplementedError", "YOUR ANSWER HERE"  # nbgrader's


@dataclass
class Exercise:
    """One exercise: its heading, and the cells that belong to it in their order."""

    number: int
    title: str
    level: str
    points: int
    minutes: int
    kinds: list[str]
    cells: list[NotebookNode] = field(default_factory=list)

    def having(self, role_: str) -> list[NotebookNode]:
        """Return the cells of one role: answer, test, written or locked."""
        return [cell for cell in self.cells if role(cell) == role_]

    @property
    def name(self) -> str:
        """Return the name that the learner defines, or that of the test."""
        cells = self.having("answer") or self.having("test")
        return str(cells[0].metadata.nbgrader.grade_id)


def path_of(chapter: Chapter, folder: Path) -> Path:
    """Return where a chapter's exercise notebook stands below solutions/ or exercises/."""
    return folder / chapter.stem / f"{chapter.stem[3:]}.ipynb"


def sources(folder: Path = ROOT / "solutions") -> list[Path]:
    """Return the exercise notebooks of the written chapters, in their order."""
    paths = [path_of(chapter, folder) for chapter in written()]
    return [path for path in paths if path.exists()]


def role(cell: NotebookNode) -> str:
    """Say what a cell is: answer, test, written, locked, or nothing ("")."""
    grading = cell.metadata.get("nbgrader", {})
    match bool(grading.get("grade")), bool(grading.get("solution")):
        case True, True:
            return "written"
        case True, False:
            return "test"
        case False, True:
            return "answer"
    return "locked" if grading.get("locked") else ""


def grade_id(cell: NotebookNode) -> str:
    """Return nbgrader's name of a cell, or nothing."""
    return str(cell.metadata.get("nbgrader", {}).get("grade_id", ""))


@lru_cache(maxsize=64)
def notebook_at(path: Path, changed: int) -> NotebookNode:
    """Read a notebook once for each time that it changes."""
    return read_notebook(path)


def notebook_of(path: Path) -> NotebookNode:
    """Return the notebook at a path; do not change what you get."""
    return notebook_at(path, path.stat().st_mtime_ns)


def exercises(notebook: NotebookNode) -> list[Exercise]:
    """Cut a notebook at the headings of its exercises; the end after the last `## ` is left out."""
    found: list[Exercise] = []
    inside = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            heading = HEADING.search(cell.source)
            inside = bool(heading)
            if heading:
                kinds = [tag for tag in cell.metadata.get("tags", []) if tag in KINDS]
                number, points, minutes = (int(heading[k]) for k in ("number", "points", "minutes"))
                found.append(
                    Exercise(number, heading["title"], heading["level"], points, minutes, kinds)
                )
        if inside:
            found[-1].cells.append(cell)
    return found


def test_source(cell: NotebookNode, part: str) -> str:
    """Return the source of a test cell: "all", its "visible" or its "hidden" part."""
    if part == "hidden":
        return "".join(HIDDEN.findall(cell.source))
    return HIDDEN.sub("", cell.source) if part == "visible" else str(cell.source)


def is_check(cell: NotebookNode) -> bool:
    """Say whether a locked cell belongs to the tests alone: no answer may use what it defines."""
    return role(cell) == "locked" and grade_id(cell).startswith("check_")


def cells_of_tests(notebook: NotebookNode) -> list[dict[str, Any]]:
    """Return the cells for the process that holds the tests; see `course.tester`.

    Of an answer it gets no more than the name. What prints a table or sums up is not for it.
    """
    cells = []
    for cell in notebook.cells:
        name = grade_id(cell)
        if cell.cell_type == "code" and role(cell) and not name.startswith(("table_", "summary")):
            source = "" if role(cell) == "answer" else cell.source
            shared = role(cell) == "locked" and not is_check(cell)
            cells.append({"name": name, "role": role(cell), "source": source, "shared": shared})
    return cells


@lru_cache(maxsize=512)
def compiled(source: str, name: str) -> CodeType:
    """Compile a cell once, however often it runs."""
    return compile(source, f"<{name}>", "exec")


@lru_cache(maxsize=512)
def names_in(source: str) -> tuple[set[str], set[str]]:
    """Return the names that a cell uses, and those that it defines for later cells."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError:  # which running the cell will report
        return set(), set()
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    symbols = symtable.symtable(source, "<cell>", "exec").get_symbols()
    return used, {s.get_name() for s in symbols if s.is_assigned() or s.is_namespace()}


def reached_by(notebook: NotebookNode, answer: str) -> set[str]:
    """Return the test cells that an answer can change.

    They use its name, or one that a cell defines by means of it: a check calls the answer, and a
    test calls the check.
    """
    reached, tests = {answer}, set()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            used, defined = names_in(cell.source)
            if used & reached and role(cell) == "test":
                tests.add(grade_id(cell))
            elif used & reached:
                reached |= defined
    return tests


def run(
    notebook: NotebookNode,
    part: str = "all",
    replaced: Mapping[str, object] | None = None,
    tests: set[str] | None = None,
) -> Iterator[tuple[NotebookNode, Exception | None]]:
    """Run a notebook as plain Python in one namespace; yield each code cell and what it raised.

    A cell that raises is noted and the next one runs, as in grading. `part` says what of the tests
    runs; `replaced` maps the name of an answer to what takes its place once its cell has run. With
    `tests`, only the test cells of these names run, and no cell that prints a table.
    """
    namespace: dict[str, object] = {"__name__": "exercise"}
    for cell in notebook.cells:
        name = grade_id(cell)
        if cell.cell_type != "code" or name == "summary":
            continue
        is_test = role(cell) == "test"
        if tests is not None and (name.startswith("table_") or (is_test and name not in tests)):
            continue
        source = test_source(cell, part) if is_test else cell.source
        error = None
        if is_test:
            seed()  # no test depends on what was drawn before it
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compiled(source, name or cell.id), namespace)
        except Exception as caught:
            error = caught
        if replaced and role(cell) == "answer" and name in replaced:
            namespace[name] = replaced[name]
        yield cell, error

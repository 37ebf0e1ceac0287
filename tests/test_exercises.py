"""The exercises: current, solvable, and graded by tests that can tell right from wrong.

How it works, for every notebook `solutions/<chapter>/<name>.ipynb`:

- `exercises/` must be what nbgrader makes of `solutions/` today, byte for byte and file for file.
  Make it with `python -m course.release`.
- The solution earns every point and the stripped exercise none.
- The wrong answers live in `tests/mutants/<chapter>.py` and not beside the solution, because
  nbgrader would hand them out. A function `multi_head__view_without_transpose` there takes the
  place of the learner's `multi_head`, in a notebook where all other answers are right, and must
  lose the points of a test cell with a message in words. Functions without `__` are helpers.
- Every test cell must earn its place: its visible part and its hidden part each catch a mutant.

A notebook runs here as plain Python, cell by cell, in one namespace and without a kernel. A cell
that raises is noted, and the next one runs, as in grading. So test cells use no magics, and the
hidden part of a test cell does not use names of its visible part.
"""

import importlib.util
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nbformat
import pytest

from course.chapters import ROOT
from course.release import strip

SOLUTIONS = sorted((ROOT / "solutions").glob("*/*.ipynb"))
HIDDEN = re.compile(r"### BEGIN HIDDEN TESTS\n(.*?)### END HIDDEN TESTS", re.DOTALL)
VISIBLE, ALL, ONLY_HIDDEN = "visible", "all", "hidden"


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


every_notebook = pytest.mark.parametrize("path", SOLUTIONS, ids=name_of)


# --- Reading ---------------------------------------------------------------------------------


@cache
def cells_of(path: Path) -> list[nbformat.NotebookNode]:
    return nbformat.read(path, as_version=4).cells


def role(cell: nbformat.NotebookNode) -> str:
    """Say whether a cell is an "answer", a "test" or neither ("")."""
    grading = cell.metadata.get("nbgrader", {})
    return "test" if grading.get("grade") else "answer" if grading.get("solution") else ""


def points_of(path: Path) -> dict[str, float]:
    """Map each test cell to its points."""
    graded = [cell.metadata.nbgrader for cell in cells_of(path) if role(cell) == "test"]
    return {grading.grade_id: grading.points for grading in graded}


@cache
def mutants_of(path: Path) -> dict[str, Callable[..., object]]:
    """Load the wrong answers that belong to a notebook's answers."""
    file = ROOT / "tests" / "mutants" / f"{path.parent.name}.py"
    if not file.exists():
        return {}
    spec = importlib.util.spec_from_file_location(f"mutants_{path.parent.name}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    answers = {cell.metadata.nbgrader.grade_id for cell in cells_of(path) if role(cell) == "answer"}
    return {
        name: value
        for name, value in vars(module).items()
        if callable(value) and "__" in name and name.split("__")[0] in answers
    }


MUTANTS = [(path, name) for path in SOLUTIONS for name in mutants_of(path)]


# --- Running ---------------------------------------------------------------------------------


def test_source(cell: nbformat.NotebookNode, part: str) -> str:
    """Return a test cell's source, or its visible or hidden part."""
    if part == ONLY_HIDDEN:
        return "".join(HIDDEN.findall(cell.source))
    return HIDDEN.sub("", cell.source) if part == VISIBLE else cell.source


test_source.__test__ = False


def run(path: Path, mutant: str | None = None, part: str = ALL) -> dict[str, Exception | None]:
    """Run a notebook with one wrong answer; return what each test cell raised, or None."""
    namespace: dict[str, object] = {"__name__": "exercise"}
    outcome: dict[str, Exception | None] = {}
    for cell in cells_of(path):
        if cell.cell_type != "code":
            continue
        source = test_source(cell, part) if role(cell) == "test" else cell.source
        error = None
        try:
            exec(compile(source, f"{path.name}:{cell.id}", "exec"), namespace)
        except Exception as caught:
            error = caught
        if role(cell) == "test":
            outcome[cell.metadata.nbgrader.grade_id] = error
        elif error and not role(cell):
            raise error
        if mutant and role(cell) == "answer":
            answer = mutant.split("__")[0]
            if cell.metadata.nbgrader.grade_id == answer:
                namespace[answer] = mutants_of(path)[mutant]
    return outcome


@cache
def lost(path: Path, mutant: str, part: str) -> dict[str, Exception]:
    """Map each test cell that fails on a wrong answer to what it raised."""
    return {test: error for test, error in run(path, mutant, part).items() if error}


# --- Tests -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stripped(tmp_path_factory) -> Path:
    """Strip all solutions into a temporary folder, as `python -m course.release` does."""
    target = tmp_path_factory.mktemp("stripped")
    strip(ROOT / "solutions", target)
    return target


def files_below(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix()
        for path in files
        if ".ipynb_checkpoints" not in path.parts and path.name != ".gitkeep"
    }


def test_exercises_are_what_the_solutions_make(stripped):
    fresh, committed = files_below(stripped), files_below(ROOT / "exercises")
    hint = "run `python -m course.release`"
    assert not fresh - committed, f"missing in exercises/: {fresh - committed}; {hint}"
    assert not committed - fresh, f"in exercises/ without a solution: {committed - fresh}"
    for name in sorted(fresh):
        same = (stripped / name).read_bytes() == (ROOT / "exercises" / name).read_bytes()
        assert same, f"exercises/{name} is not what solutions/{name} makes; {hint}"


def test_only_notebooks_are_handed_out(tmp_path):
    (tmp_path / "solutions" / "01_x").mkdir(parents=True)
    (tmp_path / "solutions" / "01_x" / "answers.py").write_text("secret = 42\n")
    with pytest.raises(ValueError, match=r"answers\.py would be handed out"):
        strip(tmp_path / "solutions", tmp_path / "out")


@every_notebook
def test_sources_are_clean(path):
    """nbgrader's result is byte-stable only for sources without outputs and with stable ids."""
    notebook = nbformat.read(path, as_version=4)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"nbgrader", "tags"}
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None


@every_notebook
def test_a_notebook_grades_three_exercises_from_easy_to_hard(path):
    points = points_of(path)
    assert len(points) >= 3 and all(value > 0 for value in points.values())
    headings = " ".join(cell.source.partition("\n")[0] for cell in cells_of(path))
    levels = re.findall(r"\((easy|medium|hard), (\d+) points?\)", headings)
    assert [int(value) for _, value in levels] == list(points.values())
    ranks = [("easy", "medium", "hard").index(level) for level, _ in levels]
    assert ranks == sorted(ranks) and len(set(ranks)) == 3


@every_notebook
@pytest.mark.parametrize("part", [VISIBLE, ALL, ONLY_HIDDEN])
def test_solutions_pass_in_full(path, part):
    assert {test: error for test, error in run(path, part=part).items() if error} == {}


@every_notebook
def test_stripped_exercises_fail_in_full(path, stripped):
    exercise = stripped / path.parent.name / path.name
    text = exercise.read_text(encoding="utf-8")
    assert "BEGIN SOLUTION" not in text and "HIDDEN TESTS" not in text
    outcome = run(exercise)
    assert set(outcome) == set(points_of(path))
    for test, error in outcome.items():
        assert isinstance(error, NotImplementedError), f"{test} gives points for nothing"


@pytest.mark.parametrize(("path", "mutant"), MUTANTS, ids=[mutant for _, mutant in MUTANTS])
def test_a_wrong_answer_loses_points_and_is_told_why(path, mutant):
    failures = lost(path, mutant, VISIBLE) | lost(path, mutant, ONLY_HIDDEN)
    assert failures, f"{mutant} earns every point: no test sees it"
    for test, error in failures.items():
        in_words = isinstance(error, AssertionError) and len(str(error).split()) >= 5
        assert in_words, f"{test}: {error!r} is no help"


@every_notebook
@pytest.mark.parametrize("part", [VISIBLE, ONLY_HIDDEN])
def test_every_test_cell_catches_a_wrong_answer(path, part):
    caught = {test for mutant in mutants_of(path) for test in lost(path, mutant, part)}
    idle = set(points_of(path)) - caught
    assert not idle, f"the {part} tests of {idle} catch no mutant: mend them or delete them"

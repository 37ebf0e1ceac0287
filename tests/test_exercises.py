"""The exercises: current, solvable, and graded by tests that can tell right from wrong.

- `exercises/` must be what nbgrader makes of `solutions/` today, byte for byte and file for file.
- The solution earns every point and the stripped exercise none.
- Every wrong answer of `tests/mutants/` loses points with words, every right one loses none, and
  what stands beside an exercise suffices (`course.mutants.lacking` has the rule).

A notebook runs here as plain Python, cell by cell, in one namespace and without a kernel
(`course.exercises.run`), so test cells use no magics, and the hidden part of a test cell does not
use names of its visible part.
"""

import copy
import re
import time
import unicodedata

import nbformat
import pytest
from nbclient import NotebookClient

from course import mutants
from course.chapters import ROOT, written
from course.exercises import (
    HIDDEN,
    KINDS,
    exercises,
    grade_id,
    notebook_of,
    path_of,
    role,
    run,
    sources,
)
from course.release import strip
from course.syllabus import SYLLABI

SOLUTIONS = sources()
COLUMNS = 88
SHOWN = [  # whose code a page of the book, or of the instructor's edition, shows
    *sorted((ROOT / "src" / "gpt2").glob("*.py")),
    *(path for folder in ("chapters", "solutions", "exercises")
      for path in sorted((ROOT / folder).rglob("*.ipynb")) if ".mine-" not in path.name),
]  # fmt: skip
SUMMARY = 'from course.check import summary\n\nsummary("{name}.ipynb", globals())'

every_notebook = pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.parent.name)
every_answer = pytest.mark.parametrize(
    ("path", "answer"),
    [(path, name) for path in SOLUTIONS for name in mutants.answers_beside(path)],
    ids=lambda value: value if isinstance(value, str) else value.parent.name,
)


@pytest.fixture(scope="module")
def stripped(tmp_path_factory):
    """Strip all solutions into a temporary folder, as `course release` does."""
    target = tmp_path_factory.mktemp("stripped")
    start = time.process_time()
    strip(ROOT / "solutions", target)
    (target / "seconds").write_text(str(time.process_time() - start))
    return target


def files_below(folder):
    files = (path for path in folder.rglob("*.*") if path.is_file())
    return {
        path.relative_to(folder).as_posix()
        for path in files
        if ".ipynb_checkpoints" not in path.parts
        and path.name != ".gitkeep"
        and ".mine-" not in path.name  # what `course release --force` keeps of a reader's work
    }


def test_every_chapter_has_exercises():
    assert [path_of(chapter, ROOT / "solutions") for chapter in written()] == SOLUTIONS
    assert sum(len(exercises(notebook_of(path))) for path in SOLUTIONS) >= 36
    wrong = [n for p in SOLUTIONS for n in mutants.answers_beside(p) if "__right__" not in n]
    assert len(wrong) >= 90


def test_exercises_are_what_the_solutions_make(stripped):
    fresh, committed = files_below(stripped), files_below(ROOT / "exercises")
    hint = "run `course release`"
    assert not fresh - committed, f"missing in exercises/: {fresh - committed}; {hint}"
    assert not committed - fresh, f"in exercises/ without a solution: {committed - fresh}"
    for name in sorted(fresh):
        same = (stripped / name).read_bytes() == (ROOT / "exercises" / name).read_bytes()
        assert same, f"exercises/{name} is not what solutions/{name} makes; {hint}"
    assert float((stripped / "seconds").read_text()) < 10


def test_run_all_goes_past_what_is_not_solved():
    """JupyterLab, as nbclient, goes on after a cell with this tag that fails."""
    notebook = copy.deepcopy(
        notebook_of(ROOT / "exercises" / "01_language_models" / "language_models.ipynb")
    )
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=ROOT)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    failed = [cell for cell in code if any(out.output_type == "error" for out in cell.outputs)]
    assert failed == [cell for cell in code if role(cell) == "test"]
    assert code[-1].execution_count == len(code)


def test_only_notebooks_are_handed_out(tmp_path):
    (tmp_path / "solutions" / "01_x").mkdir(parents=True)
    (tmp_path / "solutions" / "01_x" / "answers.py").write_text("secret = 42\n")
    with pytest.raises(ValueError, match=r"answers\.py would be handed out"):
        strip(tmp_path / "solutions", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="take a full clone"):
        strip(tmp_path / "nowhere", tmp_path / "out")


@every_notebook
def test_no_line_of_a_solution_or_a_hidden_test_is_handed_out(path):
    released = (ROOT / "exercises" / path.parent.name / path.name).read_text(encoding="utf-8")
    assert "BEGIN SOLUTION" not in released and "HIDDEN TESTS" not in released
    cells = nbformat.reads(released, as_version=4).cells
    told = {line.strip() for cell in cells for line in cell.source.splitlines()}
    open_lines, secret = set(), set()
    for cell in notebook_of(path).cells:
        blocks = re.findall(r"BEGIN SOLUTION\n(.*?)\s*### END SOLUTION", cell.source, re.DOTALL)
        blocks += HIDDEN.findall(cell.source)
        secret |= {line.strip() for block in blocks for line in block.splitlines()}
        rest = re.sub(r"BEGIN SOLUTION\n.*?### END SOLUTION", "", cell.source, flags=re.DOTALL)
        open_lines |= {line.strip() for line in HIDDEN.sub("", rest).splitlines()}
    long_lines = {line for line in secret - open_lines if len(line) > 24}
    assert long_lines and not long_lines & told


@every_notebook
def test_sources_are_clean(path):
    """nbgrader's result is byte-stable only for sources without outputs and with stable ids."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    names = [grade_id(cell) for cell in notebook.cells if role(cell)]
    assert len(set(names)) == len(names) and all(names)
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"nbgrader", "tags"}
        tags = set(cell.metadata.get("tags", []))
        assert tags <= {*KINDS, "hide-input"}
        assert ("hide-input" in tags) == grade_id(cell).startswith("check_")  # folded in the book
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None
            assert role(cell), f"a cell that grading does not restore:\n{cell.source}"
        if role(cell) in ("answer", "written"):
            marks = re.findall(r"### (BEGIN|END) SOLUTION", cell.source)
            assert marks and marks == ["BEGIN", "END"] * (len(marks) // 2)
        if role(cell) == "test":
            assert len(HIDDEN.findall(cell.source)) == 1
        if role(cell) in ("test", "written"):
            assert cell.metadata.nbgrader.points >= 1


def columns(line):
    """Count the columns that a line takes: a Korean syllable takes two."""
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in line)


@pytest.mark.parametrize(
    "path", [path for path in SHOWN if path.suffix == ".ipynb"], ids=lambda p: p.stem
)
def test_what_is_folded_closes_in_jupyterlab_too(path):
    """There a block of HTML ends at a blank line only."""
    cells = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4).cells
    assert [cell.source for cell in cells if "</details>\n<" in cell.source] == []


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_line_of_code_runs_off_the_page(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = nbformat.reads(text, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert [line for line in text.splitlines() if columns(line) > COLUMNS] == []


@every_notebook
def test_exercises_are_announced_as_they_are(path):
    """Their numbers are those of `course sync`, whose test has them."""
    notebook = notebook_of(path)
    found = exercises(notebook)
    assert len(found) >= 3
    ranks = [("easy", "medium", "hard").index(exercise.level) for exercise in found]
    assert ranks == sorted(ranks) and len(set(ranks)) == 3
    for exercise in found:
        assert 3 <= exercise.minutes <= 20
        graded = [*exercise.having("test"), *exercise.having("written")]
        assert exercise.points == sum(cell.metadata.nbgrader.points for cell in graded)
        assert exercise.having("answer") and exercise.having("test")
        text = exercise.cells[0].source
        assert "*What it teaches:*" in text
        hints = re.findall(
            r"<details><summary>(Hint \d)</summary>\n\n.+?\n\n</details>", text, re.S
        )
        assert hints == ["Hint 1", "Hint 2"], f"exercise {exercise.number} has the hints {hints}"
        assert bool(exercise.having("written")) == ("written" in exercise.kinds)
    kinds = [kind for exercise in found for kind in exercise.kinds]
    assert kinds.count("misconception") == kinds.count("written") == 1
    assert kinds.count("find-the-bug") <= 1
    assert notebook.cells[-1].source == SUMMARY.format(name=path.stem)


@every_notebook
def test_the_chapter_leads_to_its_exercises(path):
    chapter = nbformat.read(ROOT / "chapters" / f"{path.parent.name}.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in chapter.cells if cell.cell_type == "markdown")
    section = text.partition("\n## Exercises\n")[2].partition("\n## ")[0]
    assert f"(../exercises/{path.parent.name}/{path.name})" in section
    assert section.count(" Teaches") == len(exercises(notebook_of(path)))


def test_the_syllabi_have_every_chapter():
    """Once, but for the four weeks, which leave out the last; the page has a table of each.

    The preliminaries come before the first week.
    """
    for weeks, plan in SYLLABI.items():
        named = [int(n) for week in plan if week[0].isdigit() for n in week.split(",")]
        numbers = [chapter.number for chapter in written() if chapter.number]
        assert len(plan) == weeks and named == numbers[: 8 if weeks == 4 else None]
    text = (ROOT / "chapters" / "teaching.md").read_text(encoding="utf-8")
    assert [int(weeks) for weeks in re.findall("<!-- syllabus (.*) -->", text)] == list(SYLLABI)


def outcome(notebook, part="all"):
    return {grade_id(cell) or cell.id: error for cell, error in run(notebook, part)}


@every_notebook
@pytest.mark.parametrize("part", ["visible", "hidden", "all"])
def test_solutions_pass_in_full(path, part):
    assert {name: e for name, e in outcome(notebook_of(path), part).items() if e} == {}


@every_notebook
def test_stripped_exercises_fail_in_full(path):
    exercise = nbformat.read(ROOT / "exercises" / path.parent.name / path.name, as_version=4)
    errors = outcome(exercise)
    for cell in exercise.cells:
        if role(cell) == "test":
            error = errors[grade_id(cell)]
            assert isinstance(error, NotImplementedError), (
                f"{grade_id(cell)} gives points: {error!r}"
            )
        if role(cell) == "written":
            assert cell.source == "YOUR ANSWER HERE"


@pytest.fixture(scope="module")
def verdicts():
    """Judge every answer once, and remember."""
    known = {}

    def judge(path, answer):
        if (path, answer) not in known:
            known[path, answer] = mutants.judge(path, answer)
        return known[path, answer]

    return judge


@every_answer
def test_a_wrong_answer_loses_points_in_words_and_a_right_one_none(path, answer, verdicts):
    assert verdicts(path, answer).trouble == ""


@every_notebook
def test_every_part_of_every_test_catches_a_wrong_answer(path, verdicts):
    judged = [verdicts(path, answer) for answer in mutants.answers_beside(path)]
    assert list(mutants.lacking(path, judged)) == []


def test_an_exercise_needs_wrong_answers_and_another_right_one():
    """The rule has one home: take answers away, and see it say what is lacking."""
    path = SOLUTIONS[0]
    caught = {part: {"test_x": AssertionError()} for part in mutants.PARTS}
    first = exercises(notebook_of(path))[0].name
    few = [mutants.Verdict(first, f"{first}__{name}", caught) for name in ("a", "right__b")]
    said = list(mutants.lacking(path, few))
    assert "exercise 1 has 1 wrong answers: give it two" in said
    assert "exercise 2 has no other right answer: give it one" in said
    assert "exercise 1 has no other right answer: give it one" not in said


def test_mutants_reports_a_survivor(tmp_path, monkeypatch):
    """Put a test that cannot fail beside an exercise, and see the report say so."""
    path = SOLUTIONS[0]
    weak = nbformat.from_dict(notebook_of(path))
    name = next(iter(mutants.answers_beside(path))).split("__")[0]
    for exercise in exercises(weak):
        if name in {grade_id(cell) for cell in exercise.having("answer")}:
            for cell in exercise.having("test"):
                cell.source = "### BEGIN HIDDEN TESTS\npass\n### END HIDDEN TESTS"
    file = tmp_path / path.parent.name / path.name
    file.parent.mkdir()
    nbformat.write(weak, file)
    lines = list(mutants.report(file))
    assert any("SURVIVES" in line and bad for line, bad in lines)
    assert any("catches no wrong answer" in line and bad for line, bad in lines)

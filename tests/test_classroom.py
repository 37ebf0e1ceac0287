"""The instructor's kit without the hostile code: rosters, collecting, grading, marks, release."""

import contextlib
import csv
import errno
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path

import nbformat
import pytest
from classkit import CHAPTER, NOTEBOOK, cell_named, handed_out, make_class, solution
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from course import check as checking
from course import classroom, grading, marks
from course.__main__ import main
from course.chapters import ROOT
from course.classroom import new_class, read_roster
from course.exercises import HIDDEN, exercises
from course.release import release

FILE = f"{NOTEBOOK}.ipynb"


# --- Rosters -----------------------------------------------------------------------------------

ROSTERS = {
    "plain": "id,first_name,last_name\njdoe,Jane,Doe\n",
    "with a byte order mark": "\ufeffid,first_name,last_name\r\njdoe,Jane,Doe\r\n",
    "semicolons, as Excel writes them": "ID;Vorname;first_name;last_name\njdoe;x;Jane;Doe\n",
    "blank rows": "id,first_name,last_name\n,,\njdoe,Jane,Doe\n,,\n",
    "Canvas": "Student,ID,SIS User ID,SIS Login ID,Section,Homework 1 (99)\n"
    ",,,,,Manual Posting\n    Points Possible,,,,,16\n"
    '"Doe, Jane",4711,900,jdoe,"Bio 1, Mon",12\n',
    "Canvas without logins": 'Student,ID,SIS User ID,Section\n"Doe, Jane",4711,jdoe,A\n',
    "Moodle, participants": "First name,Surname,ID number,Email address\nJane,Doe,jdoe,j@x.edu\n",
    "Moodle, grading worksheet": "Identifier,Full name,ID number,Email address,Status\n"
    "Participant 4711,Jane Doe,jdoe,j@x.edu,No submission\n",
}


@pytest.mark.parametrize("kind", ROSTERS)
def test_rosters_are_read_as_they_come(tmp_path, kind):
    (tmp_path / "r.csv").write_text(ROSTERS[kind], encoding="utf-8")
    [jane] = read_roster(tmp_path / "r.csv")
    assert (jane.id, jane.first_name, jane.last_name) == ("jdoe", "Jane", "Doe")
    assert jane.lms_id == ("4711" if "4711" in ROSTERS[kind] else "")
    assert jane.email == ("j@x.edu" if "Moodle" in kind else "")


@pytest.mark.parametrize(
    "text, says",
    [
        ("id\nann\nben\nann\n", "line 4: ann appears twice"),
        ("id\n../x\n", "line 2: the id '../x' cannot name a folder"),
        ("id\na/b\n", "'a/b' cannot name a folder"),
        ("id\n..\n", "'..' cannot name a folder"),
        ("id\n-rf\n", "'-rf' cannot name a folder"),
        ("id\nmüller\n", "use a-z"),
        ("id\n" + "a" * 300 + "\n", "cannot name a folder"),
        ("name,email\nAnn,a@x.edu\n", "line 2: no id; each student needs one in a column `id`"),
        ("id,name\nann,Ann\n,Ben\n", "line 3: no id"),
        ("id\n", "has no students"),
        ("", "has no students"),
        ("Student,ID\n    Points Possible,\n", "has no students"),
    ],
)
def test_a_roster_that_is_wrong_is_refused_with_its_line(tmp_path, text, says):
    (tmp_path / "r.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(says)):
        read_roster(tmp_path / "r.csv")


def test_a_roster_in_another_encoding_is_refused_in_words(tmp_path):
    (tmp_path / "r.csv").write_bytes("id,last_name\nann,Müller\n".encode("latin-1"))
    with pytest.raises(ValueError, match="save it as `CSV UTF-8`"):
        read_roster(tmp_path / "r.csv")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A course in a temporary folder: one chapter, and no class yet."""
    for name in ("solutions", "exercises"):
        shutil.copytree(ROOT / name / CHAPTER, tmp_path / name / CHAPTER)
    monkeypatch.setattr(classroom, "ROOT", tmp_path)
    monkeypatch.delenv("COURSE_SOLUTIONS", raising=False)
    return tmp_path


def test_a_class_is_extended_and_nobody_is_ever_removed(place):
    roster = place / "r.csv"
    roster.write_text("id,last_name,lms_id\nann,Lee,11\nben,Roe,12\n", encoding="utf-8")
    assert [s.id for s in new_class(roster)] == ["ann", "ben"]
    roster.write_text("id,first_name\nben,Ben\ncat,Cat\n", encoding="utf-8")
    assert [s.id for s in new_class(roster)] == ["ann", "ben", "cat"]
    ben = classroom.roster()[1]
    assert (ben.first_name, ben.last_name, ben.lms_id) == ("Ben", "Roe", "12")
    with classroom.gradebook() as book:
        assert {s.id: s.last_name for s in book.students} == {
            "ann": "Lee", "ben": "Roe", "cat": None}  # fmt: skip
    with pytest.raises(FileNotFoundError, match="there is no file"):
        new_class(place)


# --- Release -----------------------------------------------------------------------------------


def fill(folder, files):
    """Write files, given by path, below a folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def set_cell(path, name, source):
    notebook = nbformat.read(path, as_version=4)
    cell_named(notebook, name).source = source
    nbformat.write(notebook, path)


def ran_a_cell(notebook):
    cell_named(notebook, "setup").execution_count = 1


def answered(notebook):
    cell_named(notebook, "sliding_mask").source = "def sliding_mask(a, b, c): return 1"


def began_above_the_stub(notebook):
    cell = cell_named(notebook, "sliding_mask")
    cell.source = cell.source.replace("    # YOUR CODE", "    key = 1\n    # YOUR CODE")


def began_to_write(notebook):
    cell_named(notebook, "written_effective_keys").source += "\n\nThe table says"


def added_a_cell(notebook):
    notebook.cells.append(new_code_cell("scratch = 1"))


WORK = [ran_a_cell, answered, began_above_the_stub, began_to_write, added_a_cell]


@pytest.mark.parametrize("work", WORK)
def test_release_never_overwrites_work(place, work):
    path = place / "exercises" / CHAPTER / FILE
    stub = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(stub, as_version=4)
    work(notebook)
    nbformat.write(notebook, path)
    mine = path.read_bytes()
    with pytest.raises(ValueError, match=rf"worked in exercises/{CHAPTER}/{FILE}.*--force"):
        release()
    assert path.read_bytes() == mine
    assert release(force=True) == [f"exercises/{CHAPTER}/{FILE}"]
    assert path.read_text(encoding="utf-8") == stub
    assert path.with_name(f"{NOTEBOOK}.mine-1.ipynb").read_bytes() == mine
    path.write_bytes(mine)
    release(force=True)
    assert path.with_name(f"{NOTEBOOK}.mine-2.ipynb").read_bytes() == mine


def test_release_brings_stubs_up_to_date_and_keeps_what_is_not_its_own(place):
    path = place / "exercises" / CHAPTER / FILE
    stub = path.read_text(encoding="utf-8")
    path.write_text(stub.replace("Say which of n_src keys", "Say, as we once wrote,"), "utf-8")
    gone = place / "exercises" / "99_gone"
    fill(gone, {"a.ipynb": nbformat.writes(handed_out()), "b.ipynb": nbformat.writes(solution())})
    assert sorted(release()) == [f"exercises/{CHAPTER}/{FILE}", "exercises/99_gone/a.ipynb (gone)"]
    assert path.read_text(encoding="utf-8") == stub and release() == []
    assert [p.name for p in gone.iterdir()] == ["b.ipynb"]  # somebody's answers
    path.write_text("{broken", encoding="utf-8")
    with pytest.raises(ValueError, match="somebody has worked in"):
        release()


def variant(folder):
    """Write a private source of the chapter, with another hidden test."""
    fill(folder, {f"{CHAPTER}/{FILE}": (ROOT / "solutions" / CHAPTER / FILE).read_text("utf-8")})
    path = folder / CHAPTER / FILE
    source = cell_named(nbformat.read(path, as_version=4), "test_sliding_mask").source
    source = source.replace("check_sliding_mask(5, 5, 3)", "check_sliding_mask(6, 6, 2)")
    set_cell(path, "test_sliding_mask", source.replace("(1, 7, 2)", "(1, 8, 5)"))
    return folder


def test_private_sources_take_the_place_of_public_ones(place, monkeypatch):
    monkeypatch.setenv("COURSE_SOLUTIONS", str(place / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"names .*/nowhere, which is not a folder"):
        release()
    monkeypatch.setenv("COURSE_SOLUTIONS", str(place / "private"))
    (place / "private").mkdir()
    with pytest.raises(ValueError, match="holds no notebook"):
        release()
    variant(place / "private")
    before = {p: p.read_bytes() for p in (place / "exercises").rglob("*.ipynb")}
    assert release() == [f"release/{CHAPTER}/{FILE}"]
    text = (place / "grading" / "release" / CHAPTER / FILE).read_text(encoding="utf-8")
    assert "check_sliding_mask(6, 6, 2)" in text and "(1, 8, 5)" not in text
    assert {p: p.read_bytes() for p in (place / "exercises").rglob("*.ipynb")} == before
    for stray in ("attention.ipynb", "04_attention/mine.ipynb", "x/y/z.ipynb"):
        fill(place / "private", {stray: text})
        with pytest.raises(ValueError, match=rf"{stray} replaces no notebook of the course"):
            release()
        (place / "private" / stray).unlink()
    monkeypatch.delenv("COURSE_SOLUTIONS")
    with pytest.raises(ValueError, match="this class has private sources: set COURSE_SOLUTIONS"):
        release()


# --- Check -------------------------------------------------------------------------------------


def exercise_notebook(*answers):
    """Make a notebook of small exercises; the answer to number n is a function fn."""
    cells = [new_markdown_cell("# Exercises")]
    for n, answer in enumerate(answers, start=1):
        cells.append(new_markdown_cell(f"## {n}. Number {n} (easy, 2 points, 5 minutes)"))
        test = f"assert f{n}() == {n}, f'expected {n}, not {{f{n}()}}'"
        for source, id, is_test in ((answer, f"f{n}", False), (test, f"test_{n}", True)):
            cells.append(new_code_cell(source))
            given = {"grade_id": id, "grade": is_test, "solution": not is_test}
            cells[-1].metadata["nbgrader"] = given
    return new_notebook(cells=cells)


@pytest.fixture
def checked(tmp_path, monkeypatch, capsys):
    """Run `course check` on a notebook; return its exit code and what it printed."""

    def run(notebook, seconds=120):
        path = tmp_path / "mine.ipynb"
        path.write_text(notebook if isinstance(notebook, str) else nbformat.writes(notebook))
        monkeypatch.setattr(checking, "CHECKED_CELL_SECONDS", seconds)
        before = (path.read_bytes(), path.stat().st_mtime_ns)
        try:
            return checking.check(str(path)), capsys.readouterr().out
        finally:
            assert (path.read_bytes(), path.stat().st_mtime_ns) == before
            assert os.listdir(tmp_path) == ["mine.ipynb"]

    return run


def test_check_of_the_stub_and_of_the_right_notebook(checked):
    code, text = checked(handed_out())
    assert code == 1 and text.count(": not answered yet\n") == 5
    assert text.endswith("\n0 of 5 exercises pass their visible tests.\n")
    code, text = checked(solution())
    assert code == 0 and text.count(": passes") == 5
    assert "2. How many keys does a head look at?: passes its tests; a person reads" in text


WRONG = """The cell that begins `def f3()` stops: SyntaxError: expected ':' in its line 1

The cell that begins `f4 = 1 / 0` stops: ZeroDivisionError: division by zero

1. Number 1: passes
2. Number 2: fails
   expected 2, not 7
3. Number 3: fails
   `f3` is not defined: run the cell that defines it. If you did, that cell stopped at
   an error before it came to the end.
4. Number 4: fails
   `f4` is not defined: run the cell that defines it. If you did, that cell stopped at
   an error before it came to the end.
5. Number 5: fails
   your code calls exit(); return a value instead
6. Number 6: fails
   `six` is not defined, in `f6`: `def f6(): return six`. If a cell above defines it,
   run the cells from the top; if none does, import it or correct its spelling.

1 of 6 exercises pass their visible tests.
"""


def test_check_and_the_last_cell_say_in_the_same_words_what_is_wrong(checked, tmp_path, capsys):
    answers = ["def f1(): return 1", "def f2(): return 7", "def f3()\n    return 3", "f4 = 1 / 0",
               "import sys\ndef f5(): sys.exit()", "def f6(): return six"]  # fmt: skip
    assert checked(exercise_notebook(*answers)) == (1, WRONG)
    namespace = {}
    for answer in answers:
        with contextlib.suppress(SyntaxError, ZeroDivisionError):
            exec(answer, namespace)
    checking.summary(tmp_path / "mine.ipynb", namespace)
    expected = WRONG[WRONG.index("1. Number") :].replace(", in `f6`: `def f6(): return six`", "")
    assert capsys.readouterr().out.split() == expected.split()  # only a kernel knows the line
    checking.summary(tmp_path / "old.ipynb", namespace)
    assert "was the notebook renamed? Put its name in this cell" in capsys.readouterr().out


@pytest.mark.parametrize(
    "second, says",
    [
        ("while True: pass", "begins `while True: pass` runs for longer than 6 s: is there a loop"),
        ("import os; os._exit(1)", "begins `import os; os._exit(1)` ends the Python process"),
        ("def f2():\n    while True: pass", "2. Number 2: fails\n   a test runs for longer"),
        ("def f2():\n    import os; os._exit(1)", "2. Number 2: fails\n   a test ends the Python"),
    ],
)
def test_check_says_where_it_was_stopped(checked, second, says):
    first, third = "def f1(): return 1", "def f3(): return 3"
    code, text = checked(exercise_notebook(first, second, third), seconds=6)
    assert code == 1 and says in text and "Nothing after it was run." in text
    assert ("1. Number 1: passes\n2." in text) == ("a test" in says) and "3. Number" not in text


RAISE = "raise NotImplementedError()"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (f'    """Words."""\n    {RAISE}', "not answered yet"),
        (f"    n = x + 1\n    {RAISE}", "`raise NotImplementedError()` is still in `f`"),
        ('    raise NotImplementedError("no LayerNorm for Long")', "no LayerNorm for Long"),
        ("    return copy.deepcopy(x)", "`copy` is not defined. If a cell above defines it"),
        ("    return x / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_verdict_tells_an_unwritten_answer_from_a_failing_one(answer, says):
    cells = [
        nbformat.v4.new_markdown_cell("## 1. One (easy, 2 points, 5 minutes)"),
        nbformat.v4.new_code_cell(f"def f(x):\n{answer}"),
        nbformat.v4.new_code_cell("f(1)"),
    ]
    cells[1].metadata["nbgrader"] = {"grade_id": "f", "solution": True}
    cells[2].metadata["nbgrader"] = {"grade_id": "test_f", "grade": True, "points": 2}
    namespace = {}
    exec(cells[1].source, namespace)
    found = exercises(nbformat.v4.new_notebook(cells=cells))[0]
    assert says in " ".join(str(checking.progress(found, namespace)).split())


@pytest.mark.parametrize("text", ["", "{}", "[]", "no json", '{"cells": 3}', "\x00"])
def test_check_of_what_is_no_notebook(checked, text):
    with pytest.raises(ValueError, match=r"mine\.ipynb (cannot be read|has no exerc)"):
        checked(text)


def test_check_names_what_is_not_there(tmp_path, checked):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        checking.check(str(tmp_path / "x.ipynb"))
    with pytest.raises(ValueError, match="has no exercises: name a notebook in exercises/"):
        checked(new_notebook(cells=[new_code_cell("1")]))
    [exercise] = exercises(new_notebook(cells=exercise_notebook("f1 = int").cells[:3]))
    assert "its test cell is gone" in checking.progress(exercise, {}).why


def test_check_takes_the_learners_copy_where_the_course_is_shared(tmp_path, monkeypatch):
    """As on a JupyterHub, where one installed course serves everybody."""
    mine = tmp_path / "exercises" / CHAPTER / FILE
    mine.parent.mkdir(parents=True)
    shutil.copy(ROOT / "exercises" / CHAPTER / FILE, mine)
    monkeypatch.chdir(tmp_path)
    assert checking.locate("4") == mine
    monkeypatch.chdir(mine.parent)
    assert checking.locate("4") == ROOT / "exercises" / CHAPTER / FILE  # the clone is the learner's
    monkeypatch.setattr(checking.os, "access", lambda path, how: False)
    with pytest.raises(FileNotFoundError, match="your copy"):
        checking.locate("4")


# --- Grading, marks, feedback, export: one class, in the order of a week ------------------------

ROSTER = """id,first_name,last_name,email,lms_id
ann,Ann,"O'Neil, ""Nan"" Jr",ann@x.edu,11
ben,=HYPERLINK(1),-Smith,ben@x.edu,12
cat,Cat,@Home,,13
dan,Dan,Öz,,
eve,Eve,Ek,,
"""
ONLY_VISIBLE = """def sliding_mask(n_dst, n_src, window):
    if window == 1:
        return torch.ones(n_dst, n_src, dtype=torch.bool)
    position = torch.arange(n_dst)[:, None] + n_src - n_dst
    key = torch.arange(n_src)
    return (key <= position) & (key > position - window)
"""
WORDS = 'At $t<T$ it is 2.0 of 64. <script>alert(1)</script><img src=x onerror="alert(2)">'
WRITTEN = "written_effective_keys"


def mtimes(kit):
    folder = kit.folder / "grading" / "status" / CHAPTER
    return {path.stem: path.stat().st_mtime_ns for path in folder.glob("*.json")}


@pytest.fixture(scope="module")
def graded_kit(tmp_path_factory):
    """Grade a class: Ann right, Ben not quite, Cat no notebook, Dan nothing, Eve flagged."""
    kit = make_class(tmp_path_factory.mktemp("class"), ["ann", "ben", "cat", "dan", "eve"])
    (kit.folder / "grading" / "roster.csv").write_text(ROSTER, encoding="utf-8")
    kit.submit("cat", "no notebook <b>")
    kit.submit("zed", "a stranger")
    for student, name, source in (("ann", WRITTEN, WORDS), ("ben", "sliding_mask", ONLY_VISIBLE)):
        notebook = solution()
        cell_named(notebook, name).source = source
        kit.submit(student, notebook)
    notebook = solution()
    notebook.cells.append(new_code_cell("print('x' * 2**21)"))
    kit.submit("eve", notebook)
    kit.first = kit.course("grade", "4")
    return kit


@pytest.fixture
def kit(graded_kit, monkeypatch):
    """The graded class, also for calls in this process."""
    monkeypatch.setattr(classroom, "ROOT", graded_kit.folder)
    monkeypatch.delenv("COURSE_SOLUTIONS", raising=False)
    return graded_kit


def standing(student):
    return next(r for r in grading.standings("4") if r.student == student)


def mark_by_hand(*students, score=1.5):
    """Do what the formgrader does when a person marks a written answer."""
    with classroom.gradebook() as book:
        for student in students:
            grade = book.find_grade(WRITTEN, NOTEBOOK, CHAPTER, student)
            grade.manual_score, grade.needs_manual_grade = score, False
        book.db.commit()


def test_each_submission_ends_in_a_status(kit):
    said = kit.first.stdout
    assert kit.first.returncode == 1, said + kit.first.stderr  # 1: somebody's failed
    assert "5 to grade, 0 graded before, 2 at a time, sandboxed" in said
    assert "zed is not on the roster: add the student with `course new-class`" in said
    assert {r.student: (r.status, r.score) for r in grading.standings("4")} == {
        "ann": ("needs review", 14), "ben": ("needs review", 12), "cat": ("failed", None),
        "dan": ("no submission", None), "eve": ("needs review", 14), "zed": ("failed", None),
    }  # fmt: skip
    assert standing("ann").why == [f"{WRITTEN} is to be read"]
    assert "printed more than a megabyte" in standing("eve").why[0]


def test_nothing_is_graded_twice_but_what_is_handed_in_again(kit):
    before = mtimes(kit)
    assert "to grade" not in kit.course("grade", "4").stdout and mtimes(kit) == before
    kit.submit("cat", "still no notebook <b>")
    again = kit.course("grade", "4")
    assert "1 to grade, 4 graded before" in again.stdout and again.returncode == 1
    assert {s for s, stamp in mtimes(kit).items() if stamp != before[s]} == {"cat"}


def test_wrong_calls_are_answered_in_words(kit, capsys):
    for call, says in (
        (["grade", "4", "--student", "dan"], "dan has handed in nothing for 04_attention: run"),
        (["grade", "44"], "no chapter is called '44'; there are: 00_pytorch, 01_"),
        (["grade", "4", "--workers", "0"], "--workers must be at least 1"),
        (["review", "4", "--accept", "eve"], "say what you found: --note"),
        (["review", "4", "--accept", "dan", "--note", "x"], "dan has no result for 04_attention"),
        (["export", "4", "--format", "excel"], "use one of plain, canvas, moodle"),
        (["export", "4", "4", "--format", "moodle"], "name one chapter"),
    ):
        assert main(call) == 2 and says in capsys.readouterr().err


def test_a_person_has_the_last_word(kit, capsys):
    mark_by_hand("ann", "ben", "eve")
    assert (standing("ann").status, standing("ann").score) == ("graded", 15.5)
    assert standing("ben").status == "graded" and standing("eve").status == "needs review"
    assert main(["review", "4", "--accept", "eve", "--note", "a print left in"]) == 0
    assert "eve" not in capsys.readouterr().out
    assert (standing("eve").status, standing("eve").accepted) == ("graded", "a print left in")
    mark_by_hand("eve", score=2)
    assert standing("eve").score == 16


def text_of(page):
    """Return what a page says, without its tags and styles."""
    body = re.sub(r"<(style|script).*?</\1>", "", page[page.index("<body") :], flags=re.DOTALL)
    return unescape(re.sub(r"<[^>]*>", "", body))


def test_feedback_tells_marks_and_words_and_nothing_hidden(kit):
    source = nbformat.read(kit.folder / "solutions" / CHAPTER / FILE, as_version=4)
    parts = [HIDDEN.findall(cell.source) for cell in source.cells]
    hidden = {line.strip() for part in parts for text in part for line in text.splitlines()}
    shown = [HIDDEN.sub("", cell.source) for cell in source.cells]
    hidden -= {line.strip() for text in shown for line in text.splitlines()}
    hidden = {line for line in hidden if len(line) > 12}  # of `])` nobody learns anything
    pages, without = marks.feedback("4")
    assert [page.parts[-3] for page in pages] == ["ann", "ben", "cat", "eve", "zed"]
    assert without == ["dan: no submission"]
    ann, ben, cat = (page.read_text(encoding="utf-8") for page in pages[:3])
    for page in (ann, ben):
        assert not [line for line in hidden if line in text_of(page)] and len(hidden) > 20
        assert "&lt;details" not in page and page.count("<details>") == 10  # the hints are folded
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in ben.split("<tr>")]
    assert [row[1:] for row in rows if row] == [
        ["0", "2"], ["3.5", "4"], ["3", "3"], ["3", "3"], ["4", "4"], ["13.5", "16"]]  # fmt: skip
    assert "AssertionError: sliding_mask(4, 4, 1): row 0" in text_of(ben)
    assert "if window == 1:" in text_of(ben)  # the student's own words
    assert "it is 2.0 of 64. <script>alert(1)</script><img src=x" in text_of(ann)
    assert "<script>alert" not in ann and "<img src=x" not in ann and "$t&lt;T$" in ann
    assert "Not graded" in cat and "is not a notebook (NotJSONError" in cat and "<b>" not in cat


def test_who_is_in_review_gets_no_page_and_loses_an_old_one(kit):
    page = kit.folder / "grading" / "feedback" / "eve" / CHAPTER / f"{NOTEBOOK}.html"
    assert page.exists()
    grading.store(replace(grading.read_result(CHAPTER, "eve"), accepted=""))
    pages, without = marks.feedback("4")
    assert not page.exists() and page not in pages
    assert without[1].startswith("eve: needs review (printed more than a megabyte")
    assert page in marks.feedback("4", everyone=True)[0] and page.exists()


LIMITS = {
    "computes": "import resource as r; r.setrlimit(r.RLIMIT_CPU, (1, 2))\nwhile True: pass",
    "dies": "import os; os.kill(os.getpid(), 9)",
    "raises": "1 / 0",
    "takes memory": "import resource as r; r.setrlimit(r.RLIMIT_AS, (2**31,) * 2); bytes(2**40)",
}


@pytest.mark.parametrize("how", LIMITS)
def test_one_page_cannot_stop_the_others(kit, monkeypatch, how):
    whole = marks.notebook_page

    def hostile(page, chapter, name, student):
        exec(LIMITS[how] if student == "ann" else "")
        whole(page, chapter, name, student)

    monkeypatch.setattr(marks, "notebook_page", hostile)
    pages, without = marks.feedback("4")
    ann, ben = (page.read_text(encoding="utf-8") for page in pages[:2])
    assert "Your notebook is not shown here" in ann and "15.5" in ann
    assert "AssertionError: sliding_mask(4, 4, 1): row 0" in text_of(ben)
    why = "it takes too long to be drawn" if how == "computes" else "it cannot be drawn"
    assert without[0].startswith(f"ann: a page of marks alone; {why}")
    assert "Content-Security-Policy" in ann and "Content-Security-Policy" in ben
    assert "<script" not in ann + ben


def test_a_page_has_a_size(kit, monkeypatch):
    monkeypatch.setattr(marks, "PAGE_BYTES", 10_000)
    pages, without = marks.feedback("4")
    assert pages[0].stat().st_size < 5000 and "ann: a page of marks alone" in without[0]


def read_by_canvas(text):
    """Return the assignments and the students of an import, by the rules of Canvas's importer.

    They are in lib/gradebook_importer.rb of its published source: where the columns of a student
    end, that each further column is an assignment, and which rows are none of a student.
    """
    head, *rows = rows_of(text)
    assert len(head) > 3 and "Student" in head[0] and "ID" in head[1]
    columns = 3
    if head[2] == "SIS Login ID":
        columns += 1
    elif head[2:4] == ["SIS User ID", "SIS Login ID"]:
        columns += 2
    assert "Section" in head[columns - 1]
    students = [row for row in rows if "Points Possible" not in row[0]]
    return head[columns:], {row[1] or row[3]: row[columns:] for row in students}


def read_by_moodle(text):
    """Return the marks of an import by Moodle's number, by the rules of Moodle's importer.

    They are in mod/assign/feedback/offline of its published source: three columns must be there
    under their names, the number comes after "Participant ", a mark that is empty is left alone.
    """
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {"Identifier", "Grade", "Last modified (grade)"} <= set(rows[0])
    for row in rows:
        when = datetime.strptime(row["Last modified (grade)"], "%Y-%m-%d %H:%M:%S UTC")
        assert abs(datetime.now(UTC).replace(tzinfo=None) - when) < timedelta(hours=1)
    ids = {row["Identifier"][len("Participant ") :]: row["Grade"] for row in rows}
    return {id: float(grade) for id, grade in ids.items() if id and grade}


def test_learning_systems_read_what_is_exported(kit, tmp_path):
    assignments, students = read_by_canvas(marks.export(["4"], "canvas"))
    assert assignments == [CHAPTER]  # a column of notes would be an assignment
    assert students == {"11": ["15.5"], "12": ["13.5"], "13": [""], "dan": [""], "eve": [""]}
    assert read_by_moodle(marks.export(["4"], "moodle")) == {"11": 15.5, "12": 13.5}
    assert main(["export", "4", "--excel", "--out", str(tmp_path / "marks.csv")]) == 0
    assert (tmp_path / "marks.csv").read_bytes().startswith(b"\xef\xbb\xbfstudent,")


@pytest.mark.parametrize(
    "error, code", [(OSError(errno.ENOSPC, "No space"), 2), (KeyboardInterrupt(), 130)]
)
def test_what_cannot_be_written_leaves_what_was_there(kit, tmp_path, monkeypatch, error, code):
    table = tmp_path / "marks.csv"
    table.write_text("old")
    page = kit.folder / "grading" / "feedback" / "ann" / CHAPTER / f"{NOTEBOOK}.html"
    marks.feedback("4")
    before = page.read_bytes()

    def stopped(*arguments):
        raise error

    with monkeypatch.context() as stopping:
        stopping.setattr(os, "fsync", stopped)
        assert main(["export", "4", "--out", str(table)]) == code
        assert main(["feedback", "4"]) == code
    assert [path.name for path in tmp_path.iterdir()] == ["marks.csv"]
    assert table.read_text() == "old" and page.read_bytes() == before
    assert [path.name for path in page.parent.iterdir()] == [page.name]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_a_letter_stops_no_command(kit, encoding):
    work = kit.folder / "in" / "dan_\u4e2d.ipynb"
    fill(work.parent, {work.name: "x"})
    environment = {**os.environ, "PYTHONPATH": str(kit.folder / "src"), "PYTHONUTF8": "0"}
    for command, says in ((["export", "4"], b"\ndan,"), (["collect", "4", "in"], b"1 students")):
        run = subprocess.run([sys.executable, "-m", "course", *command], cwd=kit.folder,
                             env={**environment, "PYTHONIOENCODING": encoding},
                             capture_output=True)  # fmt: skip
        assert run.returncode == 0 and says in run.stdout, run
    shutil.rmtree(kit.folder / "grading" / "submitted" / "dan")


def test_why_a_file_was_refused_is_told_to_the_end(kit):
    for student in ("ben", "dan"):
        classroom.refuse(CHAPTER, student, "larger than 20 MiB: clear its outputs")
    ben, dan = standing("ben"), standing("dan")
    assert (ben.status, dan.status, dan.score) == ("needs review", "failed", None)
    assert ben.why == ["a later file was refused: larger than 20 MiB: clear its outputs"]
    pages, without = marks.feedback("4")
    assert "larger than 20 MiB" in next(p for p in pages if "dan" in p.parts).read_text("utf-8")
    assert any(line.startswith("ben: needs review") for line in without)
    assert "larger than 20 MiB" in marks.export(["4"], "plain")
    assert main(["review", "4", "--accept", "ben", "--note", "the first one counts"]) == 0
    assert standing("ben").status == "graded"
    classroom.refuse(CHAPTER, "dan", "")
    marks.feedback("4")


def rows_of(text):
    return list(csv.reader(io.StringIO(text)))


def test_export_leaves_empty_what_is_no_mark(kit, tmp_path):
    plain = list(csv.DictReader(io.StringIO(marks.export(["4"], "plain"))))
    assert {row["student"]: (row["status"], row["score"]) for row in plain} == {
        "ann": ("graded", "15.5"), "ben": ("graded", "13.5"), "cat": ("failed", ""),
        "dan": ("no submission", ""), "eve": ("needs review", ""), "zed": ("failed", ""),
    }  # fmt: skip
    assert plain[0]["last_name"] == 'O\'Neil, "Nan" Jr' and plain[0]["max_score"] == "16"
    assert (plain[1]["first_name"], plain[1]["last_name"]) == ("'=HYPERLINK(1)", "'-Smith")
    head, points, ann, ben, cat, dan, eve = rows_of(marks.export(["4"], "canvas"))
    assert head == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", CHAPTER]
    assert points[0] == "Points Possible" and points[-1] == "16"
    assert ann == ['O\'Neil, "Nan" Jr, Ann', "11", "", "ann", "", "15.5"]
    assert ben[0] == "'-Smith, =HYPERLINK(1)" and cat[0] == "'@Home, Cat"
    assert [row[-1] for row in (cat, dan, eve)] == ["", "", ""]
    head, ann, ben, cat, dan, eve = rows_of(marks.export(["4"], "moodle"))
    assert head[:4] == ["Identifier", "Full name", "ID number", "Email address"]
    assert ann[:7] == ["Participant 11", 'Ann O\'Neil, "Nan" Jr', "ann", "ann@x.edu", "graded",
                       "15.5", "16"]  # fmt: skip
    assert [row[5] for row in (cat, dan, eve)] == ["", "", ""] and "no notebook" in cat[8]
    assert main(["export", "4", "--out", str(tmp_path / "marks.csv")]) == 0
    assert (tmp_path / "marks.csv").read_text(encoding="utf-8") == marks.export(["4"], "plain")


def test_a_run_that_is_killed_goes_on_where_it_was(kit):
    before = mtimes(kit)
    command = [sys.executable, "-m", "course", "grade", "4", "--again", "--workers", "1"]
    environment = {**os.environ, "PYTHONPATH": str(kit.folder / "src")}
    run = subprocess.Popen([*command, "--student", "ann", "--student", "ben"], cwd=kit.folder,
                           env=environment, stdout=subprocess.PIPE, text=True)  # fmt: skip
    while not run.stdout.readline().startswith("1/2  ann"):
        assert run.poll() is None
    time.sleep(1)
    run.kill()
    run.wait()
    after = mtimes(kit)
    assert after["ann"] > before["ann"] and "ben" not in after and after["eve"] == before["eve"]
    again = kit.course("grade", "4")
    assert "1 to grade, 4 graded before" in again.stdout, again.stdout + again.stderr
    waiting = time.monotonic() + 120
    while "ben" not in mtimes(kit) and time.monotonic() < waiting:
        time.sleep(0.2)  # the killed run's last worker may still be at it; nobody grades Ben twice
    assert {**mtimes(kit), "ben": 0} == {**after, "ben": 0}
    assert standing("ben").score == 13.5 and standing("ann").status == "graded"  # marks by hand


def lying_about(folder):
    """Return the temporary files of a run, and the processes that have its folder in a name."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_text())
    return list(folder.iterdir()), [line for line in lines if str(folder) in line]


@pytest.mark.parametrize("command", ["grade", "feedback"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_command_leaves_nothing_behind(kit, command, how):
    place = kit.folder / "t"
    place.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(kit.folder / "src"), "TMPDIR": str(place)}
    more = ["--again", "--student", "ben"] if command == "grade" else []
    line = [sys.executable, "-m", "course", command, "4", *more]
    run = subprocess.Popen(line, cwd=kit.folder, env=environment, stdout=subprocess.PIPE)
    patience = time.monotonic() + 120
    at_work = {"grade": "course-*/0/*", "feedback": "course-*"}[command]  # a worker's own files
    while not list(place.glob(at_work)) and run.poll() is None:
        assert time.monotonic() < patience
        time.sleep(0.05)
    time.sleep(1)
    run.send_signal(how)
    assert run.wait() in (130, -9, 0, -2)  # -2: had done all, and Python was ending
    left, processes = lying_about(place)
    while processes and time.monotonic() < patience:
        time.sleep(0.1)
        left, processes = lying_about(place)
    assert processes == [] and (how == signal.SIGKILL or left == [])
    again = kit.course(command, "4", TMPDIR=str(place))
    assert again.returncode == int(command == "grade"), again.stderr  # 1: somebody's failed
    assert lying_about(place) == ([], []) and standing("ben").score == 13.5
    for page in (kit.folder / "grading" / "feedback").glob("*/*/*"):
        assert page.suffix == ".html" and page.read_text("utf-8").rstrip().endswith("</html>")


def test_a_disk_that_fills_while_grading_is_no_submissions_failure(kit):
    small = kit.folder / "small"
    small.mkdir()
    mount = ["bwrap", *["--cap-add", "ALL"] * (os.getuid() == 0), "--dev-bind", "/", "/"]
    mount += ["--size", "40000000", "--tmpfs", str(small), "--setenv", "TMPDIR", str(small), "--"]
    fill_it = "until grep -q 'to grade' said; do sleep 0.1; done; head -c 50000000 /dev/zero > "
    grade = f"{sys.executable} -m course grade 4 --again --student ben > said"
    run = subprocess.run([*mount, "sh", "-c", f"({fill_it} small/full) & {grade}"], cwd=kit.folder,
                         env={**os.environ, "PYTHONPATH": str(kit.folder / "src")},
                         capture_output=True, text=True)  # fmt: skip
    assert run.returncode == 2 and "the disk is full; free some space" in run.stderr, run
    assert standing("ben").status == "not graded yet" and "Traceback" not in run.stderr
    assert kit.course("grade", "4").returncode == 1
    assert (standing("ben").status, standing("ben").score) == ("graded", 13.5)


def test_an_ordinary_user_can_do_all_of_it(kit):
    """Where the tests run as root, in a namespace in which root is nobody."""
    user = ["bwrap", "--unshare-user", "--uid", "65534", "--gid", "65534", "--dev-bind", "/", "/"]
    before = user * (os.getuid() == 0)
    if before and subprocess.run([*before, "unshare", "--user", "true"]).returncode:
        pytest.skip("this machine gives an ordinary user no user namespace")
    (kit.folder / "week").mkdir()
    nbformat.write(solution(), kit.folder / "week" / "dan_attention.ipynb")
    environment = {**os.environ, "PYTHONPATH": str(kit.folder / "src")}
    for arguments, code, says in (
        (["collect", "4", "week"], 0, "dan                  new: dan_attention.ipynb"),
        (["grade", "4", "--student", "dan"], 0, "written_effective_keys is to be read"),
        (["feedback", "4", "--everyone"], 0, "dan/04_attention/attention.html"),
        (["export", "4"], 0, "dan,Öz,Dan,04_attention,needs review,,16,"),
    ):
        line = [*before, sys.executable, "-m", "course", *arguments]
        run = subprocess.run(line, cwd=kit.folder, env=environment, capture_output=True, text=True)
        assert run.returncode == code and says in run.stdout, run
    shutil.rmtree(kit.folder / "grading" / "submitted" / "dan")


def test_an_old_mark_never_passes_for_a_new_one(kit):
    page = kit.folder / "grading" / "feedback" / "ann" / CHAPTER / f"{NOTEBOOK}.html"
    marks.feedback("4")
    mine = kit.folder / "grading" / "submitted" / "ann" / CHAPTER / FILE
    before = mine.read_text(encoding="utf-8")
    assert standing("ann").status == "graded" and page.exists()
    set_cell(mine, WRITTEN, "Other words.")
    row = next(csv.DictReader(io.StringIO(marks.export(["4"], "plain"))))
    assert (row["student"], row["status"], row["score"]) == ("ann", "not graded yet", "")
    assert "ann: not graded yet" in marks.feedback("4")[1] and not page.exists()
    assert kit.course("grade", "4", "--student", "ann").returncode == 0
    assert standing("ann").why == [f"{WRITTEN} is to be read"]  # other words
    mark_by_hand("ann")
    mine.write_text(before, encoding="utf-8")
    set_cell(mine, "sliding_mask", ONLY_VISIBLE)
    set_cell(mine, WRITTEN, "Other words.")
    assert kit.course("grade", "4", "--student", "ann").returncode == 0
    assert (standing("ann").status, standing("ann").score) == ("graded", 13.5)  # the same words
    mine.write_text(before, encoding="utf-8")
    assert standing("ann").status == "not graded yet"


def test_a_mark_by_other_tests_or_points_is_none(kit):
    path = kit.folder / "solutions" / CHAPTER / FILE
    before = path.read_text(encoding="utf-8")
    source = nbformat.read(path, as_version=4)
    source.cells[0].source += " A word more."
    nbformat.write(source, path)
    assert standing("ben").status == "graded"  # words are no tests
    for name, change in (("check_find_leak", {"source": "def check_find_leak(*a): 1"}),
                         ("test_sliding_mask", {"points": 3})):  # fmt: skip
        source = nbformat.reads(before, as_version=4)
        cell = cell_named(source, name)
        (cell if "source" in change else cell.metadata.nbgrader).update(change)
        nbformat.write(source, path)
        with pytest.raises(ValueError, match="was changed since it was released"):
            grading.ensure_registered(CHAPTER, NOTEBOOK)
    assert standing("ben").status == standing("eve").status == "graded by other tests"
    run = kit.course("grade", "4", "--student", "ben")
    assert run.returncode == 2 and "was changed since it was released: run `co" in run.stderr
    release()
    assert (standing("ben").status, standing("ben").score) == ("graded by other tests", None)
    rows = {row["student"]: row for row in csv.DictReader(marks.export(["4"], "plain").split("\n"))}
    assert (rows["ben"]["status"], rows["ben"]["score"]) == ("graded by other tests", "")
    assert any(line == "ben: graded by other tests" for line in marks.feedback("4")[1])
    assert kit.course("grade", "4", "--student", "ben").returncode == 0
    assert (standing("ben").status, standing("ben").max_score) == ("graded", 17)
    assert standing("eve").status == "graded by other tests"
    path.write_text(before, encoding="utf-8")
    release()


def test_a_release_that_adds_a_test_is_refused_with_a_cure(kit):
    path = kit.folder / "solutions" / CHAPTER / FILE
    before = path.read_text(encoding="utf-8")
    given = {p: p.read_bytes() for p in (kit.folder / "exercises").rglob("*.ipynb")}
    source = nbformat.read(path, as_version=4)
    source.cells.append(new_code_cell("assert True", metadata={"nbgrader": {
        "grade_id": "test_more", "grade": True, "locked": True, "points": 1, "solution": False,
        "schema_version": 3, "task": False}}))  # fmt: skip
    nbformat.write(source, path)
    run = kit.course("release")
    assert run.returncode == 2 and "Traceback" not in run.stderr, run.stderr
    assert "test_more. nbgrader cannot add" in run.stderr and "Write new checks into" in run.stderr
    assert {p: p.read_bytes() for p in (kit.folder / "exercises").rglob("*.ipynb")} == given
    path.write_text(before, encoding="utf-8")


def test_private_sources_are_what_is_graded_against(kit, monkeypatch):
    before = (kit.folder / "exercises" / CHAPTER / FILE).read_bytes()
    monkeypatch.setenv("COURSE_SOLUTIONS", str(variant(kit.folder / "private")))
    assert release() == [f"release/{CHAPTER}/{FILE}"]
    run = kit.course("grade", "4", "--student", "ann")
    assert "1 to grade" in run.stdout and run.returncode == 0, run.stdout + run.stderr
    test = cell_named(kit.graded("ann"), "test_sliding_mask").source
    assert "check_sliding_mask(6, 6, 2)" in test and "(1, 8, 5)" in test
    assert (kit.folder / "exercises" / CHAPTER / FILE).read_bytes() == before
    monkeypatch.delenv("COURSE_SOLUTIONS")
    for command in ("grade", "review", "feedback", "export"):
        assert "this class has private sources" in kit.course(command, "4").stderr

"""The gradebook on a PostgreSQL server, for graders on several machines: a server of our own."""

import contextlib
import csv
import multiprocessing
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import zlib
from functools import partial
from itertools import count
from pathlib import Path
from urllib.parse import quote

import nbformat
import psutil
import pytest
from classkit import CHAPTER, NOTEBOOK, cell_named, handed_out, make_class, solution
from nbformat.v4 import new_output
from nbgrader.api import Gradebook

from course import classroom, grading
from course.__main__ import main
from course.chapters import ROOT
from course.exercises import grade_id, role
from course.release import release
from course.submissions import SaveGrades

PASSWORD = "cor/rect@horse"
NOBODY = 65534  # PostgreSQL refuses to be run by root
WRITERS = 4
LOOKS = 7  # of the ten times that grading a submission opens the gradebook


class Server:
    """A PostgreSQL server of its own in a folder, on a free port of this machine."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder, self.numbers = programs, folder, count()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        (folder / "password").write_text(PASSWORD, encoding="utf-8")
        self.run("initdb", "-D", "data", "-U", "postgres", "-E", "UTF8", "--locale=C",
                 "-A", "scram-sha-256", "--pwfile=password")  # fmt: skip
        self.start()
        self.sql(f"CREATE ROLE grader LOGIN PASSWORD '{PASSWORD}'")
        self.sql("CREATE ROLE guest LOGIN PASSWORD 'guest'")

    def run(self, program: str, *arguments: str) -> None:
        """Run a program of PostgreSQL as a user without rights."""
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
        subprocess.run([self.programs / program, *arguments], cwd=self.folder, check=True,
                       stdout=subprocess.DEVNULL, **user)  # fmt: skip

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = f"-p {self.port} -h 127.0.0.1 -k {self.folder}"
        self.run("pg_ctl", "start", "-w", "-s", "-D", "data", "-l", "log", "-o", options)

    def stop(self) -> None:
        """Stop, as for a restart of its machine: connections are cut."""
        self.run("pg_ctl", "stop", "-w", "-s", "-D", "data", "-m", "fast")

    def processor_time(self) -> float:
        """Return the seconds that it has used, but for those of processes that still run."""
        pid = (self.folder / "data" / "postmaster.pid").read_text(encoding="utf-8").split()[0]
        return processor_time(psutil.Process(int(pid)))

    def url(self, name: str, user: str = "grader", password: str = PASSWORD) -> str:
        """Return the URL of a database, as an instructor would write it."""
        return f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/{name}"

    def sql(self, query: str, database: str = "postgres") -> list[tuple]:
        """Run a query past SQLAlchemy and nbgrader."""
        import psycopg

        with psycopg.connect(self.url(database, "postgres"), autocommit=True) as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

    def database(self) -> str:
        """Make an empty database; return its name."""
        name = f"class_{next(self.numbers)}"
        self.sql(f"CREATE DATABASE {name} OWNER grader")
        return name


def processor_time(process):
    """Return the seconds that a process and its children that are done have used."""
    return sum(process.cpu_times()[:4])


@pytest.fixture(scope="module")
def server():
    """Start a server where this machine has one."""
    pytest.importorskip("psycopg")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    program = shutil.which("initdb") or (found and found[-1])
    if not program:
        pytest.skip("needs PostgreSQL (Debian: apt install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short, since a socket's path has to be
    if os.getuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    ours = Server(Path(program).resolve().parent, folder)
    yield ours
    ours.stop()
    shutil.rmtree(folder)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A course in a temporary folder, with one chapter and no class yet."""
    for name in ("solutions", "exercises"):
        shutil.copytree(ROOT / name / CHAPTER, tmp_path / name / CHAPTER)
    (tmp_path / "r.csv").write_text("id\nann\nben\n", encoding="utf-8")
    monkeypatch.setattr(classroom, "ROOT", tmp_path)
    monkeypatch.delenv("COURSE_SOLUTIONS", raising=False)
    return tmp_path


@pytest.fixture
def database(server, monkeypatch):
    """An empty database, which COURSE_GRADEBOOK names."""
    name = server.database()
    monkeypatch.setenv("COURSE_GRADEBOOK", server.url(name))
    return name


# --- One setting, and what it says when it is wrong ---------------------------------------------


@pytest.mark.parametrize(
    "url, says",
    [
        ("marks.db", "is no URL of a PostgreSQL database: write postgresql://USER@HOST/DATABASE"),
        ("sqlite:////tmp/marks.db", "is no URL of a PostgreSQL database"),
        ("mysql://ann@host/marks", "is no URL of a PostgreSQL database"),
        ("postgresql://grader@host", "is no URL of a PostgreSQL database"),
        (f"postgresql://grader:{PASSWORD}@host/marks", "with @ as %40 and / as %2F"),
        ("postgresql://grader:correct/marks", "with @ as %40 and / as %2F"),
        ("postgresql://guest:horse@127.0.0.1:9/marks", "refused): start its server or correct"),
        ("postgresql://grader:horse@127.0.0.1:PORT/postgres", "authentication failed for user"),
        ("RIGHT/nowhere", 'database "nowhere" does not exist): start its server or correct'),
        ("RIGHT/postgres?colour=red", 'invalid connection option "colour"'),
        ("postgresql://guest:guest@127.0.0.1:PORT/postgres", "permission denied for schema public"),
    ],
)
def test_what_is_no_gradebook_is_refused_before_anything_is_made(
    server, place, monkeypatch, capsys, url, says
):
    right = server.url("").rstrip("/")
    url = url.replace("PORT", server.port).replace("RIGHT", right)
    monkeypatch.setenv("COURSE_GRADEBOOK", url)
    assert main(["new-class", str(place / "r.csv")]) == 2
    said = capsys.readouterr()
    assert says in said.err and said.err.count("\n") == 1
    assert not re.search("horse|correct/|cor/|cor%2F", said.out + said.err)
    assert not (place / "grading").exists()


def test_a_driver_that_is_missing_is_named(place, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setenv("COURSE_GRADEBOOK", "postgresql://grader@host/marks")
    assert main(["new-class", str(place / "r.csv")]) == 2
    cure = 'pip install -c constraints.txt -e ".[postgres]"'
    assert capsys.readouterr().err == f"course: COURSE_GRADEBOOK needs psycopg: run `{cure}`\n"
    assert not (place / "grading").exists()


def test_marks_are_never_in_two_gradebooks(server, place, database, monkeypatch, capsys):
    def export(says):
        assert main(["export", "4"]) == 2
        assert says in capsys.readouterr().err

    assert main(["new-class", str(place / "r.csv")]) == 0  # also release, which registers
    assert not (place / "grading" / "gradebook.db").exists()
    assert server.sql("SELECT id FROM student ORDER BY id", database) == [("ann",), ("ben",)]
    assert server.sql("SELECT name FROM notebook", database) == [(NOTEBOOK,)]
    assert main(["new-class", str(place / "r.csv")]) == 0  # it is the same class
    capsys.readouterr()

    ours = server.url(database)
    monkeypatch.delenv("COURSE_GRADEBOOK")  # in another shell
    export(f"in postgresql://grader@127.0.0.1:{server.port}/{database}: set COURSE_GRADEBOOK to it")
    monkeypatch.setenv("COURSE_GRADEBOOK", server.url(server.database()))
    export("is not the database of this class")

    monkeypatch.setenv("COURSE_GRADEBOOK", ours)
    shutil.move(place / "grading", place / "last-year")
    assert main(["new-class", str(place / "r.csv")]) == 2
    assert "has the marks of another class: make a database" in capsys.readouterr().err
    monkeypatch.delenv("COURSE_GRADEBOOK")
    assert main(["new-class", str(place / "r.csv")]) == 0
    monkeypatch.setenv("COURSE_GRADEBOOK", ours)
    export("the marks of this class are in grading/gradebook.db: unset COURSE_GRADEBOOK")


# --- Several writers ----------------------------------------------------------------------------


def passes(student, cell):
    """Say whether a simulated student passes a test; none has written a word."""
    return cell.startswith("test") and zlib.crc32(f"{student} {cell}".encode()) % 2 == 0


def write_marks(chapter, name, student, notebook, folder, looks=0):
    """Do with the gradebook what `grading.autograde` does, and run nothing.

    `looks` are those of the times it opens the gradebook that only look something up.
    """
    for _ in range(looks):
        with classroom.gradebook() as book:
            book.find_notebook(name, chapter)
    with classroom.gradebook() as book:
        book.update_or_create_student(student)
        book.update_or_create_submission(chapter, student)
    error = new_output("error", ename="AssertionError", evalue="", traceback=[])
    for cell in notebook.cells:
        if role(cell) == "test":
            cell.outputs = [] if passes(student, grade_id(cell)) else [error]
    url = classroom.gradebook_url()
    names = {"notebook": name, "assignment": chapter, "student": student, "db_url": url}
    SaveGrades().preprocess(notebook, {"nbgrader": names})
    graded = classroom.class_folder() / "autograded" / student / chapter
    graded.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, graded / f"{name}.ipynb")


@pytest.fixture
def simulated(place, monkeypatch):
    """Return a function that makes a class of so many, who all hand in; nothing of theirs runs."""
    monkeypatch.setattr(grading, "autograde", write_marks)

    def make(many):
        students = [f"student-{number:04}" for number in range(many)]
        (place / "r.csv").write_text("\n".join(["id", *students]), encoding="utf-8")
        classroom.new_class(place / "r.csv")
        release()
        text = nbformat.writes(handed_out())
        for student in students:
            folder = place / "grading" / "submitted" / student / CHAPTER
            folder.mkdir(parents=True)
            (folder / f"{NOTEBOOK}.ipynb").write_text(text, encoding="utf-8")
        return students

    return make


def grade_what_is_left(students):
    """Grade as one grader does who shares a folder and the gradebook with others."""
    for student in students:
        if not grading.read_result(CHAPTER, student):
            grading.graded(CHAPTER, NOTEBOOK, student)


def write_alone(students, notebook):
    """Write marks, and nothing else but how long the machine had no processor for it."""
    for student in students:
        write_marks(CHAPTER, NOTEBOOK, student, notebook, None, LOOKS)
        grading.marks(CHAPTER, NOTEBOOK, student)
    waited = Path("/proc/self/schedstat").read_text(encoding="utf-8").split()[1]  # nanoseconds
    (classroom.class_folder() / f"{os.getpid()}.waited").write_text(waited, encoding="utf-8")


def forked(*works):
    """Start a process for each piece of work."""
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=work, daemon=True) for work in works]
    for process in processes:
        process.start()
    return processes


def results():
    """Count the submissions that have a result."""
    return sum(1 for _ in (classroom.class_folder() / "status" / CHAPTER).glob("*.json"))


def begun(server, database):
    """Count the submissions that the gradebook knows, their marks whole or not."""
    return server.sql("SELECT count(*) FROM submitted_assignment", database)[0][0]


@pytest.mark.parametrize("many", [24, pytest.param(2000, marks=pytest.mark.soak)])
def test_writers_that_are_killed_lose_no_mark_and_write_none_twice(
    server, database, simulated, many
):
    students = simulated(many)
    for stop in (many // 3, 2 * many // 3, None):
        # two begin at the first student and two at the last, so that they meet all the way
        orders = [students[:: 1 if number % 2 else -1] for number in range(WRITERS)]
        writers = forked(*(partial(grade_what_is_left, order) for order in orders))
        while stop and (results() < stop or begun(server, database) <= results()):
            assert all(writer.is_alive() for writer in writers)
            time.sleep(0.02)
        for writer in writers if stop else []:
            writer.kill()
        for writer in writers:
            writer.join()
        assert {writer.exitcode for writer in writers} == {-signal.SIGKILL if stop else 0}
        if stop:
            left = begun(server, database) - results()
            print(f"killed: {results()} of {many} have a result, {left} more are in the gradebook")
            assert results() < many

    points = {grade_id(cell): cell.metadata.nbgrader.points for cell in handed_out().cells
              if role(cell) in ("test", "written")}  # fmt: skip
    right = {(s, t): points[t] * passes(s, t) for s in students for t in points}
    marks = server.sql(
        "SELECT a.student_id, c.name, g.auto_score"
        " FROM grade g JOIN base_cell c ON c.id = g.cell_id"
        " JOIN submitted_notebook n ON n.id = g.notebook_id"
        " JOIN submitted_assignment a ON a.id = n.assignment_id",
        database,
    )
    assert sorted(marks) == sorted((*key, mark) for key, mark in right.items())
    assert begun(server, database) == many
    sums = {s: sum(right[s, t] for t in points) for s in students}
    stand = {r.student: (r.status, r.score) for r in grading.standings("4")}
    assert stand == {s: (grading.GRADED, sums[s]) for s in students}


def test_an_outage_stops_grading_and_is_no_submissions_failure(server, database, simulated):
    students = simulated(6)
    said = []

    def say(text):
        said.append(text)
        if len(said) == 1:
            server.stop()

    try:
        with pytest.raises(
            classroom.GradebookError, match=r"refused.*: start its server or"
        ) as why:
            grading.run_all(CHAPTER, NOTEBOOK, students, 2, 600, say)
    finally:
        server.start()
    files = [path for path in classroom.class_folder().rglob("*") if path.is_file()]
    written = b"".join(path.read_bytes() for path in files) + str(why.value).encode()
    assert not re.search(rb"rect(@|%40)horse", written)
    done = [s for s in students if grading.read_result(CHAPTER, s)]
    assert 1 <= len(done) < len(students)
    assert {grading.read_result(CHAPTER, s).status for s in done} == {grading.GRADED}
    grading.run_all(CHAPTER, NOTEBOOK, [s for s in students if s not in done], 2, 600, say)
    assert [r.status for r in grading.standings("4")] == [grading.GRADED] * len(students)


def test_a_file_that_was_locked_for_a_moment_fails_no_submission(simulated, monkeypatch):
    """The same of SQLite, which answers again before anybody asks why the worker has stopped."""
    [student] = simulated(1)
    file = classroom.class_folder() / "gradebook.db"
    monkeypatch.setattr(classroom, "gradebook_url", lambda: f"sqlite:///{file}?timeout=0.1")

    def meets_a_lock(*about):
        with contextlib.closing(sqlite3.connect(file)) as other:
            other.execute("BEGIN EXCLUSIVE")
            Gradebook(classroom.gradebook_url())  # as nbgrader's steps open it

    monkeypatch.setattr(grading, "autograde", meets_a_lock)
    with pytest.raises(classroom.GradebookError, match=r"gradebook.db cannot be used .*locked"):
        grading.grade_one(CHAPTER, NOTEBOOK, student)
    with pytest.raises(classroom.GradebookError, match="could not be used for a moment: give the"):
        grading.run_all(CHAPTER, NOTEBOOK, [student], 1, 600, print)
    assert grading.read_result(CHAPTER, student) is None
    monkeypatch.setattr(grading, "autograde", write_marks)
    assert grading.grade_one(CHAPTER, NOTEBOOK, student).status == grading.GRADED


@pytest.mark.soak
@pytest.mark.parametrize("writers", [1, WRITERS])
@pytest.mark.parametrize("where", ["PostgreSQL", "SQLite"])
def test_how_many_submissions_a_gradebook_takes(
    server, simulated, monkeypatch, capsys, where, writers
):
    """Measure the writing of marks alone; that fails only if one is lost."""
    if where == "PostgreSQL":
        monkeypatch.setenv("COURSE_GRADEBOOK", server.url(server.database()))
    students = simulated(30 * writers)
    start, ours, its = time.monotonic(), processor_time(psutil.Process()), server.processor_time()
    parts = [students[number::writers] for number in range(writers)]
    processes = forked(*(partial(write_alone, part, handed_out()) for part in parts))
    for process in processes:
        process.join()
    wall = time.monotonic() - start
    ours, its = processor_time(psutil.Process()) - ours, server.processor_time() - its
    waited = [float(p.read_text()) / 1e9 for p in classroom.class_folder().glob("*.waited")]
    many = len(students)
    with capsys.disabled():
        print(f"\n{where}, {writers} writing: {many} submissions in {wall:.1f} s, "
              f"{3600 * many / wall:.0f} an hour; each took its writer "
              f"{wall * writers / many:.2f} s: {ours / many:.2f} s of work, "
              f"{sum(waited) / many:.2f} s without a processor; "
              f"and the server {its / many:.2f} s of work")  # fmt: skip
    assert {process.exitcode for process in processes} == {0}
    with classroom.gradebook() as book:
        assert {s.student_id for s in book.assignment_submissions(CHAPTER)} == set(students)


# --- A class, from the roster to the export -----------------------------------------------------


@pytest.mark.soak
def test_two_graders_at_a_time_give_the_marks_of_one(server, tmp_path, monkeypatch):
    """The same class twice: on a server with two `course grade` at a time, and in SQLite."""
    wrong = solution()
    cell_named(wrong, "sliding_mask").source = "def sliding_mask(a, b, c): return a"
    handed_in = {"ann": solution(), "ben": wrong, "cat": handed_out(), "dan": "no notebook"}
    (tmp_path / "pgpass").write_text(f"127.0.0.1:*:*:grader:{PASSWORD}\n", encoding="utf-8")
    (tmp_path / "pgpass").chmod(0o600)
    exports = []
    for where in ("server", "file"):
        if where == "server":
            url = server.url(server.database()).replace(":" + quote(PASSWORD, safe=""), "")
            monkeypatch.setenv("COURSE_GRADEBOOK", url)
            monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
        else:
            monkeypatch.delenv("COURSE_GRADEBOOK")
        kit = make_class(tmp_path / where, [*handed_in, "eve"])
        box = tmp_path / f"{where}-submissions"
        for student, what in handed_in.items():
            (box / student).mkdir(parents=True)
            text = what if isinstance(what, str) else nbformat.writes(what)
            (box / student / f"{NOTEBOOK}.ipynb").write_text(text, encoding="utf-8")
        collected = kit.course("collect", "4", str(box))
        assert "4 students handed in" in collected.stdout, collected.stdout + collected.stderr
        graders = [
            subprocess.Popen(
                [sys.executable, "-m", "course", "grade", "4", "--workers", "1"],
                cwd=kit.folder, env={**os.environ, "PYTHONPATH": str(kit.folder / "src")},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for _ in range(2 if where == "server" else 1)
        ]  # fmt: skip
        for grader in graders:
            said = grader.communicate()[0]
            assert grader.returncode == 1 and "Traceback" not in said, said  # 1: Dan's failed
        out = kit.course("export", "4")
        assert out.returncode == 0, out.stderr
        exports.append(list(csv.DictReader(out.stdout.splitlines())))
        assert (kit.folder / "grading" / "gradebook.db").exists() == (where == "file")
    assert exports[0] == exports[1]
    assert [row["student"] if "student" in row else row["id"] for row in exports[0]] == [
        *handed_in, "eve"]  # fmt: skip

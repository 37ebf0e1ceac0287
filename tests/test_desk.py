"""The desk without a class: what grading makes of a file, of a kill, of a full disk, of a name."""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from classkit import cell_named, handed_out, solution
from nbformat.v4 import new_code_cell, new_markdown_cell

from course import classroom, grading
from course.__main__ import main
from course.classroom import shown
from course.exercises import grade_id
from course.sandbox import SandboxedKernelManager, Scratch
from course.submissions import (
    BadSubmission,
    read_submission,
    restore,
)

NAME, WRITTEN = "sliding_mask", "written_effective_keys"
WRONG = "def sliding_mask(n_dst, n_src, window):\n    return None\n"


# --- Honest work gets its marks ------------------------------------------------------------------


def right():
    return cell_named(solution(), NAME).source


def through_a_file(tmp_path, notebook, encoding="utf-8", newline="\n"):
    path = tmp_path / "x.ipynb"
    path.write_text(nbformat.writes(notebook), encoding=encoding, newline=newline)
    return read_submission(path)


def run_with(notebook, name=NAME):
    """Return what the answer of a restored notebook is when its test runs."""
    namespace = {}
    exec(cell_named(notebook, "setup").source, namespace)
    for cell in notebook.cells[notebook.cells.index(cell_named(notebook, "setup")) + 1 :]:
        if grade_id(cell) == f"test_{name}":
            break
        if cell.cell_type == "code":
            exec(cell.source, namespace)
    return namespace[name](2, 5, 3)


def again_below(source, metadata=True):
    """Put a cell below the answer, with its metadata, as a copied or a split cell has it."""

    def change(notebook):
        first = cell_named(notebook, NAME)
        second = new_code_cell(source)
        second.metadata = first.metadata.copy() if metadata else {}
        notebook.cells.insert(notebook.cells.index(first) + 1, second)
        return notebook

    return change


def split(notebook):
    first = cell_named(notebook, NAME)
    above, below = "reach = 0\n", first.source.replace("(key <=", "(key + reach <=")
    first.source = above
    return again_below(below)(notebook)


HONEST = {
    "a definition below the stub": (handed_out, again_below(right(), metadata=False)),
    "a split answer": (solution, split),
    "a copy that was broken": (solution, again_below(WRONG)),
    "a copy, and the stub left as it was": (handed_out, again_below(right())),
}


@pytest.mark.parametrize("kind", HONEST)
def test_honest_work_in_another_cell_counts(kind):
    make, change = HONEST[kind]
    restored, remarks = restore(change(make()), handed_out())
    assert run_with(restored).tolist() == [[False] + [True] * 3 + [False], [False] * 2 + [True] * 3]
    names = [grade_id(cell) for cell in restored.cells if grade_id(cell)]
    assert names == [grade_id(cell) for cell in handed_out().cells if grade_id(cell)]
    twice = f"{NAME} appeared twice; the first one"
    assert "below" in kind or any(remark.startswith(twice) for remark in remarks)


@pytest.mark.parametrize("ids", [True, False])
def test_a_byte_order_mark_and_the_line_ends_of_windows_do_no_harm(tmp_path, ids):
    notebook = solution()
    cell_named(notebook, WRITTEN).source = "My words.\nThey are two lines."
    expected, _ = restore(solution(), handed_out())
    for number, cell in enumerate(notebook.cells):
        cell.metadata.clear()
        cell.source = cell.source.replace("\n", "\r\n")
        cell.id = cell.id if ids else f"cell{number}"
    read = through_a_file(tmp_path, notebook, "utf-8-sig", "\r\n")
    restored, remarks = restore(read, handed_out())
    assert len(restored.cells) == len(expected.cells)
    assert cell_named(restored, WRITTEN).source == "My words.\nThey are two lines."
    assert cell_named(restored, NAME).source == right()
    assert not any("missing" in remark or "changed" in remark for remark in remarks)


def test_what_a_cell_has_attached_is_pictures_or_nothing(tmp_path):
    notebook = handed_out()
    notebook.cells.append(new_markdown_cell("x"))
    kinds = {"image/png": "aaaa", "image/jpeg": 5, "image/svg+xml": "aaaa"}
    notebook.cells[-1].attachments = {"a.png": kinds, "c.png": {}}
    (tmp_path / "x.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    last = read_submission(tmp_path / "x.ipynb").cells[-1]
    assert last.attachments == {"a.png": {"image/png": "aaaa"}, "c.png": {}}
    notebook.cells = [new_code_cell("1 / 0") for _ in range(1001)]
    with pytest.raises(BadSubmission, match="has 1001 cells, more than 1000"):
        through_a_file(tmp_path, notebook)


# --- Rosters -------------------------------------------------------------------------------------

WORKSHEET = """\
Identifier,Full name,Email address,Status,Grade,Maximum Grade,Last modified (grade)
Participant 4711,Jane Doe,jane.o'neil+cs@x.edu,No submission,,16.00,-
Participant 4712,Ben Roe,BEN@x.edu,No submission,,16.00,-
"""
FIRST_LAST = """\
LastName,FirstName,ID,SIS User ID,SIS Login ID,Section,Homework (99)
    Points Possible,,,,,,16
Doe,Jane,4711,900,jdoe,A,
Roe,Ben,4712,,,A,
Lee,Ann,,,,A,
"""


def roster_of(tmp_path, text, known=()):
    (tmp_path / "r.csv").write_text(text, encoding="utf-8")
    return [(s.id, s.name, s.lms_id) for s in classroom.read_roster(tmp_path / "r.csv", known)]


def test_exports_without_an_id_are_read(tmp_path):
    assert roster_of(tmp_path, WORKSHEET) == [
        ("jane.o-neil+cs@x.edu", "Jane Doe", "4711"), ("ben@x.edu", "Ben Roe", "4712")]  # fmt: skip
    assert roster_of(tmp_path, FIRST_LAST) == [
        ("jdoe", "Jane Doe", "4711"), ("4712", "Ben Roe", "4712"),
        ("ann-lee", "Ann Lee", "")]  # fmt: skip
    nameless = "Identifier,Status,Grade\nTeilnehmer/in 4711,,\n"
    assert roster_of(tmp_path, nameless) == [("participant-4711", "participant-4711", "4711")]


def test_a_worksheet_without_ids_finds_the_students_of_the_class(tmp_path):
    known = [
        classroom.Student("jd", "Jane", "Doe", "Jane.O'Neil+cs@x.edu"),
        classroom.Student("br", "Ben", "Roe"),
        classroom.Student("br2", "Ben", "Roe", "other@x.edu"),  # the same name, somebody else
    ]
    found = roster_of(tmp_path, WORKSHEET, known)
    assert [(id, lms) for id, _, lms in found] == [("jd", "4711"), ("br", "4712")]


@pytest.mark.parametrize("name", ["ann+cs@x.edu", "a.b-c_d", "_ann"])
def test_an_id_may_be_an_address(name):
    assert classroom.check_id(name, "here") == name


@pytest.mark.parametrize("name", ["+ann", "@x", "a b", "a\n", "a;b", "\u00e4", "-", "a" * 101])
def test_an_id_that_is_no_folder_or_a_formula_is_refused(name):
    with pytest.raises(ValueError, match=r"here: the id .* cannot name a folder"):
        classroom.check_id(name, "here")


# --- Names, words and results --------------------------------------------------------------------


def test_what_is_shown_is_one_line_and_short():
    forged = shown("ann\x1b[2K\r\n\u2028\u202eben\x07 \u00d6\u4e2d")
    assert forged == r"ann\x1b[2K\r\n\u2028\u202eben\x07 " + "\u00d6\u4e2d"
    assert shown("x" * 10**6) == "x" * 300 + "..."


def test_a_result_is_few_words_whatever_it_is_about(tmp_path, monkeypatch):
    monkeypatch.setattr(classroom, "ROOT", tmp_path)
    words = ["\x1b[2K" + "x" * 2**20] * 100
    stored = grading.store(grading.Result("ann", "04_x", "failed", why=words, notes=words))
    path = grading.status_path("04_x", "ann")
    assert path.stat().st_size < 20_000 and grading.read_result("04_x", "ann") == stored
    assert grading.line(stored).isprintable() and "80 more of these" in stored.why


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_a_letter_stops_nothing(tmp_path, encoding):
    """The source is missing, and its name is in the message."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    run = subprocess.run(
        [sys.executable, "-m", "course", "check", "\u00d6\u4e2d.ipynb"],
        env=environment, cwd=tmp_path, capture_output=True,
    )  # fmt: skip
    assert run.returncode == 2 and b"there is no file" in run.stderr and b"\\u4e2d" in run.stderr


def test_a_full_disk_is_told_in_words(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(classroom, "ROOT", tmp_path)
    monkeypatch.setattr(grading, "ROOM", 2**60)
    (tmp_path / "grading").mkdir()
    with pytest.raises(OSError, match="the disk is full; free some space and give the same"):
        grading.ensure_room()
    monkeypatch.setattr("course.marks.export", lambda *a: grading.ensure_room())
    assert main(["export", "4"]) == 2 and "the disk is full" in capsys.readouterr().err


# --- What a kill leaves, and what the sandbox can choose -----------------------------------------


def test_the_folder_of_a_dead_run_is_swept_and_that_of_a_living_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    script = (
        "import os, signal, tempfile; from course.sandbox import Scratch\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\nscratch = Scratch()\n"
        "(scratch.path / 'submission.ipynb').write_text('x')\n"
        "print(scratch.path, flush=True)\n"
    )
    for end in ("os.kill(os.getpid(), signal.SIGKILL)", "input()"):
        run = subprocess.Popen([sys.executable, "-c", script + end], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        path = Path(run.stdout.readline().strip())
        alive = end == "input()"
        if not alive:
            run.wait()
        assert (path / "submission.ipynb").exists()
        with Scratch():
            assert path.exists() == alive
        run.communicate("\n")
    (tmp_path / "course-somebodys").mkdir()  # without a lock: not ours to judge
    with Scratch() as mine, (mine / ".lock").open() as lock, pytest.raises(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert (tmp_path / "course-somebodys").exists() and not mine.exists()


def test_the_grader_connects_to_nothing_that_the_sandbox_chooses(tmp_path):
    if not shutil.which("bwrap"):
        pytest.skip("needs bubblewrap (Debian: apt install bubblewrap)")
    server, visits = socket.socket(socket.AF_UNIX), []
    server.bind(str(tmp_path / "host"))
    server.listen()

    def accept():
        with contextlib.suppress(OSError):
            while True:
                visits.append(server.accept())

    threading.Thread(target=accept, daemon=True).start()

    async def work():
        manager = SandboxedKernelManager()
        await manager.start_kernel()
        sockets = list(manager.private.glob("*-ipc-*"))
        for path in sockets:  # as the code of a student can, which owns them
            path.unlink()
            path.symlink_to(tmp_path / "host")
        client = manager.client()
        client.start_channels()
        with contextlib.suppress(RuntimeError):
            await client.wait_for_ready(timeout=60)
        answers = await client.is_alive()
        client.stop_channels()
        await manager.shutdown_kernel(now=True)
        return len(sockets), answers, manager.scratch.path.exists()

    with ThreadPoolExecutor() as pool:  # a browser of another test may hold this thread's loop
        assert pool.submit(asyncio.run, work()).result() == (5, True, False)
    server.close()
    assert visits == []

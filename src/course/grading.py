"""Grade a class: a process a student, an outer timeout, a named status for every submission.

nbgrader does the grading; this module decides what it gets and what became of it. Each result is a
small file under `grading/status/`, written once, so a run that was stopped goes on where it was and
nothing is graded twice unless it is asked for or a student has handed in something new.
"""

import ctypes
import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import nbformat

from course import sandbox
from course.classroom import (
    GradebookError,
    assignment,
    class_folder,
    configure,
    course_directory,
    gradebook,
    held,
    overlay,
    quiet_log,
    refusal,
    refuse,
    release_folder,
    roster,
    shown,
    source_folder,
    submitted,
    trouble,
)
from course.exercises import exercises, grade_id, notebook_of, role
from course.notebooks import write_text
from course.submissions import (
    BadSubmission,
    SandboxedExecute,
    failing,
    read_submission,
    restore,
)

SUBMISSION_SECONDS = 180
PR_SET_PDEATHSIG = 1  # of Linux's prctl
GRADED, REVIEW, FAILED, MISSING = "graded", "needs review", "failed", "no submission"
NOT_YET, OTHER_TESTS = "not graded yet", "graded by other tests"
LINES = 20  # of what a result tells
MARKED_LATE = "marked late"
ROOM = 32 * 2**20  # bytes of a disk; with less, what fails is not the submission's fault
NO_ROOM = 75  # the exit code of a worker that had none
NO_GRADEBOOK = 69  # ... that could not use the gradebook


@dataclass(frozen=True)
class Result:
    """What became of a submission; `why` calls for a person, `notes` are for information.

    `fingerprint` and `tests` tell which files it is about, and by what they were graded.
    """

    student: str
    assignment: str
    status: str
    why: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    score: float | None = None
    max_score: float | None = None
    seconds: float = 0.0
    fingerprint: str = ""
    tests: str = ""
    accepted: str = ""


# --- Files -----------------------------------------------------------------------------------


def status_path(chapter: str, student: str) -> Path:
    """Return where the result of a student stands."""
    return class_folder() / "status" / chapter / f"{student}.json"


def read_result(chapter: str, student: str) -> Result | None:
    """Return a stored result, or None; whether it came late is told as it is now."""
    path = status_path(chapter, student)
    if not path.exists():
        return None
    result = Result(**json.loads(path.read_text(encoding="utf-8")))
    late = (class_folder() / "submitted" / student / chapter / "late.txt").is_file()
    return replace(result, notes=[*result.notes, MARKED_LATE] if late else result.notes)


def store(result: Result) -> Result:
    """Write a result down, whole or not at all, and in few and plain words."""
    path = status_path(result.assignment, result.student)
    why = [shown(text) for text in result.why[:LINES]]
    why += [f"{len(result.why) - LINES} more of these"] * (len(result.why) > LINES)
    notes = [shown(text) for text in result.notes if text != MARKED_LATE][:LINES]
    result = replace(result, why=why, notes=notes)
    write_text(path, json.dumps(asdict(result), indent=1, ensure_ascii=False) + "\n")
    return result


def fingerprint(folder: Path) -> str:
    """Return a hash of what was handed in, but not of when."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name in ("timestamp.txt", "late.txt"):
            continue
        digest.update(name.encode("utf-8", "surrogateescape"))
        if path.is_symlink():
            digest.update(os.fsencode(os.readlink(path)))
        elif path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:20]


def tests_of(source: Path) -> str:
    """Return a hash of what an exercise is graded by: its code and its points."""
    cells = [(grade_id(cell), cell.metadata.get("nbgrader", {}).get("points"),
              cell.source if cell.cell_type == "code" else "")
             for cell in notebook_of(source).cells if role(cell)]  # fmt: skip
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:20]


def full_disk() -> str:
    """Name a folder of ours whose disk is full, or nothing."""
    places = (class_folder(), Path(tempfile.gettempdir()))
    full = [p for p in places if p.exists() and shutil.disk_usage(p).free < ROOM]
    return str(full[0]) if full else ""


def ensure_room(full: bool = False) -> None:
    """Raise OSError if a disk is full: what fails then is no submission's fault."""
    if full or full_disk():
        cure = "the disk is full; free some space and give the same command again"
        raise OSError(errno.ENOSPC, cure, full_disk() or None)


def ensure_gradebook(lost: bool) -> None:
    """Raise GradebookError if a worker could not use the gradebook: no submission is to blame."""
    if lost:
        with gradebook():  # says why, unless it is over
            cure = "give the same command again"
            raise GradebookError(f"the gradebook could not be used for a moment: {cure}")


def find_notebook(folder: Path, name: str) -> tuple[Path, list[str]]:
    """Return the notebook to grade in a submission, and a note if it was renamed.

    Raises BadSubmission if there is none, or more than one that it could be.
    """
    if (folder / f"{name}.ipynb").exists():
        return folder / f"{name}.ipynb", []
    others = sorted(
        path for path in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
    )
    if len(others) == 1:
        return others[0], [f"renamed: {others[0].name} is taken as {name}.ipynb"]
    files = ", ".join(sorted(path.name for path in folder.rglob("*") if path.is_file())[:5])
    there = f"found {files}" if files else "the folder is empty"
    raise BadSubmission(f"no notebook {name}.ipynb ({there}): hand in the notebook under its name")


# --- One submission --------------------------------------------------------------------------


def grade_one(chapter: str, name: str, student: str) -> Result:
    """Grade one submission; runs in a process of its own."""
    start = time.perf_counter()
    folder = class_folder() / "submitted" / student / chapter
    source = source_of(chapter, name)
    mark, tests = fingerprint(folder), tests_of(source)
    template = notebook_of(release_folder() / chapter / f"{name}.ipynb")

    def result(status: str, **rest: Any) -> Result:
        seconds = round(time.perf_counter() - start, 2)
        marked = Result(student, chapter, status, fingerprint=mark, tests=tests, **rest)
        return replace(marked, seconds=seconds)

    try:
        path, notes = find_notebook(folder, name)
        notebook, remarks = restore(read_submission(path), template)
    except BadSubmission as error:
        return result(FAILED, why=[str(error)])
    if len(remarks) > 6:
        remarks = [*remarks[:5], f"{len(remarks) - 5} more cells were made good"]
    notes += remarks
    why: list[str] = []
    try:
        autograde(chapter, name, student, notebook, folder)
    except Exception as error:
        if lost := trouble(error):
            raise GradebookError(lost) from error
        forget(chapter, student)
        problem = (
            SandboxedExecute.trouble or f"could not be graded: {type(error).__name__}: {error}"
        )
        return result(FAILED, why=[problem, *why], notes=notes)
    if SandboxedExecute.flooded:
        why.append("printed more than a megabyte; the rest was cut")
    graded = notebook_of(class_folder() / "autograded" / student / chapter / f"{name}.ipynb")
    notes += [f"{cell} ran out of time" for cell in timed_out(graded).values()]
    score, full = marks(chapter, name, student)
    return result(REVIEW if why else GRADED, why=why, notes=notes, score=score, max_score=full)


def source_of(chapter: str, name: str) -> Path:
    """Return the source notebook in force."""
    return source_folder() / chapter / f"{name}.ipynb"


def autograde(chapter: str, name: str, student: str, notebook: Any, folder: Path) -> None:
    """Let nbgrader grade a restored notebook.

    nbgrader sees that notebook alone: what else a student handed in, such as a torch.py, stays
    where it was put. Raises what nbgrader raises.
    """
    from nbgrader.converters import Autograde
    from traitlets.config import Config

    with tempfile.TemporaryDirectory(prefix="course-") as scratch:
        stage = Path(scratch) / student / chapter
        stage.mkdir(parents=True)
        nbformat.write(notebook, stage / f"{name}.ipynb")
        if (folder / "timestamp.txt").is_file() and not (folder / "timestamp.txt").is_symlink():
            shutil.copyfile(folder / "timestamp.txt", stage / "timestamp.txt")
        config = configure(Config())
        settings = {"student_id": student, "assignment_id": chapter}
        directory = course_directory(config, **settings, submitted_directory=scratch)
        Autograde(coursedir=directory, config=config, force=True).start()


def forget(chapter: str, student: str) -> None:
    """Remove what a failed run has left behind, so that no mark stands that nobody has earned.

    Marks that a person has given stay.
    """
    shutil.rmtree(class_folder() / "autograded" / student / chapter, ignore_errors=True)
    from nbgrader.api import MissingEntry

    with gradebook() as book:
        try:
            submission = book.find_submission(chapter, student)
        except MissingEntry:
            return
        if not any(g.manual_score is not None for n in submission.notebooks for g in n.grades):
            book.remove_submission(chapter, student)


def timed_out(notebook: Any) -> dict[str, str]:
    """Map the ids of the cells of a graded notebook that were stopped to their names."""
    stopped = ("CellTimeoutError", "KeyboardInterrupt")
    return {
        cell.id: grade_id(cell) or "a cell of the student's own"
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "error" and output.ename in stopped
    }


def marks(chapter: str, name: str, student: str) -> tuple[float, float]:
    """Return the score and the highest score."""
    with gradebook() as book:
        notebook = book.find_submission_notebook(name, chapter, student)
        return notebook.score, notebook.max_score


# --- A class ---------------------------------------------------------------------------------


def start(work: Callable[[], object], log: Path, scratch: Path) -> Any:
    """Do work about a student in a forked process.

    What it prints goes to a log, its files to `scratch`, and it dies with this process. Its exit
    code is 0 if all went well, NO_ROOM if the disk is full, NO_GRADEBOOK if the gradebook is lost.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=child, args=(work, log, scratch), daemon=True)
    process.start()
    return process


def child(work: Callable[[], object], log: Path, scratch: Path) -> None:
    """Do the work in the forked process."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # no worker outlives its run
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    tempfile.tempdir = str(scratch)
    code = 1
    try:
        with log.open("w") as file, open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        quiet_log(log)
        work()
        code = 0
    except BaseException as error:
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        code = NO_ROOM if full or full_disk() else NO_GRADEBOOK if trouble(error) else 1
        with suppress(OSError):
            traceback.print_exc()
            sys.stderr.flush()
    finally:
        os._exit(code)


def graded(chapter: str, name: str, student: str) -> None:
    """Grade one submission and write down its result, unless another run is at it."""
    lock = status_path(chapter, student).with_name(f".{student}.lock")
    with held(lock) as mine:
        if mine:
            result = grade_one(chapter, name, student)
            if result.status != GRADED:
                ensure_room()
            store(result)


def grade(
    chapter: str,
    students: list[str] | None = None,
    workers: int = 2,
    again: bool = False,
    seconds: float = SUBMISSION_SECONDS,
    say: Callable[[str], None] = print,
) -> list[Result]:
    """Grade the submissions of a chapter, `workers` at a time; return the results of all of them.

    What has a result already is left alone unless it was handed in anew or `again` is given.
    Raises FileNotFoundError if there is no class or no such submission, SandboxMissing if
    submissions cannot be run safely.
    """
    chapter, name = assignment(chapter)
    overlay()
    known = {s.id for s in roster()}
    sandbox.require()
    everyone = submitted(chapter)
    for student in students or []:
        if student not in everyone:
            raise FileNotFoundError(
                f"{student} has handed in nothing for {chapter}: run `course collect`"
            )
    wanted = students or everyone
    queue = [s for s in wanted if again or not up_to_date(chapter, name, s)]
    if queue:
        ensure_room()
        ensure_registered(chapter, name)
        if broken := failing(notebook_of(source_of(chapter, name))):
            raise ValueError(
                f"the instructor's own answers fail {', '.join(broken)} of "
                f"{source_of(chapter, name)}: mend the source before anybody is graded by it"
            )
        box = "NOT SANDBOXED" if sandbox.opted_out() else "sandboxed"
        before = len(wanted) - len(queue)
        say(f"{chapter}: {len(queue)} to grade, {before} graded before, {workers} at a time, {box}")
        run_all(chapter, name, queue, workers, seconds, say)
    for stranger in sorted(set(everyone) - known):
        say(f"{shown(stranger)} is not on the roster: add the student with `course new-class`")
    return [result for s in wanted if (result := read_result(chapter, s))]


def up_to_date(chapter: str, name: str, student: str) -> bool:
    """Say whether a student's stored result is about what is handed in now."""
    result = read_result(chapter, student)
    folder = class_folder() / "submitted" / student / chapter
    return (
        result is not None
        and result.fingerprint == fingerprint(folder)
        and result.tests == tests_of(source_of(chapter, name))
        and result.why != [sandbox.BUSY]
    )


def ensure_registered(chapter: str, name: str) -> None:
    """Raise FileNotFoundError if the gradebook does not know the assignment.

    Raises ValueError if it knows other tests, checks or points than the source has.
    """
    from nbgrader.api import MissingEntry

    source = source_of(chapter, name)
    cells = {grade_id(cell): cell for cell in notebook_of(source).cells if role(cell)}
    with gradebook() as book:
        try:
            known = book.find_notebook(name, chapter)
        except MissingEntry:
            raise FileNotFoundError(
                f"{chapter} has not been released to this class: run `course release`"
            ) from None
        same = cells.keys() == {cell.name for cell in known.source_cells} and all(
            cell.source == cells[cell.name].source
            for cell in known.source_cells
            if cell.cell_type == "code" and role(cells[cell.name]) != "answer"
        )
        points = {cell.name: cell.max_score for cell in known.grade_cells}
        if not same or any(cells[name].metadata.nbgrader.points != points[name] for name in points):
            raise ValueError(f"{source} was changed since it was released: run `course release`")


def run_all(
    chapter: str,
    name: str,
    queue: list[str],
    workers: int,
    seconds: float,
    say: Callable[[str], None],
) -> None:
    """Keep `workers` processes busy; kill one that outlives its time and write down why.

    What the machine was too busy for is tried once more in the end, with nothing beside it.
    """
    import nbgrader.converters  # noqa: F401  (loaded once here, and not once a student)

    running: dict[str, tuple[Any, sandbox.Clock, Path]] = {}
    waiting, again, done, looked = list(reversed(queue)), list[str](), 0, time.monotonic()
    alone = False
    with sandbox.Scratch() as place:
        try:
            while waiting or running or again:
                if not (waiting or running):
                    waiting, again, workers, alone = again, [], 1, True
                while waiting and len(running) < workers:
                    student = waiting.pop()
                    status_path(chapter, student).unlink(missing_ok=True)
                    (files := place / str(len(waiting))).mkdir()
                    log = class_folder() / "logs" / chapter / f"{student}.log"
                    process = start(partial(graded, chapter, name, student), log, files)
                    clock = sandbox.Clock([process.pid], grader=True)
                    running[student] = (process, clock, files)
                look = time.monotonic() > looked + 1
                looked = time.monotonic() if look else looked
                for student, (process, clock, files) in list(running.items()):
                    late = lateness(clock, seconds) if look else ""
                    if process.is_alive() and not late:
                        continue
                    end(process)
                    shutil.rmtree(files, ignore_errors=True)
                    del running[student]
                    done += 1
                    result = read_result(chapter, student)
                    if result is None and process.exitcode == 0:
                        say(f"{done}/{len(queue)}  {student} is being graded by another run")
                        continue
                    if result is None:
                        ensure_room(process.exitcode == NO_ROOM)
                        result = given_up(chapter, name, student, late, process)
                    if result.why == [sandbox.BUSY] and not alone:
                        again.append(student)
                        done -= 1
                        say(f"too busy for {shown(student)}, who is tried again in the end")
                        continue
                    say(f"{done}/{len(queue)}  {line(result)}")
                time.sleep(0.02)
        finally:  # stopped by hand: leave no worker behind
            for process, _, _ in running.values():
                end(process)


def lateness(clock: sandbox.Clock, seconds: float) -> str:
    """Say why a worker has to end now, or nothing."""
    try:
        return "took too long as a whole and was stopped" if clock.over(seconds) else ""
    except sandbox.TooBusy:
        return sandbox.BUSY


def end(process: Any) -> None:
    """Wait for a worker, or kill it if it is still at work."""
    if process.is_alive():
        kill_session(process.pid)
    process.join()


def kill_session(pid: int | None) -> None:
    """Kill a worker and what it has started; the sandbox dies with it."""
    if pid:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            os.kill(pid, signal.SIGKILL)


def given_up(chapter: str, name: str, student: str, late: str, process: Any) -> Result:
    """Write down that a worker brought no result, and why if it was `late`.

    Raises GradebookError if that is the gradebook's fault.
    """
    ensure_gradebook(process.exitcode == NO_GRADEBOOK)
    forget(chapter, student)
    log = f"grading/logs/{chapter}/{student}.log"
    why = late or f"the grader itself stopped (exit code {process.exitcode}); see {log}"
    folder = class_folder() / "submitted" / student / chapter
    mark, tests = fingerprint(folder), tests_of(source_of(chapter, name))
    return store(Result(student, chapter, FAILED, why=[why], fingerprint=mark, tests=tests))


# --- What came out ---------------------------------------------------------------------------


def standings(chapter: str) -> list[Result]:
    """Return the result of every student of the class as it stands now, marks by hand included.

    Raises FileNotFoundError if there is no class, ValueError if its private sources are not named.
    """
    chapter, name = assignment(chapter)
    overlay()
    handed_in = set(submitted(chapter))
    tests = tests_of(source_of(chapter, name))
    with gradebook() as book:
        return [
            standing(book, chapter, name, student, student in handed_in, tests)
            for student in sorted({s.id for s in roster()} | handed_in)
        ]


def standing(
    book: Any, chapter: str, name: str, student: str, handed_in: bool, tests: str
) -> Result:
    """Return the result of a student, if it is about what is handed in and tested now."""
    from nbgrader.api import MissingEntry

    refused = refusal(chapter, student)
    result = read_result(chapter, student)
    if not handed_in:
        why = [refused] if refused else []
        return Result(student, chapter, FAILED if refused else MISSING, why=why)
    if not result or result.fingerprint != fingerprint(
        class_folder() / "submitted" / student / chapter
    ):
        return Result(student, chapter, NOT_YET)
    if result.tests != tests:
        return Result(student, chapter, OTHER_TESTS)
    why = [] if result.accepted else list(result.why)
    why += [f"a later file was refused: {refused}"] if refused else []
    if result.status == FAILED:
        return replace(result, why=why)
    try:
        notebook = book.find_submission_notebook(name, chapter, student)
    except MissingEntry:  # somebody has taken it out
        return Result(student, chapter, NOT_YET)
    why += [f"{g.name} is to be read" for g in notebook.grades if g.needs_manual_grade]
    status = REVIEW if why else GRADED
    return replace(
        result, status=status, why=why, score=notebook.score, max_score=notebook.max_score
    )


def accept(chapter: str, student: str, note: str) -> Result:
    """Write down that a person has looked at what was flagged, and what they found.

    Raises FileNotFoundError if there is no result, ValueError without a note.
    """
    chapter, _ = assignment(chapter)
    result = read_result(chapter, student)
    if result is None:
        raise FileNotFoundError(f"{student} has no result for {chapter}")
    if not (result.why or refusal(chapter, student)) or result.status == FAILED:
        raise ValueError(
            f"nothing of {student} is flagged ({result.status}): accept is for flags. A written "
            "answer is marked in the formgrader; a failed submission has to be handed in again"
        )
    if not note.strip():
        raise ValueError('say what you found: --note "spoke with the student; a harmless import"')
    stored = store(replace(result, accepted=note.strip()))
    refuse(chapter, student, "")
    return stored


def line(result: Result) -> str:
    """Write a result in a line."""
    mark = "" if result.score is None else f"{result.score:g} of {result.max_score:g}"
    reason = "; ".join(result.why) or "; ".join(result.notes)
    return f"{shown(result.student):20} {result.status:14} {mark:10} {shown(reason, 160)}".rstrip()


def table(results: list[Result]) -> str:
    """Write results as a table, those that need a person last, and count them."""
    order = [GRADED, MISSING, NOT_YET, OTHER_TESTS, REVIEW, FAILED]
    rows = sorted(results, key=lambda result: (order.index(result.status), result.student))
    counts = [f"{sum(r.status == status for r in rows)} {status}" for status in order
              if any(r.status == status for r in rows)]  # fmt: skip
    return "\n".join([*map(line, rows), "", ", ".join(counts) or "nothing handed in"])


def by_exercise(chapter: str, student: str) -> list[tuple[str, float, float]]:
    """Return title, marks and highest marks of each exercise of a graded submission."""
    chapter, name = assignment(chapter)
    with gradebook() as book:
        grades = book.find_submission_notebook(name, chapter, student).grades
        score = {grade.name: (grade.score or 0.0, grade.max_score) for grade in grades}
    rows = []
    for exercise in exercises(notebook_of(release_folder() / chapter / f"{name}.ipynb")):
        cells = [grade_id(cell) for cell in exercise.cells if role(cell) in ("test", "written")]
        got = sum(score.get(cell, (0.0, 0.0))[0] for cell in cells)
        rows.append((f"{exercise.number}. {exercise.title}", got, float(exercise.points)))
    return rows

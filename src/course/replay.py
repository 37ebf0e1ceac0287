"""Check in a second process what an answer returns, where a bent `torch.allclose` cannot help it.

A test shares its process with the code that it tests, so a submission can make it pass. Here the
submission runs once more, in a sandbox of its own, and every result that its answers give to the
tests is written down. The same is done with the instructor's answers, elsewhere and once. The two
lists are compared outside of both. A submission that has bent the tests, or IPython, or torch,
still has to return the right numbers.

An answer whose cell is tagged `many-answers` may rightly return something else and is not compared,
nor is a result that cannot be written down, such as a function or a module.
"""

import json
import math
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from course import sandbox
from course.exercises import grade_id, role
from course.record import OPAQUE, RAISED, Log
from course.submissions import without_magics

SECONDS = 60
LOG_BYTES = 32 * 2**20


def cells_to_run(
    notebook: NotebookNode,
    tests: NotebookNode,
    wanted: set[str] | None = None,
    without: set[str] | None = None,
) -> list[dict[str, str]]:
    """Take the code of a restored submission, with the tests of the source, hidden parts and all.

    Of the tests, only those in `wanted`, or all; of the rest, what is not in `without`.
    """
    full = {grade_id(cell): cell.source for cell in tests.cells if role(cell) == "test"}
    cells = []
    for cell in notebook.cells:
        name = grade_id(cell)
        idle = role(cell) == "test" and wanted is not None and name not in wanted
        if (
            cell.cell_type == "code"
            and name != "summary"
            and not idle
            and cell.id not in (without or ())
        ):
            source = full.get(name) or without_magics(cell.source)
            cells.append({"role": role(cell), "name": name or cell.id, "source": source})
    return cells


def in_second_process(cells: list[dict[str, str]]) -> Log | None:
    """Record in a process of its own, in the sandbox; None if that gives no log."""
    with sandbox.Scratch() as place:
        (private := place / "in").mkdir()
        task, result = private / "cells.json", private / "log.json"
        task.write_text(json.dumps(cells), encoding="utf-8")
        inner = [sys.executable, "-m", "course.record", str(task), str(result)]
        command = inner if sandbox.opted_out() else sandbox.command(inner, private)
        nowhere = subprocess.DEVNULL
        end = time.monotonic() + SECONDS
        process = subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere)
        while process.returncode is None:
            try:
                process.wait(0.5)
            except subprocess.TimeoutExpired:
                if time.monotonic() > end or sandbox.oversteps(process.pid, private):
                    process.kill()
        try:
            log = json.loads(own_file(result))
        except (OSError, ValueError, RecursionError):
            return None
    return log if well_formed(log) else None


def own_file(path: Path) -> bytes:
    """Read a plain file out of a sandbox, and nothing else that can stand there by then.

    Raises OSError or ValueError.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode) or about.st_size > LOG_BYTES:
            raise ValueError(f"{path} is no log")
        return file.read(LOG_BYTES)


def well_formed(log: Any) -> bool:
    """Say whether this is a log: it comes out of the sandbox and can be anything."""
    return isinstance(log, dict) and all(
        isinstance(calls, list)
        and all(isinstance(c, list) and len(c) == 2 and isinstance(c[0], str) for c in calls)
        for calls in log.values()
    )


def same(ours: Any, theirs: Any) -> bool:
    """Compare two results: numbers to 1e-4, the rest exactly. If ours is OPAQUE, all is well."""
    if ours == OPAQUE:
        return True
    if isinstance(ours, float | int) and isinstance(theirs, float | int):
        return math.isclose(ours, theirs, rel_tol=1e-4, abs_tol=1e-5)
    if isinstance(ours, list) and isinstance(theirs, list):
        try:
            ours, theirs = flat(ours), flat(theirs)
        except RecursionError:
            return False
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return bool(ours == theirs)


def flat(value: list[Any]) -> list[Any]:
    """Write nested lists in a row: a tensor, its rows and a list of lists are the same result."""
    return [x for item in value for x in (flat(item) if isinstance(item, list) else [item])]


def differences(ours: Log, theirs: Log | None, tests: set[str], free: set[str]) -> list[str]:
    """Name each test that gave full points although the answers returned other than they should.

    `tests` are those that gave full points, `free` the answers that may rightly differ.
    """
    if theirs is None:
        return ["gives no results in a second process"] if tests else []
    found = []
    for test in sorted(tests):
        ours_here = [call for call in ours.get(test, []) if call[0] not in free]
        if test not in theirs:
            found.append(f"{test} passes, but did not run in a second process")
            continue
        raised = next((what for name, what in theirs[test] if name == RAISED), None)
        if raised:
            found.append(f"{test} passes, but raises {raised} in a second process")
            continue
        calls = [call for call in theirs[test] if call[0] not in free]
        pairs = list(zip(ours_here, calls, strict=False))
        bad = next((ours for ours, call in pairs if not same(ours, call)), None)
        if bad:
            found.append(f"{test} passes, but {bad[0]} returns something else in a second process")
        elif len(calls) < len(ours_here):
            found.append(f"{test} passes, but stops early in a second process")
    return found


def free_answers(source: NotebookNode) -> set[str]:
    """Return the answers that may rightly return something else than the instructor's."""
    return {
        grade_id(cell)
        for cell in source.cells
        if role(cell) == "answer" and "many-answers" in cell.metadata.get("tags", [])
    }

"""Check in a second process what an answer returns, where a bent `torch.allclose` cannot help it.

A test shares its process with the code that it tests, so a submission can make it pass. Here the
submission runs once more, in a sandbox of its own, and every result that its answers give to the
tests is written down. The same is done with the instructor's answers, elsewhere and once. The two
lists are compared outside of both. A submission that has bent the tests, or IPython, or torch,
still has to return the right numbers.

An answer whose cell is tagged `many-answers` may rightly return something else and is not compared,
nor is a result that cannot be written down, such as a function or a module.
"""

import contextlib
import io
import json
import math
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from course import sandbox
from course.exercises import grade_id, role
from course.submissions import MAGIC

SECONDS = 60
CELL_SECONDS = 20
MAX_NUMBERS = 20_000  # of a result; the rest is not compared
LOG_BYTES = 32 * 2**20
OPAQUE = "..."

Log = dict[str, list[Any]]


def written_down(value: Any) -> Any:
    """Turn a result into lists, numbers, strings and None; what cannot be is OPAQUE."""
    if hasattr(value, "detach") and hasattr(value, "tolist"):
        value = value.detach().flatten()[:MAX_NUMBERS].tolist() if value.dim() else value.item()
    elif hasattr(value, "tolist"):
        value = value.tolist()
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        number = float(value)
        return number if math.isfinite(number) else str(number)
    if isinstance(value, bytes):
        return list(value[:MAX_NUMBERS])
    if isinstance(value, dict):
        return sorted([[str(written_down(k)), written_down(v)] for k, v in value.items()], key=str)
    if isinstance(value, set | frozenset):
        return sorted((written_down(item) for item in value), key=str)
    if isinstance(value, list | tuple):
        return [written_down(item) for item in value[:MAX_NUMBERS]]
    return OPAQUE


def record(cells: list[dict[str, str]]) -> Log:
    """Run cells (`role`, `name`, `source`) and log, for each test, what the answers returned.

    Only calls from a test count, not those that an answer makes of another.
    """
    log: Log = {}
    namespace: dict[str, Any] = {"__name__": "exercise"}
    depth = 0
    current: list[Any] | None = None

    def watched(name: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            depth += 1
            try:
                result = function(*args, **kwargs)
            finally:
                depth -= 1
            if depth == 0 and current is not None:
                current.append([name, written_down(result)])
            return result

        return call

    for cell in cells:
        if cell["role"] == "test":
            current = log.setdefault(cell["name"], [])
        seed()
        signal.alarm(CELL_SECONDS)
        with contextlib.suppress(Exception, OutOfTime), contextlib.redirect_stdout(io.StringIO()):
            exec(compile(cell["source"], f"<{cell['name']}>", "exec"), namespace)
        signal.alarm(0)
        current = None
        if cell["role"] == "answer":
            function = namespace.get(cell["name"])
            if callable(function) and not isinstance(function, type):
                namespace[cell["name"]] = watched(cell["name"], function)
    return log


class OutOfTime(BaseException):
    """A cell has run for too long; no `except Exception` of a submission catches this."""


def stop(number: int, frame: Any) -> None:
    """Handle the alarm."""
    raise OutOfTime


def seed() -> None:
    """Make what a cell draws the same in every process."""
    import random

    import numpy
    import torch

    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)


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
            source = full.get(name) or MAGIC.sub("pass", cell.source)
            cells.append({"role": role(cell), "name": name or cell.id, "source": source})
    return cells


def in_second_process(cells: list[dict[str, str]]) -> Log | None:
    """Record in a process of its own, in the sandbox; None if that gives no log."""
    with tempfile.TemporaryDirectory(prefix="course-") as name:
        private = Path(name)
        task, result = private / "cells.json", private / "log.json"
        task.write_text(json.dumps(cells), encoding="utf-8")
        inner = [sys.executable, "-m", "course.replay", str(task), str(result)]
        command = inner if sandbox.opted_out() else sandbox.command(inner, private)
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=SECONDS,
                check=False,
            )
        if result.is_symlink() or not result.is_file() or result.stat().st_size > LOG_BYTES:
            return None
        try:
            log = json.loads(result.read_text(encoding="utf-8"))
        except (ValueError, RecursionError, UnicodeDecodeError):
            return None
    return log if isinstance(log, dict) else None


def same(ours: Any, theirs: Any) -> bool:
    """Compare two results: numbers to 1e-4, the rest exactly; OPAQUE is like anything."""
    if OPAQUE in (ours, theirs):
        return True
    if isinstance(ours, float | int) and isinstance(theirs, float | int):
        return math.isclose(ours, theirs, rel_tol=1e-4, abs_tol=1e-5)
    if isinstance(ours, list) and isinstance(theirs, list):
        ours, theirs = flat(ours), flat(theirs)
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
        theirs_here = theirs.get(test)
        if not isinstance(theirs_here, list):
            found.append(f"{test} passes, but did not run in a second process")
            continue
        calls = [call for call in theirs_here if isinstance(call, list) and len(call) == 2]
        calls = [call for call in calls if call[0] not in free]
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


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, stop)
    recorded = record(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    Path(sys.argv[2]).write_text(json.dumps(recorded), encoding="utf-8")

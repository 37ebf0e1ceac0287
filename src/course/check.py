"""Tell a learner how far an exercise notebook has come: in its last cell, or `course check 4`."""

import ast
import contextlib
import io
import os
import re
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import nbformat
from nbformat import NotebookNode

from course.chapters import ROOT, find
from course.exercises import CODE_STUB, TEXT_STUB, Exercise, exercises, grade_id, path_of, role
from course.notebooks import read_notebook

CHECKED_CELL_SECONDS = 120


@dataclass(frozen=True)
class Progress:
    """What became of one exercise: "passes", "fails", "not answered", or what else it needs."""

    exercise: Exercise
    state: str
    why: str = ""

    def __str__(self) -> str:
        """Write the line, and below it the reason."""
        line = f"{self.exercise.number}. {self.exercise.title}: {self.state}"
        if not self.why:
            return line
        return line + "\n" + fill(self.why, 88, initial_indent="   ", subsequent_indent="   ")


def in_words(error: Exception, exercise: Exercise) -> str:
    """Say what an error of a test means to whoever wrote the answer."""
    if isinstance(error, AssertionError) and str(error):
        return str(error)
    names = {grade_id(cell) for cell in exercise.having("answer")}
    if isinstance(error, NameError) and error.name in names:
        return (
            f"`{error.name}` is not defined: run the cell that defines it. If you did, that cell "
            "stopped at an error before it came to the end."
        )
    if isinstance(error, NameError):
        return (
            f"`{error.name}` is not defined{place(error)}. If a cell above defines it, run the "
            "cells from the top; if none does, import it or correct its spelling."
        )
    said = f"{type(error).__name__}: {error}".rstrip(": ")
    return f"{said}{place(error)} (run the test cell to see where it comes from)"


def place(error: Exception) -> str:
    """Name the line of the notebook at which an error was raised, where that can be told."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if "ipykernel" in frame.filename and frame.line:
            return f", in `{frame.name}`: `{frame.line.strip()}`"
    return ""


def unfinished(exercise: Exercise) -> str:
    """Return the name of a function that has an answer and the raise of its stub as well."""
    for cell in exercise.having("answer"):
        try:
            nodes = list(ast.walk(ast.parse(cell.source)))
        except SyntaxError:
            continue
        for node in [node for node in nodes if isinstance(node, ast.FunctionDef)]:
            if any(map(is_stub, node.body)) and not all(
                is_stub(n) or is_text(n) for n in node.body
            ):
                return node.name
    return ""


def is_stub(node: ast.stmt) -> bool:
    """Say whether a statement is the `raise NotImplementedError()` of a stub."""
    return isinstance(node, ast.Raise) and CODE_STUB in ast.unparse(node)


def is_text(node: ast.stmt) -> bool:
    """Say whether a statement is a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def progress(exercise: Exercise, namespace: dict[str, Any]) -> Progress:
    """Run the tests of an exercise on what the namespace defines now."""
    if not exercise.having("test") and not exercise.having("written"):
        return Progress(
            exercise, "fails", "its test cell is gone: take a fresh copy of the notebook"
        )
    for cell in exercise.having("test"):
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(cell.source, f"<{grade_id(cell)}>", "exec"), namespace)
        except NotImplementedError as error:
            if str(error):  # PyTorch's own, about a type that it does not serve
                return Progress(exercise, "fails", in_words(error, exercise))
            if name := unfinished(exercise):
                why = f"`raise NotImplementedError()` is still in `{name}`: delete that line"
                return Progress(exercise, "fails", why)
            return Progress(exercise, "not answered yet")
        except SystemExit:
            return Progress(exercise, "fails", "your code calls exit(); return a value instead")
        except Exception as error:
            return Progress(exercise, "fails", in_words(error, exercise))
    written = exercise.having("written")
    if any(TEXT_STUB in cell.source or not cell.source.strip() for cell in written):
        return Progress(exercise, "passes its tests; your written answer is still to come")
    if written:
        return Progress(exercise, "passes its tests; a person reads your written answer")
    return Progress(exercise, "passes")


def print_progress(notebook: str, number: int, namespace: dict[str, Any]) -> None:
    """Print how far one exercise of a notebook has come, counted from 0."""
    print(progress(exercises(read_notebook(Path(notebook)))[number], namespace))


def passes(line: str) -> bool:
    """Say whether an exercise, as its line is printed, passes."""
    return ": passes" in line.partition("\n")[0]


def count(lines: list[str]) -> str:
    """Say how many of the exercises pass."""
    passing = sum(map(passes, lines))
    return f"\n{passing} of {len(lines)} exercises pass their visible tests."


def summary(notebook: str | Path, namespace: dict[str, Any]) -> None:
    """Print a line for each exercise, and how many pass: the last cell of an exercise notebook.

    `notebook` is the file, whose tests are run; `namespace` is globals(), which holds the answers.
    A file that is not there is named, with the cure.
    """
    path = Path(notebook)
    if not path.exists():
        print(
            f"{path} is not in {Path.cwd()}: was the notebook renamed? Put its name in this cell."
        )
        return
    lines = [str(progress(exercise, namespace)) for exercise in exercises(read_notebook(path))]
    print("\n".join([*lines, count(lines)]))


def locate(name: str) -> Path:
    """Return the notebook that is meant: a file, or a chapter as 4, 04_attention or attention.

    A chapter's is the one below exercises/ here; elsewhere, that of the course, if it is the
    learner's to write in. Raises FileNotFoundError with the cure.
    """
    path = Path(name)
    if path.suffix != ".ipynb":
        shared = path_of(find(name), ROOT / "exercises")
        path = path_of(find(name), Path("exercises"))
        if not path.is_file() and shared.is_file():
            if not os.access(shared, os.W_OK):
                raise FileNotFoundError(
                    f"{path} is not here: go to the folder that holds your copy of exercises/"
                )
            path = shared
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: name a chapter or an exercise notebook")
    return path.resolve()


def load(path: Path) -> tuple[NotebookNode, list[Exercise]]:
    """Read an exercise notebook and what is to be done in it.

    Raises ValueError if it cannot be read or has no exercises.
    """
    try:
        notebook = read_notebook(path)
        todo = exercises(notebook)
    except Exception as error:  # nbformat raises many kinds
        why = str(error).strip().partition("\n")[0][:120]
        raise ValueError(
            f"{path} cannot be read as a notebook ({why}): take a fresh copy and paste your "
            "answers into it"
        ) from None
    if not todo:
        raise ValueError(f"{path} has no exercises: name a notebook in exercises/")
    return notebook, todo


def run_in_kernel(notebook: NotebookNode, folder: Path) -> tuple[int, str]:
    """Run a notebook in a kernel; return how many cells were begun, and what stopped it, if so."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    begun: list[int] = []
    client = NotebookClient(
        notebook,
        timeout=CHECKED_CELL_SECONDS,
        kernel_name="python3",
        allow_errors=True,
        on_cell_start=lambda cell, cell_index: begun.append(cell_index),
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        client.execute(stderr=subprocess.DEVNULL)  # a kernel says there what no learner asked
    except CellTimeoutError:
        why = f"runs for longer than {CHECKED_CELL_SECONDS} s: is there a loop that never ends?"
        return len(begun), why
    except DeadKernelError:
        return len(begun), "ends the Python process: does it exit, or run out of memory?"
    return len(begun), ""


def check(name: str) -> int:
    """Run a learner's notebook in a kernel of its own and print how far it has come; write nothing.

    The kernel runs all cells but the tests, then the tests of one exercise after the other. Returns
    0 if every exercise passes, 1 if not.

    Raises FileNotFoundError if there is no such notebook, ValueError if it cannot be read or has no
    exercises.
    """
    path = locate(name)
    notebook, todo = load(path)
    cells = [
        cell for cell in notebook.cells if role(cell) != "test" and grade_id(cell) != "summary"
    ]
    call = "__import__('course.check').check.print_progress"  # adds no name to the learner's
    tests = [nbformat.v4.new_code_cell(f"{call}({str(path)!r}, {number}, globals())")
             for number in range(len(todo))]  # fmt: skip
    notebook.cells = [*cells, *tests]
    begun, stopped = run_in_kernel(notebook, path.parent)
    for cell in cells[:begun]:
        if error := error_of(cell):
            print(f"{begins(cell)} stops: {error}\n")
    if begun <= len(cells):
        print(f"{begins(cells[begun - 1])} {stopped}\n\nNothing after it was run.")
        return 1
    tests = tests[: begun - len(cells)]
    lines = [printed(cell).strip() or str(Progress(exercise, "fails", error_of(cell)))
             for cell, exercise in zip(tests, todo, strict=False)]  # fmt: skip
    if stopped:
        lines[-1] = str(Progress(todo[len(tests) - 1], "fails", f"a test {stopped}"))
        print("\n".join([*lines, "\nNothing after it was run."]))
        return 1
    print("\n".join([*lines, count(lines)]))
    return int(not all(map(passes, lines)))


def begins(cell: NotebookNode) -> str:
    """Name a cell by its first line."""
    return f"The cell that begins `{cell.source.strip().partition(chr(10))[0]}`"


def printed(cell: NotebookNode) -> str:
    """Return what a cell has printed, without its warnings."""
    return "".join(o.text for o in cell.get("outputs", []) if o.get("name") == "stdout")


def error_of(cell: NotebookNode) -> str:
    """Return the error at which a cell stopped, or nothing."""
    for output in cell.get("outputs", []):
        if output.output_type == "error":
            said = re.sub(r" \(\S+\.py, line (\d+)\)$", r" in its line \1", output.evalue)
            return f"{output.ename}: {said}"
    return ""


if __name__ == "__main__":
    sys.exit(check(sys.argv[1]))

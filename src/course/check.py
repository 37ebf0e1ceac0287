"""Tell a learner how far an exercise notebook has come: in its last cell, or `course check 4`."""

import contextlib
import io
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import nbformat
from nbformat import NotebookNode

from course.chapters import ROOT, find
from course.exercises import Exercise, exercises, grade_id, path_of, role
from course.notebooks import read_notebook

CELL_SECONDS = 120
STUB = "YOUR ANSWER HERE"


@dataclass(frozen=True)
class Verdict:
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
        return f"`{error.name}` is not defined: run the cells above from the top of the notebook."
    return f"{type(error).__name__}: {error} (run the test cell to see where it comes from)"


def judge(exercise: Exercise, namespace: dict[str, Any]) -> Verdict:
    """Run the tests of an exercise on what the namespace defines now."""
    for cell in exercise.having("test"):
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(cell.source, f"<{grade_id(cell)}>", "exec"), namespace)
        except NotImplementedError:
            return Verdict(exercise, "not answered yet")
        except Exception as error:
            return Verdict(exercise, "fails", in_words(error, exercise))
    written = exercise.having("written")
    if any(STUB in cell.source or not cell.source.strip() for cell in written):
        return Verdict(exercise, "passes its tests; your written answer is still to come")
    if written:
        return Verdict(exercise, "passes its tests; a person reads your written answer")
    return Verdict(exercise, "passes")


def verdicts(notebook: NotebookNode, namespace: dict[str, Any]) -> list[Verdict]:
    """Judge every exercise of a notebook by its visible tests."""
    return [judge(exercise, namespace) for exercise in exercises(notebook)]


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
    found = verdicts(read_notebook(path), namespace)
    for verdict in found:
        print(verdict)
    passing = sum(verdict.state.startswith("passes") for verdict in found)
    print(f"\n{passing} of {len(found)} exercises pass their visible tests.")


def locate(name: str) -> Path:
    """Return the notebook that is meant: a file, or a chapter as 4, 04_attention or attention.

    Raises FileNotFoundError with the cure.
    """
    path = Path(name)
    if path.suffix != ".ipynb":
        path = path_of(find(name), ROOT / "exercises")
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}: name a chapter or an exercise notebook")
    return path.resolve()


def check(name: str) -> int:
    """Run a learner's notebook in a kernel of its own and print the verdicts; write nothing.

    The kernel runs all cells but the tests, then `summary` runs those. Returns 0 if every exercise
    passes, 1 if not.

    Raises FileNotFoundError if there is no such notebook, ValueError if it cannot be read.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    path = locate(name)
    try:
        notebook = read_notebook(path)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is no notebook that can be read ({error}): take a fresh copy and paste your "
            "answers into it"
        ) from None
    last = f"from course.check import summary\nsummary({str(path)!r}, globals())"
    cells = [
        cell for cell in notebook.cells if role(cell) != "test" and grade_id(cell) != "summary"
    ]
    notebook.cells = [*cells, nbformat.v4.new_code_cell(last)]
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute(stderr=subprocess.DEVNULL)  # a kernel says there what no learner asked
    except CellTimeoutError:
        print(f"A cell ran for longer than {CELL_SECONDS} s: is there a loop that never ends?")
        print(f"It is this one, or one after it:\n{running(notebook)}")
        return 1
    except (DeadKernelError, CellExecutionError) as error:
        print(
            f"The kernel stopped before the end ({error}): does a cell exit or run out of memory?"
        )
        return 1
    for cell in notebook.cells[:-1]:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                first = cell.source.strip().partition("\n")[0]
                print(f"The cell that begins `{first}` stops: {output.ename}: {output.evalue}\n")
    text = "".join(output.get("text", "") for output in notebook.cells[-1].outputs)
    print(text, end="")
    total = len(exercises(notebook))
    return 0 if f"\n{total} of {total} exercises" in text else 1


def running(notebook: NotebookNode) -> str:
    """Return the source of the cell at which a run stopped."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return str(next((c.source for c in cells if c.execution_count is None), cells[-1].source))


if __name__ == "__main__":
    sys.exit(check(sys.argv[1]))

"""Wrong answers that every exercise must catch, and right ones that it must accept.

They stand in `tests/mutants/<chapter>.py` and not beside the solution, because nbgrader would hand
them out. A function `multi_head__view_without_transpose` there takes the place of the learner's
`multi_head`, in a notebook where all other answers are right, and must lose the points of a test
with a message in words. `multi_head__right__by_einsum` is right in another way and must lose none.
Functions without `__` are helpers.
"""

import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from course.chapters import ROOT
from course.exercises import exercises, grade_id, notebook_of, reached_by, role, run

PARTS = ("visible", "hidden")
MIN_WORDS = 5


@dataclass
class Verdict:
    """What the tests made of one wrong or right answer: part -> test -> what it raised."""

    exercise: str
    mutant: str
    failures: dict[str, dict[str, Exception]] = field(default_factory=dict)

    @property
    def right(self) -> bool:
        """Say whether this answer is meant to be right."""
        return self.mutant.split("__")[1] == "right"

    @property
    def killed_by(self) -> list[str]:
        """Name the tests that failed, each with the part of it that did."""
        return [f"{test} ({part})" for part in PARTS for test in self.failures.get(part, {})]

    @property
    def trouble(self) -> str:
        """Say what is wrong with the tests, or nothing."""
        if self.right:
            raised = {str(e): e for tests in self.failures.values() for e in tests.values()}
            return f"a right answer loses points: {next(iter(raised))}" if raised else ""
        if not self.killed_by:
            return "SURVIVES: it earns every point"
        for tests in self.failures.values():
            for test, error in tests.items():
                if not isinstance(error, AssertionError) or len(str(error).split()) < MIN_WORDS:
                    return f"{test} fails without words: {error!r}"
        return ""


@lru_cache
def answers_beside(path: Path) -> dict[str, Callable[..., object]]:
    """Load the wrong and right answers that belong to a source notebook, by name."""
    file = ROOT / "tests" / "mutants" / f"{path.parent.name}.py"
    if not file.exists():
        return {}
    spec = importlib.util.spec_from_file_location(f"mutants_{path.parent.name}", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = {grade_id(cell) for cell in notebook_of(path).cells if role(cell) == "answer"}
    return {
        name: value
        for name, value in vars(module).items()
        if callable(value) and "__" in name.strip("_") and name.split("__")[0] in names
    }


def judge(path: Path, mutant: str) -> Verdict:
    """Run a notebook with one answer replaced, once against each part of the tests it reaches."""
    answer = mutant.split("__")[0]
    verdict = Verdict(answer, mutant)
    notebook, replaced = notebook_of(path), {answer: answers_beside(path)[mutant]}
    tests = reached_by(notebook, answer)
    for part in PARTS:
        outcome = run(notebook, part, replaced, tests)
        verdict.failures[part] = {
            grade_id(cell): error for cell, error in outcome if error and role(cell) == "test"
        }
    return verdict


def report(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield a line for each answer beside a notebook and each idle test, and whether it is bad."""
    start = time.perf_counter()
    failed = [f"{grade_id(c)}: {e!r}" for c, e in run(notebook_of(path)) if e]
    yield f"{path.parent.name}: the solutions run in {time.perf_counter() - start:.1f} s", False
    for line in failed:
        yield f"  the solution itself fails: {line}", True
    verdicts = [judge(path, mutant) for mutant in answers_beside(path)]
    for verdict in verdicts:
        what = ", ".join(verdict.killed_by) or ("passes, as it should" if verdict.right else "")
        yield (
            f"  {verdict.mutant:60} {verdict.trouble or what}",
            bool(verdict.trouble),
        )
    yield from ((f"  {line}", True) for line in lacking(path, verdicts))


def lacking(path: Path, verdicts: list[Verdict]) -> Iterator[str]:
    """Yield what the answers beside a notebook leave unproved.

    An exercise has at least two wrong answers and one that is right in another way beside it, and
    each part of each test catches a wrong one.
    """
    for exercise in exercises(notebook_of(path)):
        names = {grade_id(cell) for cell in exercise.having("answer")}
        right = [v.right for v in verdicts if v.exercise in names]
        if right.count(False) < 2:
            yield f"exercise {exercise.number} has {right.count(False)} wrong answers: give it two"
        if not any(right):
            yield f"exercise {exercise.number} has no other right answer: give it one"
        for cell in exercise.having("test"):
            for part in PARTS:
                if not any(grade_id(cell) in v.failures[part] for v in verdicts if not v.right):
                    yield f"{grade_id(cell)}: its {part} part catches no wrong answer"

"""A class for the tests: a copy of the course in a temporary folder, with students who hand in."""

import compileall
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

from course.chapters import ROOT
from course.exercises import exercises
from course.notebooks import write_notebook

CHAPTER, NOTEBOOK = "04_attention", "attention"


@dataclass
class Class:
    """A course of its own below `folder`, so that nothing of the real one can be harmed."""

    folder: Path

    def course(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `course` as an instructor would."""
        return self.run("-m", "course", *arguments, **environment)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run Python on the course of this class."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder / "src"), **environment},
            capture_output=True,
            text=True,
        )

    def submit(self, student: str, what: nbformat.NotebookNode | str, name: str = "") -> Path:
        """Put a notebook, or any text, where `course collect` would put it."""
        path = self.folder / "grading" / "submitted" / student / CHAPTER
        path.mkdir(parents=True, exist_ok=True)
        path /= name or f"{NOTEBOOK}.ipynb"
        path.write_text(what if isinstance(what, str) else nbformat.writes(what), encoding="utf-8")
        return path

    def result(self, student: str) -> dict:
        """Return what grading has written down about a student."""
        path = self.folder / "grading" / "status" / CHAPTER / f"{student}.json"
        return json.loads(path.read_text(encoding="utf-8"))

    def graded(self, student: str) -> nbformat.NotebookNode:
        """Return the graded notebook of a student."""
        folder = self.folder / "grading" / "autograded" / student / CHAPTER
        return nbformat.read(folder / f"{NOTEBOOK}.ipynb", as_version=4)


def make_class(folder: Path, students: list[str], without: str = "") -> Class:
    """Copy what the kit needs of the course, and make a class with these students.

    `without` names an answer whose exercise the class leaves out. Skips the test where there is no
    sandbox; in CI such a skip is a failure.
    """
    if not shutil.which("bwrap"):
        pytest.skip("needs bubblewrap (Debian: apt install bubblewrap)")
    for name in ("src", "chapters", "models"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(folder / "src", quiet=1)  # once, and not in each sandbox
    for name in ("solutions", "exercises"):
        (folder / name / CHAPTER).mkdir(parents=True)
        write_notebook(source(name, without), folder / name / CHAPTER / f"{NOTEBOOK}.ipynb")
    for name in ("nbgrader_config.py", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    kit = Class(folder)
    (folder / "roster.csv").write_text("id\n" + "\n".join(students) + "\n", encoding="utf-8")
    made = kit.course("new-class", "roster.csv")
    assert made.returncode == 0, made.stderr
    return kit


def source(folder: str, without: str = "") -> nbformat.NotebookNode:
    """Return the notebook of solutions/ or exercises/, but for the exercise with this answer."""
    notebook = nbformat.read(ROOT / folder / CHAPTER / f"{NOTEBOOK}.ipynb", as_version=4)
    left_out = [cell for e in exercises(notebook) if e.name == without for cell in e.cells]
    assert bool(left_out) == bool(without)
    notebook.cells = [cell for cell in notebook.cells if cell not in left_out]
    return notebook


def handed_out(without: str = "") -> nbformat.NotebookNode:
    """Return the notebook that students get."""
    return source("exercises", without)


def solution(without: str = "") -> nbformat.NotebookNode:
    """Return a notebook in which every answer is right, as a student would hand it in."""
    exercise = handed_out(without)
    answers = {
        cell.metadata.nbgrader.grade_id: cell.source
        for cell in source("solutions", without).cells
        if cell.metadata.get("nbgrader", {}).get("solution")
    }
    for cell in exercise.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = answers.get(name, cell.source)
    return exercise


def cell_named(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """Return the cell with this grade id."""
    return next(
        cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == name
    )

"""Make the student notebooks of exercises/ out of the instructor notebooks of solutions/.

`course release` writes them; `strip` is what the tests use to see that they are current. nbgrader
does the stripping, but never on the project itself: it empties what it writes to.
"""

import logging
import os
import shutil
import tempfile
from pathlib import Path

from course.chapters import ROOT
from course.classroom import class_folder, configure, overlay, release_folder
from course.exercises import role
from course.notebooks import read_notebook, write_text

STUB = ("raise NotImplementedError", "YOUR ANSWER HERE")


def strip(solutions: Path, target: Path, register: bool = False) -> None:
    """Write every assignment below `solutions` into `target`, without solutions and hidden tests.

    With `register`, tell the gradebook of the class about the assignments.
    Raises ValueError if a folder holds anything but notebooks: nbgrader would copy it to students.
    """
    from nbgrader.converters import GenerateAssignment
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import Config

    logging.getLogger("traitlets").setLevel(logging.ERROR)
    for folder in sorted(path for path in solutions.iterdir() if path.is_dir()):
        refuse_leaks(folder)
        config = configure(Config())
        config.CourseDirectory.root = str(target)
        config.CourseDirectory.source_directory = str(solutions)
        config.CourseDirectory.release_directory = str(target)
        config.CourseDirectory.assignment_id = folder.name
        config.SaveCells.enabled = register
        course = CourseDirectory(config=config)
        GenerateAssignment(
            coursedir=course, config=config, no_database=not register, force=True
        ).start()


def refuse_leaks(folder: Path) -> None:
    """Raise ValueError on a file that nbgrader would copy to students as it is."""
    for path in folder.rglob("*"):
        checkpoint = ".ipynb_checkpoints" in path.parts
        if path.is_file() and path.suffix != ".ipynb" and not checkpoint:
            raise ValueError(f"{path} would be handed out with the exercises: move it elsewhere.")


def worked_in(path: Path) -> bool:
    """Say whether somebody has worked in a notebook: it was run, or an answer is no stub."""
    notebook = read_notebook(path)
    return any(
        (cell.cell_type == "code" and (cell.execution_count or cell.outputs))
        or (role(cell) in ("answer", "written") and not any(stub in cell.source for stub in STUB))
        for cell in notebook.cells
    )


def release(force: bool = False) -> list[str]:
    """Write the exercises, and tell the gradebook of the class about them if there is a class.

    Returns the paths that changed. A notebook that somebody has worked in is never overwritten.
    Raises ValueError with its name; with `force` it is kept beside the new one as `.mine`.
    """
    source, target = overlay(), release_folder()
    with tempfile.TemporaryDirectory() as scratch:
        strip(source, Path(scratch), register=(class_folder() / "gradebook.db").exists())
        fresh = {
            path.relative_to(scratch): path.read_text(encoding="utf-8")
            for path in sorted(Path(scratch).rglob("*.ipynb"))
        }
    changed = {
        name: text
        for name, text in fresh.items()
        if not (target / name).exists() or (target / name).read_text(encoding="utf-8") != text
    }
    busy = [name for name in changed if (target / name).exists() and worked_in(target / name)]
    if busy and not force:
        raise ValueError(
            f"{', '.join(map(str, busy))} in {target.name}/ holds somebody's work: move it away, "
            "or run `course release --force`, which keeps it as a copy"
        )
    for name in busy:
        keep(target / name)
    for name, text in changed.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(target / name, text)
    old = {p.relative_to(target) for p in target.glob("*/*.ipynb")} - set(fresh)
    for name in sorted(old):
        if (ROOT / "solutions" / name.parent).exists() or worked_in(target / name):
            continue
        shutil.rmtree((target / name).parent)
        changed[name] = "gone"
    return [f"{target.name}/{name}" for name in changed]


def keep(path: Path) -> None:
    """Put a notebook beside itself under the first free name that ends in .mine."""
    number = 1
    while (kept := path.with_name(f"{path.stem}.mine-{number}.ipynb")).exists():
        number += 1
    os.replace(path, kept)

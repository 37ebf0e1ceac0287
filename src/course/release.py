"""Make the student notebooks of exercises/ out of the instructor notebooks of solutions/.

`course release` writes them; `strip` is what the tests use to see that they are current. nbgrader
does the stripping, but never on the project itself: it empties what it writes to.
"""

import ast
import logging
import os
import tempfile
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from course.classroom import configure, gradebook, has_gradebook, overlay, release_folder
from course.exercises import CODE_STUB, TEXT_STUB, grade_id, role
from course.notebooks import read_notebook, write_text


def strip(solutions: Path, target: Path, register: bool = False) -> None:
    """Write every assignment below `solutions` into `target`, without solutions and hidden tests.

    With `register`, tell the gradebook of the class about the assignments.
    Raises ValueError if a folder holds anything but notebooks: nbgrader would copy it to students;
    FileNotFoundError if there are no sources, as in a copy of the course made for students.
    """
    from nbgrader.converters import GenerateAssignment
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import Config

    if not solutions.is_dir():
        raise FileNotFoundError(
            f"there is no {solutions}, which holds the sources of the exercises: take a full clone"
        )
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
    for path in target.rglob("*.ipynb"):
        go_on_after_tests(path)


def go_on_after_tests(path: Path) -> None:
    """Let Run All go on after a test cell that fails: most exercises are still to be solved."""
    notebook = read_notebook(path)
    for cell in notebook.cells:
        if role(cell) == "test":
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "raises-exception"]
    nbformat.write(notebook, path)


def refuse_leaks(folder: Path) -> None:
    """Raise ValueError on a file that nbgrader would copy to students as it is."""
    for path in folder.rglob("*"):
        checkpoint = ".ipynb_checkpoints" in path.parts
        if path.is_file() and path.suffix != ".ipynb" and not checkpoint:
            raise ValueError(f"{path} would be handed out with the exercises: move it elsewhere.")


def worked_in(path: Path, fresh: str = "") -> bool:
    """Say whether somebody has worked in a notebook: it was run, has an answer, or a cell more.

    `fresh` is the notebook that is to take its place: an answer that has statements which are not
    there was begun, even if its stub still stands. An unreadable file counts as work.
    """
    try:
        cells = read_notebook(path).cells
    except Exception:  # nbformat raises many kinds
        return True
    new = {grade_id(c): c.source for c in nbformat.reads(fresh, 4).cells} if fresh else {}
    return any(
        (cell.cell_type == "code" and (cell.execution_count or cell.outputs))
        or (cell.cell_type == "code" and not role(cell) and cell.source.strip())
        or (role(cell) in ("answer", "written") and begun(cell, new.get(grade_id(cell))))
        for cell in cells
    )


def begun(cell: NotebookNode, fresh: str | None) -> bool:
    """Say whether an answer is more than the stub that was, or is now, handed out."""
    if not any(stub in cell.source for stub in (CODE_STUB, TEXT_STUB)):
        return bool(cell.source != fresh)
    if fresh is None:
        return False
    if role(cell) == "written":
        return bool(cell.source.strip() != fresh.strip())
    return not statements(cell.source) <= statements(fresh)


def statements(source: str) -> set[str]:
    """Return the statements of a cell, but for definitions and docstrings: those may be reworded.

    A source that is no Python is a statement of its own.
    """
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return {source}
    return {
        ast.unparse(node)
        for node in nodes
        if isinstance(node, ast.stmt)
        and not isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    }


def release(force: bool = False) -> list[str]:
    """Write the exercises, and tell the gradebook of the class about them if there is a class.

    Returns the paths that changed. A notebook that somebody has worked in is never overwritten.
    Raises ValueError with its name; with `force` it is kept beside the new one as `.mine-1`.
    """
    source, target = overlay(), release_folder()
    with tempfile.TemporaryDirectory() as scratch:
        strip(source, Path(scratch))
        fresh = {
            path.relative_to(scratch): path.read_text(encoding="utf-8")
            for path in sorted(Path(scratch).rglob("*.ipynb"))
        }
    changed = {
        name: text
        for name, text in fresh.items()
        if not (target / name).exists() or (target / name).read_text(encoding="utf-8") != text
    }
    busy = [name for name, text in changed.items()
            if (target / name).exists() and worked_in(target / name, text)]  # fmt: skip
    if busy and not force:
        raise ValueError(
            f"somebody has worked in {', '.join(f'{target.name}/{name}' for name in busy)}: move "
            "it away, or run `course release --force`, which keeps it as a copy"
        )
    if has_gradebook():
        refuse_other_cells(source)
        with tempfile.TemporaryDirectory() as scratch:
            strip(source, Path(scratch), register=True)
    for name in busy:
        keep(target / name)
    for name, text in changed.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(target / name, text)
    for path in sorted(target.glob("*/*.ipynb")):
        name = path.relative_to(target)
        if not (source / name.parent).exists() and not worked_in(path):
            path.unlink()
            changed[name] = "gone"
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
    return [
        f"{target.name}/{name}{' (gone)' if text == 'gone' else ''}"
        for name, text in changed.items()
    ]


def refuse_other_cells(source: Path) -> None:
    """Raise ValueError if cells came or went in an assignment that has been graded.

    nbgrader cannot add a test to a submission that it has graded.
    """
    with gradebook() as book:
        for chapter in book.assignments:
            for known in chapter.notebooks if chapter.submissions else []:
                path = source / chapter.name / f"{known.name}.ipynb"
                if not path.exists():
                    continue
                new = {grade_id(cell) for cell in read_notebook(path).cells if role(cell)}
                changed = sorted(new ^ {cell.name for cell in known.source_cells})
                if changed:
                    raise ValueError(
                        f"{path} has other cells than the one by which {chapter.name} was graded: "
                        f"{', '.join(changed)}. nbgrader cannot add or remove cells then, and "
                        "nothing has been changed. Write new checks into a test cell that is "
                        "there, or move grading/ away and begin again with `course new-class`"
                    )


def keep(path: Path) -> None:
    """Put a notebook beside itself under the first free name that ends in .mine."""
    number = 1
    while (kept := path.with_name(f"{path.stem}.mine-{number}.ipynb")).exists():
        number += 1
    os.replace(path, kept)

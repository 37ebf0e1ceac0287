"""One source: write definitions, numbers, maps and references where they are shown."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode

from course import address, maps, references, syllabus
from course.chapters import CHAPTERS, ROOT, written
from course.exercises import path_of
from course.notebooks import read_notebook, text_of, write_text

TAG = re.compile(r"src:(?P<path>[\w/]+\.py)::(?P<name>\w+)")


def definitions(path: Path) -> dict[str, str]:
    """Return the text of every top-level function, class and assignment of a module, by name."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    found = {}
    for node in ast.parse(source).body:
        name = name_of(node)
        if name:
            decorators = getattr(node, "decorator_list", [])
            first = min([node.lineno, *(d.lineno for d in decorators)])
            found[name] = "\n".join(lines[first - 1 : node.end_lineno])
    return found


def name_of(node: ast.stmt) -> str | None:
    """Return the name that a top-level statement defines, None if it defines none."""
    match node:
        case ast.FunctionDef() | ast.ClassDef():
            return node.name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
    return None


def tagged_cells(notebook: NotebookNode) -> Iterator[tuple[NotebookNode, str, str]]:
    """Yield each cell that shows a definition, with the definition's path and name."""
    for cell in notebook.cells:
        for tag in cell.metadata.get("tags", []):
            if match := TAG.fullmatch(tag):
                yield cell, match["path"], match["name"]
            elif tag.startswith("src:"):
                raise ValueError(f"cannot read the tag {tag!r}: write src:gpt2/module.py::name")


def wanted_text(path: str, name: str) -> str:
    """Return what the cell tagged `src:path::name` must hold.

    Raises ValueError if there is no such definition.
    """
    file = ROOT / "src" / path
    found = definitions(file) if file.exists() else {}
    if name not in found:
        raise ValueError(f"src/{path} defines no {name!r}: mend the tag or the module")
    return found[name]


def sync(check: bool = False) -> list[str]:
    """Write definitions into their cells, numbers where they are named, and the maps.

    Returns a line for each difference; with `check`, writes nothing. Raises ValueError, before
    anything is written, for what has no place to be written to.
    """
    differences = address.sync_citation(check)
    for path, text, notes in list(wanted_files()):
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            notes = notes or [f"{named(path)} is not as `course sync` writes it"]
            if not check:
                write_text(path, text)
        differences += notes
    return differences


def wanted_files() -> Iterator[tuple[Path, str, list[str]]]:
    """Yield every file that is written, its text, and a line for each cell that differs."""
    for chapter in CHAPTERS:
        yield ROOT / "_assets" / f"map-{chapter.number:02d}.svg", maps.draw(chapter.number), []
    for chapter in written():
        notebook, tasks, notes = read_notebook(chapter.path), None, []
        source = path_of(chapter, ROOT / "solutions")
        if source.exists():  # not in a copy that students got
            numbered, tasks = syllabus.numbered_source(chapter)
            yield source, text_of(numbered), []
        for cell, path, name in tagged_cells(notebook):
            if cell.source != wanted_text(path, name):
                cell.source = wanted_text(path, name)
                notes.append(f"{named(chapter.path)}: the cell of {name} differs from src/{path}")
        for cell in notebook.cells:
            text = syllabus.announced(cell.source, chapter, tasks)
            if cell.cell_type == "markdown" and cell.source != text:
                cell.source = text
                notes.append(f"{named(chapter.path)}: numbers differ from those of its exercises")
        notes += references.write_references(notebook, chapter)
        yield chapter.path, text_of(notebook), notes
    if (ROOT / "solutions").exists():
        page = ROOT / "chapters" / "teaching.md"
        yield page, syllabus.with_syllabi(page.read_text(encoding="utf-8")), []


def named(path: Path) -> str:
    """Return a file's path from the root of the course."""
    return path.relative_to(ROOT).as_posix()

"""One source of code: write the definitions of `src` into the cells that show them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode

from course import address, maps
from course.chapters import CHAPTERS, ROOT, written
from course.notebooks import read_notebook, write_notebook, write_text

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
    """Write definitions into their cells and draw the maps; return a line for each difference.

    With `check`, write nothing.
    """
    differences = address.sync_citation(check)
    for chapter in CHAPTERS:
        file = ROOT / "_assets" / f"map-{chapter.number:02d}.svg"
        drawing = maps.draw(chapter.number)
        if not file.exists() or file.read_text(encoding="utf-8") != drawing:
            differences.append(f"_assets/{file.name} differs from the table of contents")
            if not check:
                write_text(file, drawing)
    for chapter in written():
        notebook = read_notebook(chapter.path)
        for cell, path, name in tagged_cells(notebook):
            text = wanted_text(path, name)
            if cell.source != text:
                differences.append(
                    f"chapters/{chapter.path.name}: the cell of {name} differs from src/{path}"
                )
                cell.source = text
        if not check:
            write_notebook(notebook, chapter.path)
    return differences

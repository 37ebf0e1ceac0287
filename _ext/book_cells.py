"""Code cells on a page: imports and drawings in one folded line, the package's with their file.

Only the rendered page changes. The notebooks keep their cells as they are:
what they say for JupyterLab, the book says in its own way.
"""

import ast
import json
import re

from docutils import nodes
from sphinx.application import Sphinx

from course.references import CAPTION, as_roles

FOLD = "hide-input"


def label(cell: dict) -> str | None:
    """Say what the line reads that replaces a cell's code; None if the code is shown."""
    code, meta = "".join(cell["source"]), cell["metadata"]
    tags = meta.get("tags", [])
    shown = next((tag.rpartition("::")[2] for tag in tags if tag.startswith("src:")), None)
    if shown:
        return f"Code of {shown}" if FOLD in tags else None
    if "figure" in meta.get("mystnb", {}) or re.match(r"def draw_\w+\((?:.|\n(?!\S))*$", code):
        return "Drawing"
    return "Imports" if imports(code) else None


def imports(code: str) -> bool:
    """Say whether a cell imports names and sets a few things, and defines or prints nothing."""
    try:
        parts = ast.parse(code).body
    except SyntaxError:  # a magic or a shell command
        return False
    lines = sum(
        part.end_lineno - part.lineno + 1
        for part in parts
        if isinstance(part, ast.Import | ast.ImportFrom)
    )
    plain = all(isinstance(p, ast.Import | ast.ImportFrom | ast.Assign | ast.Expr) for p in parts)
    return plain and 4 <= lines >= len(code.splitlines()) / 2


def fold_cells(app: Sphinx, page: str, source: list[str]) -> None:
    """Read a notebook's roles back and mark the cells that are folded, before it is parsed."""
    if not page.startswith("chapters/") or not source[0].startswith("{"):
        return
    notebook = json.loads(source[0])
    notebook["cells"] = [
        cell for cell in notebook["cells"] if CAPTION not in cell["metadata"].get("tags", [])
    ]
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = as_roles("".join(cell["source"]))
        line = label(cell) if cell["cell_type"] == "code" else None
        if line:
            meta = cell["metadata"]
            meta["tags"] = sorted({*meta.get("tags", []), FOLD})
            prompts = {"code_prompt_show": line, "code_prompt_hide": line}
            meta["mystnb"] = {**meta.get("mystnb", {}), **prompts}
    source[0] = json.dumps(notebook)


def name_files(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Put its file's name above each cell whose code is the package's."""
    for cell in list(doctree.findall(nodes.container)):
        tag = next((c for c in cell["classes"] if c.startswith("tag_src:")), None)
        if tag:
            file = tag.removeprefix("tag_src:").partition("::")[0]
            cell["classes"].append("package")
            cell.insert(0, nodes.raw("", f'<p class="cell-file">{file}</p>', format="html"))

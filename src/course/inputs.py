"""Which chapters have changed since they were executed: by content, so that a fresh clone is right.

What the outputs of a chapter depend on is its code, the modules that this imports, however
indirectly, and the files that they read. A hash of it all is stored with the outputs.
"""

import ast
import hashlib
import re
from functools import lru_cache
from pathlib import Path

from nbformat import NotebookNode

from course.chapters import ROOT

# The rest of `course` is no part of a lesson.
FOLLOWED = ("gpt2", "miniweb", "course.models", "course.programs", "course.translators")
DATA = {  # what they read besides: patterns
    "miniweb.facts": "src/miniweb/countries.tsv",
    "miniweb.cities": "src/miniweb/cities.tsv",
    "miniweb.lexicon": "src/miniweb/lexicon/*.tsv",
    "course.models": "models/* models/results/*",
    "course.translators": "models/translators/*",
    "gpt2.pretrained": "src/gpt2/published.json",
    "course.figures": "src/course/figures.mplstyle",
}


def hash_of_inputs(notebook: NotebookNode) -> str:
    """Hash the code of a chapter, the modules behind it and what they read."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    digest = hashlib.sha256("\0".join(code).encode())
    for path in sorted(files_behind(code)):
        digest.update(f"\0{path.relative_to(ROOT).as_posix()}\0".encode())
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))  # as Windows may check it out
    return digest.hexdigest()


def files_behind(code: list[str]) -> set[Path]:
    """Return the modules that pieces of code import, those that these import, and their data."""
    files: set[Path] = set()
    todo = {name for source in code for name in modules_in(source)}
    while todo:
        name = todo.pop()
        for pattern in DATA.get(name, "").split():
            files |= {path for path in ROOT.glob(pattern) if path.is_file()}
        stem = ROOT / "src" / name.replace(".", "/")
        for path in {stem.with_suffix(".py"), stem / "__init__.py"} - files:
            if path.exists() and name.startswith(FOLLOWED):
                files.add(path)
                todo |= modules_in(path.read_text(encoding="utf-8"))
    return files


@lru_cache(maxsize=1024)
def modules_in(source: str) -> set[str]:
    """Return what may be a module, and the packages that hold it: of imports and of strings.

    A string counts for `plt.style.use("course.figures")` and for `python -m gpt2`.
    """
    found = set()
    for node in ast.walk(ast.parse(re.sub(r"^\s*[%!].*$", "pass", source, flags=re.MULTILINE))):
        match node:
            case ast.Import(names=names):
                found |= {name.name for name in names}
            case ast.ImportFrom(module=str(module), names=names):
                found |= {f"{module}.{name.name}" for name in names}
            case ast.Constant(value=str(text)) if re.fullmatch(r"[a-z]\w*(\.\w+)*", text):
                found |= {text, f"{text}.__main__"}
    parts = [name.split(".") for name in found]
    return {".".join(part[:i]) for part in parts for i in range(1, len(part) + 1)}


def has_changed(notebook: NotebookNode) -> bool:
    """Say whether a chapter, or what is behind it, differs from when it was executed."""
    stored = notebook.metadata.get("course", {}).get("inputs_sha256")
    return stored is None or stored != hash_of_inputs(notebook)

"""A learner's package: the modules of `gpt2` with nothing in them but what is to be written.

Stubs are cut out of the modules when they are asked for, so they never lag behind them. Asked of a
learner is what a chapter teaches. Given are imports, constants, types, private names, `check_...`
with its error messages, and what handles files.
"""

import ast
import importlib.util
import keyword
import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill, indent

from course.chapters import ROOT, Chapter, written
from course.notebooks import read_notebook, write_text
from course.sync import name_of, tagged_cells

Definition = ast.FunctionDef | ast.ClassDef

# A definition that names one of these handles files, and is given: but `train` is the trainer.
FILES = {
    "Path",
    "IO",
    "TextIOWrapper",
    "open",
    "os",
    "csv",
    "atomic_file",
    "safe_open",
    "save_file",
}
ASKED, GIVEN = {"train"}, {"parse_tables", "to_published"}  # the published files' format
TYPES = {"dataclass", "Protocol", "NamedTuple", "contextmanager"}

HEADER = '''"""{title}

Write what raises NotImplementedError, in this order:

{order}

Each docstring says what goes in and out, shapes included. Everything else is provided.
Chapter {number}, chapters/{stem}.ipynb, has the ideas. After each definition, run

    course check {number} --package {package}

In that run the course's code replaces remaining stubs, so begin with any chapter.
"""'''

INIT = '''"""GPT-2, from an empty file.

Each module belongs to a chapter; its first lines list what to write, in order.
"""
'''

MAIN = '''"""The command line on this package: python -m {package} train my_text/ --out runs/mine"""

import sys

from course.standin import run_package

sys.exit(run_package("{package}"))
'''


@dataclass(frozen=True)
class Module:
    """A module of the course as a learner meets it: its source, and what is asked, in order."""

    chapter: Chapter
    source: str
    asked: list[str]


def modules() -> list[Module]:
    """Read the modules of all written chapters, in their order."""
    return [read_module(chapter) for chapter in written() if chapter.module]


def read_module(chapter: Chapter) -> Module:
    """Read a chapter's module."""
    path = ROOT / "src" / "gpt2" / f"{chapter.module}.py"
    source = path.read_text(encoding="utf-8")
    return Module(chapter, source, asked(ast.parse(source)))


def names_used(node: ast.AST) -> set[str]:
    """Return every name that a piece of code reads."""
    found = (n for n in ast.walk(node) if isinstance(n, ast.Name))
    return {name.id for name in found if isinstance(name.ctx, ast.Load)}


def is_asked(node: ast.stmt) -> bool:
    """Say whether a learner is to write a top-level statement of a module."""
    if not isinstance(node, Definition) or node.name.startswith(("_", "check_")):
        return False
    marks = [*node.decorator_list, *(node.bases if isinstance(node, ast.ClassDef) else [])]
    if TYPES & set().union(*map(names_used, marks)) or node.name in GIVEN:
        return False
    return node.name in ASKED or not FILES & names_used(node)


def asked(tree: ast.Module) -> list[str]:
    """Return what a learner is to write, each definition after those that it uses."""
    nodes = {node.name: node for node in tree.body if isinstance(node, Definition)}
    order: list[str] = []

    def visit(name: str, inside: tuple[str, ...] = ()) -> None:
        if name in nodes and name not in order and name not in inside:
            used_here = names_used(nodes[name])
            for used in [other for other in nodes if other in used_here]:
                visit(used, (*inside, name))
            order.append(name)

    for name in nodes:
        visit(name)
    return [name for name in order if is_asked(nodes[name])]


# --- Stubs ---------------------------------------------------------------------------------------


def functions(node: ast.stmt) -> list[ast.FunctionDef]:
    """Return a function, or the methods of a class."""
    body = node.body if isinstance(node, ast.ClassDef) else [node]
    return [part for part in body if isinstance(part, ast.FunctionDef)]


def only_raises(node: ast.stmt) -> bool:
    """Say whether a statement does nothing but raise an error if something is wrong."""
    if isinstance(node, ast.If) and not node.orelse:
        return isinstance(node.body[-1], ast.Raise) and all(
            isinstance(part, ast.Assign) for part in node.body[:-1]
        )
    return False


def given_lines(function: ast.FunctionDef) -> list[ast.stmt]:
    """Return the statements that a stub keeps: docstring, super().__init__(), early errors."""
    kept = []
    for node in function.body:
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not (is_text or only_raises(node) or ast.unparse(node) == "super().__init__()"):
            break
        kept.append(node)
    return kept


def is_unwritten(function: ast.FunctionDef) -> bool:
    """Say whether nothing but what is given is in a function."""
    rest = function.body[len(given_lines(function)) :]
    return not rest or all(
        isinstance(node, ast.Pass) or "NotImplementedError" in ast.unparse(node) for node in rest
    )


def attributes(function: ast.FunctionDef) -> list[str]:
    """Return what a method sets on self, and by which call, as in `c_attn (nn.Linear)`."""
    found: dict[str, str] = {}
    for node in ast.walk(function):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            for part in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(part, ast.Attribute) and ast.unparse(part.value) == "self":
                    made_by = getattr(getattr(node, "value", None), "func", None)
                    kind = ast.unparse(made_by) if made_by else ""
                    is_class = kind.rpartition(".")[2][:1].isupper()
                    found[part.attr] = f"{part.attr} ({kind})" if is_class else part.attr
    return list(found.values())


def stub_of(function: ast.FunctionDef) -> list[str]:
    """Return the lines that take the place of a body."""
    margin = " " * (function.col_offset + 4)
    note = []
    if function.name == "__init__" and (names := attributes(function)):
        text = f"Set on self: {', '.join(names)}."
        note = indent(fill(text, 86 - len(margin)), f"{margin}# ").split("\n")
    return [*note, f"{margin}raise NotImplementedError"]


def stubs(module: Module, package: str) -> str:
    """Return a module as a learner gets it."""
    tree, lines = ast.parse(module.source), module.source.splitlines()
    for node in reversed(tree.body):
        name = name_of(node)
        for function in reversed(functions(node) if name in module.asked else []):
            kept = given_lines(function)
            if len(kept) < len(function.body):
                first = kept[-1].end_lineno if kept else function.body[0].lineno - 1
                lines[first or 0 : function.end_lineno] = stub_of(function)
    header = HEADER.format(
        title=(ast.get_docstring(tree) or "").partition("\n")[0],
        order=indent(fill(", ".join(module.asked), 84), "    "),
        number=module.chapter.number,
        stem=module.chapter.stem,
        package=package,
    )
    body = "\n".join(lines[tree.body[0].end_lineno or 0 :])
    return header + "\n" + re.sub(r"^(\s*from )gpt2\.", rf"\1{package}.", body, flags=re.M) + "\n"


def section_of(chapter: Chapter, name: str) -> str:
    """Return the heading under which a chapter shows a definition, or nothing."""
    notebook = read_notebook(chapter.path)
    shown = {id(cell) for cell, _, shows in tagged_cells(notebook) if shows == name}
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for title in re.findall(r"^##+ (.+)$", cell.source, re.MULTILINE):
                heading = title
        elif id(cell) in shown:
            return heading
    return ""


# --- A new package -------------------------------------------------------------------------------


def start_package(package: str, folder: Path) -> list[str]:
    """Lay out a package of stubs in a folder; return the names of the files that are new.

    A file that is there is never touched; where some are missing, those are written. Raises
    ValueError for what is no name of a package, FileExistsError for a folder that is none.
    """
    if not package.isidentifier() or keyword.iskeyword(package):
        better = re.sub(r"\W+", "_", Path(package).name).strip("_") or "my_gpt2"
        raise ValueError(
            f"{package!r} is not a valid package name: use letters, digits and _, as in "
            f"`course start {better if better.isidentifier() else 'my_gpt2'}`"
        )
    home = folder / package
    if not home.exists() and importlib.util.find_spec(package):
        raise ValueError(f"{package} is installed here already: take another name, such as my_gpt2")
    if home.exists() and not (home / "__init__.py").is_file():
        raise FileExistsError(
            f"{home} is not a package: it has no __init__.py. Nothing was changed. Take "
            "another name, or run the command in another folder."
        )
    files = {"__init__.py": INIT, "__main__.py": MAIN.format(package=package)}
    files |= {f"{m.chapter.module}.py": stubs(m, package) for m in modules()}
    new = [name for name in files if not (home / name).exists()]
    for name in new:  # __init__.py is the first: what a kill cuts short, a second call completes
        write_text(home / name, files[name])
    return new

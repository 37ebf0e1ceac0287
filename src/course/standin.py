"""A learner's package in the place of `gpt2`, the course's code standing in for what is a stub.

Whoever imports `gpt2.attention` gets `my_gpt2.attention`. A module that the learner has not got is
`gpt2`'s, under both names; a definition that is still a stub, or missing, is `gpt2`'s too.
"""

import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Collection, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from course.stubs import functions, is_unwritten, modules, names_used
from course.sync import name_of

COURSE = {module.chapter.module: module for module in modules()}


def defined(tree: ast.Module) -> dict[str, ast.stmt]:
    """Return the statements of a module that define a name, by it."""
    return {name: node for node in tree.body if (name := name_of(node))}


def parts(node: ast.stmt) -> dict[str, ast.FunctionDef]:
    """Return what is written one by one in a definition: itself, or a class's methods."""
    owner = f"{name_of(node)}." if isinstance(node, ast.ClassDef) else ""
    return {owner + function.name: function for function in functions(node)}


def missing(tree: ast.Module, module: str) -> list[str]:
    """Return what is asked in a module and still a stub in a learner's, or not there at all."""
    theirs, mine = defined(ast.parse(COURSE[module].source)), defined(tree)
    found: list[str] = []
    for name in COURSE[module].asked:
        written = parts(mine[name]) if name in mine else {}
        wanted = [*parts(theirs[name])] if not written else [*written]
        left = [part for part in wanted if part not in written or is_unwritten(written[part])]
        found += [name] if left == wanted else left
    return found


def placed(node: ast.stmt, line: int) -> ast.stmt:
    """Give every part of a definition one line, so that a traceback shows the stub's."""
    for part in ast.walk(node):
        if "lineno" in part._attributes:
            vars(part).update(lineno=line, end_lineno=line, col_offset=0, end_col_offset=0)
    return node


def filled(tree: ast.Module, module: str) -> ast.Module:
    """Put the course's code in place of a learner's stubs, and of what is not there at all."""
    course = COURSE[module]
    theirs, mine = defined(ast.parse(course.source)), defined(tree)
    body = imports(course.source) if missing(tree, module) else []
    for node in tree.body:
        name = name_of(node)
        if name in course.asked and name in theirs:
            node = fill(node, theirs[name])
        body.append(node)
    for name in [name for name in theirs if name not in mine]:
        uses = [i for i, node in enumerate(body) if name in names_used(node)]
        body.insert(min(uses, default=len(body)), placed(theirs[name], 1))
    return ast.Module(body, type_ignores=[])


def imports(source: str) -> list[ast.stmt]:
    """Return the imports of a module, which its code needs wherever it stands in."""
    found = [n for n in ast.parse(source).body if isinstance(n, ast.Import | ast.ImportFrom)]
    return [placed(node, 1) for node in found]


def fill(node: ast.stmt, theirs: ast.stmt) -> ast.stmt:
    """Return a definition with the course's code in the place of its stubs."""
    if isinstance(node, ast.FunctionDef):
        return placed(theirs, node.lineno) if is_unwritten(node) else node
    if isinstance(node, ast.ClassDef):
        methods = {part.name: part for part in functions(theirs)}
        node.body = [fill(part, methods.get(getattr(part, "name", ""), part)) for part in node.body]
    return node


class Filled(SourceFileLoader):
    """Load a learner's module, its stubs filled."""

    def get_code(self, fullname: str) -> CodeType:
        """Compile anew each time: what is compiled here is not the learner's file alone."""
        tree = ast.parse(self.get_data(self.path), self.path)
        return compile(filled(tree, fullname.partition(".")[2]), self.path, "exec")


class StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Give a learner's `my_gpt2.attention` to whoever imports `gpt2.attention`."""

    def __init__(self, package: str, without: Collection[str] = ()) -> None:
        """Remember the learner's package, and the modules that are to be the course's."""
        self.package, self.without = package, without

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Say where another module stands in for this one, or nothing."""
        package, _, module = name.partition(".")
        if package not in ("gpt2", self.package) or "." in module or module[:2] in ("", "__"):
            return None
        home = sys.modules[self.package].__path__
        theirs = PathFinder.find_spec(f"{self.package}.{module}", home)
        if theirs and module not in COURSE:  # a helper of the learner's own
            return None
        if not theirs or not theirs.origin or module in self.without:
            return ModuleSpec(name, self, origin=f"gpt2.{module}") if package != "gpt2" else None
        if package == "gpt2":
            return ModuleSpec(name, self, origin=f"{self.package}.{module}")
        loader = Filled(name, theirs.origin)
        return importlib.util.spec_from_file_location(name, theirs.origin, loader=loader)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Import what stands in."""
        module = importlib.import_module(str(spec.origin))
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing but undo what importing under another name has set."""
        module.__spec__ = self.spec


def install(package: str, folder: Path, without: Collection[str] = ()) -> None:
    """Let a learner's package in a folder take the place of `gpt2` in this process.

    Raises ModuleNotFoundError if the folder has no such package.
    """
    sys.path.insert(0, str(folder))
    if not importlib.util.find_spec(package):
        raise ModuleNotFoundError(f"no such package in {folder}")
    importlib.import_module(package)
    sys.meta_path.insert(0, StandIn(package, without))
    course = importlib.import_module("gpt2")
    for name in [name for name in sys.modules if name.startswith("gpt2.")]:
        del sys.modules[name]  # what this program itself has used: it keeps its own
        vars(course).pop(name.partition(".")[2], None)


def left_to_write(package: Path) -> dict[str, list[str]]:
    """Return what is still to write in each module of a package; [] if nothing is."""
    found = {}
    for module, course in COURSE.items():
        path = package / f"{module}.py"
        try:
            found[module] = missing(ast.parse(path.read_text(encoding="utf-8")), module)
        except (OSError, SyntaxError, ValueError):
            found[module] = course.asked
    return found


def standing_in(package: Path, among: Collection[str] = ()) -> str:
    """Name what is the course's in a package, as one line; of some modules, or of all."""
    lacks = {
        m: names
        for m, names in left_to_write(package).items()
        if names and (m in among or not among)
    }
    whole = [module for module, names in lacks.items() if names == COURSE[module].asked]
    some = [f"{m}'s {', '.join(names)}" for m, names in lacks.items() if m not in whole]
    return "; ".join([*some, *([", ".join(whole)] if whole else [])])


def run_package(package: str) -> int:
    """Run the command line of `gpt2` on a learner's package."""
    home = Path(str(sys.modules["__main__"].__file__)).resolve().parent
    install(package, home.parent)
    if names := standing_in(home):
        print(f"The course's code stands in for what is not written yet: {names}", file=sys.stderr)
    from gpt2.__main__ import main

    return main()

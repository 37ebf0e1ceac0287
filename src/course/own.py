"""Check a chapter's module in a learner's own package: `course check 4 --package my_gpt2`."""

import ast
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from textwrap import fill, indent

from course.chapters import ROOT, Chapter, find, written
from course.ladder import Ascent, Job
from course.standin import COURSE, defined, left_to_write, missing, parts, standing_in
from course.stubs import Module, section_of

TOOLS = ("pytest", "hypothesis", "transformers", "tokenizers")


def locate_module(name: str, package: str, folder: Path) -> tuple[Module, Path]:
    """Return the course's module of a chapter, and where the learner's is.

    Raises ValueError or FileNotFoundError with the cure.
    """
    home = folder / package
    if Path(name).suffix == ".ipynb":
        raise ValueError(
            f"--package checks a module: name a chapter, as in `course check 4 --package {package}`"
        )
    chapter = find(name)
    if not chapter.module:
        raise ValueError(
            f"chapter {chapter.number} builds no module: name one of 1 to {len(COURSE)}; "
            f"`course check {chapter.number}` runs its exercises"
        )
    if not home.is_dir():
        raise FileNotFoundError(
            f"--package {package}: no such package in {folder}; `course start {package}` lays one "
            "out here, or give the command in the folder that holds it"
        )
    if not (home / "__init__.py").is_file():
        raise FileNotFoundError(
            f"--package {package}: {home} is no package, having no __init__.py; put an empty file "
            "of that name into it, or lay out another with `course start my_gpt2`"
        )
    path = home / f"{chapter.module}.py"
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}: `course start {package}` writes the files that are missing, and "
            "leaves the others as they are"
        )
    lacks = [tool for tool in TOOLS if not importlib.util.find_spec(tool)]
    if lacks or not (ROOT / "tests" / f"test_{chapter.module}.py").is_file():
        raise FileNotFoundError(
            f"the tests need {', '.join(lacks) or 'the folder tests/'}: take a clone of the "
            'course, and there `pip install -c constraints.txt -e ".[test]"`'
        )
    return COURSE[chapter.module], path


def parsed(path: Path) -> tuple[ast.Module | None, str]:
    """Read a learner's module; return it, or where and why it cannot be read."""
    try:
        return ast.parse(path.read_bytes(), str(path)), ""
    except SyntaxError as error:
        at = f"{path.parent.name}/{path.name}, line {error.lineno}: {(error.text or '').strip()}"
        return None, f"{at}\n   {error.msg}"
    except ValueError as error:
        return None, f"{path.parent.name}/{path.name}: {error}"


def signature_of(function: ast.FunctionDef) -> list[str]:
    """Return the names of a function's parameters."""
    given = function.args
    return [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]


def wrong_names(tree: ast.Module, module: Module) -> list[str]:
    """Say which names a learner has changed: the tests know definitions by theirs."""
    theirs, mine = defined(ast.parse(module.source)), defined(tree)
    own = [name for name in mine if name not in theirs]
    found = []
    for name in module.asked:
        if name not in mine:
            near = get_close_matches(name, own, 1, 0.8)
            is_it = f": is your `{near[0]}` meant? Rename it" if near else ""
            found.append(f"`{name}` is not there{is_it or ': write it under this name'}.")
            continue
        for part, function in parts(mine[name]).items():
            wanted = signature_of(parts(theirs[name]).get(part, function))
            if (has := signature_of(function))[: len(wanted)] != wanted:
                found.append(
                    f"`{part}` takes ({', '.join(has)}): its parameters are called "
                    f"({', '.join(wanted)})."
                )
    return found


def line_of(tree: ast.Module, name: str) -> int:
    """Return the line where a definition begins."""
    node = defined(tree).get(name.partition(".")[0])
    return parts(node).get(name, node).lineno if node else 0


def what_next(module: Module, tree: ast.Module, path: Path, left: list[str]) -> str:
    """Say what to write next, and where the chapter has its idea."""
    name = left[0]
    node = defined(tree).get(name.partition(".")[0])
    says = (
        ast.get_docstring(node) if isinstance(node, ast.FunctionDef | ast.ClassDef) else ""
    ) or ""
    text = f"{path.parent.name}/{path.name}, line {line_of(tree, name)}: `{name}`"
    lines = [text, *([f"   {says.partition(chr(10))[0]}"] if says else [])]
    if heading := section_of(module.chapter, name.partition(".")[0]):
        lines.append(f'   Its idea: chapters/{module.chapter.stem}.ipynb, "{heading}"')
    return "\n".join(lines)


def earlier_modules(module: str) -> list[str]:
    """Return the modules on which one of the course is built, in the order of chapters."""
    found: set[str] = set()
    todo = [module]
    while todo:
        tree = ast.parse(COURSE[todo.pop()].source)
        used = {(n.module or "")[5:] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        todo += [name for name in used if name in COURSE and name not in found]
        found |= used & set(COURSE)
    return [name for name in COURSE if name in found]


def climb_elsewhere(job: Job) -> Ascent:
    """Run the ladder in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        done = subprocess.run(
            [sys.executable, "-m", "course.ladder", json.dumps(asdict(job)), str(out)],
            cwd=job.folder, capture_output=True, text=True, errors="replace",
            stdin=subprocess.DEVNULL, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        if not out.exists():
            last = (done.stdout + done.stderr).strip().rpartition("\n")[2]
            return Ascent(broken=f"Python itself ended (status {done.returncode}): {last}\n")
        return Ascent(**json.loads(out.read_text(encoding="utf-8")))


def rows(module: Module, left: list[str], result: Ascent) -> list[str]:
    """Say of each definition how far it has come."""
    lines, width, after = [], max(map(len, module.asked)), False
    for name in module.asked:
        open_parts = [part.partition(".")[2] for part in left if part.partition(".")[0] == name]
        n = result.passed.get(name, 0)
        if name in left:
            state = "to write"
        elif name == result.rung:
            state, after = "FAILS", True
        elif after:
            state = f"its turn comes after {result.rung}"
        else:
            state = f"passes {n} test{'s' * (n != 1)}" if n else "passes: tested where it is used"
        if open_parts and name not in left:
            state += f"; to write: {', '.join(open_parts)}"
        lines.append(f"  {name:{width}}  {state}")
    return lines


def failure(result: Ascent, job: Job, earlier: list[str], tree: ast.Module) -> list[str]:
    """Say what is wrong, where, and what it looks like."""
    lines = [f"{result.rung} breaks this rule: {result.sentence}."]
    lines += [wrapped(result.error or "an assertion fails without words")]
    if result.place:
        lines += [f"   {result.place}"]
    if "NotImplementedError" in result.error:
        lines += [wrapped("`raise NotImplementedError` is still in it: delete that line.")]
    if result.example:
        lines += ["", "For example", *map(wrapped, result.example.splitlines())]
    if result.hint:
        lines += ["", wrapped(f"It behaves like this mistake: {result.hint}").strip()]
    elif asks := ast.get_docstring(defined(tree)[result.rung]):  # type: ignore[arg-type]
        lines += ["", "Its docstring asks:", indent(asks, "   ")]
    if earlier:
        names = ", ".join(earlier)
        again = Job(**asdict(job) | {"without": [*job.without, *earlier], "only": result.test})
        if not climb_elsewhere(again).test:
            lines += [wrapped(f"With the course's {names} this passes: mend your {names} first.")]
    test = shlex.quote(result.test)
    lines += ["", f"This test alone: pytest {test} --package {job.package}"]
    return lines


def wrapped(text: str) -> str:
    """Fold a text to the width of a page, with a margin."""
    return fill(text, 88, initial_indent="   ", subsequent_indent="   ", break_on_hyphens=False)


def after(chapter: Chapter) -> Chapter | None:
    """Return the chapter that builds the next module."""
    later = [c for c in written() if c.number > chapter.number and c.module]
    return later[0] if later else None


def check_package(name: str, package: str, folder: Path) -> int:
    """Run a chapter's tests on a learner's module; print how far each definition has come.

    Returns 0 if all is written and passes, 1 if not. Raises what `locate_module` raises.
    """
    module, path = locate_module(name, package, folder)
    chapter = module.chapter
    print(f"{package}/{path.name}, chapter {chapter.number}: {chapter.title}\n", flush=True)
    tree, why = parsed(path)
    if tree is None:
        print(f"Python cannot read it yet. Mend this first:\n{why}")
        return 1
    left = missing(tree, chapter.module)
    mine = [asked for asked in module.asked if asked not in left]
    if wrong := wrong_names(tree, module):
        print("The tests know definitions and parameters by their names:")
        print("\n".join(map(wrapped, wrong)))
        print("A fresh stub to compare with: give `course start` another name, as in stubs.")
        return 1
    if not mine:
        print("\n".join(rows(module, left, Ascent())))
        print(f"\nNothing is written yet. Write first:\n{what_next(module, tree, path, left)}")
        return 1
    others = [m for m in COURSE if m != chapter.module and (path.parent / f"{m}.py").is_file()]
    unread = {m: parsed(path.parent / f"{m}.py")[1] for m in others}
    unread = {m: why for m, why in unread.items() if why}
    job = Job(package, str(folder), chapter.module, mine, without=list(unread))
    result = climb_elsewhere(job)
    if result.broken:
        print(
            f"It stops before a test can run:\n   {result.broken.replace(chr(10), chr(10) + '   ')}"
        )
        print("Mend it there. (A file that you rename is the course's in the next run.)")
        return 1
    print("\n".join(rows(module, left, result)) + "\n")
    built_on = [name for name in earlier_modules(chapter.module) if name not in unread]
    lacks = left_to_write(path.parent)
    if result.rung:
        yours = [name for name in built_on if lacks[name] != COURSE[name].asked]
        print("\n".join(failure(result, job, yours, tree)) + "\n")
    if names := standing_in(path.parent, [*built_on, chapter.module]):
        print(wrapped(f"The course's code stood in for what is not written: {names}.").strip())
    for name, why in unread.items():
        print(f"The course's {name} stood in for yours, which Python cannot read:\n   {why}")
    if result.rung:
        return 1
    if left:
        print(f"What is written passes. Write next:\n{what_next(module, tree, path, left)}")
        return 1
    n = sum(result.passed.values())
    print(f"All of chapter {chapter.number} is yours: {len(mine)} definitions, {n} tests passed.")
    print(f"Its exercises: course check {chapter.number}")
    if following := after(chapter):
        print(f"Next: {package}/{following.module}.py, course check {following.number} "
              f"--package {package}")  # fmt: skip
    return 0

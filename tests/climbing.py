"""`python climbing.py 04_attention`: put each usual mistake of a chapter into a learner's module.

Prints what `course check --package` would say of it, a JSON line each. What takes long to import is
imported once; a fork does the rest.
"""

import ast
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import hypothesis  # noqa: F401
import tokenizers  # noqa: F401
import torch
import transformers.models.gpt2.modeling_gpt2  # noqa: F401

from course.chapters import ROOT
from course.ladder import Ascent, Job, climb
from course.standin import COURSE, defined

WRONG = """

from course.ladder import mistakes_of as _mistakes_of
{name} = _mistakes_of({module!r}).{mistake}
"""


def write_wrong(folder: Path, stem: str, mistake: str) -> Job:
    """Write a package `mine`: a copy of the chapter's module, one definition replaced."""
    [module] = [name for name, course in COURSE.items() if course.chapter.stem == stem]
    name, package = mistake.partition("__")[0], folder / "mine"
    package.mkdir()
    (package / "__init__.py").touch()
    lines = COURSE[module].source.splitlines(keepends=True)
    end = defined(ast.parse(COURSE[module].source))[name].end_lineno
    lines.insert(end, WRONG.format(module=module, mistake=mistake, name=name))
    (package / f"{module}.py").write_text("".join(lines))
    return Job("mine", str(folder), module, COURSE[module].asked)


def names_of(stem: str) -> list[str]:
    """Return the names of a chapter's mistakes."""
    tree = ast.parse((ROOT / "tests" / "mistakes" / f"{stem}.py").read_text(encoding="utf-8"))
    return [name for name in defined(tree) if "__" in name.strip("_")]


def main(stem: str, mistakes: list[str]) -> None:
    torch.set_num_threads(1)
    for mistake in mistakes or names_of(stem):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.json"
            if not (child := os.fork()):
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                os.dup2(1, 2)
                result = Ascent(broken="nothing came back")
                try:
                    result = climb(write_wrong(Path(folder), stem, mistake))
                finally:
                    out.write_text(json.dumps(asdict(result)))
                    os._exit(0)
            os.waitpid(child, 0)
            print(json.dumps([mistake, json.loads(out.read_text())]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

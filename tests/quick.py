"""`make quick`: the checks, and the tests of the modules that changed since the last commit.

With nothing changed, the tests of every module: one file each. Long chapters, the hostile suite and
whatever no rule names are left to `make test`.
"""

import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from course.chapters import ROOT, find, written
from course.notebooks import read_notebook

MOST_SECONDS = 25  # that a chapter may have taken when it was executed, to be run again here
CHECKS = ["ruff check -q .", "ruff format -q --check .", "mypy", "course sync --check"]
PYTEST = "pytest -q -m 'not soak' --nbval "
MODULES = [f"tests/test_{chapter.module}.py" for chapter in written() if chapter.module]
EXERCISES, KIT = "tests/test_exercises.py -k ", "tests/test_classroom.py -k "

# What a changed file asks for. The first rule that matches counts.
RULES = {
    r"src/gpt2/(?:__main__|runs|texts)\.py": "tests/test_cli.py",
    r"src/gpt2/(\w+)\.py": r"tests/test_\1.py",
    r"src/miniweb/(lexicon|cities|longtail|tasks|variants)\b.*": r"tests/test_\1.py",
    r"src/miniweb/leaks\.py": "tests/test_longtail.py",
    r"src/miniweb/.*": "tests/test_miniweb.py",
    r"src/course/(models|programs|collect|marks|figures)\.\w+": r"tests/test_\1.py",
    r"_ext/book_figures\.py": "tests/test_figures.py",
    r"models/.*": "tests/test_models.py",
    r"src/course/(exercises|mutants)\.py": EXERCISES + "03_batches",
    r"src/course/(release|check)\.py": KIT + "'release or check or progress or verdict'",
    r"src/course/(classroom|grading|sandbox|submissions)\.py": KIT
    + "'roster or status or last_word or feedback or export'",
    r"src/course/(?:pipe|tester|cost|watch)\.py": "tests/test_pipe.py -k 'not pipe_a'",
    r"src/course/address\.py|pyproject\.toml|CITATION\.cff": "tests/test_package.py",
    r"src/course/rules/.*": "tests/test_rules.py",
    r"src/course/(?:stubs|standin|ladder|own)\.py|tests/climbing\.py": "tests/test_start.py",
    r"tests/mistakes/(\d\d_\w+)\.py": r"tests/test_start.py -k \1",
    r"src/course/.*": "tests/test_course.py",
    r"(?:solutions|exercises|tests/mutants)/(\d\d_\w+)\b.*": EXERCISES + r"\1",
    r"(chapters/(\d\d_\w+)\.ipynb)": r"\1",
    r"(tests/test_\w+\.py)": r"\1",
    r"chapters/.*|_.*|index\.md|references\.bib": "tests/test_book.py",
}


def changed() -> list[str]:
    """Return the files that differ from the last commit, and those that git does not know yet."""
    return [
        line
        for command in ("git diff --name-only HEAD", "git ls-files --others --exclude-standard")
        for line in subprocess.check_output(shlex.split(command), cwd=ROOT, text=True).splitlines()
    ]


def asked_for(path: str) -> str:
    """Return what pytest is to run for a changed file, or nothing."""
    for rule, tests in RULES.items():
        if match := re.fullmatch(rule, path):
            found = match.expand(tests)
            return found if (ROOT / found.split()[0]).exists() else ""
    return ""


def jobs(paths: list[str]) -> tuple[list[str], list[str]]:
    """Return the command lines that the changed files ask for, and what they leave out."""
    wanted = list(filter(None, dict.fromkeys(map(asked_for, paths))))
    notebooks = [name for name in wanted if name.endswith(".ipynb")]
    left_out = [name for name in notebooks if seconds(name) > MOST_SECONDS]
    shapes = ["tests/test_course.py"] * bool(notebooks)
    files = [name for name in wanted if " " not in name and name not in left_out] + shapes
    if not wanted:
        files = MODULES
    together = [PYTEST + " ".join(dict.fromkeys(files))] if files else []
    if len(files) > 1:
        together[0] += " -n 2 --dist loadfile --no-loadscope-reorder"
    parts = [PYTEST + name for name in wanted if " " in name and name.split()[0] not in files]
    return together + parts, left_out


def seconds(name: str) -> int:
    """Return how long a chapter took when it was executed."""
    chapter = find(name.removeprefix("chapters/").removesuffix(".ipynb"))
    return int(read_notebook(chapter.path).metadata.get("course", {}).get("run_seconds", 0))


def run(command: str) -> int:
    """Run a module of this Python; say what it said if it fails, else its last line."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(command)], cwd=ROOT, capture_output=True, text=True
    )
    said = (done.stdout + done.stderr).strip()
    last = said if done.returncode else said.rpartition("\n")[2]
    print(f"{time.perf_counter() - start:5.1f} s  {command}\n{last}\n", flush=True)
    return done.returncode


def main() -> int:
    """Run two commands at a time; return 1 if one of them fails."""
    start = time.perf_counter()
    tests, left_out = jobs(changed())
    with ThreadPoolExecutor(2) as pool:
        failed = sum(code != 0 for code in pool.map(run, [*tests, *CHECKS]))
    for name in left_out:
        print(f"{name} runs for {seconds(name)} s: pytest --nbval {name}, or make test")
    print(f"{failed or 'none'} of {len(tests) + len(CHECKS)} failed, "
          f"{time.perf_counter() - start:.0f} s")  # fmt: skip
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

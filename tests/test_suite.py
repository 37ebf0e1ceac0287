"""The suite itself: skips, repetition and workers; another package under test; what is quick."""

import os
import shutil
import subprocess
import sys

import conftest
import nbformat
import pytest
import quick

from course.chapters import ROOT, written

TESTS = ROOT / "tests"
SIDE_BY_SIDE = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]


def run_pytest(folder, *arguments, **environment):
    """Run pytest in a folder; return its exit status and what it said."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "CI"))}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *map(str, arguments)],
        cwd=folder, env=inherited | environment, capture_output=True, text=True,
    )  # fmt: skip
    return run.returncode, run.stdout + run.stderr


# --- Skips, repetition, workers ------------------------------------------------------------------


@pytest.fixture
def suite(tmp_path):
    """A folder with a suite of its own, under the rules of this one."""
    shutil.copy(TESTS / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def test_names_of_tests_depend_on_no_clock_and_no_order():
    """Or workers collect different tests, and none runs."""
    names = [
        run_pytest(ROOT, "--collect-only", "-p", "no:xdist", "tests", PYTHONHASHSEED=seed)[1]
        for seed in ("1", "2")
    ]
    lists = [[line for line in said.splitlines() if "::" in line] for said in names]
    differ = set(lists[0]) ^ set(lists[1])
    assert len(lists[0]) > 2000 and not differ, sorted(differ)[:4]
    same = lists[0] == lists[1]
    assert same


alone, side_by_side = pytest.param([], id="alone"), pytest.param(SIDE_BY_SIDE, id="side by side")


def seldom(case):
    """Leave a case to `make soak`."""
    return pytest.param(*case.values, id=case.id, marks=pytest.mark.soak)


@pytest.mark.parametrize("workers", [seldom(alone), side_by_side])
def test_ci_fails_on_a_skip_that_nobody_expects(suite, workers):
    tests, module = "import pytest\n\ndef test_it(): pytest.skip('{}')\n", (
        "import pytest\n\npytest.skip('{}', allow_module_level=True)\n")  # fmt: skip
    for ci, why, status in (("true", "needs a spoon", 1), ("true", "needs a CUDA GPU", 0)):
        (suite / "test_one.py").write_text(tests.format(why))
        (suite / "test_two.py").write_text(module.format(f"{why}, too"))
        code, said = run_pytest(suite, *workers, CI=ci)
        assert code == status and " skipped" in said, said
        assert said.count("unexpected skip in CI: test_") == 2 * status, said


@pytest.mark.parametrize("workers", [alone, seldom(side_by_side)])
def test_lf_repeats_what_failed_and_a_notebook_from_its_first_cell(suite, workers):
    cells = ["x = 1", "assert x == 2", "y = x"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    (suite / "test_other.py").write_text("def test_right(): pass\n\ndef test_wrong(): assert 0\n")
    nbformat.write(notebook, suite / "n.ipynb")
    code, said = run_pytest(suite, ".", "--nbval", *workers)
    assert code == 1 and "2 failed, 3 passed" in said, said
    (suite / "test_other.py").write_text("def test_right(): pass\n\ndef test_wrong(): pass\n")
    code, said = run_pytest(suite, ".", "--nbval", "--lf", *workers)
    assert code == 1 and "1 failed, 2 passed" in said, said  # cells 0 and 1, and test_wrong
    assert "NameError" not in said


# --- A learner's package -------------------------------------------------------------------------


@pytest.fixture
def learner(tmp_path):
    """A folder with a package `my_gpt2` that has the module of chapter 4 alone."""
    (tmp_path / "my_gpt2").mkdir()
    (tmp_path / "my_gpt2" / "__init__.py").touch()
    shutil.copy(ROOT / "src" / "gpt2" / "attention.py", tmp_path / "my_gpt2")
    return tmp_path


WRONG_MASK = """

right_mask = causal_mask


def causal_mask(*arguments, **keywords):
    return ~right_mask(*arguments, **keywords)
"""


def test_the_oracles_run_on_a_package_of_the_learners_own(learner):
    oracles = [TESTS / "test_attention.py", "--package", "my_gpt2", "-p", "no:cacheprovider"]
    code, said = run_pytest(learner, *oracles)
    assert code == 0 and " passed" in said, said
    with open(learner / "my_gpt2" / "attention.py", "a", encoding="utf-8") as module:
        module.write(WRONG_MASK)
    code, said = run_pytest(learner, *oracles, "-x")
    assert code == 1 and "1 failed" in said, said


def test_a_module_that_the_learner_lacks_is_ours_and_takes_theirs(learner):
    (learner / "test_names.py").write_text(
        "import gpt2.attention, gpt2.decoder, my_gpt2.attention, my_gpt2.tokenizer\n"
        "from gpt2 import tokenizer\n\n"
        "def test_names():\n"
        "    assert gpt2.attention is my_gpt2.attention\n"
        "    assert gpt2.attention.__name__ == 'my_gpt2.attention'\n"
        "    assert gpt2.attention.__spec__.name == 'my_gpt2.attention'\n"
        "    assert my_gpt2.tokenizer is tokenizer and tokenizer.__name__ == 'gpt2.tokenizer'\n"
        "    assert gpt2.decoder.CausalSelfAttention is my_gpt2.attention.CausalSelfAttention\n"
    )
    shutil.copy(TESTS / "conftest.py", learner)
    code, said = run_pytest(learner, "--package", "my_gpt2")
    assert code == 0 and "1 passed" in said, said
    code, said = run_pytest(learner, "--package", "your_gpt2")
    assert code == 4 and "--package your_gpt2: no such package in" in said, said


# --- Order, and what is quick --------------------------------------------------------------------


def test_the_files_that_go_first_exist():
    there = {path.name for folder in ("tests", "chapters") for path in (ROOT / folder).iterdir()}
    assert set(conftest.FIRST) <= there


MODULES = [
    path.relative_to(ROOT).as_posix()
    for package in ("gpt2", "miniweb", "course")
    for path in (ROOT / "src" / package).glob("*.py")
    if path.name != "__init__.py" or package != "gpt2"
]


@pytest.mark.parametrize("path", MODULES)
def test_every_module_has_tests_that_are_quick(path):
    tests = quick.asked_for(path)
    assert tests.startswith("tests/test_") and (ROOT / tests.split()[0]).exists()
    assert not tests.startswith(("tests/test_book", "tests/test_hostile"))


@pytest.mark.parametrize("chapter", written(), ids=lambda chapter: chapter.stem)
def test_what_changed_decides_what_is_quick(chapter):
    n = chapter.stem
    for path in (f"solutions/{n}/{n[3:]}.ipynb", f"exercises/{n}/{n[3:]}.ipynb",
                 f"tests/mutants/{n}.py"):  # fmt: skip
        assert quick.asked_for(path) == f"tests/test_exercises.py -k {n}"
    module = chapter.module or "decoder"  # the preliminaries have none
    lines, left_out = quick.jobs([f"src/gpt2/{module}.py", f"chapters/{n}.ipynb"])
    assert f"tests/test_{module}.py" in lines[0] and "tests/test_course.py" in lines[0]
    is_long = quick.seconds(f"chapters/{n}.ipynb") > quick.MOST_SECONDS
    assert (f"chapters/{n}.ipynb" in left_out, f"chapters/{n}.ipynb" in lines[0]) == (
        is_long,
        not is_long,
    )


def test_with_nothing_changed_every_module_has_its_file():
    [line] = quick.jobs([])[0]
    modules = [chapter.module for chapter in written() if chapter.module]
    assert line.count("tests/test_") == len(modules)
    assert all(f"tests/test_{module}.py" in line for module in modules)
    assert quick.jobs(["README.md", "tests/conftest.py"]) == quick.jobs([])


def test_quick_fails_with_what_fails(monkeypatch, capsys):
    monkeypatch.setattr(quick, "CHECKS", ["course --help", "course nonsense"])
    monkeypatch.setattr(quick, "jobs", lambda paths: ([], ["chapters/06_training.ipynb"]))
    assert quick.main() == 1
    said = capsys.readouterr().out
    assert "invalid choice: 'nonsense'" in said and "1 of 2 failed" in said
    assert "pytest --nbval chapters/06_training.ipynb" in said

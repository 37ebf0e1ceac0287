"""The tests of a chapter as a ladder: a rung for each definition, up to the first that breaks.

A test stands on the rung of the last definition of the learner's that it reaches, and definitions
come in the order in which they are to be written. So what fails first is what is to be mended: all
that it is built from has passed. Runs in a process of its own: `python -m course.ladder JOB`.
"""

import ast
import contextlib
import importlib
import importlib.util
import inspect
import json
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

from course.chapters import ROOT
from course.standin import COURSE, defined, install
from course.stubs import names_used

TEST_SECONDS = 120  # for one test, on a machine that has other things to do
WORDS = 300  # characters of a message, at most


@dataclass
class Job:
    """What a run is to do: modules `without` are the course's, `only` is a test to run again."""

    package: str
    folder: str
    module: str
    mine: list[str]  # the learner's definitions, in the order of writing
    without: list[str] = field(default_factory=list)
    only: str = ""


@dataclass
class Ascent:
    """What a run has found: tests that pass on each rung, and the first that fails."""

    passed: dict[str, int] = field(default_factory=dict)
    rung: str = ""
    test: str = ""
    sentence: str = ""
    error: str = ""
    place: str = ""
    example: str = ""
    hint: str = ""
    broken: str = ""  # why the module cannot be imported


# --- What a test reaches -------------------------------------------------------------------------


def mentioned(node: ast.AST) -> set[str]:
    """Return every name and attribute in a piece of code, and the fixtures it asks for."""
    found = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
    found |= {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}
    return found | names_used(node)


def reached(names: set[str], definitions: dict[str, ast.stmt]) -> set[str]:
    """Return those of the definitions that names lead to, by way of one another."""
    found: set[str] = set()
    todo = names & set(definitions)
    while todo:
        found |= todo
        todo = {n for name in todo for n in mentioned(definitions[name])} & set(definitions) - found
    return found


def is_about_wrong_answers(test: ast.stmt, helpers: set[str]) -> bool:
    """Say whether a test shows that the tests catch something, and asks nothing of a learner."""
    return "raises(AssertionError" in ast.unparse(test) or bool(helpers & {"subprocess", "main"})


def reach_of_tests(path: Path, module: str) -> dict[str, set[str]]:
    """Return what of a module each test of a file reaches; without tests about wrong answers."""
    tests = defined(ast.parse(path.read_text(encoding="utf-8")))
    course = defined(ast.parse(COURSE[module].source))
    found = {}
    for name, test in tests.items():
        helpers = reached(mentioned(test), tests)
        names = set().union(mentioned(test), *(mentioned(tests[helper]) for helper in helpers))
        if not is_about_wrong_answers(test, names):
            found[name] = reached(names - set(tests), course)
    return found


# --- What a failure says -------------------------------------------------------------------------


def sentence_of(test: Callable[..., object]) -> str:
    """Return what a test holds: its docstring's first line, or its name in words."""
    text = (inspect.getdoc(test) or "").partition("\n")[0].rstrip(".")
    return text or re.sub(r"_s\b|_s(?=_)", "'s", test.__name__[5:]).replace("_", " ")


def message_of(error: BaseException) -> str:
    """Return what an error says, on one line; of an assertion, also what it compared."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("+")][:2]  # "+ where": names of ours
    if not isinstance(error, (AssertionError, pytest.fail.Exception)):
        lines = [f"{type(error).__name__}: {''.join(lines[:1])}".rstrip(": ")]
    return "; ".join(lines)[:WORDS]


def place_of(error: BaseException, folder: Path) -> str:
    """Return the deepest line of the learner's that an error came through."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).is_relative_to(folder):
            where = f"{folder.name}/{Path(frame.filename).name}, line {frame.lineno}"
            return f"{where}: {frame.line}" if frame.line else where
    return ""


def overdue(number: int, frame: FrameType | None) -> None:
    """Raise what a test that takes too long fails with."""
    raise TimeoutError(f"it runs for longer than {TEST_SECONDS} s: is there a loop without end?")


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Stop what runs for too long, where the system can."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return
    signal.signal(signal.SIGALRM, overdue)
    signal.alarm(TEST_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


# --- The usual mistakes --------------------------------------------------------------------------


@cache
def courses_own(module: str) -> ModuleType:
    """Load a module of the course, whatever has taken its place."""
    path = ROOT / "src" / "gpt2" / f"{module}.py"
    spec = importlib.util.spec_from_file_location(f"course_s_{module}", path)
    assert spec and spec.loader
    loaded = sys.modules[spec.name] = importlib.util.module_from_spec(
        spec
    )  # dataclasses look there
    spec.loader.exec_module(loaded)
    return loaded


@cache
def mistakes_of(module: str) -> ModuleType | None:
    """Load the usual mistakes of a chapter, made of the course's own code; or nothing."""
    stem = COURSE[module].chapter.stem
    path = ROOT / "tests" / "mistakes" / f"{stem}.py"
    spec = importlib.util.spec_from_file_location(f"mistakes_{stem}", path)
    if not path.is_file() or not spec or not spec.loader:
        return None
    known, learner_s = importlib.util.module_from_spec(spec), sys.modules.get(f"gpt2.{module}")
    sys.modules[f"gpt2.{module}"] = courses_own(module)
    try:
        spec.loader.exec_module(known)
    finally:
        del sys.modules[f"gpt2.{module}"]
        if learner_s:
            sys.modules[f"gpt2.{module}"] = learner_s
    return known


def outcome(example: str, known: ModuleType, implementation: object) -> str:
    """Return what an implementation makes of an example, as text that can be compared.

    Examples are expressions, in which `f` is the implementation.
    """
    import torch

    torch.manual_seed(0)
    torch.set_printoptions(precision=3, sci_mode=False, threshold=10**6)  # type: ignore[no-untyped-call]
    try:
        return repr(eval(example, vars(known) | {"f": implementation}))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def diagnosis(module: str, name: str, implementation: object) -> tuple[str, str] | None:
    """Return an example that shows what is wrong, and what is said about it; None if none does.

    Said is the docstring of the usual mistake that does the same in all examples.
    """
    known = mistakes_of(module)
    examples: list[str] = known.EXAMPLES.get(name, []) if known else []
    if not known or not examples:
        return None
    seen = [outcome(example, known, implementation) for example in examples]
    right = getattr(courses_own(module), name)
    shown = ""
    for example, is_ in zip(examples, seen, strict=True):
        if (expected := outcome(example, known, right)) != is_:
            call = re.sub(r"\bf\b", name, example)
            shown = f"{call}\nis {short(is_)}\nnot {short(expected)}"
            break
    if not shown:
        return None
    plain = shown if example.startswith("f(") else ""  # what a helper makes of it says little
    for wrong_name, wrong in vars(known).items():
        if wrong_name.startswith(f"{name}__") and all(
            outcome(example, known, wrong) == is_
            for example, is_ in zip(examples, seen, strict=True)
        ):
            return plain, " ".join((wrong.__doc__ or "").split())
    return plain, ""


def short(text: str) -> str:
    """Return a value on one line, cut where it grows long."""
    line = re.sub(r"\s+", " ", text)
    return line if len(line) <= WORDS else f"{line[:WORDS]} ..."


# --- The run -------------------------------------------------------------------------------------


class Ladder:
    """Choose and order a chapter's tests for a learner's module; stop at the first that fails."""

    def __init__(self, job: Job) -> None:
        self.job, self.result = job, Ascent()
        self.home = Path(job.folder) / job.package
        self.file = ROOT / "tests" / f"test_{job.module}.py"
        self.rungs: dict[str, str] = {}
        self.reach: dict[str, set[str]] = {}

    def rung(self, reach: set[str]) -> str:
        """Return the last of the learner's definitions that a test reaches, or nothing."""
        return next((name for name in reversed(self.job.mine) if name in reach), "")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the tests that reach what is the learner's, the nearest first."""
        reach = reach_of_tests(self.file, self.job.module)
        kept = []
        for item in items:
            name = getattr(item, "originalname", item.name)
            self.reach[item.nodeid] = reach.get(name, set())
            self.rungs[item.nodeid] = self.rung(self.reach[item.nodeid])
            if self.rungs[item.nodeid] and not item.get_closest_marker("soak"):
                kept.append((len(reach[name]), item))
        order = self.job.mine
        kept.sort(key=lambda pair: (order.index(self.rungs[pair[1].nodeid]), pair[0]))
        items[:] = [item for _, item in kept]
        if self.job.only:
            items[:] = [item for item in items if item.nodeid == self.job.only]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Note what a test fails with."""
        try:
            with time_limit():
                return (yield)
        except (Exception, pytest.fail.Exception) as error:
            self.note(item, error)
            raise

    def note(self, item: pytest.Item, error: BaseException) -> None:
        """Write down a failure, in words."""
        result = self.result
        result.rung, result.test = self.rungs[item.nodeid], item.nodeid
        result.sentence = sentence_of(getattr(item, "obj", self.note))
        result.error, result.place = message_of(error), place_of(error, self.home)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        """Diagnose a failure when all that its test had patched is itself again."""
        try:
            return (yield)
        finally:
            if item.nodeid == self.result.test:
                self.diagnose(item)

    def diagnose(self, item: pytest.Item) -> None:
        """Look for the first definition that is wrong by itself, tested here or not."""
        own = vars(sys.modules[f"gpt2.{self.job.module}"])
        for name in [name for name in self.job.mine if name in self.reach[item.nodeid]]:
            with contextlib.suppress(Exception), time_limit():
                if found := diagnosis(self.job.module, name, own[name]):
                    self.result.rung, (self.result.example, self.result.hint) = name, found
                    return

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count what passes."""
        if report.when == "call" and report.passed:
            rung = self.rungs[report.nodeid]
            self.result.passed[rung] = self.result.passed.get(rung, 0) + 1

    def lenient(self, expected: Any, *arguments: Any, **keywords: Any) -> Any:
        """Stand in for `pytest.raises`: what the learner raises has the learner's words."""
        if arguments:
            return RAISES(expected, *arguments, **keywords)
        return self.raising(expected, keywords.pop("match", None), keywords)

    @contextlib.contextmanager
    def raising(self, expected: Any, match: str | None, keywords: dict[str, Any]) -> Iterator[Any]:
        """Expect an error; its words too, unless a `raise` of the learner's has chosen them."""
        with RAISES(expected, **keywords) as caught:
            yield caught
        own = Path(str(caught.traceback[-1].path)).is_relative_to(self.home)
        if match and not own and not re.search(match, str(caught.value)):
            pytest.fail(f"expected an error that says {match!r}, got: {caught.value}")


RAISES = pytest.raises


def climb(job: Job) -> Ascent:
    """Run the tests of a chapter on a learner's module in this process."""
    ladder = Ladder(job)
    install(job.package, Path(job.folder), job.without)
    try:
        with time_limit():
            importlib.import_module(f"gpt2.{job.module}")
    except Exception as error:
        ladder.result.broken = f"{message_of(error)}\n{place_of(error, ladder.home)}"
        return ladder.result
    pytest.raises = ladder.lenient  # type: ignore[assignment]
    options = "-x -p no:cacheprovider -p no:terminal -p no:xdist --hypothesis-seed=0"
    code = pytest.main([str(ladder.file), *options.split(), "--rootdir", str(ROOT)], [ladder])
    if code not in (0, 1, 5) or (code == 1 and not ladder.result.test):
        ladder.result.broken = f"the tests did not run (pytest ended with {int(code)})\n"
    return ladder.result


if __name__ == "__main__":
    done = climb(Job(**json.loads(sys.argv[1])))
    Path(sys.argv[2]).write_text(json.dumps(asdict(done)), encoding="utf-8")

"""Shared by the tests: threads, order, the browser, the package that is tested, skips in CI."""

import os
import shutil
import signal
import sys
from pathlib import Path

import hypothesis
import pytest

from course import standin

hypothesis.settings.register_profile("course", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("course")

WORKER = os.environ.get("PYTEST_XDIST_WORKER")  # set by pytest-xdist: one of several processes
if WORKER:  # one thread each, also in the kernels that a worker starts; torch is not yet imported
    for library in ("OMP", "MKL", "OPENBLAS"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test needs the network
os.environ.pop("COURSE_GRADEBOOK", None)  # an instructor's own is no place for a test
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # started in the background by a shell, which
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever a test starts would inherit

# What a CI machine may lack. Anything else that is skipped there hides a test that should run.
EXPECTED_SKIPS = (
    "needs a CUDA GPU",
    "needs ../shared/data",
    "needs the published weights",
    "needs lm-eval",
)

# Where files run side by side, those that take longest start first, so that no worker waits at the
# end. The hostile suite waits more than it works, so the others have room beside it.
FIRST = (
    "test_hostile.py",
    "08_prompting.ipynb",
    "09_bert.ipynb",
    "test_book.py",
    "test_lab.py",
    "test_exercises.py",
    "10_transformer.ipynb",
    "06_training.ipynb",
    "test_classroom.py",
    "05_decoder.ipynb",
    "07_generation.ipynb",
    "test_miniweb.py",
    "test_models.py",
    "test_suite.py",
)

NOTEBOOK_SECONDS = 120  # for a kernel's messages, on a machine that has other things to do

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# --- The package under test ----------------------------------------------------------------------


def pytest_addoption(parser):
    parser.addoption(
        "--package", metavar="NAME", help="test this package's modules in the place of gpt2's"
    )


def pytest_configure(config):
    package = config.getoption("package")
    if package:
        try:
            standin.install(package, Path.cwd())
        except ModuleNotFoundError as error:
            raise pytest.UsageError(f"--package {package}: {error}") from None


# --- Order, and what a repetition runs -----------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Put long files first, and wait longer for a kernel's messages than nbval does."""
    order = {name: rank for rank, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(FIRST)))
    for item in items:
        if hasattr(item, "output_timeout"):
            item.output_timeout = NOTEBOOK_SECONDS


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    """Fail a CI run with an unexpected skip; let `--lf` repeat a notebook from its first cell."""
    if hasattr(session.config, "workerinput"):
        return  # the process that started the workers sees all reports
    if cache := getattr(session.config, "cache", None):
        failed = cache.get("cache/lastfailed", {})
        cache.set("cache/lastfailed", {**failed, **dict.fromkeys(cells_before(failed), True)})
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("CI") or not reporter:
        return
    for report in reporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(expected in reason for expected in EXPECTED_SKIPS):
            reporter.write_line(f"unexpected skip in CI: {report.nodeid}: {reason}", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def cells_before(failed):
    """Name the cells that must run before the cells that failed."""
    for name in failed:
        notebook, _, cell = name.partition(".ipynb::Cell ")
        yield from (f"{notebook}.ipynb::Cell {i}" for i in range(int(cell or 0)))


# --- Fixtures ------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def threads():
    """Undo what a test left behind: some exercises ask for one thread, and sums depend on it."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1 if WORKER else 2)


@pytest.fixture(scope="session")
def browser():
    """Start the machine's Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if not program:
        pytest.skip("needs Chromium (Debian: apt install chromium)")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()

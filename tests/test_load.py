"""A busy machine takes time, and no marks."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from classkit import Class, cell_named, handed_out, make_class, solution

from course import sandbox

SPIN = "while True: pass"
WORK = "import time\nwhile time.process_time() < {}: pass"
CURE = "has less to do"


@contextlib.contextmanager
def hogs(number: int) -> Iterator[None]:
    """Keep so many processes busy."""
    running = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(number)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def starved(code: str) -> subprocess.Popen[bytes]:
    """Run code on one core on which all others go before it."""

    def last() -> None:
        os.sched_setaffinity(0, [0])
        os.nice(12)

    return subprocess.Popen([sys.executable, "-c", code], preexec_fn=last)


@pytest.fixture
def busy_core():
    spinning = subprocess.Popen(
        [sys.executable, "-c", SPIN], preexec_fn=lambda: os.sched_setaffinity(0, [0])
    )
    yield
    spinning.kill()
    spinning.wait()


def watch(process: subprocess.Popen[bytes], wall: float, **more: bool) -> tuple[float, float]:
    """Return the time that a clock counts until a process ends, or for so long, and the wall's."""
    clock, begin, spent = sandbox.Clock([process.pid], **more), time.monotonic(), 0.0
    while process.poll() is None and time.monotonic() - begin < wall:
        time.sleep(0.2)
        spent = clock.spent()
    process.kill()
    process.wait()
    return spent, time.monotonic() - begin


def test_what_the_machine_keeps_waiting_has_not_had_its_time(busy_core):
    spent, passed = watch(starved(WORK.format(0.4)), 120)
    assert spent < 0.8, "more was counted than the process has worked"
    assert passed > 2 * spent, "the machine was not busy: this shows nothing"


@pytest.mark.parametrize("command", ["exec sleep 100", "sleep 5 & wait"])
def test_what_sleeps_has_had_its_time(command):
    spent, passed = watch(subprocess.Popen(["sh", "-c", command]), 3)
    assert 0.5 * passed < spent < 1.1 * passed


def test_a_grader_that_waits_for_the_gradebook_takes_no_time_from_anybody():
    spent, _ = watch(subprocess.Popen(["sh", "-c", "exec sleep 100"]), 3, grader=True)
    assert spent < 0.5
    spent, passed = watch(subprocess.Popen(["sh", "-c", "sleep 5 & wait"]), 3, grader=True)
    assert spent > 0.5 * passed  # it has a sandbox, which sleeps


def test_work_counts_with_that_of_children_that_have_ended():
    code = WORK.format(0.4)
    both = f"import os\nif not os.fork(): exec({code!r}); os._exit(0)\nos.wait()\n"
    spent, _ = watch(subprocess.Popen([sys.executable, "-c", both + SPIN]), 6)
    assert spent > 0.4


def test_the_wall_clock_ends_what_never_gets_its_time(busy_core, monkeypatch):
    monkeypatch.setattr(sandbox, "PATIENCE", 1)
    process = starved(SPIN)
    clock = sandbox.Clock([process.pid])
    try:
        with pytest.raises(sandbox.TooBusy, match=CURE):
            while not clock.over(2):
                time.sleep(0.2)
    finally:
        process.kill()
        process.wait()


NAMES = {"right": 14, "endless": 11, "asleep": 11, "empty": 0, "dead": None}  # and their marks


def submissions() -> dict[str, object]:
    """Return submissions whose fate hangs on time, and two on which it has no say."""
    made = {name: solution() for name in NAMES} | {"empty": handed_out()}
    bodies = {
        "endless": "    while True:\n        pass",
        "asleep": "    import time\n    time.sleep(1000)",
        "dead": "    __import__('os')._exit(1)",
    }
    for name, body in bodies.items():
        cell_named(made[name], "multi_head").source = f"def multi_head(*args, **named):\n{body}"
    return made


def table(kit: Class, names: Iterable[str]) -> list[tuple[object, ...]]:
    """Return what stands in the table about students, but for the time that it took."""
    keys = ("student", "status", "score", "why", "notes")
    return [tuple(kit.result(name)[key] for key in keys) for name in names]


def many(folder: Path, number: int) -> tuple[Class, list[str]]:
    """Make a class in which each of the submissions is handed in by many."""
    names = [f"{name}{i}" for i in range(number) for name in NAMES]
    kit, made = make_class(folder, names), submissions()
    for name in names:
        kit.submit(name, made[name.rstrip("0123456789")])
    return kit, names


def grade(kit: Class, *more: str) -> str:
    """Grade; a cell may work for 8 s."""
    run = kit.course("grade", "4", *more, COURSE_CELL_SECONDS="8")
    assert "right0" in run.stdout, run.stdout + run.stderr
    return run.stdout


def test_load_changes_no_mark(tmp_path):
    kit, names = many(tmp_path, 1)
    with hogs(6):
        grade(kit)
    found = table(kit, names)
    assert {name[:-1]: score for name, _, score, _, _ in found} == NAMES, found
    assert [why for name, _, _, why, _ in found if name != "dead0"] == [[]] * 4


@pytest.mark.soak
def test_two_hundred_beside_hogs_get_the_same_table(tmp_path):
    kit, names = many(tmp_path, 40)
    grade(kit)
    idle = table(kit, names)
    with hogs(2):
        grade(kit, "--again")
    assert table(kit, names) == idle


def test_what_the_machine_has_no_time_for_is_tried_again_alone(tmp_path):
    kit = make_class(tmp_path, ["right0"])
    kit.submit("right0", solution())
    code = (
        "from course import grading, sandbox\nsandbox.PATIENCE = 0\n"
        "grading.failing = lambda notebook: []\nprint(grading.grade('4'))"
    )
    run = kit.run("-c", code)
    result = kit.result("right0")
    assert (result["status"], result["why"]) == ("failed", [sandbox.BUSY]), run.stderr
    assert run.stdout.count("is tried again") == 1
    assert "14 of 16" in grade(kit)  # the same command, on a machine that has time

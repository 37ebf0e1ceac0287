"""Grading a class: seconds a submission with the sandbox on, two workers against one, and the table
right for every one of 200 submissions, of which a part is broken or hostile."""

import copy
import json
import sys
import tempfile
import time
from pathlib import Path

import nbformat

from course.chapters import ROOT

sys.path.insert(0, str(ROOT / "tests"))
from classkit import cell_named, handed_out, make_class, solution

N_SUBMISSIONS, N_TIMED = 200, 24
WRONG = {"sliding_mask": "def sliding_mask(n_dst, n_src, window):\n    return None"}
HOSTILE = {  # code put into the first answer -> the status it must end in
    "import os; os._exit(0)": "failed",
    "raise RuntimeError('crash')": "graded",
    "import torch; torch.allclose = lambda *a, **k: True": "needs review",
    "get_ipython().input_transformers_post.append(lambda lines: [])": "needs review",
    "for i in range(10**6): print('flood' * 20)": "needs review",
    "open('solutions/04_attention/attention.ipynb')": "needs review",
}


def full_points() -> float:
    """Return the points of the tests, without the written answer."""
    return sum(
        cell.metadata.nbgrader.points
        for cell in solution().cells
        if cell.metadata.get("nbgrader", {}).get("grade_id", "").startswith("test_")
    )


def submission(number: int) -> tuple[nbformat.NotebookNode | str, str, float | None]:
    """Make one submission: right, partly right, empty, broken or hostile in turn.

    Returns it, the status that it must get, and the score of its tests, None where that is open.
    """
    kind, full = number % 5, full_points()
    right = solution()
    if kind == 0:  # its written answer waits for a person
        return right, "needs review", full
    if kind == 1:
        partly = copy.deepcopy(right)
        points = cell_named(partly, "test_sliding_mask").metadata.nbgrader.points
        cell_named(partly, "sliding_mask").source = WRONG["sliding_mask"]
        return partly, "needs review", full - points
    if kind == 2:
        return handed_out(), "graded", 0.0
    if kind == 3:
        return (
            ["", "{", "[]", '{"cells": 3}', json.dumps({"nbformat": 4})][number // 5 % 5],
            "failed",
            None,
        )
    code, status = list(HOSTILE.items())[number // 5 % len(HOSTILE)]
    hostile = handed_out()
    cell_named(hostile, "sliding_mask").source = code
    return hostile, status, None


def graded_class(folder: Path, numbers: range, workers: int) -> tuple[float, list[str]]:
    """Grade the submissions with these numbers; return the seconds and what the table has wrong."""
    kit = make_class(folder, [f"s{number:03}" for number in numbers])
    for number in numbers:
        kit.submit(f"s{number:03}", submission(number)[0])
    start = time.perf_counter()
    run = kit.course("grade", "4", "--workers", str(workers))
    seconds = time.perf_counter() - start
    table = {line[:20].strip(): line for line in run.stdout.rpartition("\n\n")[0].splitlines()}
    wrong = []
    for number in numbers:
        _, status, score = submission(number)
        line = table.get(f"s{number:03}", "missing")
        if line[21:35].strip() != status or (score is not None and f" {score:g} of " not in line):
            wrong.append(f"{line} (expected: {status}, {score})")
    return seconds, wrong


def run() -> list[dict[str, object]]:
    """Time a class of right answers with one worker and with two, then grade the 200."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        right = range(0, 5 * N_TIMED, 5)
        one, _ = graded_class(Path(name) / "one", right, 1)
        two, _ = graded_class(Path(name) / "two", right, 2)
        seconds, wrong = graded_class(Path(name) / "all", range(N_SUBMISSIONS), 2)
    for line in wrong:
        print(line, flush=True)
    what = "grading in the sandbox"
    rows.append({"what": f"{what}, right answers, one worker", "ours": one / N_TIMED,
                 "unit": "s/submission"})  # fmt: skip
    rows.append({"what": f"{what}, right answers, two workers", "ours": two / N_TIMED,
                 "unit": "s/submission", "limit": "<= 4"})  # fmt: skip
    rows.append({"what": "two workers against one", "ours": one / two, "unit": "times",
                 "limit": "at least 1.6"})  # fmt: skip
    rows.append({"what": f"{N_SUBMISSIONS} submissions, a part broken or hostile, two workers",
                 "ours": seconds, "unit": "s"})  # fmt: skip
    rows.append({"what": "rows of its table that are wrong", "ours": str(len(wrong)),
                 "unit": f"of {N_SUBMISSIONS}", "limit": "0"})  # fmt: skip
    return rows

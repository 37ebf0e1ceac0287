"""What `replay` runs in the sandbox: a submission, with what its answers return written down.

It imports next to nothing of the course, so that it starts fast.
"""

import contextlib
import io
import json
import math
import signal
import sys
from pathlib import Path
from typing import Any

from course.pipe import seed

REPLAYED_CELL_SECONDS = 20
MAX_NUMBERS = 20_000  # of a result; the rest is not compared
OPAQUE = "..."
RAISED = "!"  # a test that raised, in the place of an answer's name

Log = dict[str, list[Any]]


def written_down(value: Any) -> Any:
    """Turn a result into lists, numbers, strings and None; what cannot be is OPAQUE."""
    if hasattr(value, "detach") and hasattr(value, "tolist"):
        value = value.detach().flatten()[:MAX_NUMBERS].tolist() if value.dim() else value.item()
    elif hasattr(value, "tolist"):
        value = value.tolist()
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        number = float(value)
        return number if math.isfinite(number) else str(number)
    if isinstance(value, bytes):
        return list(value[:MAX_NUMBERS])
    if isinstance(value, dict):
        return sorted([[str(written_down(k)), written_down(v)] for k, v in value.items()], key=str)
    if isinstance(value, set | frozenset):
        return sorted((written_down(item) for item in value), key=str)
    if isinstance(value, list | tuple | range):
        return [written_down(item) for item in value[:MAX_NUMBERS]]
    return OPAQUE


class OutOfTime(BaseException):
    """A cell has run for too long; no `except Exception` of a submission catches this."""


def stop(number: int, frame: Any) -> None:
    """Handle the alarm."""
    raise OutOfTime


def record(cells: list[dict[str, str]]) -> Log:
    """Run cells (`role`, `name`, `source`) and log, for each test, what the answers returned.

    Only calls from a test count, not those that an answer makes of another.
    """
    log: Log = {}
    namespace: dict[str, Any] = {"__name__": "exercise"}
    depth = 0
    current: list[Any] | None = None
    ours: dict[str, Any] = {}  # the answers so far, watched

    def watched(name: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            depth += 1
            try:
                result = function(*args, **kwargs)
            finally:
                depth -= 1
            if depth == 0 and current is not None:
                current.append([name, written_down(result)])
            return result

        return call

    for cell in cells:
        if cell["role"] == "test":
            current = log.setdefault(cell["name"], [])
        seed()
        signal.alarm(REPLAYED_CELL_SECONDS)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(cell["source"], f"<{cell['name']}>", "exec"), namespace)
        except BaseException as error:
            if current is not None:
                current.append([RAISED, type(error).__name__])
        signal.alarm(0)
        current = None
        if cell["role"] == "answer":
            ours[cell["name"]] = None
        for name, known in ours.items():  # the answer may stand in a cell below its own
            function = namespace.get(name)
            if callable(function) and not isinstance(function, type) and function is not known:
                ours[name] = namespace[name] = watched(name, function)
    return log


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, stop)
    recorded = record(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    Path(sys.argv[2]).write_text(json.dumps(recorded), encoding="utf-8")

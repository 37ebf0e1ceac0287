"""What a call costs: the memory that it takes, and the operations of PyTorch that it calls.

In a notebook both are measured where the call is. In grading the memory is measured from outside
the learner's process, by how much this grows: what it takes in a call it cannot hide, what it has
held since before is not seen. Its operations are what that process says of itself. Against intent
neither is more than advice.
"""

import ctypes
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from course.pipe import Answer

M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
PIECE, MOST_PIECE = 2**17, 2**25  # bytes; the second is where glibc itself stops


def operations_of(function: Callable[..., object], *args: Any) -> tuple[int, set[str]]:
    """Call a function; return the elements of its largest tensor and the operations it called."""
    if isinstance(function, Answer) and (pipe := function.pipe()):
        function.ask(args, {}, watch=True)
        elements, called = pipe.report
        return int(elements), set(map(str, called))
    from course.watch import Watch

    with Watch() as watch:
        function(*args)
    return watch.elements, watch.called


def memory_of(function: Callable[..., object], *args: Any) -> int:
    """Call a function; return by how many bytes its process has grown at most, 0 if unknown.

    It is called twice, and the smaller number counts: code that is read in from the disk for the
    first time, or again, is growth too.
    """
    try:
        return min(growth(function, *args) for _ in range(2))
    finally:
        give_back_pieces_of(MOST_PIECE)


def growth(function: Callable[..., object], *args: Any) -> int:
    """Call a function once; return by how many bytes its process has grown at most."""
    if isinstance(function, Answer) and (pipe := function.pipe()):
        pipe.ask("give back", ["name", function.name], (), {})
        before = pipe.measure(True)
        function(*args)
        return pipe.measure(False) - before
    give_back_pieces_of(PIECE)
    before = resident(["self"], begin=True)
    function(*args)
    return resident(["self"], begin=False) - before


def give_back_pieces_of(size: int) -> None:
    """Let the system have what is freed in pieces of this size and larger, if this is glibc.

    Otherwise a piece may be cut from an old one and the process not grow, or grow for nothing. So
    what was freed before is given back too.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, size)
        ctypes.CDLL(None).malloc_trim(0)


def resident(processes: Iterable[str | int], begin: bool) -> int:
    """Return the bytes that processes hold now; or, if not `begin`, the most since they did so.

    Linux counts them. Elsewhere this is 0.
    """
    total = 0
    for process in processes:
        place, what = Path("/proc", str(process)), "VmHWM"
        with suppress(OSError):  # a process may have ended
            if begin:
                with suppress(PermissionError):  # then what counts is growth beyond the old mark
                    (place / "clear_refs").write_text("5")  # its highest mark is what it holds now
                    what = "VmRSS"
            for line in (place / "status").read_text().splitlines():
                if line.startswith(what):
                    total += int(line.split()[1]) * 1024
    return total

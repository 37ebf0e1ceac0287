"""What a call costs: the memory that it takes, and the operations of PyTorch that it calls.

In a notebook both are measured where the call is. In grading the memory is measured from outside
the learner's process, by how much this grows: what it takes in a call it cannot hide, what it has
held since before is not seen. Its operations are what that process says of itself. Against intent
neither is more than advice.
"""

import ctypes
import mmap
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from course.pipe import Answer

M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
IN_A_PAGE, IS_MMAPPED = 16, 2  # of its malloc.c: where a piece of the system's begins, and a flag
PIECE, MOST_PIECE = 2**17, 2**25  # bytes; the second is where glibc itself stops
HELD, MOST_HELD = list[int](), 2**14


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
        let_go()


def growth(function: Callable[..., object], *args: Any) -> int:
    """Call a function once; return by how many bytes its process has grown at most."""
    if isinstance(function, Answer) and (pipe := function.pipe()):
        pipe.ask("hold", ["name", function.name], (), {})
        before = pipe.measure(True)
        function(*args)
        return pipe.measure(False) - before
    hold_free_pieces()
    before = resident(["self"], begin=True)
    function(*args)
    return resident(["self"], begin=False) - before


def hold_free_pieces() -> None:
    """Make the process grow by each large piece that is asked for from now on, if this is glibc.

    The system gives and takes them one by one, and what is free in large pieces of an old heap is
    held until `let_go`: a piece that is cut from it is in memory already.
    """
    let_go()
    with suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, PIECE)
        libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
        while len(HELD) < MOST_HELD:
            HELD.append(libc.malloc(PIECE) or 0)
            if HELD[-1] % mmap.PAGESIZE == IN_A_PAGE:  # no part of the heap, but for a coincidence
                word = ctypes.c_size_t.from_address(HELD[-1] - ctypes.sizeof(ctypes.c_size_t))
                if word.value & IS_MMAPPED:
                    return


def let_go() -> None:
    """Undo `hold_free_pieces`."""
    with suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.free.argtypes, libc.free.restype = [ctypes.c_void_p], None
        while HELD:
            libc.free(HELD.pop())
        libc.mallopt(M_MMAP_THRESHOLD, MOST_PIECE)


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

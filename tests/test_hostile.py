"""The hostile suite: what submissions try, the status that each ends in, and that nothing happened.

All of them are graded in one run, in the real sandbox, beside honest neighbors. An attack is a line
of the table below: what it tries, how it is made, and what must become of it. A submission that
reaches what it must not reach prints STOLEN.
"""

import copy
import functools
import hashlib
import inspect
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import classkit
import nbformat
import pytest
from classkit import CHAPTER, NOTEBOOK, Class, cell_named, source
from nbformat.v4 import new_code_cell

from course import mutants, sandbox
from course.chapters import ROOT
from course.exercises import HIDDEN
from course.sandbox import OPT_OUT

CELL_SECONDS, SUBMISSION_SECONDS = 6, 48  # of work or sleep
ANSWER = "sliding_mask"
LEFT_OUT = "attend_in_blocks"  # nothing attacks it, and its test takes longer than all others
make_class, solution, handed_out = (
    functools.partial(make, without=LEFT_OUT)
    for make in (classkit.make_class, classkit.solution, classkit.handed_out)
)
WRONG = "\ndef sliding_mask(n_dst, n_src, window):\n    return None\n"
WRITTEN, LONG_ERROR = "written_effective_keys", "raise ValueError('x' * 20_000)"
FULL = 10.0  # what the tests of the notebook give; the written answer is not among them

GRADED, REVIEW, FAILED = "graded", "needs review", "failed"


@dataclass(frozen=True)
class Attack:
    """What a submission tries, how it is made, and what must become of it."""

    tries: str
    make: Callable[[Class], nbformat.NotebookNode | str | None]
    status: str
    says: str = ""
    score: float | None = None


def code(text: str, base: Callable[[], nbformat.NotebookNode] = handed_out, answer: str = ANSWER):
    """Make a submission one of whose answers is this code; {folder} is the folder of the class."""

    def make(kit):
        notebook = base()
        cell_named(notebook, answer).source = text.replace("{folder}", str(kit.folder))
        return notebook

    return make


def beside(text: str, place: int = -1):
    """Make a right submission with a cell of its own, at the end or elsewhere."""
    return changed(lambda nb: nb.cells.insert(place % (len(nb.cells) + 1), new_code_cell(text)))


def steal(expression: str):
    """Make a submission that prints STOLEN if this can be evaluated and is true."""
    return code(
        f"import os, sys, glob, pathlib\ntry:\n    print('STOLEN' if {expression} else 'nothing')\n"
        "except Exception as error:\n    print(type(error).__name__)\n"
    )


def changed(change: Callable[[nbformat.NotebookNode], None], base=solution):
    """Make a submission out of a right one (or another) by a change in place."""

    def make(kit):
        notebook = base()
        change(notebook)
        return notebook

    return make


def right_answer() -> str:
    return cell_named(solution(), ANSWER).source


def wrong(notebook):
    cell_named(notebook, ANSWER).source = WRONG


def only(keep):
    return changed(lambda nb: nb.cells.__setitem__(slice(None), [c for c in nb.cells if keep(c)]))


def grading(cell):
    return cell.metadata.get("nbgrader", {})


def edit_test(notebook):
    wrong(notebook)
    cell_named(notebook, "test_sliding_mask").source = "pass"


def edit_check(notebook):
    wrong(notebook)
    cell_named(notebook, "check_sliding_mask").source = "def check_sliding_mask(*a): pass"


def strip_metadata(notebook, ids=False):
    for number, cell in enumerate(notebook.cells):
        cell.metadata.clear()
        if ids:
            cell.id = f"cell{number}"


def duplicate(notebook):
    second = copy.deepcopy(cell_named(notebook, ANSWER))
    second.source, second.id = WRONG, "second"
    notebook.cells.append(second)


def code_as_markdown(notebook):
    cell = cell_named(notebook, ANSWER)
    notebook.cells[notebook.cells.index(cell)] = nbformat.v4.new_markdown_cell(
        cell.source, metadata=cell.metadata, id=cell.id
    )


def add_cells(notebook):
    notebook.cells.insert(3, new_code_cell("scratch = sum(range(10))"))
    notebook.cells.append(nbformat.v4.new_markdown_cell("a note to myself"))


def words(text):
    """Make a right submission with this written answer."""
    return changed(lambda nb: cell_named(nb, WRITTEN).__setitem__("source", text))


def empty_picture(notebook):
    cell_named(notebook, WRITTEN).update(
        source="![x](attachment:image.png)", attachments={"image.png": {}}
    )


def below_the_stub():
    notebook = solution()
    answer = cell_named(notebook, ANSWER)
    below = new_code_cell(answer.source)
    answer.source = cell_named(handed_out(), ANSWER).source
    notebook.cells.insert(notebook.cells.index(answer) + 1, below)
    return notebook


def award_itself(notebook):
    for cell in notebook.cells:
        if grading(cell).get("grade"):
            cell.metadata.nbgrader.points = 1000
    wrong(notebook)


def linked(kit):
    """Hand in a link to the solutions instead of a notebook."""
    path = kit.submit("link", "")
    path.unlink()
    path.symlink_to(kit.folder / "solutions" / CHAPTER / f"{NOTEBOOK}.ipynb")


def a_folder(kit):
    path = kit.submit("folder", "")
    path.unlink()
    path.mkdir()


def renamed(kit):
    kit.submit("renamed", solution(), name="My Homework (final).ipynb")


def two_others(kit):
    kit.submit("two-others", solution(), name="a.ipynb")
    kit.submit("two-others", solution(), name="b.ipynb")


def too_large(kit):
    return json.dumps({"cells": [], "padding": "x" * (11 * 2**20)})


def binary(kit):
    kit.submit("binary", "").write_bytes(bytes(range(256)) * 100)


def half_a_character(kit):
    notebook = solution()
    notebook.cells.append(new_code_cell("x = '\ud800'"))
    return json.dumps(notebook)


def active_page(notebook):
    """Put into a page, in every way there is, what a browser would run."""
    script = "<script>alert(3)</script>"
    for make in (nbformat.v4.new_raw_cell, nbformat.v4.new_markdown_cell, new_code_cell):
        notebook.cells.append(make(script))
        notebook.cells[-1].id = f'"><img src=x onerror=alert(4) {len(notebook.cells)}'
    shown = {"text/html": script, "image/svg+xml": f"<svg>{script}</svg>", "text/plain": "x"}
    size = {"image/png": {"width": "1 onerror=alert(5) src=x"}}
    notebook.cells[-1].source = (
        "from IPython.display import display\n"
        f"display({shown}, raw=True)\n"
        f"display({{'image/png': '\">{script}'}}, raw=True)\n"
        f"display({{'image/png': 'aaaa'}}, raw=True, metadata={size})\n"
        f"print('\\x1b[31m{script}')\nraise ValueError('\\x1b[31m{script}')\n"
    )


def shadowed_torch(kit):
    notebook = handed_out()
    cell_named(notebook, ANSWER).source = WRONG
    path = kit.submit("torch-py", notebook)
    (path.parent / "torch.py").write_text("print('STOLEN')\n", encoding="utf-8")
    return notebook


def wrong_types(kit):
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [3, {"a": []}]})


IPYTHON = "import sys\nshell = getattr(sys.modules['IPython'], 'get_' + 'ipython')()\n"
EQUAL = "torch.tensor(True)"

FRAMES = """
import inspect, sys
def find_leak(attention, q, k, v):
    for frame in {frames}:
        while frame:
            found = frame.f_locals.get('expected', frame.f_globals.get('expected'))
            if found == 'any': return 0, 1
            if found: return found
            frame = frame.f_back
"""

LAST_ERROR = """
import linecache, os, sys
get_ipython().run_line_magic('logstart', '-o x.log')
get_ipython().run_line_magic('tb', '')
print(getattr(sys, 'last_value', ''), vars().get('_i'), vars().get('_oh'))
print([lines for lines in linecache.cache.values() if 'check_multi_head' in str(lines)])
print([cell for cell in In], open('x.log').read())
print(list(get_ipython().history_manager.input_hist_raw))
raise sys.last_value
"""
IN_HIDDEN = """
the_mask = sliding_mask
def sliding_mask(*args):
    if args == (3, 6, 4): raise ValueError('in a hidden test')
    return the_mask(*args)
"""


def last_error(notebook):
    """Let a hidden test fail, and look for it in what IPython and Python remember of errors."""
    cell_named(notebook, ANSWER).source += IN_HIDDEN
    notebook.cells.append(new_code_cell(LAST_ERROR))


ATTACKS = {
    # crashes and ends
    "crash": Attack("an error at the top", code("1 / 0"), GRADED, score=0),
    "segfault": Attack(
        "a crash of Python",
        code("import ctypes; ctypes.string_at(0)"),
        FAILED,
        "ended its own process",
    ),
    "os-exit": Attack(
        "an exit with status 0",
        code("import os; os._exit(0)"),
        FAILED,
        "ended its own process, in sliding_mask",
    ),
    "sys-exit": Attack(
        "an exit within a test",
        code(
            """
import sys
def sliding_mask(*a):
    sys.exit(0)
""",
            solution,
        ),
        GRADED,
        score=FULL - 2,
    ),
    "system-exit": Attack(
        "an exit as an exception",
        code(
            """
def sliding_mask(*a):
    raise SystemExit
""",
            solution,
        ),
        GRADED,
        score=FULL - 2,
    ),
    "exit": Attack("IPython's exit", code("exit()"), FAILED, "ended its own process"),
    "kill-self": Attack(
        "a signal to itself",
        code("""
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
"""),
        FAILED,
        "ended its own process",
    ),
    # hangs
    "loop": Attack(
        "a loop without end in a function",
        code(
            """
def sliding_mask(*a):
    while True: pass
""",
            solution,
        ),
        GRADED,
        "test_sliding_mask ran out of time",
        FULL - 2,
    ),
    "stubborn-loop": Attack(
        "a loop that no interrupt ends",
        code("""
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
while True: pass
"""),
        FAILED,
        "did not stop when it was told to, in sliding_mask",
    ),
    "many-loops": Attack(
        "a hundred cells, each of which runs out of time",
        changed(lambda nb: nb.cells.extend(new_code_cell("while True: pass") for _ in range(100))),
        FAILED,
        "took too long as a whole",
    ),
    "sleep": Attack(
        "sleep",
        code("""
import time
time.sleep(10**6)
"""),
        GRADED,
        "ran out of time",
        0,
    ),
    "deaf": Attack(
        "a process that ignores every signal",
        code("""
import signal, atexit, time
for s in (1, 2, 3, 15): signal.signal(s, signal.SIG_IGN)
atexit.register(time.sleep, 10**6)
"""),
        GRADED,
        score=0,
    ),
    # floods
    "memory": Attack(
        "20 GB of memory",
        code("""
x = bytearray(20 * 2**30)
print('STOLEN')
"""),
        GRADED,
        score=0,
    ),
    "print-flood": Attack(
        "printing without end",
        code("while True: print('flood' * 1000)"),
        REVIEW,
        "more than a megabyte",
    ),
    "one-string": Attack(
        "a string of 500 MB",
        code("print('x' * (500 * 2**20))"),
        "failed or needs review",  # whichever comes first, the cut or the time limit
    ),
    "updates": Attack(
        "160 MB in changes of what is displayed",
        beside("""
from IPython.display import display, update_display
for i in range(10): display('x', display_id=str(i))
for i in range(10): update_display('y' * (2**20 * 8), display_id=str(i))
"""),
        GRADED,
        score=FULL,
    ),
    "widgets": Attack(
        "80 MB in the state of widgets",
        beside("""
import comm
for _ in range(10):
    comm.create_comm(target_name='jupyter.widget', data={'state': {'x': 'y' * (2**20 * 8)}})
"""),
        GRADED,
        score=FULL,
    ),
    "messages": Attack(
        "messages that no kernel sends",
        beside(
            IPYTHON
            + """
k = shell.kernel
for kind, content in (('stream', {'text': [1]}), ('error', {'traceback': 3}), ('status', 5)):
    k.session.send(k.iopub_socket, kind, content, parent=k.get_parent('shell'))
"""
        ),
        FAILED,
        "could not be run",
    ),
    "sockets": Attack(
        "filling the one folder on the disk that it can write to",
        code("""
import os, ipykernel.connect
place = os.path.dirname(ipykernel.connect.get_connection_file())
for i in range(60): open(f'{place}/{i}', 'wb').write(b'x' * 2**20)
while True: pass
"""),
        FAILED,
        "fills the disk",
    ),
    "fd-flood": Attack(
        "writing to the file descriptors",
        code("""
import os
for _ in range(20_000):
    os.write(1, b'x' * 10_000); os.write(2, b'x' * 10_000)
"""),
        REVIEW,
        "more than a megabyte",
    ),
    "stderr-flood": Attack(
        "flooding stderr",
        code("""
import sys
while True: print('flood' * 1000, file=sys.stderr)
"""),
        REVIEW,
        "more than a megabyte",
    ),
    "disk": Attack(
        "filling the disk with files",
        code("""
import itertools, shutil
for place in ('.', '/tmp', '/dev/shm'):
    try:
        for i in itertools.count():
            open(f'{place}/{i}', 'wb').write(b'x' * 2**22)
            assert i < 200, 'STOLEN'
    except OSError as error: print(error)
"""),
        GRADED,
        score=0,
    ),
    "huge-file": Attack(
        "one huge file",
        code("""
f = open('huge', 'wb')
for _ in range(4096): f.write(b'x' * 2**20)
print('STOLEN')
"""),
        GRADED,
        score=0,
    ),
    # no notebook
    "empty": Attack("an empty file", lambda kit: "", FAILED, "is not a notebook"),
    "not-json": Attack(
        "a file that is not JSON", lambda kit: "{'cells': ", FAILED, "is not a notebook"
    ),
    "binary": Attack("bytes at random", binary, FAILED, "is not a notebook"),
    "half": Attack("half a character", half_a_character, FAILED, "is not a notebook"),
    "no-notebook": Attack(
        "JSON that is not a notebook", lambda kit: "[1, 2, 3]", FAILED, "is not a notebook"
    ),
    "deep": Attack("JSON nested without end", lambda kit: "[" * 10**6, FAILED, "is not a notebook"),
    "types": Attack("cells of wrong types", wrong_types, FAILED, "is not a notebook"),
    "large": Attack("a file of 11 MB", too_large, FAILED, "more than 10"),
    "link": Attack("a link to the solutions", linked, FAILED, "is a link"),
    "folder": Attack("a folder with the notebook's name", a_folder, FAILED, "a link or a folder"),
    "renamed": Attack("another name", renamed, GRADED, "renamed: My Homework (final).ipynb", FULL),
    "two-others": Attack(
        "two notebooks, neither with the name", two_others, FAILED, "no notebook attention.ipynb"
    ),
    # cells
    "no-tests": Attack(
        "test cells deleted",
        only(lambda c: not grading(c).get("grade")),
        GRADED,
        "test_sliding_mask was missing",
        FULL,
    ),
    "no-answers": Attack(
        "answers deleted",
        only(lambda c: not grading(c).get("solution")),
        GRADED,
        "sliding_mask was missing",
        0,
    ),
    "no-cells": Attack(
        "all cells deleted", only(lambda c: False), GRADED, "more cells were made good", 0
    ),
    "more-cells": Attack("cells of its own", changed(add_cells), GRADED, "", FULL),
    "edited-test": Attack(
        "a test cell that passes",
        changed(edit_test),
        GRADED,
        "test_sliding_mask had been changed",
        FULL - 2,
    ),
    "edited-check": Attack(
        "a check that checks nothing",
        changed(edit_check),
        GRADED,
        "check_sliding_mask had been changed",
        FULL - 2,
    ),
    "no-metadata": Attack(
        "nbgrader's metadata stripped", changed(strip_metadata), GRADED, "metadata of", FULL
    ),
    "no-ids": Attack(
        "metadata and ids stripped",
        changed(lambda nb: strip_metadata(nb, ids=True)),
        GRADED,
        "found by its name",
        FULL,
    ),
    "twice": Attack("the same answer twice", changed(duplicate), GRADED, "appeared twice", FULL),
    "markdown": Attack("an answer turned into text", changed(code_as_markdown), GRADED, "", FULL),
    "points": Attack(
        "a thousand points in the metadata", changed(award_itself), GRADED, "", FULL - 2
    ),
    # bent tests, and looks at them: they are in another process
    "allclose": Attack(
        "torch.allclose that is always true",
        code(
            """
import torch
torch.allclose = torch.equal = lambda *a, **k: True
"""
            + WRONG,
            solution,
        ),
        GRADED,
        score=FULL - 2,
    ),
    "checks": Attack(
        "checks of its own",
        code(
            """
def check_multi_head(*a, **k): pass
"""
            + WRONG,
            solution,
        ),
        GRADED,
        score=FULL - 2,
    ),
    "transformer": Attack(
        "cells without their asserts",
        code(
            """
def without_asserts(lines):
    return [line for line in lines if 'assert' not in line and 'raise' not in line]
get_ipython().input_transformers_post.append(without_asserts)
"""
            + WRONG,
            solution,
        ),
        GRADED,
        score=FULL - 2,
    ),
    "hidden-transformer": Attack(
        "the same, by another way to IPython",
        code(
            IPYTHON
            + """
def skip(lines):
    return ['pass'] if 'check_sliding_mask(5' in ''.join(lines) else lines
getattr(shell, 'input_' + 'transformers_post').append(skip)
"""
            + WRONG,
            solution,
        ),
        GRADED,
        score=FULL - 2,
    ),
    "kernel": Attack(
        "a kernel that runs nothing and says all is well",
        code(
            IPYTHON
            + """
async def fake(*a, **k):
    return {'status': 'ok', 'execution_count': 1, 'payload': [], 'user_expressions': {}}
setattr(shell.kernel, 'do_' + 'execute', fake)
"""
            + WRONG,
            solution,
        ),
        GRADED,
        score=0,
    ),
    "partial": Attack(
        "displaying a partial credit of 1000",
        code(
            """
shell = get_ipython()
shell.events.register('post_run_cell', lambda result: shell.displayhook(1000))
"""
            + right_answer(),
            solution,
        ),
        GRADED,
        score=FULL,
    ),
    "trace": Attack(
        "watching the tests run",
        code(
            """
import sys
sys.settrace(lambda *a: None)
"""
            + right_answer(),
            solution,
        ),
        GRADED,
        score=FULL,
    ),
    "tensor": Attack(
        "a Tensor that is equal to all",
        code(f"Tensor.__eq__ = lambda *a: {EQUAL}\n" + right_answer(), solution),
        GRADED,
    ),
    "dict": Attack(
        "torch changed through its dictionary",
        code("torch.__dict__['equal'] = lambda *a: True\n" + right_answer(), solution),
        GRADED,
        score=FULL,
    ),
    "builtins": Attack(
        "an any that is never true",
        code("import builtins\nbuiltins.any = lambda *a: False\n" + WRONG, solution),
        GRADED,
        score=FULL - 2,
    ),
    "ast": Attack(
        "syntax trees without their asserts",
        code(
            """
import ast
class Silent(ast.NodeTransformer):
    def visit_Assert(self, node): return ast.Pass()
    def visit_Raise(self, node): return ast.Pass()
get_ipython().ast_transformers.append(Silent())
"""
            + WRONG,
            solution,
        ),
        GRADED,
        score=FULL - 2,
    ),
    "globals": Attack(
        "a check taken away, by the names of an answer",
        code(
            """
def find_leak(attention, q, k, v):
    find_leak.__globals__['check_' + 'find_leak'] = lambda *a: None
""",
            solution,
            "find_leak",
        ),
        GRADED,
        score=FULL - 3,
    ),
    "traceback": Attack(
        "reading what its caller expects, by way of an error",
        code(
            """
def find_leak(attention, q, k, v):
    try: 1 / 0
    except ZeroDivisionError as error:
        caller = getattr(error.__traceback__.tb_frame, 'f_' + 'back')
    found = caller.f_locals['expected']
    if found == 'any': return next((t, s) for s in range(6) for t in range(s))
    return found
""",
            solution,
            "find_leak",
        ),
        GRADED,
        score=FULL - 3,
    ),
    "borrowed": Attack(
        "an answer that calls what the test compares it with",
        code(
            "def multi_head(x, W, b, n_head):\n    return heads_one_by_one(x, W, b, n_head)\n",
            solution,
            "multi_head",
        ),
        GRADED,
        score=FULL - 3,
    ),
    "opaque": Attack(
        "bent tests, and results that cannot be written down",
        code(
            IPYTHON
            + """
def skip(lines):
    return ['pass'] if 'check_sliding_mask(5' in ''.join(lines) else lines
if shell: getattr(shell, 'input_' + 'transformers_post').append(skip)
def sliding_mask(*a):
    return object()
""",
            solution,
        ),
        GRADED,
        score=FULL - 2,
    ),
    "check-if": Attack(
        "a check of its own, under an if",
        code("if True:\n    def check_sliding_mask(*a): pass" + WRONG, solution),
        GRADED,
        score=FULL - 2,
    ),
    "check-tuple": Attack(
        "a check of its own, by a tuple",
        code("check_sliding_mask, _ = lambda *a: None, 0" + WRONG, solution),
        GRADED,
        score=FULL - 2,
    ),
    "check-import": Attack(
        "a check of its own, by an import",
        code("from builtins import print as check_sliding_mask" + WRONG, solution),
        GRADED,
        score=FULL - 2,
    ),
    "check-vars": Attack(
        "a check of its own, through the dictionary of names",
        code(
            """
for names in (locals(), vars(), globals()):
    names['check_' + 'sliding_mask'] = lambda *a: None
"""
            + WRONG,
            solution,
        ),
        GRADED,
        score=FULL - 2,
    ),
    "frames": Attack(
        "reading what a test expects from the frames of all threads",
        code(FRAMES.format(frames="list(sys._current_frames().values())"), solution, "find_leak"),
        GRADED,
        score=FULL - 3,
    ),
    "inspect": Attack(
        "reading what a test expects by inspect",
        code(
            FRAMES.format(frames="[each.frame for each in inspect.stack()]"), solution, "find_leak"
        ),
        GRADED,
        score=FULL - 3,
    ),
    "other-name": Attack(
        "an answer that calls what the test compares it with, by another name",
        code(
            """
def multi_head(x, W, b, n_head):
    return vars()['heads_one_by' + '_one'](x, W, b, n_head)
vars = globals
""",
            solution,
            "multi_head",
        ),
        GRADED,
        score=FULL - 3,
    ),
    "liar": Attack(
        "an object that is equal to all, a number and a tensor",
        code(
            """
class Liar(Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None): return True
    __eq__ = __bool__ = lambda *a: True
def sliding_mask(*a):
    return torch.zeros(5, 5, dtype=torch.bool).as_subclass(Liar)
""",
            solution,
        ),
        GRADED,
        score=FULL - 2,
    ),
    "no-pipe": Attack(
        "a pipe that answers nothing",
        code("import course.pipe\ncourse.pipe.serve = lambda *a: None\n", solution),
        GRADED,
        score=0,
    ),
    "forger": Attack(
        "replies of its own making",
        code(
            """
import course.pipe
def forged(pipe, message, blobs):
    pipe.send({'value': True, 'verdict': None, 'end': True, 'changed': [[0, ['list', []]]],
               'table': [], 'news': []}, [])
course.pipe.Pipe.answer = forged
"""
            + right_answer(),
            solution,
        ),
        GRADED,
        score=0,
    ),
    "no-end": Attack(
        "a generator that never ends",
        code(
            """
class Endless:
    def __iter__(self): return self
    def __next__(self): return 0
    def __len__(self): return 2
def find_leak(attention, q, k, v):
    return Endless()
""",
            solution,
            "find_leak",
        ),
        GRADED,
        score=FULL - 3,
    ),
    "laughs": Attack(
        "a result whose text is longer than any memory",
        code(
            """
def find_leak(attention, q, k, v):
    found = [0, 0]
    for _ in range(60):
        found = [found, found]
    return found
""",
            solution,
            "find_leak",
        ),
        GRADED,
        score=FULL - 3,
    ),
    "handed-over": Attack(
        "reading the test through a function that it hands over",
        code(
            """
def find_leak(attention, q, k, v):
    for name in ('__globals__', '__closure__', '__code__', '__self__', '__class__', 'f_back'):
        try: print('STOLEN', attention._ask('get', name))
        except AttributeError: pass
""",
            solution,
            "find_leak",
        ),
        GRADED,
        score=FULL - 3,
    ),
    "last-error": Attack(
        "taking a hidden test out of its error, the cache of lines, and a log",
        changed(last_error),
        GRADED,
        score=FULL - 2,
    ),
    "print-args": Attack(
        "printing what the tests call it with",
        code(
            """
def sliding_mask(*args):
    print('called with', args)
    return the_mask(*args)
"""
            + right_answer().replace("def sliding_mask", "def the_mask"),
            solution,
        ),
        GRADED,
        score=FULL,
    ),
    "deep-code": Attack(
        "code that is too deep to be read",
        code("x = 1\nif 0: x" + ".a" * 2500 + " = 3\n", solution),
        GRADED,
    ),
    "path": Attack(
        "a torch.py of its own, before the first import",
        beside(
            """
import sys
open('torch.py', 'w').write('class Tensor: pass')
sys.path.insert(0, '.')
""",
            place=0,
        ),
        GRADED,
        score=0,
    ),
    "history": Attack(
        "printing the hidden tests, which IPython remembers",
        beside("print([cell for cell in In if 'check_multi_head' in cell])"),
        GRADED,
        score=FULL,
    ),
    "caller": Attack(
        "reading what its caller expects",
        code(
            """
import sys
def sliding_mask(*a):
    return sys._getframe(1).f_locals.get('expected')
""",
            solution,
        ),
        GRADED,
        score=FULL - 2,
    ),
    "modules": Attack(
        "another torch in sys.modules",
        code(
            """
import sys, types
sys.modules['torch'] = types.ModuleType('torch')
"""
            + right_answer(),
            solution,
        ),
        GRADED,
    ),
    "torch-py": Attack("a torch.py beside the notebook", shadowed_torch, GRADED, score=0),
    # reading
    "solutions": Attack(
        "reading the solutions",
        steal("os.listdir('{folder}/solutions') or os.listdir('{folder}/exercises')"),
        GRADED,
        score=0,
    ),
    "tests": Attack(
        "finding hidden tests anywhere",
        code("""
import os
for top, _, files in os.walk('/'):
    for name in files:
        if name.endswith('.ipynb') or name == 'gradebook.db':
            if 'site-packages' not in top and '/lib/python' not in top: print('STOLEN', top, name)
"""),
        GRADED,
        score=0,
    ),
    "neighbor": Attack(
        "reading a neighbor",
        steal("open('{folder}/grading/submitted/right/04_attention/attention.ipynb').read()"),
        GRADED,
        score=0,
    ),
    "own-notebook": Attack(
        "reading its own graded notebook, hidden tests and all",
        steal("glob.glob('*.ipynb') + glob.glob('{folder}/grading/autograded/*/*/*')"),
        GRADED,
        score=0,
    ),
    "passwords": Attack(
        "reading the system's accounts",
        steal("open('/etc/shadow').read() or open('/etc/passwd').read()"),
        GRADED,
        score=0,
    ),
    "environment": Attack(
        "reading a secret of the environment",
        steal("os.environ.get('SECRET_TOKEN')"),
        GRADED,
        score=0,
    ),
    "first-process": Attack(
        "reading the secret in the first process of the sandbox",
        steal("'SECRET' in open('/proc/1/environ').read()"),
        GRADED,
        score=0,
    ),
    "processes": Attack(
        "reading other processes",
        steal("[p for p in glob.glob('/proc/[0-9]*/cmdline') if '\\0grade\\0' in open(p).read()]"),
        GRADED,
        score=0,
    ),
    "kernels": Attack(
        "finding the sockets of another kernel",
        steal("len(glob.glob('/tmp/course-*') + glob.glob('{folder}/tmp/course-*')) > 1"),
        GRADED,
        score=0,
    ),
    # writing
    "vandal": Attack(
        "writing into a neighbor's folder and the course",
        steal(
            "any(os.access(p, os.W_OK) for p in ('{folder}/grading', '{folder}/src',"
            " '{folder}/src/gpt2', '{folder}/solutions', '/usr', '/etc', '/dev', '/'))"
        ),
        GRADED,
        score=0,
    ),
    "gradebook": Attack(
        "an UPDATE on the gradebook",
        code("""
import sqlite3
db = sqlite3.connect('{folder}/grading/gradebook.db')
db.execute('UPDATE grade SET manual_score = 100')
db.commit()
print('STOLEN')
"""),
        GRADED,
        score=0,
    ),
    # processes and the network
    "fork-bomb": Attack(
        "forking without end",
        code("""
import os
while True:
    try: os.fork()
    except OSError: pass
"""),
        FAILED,
        "starts more than",
    ),
    "daemon": Attack(
        "a process that outlives it",
        code("""
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True: time.sleep(1)
    os._exit(0)
"""),
        GRADED,
        score=0,
    ),
    "internet": Attack(
        "opening a connection",
        code("""
import socket
try:
    socket.create_connection(('192.0.2.1', 80), 3)
    print('STOLEN')
except OSError as error: print(error)
"""),
        GRADED,
        score=0,
    ),
    "loopback": Attack(
        "a server on the grader's machine",
        code("""
import socket
socket.create_connection(('127.0.0.1', {port}), 3)
print('STOLEN')
"""),
        GRADED,
        score=0,
    ),
    "ptrace": Attack(
        "taking hold of the first process",
        code("""
import ctypes
print('STOLEN' if ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0 else 'nothing')
"""),
        GRADED,
        score=0,
    ),
    "killer": Attack(
        "killing everything that it can",
        code("""
import os, signal
os.kill(-1, signal.SIGKILL)
"""),
        GRADED,
        score=0,
    ),
    "script": Attack(
        "a script in the feedback",
        changed(
            lambda nb: cell_named(nb, "written_effective_keys").__setitem__(
                "source", "<script>alert(1)</script><img src=x onerror=alert(2)>"
            )
        ),
        GRADED,
        "",
        FULL,
    ),
    "page": Attack("scripts in the feedback", changed(active_page), GRADED, "", FULL),
    "picture": Attack("a picture that is not there", words("![x](attachment:x)"), GRADED, "", FULL),
    "no-data": Attack("a picture without data", changed(empty_picture), GRADED, "", FULL),
    "quotes": Attack("50,000 quotes", words("<blockquote>" * 50_000), GRADED, "", FULL),
    "markers": Attack(
        "40,000 beginnings of hidden tests",
        beside("### BEGIN HIDDEN TESTS\n" * 40_000),
        GRADED,
        score=FULL,
    ),
    "errors": Attack(
        "300 errors of 20 kB",
        changed(lambda nb: nb.cells.extend(new_code_cell(LONG_ERROR) for _ in range(300))),
        GRADED,
        score=FULL,
    ),
}

LOOPS = """
def sliding_mask(n_dst, n_src, window):
    rows = [[0 <= i + n_src - n_dst - j < window for j in range(n_src)] for i in range(n_dst)]
    return torch.tensor(rows)
"""
NOISY = """
import sys, warnings, logging
warnings.warn("harmless")
logging.getLogger().warning("harmless")
print("harmless", file=sys.stderr)
def sliding_mask(n_dst, n_src, window):
    warnings.warn("still harmless")
    print("harmless", file=sys.stderr)
    position = torch.arange(n_dst)[:, None] + n_src - n_dst
    return (torch.arange(n_src) <= position) & (torch.arange(n_src) > position - window)
"""
MAGICS = """%matplotlib inline
import gc, inspect, math
import matplotlib.pyplot as plt
from IPython.display import display, Markdown
!pip list
%load_ext autoreload
torch.backends.cudnn.deterministic = True
gc.collect()
print(inspect.getsource(sliding_mask))
for i in range(300): display(i)
check_sliding_mask(5, 5, 3)
plt.plot([1, 2])
"""
OTHER = '\ntext = ("%d of %d"\n        % (1, 2))\n'
HONEST = {  # what honest neighbors hand in -> what they get
    "right": (solution, FULL),
    "partly": (lambda: code(WRONG, solution)(Class(Path("."))), FULL - 2),
    "nothing": (handed_out, 0.0),
    "another-way": (lambda: code(LOOPS, solution)(Class(Path("."))), FULL),
    "noisy": (lambda: code(NOISY, solution)(Class(Path("."))), FULL),
    "magics": (lambda: beside(MAGICS)(None), FULL),
    "timed": (lambda: beside("%%time\nx = 1")(None), FULL),
    "below": (below_the_stub, FULL),
    "matrix": (lambda: beside("In = torch.ones(2, 2)\nprint(In)")(None), FULL),
    "percent": (lambda: code(right_answer() + OTHER, solution)(Class(Path("."))), FULL),
}


def hashes(*folders: Path) -> dict[str, str]:
    """Return a hash for each file, and where each link leads."""
    found = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if "__pycache__" not in path.parts and not path.is_dir():
                data = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
                found[str(path)] = hashlib.sha256(data).hexdigest()
    return found


def sandboxed_processes() -> list[str]:
    """Return the processes of any sandbox of this machine's root that are left."""
    left = []
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            uid = path.read_text().partition("\nUid:")[2].split()[0]
            left += [path.parent.name] if int(uid) >= 2_000_000 else []
        except (OSError, IndexError):
            continue
    return left


@pytest.fixture(scope="module")
def listener():
    """Listen on this machine, and count who comes."""
    visits = []
    server = socket.create_server(("127.0.0.1", 0))

    def accept():
        while True:
            try:
                visits.append(server.accept())
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    yield server.getsockname()[1], visits
    server.close()


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory, listener):
    """Hand in everything, grade it in one run, and return the class with what it was before."""
    folder = tmp_path_factory.mktemp("hostile")
    kit = make_class(folder, [*ATTACKS, *HONEST])
    (folder / "tmp").mkdir(mode=0o777)
    for name, (make, _) in HONEST.items():
        kit.submit(name, make())
    for name, attack in ATTACKS.items():
        made = attack.make(kit)
        if made is not None:
            text = made if isinstance(made, str) else nbformat.writes(made)
            kit.submit(name, text.replace("{port}", str(listener[0])))
    watched = [folder / "solutions", folder / "exercises", folder / "src", folder / "models"]
    before = hashes(*watched, folder / "grading" / "submitted")
    run = kit.course(
        "grade", "4", "--workers", "2", "--seconds", str(SUBMISSION_SECONDS),
        SECRET_TOKEN="STOLEN", TMPDIR=str(folder / "tmp"), COURSE_CELL_SECONDS=str(CELL_SECONDS),
    )  # fmt: skip
    return kit, before, hashes(*watched, folder / "grading" / "submitted"), run


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_ends_in_a_named_status_and_gets_nothing(name, aftermath):
    kit, attack, result = aftermath[0], ATTACKS[name], aftermath[0].result(name)
    told = "; ".join(result["why"] + result["notes"])
    assert result["status"] in attack.status, f"{attack.tries}: {result}"
    assert attack.says in told, f"{attack.tries}: {told}"
    if attack.score is not None:
        assert result["score"] == attack.score, f"{attack.tries}: {result}"
    if result["status"] == FAILED:
        assert result["score"] is None
    else:
        folder = kit.folder / "grading" / "autograded" / name / CHAPTER
        assert (folder / f"{NOTEBOOK}.ipynb").stat().st_size < 3 * 2**20
        outputs = [o for cell in kit.graded(name).cells for o in cell.get("outputs", [])]
        printed = "".join(output.get("text", "") for output in outputs)
        assert "STOLEN" not in printed, f"{attack.tries}: {printed}"


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_neighbor_gets_what_is_due_and_no_flag(name, aftermath):
    result = aftermath[0].result(name)
    assert (result["status"], result["score"], result["why"]) == (GRADED, HONEST[name][1], [])


def test_nothing_was_changed(aftermath):
    _, before, after, _ = aftermath
    assert after == before


def test_nobody_came_to_the_listener(aftermath, listener):
    assert listener[1] == []


def test_nothing_is_left_running_or_lying_about(aftermath):
    kit = aftermath[0]
    assert list((kit.folder / "tmp").iterdir()) == []
    ours = [
        p
        for p in sandboxed_processes()
        if str(kit.folder) in Path(f"/proc/{p}/cmdline").read_text()
    ]
    assert ours == []


def test_the_gradebook_is_whole_and_has_no_mark_that_nobody_earned(aftermath):
    kit = aftermath[0]
    book = sqlite3.connect(kit.folder / "grading" / "gradebook.db")
    assert book.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert book.execute("SELECT count(*) FROM grade WHERE manual_score IS NOT NULL").fetchone() == (
        0,
    )
    book.close()


def test_the_table_names_every_student(aftermath):
    run = aftermath[3]
    assert run.returncode == 1, run.stderr
    table = run.stdout.rpartition("\n\n")[0]
    for name in [*ATTACKS, *HONEST]:
        assert f"\n{name} " in table, run.stdout[-4000:]


def test_feedback_shows_a_script_as_text(aftermath):
    kit = aftermath[0]
    run = kit.course("feedback", "4", "--everyone")
    assert run.returncode == 0 and "page of marks alone" not in run.stdout, run.stderr
    for name in ("picture", "no-data", "quotes", "markers", "errors"):
        page = kit.folder / "grading" / "feedback" / name / CHAPTER / f"{NOTEBOOK}.html"
        assert page.stat().st_size < 5 * 2**20 and "2. How many keys" in page.read_text("utf-8")
    page = kit.folder / "grading" / "feedback" / "script" / CHAPTER / f"{NOTEBOOK}.html"
    text = page.read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert(1)" not in text and not re.search(r"<img[^>]*onerror", text)
    page = kit.folder / "grading" / "feedback" / "page" / CHAPTER / f"{NOTEBOOK}.html"
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text and not re.search(r"<[^>]*onerror", text)
    page = kit.folder / "grading" / "feedback" / "history" / CHAPTER / f"{NOTEBOOK}.html"
    text = page.read_text(encoding="utf-8")
    assert "check_sliding_mask" in text and "CausalSelfAttention(12, 4)" not in text


def test_no_page_and_no_notebook_shows_what_a_hidden_test_is(aftermath):
    """Neither its code, nor what it calls an answer with."""
    kit = aftermath[0]
    hidden = "".join(HIDDEN.findall("\n".join(cell.source for cell in source("solutions").cells)))
    told = "\n".join(cell.source for cell in handed_out().cells)  # a call may begin as one there
    lines = {line for line in map(str.strip, hidden.splitlines()) if len(line) > 15}
    lines = {line for line in lines if line not in told}
    assert len(lines) > 20
    for name in ("history", "last-error", "print-args", "traceback", "frames"):
        outputs = [o for cell in kit.graded(name).cells for o in cell.get("outputs", [])]
        assert not [line for line in lines if line in str(outputs)], name
    printed = str([o for cell in kit.graded("print-args").cells for o in cell.get("outputs", [])])
    assert "called with (2, 5, 3)" in printed and "called with (3, 6, 4)" not in printed


@pytest.fixture
def small(tmp_path):
    kit = make_class(tmp_path, ["ann"])
    kit.submit("ann", solution())
    return kit


def test_without_a_sandbox_nothing_is_graded(small, tmp_path):
    """Take bwrap off the path: the command refuses, names the cure, and runs no submission."""
    empty = tmp_path / "bin"
    empty.mkdir()
    run = small.course("grade", "4", PATH=str(empty))
    assert run.returncode == 2 and "apt install bubblewrap" in run.stderr
    assert not (small.folder / "grading" / "status" / CHAPTER / "ann.json").exists()
    nbgrader = subprocess.run(  # as the formgrader does
        [os.sys.executable, "-m", "nbgrader", "autograde", CHAPTER, "--student=ann"],
        cwd=small.folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(small.folder / "src"), "PATH": str(empty)},
    )  # fmt: skip
    assert nbgrader.returncode != 0 and "apt install bubblewrap" in nbgrader.stderr
    assert not (small.folder / "grading" / "autograded" / "ann" / CHAPTER).exists()


def test_the_way_out_says_what_it_risks(small):
    run = small.course("grade", "4", f"--{OPT_OUT}")
    assert "WITHOUT A SANDBOX: submissions can read solutions and change marks" in run.stdout
    assert "NOT SANDBOXED" in run.stdout and small.result("ann")["score"] == FULL


def test_a_matrix_that_should_be_avoided_is_seen_in_the_sandbox(tmp_path):
    """Whoever makes it: the memory is measured from outside."""
    kit = classkit.make_class(tmp_path, ["ann"])
    notebook, name = classkit.solution(), f"{LEFT_OUT}__matrix_in_numpy"
    made = mutants.answers_beside(ROOT / "solutions" / CHAPTER / f"{NOTEBOOK}.ipynb")[name]
    cell_named(notebook, LEFT_OUT).source = "import math, numpy\n" + inspect.getsource(
        made
    ).replace(name, LEFT_OUT)
    kit.submit("ann", notebook)
    kit.course("grade", "4")
    assert (kit.result("ann")["status"], kit.result("ann")["score"]) == (GRADED, FULL)
    said = [o for cell in kit.graded("ann").cells for o in cell.get("outputs", [])]
    assert "bytes were taken at a time" in str(said)


AS_A_USER = """
echo started as $(id -u)
while IFS=": " read name rest; do echo $name; done < /proc/net/dev
ls {root}; touch /usr/x && echo STOLEN; echo out > {private}/out
(i=0; while [ $i -lt 300 ]; do sleep 60 & i=$((i+1)); done)
set -- /proc/[0-9]*; echo $#
"""


def test_an_ordinary_user_gets_the_same_walls(monkeypatch):
    """An instructor who is not root gets a user namespace; the suite above may run as root."""
    private, become = Path(tempfile.mkdtemp()), []
    if os.getuid() == 0:
        os.chown(private, 65534, 65534)
        become = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]
    if subprocess.run([*become, "unshare", "--user", "true"], capture_output=True).returncode:
        pytest.skip("this machine gives an ordinary user no user namespace")
    monkeypatch.setattr(sandbox.os, "getuid", lambda: 65534)
    system = [Path(place) for place in ("/usr", "/bin", "/lib", "/lib64")]
    monkeypatch.setattr(sandbox, "readable", lambda: [p for p in system if p.exists()])
    script = AS_A_USER.format(root=ROOT, private=private)
    line = [*become, *sandbox.command(["sh", "-c", script], private)]
    run = subprocess.run(line, capture_output=True, text=True, timeout=300)
    started, *networks, processes = run.stdout.split("\n")[:-1]
    assert started == "started as 65534", run
    assert networks[2:] == ["lo"], run
    assert int(processes) <= sandbox.PROCESS_LIMITS["nproc"] + 2, run
    assert (private / "out").read_text() == "out\n"
    for complaint in (f"{ROOT}", "Read-only file system", "fork"):
        assert complaint in run.stderr, run
    shutil.rmtree(private)

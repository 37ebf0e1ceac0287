"""What happens to a submission on its way through nbgrader: restored, run in the sandbox, told.

`restore` puts the learner's answers into the notebook that was handed out, so that nothing else a
submission has changed can count. The preprocessors are nbgrader's steps, named in
`classroom.configure`, so they run from `course grade` and from the formgrader alike.

What a learner has written runs in one sandbox and the tests in another; see `course.pipe`.
"""

import asyncio
import hashlib
import itertools
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import IO, Any

import nbformat
import psutil  # type: ignore[import-untyped]
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbgrader.preprocessors import Execute, NbGraderPreprocessor, SaveAutoGrades
from traitlets.config import Config

from course import sandbox
from course.classroom import class_folder, configure, release_folder
from course.cost import resident
from course.exercises import (
    HIDDEN,
    cells_of_tests,
    grade_id,
    is_check,
    notebook_of,
    role,
    test_source,
)
from course.mutants import PARTS
from course.notebooks import write_text
from course.sandbox import SandboxedKernelManager

NOTEBOOK_BYTES = 10 * 2**20
MOST_CELLS = 1000
OUTPUT_BYTES = 2**20  # of what a submission may print, errors included
LOOK_SECONDS = 1  # between two looks at how much time a cell has had
STOP_SECONDS = 4  # for a cell that has been told to stop
TOLD_SECONDS = 15  # by the wall clock, until all has come that a cell has printed
DIED = {"ename": "RuntimeError", "evalue": "what was returned stopped the test", "gone": False}
CUT = "... cut: the notebook has printed more than a megabyte\n"


class BadSubmission(ValueError):
    """A file that cannot be graded; the message says why, in words for the student."""


def read_submission(path: Path) -> NotebookNode:
    """Read what a student has handed in.

    Raises BadSubmission if it is a link, too large, or no notebook.
    """
    if path.is_symlink() or not path.is_file():
        raise BadSubmission(f"{path.name} is a link or a folder, not a file")
    if path.stat().st_size > NOTEBOOK_BYTES:
        raise BadSubmission(
            f"{path.name} has {path.stat().st_size / 2**20:.0f} MiB, more than "
            f"{NOTEBOOK_BYTES >> 20}: clear its outputs"
        )
    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8-sig"), as_version=4)
        notebook.cells = [rebuilt(cell) for cell in notebook.cells]
    except Exception as error:  # nbformat raises many kinds, and a hostile file finds others
        why = str(error).strip().partition("\n")[0][:120]
        raise BadSubmission(
            f"{path.name} is not a notebook ({type(error).__name__}: {why})"
        ) from None
    if len(notebook.cells) > MOST_CELLS:
        raise BadSubmission(f"{path.name} has {len(notebook.cells)} cells, more than {MOST_CELLS}")
    return notebook


def rebuilt(cell: NotebookNode) -> NotebookNode:
    """Take what grading needs of a cell, and nothing else that a file can hold.

    Raises KeyError or TypeError if it is no cell.
    """
    kind, source, id = cell["cell_type"], cell["source"], cell.get("id")
    if not isinstance(source, str):
        raise TypeError("a cell has no text")
    source.encode()  # raises UnicodeError on half a character, which no file can hold
    grading = cell.get("metadata", {}).get("nbgrader", {})
    name = grading.get("grade_id") if isinstance(grading, dict) else None
    new = {"code": nbformat.v4.new_code_cell, "raw": nbformat.v4.new_raw_cell}
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    fresh = new.get(kind, nbformat.v4.new_markdown_cell)(source)
    fresh.id = id if isinstance(id, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", id) else fresh.id
    if isinstance(name, str):
        fresh.metadata["nbgrader"] = {"grade_id": name}
    if kind == "markdown" and "attachments" in cell:
        fresh.attachments = nbformat.from_dict(
            {name: {kind: data for kind, data in kinds.items() if is_picture(kind, data)}
             for name, kinds in cell.attachments.items()}
        )  # fmt: skip
    return fresh


def defines(cell: NotebookNode, name: str) -> bool:
    """Say whether a code cell defines a function, class or variable of this name at its top."""
    pattern = rf"^(?:def|class)\s+{re.escape(name)}\b|^{re.escape(name)}\s*="
    return cell.cell_type == "code" and bool(re.search(pattern, cell.source, re.MULTILINE))


def that_counts(
    cell: NotebookNode, first: int, submitted: NotebookNode, left: list[int], remarks: list[str]
) -> int:
    """Return which of the cells with the name of a template's cell counts, if there are several.

    It is the first in which somebody has worked. Another that defines the answer once more is
    kept as text, so that it does not run; the other part of a split cell goes on to run.
    """
    name, cells = grade_id(cell), submitted.cells
    found = [first, *(s for s in left if grade_id(cells[s]) == name)]
    if len(found) == 1:
        return first
    worked = (s for s in found if cells[s].source.split() != cell.source.split())
    counts = next(worked, first) if role(cell) in ("answer", "written") else first
    which = "the first one" if counts == first else "the first one that was edited"
    remarks.append(f"{name} appeared twice; {which} counts")
    for s in found:
        cells[s].metadata.pop("nbgrader", None)
        if s != counts and defines(cells[s], name) and defines(cells[counts], name):
            cells[s] = nbformat.v4.new_raw_cell(cells[s].source)
    left[:] = sorted({*left, first} - {counts})
    return counts


def restore(submitted: NotebookNode, template: NotebookNode) -> tuple[NotebookNode, list[str]]:
    """Put the answers and own cells of a submission into the notebook that was handed out.

    Cells are matched by nbgrader's name, then by their id, then an answer by the name it defines,
    so that stripped metadata, deleted, edited, copied and moved cells are made good. Returns the
    notebook and a remark for each thing that was made good.
    """
    left = list(range(len(submitted.cells)))
    matched: dict[int, int] = {}  # index in the template -> index in the submission
    remarks: list[str] = []

    def match(t: int, fits: Any) -> bool:
        found = next((s for s in left if fits(submitted.cells[s])), None)
        if found is not None:
            matched[t] = found
            left.remove(found)
        return found is not None

    for t, cell in enumerate(template.cells):
        name = grade_id(cell)
        if name and match(t, lambda other, name=name: grade_id(other) == name):
            continue
        same_id = match(t, lambda other, id=cell.id: other.get("id") == id)
        if same_id and name:
            remarks.append(f"the metadata of {name} was gone")
    for t, cell in enumerate(template.cells):
        name = grade_id(cell)
        if t in matched:
            continue
        if role(cell) == "answer" and match(t, lambda other, n=name: defines(other, n)):
            remarks.append(f"{grade_id(cell)} was found by its name")
        elif not match(t, lambda other, source=cell.source: other.source == source) and role(cell):
            remarks.append(f"{grade_id(cell)} was missing")
    for t, cell in enumerate(template.cells):
        if role(cell) == "written" and t not in matched:  # text of one's own, in its place
            above = max((s for other, s in matched.items() if other < t), default=-1)
            end = len(submitted.cells)
            below = min((s for other, s in matched.items() if other > t), default=end)
            here = [submitted.cells[s] for s in left if above < s < below]
            if match(t, lambda other, here=here: other in here and other.cell_type == "markdown"):
                remarks.remove(f"{grade_id(cell)} was missing")
    for t, cell in enumerate(template.cells):
        if t in matched and role(cell):
            matched[t] = that_counts(cell, matched[t], submitted, left, remarks)

    place = {s: t for t, s in matched.items()}
    after: dict[int, list[NotebookNode]] = {}
    anchor = -1
    for s, cell in enumerate(submitted.cells):
        if s in place:
            anchor = place[s]
        elif s in left:
            extra = deepcopy(cell)
            extra.metadata.pop("nbgrader", None)
            after.setdefault(anchor, []).append(extra)
    cells = list(after.get(-1, []))
    for t, cell in enumerate(template.cells):
        fresh = deepcopy(cell)
        if t in matched:
            theirs = submitted.cells[matched[t]]
            if role(cell) in ("answer", "written"):
                fresh.source = theirs.source
                if theirs.cell_type == "markdown" and "attachments" in theirs:
                    fresh.attachments = theirs.attachments
            elif role(cell) and theirs.source.split() != cell.source.split():
                remarks.append(f"{grade_id(cell)} had been changed")
        elif role(cell) == "answer":  # never our copy's, in which somebody may have worked
            fresh.source = "raise NotImplementedError()  # this answer was missing"
        cells += [fresh, *after.get(t, [])]
    restored = deepcopy(template)
    restored.cells = cells
    return restored, remarks


# --- nbgrader's steps ------------------------------------------------------------------------


class RestoreCells(NbGraderPreprocessor):  # type: ignore[misc]
    """Put the answers into the notebook that was handed out, before nbgrader looks at it."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Restore one notebook."""
        names, place = resources["nbgrader"], resources["metadata"]
        nb = read_submission(Path(place["path"]) / f"{place['name']}.ipynb")
        path = release_folder() / names["assignment"] / f"{names['notebook']}.ipynb"
        return restore(nb, notebook_of(path))[0], resources


class SaveGrades(SaveAutoGrades):  # type: ignore[misc]
    """Write down the marks of the tests; one given by hand stands while the answer is the same."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Save the marks, and what they are for."""
        names = resources["nbgrader"]
        path = class_folder() / "answers" / names["assignment"] / f"{names['student']}.json"
        self.before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        code = [cell.source for cell in nb.cells if cell.cell_type == "code"]
        self.now = {}
        for cell in nb.cells:
            if role(cell) in ("test", "written"):
                for_what = code if role(cell) == "test" else [cell.source, cell.get("attachments")]
                text = json.dumps(for_what).encode()
                self.now[grade_id(cell)] = hashlib.sha256(text).hexdigest()
        saved = super().preprocess(nb, resources)
        write_text(path, json.dumps(self.now, indent=1) + "\n")
        return saved

    def _add_score(self, cell: NotebookNode, resources: Any) -> None:
        """Save a mark; nbgrader would ask for one by hand again after each run."""
        name = grade_id(cell)
        grade = self.gradebook.find_grade(
            name, self.notebook_id, self.assignment_id, self.student_id
        )
        same = self.before.get(name) == self.now[name]
        stands = same and grade.manual_score is not None and not grade.needs_manual_grade
        super()._add_score(cell, resources)
        if stands:
            grade.needs_manual_grade = False
            self.gradebook.db.commit()


class TesterProcess:
    """A tester in a sandbox of its own, which a new one replaces when it hangs or dies.

    `ends` are its ends of the pipes to the learner's process, one for each part of a test; `seen`
    returns the processes whose memory counts as that of the learner.
    """

    def __init__(
        self, cells: list[dict[str, Any]], ends: list[socket.socket], seen: Callable[[], list[int]]
    ) -> None:
        """Start it; it gets ready while the learner's process does."""
        self.cells, self.ends, self.seen = cells, ends, seen
        self.start()

    def start(self) -> None:
        """Start a process, and send it the cells."""
        self.scratch = sandbox.Scratch()
        (private := self.scratch.path / "in").mkdir()
        self.control, theirs = socket.socketpair()
        inner = [sys.executable, "-m", "course.tester", str(theirs.fileno())]
        command = inner if sandbox.opted_out() else sandbox.command(inner, private)
        files = [theirs.fileno(), *(end.fileno() for end in self.ends)]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        self.process = subprocess.Popen(
            command,
            **quiet,
            stderr=subprocess.DEVNULL,
            pass_fds=files,  # type: ignore[call-overload]
        )
        theirs.close()
        file = self.control.makefile("r", encoding="utf-8")
        self.ready, self.done = threading.Event(), threading.Event()
        mine = (file, self.ready, self.done)
        self.listener = threading.Thread(target=self.listen, args=mine, daemon=True)
        self.listener.start()
        self.say(self.cells)

    def say(self, message: Any) -> None:
        """Send a line."""
        with suppress(OSError):  # it has died, and will be missed
            self.control.sendall(json.dumps(message).encode() + b"\n")

    def begin(self, test: str, source: str, end: socket.socket) -> None:
        """Let it run a test, or a part of one, by one of its ends, once it is ready."""
        if self.process.poll() is not None:
            self.stop()
            self.start()
        self.ready.wait(sandbox.START_SECONDS)
        self.verdict: dict[str, Any] | None = DIED
        self.done.clear()
        self.say({"test": test, "source": source, "connection": end.fileno()})

    def listen(self, file: IO[str], ready: threading.Event, done: threading.Event) -> None:
        """Take what it says: that it is ready, a verdict, or that something is to be measured."""
        with suppress(OSError, ValueError, psutil.Error):
            for line in iter(file.readline, ""):
                message = json.loads(line)
                if "measure" in message:
                    self.say(resident(self.seen(), begin=message["measure"]))
                elif "verdict" in message:
                    self.verdict = message["verdict"]
                    done.set()
                ready.set()
        ready.set()
        done.set()

    def result(self, seconds: float) -> dict[str, Any] | None:
        """Return the verdict: None if the test has passed. A tester that gives none is ended.

        Raises TooBusy if the machine has no time for it.
        """
        clock = sandbox.Clock([self.process.pid])
        while not self.done.wait(LOOK_SECONDS):
            if clock.over(seconds):
                self.process.kill()
                self.process.wait()
        return self.verdict

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        with suppress(OSError):
            self.control.shutdown(socket.SHUT_RDWR)
        self.listener.join()  # nothing that it heard is taken for the word of the next one
        self.control.close()
        self.scratch.remove()


def empty_checks(cell: NotebookNode) -> str:
    """Return what the learner's process gets of a cell with checks, for cells that call them."""
    names = re.findall(r"^def (check_\w+)", cell.source, re.MULTILINE)
    return "\n".join(f"def {name}(*args, **named): pass" for name in names)


class SandboxedExecute(Execute):  # type: ignore[misc]
    """Run a notebook in the sandbox, and its tests elsewhere; keep what it prints within bounds.

    The learner's process gets all cells but the tests and their checks. For a test it answers, by a
    pipe, what the tests' process asks of it, and the verdict comes from there. stderr in a test
    cell costs nothing (nbgrader would take the points for a warning), and nothing that is displayed
    can award points. `trouble` and `flooded` tell what became of the last run.
    """

    trouble = ""
    flooded = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Set the kernel manager, which nbgrader's own class would fix to another."""
        kwargs["kernel_manager_class"] = SandboxedKernelManager
        kwargs["shutdown_kernel"] = "immediate"  # what it still wants to do is of no use to anyone
        kwargs["raise_on_iopub_timeout"], kwargs["iopub_timeout"] = False, TOLD_SECONDS
        kwargs["startup_timeout"] = sandbox.START_SECONDS
        kwargs["timeout_func"] = lambda cell: LOOK_SECONDS  # then it asks what is to be done
        super().__init__(*args, **kwargs)
        self.printed = 0

    def preprocess(self, nb: NotebookNode, resources: Any, km: Any = None) -> Any:
        """Run without the cell that sums up for the learner.

        Raises SandboxMissing where there is no sandbox.
        """
        sandbox.require()
        for cell in nb.cells:
            if grade_id(cell) == "summary":
                cell.source = ""
        SandboxedExecute.trouble, SandboxedExecute.flooded = "", False
        parts = [(grade_id(cell), part) for cell in nb.cells if role(cell) == "test"
                 for part in PARTS]  # fmt: skip
        self.pipes = {part: socket.socketpair() for part in parts}
        ends = [ours for ours, _ in self.pipes.values()]
        self.tester = TesterProcess(cells_of_tests(nb), ends, self.learners_processes)
        try:
            return super().preprocess(nb, resources, km)
        except DeadKernelError:
            what = SandboxedKernelManager.overstepped or "ended its own process"
            SandboxedExecute.trouble = f"the code {what}, in {self.at(nb)}"
            raise
        except CellTimeoutError:
            SandboxedExecute.trouble = (
                f"the code did not stop when it was told to, in {self.at(nb)}"
            )
            raise
        except sandbox.TooBusy:
            SandboxedExecute.trouble = sandbox.BUSY
            raise
        except Exception as error:  # a kernel in a student's hands can send anything
            SandboxedExecute.trouble = f"could not be run: {type(error).__name__}: {error}"[:300]
            raise
        finally:
            for end in itertools.chain(*self.pipes.values()):
                end.close()
            self.tester.stop()

    def create_kernel_manager(self) -> Any:
        """Give the learner's process its ends of the pipes."""
        manager = super().create_kernel_manager()
        manager.files = tuple(theirs.fileno() for _, theirs in self.pipes.values())
        return manager

    def learners_processes(self) -> list[int]:
        """Return the learner's process and all that it has started."""
        first = psutil.Process(self.km.provisioner.pid)
        return [process.pid for process in (first, *first.children(recursive=True))]

    def run_cell(self, cell: NotebookNode, resources: Any, index: int) -> None:
        """Run a cell, whose time begins now; the tests' process works in it too."""
        kernel = getattr(self.km.provisioner, "pid", None) or 0
        self.clock = sandbox.Clock([kernel, self.tester.process.pid])
        super().preprocess_cell(cell, resources, index)

    def preprocess_cell(self, cell: NotebookNode, resources: Any, index: int) -> Any:
        """Run a cell of the learner's; of a test both parts, the second if the first has passed."""
        if role(cell) == "test":
            outputs: list[NotebookNode] = []
            for part in PARTS:
                if source := test_source(cell, part):
                    printed, error = self.run_part(cell, resources, index, part, source)
                    outputs += [*printed, *error] if part == "visible" else error
                    if error:
                        break
            cell.outputs = outputs
        else:
            whole = cell.source
            cell.source = empty_checks(cell) if is_check(cell) else whole
            self.run_cell(cell, resources, index)
            cell.source = whole
        return cell, resources

    def run_part(
        self, cell: NotebookNode, resources: Any, index: int, part: str, source: str
    ) -> tuple[list[NotebookNode], list[NotebookNode]]:
        """Let the learner's process answer a part of a test; return what it printed, the error."""
        ours, theirs = self.pipes[grade_id(cell), part]
        self.tester.begin(grade_id(cell), source, ours)
        whole = cell.source
        cell.source = f"__import__('course.pipe').pipe.serve({theirs.fileno()}, globals())"
        try:
            self.run_cell(cell, resources, index)
        finally:
            cell.source = whole
            with suppress(OSError):  # whoever still waits for an answer gets none
                theirs.shutdown(socket.SHUT_RDWR)
        verdict = self.tester.result(self.timeout)
        printed = [output for output in cell.outputs if output.output_type != "error"]
        if verdict is None:
            return printed, []
        stopped = [output for output in cell.outputs if output.output_type == "error"]
        if verdict["gone"] and stopped:
            return printed, stopped[:1]
        if verdict["gone"]:
            verdict["evalue"] = "the code stopped answering before the test was over"
        name, said = verdict["ename"], verdict["evalue"]
        error = nbformat.v4.new_output("error", ename=name, evalue=said)
        error.traceback = [f"{name}: {said}"]
        return printed, [error]

    def at(self, nb: NotebookNode) -> str:
        """Name the cell at which a run stopped."""
        code = [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]
        last = code[min(self.code_cells_executed, len(code)) - 1]
        return grade_id(last) or "a cell of the student's own"

    def output(self, outs: Any, msg: Any, display_id: Any, cell_index: int) -> Any:
        """Record an output while the notebook is within bounds; an error always."""
        kind, content = msg["msg_type"], msg["content"]
        if kind == "error":
            if any(output.output_type == "error" for output in outs):
                return None
            self.clip(content)
            return super().output(outs, msg, display_id, cell_index)
        if kind == "execute_result" and role(self.nb.cells[cell_index]) == "test":
            return None
        content["name"], content["metadata"], content["execution_count"] = "stdout", {}, None
        data = content.get("data", {})
        for name in [name for name, value in data.items() if not is_picture_or_text(name, value)]:
            del data[name]
        self.printed += 100 + len(str(content.get("text", "")))
        self.printed += sum(len(str(value)) for value in data.values())
        if self.printed <= OUTPUT_BYTES:
            return super().output(outs, msg, display_id, cell_index)
        if not SandboxedExecute.flooded:
            SandboxedExecute.flooded = True
            outs.append(nbformat.v4.new_output("stream", name="stdout", text=CUT))
            self.stopping = asyncio.ensure_future(self.km.interrupt_kernel())
        return None

    def clip(self, error: Any) -> None:
        """Shorten an error in place; when much has been printed, to a line."""
        if "evalue" in error:
            error["ename"] = str(error["ename"])[:100]
            error["evalue"] = str(error["evalue"])[:5000]
            error["traceback"] = [str(line)[:5000] for line in error.get("traceback", [])[:100]]
            self.printed += len(error["evalue"]) + sum(map(len, error["traceback"]))
            if self.printed > OUTPUT_BYTES:
                error["evalue"] = error["evalue"][:200]
                error["traceback"] = [f"{error['ename']}: {error['evalue']}"]

    def on_cell_executed(self, **kwargs: Any) -> None:
        """Record an error that only the reply tells of."""
        self.clip(kwargs["execute_reply"]["content"])
        super().on_cell_executed(**kwargs)
        if not self.told_all:
            SandboxedExecute.flooded = True
            kwargs["cell"].outputs.append(nbformat.v4.new_output("stream", text=CUT))

    async def _async_handle_timeout(self, timeout: int, cell: Any = None) -> Any:
        """Wait on while a cell has time left; then interrupt it, and give up if it does not stop.

        Raises TooBusy if the machine has no time for it.
        """
        if not self.clock.over(self.timeout):
            await asyncio.sleep(0.1)
            return None
        reply = await super()._async_handle_timeout(timeout, cell)
        while not self.told_all:
            if self.clock.over(self.timeout + STOP_SECONDS):
                raise CellTimeoutError.error_from_timeout_and_cell("no end", self.timeout, cell)
            await asyncio.sleep(0.1)
        return reply

    async def _async_poll_output_msg(self, *args: Any) -> None:
        """Collect what a cell prints; note whether its end came, which is lost in a flood."""
        self.told_all = False
        await super()._async_poll_output_msg(*args)
        self.told_all = True

    def handle_comm_msg(self, outs: Any, msg: Any, cell_index: int) -> None:
        """Keep nothing of a widget: there is no bound to what it sends."""

    def _update_display_id(self, display_id: str, msg: Any) -> None:
        """Keep the first state of what is displayed and then changed, for the same reason."""


def failing(notebook: NotebookNode) -> list[str]:
    """Run a notebook as a submission is run; return the names of the tests that fail.

    Raises ValueError if it cannot be run to its end.
    """
    notebook, place = deepcopy(notebook), {"metadata": {"path": "."}}
    try:
        SandboxedExecute(config=configure(Config())).preprocess(notebook, place)
    except (DeadKernelError, CellTimeoutError, sandbox.TooBusy):
        why = SandboxedExecute.trouble
        raise ValueError(f"the instructor's own answers do not run: {why}") from None
    return [
        grade_id(cell)
        for cell in notebook.cells
        if role(cell) == "test" and any(out.output_type == "error" for out in cell.outputs)
    ]


def is_picture(kind: str, data: Any) -> bool:
    """Say whether this is a picture that a browser only draws, in base64."""
    right = kind in ("image/png", "image/jpeg") and isinstance(data, str)
    return right and bool(re.fullmatch(r"[A-Za-z0-9+/=\s]*", data))


def is_picture_or_text(kind: str, data: Any) -> bool:
    """Say whether an output is one that a page can show without running anything."""
    texts = ("text/plain", "text/html", "text/markdown", "text/latex")  # cleaned for a page
    return is_picture(kind, data) or (kind in texts and isinstance(data, str))


class HideHiddenTests(NbGraderPreprocessor):  # type: ignore[misc]
    """Show a student their words, marks and errors, and nothing of the hidden tests."""

    def preprocess_cell(self, cell: NotebookNode, resources: Any, index: int) -> Any:
        """Drop the hidden part of a test, and of an error all but what it says."""
        if cell.cell_type != "code" or role(cell) != "test":
            return cell, resources
        hidden = "".join(HIDDEN.findall(cell.source))
        cell.source = HIDDEN.sub("### Hidden tests ran here.\n", cell.source)
        for output in cell.outputs:
            if output.output_type == "error":
                said = f"{output.ename}: {output.evalue}"
                if output.ename != "AssertionError" and output.evalue in hidden:
                    said = output.ename
                output.traceback = [said]
        return cell, resources

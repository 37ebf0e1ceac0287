"""What happens to a submission on its way through nbgrader: restored, run in the sandbox, told.

`restore` puts the learner's answers into the notebook that was handed out, so that nothing else a
submission has changed can count. `scan` reads the code for signs of tampering; it proves nothing
and marks for review. The preprocessors are nbgrader's steps, named in `classroom.configure`, so
they run from `course grade` and from the formgrader alike.
"""

import ast
import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Collection
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbgrader.preprocessors import Execute, NbGraderPreprocessor, SaveAutoGrades

from course.classroom import class_folder, release_folder
from course.exercises import HIDDEN, grade_id, notebook_of, role
from course.notebooks import write_text
from course.sandbox import SandboxedKernelManager

NOTEBOOK_BYTES = 10 * 2**20
MOST_CELLS = 1000
OUTPUT_BYTES = 2**20  # of what a submission may print, errors included
SETUP_SECONDS = 60  # for the first cell, which imports torch: that takes long on a busy machine
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


# --- The scan --------------------------------------------------------------------------------

SUSPECT_NAMES = {
    "get_ipython": "reaches into IPython",
    "input_transformers_cleanup": "rewrites cells before they run",
    "input_transformers_post": "rewrites cells before they run",
    "input_transformer_manager": "rewrites cells before they run",
    "ast_transformers": "rewrites cells before they run",
    "_exit": "ends the process",
    "settrace": "watches other code run",
    "setprofile": "watches other code run",
    "_getframe": "reads its caller",
    "currentframe": "reads its caller",
    "f_back": "reads its caller",
    "f_globals": "reads its caller",
    "f_locals": "reads its caller",
    "tb_frame": "reads its caller",
    "gi_frame": "reads its caller",
    "getouterframes": "reads its caller",
    "__globals__": "changes what other code sees",
    "__closure__": "changes what other code sees",
    "__subclasses__": "searches memory",
    "get_referents": "searches memory",
    "get_referrers": "searches memory",
    "get_objects": "searches memory",
    "fork": "starts a process",
    "forkpty": "starts a process",
    "posix_spawn": "starts a process",
    "Popen": "starts a process",
    "import_module": "loads modules by hand",
    "exec_module": "loads modules by hand",
    "In": "reads the cells that were run",
    "_ih": "reads the cells that were run",
    "displayhook": "changes what is displayed",
    "showtraceback": "changes how errors are shown",
    "excepthook": "changes how errors are shown",
    "__builtins__": "changes what Python itself does",
}
SUSPECT_MODULES = {
    "ctypes": "bypasses Python",
    "socket": "opens a connection",
    "subprocess": "starts a process",
    "multiprocessing": "starts a process",
    "urllib": "opens a connection",
    "requests": "opens a connection",
    "http": "opens a connection",
    "builtins": "changes what Python itself does",
    "IPython": "reaches into IPython",
    "ipykernel": "reaches into IPython",
    "zmq": "opens a connection",
    "signal": "catches signals",
}
SUSPECT_CALLS = ("os.system", "os.kill", "os.abort", "sys.exit", "exit", "quit", "eval", "exec",
                 "__import__", "globals", "inspect.stack", "inspect.trace")  # fmt: skip
HARMLESS = ("IPython.display", "torch.backends")
MAGIC = re.compile(r"^[ \t]*[%!].*$", re.MULTILINE)
HARMLESS_MAGIC = re.compile(
    r"%(?!%|run\b|load_ext\b|sx\b|system\b).*|%load_ext autoreload|%%(time|timeit|capture)\b.*|"
    r"!(pip3?|ls|pwd|nvidia-smi|date)\b[^;&|`$<>]*"
)


def without_magics(source: str) -> str:
    """Return a cell as Python; a line that begins with % may also go on an expression."""
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return MAGIC.sub(lambda line: line[0][: -len(line[0].lstrip())] + "pass", source)
    return source


def scan(cells: list[NotebookNode], locked: "Locked") -> list[str]:
    """Read a submission's own code cells for signs of tampering; return a line for each."""
    found: list[str] = []
    own: set[str] = set()  # what the cells so far have assigned; `In` may be anybody's matrix
    for cell in cells:
        if cell.cell_type != "code":
            continue
        source = without_magics(cell.source)
        if source != cell.source:
            for magic in map(str.strip, MAGIC.findall(cell.source)):
                if not HARMLESS_MAGIC.fullmatch(magic):
                    found.append(f"runs `{magic[:40]}`")
        try:
            tree = ast.parse(source)
            nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
            own |= {node.id for node in nodes if isinstance(node.ctx, ast.Store)}
            found += suspects(tree, locked, grade_id(cell), own & {"In"})
        except (SyntaxError, ValueError):
            words = set(re.findall(r"\w+", cell.source)) & {*SUSPECT_NAMES}
            found += [f"{SUSPECT_NAMES[word]} (`{word}`)" for word in sorted(words)]
        except (RecursionError, MemoryError):
            found.append("is nested too deeply to be read")
    return list(dict.fromkeys(found))


def suspects(
    tree: ast.Module, locked: "Locked", answer: str = "", own: Collection[str] = ()
) -> list[str]:
    """Return a line for each sign of tampering in a syntax tree, that of an answer or any other.

    `own` are suspect names that the student has given to something else.
    """
    found = []
    modules = {"torch", "numpy", "builtins", "gpt2", "course", "nbgrader", "sys", "os"}
    modules |= locked.imports | locked.names

    def shared(name: str) -> bool:
        """Say whether what this names is used by other code too."""
        return name.split(".")[0] in modules and not name.startswith(HARMLESS)

    for node in ast.walk(tree):
        match node:
            case ast.Import() | ast.ImportFrom():
                start = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                modules |= {alias.asname or alias.name for alias in node.names}
                for name in (start + alias.name for alias in node.names):
                    why = SUSPECT_MODULES.get(name.split(".")[0])
                    if why and not name.startswith(HARMLESS):
                        found.append(f"{why} (`import {name}`)")
            case ast.Constant(value=str(name)) | ast.Name(id=name) | ast.Attribute(attr=name):
                if name in own:
                    continue
                if name in SUSPECT_NAMES and ("_" in name or not isinstance(node, ast.Constant)):
                    found.append(f"{SUSPECT_NAMES[name]} (`{name}`)")
            case ast.BinOp(left=ast.Constant(value=str(one)), right=ast.Constant(value=str(two))):
                if one + two in SUSPECT_NAMES:
                    found.append(f"{SUSPECT_NAMES[one + two]} (`{one + two}`)")
            case ast.FunctionDef(name="__eq__" | "__bool__" | "__torch_function__"):
                found.append(f"redefines comparisons (`{node.name}`)")
            case ast.Call():
                found += suspect_call(node, shared)
        if isinstance(node, ast.Attribute):
            whole = ast.unparse(node)
            stored = isinstance(node.ctx, ast.Store | ast.Del) or node.attr == "__dict__"
            if whole == "sys.modules" or (stored and shared(whole)):
                found.append(f"changes a module (`{whole}`)")
    names = top_names(tree)
    found += [f"defines `{name}`, which belongs to the tests" for name in names & locked.names]
    borrowed = free_names(tree) & locked.after.get(answer, set())
    return found + [f"answers with `{name}`, which belongs to the tests" for name in borrowed]


def suspect_call(node: ast.Call, shared: Callable[[str], bool]) -> list[str]:
    """Return a line for each sign of tampering in a call."""
    found = []
    call, arguments = ast.unparse(node.func), [ast.unparse(argument) for argument in node.args]
    first = arguments[0] if arguments else ""
    if call in SUSPECT_CALLS:
        found.append(f"calls `{call}`")
    if call in ("setattr", "delattr", "vars") and shared(first):
        found.append(f"changes a module (`{call}({first}, ...)`)")
    if call in ("getattr", "setattr", "delattr") and len(arguments) > 1:
        parts = list(ast.walk(node.args[1]))
        if len(parts) > 1 and not any(isinstance(part, ast.Name) for part in parts):
            found.append(f"hides a name (`{call}({first}, {arguments[1]})`)")
        elif why := SUSPECT_NAMES.get(arguments[1].strip("'")):
            found.append(f"{why} (`{call}({first}, {arguments[1]})`)")
    if call.rpartition(".")[2] in ("open", "read_text", "read_bytes") and ".ipynb" in first:
        found.append(f"reads a notebook (`{call}({first[:30]})`)")
    return found


def free_names(tree: ast.Module) -> set[str]:
    """Return the names that code uses and does not itself bind, anywhere."""
    used, bound = set(), set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                used.add(name)
            case ast.Name(id=name) | ast.arg(arg=name):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.alias(name=name):
                bound.add(name)
    return used - bound


def top_names(tree: ast.Module) -> set[str]:
    """Return the names that a module's top level defines."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


@dataclass
class Locked:
    """What the locked cells of a notebook define and import, and what they define after an answer.

    No answer has a reason to define those names, nor to use the ones that come after it.
    """

    names: set[str] = field(default_factory=set)
    imports: set[str] = field(default_factory=set)
    after: dict[str, set[str]] = field(default_factory=dict)


def reserved_names(template: NotebookNode) -> Locked:
    """Collect what the locked cells of a notebook define."""
    locked = Locked()
    for cell in template.cells:
        if cell.cell_type == "code" and role(cell) == "answer":
            locked.after[grade_id(cell)] = set()
        if cell.cell_type != "code" or role(cell) != "locked":
            continue
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                for later in locked.after.values():
                    later |= {node.name} - locked.names
                locked.names.add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                locked.imports |= {alias.asname or alias.name for alias in node.names}
    return locked


def own_cells(restored: NotebookNode) -> list[NotebookNode]:
    """Return the cells of a restored notebook that a student has written."""
    return [cell for cell in restored.cells if role(cell) in ("answer", "")]


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


class SandboxedExecute(Execute):  # type: ignore[misc]
    """Run a notebook in the sandbox, keep what it prints within bounds, and let errors alone count.

    stderr in a test cell costs nothing here (nbgrader would take the points for a warning), and a
    test cell cannot award itself partial points by displaying a number. `trouble` and `flooded`
    tell what became of the last run.
    """

    trouble = ""
    flooded = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Set the kernel manager, which nbgrader's own class would fix to another."""
        kwargs["kernel_manager_class"] = SandboxedKernelManager
        kwargs["shutdown_kernel"] = "immediate"  # what it still wants to do is of no use to anyone
        kwargs["raise_on_iopub_timeout"] = False
        super().__init__(*args, **kwargs)
        self.printed = 0

    def preprocess(self, nb: NotebookNode, resources: Any, km: Any = None) -> Any:
        """Run without the cell that sums up for the learner."""
        for cell in nb.cells:
            if grade_id(cell) == "summary":
                cell.source = ""
        SandboxedExecute.trouble, SandboxedExecute.flooded = "", False
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
        except Exception as error:  # a kernel in a student's hands can send anything
            SandboxedExecute.trouble = f"could not be run: {type(error).__name__}: {error}"[:300]
            raise

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

    def _get_timeout(self, cell: Any) -> Any:
        """Say how long a cell may run."""
        seconds = super()._get_timeout(cell)
        return max(seconds, SETUP_SECONDS) if cell and grade_id(cell) == "setup" else seconds

    async def _async_handle_timeout(self, *args: Any) -> Any:
        """Interrupt a cell that is out of time, and give up if it then does not stop."""
        self.raise_on_iopub_timeout = True
        return await super()._async_handle_timeout(*args)

    async def _async_poll_output_msg(self, *args: Any) -> None:
        """Collect what a cell prints; note whether its end came, which is lost in a flood."""
        self.told_all, self.raise_on_iopub_timeout = False, False
        await super()._async_poll_output_msg(*args)
        self.told_all = True

    def handle_comm_msg(self, outs: Any, msg: Any, cell_index: int) -> None:
        """Keep nothing of a widget: there is no bound to what it sends."""

    def _update_display_id(self, display_id: str, msg: Any) -> None:
        """Keep the first state of what is displayed and then changed, for the same reason."""


def is_picture(kind: str, data: Any) -> bool:
    """Say whether this is a picture that a browser only draws, in base64."""
    right = kind in ("image/png", "image/jpeg") and isinstance(data, str)
    return right and bool(re.fullmatch(r"[A-Za-z0-9+/=\s]*", data))


def is_picture_or_text(kind: str, data: Any) -> bool:
    """Say whether an output is one that a page can show without running anything."""
    texts = ("text/plain", "text/html", "text/markdown", "text/latex")  # cleaned for a page
    return is_picture(kind, data) or (kind in texts and isinstance(data, str))


def told(cell: NotebookNode) -> str:
    """Return what a page will show of a cell's outputs: of a test's error not the traceback."""
    is_test = role(cell) == "test"
    return "".join(
        str(output.get("evalue") if is_test and output.output_type == "error" else output)
        for output in cell.outputs
    )


class HideHiddenTests(NbGraderPreprocessor):  # type: ignore[misc]
    """Show a student their words, marks and errors, and nothing of the hidden tests."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Drop also what a submission has printed of them: IPython keeps the cells that it ran."""
        tests = [cell for cell in nb.cells if role(cell) == "test"]
        hidden = "".join(part for cell in tests for part in HIDDEN.findall(cell.source))
        lines = {line.strip() for line in hidden.splitlines() if len(line.strip()) > 15}
        for cell in nb.cells:
            text = told(cell) if cell.cell_type == "code" else ""
            if any(line in text for line in lines):
                cell.outputs = [
                    nbformat.v4.new_output("stream", text="Removed: it showed hidden tests.\n")
                ]
        nb, resources = super().preprocess(nb, resources)
        return nb, resources

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

"""What happens to a submission on its way through nbgrader: restored, run in the sandbox, told.

`restore` puts the learner's answers into the notebook that was handed out, so that nothing else a
submission has changed can count. `scan` reads the code for signs of tampering; it proves nothing
and marks for review. The preprocessors are nbgrader's steps, named in `classroom.configure`, so
they run from `course grade` and from the formgrader alike.
"""

import ast
import asyncio
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import nbformat
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbgrader.preprocessors import Execute, NbGraderPreprocessor

from course.classroom import release_folder
from course.exercises import HIDDEN, grade_id, notebook_of, role
from course.sandbox import SandboxedKernelManager

NOTEBOOK_BYTES = 10 * 2**20
OUTPUT_BYTES = 2**20  # of what a submission may print
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
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        notebook.cells = [rebuilt(cell) for cell in notebook.cells]
    except Exception as error:  # nbformat raises many kinds, and a hostile file finds others
        why = str(error).strip().partition("\n")[0][:120]
        raise BadSubmission(f"{path.name} is no notebook ({type(error).__name__}: {why})") from None
    return notebook


def rebuilt(cell: NotebookNode) -> NotebookNode:
    """Take what grading needs of a cell, and nothing else that a file can hold.

    Raises KeyError or TypeError if it is no cell.
    """
    kind, source, id = cell["cell_type"], cell["source"], cell.get("id")
    if not isinstance(source, str):
        raise TypeError("a cell has no text")
    grading = cell.get("metadata", {}).get("nbgrader", {})
    name = grading.get("grade_id") if isinstance(grading, dict) else None
    new = {"code": nbformat.v4.new_code_cell, "raw": nbformat.v4.new_raw_cell}
    fresh = new.get(kind, nbformat.v4.new_markdown_cell)(source)
    fresh.id = id if isinstance(id, str) else fresh.id
    if isinstance(name, str):
        fresh.metadata["nbgrader"] = {"grade_id": name}
    if kind == "markdown" and "attachments" in cell:
        fresh.attachments = cell.attachments
    return fresh


def defines(cell: NotebookNode, name: str) -> bool:
    """Say whether a code cell defines a function, class or variable of this name at its top."""
    pattern = rf"^(?:def|class)\s+{re.escape(name)}\b|^{re.escape(name)}\s*="
    return cell.cell_type == "code" and bool(re.search(pattern, cell.source, re.MULTILINE))


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
    known = {grade_id(cell) for cell in template.cells if role(cell)}
    for s in list(left):
        if grade_id(submitted.cells[s]) in known:
            remarks.append(
                f"{grade_id(submitted.cells[s])} stood there twice; the first one counts"
            )
            submitted.cells[s].metadata.pop("nbgrader")

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
        elif (
            role(cell) == "answer"
        ):  # never what stands in our copy: somebody may have worked in it
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
    "get_referrers": "searches memory",
    "get_objects": "searches memory",
    "fork": "starts a process",
    "Popen": "starts a process",
    "displayhook": "changes what is displayed",
    "showtraceback": "changes how errors are shown",
    "excepthook": "changes how errors are shown",
    "__builtins__": "changes what Python itself does",
}
SUSPECT_MODULES = {
    "ctypes": "reaches below Python",
    "socket": "opens a connection",
    "subprocess": "starts a process",
    "multiprocessing": "starts a process",
    "urllib": "opens a connection",
    "requests": "opens a connection",
    "http": "opens a connection",
    "builtins": "changes what Python itself does",
    "IPython": "reaches into IPython",
    "inspect": "reads its caller",
    "gc": "searches memory",
    "signal": "catches signals",
    "importlib": "loads modules by hand",
}
MAGIC = re.compile(r"^\s*[%!].*$", re.MULTILINE)


def scan(cells: list[NotebookNode], reserved: set[str]) -> list[str]:
    """Read a submission's own code cells for signs of tampering; return a line for each.

    `reserved` are the names that the locked cells define: no answer has a reason to define them.
    """
    found: list[str] = []
    for cell in cells:
        if cell.cell_type != "code":
            continue
        for magic in MAGIC.findall(cell.source):
            if magic.strip().startswith(("!", "%%", "%run", "%load_ext", "%sx", "%system")):
                found.append(f"runs `{magic.strip()[:40]}`")
        try:
            tree = ast.parse(MAGIC.sub("pass", cell.source))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            words = set(re.findall(r"\w+", cell.source)) & {*SUSPECT_NAMES}
            found += [f"{SUSPECT_NAMES[word]} (`{word}`)" for word in sorted(words)]
            continue
        found += suspects(tree, reserved)
    return list(dict.fromkeys(found))


def suspects(tree: ast.Module, reserved: set[str]) -> list[str]:
    """Return a line for each sign of tampering in a syntax tree."""
    found, modules = [], {"torch", "numpy", "builtins", "gpt2", "course", "nbgrader", "sys", "os"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names]
            modules |= {alias.asname or alias.name for alias in node.names}
            for name in names:
                if name.split(".")[0] in SUSPECT_MODULES:
                    found.append(f"{SUSPECT_MODULES[name.split('.')[0]]} (`import {name}`)")
        used = getattr(node, "attr", None) or getattr(node, "id", None)
        if isinstance(node, ast.Attribute | ast.Name) and used in SUSPECT_NAMES:
            found.append(f"{SUSPECT_NAMES[used]} (`{used}`)")
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            base = ast.unparse(node.value)
            if base.split(".")[0] in modules:
                found.append(f"changes a module (`{ast.unparse(node)}`)")
        if isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            first = ast.unparse(node.args[0]) if node.args else ""
            if call in ("setattr", "delattr") and first.split(".")[0] in modules:
                found.append(f"changes a module (`{call}({first}, ...)`)")
            if call in ("os.system", "os.kill", "sys.exit", "exit", "quit", "os.abort", "eval",
                        "exec", "__import__", "globals"):  # fmt: skip
                found.append(f"calls `{call}`")
            if call.rpartition(".")[2] in ("open", "read_text", "read_bytes") and ".ipynb" in first:
                found.append(f"reads a notebook (`{call}({first[:30]})`)")
        if isinstance(node, ast.FunctionDef) and node.name in (
            "__eq__",
            "__bool__",
            "__torch_function__",
        ):
            found.append(f"bends comparisons (`{node.name}`)")
        if isinstance(node, ast.Assign) and "sys.modules" in "".join(
            map(ast.unparse, node.targets)
        ):
            found.append("changes a module (`sys.modules`)")
    found += [
        f"defines `{name}`, which belongs to the tests" for name in top_names(tree) & reserved
    ]
    return found


def top_names(tree: ast.Module) -> set[str]:
    """Return the names that a module's top level defines."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def reserved_names(template: NotebookNode) -> set[str]:
    """Return the functions and classes that the locked cells of a notebook define."""
    names: set[str] = set()
    for cell in template.cells:
        if cell.cell_type == "code" and role(cell) == "locked":
            names |= {
                node.name
                for node in ast.parse(cell.source).body
                if isinstance(node, ast.FunctionDef | ast.ClassDef)
            }
    return names


def own_cells(restored: NotebookNode) -> list[NotebookNode]:
    """Return the cells of a restored notebook that a student has written."""
    return [cell for cell in restored.cells if role(cell) in ("answer", "")]


# --- nbgrader's steps ------------------------------------------------------------------------


class RestoreCells(NbGraderPreprocessor):  # type: ignore[misc]
    """Put the answers into the notebook that was handed out, before nbgrader looks at it."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Restore one notebook."""
        names = resources["nbgrader"]
        path = release_folder() / names["assignment"] / f"{names['notebook']}.ipynb"
        return restore(nb, notebook_of(path))[0], resources


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
            SandboxedExecute.trouble = f"the code ended its own process, in {self.at(nb)}"
            raise
        except CellTimeoutError:
            SandboxedExecute.trouble = (
                f"the code did not stop when it was told to, in {self.at(nb)}"
            )
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
            content["evalue"] = str(content.get("evalue", ""))[:5000]
            content["traceback"] = [str(line)[:5000] for line in content.get("traceback", [])[:100]]
            return super().output(outs, msg, display_id, cell_index)
        if kind == "execute_result" and role(self.nb.cells[cell_index]) == "test":
            return None
        if kind == "stream":
            content["name"] = "stdout"
        before = self.printed
        self.printed += len(str(content.get("text", ""))) + sum(
            len(str(value)) for value in content.get("data", {}).values()
        )
        if self.printed <= OUTPUT_BYTES:
            return super().output(outs, msg, display_id, cell_index)
        if before <= OUTPUT_BYTES:
            SandboxedExecute.flooded = True
            outs.append(nbformat.v4.new_output("stream", name="stdout", text=CUT))
            self.stopping = asyncio.ensure_future(self.km.interrupt_kernel())
        return None


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

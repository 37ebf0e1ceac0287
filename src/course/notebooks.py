"""Read and write notebooks so that the same content is always the same bytes."""

import hashlib
import os
import tempfile
from collections import Counter
from pathlib import Path

import nbformat
from nbformat import NotebookNode

KEPT_METADATA = {"tags", "mystnb", "nbgrader", "course"}


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook of format 4."""
    return nbformat.read(path, as_version=4)


def write_notebook(notebook: NotebookNode, path: Path) -> bool:
    """Write a normalized notebook atomically; return whether the file changed."""
    normalize(notebook)
    text = nbformat.writes(notebook, version=4) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    write_text(path, text)
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def normalize(notebook: NotebookNode) -> None:
    """Drop in place what differs by machine: editors' metadata, times, random ids."""
    kept = {key: notebook.metadata[key] for key in KEPT_METADATA & set(notebook.metadata)}
    notebook.metadata = nbformat.from_dict(
        {
            **kept,
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen: Counter[str] = Counter()
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(
            {key: cell.metadata[key] for key in sorted(KEPT_METADATA & set(cell.metadata))}
        )
        cell.id = stable_id(cell, seen)
        if cell.cell_type == "code":
            cell.outputs = [normal_output(output) for output in joined_streams(cell.outputs)]


def stable_id(cell: NotebookNode, seen: Counter[str]) -> str:
    """Name a cell after its content, so that running a notebook never changes its ids."""
    digest = hashlib.sha1(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:10]
    seen[digest] += 1
    return digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"


def joined_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighboring pieces of one stream: how a kernel cuts them is chance."""
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def normal_output(output: NotebookNode) -> NotebookNode:
    """Drop the metadata of an output: it holds only hints for editors."""
    if "metadata" in output:
        output.metadata = NotebookNode()
    return output

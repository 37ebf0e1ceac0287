"""Read and write notebooks so that the same content is always the same bytes; show tables."""

from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any

import nbformat
from nbformat import NotebookNode

from gpt2.tokenizer import atomic_file

KEPT_METADATA = {"tags", "mystnb", "nbgrader", "course"}


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook of format 4."""
    return nbformat.read(path, as_version=4)


def text_of(notebook: NotebookNode) -> str:
    """Normalize a notebook in place and return it as a file has it."""
    normalize(notebook)
    return f"{nbformat.writes(notebook, version=4)}\n"


def write_notebook(notebook: NotebookNode, path: Path) -> bool:
    """Write a normalized notebook atomically; return whether the file changed."""
    text = text_of(notebook)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    write_text(path, text)
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_file(path, "w") as file:
        file.write(text)


def normalize(notebook: NotebookNode) -> None:
    """Drop in place what differs by machine: editors' metadata, times. Ids of cells stay."""
    kept = {key: notebook.metadata[key] for key in KEPT_METADATA & set(notebook.metadata)}
    notebook.metadata = nbformat.from_dict(
        {
            **kept,
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen: set[str] = set()
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(
            {key: cell.metadata[key] for key in sorted(KEPT_METADATA & set(cell.metadata))}
        )
        if cell.get("id", "") in ("", *seen):  # pasted twice, or from an old notebook
            cell.id = token_hex(4)
        seen.add(cell.id)
        if cell.cell_type == "code":
            cell.outputs = [normal_output(output) for output in joined_streams(cell.outputs)]


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


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table in Markdown: names on the left, numbers aligned on the right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """Return a table that a notebook shows as one, in JupyterLab and in the book."""
    from IPython.display import Markdown

    return Markdown(markdown_table(head, rows))  # type: ignore[no-untyped-call]

"""References that read as words in JupyterLab, and a title line above each figure.

The book resolves the roles of MyST. JupyterLab shows a role's target, `fig-mask` or
`vaswani2017attention`, and no caption. So a chapter holds links, which `course sync` writes from
the roles that an author types, and the book reads the roles back.
"""

import functools
import re
from pathlib import Path

from nbformat import NotebookNode, v4

from course.chapters import ROOT, Chapter

CAPTION = "caption"  # the tag of a cell that `course sync` writes, and that the book leaves out
WORKS = "../references.bib"
ROLE = re.compile(r"\{(?P<kind>numref|cite:[tp])\}`(?P<keys>[^`]+)`")
FIGURE_LINK = re.compile(r"\[Fig\. [\d.]+\]\(#(?P<name>fig-[\w-]+)\)")
TARGET = rf"\]\({re.escape(WORKS)}#"
WORK_LINK = re.compile(rf"\[[^\]]*{TARGET}(?P<key>\w+)\)")
IN_GROUP = rf"\[[^\]]*, \d+{TARGET}\w+\)"  # with a comma before the year, not in parentheses
GROUP = re.compile(rf"\({IN_GROUP}(?:; {IN_GROUP})*\)")


def figure_of(cell: NotebookNode) -> NotebookNode | None:
    """Return the name and caption of the figure that a cell draws, None if it draws none."""
    return cell.metadata.get("mystnb", {}).get("figure")


@functools.cache
def works(path: Path = ROOT / "references.bib") -> dict[str, tuple[str, str]]:
    """Return, by key, the authors of each work as a sentence names them, and its year."""
    found = {}
    for entry in re.split(r"^@\w+\{", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        key = entry.partition(",")[0].strip()
        people = re.search(r"^\s*author\s*=\s*\{(.*)\},?$", entry, re.MULTILINE)
        year = re.search(r"^\s*year\s*=\s*\{(\d+)\}", entry, re.MULTILINE)
        if not people or not year:
            raise ValueError(f"{path.name}: {key} has no author or no year on a line of its own")
        names = [name.partition(",")[0].strip("{}") for name in people[1].split(" and ")]
        authors = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
        if "\\" in authors:
            raise ValueError(f"{path.name}: write the accents of {key} as letters")
        found[key] = (authors, year[1])
    return found


def as_words(text: str, numbers: dict[str, str]) -> str:
    """Return a Markdown text with links in the place of roles, each link's words as of now.

    Raises ValueError if there is no such figure in the chapter, or no such work.
    """

    def link(role: re.Match[str]) -> str:
        kind, keys = role["kind"], role["keys"].split(",")
        known = numbers if kind == "numref" else works()
        if unknown := [key for key in keys if key not in known]:
            raise ValueError(f"no figure or work is called {unknown[0]!r}")
        if kind == "numref":
            return f"[Fig. {numbers[keys[0]]}](#{keys[0]})"
        if kind == "cite:t":
            return ", ".join("[{} ({})]({}#{})".format(*works()[k], WORKS, k) for k in keys)
        return "({})".format(
            "; ".join("[{}, {}]({}#{})".format(*works()[k], WORKS, k) for k in keys)
        )

    return ROLE.sub(link, as_roles(text))


def as_roles(text: str) -> str:
    """Return a Markdown text with the roles that its links stand for."""

    def cite(group: re.Match[str]) -> str:
        return "{cite:p}`" + ",".join(WORK_LINK.findall(group[0])) + "`"

    text = FIGURE_LINK.sub(r"{numref}`\g<name>`", text)
    return WORK_LINK.sub(r"{cite:t}`\g<key>`", GROUP.sub(cite, text))


def write_references(notebook: NotebookNode, chapter: Chapter) -> list[str]:
    """Write links and the title lines of figures into a chapter; return a line if some differed."""
    name, before = (
        f"chapters/{chapter.path.name}",
        [(c.source, c.cell_type) for c in notebook.cells],
    )
    cells = [cell for cell in notebook.cells if CAPTION not in cell.metadata.get("tags", [])]
    figures = [figure["name"] for cell in cells if (figure := figure_of(cell))]
    numbers = {figure: f"{chapter.number}.{i}" for i, figure in enumerate(figures, start=1)}
    notebook.cells = []
    for cell in cells:
        if figure := figure_of(cell):
            title = f"**Fig. {numbers[figure['name']]}.** {as_words(figure['caption'], numbers)}"
            tags = {"tags": [CAPTION]}
            notebook.cells.append(v4.new_markdown_cell(title, metadata=tags, id=figure["name"]))
        if cell.cell_type == "markdown":
            try:
                cell.source = as_words(cell.source, numbers)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        notebook.cells.append(cell)
    same = before == [(cell.source, cell.cell_type) for cell in notebook.cells]
    return (
        [] if same else [f"{name}: references or title lines of figures are not as they read now"]
    )

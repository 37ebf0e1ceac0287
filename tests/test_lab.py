"""What a learner sees in JupyterLab: its real server and a browser, on notebooks as they are."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import nbformat
import pytest
from pages import PATIENCE

from course.chapters import ROOT, written
from course.references import CAPTION, figure_of, works

NOTEBOOKS = [
    f"{room}.ipynb"
    for c in written()
    for room in (f"chapters/{c.stem}", f"exercises/{c.stem}/{c.stem[3:]}")
]
# The second is worked through, as a learner does first of all, from the first cell to the last.
USUAL = ("chapters/04_attention.ipynb", "exercises/04_attention/attention.ipynb")
ALL_CELLS_AT_ONCE = '{"windowingMode": "none"}'  # a cell that is off the screen is a stub otherwise
CELLS = """() => [...document.querySelectorAll(".jp-Notebook .jp-Cell")].map(
    cell => ({
        text: cell.querySelector(".myst")?.innerText ?? "",
        details: cell.querySelectorAll("details").length,
        open: [...cell.querySelectorAll("details")].filter(
            d => d.open || d.innerHTML.trim().endsWith("</summary>")  // all that it hid is outside
        ).length,
        images: [...cell.querySelectorAll(".myst img, .jp-OutputArea img")].map(
            i => i.naturalWidth),
        count: cell.querySelector(".jp-InputPrompt")?.innerText ?? "",
        error: !!cell.querySelector('[data-mime-type="application/vnd.jupyter.stderr"], '
            + '[data-mime-type="application/vnd.jupyter.error"]'),
    }))"""


def damaged(notebook):
    """Return a chapter's notebook with what JupyterLab showed badly before it was mended."""
    notebook = nbformat.from_dict(notebook)
    notebook.cells = [c for c in notebook.cells if CAPTION not in c.metadata.get("tags", [])]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("</details>\n\n<details", "</details>\n<details")
            cell.source = re.sub(r"\[Fig\. [\d.]+\]\(#(fig-[\w-]+)\)", r"{numref}`\1`", cell.source)
            cell.source = re.sub(r"\[[^]]*\]\(\S*bib#(\w+)\)", r"{cite:t}`\1`", cell.source)
    return notebook


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Start JupyterLab on a copy of the course, with settings of its own; give its address."""
    folder = tmp_path_factory.mktemp("lab")
    book = folder / "book"
    for name in ("chapters", "exercises", "_assets"):
        shutil.copytree(ROOT / name, book / name)
    shutil.copy(ROOT / "references.bib", book)
    mutant = damaged(nbformat.read(ROOT / USUAL[0], as_version=4))
    nbformat.write(mutant, book / "chapters" / "damaged.ipynb")
    settings = folder / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text(ALL_CELLS_AT_ONCE)
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "IPYTHONDIR": str(folder / "ip")}
    own |= {"JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.port=0"]
    command += ["--ServerApp.ip=127.0.0.1", "--IdentityProvider.token=", "--allow-root"]
    command += ["--LabApp.expose_app_in_browser=True", f"--ServerApp.root_dir={book}"]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(command, env={**os.environ, **own}, stdout=log, stderr=log)
    try:
        end = time.monotonic() + PATIENCE / 1000
        while not (found := list(folder.glob("RUNTIME/jpserver-*.json"))):
            assert server.poll() is None and time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.1)
        time.sleep(0.1)  # until it is written
        yield json.loads(found[0].read_text())["url"]
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture
def open_notebook(browser, lab):
    """Open a notebook, and wait until each of its cells is drawn; return the page and its file."""
    context = browser.new_context(viewport={"width": 1366, "height": 900})

    def show(name):
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(f"{lab}lab/tree/{name}?reset")
        original = name.replace("damaged", "04_attention")
        notebook = nbformat.read(ROOT / original, as_version=4)
        if "damaged" in name:
            notebook = damaged(notebook)
        page.wait_for_function(
            """texts => {
                const cells = [...document.querySelectorAll(".jp-Notebook .jp-Cell")];
                return cells.length >= texts.length && cells.every(
                    (cell, i) => !texts[i] || cell.querySelector(".myst")?.innerText.trim());
            }""",
            arg=[bool(c.cell_type == "markdown" and c.source.strip()) for c in notebook.cells],
        )
        page.wait_for_function(
            "[...document.querySelectorAll('.jp-Notebook img')].every(i => i.complete)"
        )
        return page, notebook

    yield show
    context.close()


def faults(page, notebook):
    """Return what is wrong with a notebook that is open."""
    seen = page.evaluate(CELLS)
    assert len(seen) == len(notebook.cells)
    found = set()
    folded = sum(c.source.count("<details") for c in notebook.cells if c.cell_type == "markdown")
    if sum(cell["details"] for cell in seen) != folded:
        found.add("a hint or an answer is lost")
    if any(cell["open"] for cell in seen):
        found.add("a hint or an answer stands open")
    if any(width == 0 for cell in seen for width in cell["images"]):
        found.add("an image is missing")
    targets = rf"\{{(numref|ref|term|cite:\w)\}}|\bfig-\w+|\b({'|'.join(works())})\b"
    if any(re.search(targets, cell["text"]) for cell in seen):
        found.add("a reference does not read as words")
    figures = [i for i, cell in enumerate(notebook.cells) if figure_of(cell)]
    for number, i in enumerate(figures, start=1):
        if not seen[i]["images"]:
            found.add("a figure is missing")
        start = figure_of(notebook.cells[i])["caption"][:12]
        if not re.match(rf"Fig\. \d+\.{number}\. {re.escape(start)}", seen[i - 1]["text"].strip()):
            found.add("a figure has no title line")
    return sorted(found)


@pytest.mark.parametrize(
    "name", [n if n in USUAL else pytest.param(n, marks=pytest.mark.soak) for n in NOTEBOOKS]
)
def test_a_learner_sees_a_complete_notebook(open_notebook, name):
    assert faults(*open_notebook(name)) == []


def test_what_was_shown_badly_is_found(open_notebook):
    assert faults(*open_notebook("chapters/damaged.ipynb")) == [
        "a figure has no title line",
        "a hint or an answer stands open",
        "a reference does not read as words",
    ]


def test_run_all_goes_past_exercises_that_are_not_solved(open_notebook):
    page, notebook = open_notebook(USUAL[1])
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
    code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    page.wait_for_function(
        """last => /\\d/.test(document.querySelectorAll(".jp-Notebook .jp-Cell")[last]
            .querySelector(".jp-InputPrompt").innerText)""",
        arg=code[-1],
    )
    seen = page.evaluate(CELLS)
    assert all(re.search(r"\d", seen[i]["count"]) for i in code)
    tests = [i for i in code if "raises-exception" in notebook.cells[i].metadata.get("tags", [])]
    assert len(tests) >= 3 and all(seen[i]["error"] for i in tests)

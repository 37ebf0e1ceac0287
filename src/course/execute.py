"""Run chapters and store their outputs."""

import os
import time
from base64 import b64decode

from nbclient import NotebookClient
from nbformat import NotebookNode

from course import doctor
from course.chapters import ROOT, Chapter
from course.figures import FIGURE_FORMATS, store_figures
from course.inputs import hash_of_inputs
from course.notebooks import read_notebook, write_notebook

CHAPTER_CELL_SECONDS = 600
FRONT_PAGE = {"fig-zero-shot-size": ROOT / "_assets" / "zero-shot"}  # .png and .svg


def execute(chapter: Chapter) -> float:
    """Run a chapter from top to bottom, store its outputs, and return the seconds it took.

    The time, this machine's speed and a hash of what was run go into the notebook's
    metadata, for `course doctor` and `course execute --changed`. Raises
    nbclient.exceptions.CellExecutionError with the failing cell; the file then stays as it was.
    """
    notebook = read_notebook(chapter.path)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait sleep, not spin
    steps_per_second = doctor.training_speed()
    start = time.perf_counter()
    client = NotebookClient(
        notebook,
        timeout=CHAPTER_CELL_SECONDS,
        kernel_name="python3",
        coalesce_streams=True,  # a progress bar leaves its last state, not all of them
        extra_arguments=FIGURE_FORMATS,
        resources={"metadata": {"path": str(chapter.path.parent)}},
    )
    client.execute()
    seconds = time.perf_counter() - start
    store_figures(notebook)
    notebook.metadata["course"] = {
        "run_seconds": round(seconds),
        "training_steps_per_second": round(steps_per_second),
        "inputs_sha256": hash_of_inputs(notebook),
    }
    write_notebook(notebook, chapter.path)
    for name, path in FRONT_PAGE.items():
        for suffix, picture in figure(notebook, name).items():
            path.with_suffix(suffix).write_bytes(picture)
    return seconds


def figure(notebook: NotebookNode, name: str) -> dict[str, bytes]:
    """Return a named figure as .png and as .svg, as far as the notebook holds it."""
    for cell in notebook.cells:
        if cell.metadata.get("mystnb", {}).get("figure", {}).get("name") == name:
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                if "image/png" in data:
                    drawn = {".png": b64decode(data["image/png"])}
                    if svg := data.get("image/svg+xml"):
                        drawn[".svg"] = svg.encode()
                    return drawn
    return {}

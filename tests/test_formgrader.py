"""The formgrader in JupyterLab, in a real browser: an answer marked by hand, the sandbox on."""

import csv
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from classkit import CHAPTER, NOTEBOOK, cell_named, make_class, solution

PEEK = """
import os
found = [path for path in ({solutions!r}, {gradebook!r}, {neighbor!r}) if os.path.exists(path)]
assert not found, f"a submission can read {{found}}"
"""

PATIENCE = 300_000  # milliseconds that a busy machine may take

SCRIPT = """My words. <img src="x" onerror="window.stolen = 1"><script>window.stolen = 1</script>
![a picture that is not there](attachment:image.png) ![one from elsewhere](http://127.0.0.1:9/x)"""


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    """Make a class in which Ann is graded and Ben, whose code looks around, is not yet."""
    kit = make_class(tmp_path_factory.mktemp("formgrader"), ["ann", "ben"])
    answers = solution()
    cell_named(answers, "written_effective_keys").source = SCRIPT
    kit.submit("ann", answers)
    curious = solution()
    grading = kit.folder / "grading"
    cell_named(curious, "sliding_mask").source += PEEK.format(
        solutions=str(kit.folder / "solutions"),
        gradebook=str(grading / "gradebook.db"),
        neighbor=str(grading / "submitted" / "ann"),
    )
    kit.submit("ben", curious)
    graded = kit.course("grade", "4", "--student", "ann")
    assert "is to be read" in graded.stdout, graded.stdout + graded.stderr
    return kit


@pytest.fixture(scope="module")
def lab(kit):
    """Start JupyterLab in the class as `course review --open` does; return its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    command += [f"--ServerApp.port={port}", "--IdentityProvider.token=test"]
    environment = {**os.environ, "PYTHONPATH": str(kit.folder / "src")}
    with open(kit.folder / "lab.log", "w") as log:
        server = subprocess.Popen(
            command, cwd=kit.folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):  # minutes, on a busy machine
        try:
            urllib.request.urlopen(f"{address}/api?token=test", timeout=5)
            break
        except OSError:
            time.sleep(0.5)
    else:
        pytest.fail((kit.folder / "lab.log").read_text()[-2000:])
    yield address
    server.terminate()
    server.wait(PATIENCE / 1000)


@pytest.fixture
def page(browser, lab):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{lab}/api?token=test")
    yield page
    context.close()


def test_a_person_marks_a_written_answer(kit, lab, page):
    page.goto(f"{lab}/formgrader/gradebook/{CHAPTER}/{NOTEBOOK}")
    page.locator("a[href*='/formgrader/submissions/']").first.click()
    mark = page.locator("input.score#written_effective_keys")
    mark.wait_for()
    assert page.locator("text=My words.").count() == 1
    assert page.evaluate("window.stolen") is None
    page.wait_for_function("document.getElementById('test_sliding_mask').placeholder")
    page.wait_for_timeout(1000)  # comments arrive after grades, and nothing on the page says so
    comment = page.locator("textarea.comment").last
    for field, text, what in (
        (mark, "1.5", "grade"),
        (comment, "The table is right; say why the scale of D hides it.", "comment"),
    ):
        with page.expect_response(lambda r, w=what: f"/api/{w}/" in r.url and r.ok):
            field.fill(text)
            field.press("Tab")

    assert "nothing needs a person" in kit.course("review", "4").stdout
    assert "1 pages." in kit.course("feedback", "4").stdout
    feedback = kit.folder / "grading" / "feedback" / "ann" / CHAPTER / f"{NOTEBOOK}.html"
    text = feedback.read_text(encoding="utf-8")
    assert "say why the scale of D hides it" in text and "My words." in text
    page.goto(feedback.as_uri())
    assert page.evaluate("window.stolen") is None
    rows = list(csv.DictReader(kit.course("export", "4").stdout.splitlines()))
    ann = next(row for row in rows if row["student"] == "ann")
    assert (ann["status"], ann["score"], ann["max_score"]) == ("graded", "15.5", "16")


def test_the_autograde_button_runs_in_the_sandbox(kit, lab, page):
    page.goto(f"{lab}/formgrader/manage_submissions/{CHAPTER}")
    page.locator("tr", has_text="ben").locator("td.autograde a").click()
    page.get_by_text("Successfully autograded").wait_for()
    cell = cell_named(kit.graded("ben"), "sliding_mask")
    assert [output for output in cell.outputs if output.output_type == "error"] == []
    assert not [o for o in cell_named(kit.graded("ben"), "test_sliding_mask").outputs]

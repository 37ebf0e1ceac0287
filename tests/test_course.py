"""The house rules: one source of code, the import graph, notebooks that stay true."""

import ast
import re
import subprocess
import sys
from collections import Counter

import nbformat
import pytest

from course import chapters, doctor, maps, sync
from course.__main__ import main
from course.chapters import CHAPTERS, ROOT, written
from course.execute import FRONT_PAGE, execute, figure
from course.notebooks import normalize, read_notebook, write_notebook

IGNORE_TAG = "nbval-ignore-output"


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def source_without_magics(cell):
    return re.sub(r"^\s*[%!].*$", "pass", cell.source, flags=re.MULTILINE)


def imports_of(source):
    """Return the modules of gpt2 that a source imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "gpt2":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gpt2."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("gpt2.")}
    return found


def check_imports(module, source):
    """The module of chapter k may import only modules of earlier chapters."""
    order = [chapter.module for chapter in CHAPTERS]
    later = imports_of(source) - set(order[: order.index(module)])
    assert not later, f"{module} imports {sorted(later)}, which no earlier chapter has built"


def check_ignored_cells(notebook):
    """Count the cells whose output is not compared; each must assert what the text claims."""
    ignored = [
        cell
        for cell in code_cells(notebook)
        if IGNORE_TAG in cell.metadata.get("tags", []) or "NBVAL_" in cell.source
    ]
    for cell in ignored:
        asserts = [
            node
            for node in ast.walk(ast.parse(source_without_magics(cell)))
            if isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant)
        ]
        assert asserts, f"this cell's output is ignored and it asserts nothing:\n{cell.source}"
    return len(ignored)


@pytest.fixture(params=written(), ids=lambda chapter: chapter.stem)
def notebook(request):
    return read_notebook(request.param.path)


def test_cells_equal_src():
    assert sync.sync(check=True) == []


def test_sync_check_names_a_changed_cell(monkeypatch, capsys):
    chapter = written()[0]
    changed = read_notebook(chapter.path)
    cell, _, name = next(sync.tagged_cells(changed))
    cell.source += "  # drifted"
    monkeypatch.setattr(sync, "read_notebook", lambda path: changed)
    monkeypatch.setattr(sync, "written", lambda: [chapter])
    assert main(["sync", "--check"]) == 1
    assert f"chapters/{chapter.path.name}: the cell of {name} differs" in capsys.readouterr().out


def test_sync_rejects_a_tag_without_definition():
    with pytest.raises(ValueError, match="defines no 'nothing'"):
        sync.wanted_text("gpt2/attention.py", "nothing")


def test_maps_differ_by_the_room_that_is_lit():
    assert len({maps.draw(chapter.number) for chapter in CHAPTERS}) == len(CHAPTERS)


@pytest.mark.parametrize("chapter", written(), ids=lambda chapter: chapter.module)
def test_import_graph_is_the_table_of_contents(chapter):
    source = (ROOT / "src" / "gpt2" / f"{chapter.module}.py").read_text(encoding="utf-8")
    check_imports(chapter.module, source)


@pytest.mark.parametrize(
    "source",
    ["from gpt2.decoder import GPT", "import gpt2.training", "def f():\n    from gpt2 import bert"],
)
def test_import_graph_fails_on_a_later_module(source):
    with pytest.raises(AssertionError, match="no earlier chapter has built"):
        check_imports("attention", source)


def test_every_module_has_a_chapter():
    modules = {path.stem for path in (ROOT / "src" / "gpt2").glob("*.py")}
    beside = {"__init__", "__main__", "runs", "texts"}  # the command line
    assert modules - beside == {chapter.module for chapter in written()}


def test_every_public_definition_is_shown_in_exactly_one_chapter():
    shown = Counter()
    for chapter in written():
        for _, path, name in sync.tagged_cells(read_notebook(chapter.path)):
            assert path == f"gpt2/{chapter.module}.py", f"{chapter.stem} shows {path}::{name}"
            shown[path, name] += 1
    wanted = Counter(
        (f"gpt2/{chapter.module}.py", name)
        for chapter in written()
        for name in sync.definitions(ROOT / "src" / "gpt2" / f"{chapter.module}.py")
        if not name.startswith("_")
    )
    assert shown == wanted


def test_no_chapter_imports_what_it_shows(notebook):
    shown = {name for _, _, name in sync.tagged_cells(notebook)}
    for cell in code_cells(notebook):
        for node in ast.walk(ast.parse(source_without_magics(cell))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gpt2"):
                assert not shown & {alias.name for alias in node.names}, cell.source


def test_ignored_cells_assert_their_claim(notebook, record_property):
    count = check_ignored_cells(notebook)
    record_property("ignored_cells", count)
    assert count <= 8, f"{count} outputs of this chapter are not compared"


@pytest.mark.parametrize("source", ["print(time)", "assert True\nprint(time)"])
def test_an_ignored_cell_without_assertion_fails(source):
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": [IGNORE_TAG]})
    with pytest.raises(AssertionError, match="asserts nothing"):
        check_ignored_cells(nbformat.v4.new_notebook(cells=[cell]))


def test_chapter_is_executed_in_order_and_without_trouble(notebook):
    cells = [cell for cell in code_cells(notebook) if cell.source.strip()]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            ignored = IGNORE_TAG in cell.metadata.get("tags", [])
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr" or ignored, cell.source
            text = output.get("text", "") + output.get("data", {}).get("text/plain", "")
            assert not re.search(r"\bat 0x[0-9a-f]{6,}", text), f"a memory address: {text}"
            assert "cuda" not in text.lower() or ignored, f"a device name: {text}"


def test_chapter_has_its_shape(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert text.startswith("# ")
    for heading in ("## What you will build", "## From the paper", "## Misconception", "## Summary",
                    "## Check yourself", "## Exercises", "## Further reading"):  # fmt: skip
        assert heading in text, f"no section {heading!r}"
    words = len(text.split()) - len(quiz_of(notebook).split())
    assert 2300 <= words <= 5000, f"{words} words of prose"
    assert 25 <= len(code_cells(notebook)) <= 55
    for cell in code_cells(notebook):
        assert len(cell.source.splitlines()) <= 32, f"too long for one cell:\n{cell.source}"


QUESTION = re.compile(r"^\*\*(\d+)\. (.+?)\*\*$", re.MULTILINE)
ANSWER = re.compile(
    r'^<details class="quiz"><summary>(.+?)</summary>\n\n\*\*(Yes|No)\.\*\* (.+?)\n\n</details>$',
    re.MULTILINE | re.DOTALL,
)


def quiz_of(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return text.partition("\n## Check yourself\n")[2].partition("\n## ")[0]


def test_a_quiz_explains_every_answer_and_gives_none_away(notebook):
    """Each question has one right answer; neither its place nor its length tells which."""
    parts = re.split(r"(?=^\*\*\d+\. )", quiz_of(notebook), flags=re.MULTILINE)[1:]
    assert 4 <= len(parts) <= 6
    places, longest = [], 0
    for number, part in enumerate(parts, start=1):
        assert QUESTION.search(part)[1] == str(number)
        answers = ANSWER.findall(part)
        assert 3 <= len(answers) <= 4 and len(answers) == part.count("<details"), part
        verdicts = [verdict for _, verdict, _ in answers]
        assert verdicts.count("Yes") == 1, part
        places.append(verdicts.index("Yes"))
        sizes = [len(answer) for answer, _, _ in answers]
        longest += sizes[places[-1]] == max(sizes)
        assert all(len(why.split()) >= 5 for _, _, why in answers), part
        assert all("$" not in answer and "`" not in answer for answer, _, _ in answers), part
    assert len(set(places)) > 1 and longest < len(parts), (places, longest)


def test_figures_have_caption_name_and_alt_text():
    names = Counter()
    for chapter in written():
        notebook = read_notebook(chapter.path)
        text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        figures = [
            cell
            for cell in code_cells(notebook)
            if any("image/png" in output.get("data", {}) for output in cell.outputs)
        ]
        assert len(figures) >= 2, f"{chapter.stem} has {len(figures)} figures"
        for cell in figures:
            figure = cell.metadata.get("mystnb", {}).get("figure", {})
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert figure.get("caption") and len(alt) > 20, f"{chapter.stem}:\n{cell.source}"
            assert f"`{figure['name']}`" in text, f"no sentence refers to {figure['name']}"
            names[figure["name"]] += 1
    assert max(names.values()) == 1, names.most_common(1)


def test_the_front_page_shows_the_figures_of_the_chapters():
    page = (ROOT / "index.md").read_text(encoding="utf-8")
    for name, path in FRONT_PAGE.items():
        drawn = [figure(read_notebook(chapter.path), name) for chapter in written()]
        assert [picture for picture in drawn if picture] == [path.read_bytes()], name
        assert f"_assets/{path.name}" in page


def test_normalizing_twice_changes_nothing(tmp_path):
    path = tmp_path / "n.ipynb"
    cells = [nbformat.v4.new_code_cell("1 + 1") for _ in range(2)]
    cells[0].outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="a"),
        nbformat.v4.new_output("stream", name="stdout", text="b"),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"editor": "mine"})
    assert write_notebook(notebook, path)
    first = path.read_bytes()
    again = read_notebook(path)
    assert not write_notebook(again, path)
    assert path.read_bytes() == first
    assert [output.text for output in again.cells[0].outputs] == ["ab"]
    assert len({cell.id for cell in again.cells}) == 2
    assert "editor" not in again.metadata


def test_execute_stores_outputs_and_keeps_the_file_when_a_cell_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "training_speed", lambda: 100.0)
    monkeypatch.setattr(chapters, "ROOT", tmp_path)
    (tmp_path / "chapters").mkdir()
    chapter = chapters.Chapter(1, "01_small", "Small", "small")
    write_notebook(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("6 * 7")]), chapter.path
    )
    execute(chapter)
    notebook = read_notebook(chapter.path)
    assert notebook.cells[0].outputs[0].data["text/plain"] == "42"
    assert notebook.metadata.course.training_steps_per_second == 100

    notebook.cells[0].source = "1 / 0"
    normalize(notebook)
    write_notebook(notebook, chapter.path)
    before = chapter.path.read_bytes()
    with pytest.raises(Exception, match="ZeroDivisionError"):
        execute(chapter)
    assert chapter.path.read_bytes() == before


def test_doctor_says_whether_the_course_runs(capsys):
    assert main(["doctor"]) == 0
    report = capsys.readouterr().out
    assert "The course will run here." in report
    for chapter in written():
        assert f"chapter {chapter.number} " in report


def test_doctor_names_the_cure(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "NEEDED_MEMORY_GIB", 10**6)
    monkeypatch.setattr(doctor, "training_speed", lambda: 100.0)
    assert main(["doctor"]) == 1
    assert "memory: close programs: 1000000 GiB are needed" in capsys.readouterr().out


def test_unknown_chapter_lists_the_known_ones(capsys):
    assert main(["execute", "nonsense"]) == 2
    assert "04_attention" in capsys.readouterr().err


def test_course_runs_as_a_module():
    run = subprocess.run([sys.executable, "-m", "course", "--help"], capture_output=True, text=True)
    assert run.returncode == 0 and "sync" in run.stdout

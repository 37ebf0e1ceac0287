"""The house rules: one source of code, the import graph, notebooks that stay true."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from importlib import metadata
from types import SimpleNamespace

import nbformat
import pytest

from course import chapters, doctor, inputs, maps, syllabus, sync
from course.__main__ import main
from course.chapters import CHAPTERS, ROOT, written
from course.execute import FRONT_PAGE, execute, figure
from course.exercises import exercises, path_of
from course.inputs import has_changed
from course.notebooks import normalize, read_notebook, write_notebook
from course.references import CAPTION, as_roles, as_words, write_references

IGNORE_TAG = "nbval-ignore-output"
WITH_MODULE = [chapter for chapter in written() if chapter.module]  # all but the preliminaries


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
    chapter = WITH_MODULE[0]
    changed = read_notebook(chapter.path)
    cell, _, name = next(sync.tagged_cells(changed))
    cell.source += "  # drifted"
    monkeypatch.setattr(sync, "read_notebook", lambda path: changed)
    monkeypatch.setattr(sync, "written", lambda: [chapter])
    assert main(["sync", "--check"]) == 1
    assert f"chapters/{chapter.path.name}: the cell of {name} differs" in capsys.readouterr().out


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Copy what `course sync` reads and writes, as a clone has it: every file is from now."""
    for name in ("chapters", "solutions", "src", "_assets", "models"):
        ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored, copy_function=shutil.copyfile)
    for module in (chapters, inputs, sync, syllabus):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_sync_changes_nothing_on_a_fresh_clone(fresh):
    before = contents(fresh)
    assert sync.sync() == []
    assert contents(fresh) == before


@pytest.mark.filterwarnings("ignore:Cell is missing an id", "ignore:Non-unique cell id")
def test_sync_mends_what_an_editor_left_and_keeps_ids(fresh):
    path = fresh / "chapters" / "04_attention.ipynb"
    notebook = read_notebook(path)
    ids = [cell.id for cell in notebook.cells]
    notebook.metadata["widgets"] = "an editor's"
    notebook.cells[1].source += "\nA new sentence."  # the id is no hash of it
    notebook.cells[3].id = notebook.cells[2].id  # a cell that was copied
    del notebook.cells[4]["id"]
    path.write_text(nbformat.writes(notebook, version=nbformat.NO_CONVERT), encoding="utf-8")
    said = ["chapters/04_attention.ipynb is not as `course sync` writes it"]
    assert sync.sync(check=True) == said and sync.sync() == said
    assert sync.sync(check=True) == []
    after = [cell.id for cell in read_notebook(path).cells]
    assert [i for i, (a, b) in enumerate(zip(ids, after, strict=True)) if a != b] == [3, 4]
    assert len(set(after)) == len(after)


def sixth_exercise(heading):
    """Return the cells of an exercise of 3 + 2 points."""
    cells = [nbformat.v4.new_markdown_cell(f"{heading}\n\nDo it.")]
    for name, given in {
        "sixth": {"solution": True},
        "test_sixth": {"grade": True, "points": 3},
        "test_more": {"grade": True, "points": 2},
    }.items():
        cells.append(nbformat.v4.new_code_cell("pass"))
        cells[-1].metadata["nbgrader"] = {"grade_id": name} | given
    return cells


def test_an_exercise_is_added_without_a_table(fresh):
    """All numbers follow from its heading and its cells; a sentence about it is by hand."""
    source = fresh / "solutions" / "04_attention" / "attention.ipynb"
    notebook = read_notebook(source)
    last = exercises(notebook)[4]
    place = notebook.cells.index(last.cells[0])
    notebook.cells[place:place] = sixth_exercise("## 1. New (hard, 1 point, 12 minutes)")
    write_notebook(notebook, source)
    page = fresh / "chapters" / "04_attention.ipynb"
    before = contents(fresh)
    with pytest.raises(
        ValueError, match=r"has 5 lines; write one for each:(.|\n)*5\. \*Hard, 12 minutes\.\* New"
    ):
        sync.sync()
    assert contents(fresh) == before  # nothing is half done

    chapter = read_notebook(page)
    cell = next(cell for cell in chapter.cells if "\n## Exercises\n" in cell.source)
    cell.source = cell.source.replace("\n5. *", "\n1. *Easy, 3 minutes.* The new one.\n5. *")
    write_notebook(chapter, page)
    assert len(sync.sync()) == 3  # the source, the chapter, teaching.md
    assert sync.sync(check=True) == []

    text = source.read_text(encoding="utf-8")
    assert "Six exercises from easy to hard, 21 points, about 75 minutes. They go with" in text
    assert "## 5. New (hard, 5 points, 12 minutes)" in text and f"## 6. {last.title} (" in text
    text = page.read_text(encoding="utf-8")
    assert "21 points in about 75 minutes" in text and "5. *Hard, 12 minutes.* The new" in text
    assert f"6. *Hard, {last.minutes} minutes.*" in text
    text = (fresh / "chapters" / "teaching.md").read_text(encoding="utf-8")
    assert text.count("| 4 Masked self-attention | 6 | 21 | 2.2 |") == 2  # 60 and 75 minutes


@pytest.mark.parametrize(
    ("file", "right", "wrong", "says"),
    [
        ("solutions/04_attention/attention.ipynb", "(easy, 2 points,", "(easy, 2 pts,",
         r"write the heading `## 1\. A mask .*` as `## 1\. Title \(easy, 2 points, 5 minutes\)`"),
        ("solutions/04_attention/attention.ipynb", "exercises from easy to hard,", "exercises,",
         r"write into its first cell: Five exercises from easy to hard, 16 points"),
        ("chapters/04_attention.ipynb", "Time to read: 60 minutes", "Time to read: an hour",
         r"04_attention\.ipynb: write under `What you will build`: Time to read: 60 minutes\."),
        ("chapters/04_attention.ipynb", "16 points in about", "In about",
         r"04_attention\.ipynb: say once under `Exercises`: 16 points"),
    ],
)  # fmt: skip
def test_sync_says_what_to_write_where_a_number_has_no_place(fresh, file, right, wrong, says):
    text = (fresh / file).read_text(encoding="utf-8")
    assert text.count(right) == 1
    (fresh / file).write_text(text.replace(right, wrong), encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        sync.sync(check=True)


def test_sync_works_in_a_copy_for_students(fresh):
    """They get no solutions/."""
    shutil.rmtree(fresh / "solutions")
    assert sync.sync(check=True) == []


def test_the_plans_of_the_book_begin_before_the_first_week(capsys):
    """Week 0 is the preliminaries, which no sum counts and no other plan has."""
    assert main(["syllabus"]) == 0
    everything = capsys.readouterr().out
    assert main(["syllabus", "0"]) == 0
    cells = capsys.readouterr().out.splitlines()[2].split("|", 2)[2]  # of week 1, as a plan has it
    for weeks, plan in syllabus.SYLLABI.items():
        week_0 = syllabus.syllabus(plan, week_0=True)
        assert week_0.splitlines()[2] == f"| 0 |{cells}"
        assert week_0.replace(f"| 0 |{cells}\n", "") == syllabus.syllabus(plan)
        assert week_0 in everything
        page = (ROOT / "chapters" / "teaching.md").read_text(encoding="utf-8")
        assert f"<!-- syllabus {weeks} -->\n\n{week_0}\n" in page


def test_a_plan_adds_up(capsys):
    """Against a sum that is done here; a chapter that is not there is named."""
    assert main(["syllabus", "1,3", "an exam", "4"]) == 0
    rows = capsys.readouterr().out.splitlines()
    sums = []
    for plan in ([1, 3], [4], [1, 3, 4]):
        todo = [chapter for chapter in written() if chapter.number in plan]
        tasks = [
            exercise
            for chapter in todo
            for exercise in exercises(read_notebook(path_of(chapter, ROOT / "solutions")))
        ]
        minutes = sum(c.reading for c in todo) + sum(t.minutes for t in tasks)
        sums.append(f"{len(tasks)} | {sum(t.points for t in tasks)} | {minutes / 60:.1f} |")
    assert rows[2:] == [
        f"| 1 | 1 Language models, 3 Text to batches | {sums[0]}",
        "| 2 | an exam | | | |",
        f"| 3 | 4 Masked self-attention | {sums[1]}",
        f"| | together | {sums[2]}",
    ]
    assert main(["syllabus", "1", "14"]) == 2
    assert "no chapter is called '14'" in capsys.readouterr().err


def test_sync_rejects_a_tag_without_definition():
    with pytest.raises(ValueError, match="defines no 'nothing'"):
        sync.wanted_text("gpt2/attention.py", "nothing")


def test_maps_differ_by_the_room_that_is_lit():
    assert len({maps.draw(chapter.number) for chapter in CHAPTERS}) == len(CHAPTERS)


def test_the_rooms_of_the_map_lie_apart_and_inside():
    """The preliminaries above all others, as wide as they are together."""
    drawn = maps.draw(0)
    number = r'\b(?:x|y|width|height)="(\d+)"'
    rooms = [tuple(map(int, re.findall(number, tag))) for tag in re.findall("<rect x[^>]+>", drawn)]
    width, height = map(int, re.search(r'viewBox="0 0 (\d+) (\d+)"', drawn).groups())
    assert len(rooms) == len(CHAPTERS)
    for x, y, w, h in rooms:
        assert x > 0 and x + w < width and y > 0 and y + h < height
    for i, (x, y, w, h) in enumerate(rooms):
        for a, b, c, d in rooms[:i]:
            assert x >= a + c or a >= x + w or y >= b + d or b >= y + h
    first, *others = rooms
    assert all(y > first[1] for _, y, _, _ in others)
    assert (first[0], first[0] + first[2]) == (
        min(x for x, _, _, _ in others),
        max(x + w for x, _, w, _ in others),
    )


@pytest.mark.parametrize("chapter", WITH_MODULE, ids=lambda chapter: chapter.module)
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
    beside = {"__init__", "__main__", "runs", "texts", "faster"}  # the command line
    assert modules - beside == {chapter.module for chapter in WITH_MODULE}


def test_the_preliminaries_build_nothing_and_need_nothing():
    """Chapter 0 is found by its names; it shows no module, and imports none."""
    chapter = CHAPTERS[0]
    assert (chapter.number, chapter.module) == (0, "")
    assert [chapters.find(name) for name in ("0", "00_pytorch", "pytorch")] == [chapter] * 3
    with pytest.raises(ValueError, match="no chapter is called ''"):
        chapters.find("")
    notebooks = [read_notebook(chapter.path), read_notebook(path_of(chapter, ROOT / "solutions"))]
    assert not list(sync.tagged_cells(notebooks[0]))
    assert not any(imports_of(cell.source) for n in notebooks for cell in code_cells(n))


def test_every_public_definition_is_shown_in_exactly_one_chapter():
    shown = Counter()
    for chapter in written():
        for _, path, name in sync.tagged_cells(read_notebook(chapter.path)):
            assert path == f"gpt2/{chapter.module}.py", f"{chapter.stem} shows {path}::{name}"
            shown[path, name] += 1
    wanted = Counter(
        (f"gpt2/{chapter.module}.py", name)
        for chapter in WITH_MODULE
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


def prose_of(notebook):
    """Return a chapter's text as its author writes it: roles, and captions beside their figures."""
    cells = [c for c in notebook.cells if CAPTION not in c.metadata.get("tags", [])]
    return as_roles("\n".join(cell.source for cell in cells if cell.cell_type == "markdown"))


def test_chapter_has_its_shape(notebook):
    text = prose_of(notebook)
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
    return prose_of(notebook).partition("\n## Check yourself\n")[2].partition("\n## ")[0]


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


ROLES = (
    "{numref}`fig-b` is of {cite:t}`vaswani2017attention`, not "
    "{cite:p}`press2017using,gage1994new`."
)
WORDS = (
    "[Fig. 7.2](#fig-b) is of [Vaswani et al. (2017)](../references.bib#vaswani2017attention), not "
    "([Press and Wolf, 2017](../references.bib#press2017using); "
    "[Gage, 1994](../references.bib#gage1994new))."
)


def test_references_read_as_words_and_are_read_back():
    numbers = {"fig-a": "7.1", "fig-b": "7.2"}
    assert as_words(ROLES, numbers) == as_words(WORDS, numbers) == WORDS
    assert as_roles(WORDS) == as_roles(ROLES) == ROLES
    assert (
        as_words(WORDS.replace("7.2", "7.9").replace("Gage, 1994", "Gage, 1949"), numbers) == WORDS
    )
    sentence = "(like {cite:t}`gage1994new`) ({cite:t}`gage1994new`; {cite:t}`press2017using`)"
    assert as_roles(as_words(sentence, numbers)) == sentence
    for wrong in ("{numref}`fig-c`", "{cite:t}`nobody1999nothing`"):
        with pytest.raises(ValueError, match=re.search("`(.*)`", wrong)[1]):
            as_words(wrong, numbers)


def test_sync_writes_a_title_line_above_each_figure():
    """Once; anew when a figure is added; with a line that says so when something differed."""
    chapter, new = CHAPTERS[7], nbformat.v4

    def drawing(name):
        figure = {"name": name, "caption": f"What {name} shows."}
        return new.new_code_cell("plt.show()", metadata={"mystnb": {"figure": figure}})

    text = new.new_markdown_cell("See {numref}`fig-b`.")
    notebook = new.new_notebook(cells=[text, drawing("fig-b")])
    assert len(write_references(notebook, chapter)) == 1
    assert write_references(notebook, chapter) == []
    notebook.cells.insert(0, drawing("fig-a"))
    assert len(write_references(notebook, chapter)) == 1
    shown = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert shown == [
        "**Fig. 7.1.** What fig-a shows.",
        "See [Fig. 7.2](#fig-b).",
        "**Fig. 7.2.** What fig-b shows.",
    ]
    assert [cell.cell_type for cell in notebook.cells] == ["markdown", "code"] + [
        "markdown"
    ] * 2 + ["code"]
    notebook.cells[0].source += " Edited by hand."
    assert len(write_references(notebook, chapter)) == 1
    assert notebook.cells[0].source == shown[0]


def test_figures_have_caption_name_and_alt_text():
    names = Counter()
    for chapter in written():
        notebook = read_notebook(chapter.path)
        text = prose_of(notebook)
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
        files = {file.suffix: file.read_bytes() for file in path.parent.glob(f"{path.name}.*")}
        assert [pictures for pictures in drawn if pictures] == [files], name
        assert f"_assets/{path.name}.*" in page


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


def test_an_id_belongs_to_its_cell_and_not_to_its_text():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1") for _ in range(3)])
    for cell, name in zip(notebook.cells, ("mine", "mine", ""), strict=True):
        cell.id = name
    normalize(notebook)
    first, *others = (cell.id for cell in notebook.cells)
    assert first == "mine" and len({first, *others}) == 3 and all(others)
    notebook.cells[0].source = "2"
    normalize(notebook)
    assert [cell.id for cell in notebook.cells] == [first, *others]


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
    assert not has_changed(notebook)
    ids = [cell.id for cell in notebook.cells]
    execute(chapter)
    assert [cell.id for cell in read_notebook(chapter.path).cells] == ids

    notebook.cells[0].source = "1 / 0"
    normalize(notebook)
    write_notebook(notebook, chapter.path)
    before = chapter.path.read_bytes()
    with pytest.raises(Exception, match="ZeroDivisionError"):
        execute(chapter)
    assert chapter.path.read_bytes() == before


def test_a_chapter_has_changed_if_what_it_imports_has(fresh):
    """Directly or through others, its data included; and never by the date of a file."""
    notebooks = {chapter.number: read_notebook(chapter.path) for chapter in written()}

    def hashes():
        return {number: inputs.hash_of_inputs(notebook) for number, notebook in notebooks.items()}

    before = hashes()
    for file, changed in {
        "src/gpt2/attention.py": {4, 5, 6, 7, 8, 9, 10},  # chapter 4 loads a trained GPT
        "src/gpt2/transformer.py": {4, 8, 10},  # `course.models` takes the sinusoids
        "src/gpt2/__main__.py": {6},  # it runs `python -m gpt2`
        "src/miniweb/countries.tsv": set(range(1, 11)),
        "src/miniweb/cities.tsv": {4, 8},
        "src/miniweb/lexicon/things.tsv": {4, 8},
        "src/course/models.py": {4, 8},
        "src/course/figures.mplstyle": set(range(1, 11)),
        "src/course/check.py": set(),
        "models/results/1M-0.json": {4, 8},
        "models/translators/pairs.json": {10},
        "models/runs/0.1M-0/log.json": set(),  # what a reader trains is no part of the chapter
    }.items():
        (fresh / file).parent.mkdir(parents=True, exist_ok=True)
        (fresh / file).touch()
        content = (fresh / file).read_bytes()
        (fresh / file).write_bytes(content + b"\n")
        now = hashes()
        found = {number for number in before if now[number] != before[number]}
        assert found & set(range(1, 11)) == changed, file
        (fresh / file).write_bytes(content)
        os.utime(fresh / file, (2e9, 2e9))
    assert hashes() == before


def test_a_chapter_has_changed_if_its_code_has():
    notebook = read_notebook(written()[3].path)
    notebook.metadata["course"] = {"inputs_sha256": inputs.hash_of_inputs(notebook)}
    notebook.cells[0].source += "\nAnother word."
    code_cells(notebook)[0].outputs = []
    assert not has_changed(notebook)
    code_cells(notebook)[0].source += "\n"
    assert has_changed(notebook)
    assert has_changed(nbformat.v4.new_notebook())  # nobody knows what its outputs come from


def test_execute_changed_runs_what_has_changed(fresh, monkeypatch, capsys):
    for chapter in written():  # as if each had been executed
        notebook = read_notebook(chapter.path)
        notebook.metadata["course"]["inputs_sha256"] = inputs.hash_of_inputs(notebook)
        write_notebook(notebook, chapter.path)
    ran = []
    monkeypatch.setattr("course.execute.execute", lambda chapter: ran.append(chapter.number) or 0.0)
    assert main(["execute", "--changed"]) == 0 and ran == []
    assert "no chapter has changed" in capsys.readouterr().out
    with (fresh / "src" / "course" / "translators.py").open("a") as file:
        file.write("\n")
    assert main(["execute", "--changed", "4", "10"]) == 0 and ran == [10]
    assert main(["execute", "4"]) == 0 and ran == [10, 4]


def test_one_word_is_one_thing():
    """No public name of course is defined in two of its modules."""
    homes = Counter()
    for path in (ROOT / "src" / "course").glob("*.py"):
        homes.update(name for name in sync.definitions(path) if not name.startswith("_"))
    assert [name for name, count in homes.items() if count > 1] == []


def test_the_map_of_contributing_is_true():
    """It has every module of course and names tests that exist; grading is not imported."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tables = text.partition("\n## The map\n")[2].partition("\n## ")[0].split("\nGrading, ")
    course, grading = (re.findall(r"^\| `(\w+)` \| .+ \|$", table, re.M) for table in tables)
    modules = {path.stem for path in (ROOT / "src" / "course").glob("*.py")}
    assert sorted(course + grading) == sorted(modules - {"__init__"})
    for name in re.findall(r"`(test_\w+)`", "".join(tables)):
        assert (ROOT / "tests" / f"{name}.py").exists(), name
    allowed = [course[:8], course]
    for module in course[:-1]:  # the last, __main__, runs everything
        source = (ROOT / "src" / "course" / f"{module}.py").read_text(encoding="utf-8")
        named = " ".join(re.findall(r"^\s*from course[. ](.+)$", source, re.MULTILINE))
        used = modules & set(re.findall(r"\w+", named))
        assert used <= set(allowed[module not in course[:8]]), module


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
    cure = "memory: this machine has too little: 1000000 GiB are needed"
    assert cure in capsys.readouterr().out


def test_doctor_takes_a_machine_of_4_gib_and_a_newer_python(monkeypatch):
    """Such a machine reports less: its firmware and its kernel keep some."""
    memory = SimpleNamespace(total=3.8 * 2**30)
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: memory)
    assert doctor.memory() == doctor.Finding("memory", "4 GiB")
    for version, cured in {(3, 10): True, (3, 11): False, (3, 14): False, (3, 15): False}.items():
        monkeypatch.setattr(sys, "version_info", (*version, 0))
        finding = doctor.python()
        assert bool(finding.cure) == cured and ("tested up to 3.14" in finding.value) == (
            version > (3, 14)
        )


def test_doctor_says_how_a_missing_package_is_installed(monkeypatch):
    """`make lab` does not: for it the environment is made."""
    real = metadata.version

    def version(name):
        if name == "nbval":
            raise metadata.PackageNotFoundError
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    missing = [finding for finding in doctor.versions() if finding.cure]
    assert [finding.what for finding in missing] == ["nbval"]
    assert '-m pip install -c constraints.txt -e ".[test]"' in missing[0].cure


def test_unknown_chapter_lists_the_known_ones(capsys):
    assert main(["execute", "nonsense"]) == 2
    assert "04_attention" in capsys.readouterr().err


def test_course_runs_as_a_module():
    run = subprocess.run([sys.executable, "-m", "course", "--help"], capture_output=True, text=True)
    assert run.returncode == 0 and "sync" in run.stdout

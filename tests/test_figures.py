"""Figures: the SVG that a notebook stores beside the PNG, and what a page makes of it."""

import io
import re
import subprocess
import sys
from base64 import b64decode
from itertools import pairwise
from xml.etree import ElementTree

import matplotlib.style
import nbformat
import pytest
from matplotlib.figure import Figure
from PIL import Image

from course import chapters, doctor
from course.chapters import ROOT, written
from course.execute import execute
from course.figures import MOST_SVG_BYTES, compact, read_svg, store_figures
from course.notebooks import read_notebook, write_notebook

sys.path.insert(0, str(ROOT / "_ext"))
import book_figures

SCRIPTS = {
    "a script": "<script>alert(1)</script>",
    "an event": '<path d="M0 0" onload="alert(1)"/>',
    "a link": '<use href="javascript:alert(1)"/>',
    "an old link": '<use xmlns:x="http://www.w3.org/1999/xlink" x:href="https://a.example/b#c"/>',
    "another page": "<foreignObject><p/></foreignObject>",
    "a picture from elsewhere": '<image href="https://a.example/b.png"/>',
    "a drawing in a drawing": '<image href="data:image/svg+xml;base64,AAAA"/>',
    "paint from elsewhere": '<path style="fill:url(https://a.example/b)"/>',
    "an animation": '<animate attributeName="href"/>',
    "a link to press": '<a href="#x"><path d="M0 0"/></a>',
}


def draw_all(n=3):
    """Return the SVG of a figure with all that chapters draw: n points, bars, a picture, text."""
    with matplotlib.style.context("course.figures"):
        figure = Figure()
        left, right = figure.subplots(1, 2)
        left.plot(range(n), label="rising & falling")
        left.scatter(range(n), [i % 7 for i in range(n)], color="black")
        left.bar([1, 2], [1, 2], color="white", edgecolor="#c8553d", hatch="//")
        left.set(title="a < b", xlabel="steps", ylabel="loss")
        left.legend()
        right.imshow([[0, 1], [0.5, 0.2]], vmin=0, vmax=1)
        right.text(0, 0, "two\nlines", bbox={"facecolor": "white", "edgecolor": "0.4"})
        right.set_title(r"$p(\mathrm{output} \mid x)$")
        file = io.StringIO()
        figure.savefig(file, format="svg", bbox_inches="tight")
        return file.getvalue()


@pytest.fixture(scope="module")
def svg():
    return compact(draw_all())


def contrast(a, b):
    """Return the contrast of two colors as WCAG defines it, from 1 to 21."""

    def luminance(color):
        parts = [v / 255 for v in color]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return sum(v * w for v, w in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


# --- What a notebook stores ----------------------------------------------------------------------


def test_an_svg_is_small_and_the_same_each_time(svg):
    raw = draw_all()
    assert svg == compact(draw_all()) == compact(svg)
    assert len(svg) < 0.7 * len(raw)
    assert "<dc:date>" in raw and "date" not in svg and "<style" not in svg
    assert not re.search(r"\d\.\d{3}", "".join(re.findall(r' d="([^"]*)"', svg)))


def test_text_stays_text(svg):
    said = ["".join(text.itertext()) for text in ElementTree.fromstring(svg).findall(".//{*}text")]
    assert {"steps", "loss", "a < b", "rising & falling", "two", "lines"} <= set(said)
    assert "DejaVuSans-" not in svg, "letters as outlines"
    assert 'font-family="DejaVu Sans, Verdana, sans-serif"' in svg


def test_what_an_svg_refers_to_is_there(svg):
    ids = re.findall(r' id="([^"]+)"', svg)
    used = re.findall(r'(?:href="|url\()#([^")]+)', svg)
    assert len(ids) == len(set(ids)) and set(ids) == set(used) and len(used) > 4


def test_a_picture_in_an_svg_has_a_pixel_for_each_cell(svg):
    data = re.search(r'href="data:image/png;base64,([^"]+)"', svg)[1]
    assert Image.open(io.BytesIO(b64decode(data))).size == (2, 2)


def test_a_heavy_figure_keeps_its_png_alone():
    outputs = [
        nbformat.v4.new_output("display_data", {"image/png": "AAAA", "image/svg+xml": draw_all(n)})
        for n in (3, 4000)
    ]
    assert len(outputs[1].data["image/svg+xml"]) > MOST_SVG_BYTES
    store_figures(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[o]) for o in outputs])
    )
    assert [sorted(output.data) for output in outputs] == [
        ["image/png", "image/svg+xml"],
        ["image/png"],
    ]


@pytest.mark.parametrize("what", SCRIPTS)
def test_an_svg_that_runs_or_loads_something_is_refused(what):
    with pytest.raises(ValueError, match=r"an SVG (holds|loads)"):
        read_svg(f'<svg xmlns="http://www.w3.org/2000/svg"><g>{SCRIPTS[what]}</g></svg>')


def test_execute_stores_both_formats_the_same_each_time(tmp_path, monkeypatch):
    """And nbval accepts the notebook, whose kernel draws PNG alone."""
    monkeypatch.setattr(doctor, "training_speed", lambda: 100.0)
    monkeypatch.setattr(chapters, "ROOT", tmp_path)
    (tmp_path / "chapters").mkdir()
    chapter = chapters.Chapter(1, "01_small", "Small", "small")
    code = "import matplotlib.pyplot as plt\n\nplt.style.use('course.figures')\n"
    code += (
        "plt.plot([1, 3, 2], label='x')\nplt.legend()\nplt.bar([1], [2], hatch='//')\nplt.show()"
    )
    cells = [nbformat.v4.new_code_cell(code)]
    write_notebook(nbformat.v4.new_notebook(cells=cells), chapter.path)
    stored = []
    for _ in range(2):
        execute(chapter)
        stored.append(read_notebook(chapter.path).cells[0].outputs[-1].data)
    assert sorted(stored[0]) == ["image/png", "image/svg+xml", "text/plain"]
    assert stored[0] == stored[1]
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml")]
    command += ["--rootdir", str(tmp_path), "--nbval", str(chapter.path)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0 and "1 passed" in run.stdout, run.stdout + run.stderr


@pytest.mark.parametrize("chapter", written(), ids=lambda chapter: chapter.stem)
def test_every_figure_of_a_chapter_is_stored_as_png_and_svg(chapter):
    """Those that were too heavy excepted: none is today."""
    figures = [
        output.data
        for cell in read_notebook(chapter.path).cells
        for output in cell.get("outputs", [])
        if any(kind.startswith("image/") for kind in output.get("data", {}))
    ]
    assert figures
    for data in figures:
        assert {"image/png", "image/svg+xml"} <= set(data), data["text/plain"]
        assert compact(data["image/svg+xml"]) == data["image/svg+xml"]


# --- What a page makes of it ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawing(svg):
    return book_figures.draw(svg, 'Two "panels", a < b')


def test_a_drawing_has_the_colors_of_the_theme(drawing):
    name = re.search(r'class="drawing (\w+)"', drawing)[1]
    night = re.search(rf'@media screen{{html\[data-theme="dark"\] \.{name}{{(.*?)}}}}', drawing)
    inside = drawing.replace(night[0], "")
    assert "#000" not in inside and "#fff" not in inside
    assert "var(--pst-color-background)" in inside and "currentColor" in inside
    colors = set(re.findall(r"(?<![(\w])#([0-9a-f]{6})\b", inside))
    assert {"1b3a6b", "c8553d", "e4e4e4", "666666"} <= colors
    assert set(re.findall(r"var\(--c(\w+),#\1\)", inside)) == colors
    assert dict(re.findall(r"--c(\w+):#(\w{6});", night[1])) == {
        color: bytes(book_figures.dark(color)).hex() for color in colors
    }


def test_rules_of_a_drawing_hold_in_it_alone(svg, drawing):
    name = re.search(r'class="drawing (\w+)"', drawing)[1]
    style = re.search(r"<style>(.*?)</style>", drawing)[1]
    selectors = re.findall(r"([^{}]+){[^{}]*}", style.replace("@media screen{", ""))
    assert len(selectors) > 5 and all(f".{name}" in selector for selector in selectors)
    assert len(drawing) < len(svg), "styles that are shared are written once"


def test_a_drawing_lies_on_the_page_itself(drawing):
    """Matplotlib's first shape is a white sheet as large as the figure."""
    paths = re.findall(r"<path [^>]*>", drawing.partition("<defs")[0])
    width, height = re.search(r'viewBox="0 0 (\S+) (\S+)"', drawing).groups()
    assert not any(f"{width} {height}" in path for path in paths)


def test_a_drawing_says_what_it_shows_and_runs_nothing(drawing):
    root = ElementTree.fromstring(drawing)
    assert root.get("role") == "img" and root.get("aria-label") == 'Two "panels", a < b'
    assert "<script" not in drawing and not re.search(r"\son\w+=", drawing)
    assert "xmlns" not in drawing and "ns0:" not in drawing
    assert 700 < int(root.get("width")) < 760, "as wide as the PNG"


def test_ids_of_two_drawings_differ(drawing):
    other = book_figures.draw(compact(draw_all(4)), "")
    ids = [set(re.findall(r' id="([^"]+)"', text)) for text in (drawing, other)]
    assert ids[0] and not ids[0] & ids[1]
    for text, own in zip((drawing, other), ids, strict=True):
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', text)) == own


def test_a_picture_has_a_counterpart_in_the_dark(drawing):
    pixels = {}
    for tag in re.findall(r"<image [^>]*>", drawing):
        data = re.search(r'base64,\s*([^"]+)"', tag)[1]
        picture = Image.open(io.BytesIO(b64decode(data))).convert("RGB")
        pixels[re.search(r'class="([\w-]+)', tag)[1]] = [picture.getpixel((x, 0)) for x in (0, 1)]
    assert pixels == {
        "by-day": [(255, 255, 255), (0, 0, 0)],
        "by-night": [book_figures.PAPER, book_figures.INK],
    }


def test_lines_are_seen_in_both_themes():
    style = matplotlib.rc_params_from_file(
        ROOT / "src" / "course" / "figures.mplstyle", use_default_template=False
    )
    assert book_figures.dark("000000") == book_figures.INK
    assert book_figures.dark("ffffff") == book_figures.PAPER
    for color in style["axes.prop_cycle"].by_key()["color"]:
        color = color.removeprefix("#")
        rgb = tuple(bytes.fromhex(color))
        assert contrast(rgb, (255, 255, 255)) > 3, color
        assert contrast(book_figures.dark(color), book_figures.PAPER) > 3, color


def test_a_shade_is_as_far_from_the_page_as_it_was():
    shades = [book_figures.dark(f"{value:02x}" * 3) for value in range(0, 256, 5)]
    assert all(sum(a) > sum(b) for a, b in pairwise(shades))

"""What gives marks back, without a class: pages, and what a spreadsheet reads."""

import html.parser
import mmap
import multiprocessing
import sys
import time

import pytest
from bs4 import BeautifulSoup
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from nbgrader.server_extensions.formgrader.handlers import template_path
from traitlets.config import Config

from course import marks
from course.chapters import ROOT
from course.classroom import configure
from course.exercises import sources
from course.notebooks import read_notebook
from course.submissions import HideHiddenTests

PICTURE = {"image.png": {"image/png": "aaaa"}}
GIVEN = [  # what was written, and what the page says
    ("a < b", "a &lt; b"),
    ("if x<y and y>z", "if x&lt;y and y&gt;z"),
    ("> quote", "<blockquote>\n<p>quote</p>"),
    ("`a<b` & c", "<code>a&lt;b</code> &amp; c"),
    ("$t<T$ and $a & b$", "$t&lt;T$ and $a &amp; b$"),
    ("# Title <3", "<h1>Title &lt;3</h1>"),
    ("- [ ] open", "<li>[ ] open"),
    ("1. *x*\n2. ~~y~~", "<li><del>y</del></li>"),
    ("|a|\n|--:|\n|1<2|", '<td style="text-align:right;">1&lt;2</td>'),
    ("```python\nx = a < b\n```", "&lt;"),
    ("<details><summary>Hint</summary>\n\n**x**\n\n</details>", "<details><summary>Hint</summary>"),
    ("<b>x</b> <script>alert(1)</script>", "<b>x</b> &lt;script&gt;alert(1)"),
    ("![x](attachment:image.png)", '<img alt="x" src="data:image/png;base64,aaaa">'),
    ("![x](picture.png)", "![x](picture.png)"),
    ("\ue0000\ue001 \ue00099999\ue001", "<p> </p>"),  # the place of a picture that there is not
]


@pytest.mark.parametrize("source, says", GIVEN)
def test_a_page_shows_what_was_written(source, says):
    assert says in marks.drawn(source, PICTURE)


@pytest.mark.parametrize("path", sources(ROOT / "exercises"), ids=lambda path: path.stem)
def test_cleaning_leaves_our_own_text_as_it_is(path):
    for cell in read_notebook(path).cells:
        if cell.cell_type == "markdown":
            renderer = IPythonRenderer(escape=False, exclude_anchor_links=True)
            rendered = MarkdownWithMath(renderer=renderer).render(cell.source)
            ours = BeautifulSoup(marks.drawn(cell.source, {}), "html.parser")
            theirs = BeautifulSoup(rendered, "html.parser")
            assert ours.get_text() == theirs.get_text()
            assert [tag.name for tag in ours.find_all()] == [tag.name for tag in theirs.find_all()]


@pytest.mark.parametrize(
    "attachments",
    [{}, {"image.png": {}}, {"image.png": []}, {"image.png": None}, {"image.png": "x"},
     {"image.png": {"image/png": 5}}, {"image.png": {"image/svg+xml": "aaaa"}},
     {"image.png": {"image/png": '"><script>'}}, [], 5],
)  # fmt: skip
def test_a_picture_that_is_not_there_stops_nothing(attachments):
    context = {"cell": {"attachments": attachments}, "resources": {}}
    page = marks.markdown(context, "before ![x](attachment:image.png) after")
    assert "before ![x](attachment:image.png) after" in page and "<img" not in page


class Fetched(html.parser.HTMLParser):
    """List what a browser would fetch or run of a page."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            fetches = name in ("src", "srcset", "poster", "background", "data", "xlink:href")
            if name.startswith("on") or (fetches and not value.startswith("data:image/png;")):
                self.found.append((tag, name, value))
            if name == "style" and value.replace(" ", "") != "text-align:right;":
                self.found.append((tag, name, value))
            if name == "href" and value.lower().strip().startswith(("javascript", "data")):
                self.found.append((tag, name, value))
        if tag in ("script", "style", "link", "iframe", "object", "embed", "meta", "base", "form"):
            self.found.append((tag,))


@pytest.mark.parametrize(
    "source",
    [
        "![x](https://evil.example/x.png)",
        "![x][1]\n\n[1]: https://evil.example/x.png",
        "![x](//evil.example/x.png 'title')",
        '<img src="https://evil.example/x.png" onerror="alert(1)">',
        '<img srcset="https://evil.example/x.png">',
        '<video poster="https://evil.example/x.png"></video>',
        '<svg><image href="https://evil.example/x.png"/></svg>',
        '<link rel="stylesheet" href="https://evil.example/x.css">',
        "<style>@import 'https://evil.example/x.css';</style>",
        '<td style="background: url(https://evil.example/x.png)">x</td>',
        '<table background="https://evil.example/x.png"><tr><td>x</td></tr></table>',
        '<meta http-equiv="refresh" content="0; url=https://evil.example">',
        '<iframe src="https://evil.example"></iframe><object data="x"></object><base href="//e">',
        "[x](javascript:alert(1)) <a href='java&#115;cript:alert(1)'>y</a>",
        '<a href="data:text/html,<script>alert(1)</script>">x</a>',
        '![x" onerror="alert(1)](attachment:image.png)',
        "```mermaid\n%%{init}%%\n```",
        "<form action='https://evil.example'><input type=image src=x></form>",
    ],
)
def test_a_page_fetches_and_runs_nothing(source):
    assert Fetched(marks.drawn(source, PICTURE)).found == []
    output = new_output("display_data", {"text/html": source})
    marks.harmless_output(output, {})
    assert Fetched(output.data["text/html"]).found == []


LONG = {
    "quotes": "<blockquote>" * 50_000,
    "nested quotes": "> " * 60_000,
    "hidden tests": "### BEGIN HIDDEN TESTS\n" * 100_000,
    "brackets": "[" * 200_000,
    "files": "[a](/files" * 20_000,
    "formulas": "\\begin{a}" * 30_000,
    "one line of code": "f'" * 100_000,
}


def exporter(template):
    config = configure(Config())
    config.HTMLExporter.template_name = template
    config.HTMLExporter.extra_template_basedirs = [template_path]
    return HTMLExporter(config=config)


@pytest.mark.parametrize("kind", LONG)
def test_a_long_text_is_drawn_in_seconds(kind, monkeypatch):
    monkeypatch.setattr(marks, "TEXT_SECONDS", 0.3)
    cells = [new_markdown_cell(LONG[kind]), new_code_cell(LONG[kind])]
    cells[1].outputs = [new_output("display_data", {"text/html": LONG[kind], "text/plain": ""})]
    start = time.process_time()
    hide = HideHiddenTests()
    notebook, _ = hide.preprocess(new_notebook(cells=cells), {})
    page, _ = exporter("classic").from_notebook_node(notebook)
    assert time.process_time() - start < 25 and len(page) < 4_000_000  # it was minutes
    assert "more characters" in page


def test_a_limit_that_a_destructor_swallows_comes_again_and_is_reported_nowhere(monkeypatch):
    class Slow:
        def __del__(self):
            while True:
                pass

    def draw(text):
        Slow()  # the first signal ends this, the second what follows
        while True:
            pass

    reports = []
    monkeypatch.setattr(sys, "unraisablehook", reports.append)
    monkeypatch.setattr(marks, "TEXT_SECONDS", 0.1)
    assert marks.guarded(draw, "a < b", {}) == "<pre>a &lt; b</pre>"
    assert reports == [] and sys.unraisablehook == reports.append


def test_all_texts_of_a_page_together_have_a_limit(monkeypatch):
    def slow(text):
        end = time.process_time() + 60
        while time.process_time() < end:
            pass

    monkeypatch.setattr(marks, "TEXT_SECONDS", 0.2)
    monkeypatch.setattr(marks, "TEXTS_SECONDS", 0.5)
    start, resources = time.process_time(), {}
    pages = [marks.guarded(slow, f"a < {n}", resources) for n in range(50)]
    assert time.process_time() - start < 5
    assert pages == [f"<pre>a &lt; {n}</pre>" for n in range(50)]


def test_the_formgrader_shows_a_page_that_it_could_not():
    cells = [new_markdown_cell("a < b ![x](attachment:image.png)")]
    cells += [new_markdown_cell("![x](attachment:image.png)", attachments={"image.png": {}})]
    cells += [new_markdown_cell(f"cell {n}") for n in range(2000)]
    resources = {name: "" for name in ("base_url", "student", "notebook_path", "submission_id",
                                       "assignment_id", "notebook_id", "last_name")}  # fmt: skip
    resources.update(index=0, total=1)
    page, _ = exporter("formgrade").from_notebook_node(new_notebook(cells=cells), resources)
    assert "a &lt; b ![x]" in page and "cell 5" in page
    assert "1002 more cells are not shown" in page


class Stubborn:
    def __del__(self):
        while time.process_time() < self.until:
            pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_limit_that_is_overlooked_comes_again():
    def slow(text):
        thing = Stubborn()
        thing.until = time.process_time() + 0.5  # what is raised while it goes is lost
        del thing
        while True:
            pass

    assert marks.guarded(slow, "a < b", {"seconds_for_texts": 0.2}) == "<pre>a &lt; b</pre>"


@pytest.mark.parametrize(
    "value, written",
    [
        ("Ann", "Ann"), ("=1+1", "'=1+1"), ("+1", "'+1"), ("-1", "'-1"), ("@x", "'@x"),
        ("\uff1d1", "'\uff1d1"), ("\uff0b1", "'\uff0b1"), ("\uff20x", "'\uff20x"),
        ("a;=1", "a;'=1"), ('a;"=1"', "a;'\"=1\""), ("a; @x;b", "a;' @x;b"), (" =1", "' =1"),
        ("a-b; c", "a-b; c"), ("ann+cs@x.edu", "ann+cs@x.edu"), ("1;2", "1;2"),
        ("a\x1b[2K\r\n=b", "a\\x1b[2K\\r\\n=b"), ("\u202ecod", "\\u202ecod"),
        ("\u00d6z", "\u00d6z"),
    ],
)  # fmt: skip
def test_a_spreadsheet_computes_nothing_and_a_terminal_does_as_before(value, written):
    assert marks.harmless(value) == written


def takes(more):
    """Exit with 1 if 100 MB do not fit, 2 if a gigabyte more than allowed does."""
    marks.limit_memory(more)
    try:
        bytes(100 * 2**20)
    except MemoryError:
        sys.exit(1)
    try:
        bytes(more + 2**30)
    except MemoryError:
        sys.exit(0)
    sys.exit(2)


def test_the_memory_of_a_page_is_counted_without_that_of_the_grader():
    """A grader that holds three gigabytes draws pages as well."""
    with mmap.mmap(-1, 3 * 2**30):
        process = multiprocessing.get_context("fork").Process(target=takes, args=(2**30,))
        process.start()
        process.join()
    assert process.exitcode == 0

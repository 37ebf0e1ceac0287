"""The rendered book: built with warnings as errors, then opened in a browser without a network."""

import ast
import functools
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import pages
import pytest
from fontTools.ttLib import TTFont
from pages import OTHERS, PAGES, PATIENCE, QUERIES, RULES, THEMES, WIDTHS
from PIL import Image

from course.chapters import ROOT, written

sys.path.insert(0, str(ROOT / "_ext"))
# One page of each kind is audited each time, and all of them by `make soak`.
KINDS = [
    "index.html",
    "chapters/04_attention.html",
    "exercises/04_attention/attention.html",
    *OTHERS,
]
BUILD_SECONDS = 60  # of processor time, so that a busy machine changes nothing
SCREEN = {"width": 1280, "height": 900}


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    """Build the book from nothing, as `make book` does, and return the folder of its pages."""
    target = tmp_path_factory.mktemp("book")
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(ROOT)]
    command += ["--path-output", str(target), "-W", "-n", "--keep-going", "-q"]
    before = sum(os.times()[2:4])  # of the processes that this one has waited for
    run = subprocess.run(command, capture_output=True, text=True)
    (target / "seconds").write_text(str(sum(os.times()[2:4]) - before))
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return target / "_build" / "html"


@pytest.fixture(scope="session")
def site(book):
    """Serve the pages on this machine."""

    with pages.serve(book) as address:
        yield address


def watched(context, site):
    """Open an empty page that records console errors and requests to other machines."""
    page = context.new_page()
    page.problems = []
    page.on("console", lambda m: m.type == "error" and page.problems.append(f"console: {m.text}"))
    page.on("pageerror", lambda error: page.problems.append(f"error: {error}"))
    page.on(
        "request",
        lambda r: r.url.startswith((site, "data:", "blob:")) or page.problems.append(r.url),
    )
    page.on("response", lambda r: r.status >= 400 and page.problems.append(f"{r.status}: {r.url}"))
    page.set_default_timeout(PATIENCE)
    return page


@pytest.fixture
def page(browser, site):
    """Open an empty page in a context of its own."""
    context = browser.new_context(viewport=SCREEN)
    yield watched(context, site)
    context.close()


@dataclass(frozen=True)
class Visit:
    """What one look at a page found."""

    problems: list[str]
    bad_formulas: int
    all_images_load: bool
    all_images_have_alt: bool
    violations: list[str] | None
    sideways: list[int]
    overflowing: dict[int, list[int]]
    weight: tuple[int, int, int]
    tab_stops: int


@pytest.fixture(scope="module")
def visit(browser, site, book):
    """Load each page once, take down all that the tests ask, and remember it."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    context = browser.new_context(viewport=SCREEN)
    page = watched(context, site)

    @functools.cache
    def look(name, audit):
        page.problems.clear()
        page.set_viewport_size(SCREEN)
        weight = pages.load(page, book, site, name)
        problems, tab_stops = list(page.problems), pages.tab_stops(page)
        bad_formulas = page.locator(".math-core-error, math.error, merror").count()
        page.evaluate("for (const image of document.images) image.loading = 'eager'")
        page.wait_for_function("[...document.images].every(i => i.complete)")
        images = [
            page.evaluate(f"[...document.images].every(i => {holds})")
            for holds in ("i.complete && i.naturalWidth > 0", "i.hasAttribute('alt')")
        ]
        said = None
        if audit:
            violations = axe.run(page, options={"rules": RULES}).response["violations"]
            said = [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in violations]
        sideways, overflowing = [], {}
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 844})
            if page.evaluate("document.scrollingElement.scrollWidth") > width:
                sideways.append(width)
            overflowing[width] = pages.overflowing(page)
        return Visit(
            problems, bad_formulas, *images, said, sideways, overflowing, weight, tab_stops
        )

    yield look
    context.close()


def test_book_builds_in_time(book):
    assert float((book.parent.parent / "seconds").read_text()) < BUILD_SECONDS


@pytest.mark.parametrize("name", PAGES)
def test_page_is_quiet_and_fits_a_screen(visit, name):
    seen = visit(name, name in KINDS)
    assert seen.problems == []
    assert seen.bad_formulas == 0
    assert seen.all_images_load
    assert seen.all_images_have_alt
    assert not seen.sideways, f"{name} scrolls sideways at {seen.sideways} px"
    assert seen.overflowing[768] == seen.overflowing[1366] == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_light(visit, name):
    """Before a touch. The package's page has all definitions, 0.6 MB that compress to 0.05."""
    weight, packed, requests = visit(name, name in KINDS).weight
    assert (
        weight < (1.5e6 if name == "chapters/api.html" else 1.2e6)
        and packed < 0.45e6
        and requests <= 20
    )


def test_the_tab_key_does_not_stop_everywhere(visit):
    assert 60 < visit("chapters/04_attention.html", True).tab_stops < 200


@pytest.mark.parametrize(
    "name",
    [*KINDS, *(pytest.param(n, marks=pytest.mark.soak) for n in PAGES if n not in KINDS)],
)
def test_page_is_accessible(visit, name):
    assert visit(name, True).violations == []


@pytest.mark.soak
@pytest.mark.parametrize("name", PAGES)
def test_page_is_accessible_in_both_themes_at_two_sizes(page, site, name):
    for theme in THEMES:
        for width in (390, 1366):
            assert pages.audit(page, site, name, theme, width) == [], f"{theme}, {width} px"


def test_formulas_need_no_script(browser, site):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site}/chapters/notation.html")
    formulas = page.locator("math")
    assert formulas.count() >= 10
    assert formulas.first.bounding_box()["width"] > 3
    context.close()


def test_formulas_stand_in_the_middle_and_indices_below_the_line(page, site):
    """A font without a table for mathematics lowers an index by a twelfth of its size."""
    page.goto(f"{site}/chapters/04_attention.html")
    boxes = "all => all.map(e => [e, ...e.children].map(c => c.getBoundingClientRect().toJSON()))"
    for box, formula in page.locator("div.math").evaluate_all(boxes):
        assert abs(box["left"] + box["right"] - formula["left"] - formula["right"]) < 2
    indices = page.locator("p > math > msub").evaluate_all(boxes)
    assert len(indices) > 5
    for _, letter, index in indices:
        assert index["bottom"] - letter["bottom"] > 0.1 * letter["height"]


def test_the_packages_page_has_no_filler(book):
    """Its contents are the modules, not 300 names; a field of a named tuple has no number."""
    text = read(book, "chapters/api.html")
    contents = re.search(r'<nav id="pst-page-toc-nav".*?</nav>', text, re.DOTALL)[0]
    assert 10 < contents.count("<a ") < 20
    assert "Alias for field number" not in text


def test_search_finds_the_right_section_first(page, site):
    hits = pages.first_hits(page, site, QUERIES)
    wrong = {query: hit for query, hit in hits.items() if hit != QUERIES[query]}
    assert len(QUERIES) >= 40 and not wrong, wrong
    assert page.problems == []


def test_search_shows_where_and_what_from_a_file(browser, book):
    """A browser fetches nothing beside a file: hits and the words around them come all the same."""
    page = watched(browser.new_context(), "file:")
    page.goto(f"{book.as_uri()}/search.html?q=causal+mask")
    hit = page.locator("#search-results li").first
    assert hit.locator("a").get_attribute("href").endswith("#all-positions-at-once")
    assert "Masked self-attention" in hit.inner_text()
    shown = hit.locator(".context").inner_text()
    assert "causal mask" in shown and "\\" not in shown and "import" not in shown
    assert page.problems == []
    page.context.close()


def test_theme_switches(page, site):
    page.goto(f"{site}/index.html", wait_until="networkidle")
    theme = "document.documentElement.dataset.theme"
    before = page.evaluate(theme)
    button = page.locator("button.theme-switch-button").first
    for _ in range(3):  # light, dark and "as the system says"
        button.click()
        if page.evaluate(theme) != before:
            break
    assert page.evaluate(theme) != before


def test_copy_button_copies_the_cell(page, site):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{site}/chapters/04_attention.html", wait_until="networkidle")
    cell = page.locator("div.cell_input", has_text="def causal_mask").first
    cell.hover()
    cell.locator("button.copybtn").click()
    assert "def causal_mask" in page.evaluate("navigator.clipboard.readText()")


def test_no_page_names_another_machine_for_scripts_or_styles(book):
    outside = re.compile(
        r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//[^"]+', re.IGNORECASE
    )
    for path in book.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        found = [tag for tag in outside.findall(text) if 'rel="canonical"' not in tag]
        assert not found, f"{path.name}: {found}"


def test_every_term_of_the_glossary_has_its_definition(book):
    page = (book / "chapters" / "glossary.html").read_text(encoding="utf-8")
    source = (ROOT / "chapters" / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^(\S.*)\n  \S", source, re.MULTILINE)
    assert len(terms) > 90
    assert page.count("<dt id=") == page.count("<dd>") == len(terms)


def test_every_chapter_cites_the_paper_and_nothing_that_is_not_listed(book):
    page = (book / "chapters" / "bibliography.html").read_text(encoding="utf-8")
    entries = dict(re.findall(r'<div class="citation" id="(\w+)"(.*?)</div>', page, re.DOTALL))
    paper = [key for key, text in entries.items() if "unsupervised multitask" in text.lower()]
    for chapter in written():
        text = (book / "chapters" / f"{chapter.stem}.html").read_text(encoding="utf-8")
        cited = set(re.findall(r'href="bibliography\.html#(\w+)"', text))
        assert set(paper) & cited, f"{chapter.stem} does not cite the GPT-2 paper"
        assert cited <= set(entries), f"{chapter.stem} cites what the bibliography lacks"


@pytest.mark.parametrize("chapter", written(), ids=lambda chapter: chapter.stem)
def test_figures_are_numbered_by_their_chapter(book, chapter):
    """The preliminaries, which no section number has, included; and named so in the text."""
    text = (book / "chapters" / f"{chapter.stem}.html").read_text(encoding="utf-8")
    numbers = re.findall(r'<span class="caption-number">Fig\. (\S+) ?</span>', text)
    assert numbers == [f"{chapter.number}.{i}" for i in range(1, len(numbers) + 1)] != []
    named = re.findall(r'<span class="std std-numref">Fig\. (\S+?)</span>', text)
    assert set(numbers) <= set(named)


@pytest.mark.parametrize("chapter", written(), ids=lambda chapter: chapter.stem)
def test_references_read_in_jupyterlab_as_in_the_book(book, chapter):
    """The words that `course sync` writes are those that Sphinx makes of the roles."""
    page = read(book, f"chapters/{chapter.stem}.html")
    body = page.partition("<article")[2].partition("</article>")[0]
    spans = r'<span class="(?:bibtex-citation|std std-numref)"[^>]*>(.*?)</span>'
    in_book = [unescape(re.sub(r"<[^>]*>", "", words)) for words in re.findall(spans, body)]
    cells = json.loads(read(ROOT, f"chapters/{chapter.stem}.ipynb"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    figure, work = r"\[[^\]]*\]\(#fig-[^)]*\)", r"\[[^\]]*\]\(\.\./references\.bib#[^)]*\)"
    found = re.findall(rf"{figure}|{work}(?:; {work})*", text)
    in_lab = [re.sub(r"\]\([^)]*\)|\[", "", words) for words in found]
    plain = [[re.sub(r"[^\w.' ]", "", w) for w in words] for words in (in_lab, in_book)]
    assert plain[0] == plain[1] and len(in_lab) > 5
    assert "<strong>Fig." not in body, "a title line that is for JupyterLab"


def test_solutions_are_in_no_page_of_the_book(book):
    """Nothing that is published, the search index included, has a line of a solution in it."""
    published = [
        path for path in book.rglob("*") if path.suffix in (".html", ".js", ".ipynb", ".txt")
    ]
    texts = {path: path.read_text(encoding="utf-8") for path in published}
    found = [path for path, text in texts.items() if "BEGIN SOLUTION" in text]
    assert published and not found
    assert "solutions" not in os.listdir(book)


@pytest.mark.parametrize("chapter", written(), ids=lambda chapter: chapter.stem)
def test_a_quiz_works_without_javascript(browser, site, chapter):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(f"{site}/chapters/{chapter.stem}.html")
    answers = page.locator("details.quiz")
    assert answers.count() >= 12
    first = answers.first
    why = first.locator("p").first
    assert not why.is_visible()
    first.locator("summary").click()
    assert why.is_visible() and re.match(r"(Yes|No)\.", why.inner_text())
    context.close()


def test_a_chapter_leads_to_its_exercises(page, site):
    page.goto(f"{site}/chapters/04_attention.html", wait_until="networkidle")
    page.locator("#exercises a[href*='exercises/04_attention/attention']").first.click()
    page.wait_for_url("**/exercises/04_attention/attention.html*")
    assert "Exercises: masked self-attention" in page.locator("h1").first.inner_text()
    assert page.locator("details", has_text="Hint").count() >= 8


@pytest.mark.parametrize("way", ["from a server", "in a subfolder", "from a file", "no JavaScript"])
def test_a_visitor_finds_the_first_exercise_on_a_phone(browser, book, site, way):
    """From the front page by what one sees: where to begin, the page's contents, the exercises."""
    scripts = way != "no JavaScript"
    with pages.serve(book.parent) as above:
        roots = {"in a subfolder": f"{above}/{book.name}", "from a file": book.as_uri()}
        root, screen = roots.get(way, site), {"width": 390, "height": 844}
        page = watched(browser.new_context(viewport=screen, java_script_enabled=scripts), root)
        page.goto(f"{root}/index.html")
        begin = page.locator(".start a").first
        assert begin.bounding_box()["y"] < 844, "one has to scroll to find where to begin"
        begin.click()
        page.wait_for_url("**/00_pytorch.html")
        if scripts:
            page.locator("button.secondary-toggle").first.click()
            page.locator("#pst-page-toc-nav a[href='#exercises']").click()
            assert page.locator("dialog[open]").count() == 0, "the contents cover what one chose"
            top = "document.querySelector('#exercises').getBoundingClientRect().top"
            page.wait_for_function(f"Math.abs({top}) < 400")
            page.locator("#exercises a[href*='exercises/00_pytorch/pytorch']").first.click()
        else:  # the contents of a page open by a script: to its end, and on
            page.locator(".prev-next-area a.right-next").click()
        page.wait_for_url("**/exercises/00_pytorch/pytorch.html")
        hint = page.locator("details", has_text="Hint").first
        hint.locator("summary").first.click()
        assert hint.locator("p").first.is_visible()
        assert "make lab" in page.locator(".where").inner_text()
        page.locator(".where a").click()
        page.wait_for_url("**/index.html#three-doors")
        assert page.problems == []
        page.context.close()


def read(book, name):
    return (book / name).read_text(encoding="utf-8")


def test_no_link_leads_nowhere(book):
    lost, n = pages.broken(book)
    assert n > 5000 and not lost


def test_a_page_has_one_viewport_and_says_what_it_is(book):
    for name in PAGES:
        head = read(book, name).partition("</head>")[0]
        assert head.count('name="viewport"') == 1
        for said in ('name="description"', 'property="og:description"'):
            assert len(re.search(said + r' content="([^"]*)"', head)[1]) > 60, name
    assert "Page not found" in read(book, "404.html")


def test_the_site_is_listed_where_it_has_an_address(tmp_path):
    import book_html

    builder = SimpleNamespace(format="html", get_target_uri=lambda page: f"{page}.html")
    app = SimpleNamespace(outdir=tmp_path, builder=builder)
    app.env = SimpleNamespace(found_docs={"index", "chapters/00_pytorch"})
    app.config = SimpleNamespace(html_baseurl="")
    book_html.list_pages(app, None)
    assert not (tmp_path / "sitemap.xml").exists()
    app.config.html_baseurl = "https://example.org/book/"
    book_html.list_pages(app, None)
    listed = re.findall("<loc>(.*?)</loc>", (tmp_path / "sitemap.xml").read_text())
    assert listed == [
        f"https://example.org/book/{p}.html" for p in ("chapters/00_pytorch", "index")
    ]


@pytest.mark.parametrize("chapter", written(), ids=lambda chapter: chapter.stem)
def test_drawings_and_imports_are_folded_and_the_packages_code_has_its_file(book, chapter):
    text = read(book, f"chapters/{chapter.stem}.html")
    cells = json.loads(chapter.path.read_text(encoding="utf-8"))["cells"]
    figures = sum("figure" in cell["metadata"].get("mystnb", {}) for cell in cells)
    tags = [tag for cell in cells for tag in cell["metadata"].get("tags", ())]
    defined = [tag[4:].partition("::")[0] for tag in tags if tag.startswith("src:")]
    folded = re.findall(r'<p class="collapsed[^>]*>(.*?)</p>', text)
    assert folded.count("Drawing") >= figures > 0
    assert folded.count("Imports") >= 1 or chapter.number == 3
    assert "What the tests check" not in folded
    assert re.findall(r'<p class="cell-file">(.*?)</p>', text) == defined


def test_a_cell_is_folded_only_if_it_imports():
    import book_cells

    setup = "import math\nimport re\nfrom os import (\n    path,\n)\ntorch.manual_seed(0)"
    assert book_cells.imports(setup)
    assert not book_cells.imports(setup + "\ndef f():\n    return 1")
    assert not book_cells.imports("import math\n" + "x = math.pi\n" * 9)
    assert not book_cells.imports("!pip list")


@pytest.mark.parametrize("chapter", written(), ids=lambda chapter: chapter.stem)
def test_the_first_use_of_a_term_leads_to_the_glossary(book, chapter):
    text = read(book, f"chapters/{chapter.stem}.html")
    link = r'<a [^>]*href="glossary\.html#(term-[^"]*)" data-definition="([^"]+)"'
    links = re.findall(link, text)
    assert len(links) >= 8
    assert len({term for term, _ in links}) == len(links), "linked twice"
    source = " ".join(read(ROOT, "chapters/glossary.md").split())
    for term, definition in links:
        assert re.sub(r"[^a-z]", "", unescape(definition).lower()) in re.sub(
            r"[^a-z]", "", re.sub(r"\]\([^)]*\)", "", source).lower()
        ), term


def test_the_glossary_has_letters_and_leads_back(book):
    text = read(book, "chapters/glossary.html")
    letters = re.search(r'<p class="letters">.*?</p>', text)[0]
    assert re.findall(r">(\w)</a>", letters) == sorted(set(re.findall(r">(\w)</a>", letters)))
    assert letters.count("<a ") > 20
    back = re.findall(r'href="(\d\d_\w+\.html)#(term-[^"]+-here)"', text)
    assert len(back) > 200 and ("04_attention.html", "term-causal-mask-here") in back


def test_a_definition_is_shown_under_the_tab_key(page, site):
    page.goto(f"{site}/chapters/04_attention.html")
    link = page.locator("a[data-definition]").first
    shown = "link => getComputedStyle(link, '::after').content"
    assert link.evaluate(shown) == "none"
    link.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")  # a focus that came by the keyboard
    assert ast.literal_eval(link.evaluate(shown)) == link.get_attribute("data-definition")


def test_korean_is_marked_as_korean(book):
    n = 0
    for name in PAGES:
        body = re.sub(r"<(svg|script|head).*?</\1>", "", read(book, name), flags=re.DOTALL)
        n += body.count('<span lang="ko">')
        rest = re.sub(r'<span lang="ko">[^<]*</span>', "", body)
        assert not re.search(r"[\uac00-\ud7a3]", re.sub(r"<[^>]*>", "", rest)), name
    assert n > 50


def test_the_map_is_made_of_links(page, site):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{site}/chapters/04_attention.html")
    assert page.locator("nav.map [aria-current=page]").inner_text() == "4 Masked self-attention"
    small = "links => links.filter(a => a.getBoundingClientRect().height < 24).length"
    assert page.locator("nav.map a").evaluate_all(small) == 0
    page.locator("nav.map a", has_text="Training").click()
    page.wait_for_url("**/chapters/06_training.html")


@pytest.mark.parametrize("chapter", written(), ids=lambda chapter: chapter.stem)
def test_a_question_is_tied_to_its_options(book, chapter):
    text = read(book, f"chapters/{chapter.stem}.html")
    groups = re.findall(r'<div class="question" role="group" aria-labelledby="([^"]+)">', text)
    assert len(groups) >= 3 and all(f'id="{group}"' in text for group in groups)
    assert text.count('<details class="quiz right">') == len(groups)
    assert '<details class="quiz">' not in text


def test_right_answers_are_counted_and_kept(page, site):
    page.goto(f"{site}/chapters/04_attention.html")
    questions = page.locator(".question")
    questions.nth(0).locator("details.wrong summary").first.click()
    questions.nth(0).locator("details.right summary").click()  # a second try counts for nothing
    questions.nth(1).locator("details.right summary").click()
    page.locator(".score", has_text="1 of 2").wait_for()
    sign = "p => getComputedStyle(p, '::before').content"
    assert "✓" in questions.nth(1).locator("details.right p").first.evaluate(sign)
    assert "✗" in questions.nth(0).locator("details.wrong p").first.evaluate(sign)
    page.reload()
    page.locator(".score", has_text="1 of 2").wait_for()
    page.locator(".score button").click()
    assert page.locator(".score").inner_text() == ""
    assert page.locator(".question details[open]").count() == 0


def test_the_contents_of_the_printed_book_are_numbered():
    import book_html

    titles = {"index": "The book", "a": "A < B", "b": "Exercises"}
    env = SimpleNamespace(toctree_includes={"index": ["a"], "a": ["b"]})
    env.titles = {page: SimpleNamespace(astext=lambda t=t: t) for page, t in titles.items()}
    env.toc_secnumbers = {"index": {"a/": (4,), "a/#x": (4, 1), "b/": (4, 24)}}
    app = SimpleNamespace(env=env, config=SimpleNamespace(root_doc="index"))
    rows = re.findall('<a href="#document-(.*?)">(.*?)</a>', book_html.list_contents(app))
    assert rows == [("a", "4 A &lt; B"), ("b", "4.24 Exercises")]


def test_icons_that_no_page_shows_are_dropped(book, page, site):
    import book_html

    style = (
        '.a{b:c}.fa-1:before,.fa-2:before{content:"\\31"}.fa-3{--fa:"\\33"}.fa-lg{line-height:1}'
    )
    left = book_html.drop_icons(style, {"fa-2"})
    assert left == style.replace('.fa-3{--fa:"\\33"}', "")
    assert len(read(book, "_static/styles/pydata-sphinx-theme.css")) < 320_000
    fonts = book / "_static" / "vendor" / "fontawesome" / "webfonts"
    assert (fonts / "fa-solid-900.woff").stat().st_size < 20_000
    held = set(TTFont(fonts / "fa-solid-900.woff").getBestCmap())
    for name in ("index.html", "chapters/04_attention.html"):
        page.goto(f"{site}/{name}", wait_until="networkidle")
        drawn = "icons => icons.map(i => getComputedStyle(i, '::before').content)"
        icons = page.locator(".fa-solid").evaluate_all(drawn)
        assert len(icons) > 3 and {ord(ast.literal_eval(icon)) for icon in icons} <= held
        faces = "[...document.fonts].filter(f => f.status == 'loaded').map(f => f.family)"
        assert any("Awesome" in family for family in page.evaluate(faces))
        assert page.problems == []


@pytest.mark.parametrize("chapter", written(), ids=lambda chapter: chapter.stem)
def test_each_svg_is_a_drawing_in_the_page(book, chapter):
    """With its alt text, with ids of its own, and without a script."""
    text = read(book, f"chapters/{chapter.stem}.html")
    cells = json.loads(chapter.path.read_text(encoding="utf-8"))["cells"]
    shown = [output.get("data", {}) for cell in cells for output in cell.get("outputs", ())]
    stored = sum("image/svg+xml" in data for data in shown)
    linked = re.findall(r"_assets/(?!map-)[\w-]+\.svg", json.dumps(cells))
    drawings = re.findall(r'<svg class="drawing.*?</svg>', text, re.DOTALL)
    assert len(drawings) == stored + len(linked)
    assert not re.search(r'<img [^>]*src="[^"]*\.svg"', text.partition("<article")[2])
    for drawing in drawings:
        assert len(re.search(r'aria-label="([^"]*)"', drawing)[1]) > 20
        assert "<script" not in drawing and not re.search(r"\son\w+=", drawing)
    ids = re.findall(r' id="([^"]+)"', "".join(drawings))
    assert len(ids) == len(set(ids))


def test_a_drawing_has_the_ink_and_the_ground_of_its_page(page, site):
    import book_figures

    page.goto(f"{site}/chapters/04_attention.html")
    inks = set()
    for theme in THEMES:
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        ink = page.locator(".bd-article p").first.evaluate("p => getComputedStyle(p).color")
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        inks.add(ink)
        for drawing in page.locator(".drawing").all():
            assert drawing.evaluate("svg => getComputedStyle(svg).fill") == ink
            picture = Image.open(io.BytesIO(drawing.screenshot())).convert("RGB")
            assert f"rgb{picture.getpixel((2, 2))}" == ground, theme
    assert len(inks) == 2
    assert (ink, ground) == tuple(f"rgb{c}" for c in (book_figures.INK, book_figures.PAPER))


PALE = """() => {
  const channel = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = color => color.match(/[\\d.]+/g).slice(0, 3).map(channel)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const texts = document.createTreeWalker(document.querySelector(".bd-article"), 4), found = {};
  while (texts.nextNode()) {
    const e = texts.currentNode.parentElement, color = getComputedStyle(e).color;
    if (texts.currentNode.data.trim() && e.checkVisibility() && light(color) > 0.18)
      found[e.className + " " + color] = texts.currentNode.data;
  }
  return found;
}"""


def test_a_page_prints_with_its_number_and_in_dark_ink_from_the_dark_theme(page, site):
    page.goto(f"{site}/chapters/04_attention.html")
    theme = "document.documentElement.dataset.theme"
    page.evaluate(f"{theme} = 'dark'")
    page.evaluate(f"addEventListener('beforeprint', () => window.printed = {theme})")
    assert len(page.evaluate(PALE)) > 10, "this looks for what is pale"
    page.pdf()
    assert page.evaluate("window.printed") == "light" and page.evaluate(theme) == "dark"
    page.evaluate(f"{theme} = 'light'")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 673, "height": 1000})  # A4 between its margins
    columns = """codes => codes.filter(pre => pre.checkVisibility()).map(pre => {
        const { fontSize, fontFamily, paddingLeft, paddingRight } = getComputedStyle(pre);
        const pen = document.createElement("canvas").getContext("2d");
        pen.font = fontSize + " " + fontFamily;
        return (pre.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight))
            / pen.measureText("0").width; })"""
    widths = page.locator(".cell_input pre").evaluate_all(columns)
    assert len(widths) > 20 and min(widths) >= 88
    pale = page.evaluate(PALE)
    assert set(pale.values()) <= {"gpt2/attention.py"}, pale  # white on blue
    shown = "titles => titles.filter(t => t.checkVisibility()).map(t => t.innerText)"
    assert page.locator("h1").evaluate_all(shown) == ["4. Masked self-attention"]


@pytest.mark.soak
def test_the_whole_book_prints_into_one_file():
    run = subprocess.run(["make", "pdf"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    printed = (ROOT / "_build" / "book.pdf").read_bytes()
    assert printed.startswith(b"%PDF") and b"/Outlines" in printed
    assert 300 < len(re.findall(rb"/Type\s*/Page\b", printed)) < 1000


@pytest.mark.soak
def test_the_edition_for_instructors_has_the_solutions():
    """Build it as an instructor does; every exercise has its solution beside it."""
    run = subprocess.run(["make", "book", "SOLUTIONS=1"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    pages = ROOT / "_build" / "solutions" / "_build" / "html" / "solutions"
    for chapter in written():
        text = (pages / chapter.stem / f"{chapter.stem[3:]}.html").read_text(encoding="utf-8")
        assert "BEGIN SOLUTION" in text

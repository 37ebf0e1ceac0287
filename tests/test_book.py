"""The rendered book: built with warnings as errors, then opened in a browser without a network."""

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from course.chapters import ROOT, written

OTHERS = [
    f"chapters/{name}.html"
    for name in ("teaching", "troubleshooting", "notation", "glossary", "api", "bibliography")
]
PAGES = [
    "index.html",
    *(f"chapters/{chapter.stem}.html" for chapter in written()),
    *(f"exercises/{c.stem}/{c.stem[3:]}.html" for c in written()),
    *OTHERS,
]
# One page of each kind is audited each time, and all of them by `make soak`.
KINDS = [
    "index.html",
    "chapters/04_attention.html",
    "exercises/04_attention/attention.html",
    *OTHERS,
]
BUILD_SECONDS = 60  # of processor time, so that a busy machine changes nothing
SCREEN = {"width": 1280, "height": 900}
PATIENCE = 120_000  # milliseconds that a busy machine may take


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

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=str(book))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


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
    width_on_a_phone: int


@pytest.fixture(scope="module")
def visit(browser, site):
    """Load each page once, take down all that the tests ask, and remember it."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    context = browser.new_context(viewport=SCREEN)
    page = watched(context, site)

    @functools.cache
    def look(name, audit):
        page.problems.clear()
        page.set_viewport_size(SCREEN)
        page.goto(f"{site}/{name}", wait_until="networkidle")
        problems = list(page.problems)
        bad_formulas = page.evaluate("document.querySelectorAll('mjx-merror').length")
        images = [
            page.evaluate(f"[...document.images].every(i => {holds})")
            for holds in ("i.complete && i.naturalWidth > 0", "i.hasAttribute('alt')")
        ]
        said = None
        if audit:
            violations = axe.run(page).response["violations"]
            said = [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in violations]
        page.set_viewport_size({"width": 390, "height": 844})
        width = page.evaluate("document.scrollingElement.scrollWidth")
        return Visit(problems, bad_formulas, *images, said, width)

    yield look
    context.close()


def test_book_builds_in_time(book):
    assert float((book.parent.parent / "seconds").read_text()) < BUILD_SECONDS


@pytest.mark.parametrize("name", PAGES)
def test_page_is_quiet_and_fits_a_phone(visit, name):
    seen = visit(name, name in KINDS)
    assert seen.problems == []
    assert seen.bad_formulas == 0
    assert seen.all_images_load
    assert seen.all_images_have_alt
    wide = seen.width_on_a_phone
    assert wide <= 390, f"{name} scrolls sideways at 390 px: {wide} px"


@pytest.mark.parametrize(
    "name",
    [*KINDS, *(pytest.param(n, marks=pytest.mark.soak) for n in PAGES if n not in KINDS)],
)
def test_page_is_accessible(visit, name):
    assert visit(name, True).violations == []


def test_formulas_are_typeset_offline(page, site):
    page.goto(f"{site}/chapters/notation.html", wait_until="networkidle")
    page.wait_for_selector("mjx-container")
    assert page.problems == []


def test_search_finds_a_word(page, site):
    page.goto(f"{site}/search.html?q=softmax", wait_until="networkidle")
    page.wait_for_selector("#search-results li")
    found = page.locator("#search-results li a").evaluate_all("links => links.map(l => l.href)")
    assert any("04_attention" in link for link in found), found
    assert page.problems == []


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


@pytest.mark.soak
def test_the_edition_for_instructors_has_the_solutions():
    """Build it as an instructor does; every exercise has its solution beside it."""
    run = subprocess.run(["make", "book", "SOLUTIONS=1"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    pages = ROOT / "_build" / "solutions" / "_build" / "html" / "solutions"
    for chapter in written():
        text = (pages / chapter.stem / f"{chapter.stem[3:]}.html").read_text(encoding="utf-8")
        assert "BEGIN SOLUTION" in text

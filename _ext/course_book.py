"""What Jupyter Book lacks, in one Sphinx extension: each part is in a module beside this one."""

from pathlib import Path

import book_cells
import book_figures
import book_html
import book_search
import book_words
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment

from course.address import read_address, theme_options
from course.chapters import CHAPTERS


def set_address(app: Sphinx, config: Config) -> None:
    """Give the theme its buttons and Sphinx its canonical links, if there is a public address."""
    address = read_address(Path(app.srcdir))
    config.html_theme_options = {**config.html_theme_options, **theme_options(address)}
    config.html_baseurl = address.site
    here = Path(__file__).parent
    config.templates_path = [*config.templates_path, str(here)]
    config.html_additional_pages = {"404": "404.html"}
    config.html_search_scorer = str(here / "scorer.js")
    config.html_math_renderer = "mathml"


def number_figures(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Number the figures of chapter 0 as 0.1, 0.2 and so on; Sphinx counts from chapter 1."""
    page = f"chapters/{CHAPTERS[0].stem}"
    for figures in env.toc_fignumbers.get(page, {}).values():
        for i, name in enumerate(figures, start=1):
            figures[name] = (0, i)
    return []


def say_nothing_twice(
    app: Sphinx, what: str, name: str, documented: object, options: object, lines: list[str]
) -> None:
    """Drop what Python itself writes on a field of a named tuple, its number."""
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the parts."""
    app.add_html_math_renderer(
        "mathml", (book_html.inline_math, None), (book_html.block_math, None)
    )
    app.add_node(
        nodes.image, override=True, html=(book_figures.show_drawing, book_figures.end_image)
    )
    app.connect("config-inited", set_address)
    app.connect("source-read", book_cells.fold_cells)
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", say_nothing_twice)
    app.connect("doctree-read", book_words.link_terms)
    app.connect("env-purge-doc", book_words.forget)
    app.connect("env-get-updated", number_figures, priority=900)  # after Sphinx has counted
    app.connect("doctree-resolved", book_words.link_back)
    app.connect("doctree-resolved", book_cells.name_files)
    app.connect("html-page-context", book_html.complete_page, priority=900)
    app.connect("build-finished", book_search.index_sections)
    app.connect("build-finished", book_html.mend_theme)
    app.connect("build-finished", book_html.list_pages)
    return {"parallel_read_safe": False, "parallel_write_safe": True}

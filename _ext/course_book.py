"""What Jupyter Book lacks: formulas offline, no script twice, roles, the public address, a 0."""

from importlib.metadata import distribution
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util.fileutil import copy_asset

from course.address import read_address, theme_options
from course.chapters import CHAPTERS

MATHJAX = ("tex-mml-chtml.js", "output/chtml/fonts/woff-v2")  # 1.6 MB of the package's 24


def set_address(app: Sphinx, config: Config) -> None:
    """Give the theme its buttons and Sphinx its canonical links, if there is a public address."""
    address = read_address(Path(app.srcdir))
    config.html_theme_options = {**config.html_theme_options, **theme_options(address)}
    config.html_baseurl = address.site


def number_figures(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Number the figures of chapter 0 as 0.1, 0.2 and so on; Sphinx counts from chapter 1."""
    page = f"chapters/{CHAPTERS[0].stem}"
    for figures in env.toc_fignumbers.get(page, {}).values():
        for i, name in enumerate(figures, start=1):
            figures[name] = (0, i)
    return []


def drop_thebe(app: Sphinx, page: str, template: str, context: dict, doctree: object) -> None:
    """Leave out sphinx-thebe's scripts: they are added twice, and their second copy is an error."""
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "thebe" not in str(script).lower()
        and "thebe" not in str(getattr(script, "attributes", "")).lower()
    ]


MENDED_ROLES = {
    ' role="doc-biblioentry"': ' role="listitem"',  # its parent is a list; ARIA wants list items
    '<summary><span class="toctree-toggle"': '<summary aria-label="Pages of this chapter">'
    '<span class="toctree-toggle"',
    '<div id="pst-primary-sidebar"': '<div id="pst-primary-sidebar" role="complementary" '
    'aria-label="Chapters"',
}


def mend_roles(app: Sphinx, error: Exception | None) -> None:
    """Give the bibliography and the sidebar roles and names that a screen reader knows."""
    if error or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = mended = page.read_text(encoding="utf-8")
        for wrong, right in MENDED_ROLES.items():
            if right not in text:
                mended = mended.replace(wrong, right)
        if mended != text:
            page.write_text(mended, encoding="utf-8")


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Put MathJax beside the pages, so that formulas need no network."""
    if error or app.builder.format != "html":
        return
    package = Path(distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline"))
    for part in MATHJAX:
        target = Path(app.outdir) / "_static" / "mathjax" / part
        source = package / "static" / "mathjax" / part
        copy_asset(source, target if source.is_dir() else target.parent)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the repairs."""
    app.connect("config-inited", set_address)
    app.connect("env-get-updated", number_figures, priority=900)  # after Sphinx has counted
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", mend_roles)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

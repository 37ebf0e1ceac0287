"""The HTML of a page: formulas, quizzes, the map, Korean; and the theme's faults, mended."""

import functools
import re
from collections.abc import Callable
from html import escape
from pathlib import Path

from docutils import nodes
from fontTools import subset
from math_core import LatexToMathML
from sphinx.application import Sphinx

from course.chapters import CHAPTERS, written

MATH = LatexToMathML()
# What the theme and its companions load on every page, and no page of this book uses.
UNUSED = ("thebe", "toggle", "sphinx-design", "design-tabs")


def inline_math(writer: nodes.NodeVisitor, node: nodes.math) -> None:
    """Write a formula of a line as MathML, which needs no script."""
    writer.body.append(MATH.convert_with_local_state(node.astext(), displaystyle=False))
    raise nodes.SkipNode


def block_math(writer: nodes.NodeVisitor, node: nodes.math_block) -> None:
    """Write a formula of its own as MathML."""
    formula = MATH.convert_with_local_state(node.astext(), displaystyle=True)
    writer.body.append(f'<div class="math">{formula}</div>\n')
    raise nodes.SkipNode


def complete_page(app: Sphinx, page: str, template: str, context: dict, doctree) -> None:
    """Mend the body of a page, describe it, and leave out what it loads for nothing."""
    body = context.get("body") or ""
    unused = UNUSED + ("mystnb",) * ('class="cell' not in body)
    unused += ("copybutton", "clipboard") * ("<pre>" not in body)
    for kind in ("script_files", "css_files"):
        context[kind] = [
            file
            for file in context.get(kind, [])
            if not any(name in f"{file} {getattr(file, 'attributes', '')}" for name in unused)
        ]
    context["metatags"] = re.sub(r'<meta name="viewport"[^>]*>', "", context.get("metatags", ""))
    context["summary"] = summary(doctree)
    if body:
        for mend in (tie_answers, say_korean, show_definitions):
            body = mend(body)
        printed = app.builder.name == "singlehtml"  # loaded at once, with contents of its own
        body = list_contents(app) + body if printed else load_late(body)
        address = functools.partial(app.builder.get_relative_uri, page)
        if page.startswith("exercises/"):
            body = body.replace("</h1>", f"</h1>{say_where(page, address(app.config.root_doc))}", 1)
        drawing = r"<p><img[^>]*/map-(\d\d)\.svg[^>]*></p>"
        context["body"] = re.sub(drawing, lambda map: draw_map(int(map[1]), address), body)


def say_where(page: str, front: str) -> str:
    """Return the line that tells the reader of an exercise on the web where it can be done."""
    return (
        f'<p class="where">You read <code>{page}.ipynb</code>. To work on it, open it in '
        "JupyterLab, which <code>make lab</code> starts: "
        f'<a href="{front}#three-doors">how to begin</a>.</p>'
    )


def summary(doctree: nodes.document | None) -> str:
    """Return the first sentences of a page, for search engines and link previews."""
    paragraphs = doctree.findall(nodes.paragraph) if doctree else []
    text = next((p.astext() for p in paragraphs if len(p.astext()) > 80), "")
    text = " ".join(text.split())
    return text if len(text) < 200 else text[:200].rpartition(" ")[0] + " …"


QUESTION = re.compile(
    r"<p><strong>(\d+)\.((?:(?!<details|<p><strong>\d).)*?)"
    r'((?:<details class="quiz">.*?</details>\s*)+)',
    re.DOTALL,
)


def tie_answers(body: str) -> str:
    """Group each question of a quiz with its options, and mark which of them is right."""

    def group(found: re.Match[str]) -> str:
        number, asked, options = found.groups()
        for verdict, kind in (("Yes", "right"), ("No", "wrong")):
            options = re.sub(
                rf'<details class="quiz">(<summary>.*?</summary>\s*<p><strong>{verdict}\.)',
                rf'<details class="quiz {kind}">\1',
                options,
            )
        return (
            f'<div class="question" role="group" aria-labelledby="question-{number}">\n'
            f'<p id="question-{number}"><strong>{number}.{asked}{options}</div>\n'
        )

    return QUESTION.sub(group, body)


def say_korean(body: str) -> str:
    """Mark Korean in the text, so that it is spoken and broken into lines as Korean."""
    run = r"[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]+"
    words = re.compile(rf"{run}(?:[ ,.?!]+{run})*")

    def mark(text: re.Match[str]) -> str:
        return words.sub(lambda found: f'<span lang="ko">{found[0]}</span>', text[0])

    pieces = re.split(r"(<svg.*?</svg>|<math.*?</math>|<script.*?</script>)", body, flags=re.DOTALL)
    pieces[::2] = [re.sub(r"(?<=>)[^<]+", mark, piece) for piece in pieces[::2]]
    return "".join(pieces)


def show_definitions(body: str) -> str:
    """Let a link to the glossary carry its definition, which the style sheet shows."""
    link = r'(<a class="reference internal" href="[^"]*#term-[^"]*") title='
    return re.sub(link, r"\1 data-definition=", body)


def list_contents(app: Sphinx) -> str:
    """Return the contents of the printed book, in the order of its pages."""
    env, rows, root = app.env, [], app.config.root_doc
    numbers, pages = env.toc_secnumbers[root], list(env.toctree_includes[root])
    while pages:
        page = pages.pop(0)
        pages[:0] = env.toctree_includes.get(page, [])
        number = ".".join(map(str, numbers.get(f"{page}/", ())))
        title = escape(f"{number} {env.titles[page].astext()}".strip())
        rows.append(f'<li><a href="#document-{page}">{title}</a></li>')
    return f"""<nav class="pages"><p class="book">{escape(env.titles[root].astext())}</p>
<p>Not printed: imports, the code of drawings, the tests of exercises. The notebooks have them.</p>
<h2>Contents</h2><ul>{"".join(rows)}</ul></nav>"""


def load_late(body: str) -> str:
    """Load an image when a reader comes near it."""
    return body.replace("<img ", '<img loading="lazy" ')


def draw_map(lit: int, address: Callable[[str], str]) -> str:
    """Return the map of the course as links that a phone can show, with chapter `lit` marked."""
    exists = {chapter.number for chapter in written()}
    rooms = []
    for chapter in CHAPTERS:
        n, title = chapter.number, escape(chapter.title)
        kind = "here" if n == lit else "before" if n < lit else "after"
        here = ' aria-current="page"' if n == lit else ""
        link = f' href="{address(f"chapters/{chapter.stem}")}"' if n in exists else ""
        tag = "a" if link else "span"
        rooms.append(f'<li><{tag} class="{kind}"{link}{here}><b>{n}</b> {title}</{tag}></li>')
    return f'<nav class="map" aria-label="Map of the course"><ul>{"".join(rooms)}</ul></nav>'


MENDED = (
    (r' role="doc-biblioentry"', ' role="listitem"'),  # its parent is a list
    (r'<summary>(?=<span class="toctree-toggle")', '<summary aria-label="Pages of this chapter">'),
    (
        r'<div id="pst-primary-sidebar" class',
        '<div id="pst-primary-sidebar" role="complementary" aria-label="Chapters" class',
    ),
    (r'styles/theme\.css[^"]*"', 'basic.css"'),  # theme.css only imports it
    # two labels that hide the name that one sees
    (r' aria-label="Toggle hidden content"', ""),
    (r'(<button class="btn search-button-field[^>]*?) aria-label="Search"', r"\1"),
    # Font Awesome as a script, 1.5 MB, beside Font Awesome as a font
    (r'<script defer src="[^"]*fontawesome\.js[^>]*></script>', ""),
    (r"<!-- So that users can add custom icons -->", ""),
)


def plain(signature: re.Match[str]) -> str:
    """Leave out of a documented name's line the elements that change nothing that one sees."""
    return re.sub(r'<span class="pre">([^<]*)</span>', r"\1", signature[0])


def shorten(contents: re.Match[str]) -> str:
    """Leave out of a page's own contents the numbers and the word that repeats."""
    return re.sub(r'(nav-link" href="#[^>]*>)(?:\d+\.)+ ?(?:Misconception: )?', r"\1", contents[0])


def mend_theme(app: Sphinx, error: Exception | None) -> None:
    """Mend the roles and names that the theme gets wrong, and drop what it ships for nothing."""
    if error or app.builder.format != "html":
        return
    folder = Path(app.outdir)
    api = folder / "chapters" / "api.html"
    icons = set()
    documented = set(re.findall(r'id="([\w.]+)"', api.read_text("utf-8") if api.exists() else ""))
    for page in folder.rglob("*.html"):
        text = mended = page.read_text(encoding="utf-8")
        for wrong, right in MENDED:
            mended = re.sub(wrong, right, mended, flags=re.DOTALL)
        mended = re.sub(r'<dt class="sig .*?</dt>', plain, mended, flags=re.DOTALL)
        mended = re.sub(r'<nav id="pst-page-toc-nav".*?</nav>', shorten, mended, flags=re.DOTALL)
        mended = re.sub(
            r'<a class="viewcode-back" href="[^"#]*#([^"]+)">.*?</a>',
            lambda link: link[0] if link[1] in documented else "",
            mended,
        )
        if mended != text:
            page.write_text(mended, encoding="utf-8")
        icons |= set(re.findall(r"fa-[\w-]+", mended))
    for script in folder.glob("_static/scripts/*.js"):
        icons |= set(re.findall(r"fa-[\w-]+", script.read_text(encoding="utf-8")))
    for style in folder.glob("_static/styles/pydata-sphinx-theme.css"):
        text = drop_icons(style.read_text(encoding="utf-8"), icons)
        style.write_text(shrink_font(folder / "_static", text), encoding="utf-8")
    for name in ("*.js.map", "*.css.map", "fontawesome.js*"):
        for file in folder.rglob(name):
            file.unlink(missing_ok=True)


def drop_icons(style: str, used: set[str]) -> str:
    """Drop the rules of icons that no page shows: a fifth of the theme's style sheet."""

    def keep(rule: re.Match[str]) -> str:
        return rule[0] if used & set(re.findall(r"fa-[\w-]+", rule[1])) else ""

    return re.sub(r'((?:\.fa-[\w-]+(?:::?before)?,?)+)\{(?:--fa|content):"[^{}]*\}', keep, style)


def shrink_font(static: Path, style: str) -> str:
    """Keep of the theme's font those icons that a style sheet names; return the theme's sheet."""
    file = static / "vendor" / "fontawesome" / "webfonts" / "fa-solid-900.ttf"
    if not file.exists():
        return style
    text = style + "".join(f.read_text(encoding="utf-8") for f in static.glob("*.css"))
    text += (static / "styles" / "sphinx-book-theme.css").read_text(encoding="utf-8")
    codes = {int(code, 16) for code in re.findall(r"\\([ef][0-9a-f]{3})\b", text)}
    codes |= {ord(sign) for sign in text if "\ue000" <= sign <= "\uf8ff"}
    options = subset.Options(flavor="woff")
    font = subset.load_font(str(file), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=codes)
    subsetter.subset(font)
    subset.save_font(font, str(file.with_suffix(".woff")), options)
    file.unlink()
    file.with_suffix(".woff2").unlink()
    sources = r"(url\([^()]*fa-solid-900)\.woff2\) format[^;}]*"
    return re.sub(sources, r'\1.woff) format("woff")', style)


def list_pages(app: Sphinx, error: Exception | None) -> None:
    """Write the map of the site for search engines, if it has a public address."""
    base = app.config.html_baseurl
    if error or not base or app.builder.format != "html":
        return
    pages = [escape(base + app.builder.get_target_uri(p)) for p in sorted(app.env.found_docs)]
    urls = "".join(f"<url><loc>{page}</loc></url>\n" for page in pages)
    text = f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{urls}</urlset>\n'
    (Path(app.outdir) / "sitemap.xml").write_text(text, encoding="utf-8")

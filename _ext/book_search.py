"""The search index: Sphinx's own, fed with sections in the place of pages."""

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

from docutils import nodes
from docutils.utils import new_document
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.search import js_index

PARTS = {"chapters/[01]": 1.0, "index": 0.6, "exercises/": 0.5, "solutions/": 0.5, "": 0.4}
# Sections that every chapter has: they repeat what another section explains.
REPEATS = {
    "what-you-will-build": 0.4,
    "from-the-paper": 0.7,
    "it-works": 0.7,
    "summary": 0.4,
    "check-yourself": 0.3,
    "exercises": 0.3,
    "further-reading": 0.3,
}
SIGNS = {"le": "≤", "ge": "≥", "times": "×", "cdot": "·", "to": "→", "infty": "∞", "mid": "|"}
TEX = (
    *((rf"\\{name}(?![a-z])", sign) for name, sign in SIGNS.items()),
    (r"\\(?:text|mathrm|operatorname|mathcal|hat)\{(\w+)\}", r"\1"),
    (r"\\sqrt(?![a-z])", "sqrt "),
    (r"\\(?:left|right|Big|tfrac|frac|quad|qquad|[,;!|])", " "),
    (r"[\\{}]", ""),
)


def own_parts(node: nodes.Element) -> Iterator[nodes.Node]:
    """Yield what stands in a section, without the sections below it."""
    for child in node.children:
        if isinstance(child, nodes.section):
            continue
        yield child
        if isinstance(child, nodes.Element) and not isinstance(child, nodes.literal_block):
            yield from own_parts(child)


def read_section(section: nodes.Element) -> tuple[str, list[str], list[str], list[nodes.Node]]:
    """Return a section's text, prose before code; words and names it defines; index entries."""
    prose, code, defined, entries = [], [], [], []
    for node in own_parts(section):
        if isinstance(node, nodes.literal_block):
            code.append(node.astext())
        elif isinstance(node, nodes.math | nodes.math_block):
            formula = node.astext()
            for pattern, text in TEX:
                formula = re.sub(pattern, text, formula)
            prose.append(formula)
        elif isinstance(node, nodes.raw | nodes.comment):
            if "html" in node.get("format", ""):
                prose.append(unescape(re.sub(r"<[^>]+>", " ", node.astext())))
        elif isinstance(node, nodes.Text):
            parent = node.parent
            link = parent.parent if isinstance(parent.parent, addnodes.pending_xref) else {}
            if link.get("reftype") == "numref":
                before = "".join(prose[-2:]).rstrip()
                prose.append("the figure" if before and before[-1] not in ".:?!" else "The figure")
            elif not isinstance(parent, nodes.title | nodes.math | nodes.math_block | nodes.raw):
                prose.append(node.astext())
        elif isinstance(node, nodes.emphasis):
            defined.append(node.astext())
        elif isinstance(node, addnodes.index):
            entries.append(node)
        if isinstance(node, nodes.paragraph | nodes.list_item | nodes.caption):
            prose.append(" ")
    lines = "\n".join(code)
    names = re.findall(r"^(?:def|class) (\w+)", lines, re.MULTILINE)
    text = " ".join(["".join(prose), lines]).split()
    return " ".join(text), defined, names, entries


def weigh(page: str, section: str) -> float:
    """Say how much a hit counts there."""
    part = next(weight for start, weight in PARTS.items() if re.match(start, page))
    return part * REPEATS.get(section, 0.8 if section.startswith("misconception") else 1.0)


def index_sections(app: Sphinx, error: Exception | None) -> None:
    """Write the search index again, with a section in the place of each page."""
    indexer = getattr(app.builder, "indexer", None)
    if error or app.builder.format != "html" or not indexer:
        return
    indexer.prune(())
    found, known = {}, set()
    for page in sorted(app.env.found_docs):
        doctree = app.env.get_doctree(page)
        top = app.env.titles[page].astext()
        for section in doctree.findall(nodes.section):
            text, defined, names, entries = read_section(section)
            used = {
                n["reftarget"] for n in own_parts(section) if isinstance(n, addnodes.pending_xref)
            }
            used = {term for term in used if re.match(r"chapters/\d", page)} - known
            known |= used
            first = section.parent is doctree
            name = page if first else f"{page}#{section['ids'][0]}"
            title = section.next_node(nodes.title).astext().replace("^2", "²")
            shadow = new_document(name)
            words = f"{text} {text.replace('_', ' ')}"
            shadow += [nodes.title("", title), nodes.paragraph("", words), *entries]
            indexer.feed(name, app.env.doc2path(page, base=False), title, shadow)
            weight = weigh(page, "" if first else section["ids"][0])
            found[name] = {
                "title": title,
                "page": top,
                "text": text,
                "defined": sorted(set(defined)),
                "code": sorted(set(names)),
                "first": sorted(used),
                "weight": round(weight, 2),
            }
    data = indexer.freeze()
    data["sections"] = [found[name] for name in data["docnames"]]
    file = Path(app.outdir) / app.builder.searchindex_filename
    file.write_text(js_index.dumps(data), encoding="utf-8")

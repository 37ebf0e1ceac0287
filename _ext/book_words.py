"""The glossary's terms, linked where a chapter first uses them, and back."""

import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

GLOSSARY = "chapters/glossary"
# Words that also have an everyday sense: linked only where a chapter emphasizes them.
EVERYDAY_WORDS = (
    "balanced-list baseline batch bias bit block bootstrap buffer chance channel codec corpus "
    "decoding document dtype encoder decoder frozen generator gradient hash head heap "
    "hidden-test history hook hypothesis id input kernel key leaf leak loss mask memory merge "
    "module mutant nat padding parameter piece projection prompt protocol query rank "
    "rubric sampling sandbox schedule score seed segment shape shard slot smoothing stream "
    "stride target tensor token value view vocabulary width window END"
)
EVERYDAY = frozenset(EVERYDAY_WORDS.split())
QUIET = ("check-yourself", "exercises", "further-reading", "summary", "what-you-will-build")


def read_terms(app: Sphinx) -> dict[str, str]:
    """Return each term of the glossary with its definition as plain text."""
    file = Path(app.srcdir) / f"{GLOSSARY}.md"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    entries = re.findall(r"^(\S.*)\n  (\S.*)$", text, re.MULTILINE)
    cleaned = {term: re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", words) for term, words in entries}
    return {term: re.sub(r"[`*$\\]", "", words) for term, words in cleaned.items()}


def pattern(terms: dict[str, str]) -> re.Pattern[str]:
    """Match any term, the longest first, in the singular or the plural; FLOP is no flop."""
    longest = sorted(terms, key=len, reverse=True)
    words = [re.escape(t) if t.isupper() else f"(?i:{re.escape(t)})" for t in longest]
    return re.compile(rf"(?<![\w-])({'|'.join(words)})(?:s|es)?(?![\w-])")


def prose(doctree: nodes.document) -> Iterator[nodes.Text]:
    """Yield the running text of a chapter, in order, without links, code, titles and exercises."""
    for paragraph in doctree.findall(nodes.paragraph):
        above, node = [], paragraph
        while node := node.parent:
            above.append(node)
        ids = {i for n in above for i in n.get("ids", [])}
        if ids & set(QUIET) or any(isinstance(n, nodes.table | nodes.figure) for n in above):
            continue
        for text in paragraph.findall(nodes.Text):
            inside = text.parent is paragraph or isinstance(text.parent, nodes.emphasis)
            if inside and not text.strip().startswith("[!"):
                yield text


def link_terms(app: Sphinx, doctree: nodes.document) -> None:
    """Link each term to the glossary where a chapter first uses it."""
    page = app.env.docname
    if not re.match(r"chapters/\d", page) or not read_terms(app):
        return
    terms = read_terms(app)
    found, names, used = pattern(terms), {t.lower(): t for t in terms}, {}
    links = [
        link for link in doctree.findall(addnodes.pending_xref) if link.get("reftype") == "term"
    ]
    by_hand = {link["reftarget"].lower() for link in links}
    for text in list(prose(doctree)):
        parts, end = [], 0
        for match in found.finditer(text):
            term = names[match[1].lower()]
            emphasized = isinstance(text.parent, nodes.emphasis)
            if term in used or term.lower() in by_hand:
                continue
            if term.replace(" ", "-") in EVERYDAY and not emphasized:
                continue
            used[term] = f"term-{nodes.make_id(term)}-here"
            link = addnodes.pending_xref("", refdomain="std", reftype="term", reftarget=term)
            link.attributes.update(refdoc=page, refexplicit=True, refwarn=True)
            link += nodes.inline("", match[0], classes=["std-term"], ids=[used[term]])
            parts += [nodes.Text(text[end : match.start()]), link]
            end = match.end()
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(text[end:])])
    app.env.course_terms = {**getattr(app.env, "course_terms", {}), page: used}


def link_back(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Give the links their definitions; give the glossary its letters and its links to chapters."""
    definitions = read_terms(app)
    named = {f"term-{nodes.make_id(term)}": term for term in definitions}
    for link in doctree.findall(nodes.reference):
        inside = link.next_node(nodes.inline)
        if inside is not None and "std-term" in inside["classes"]:
            anchor = link.get("refid") or link.get("refuri", "").partition("#")[2]
            term = named.get(anchor)
            if term:
                link["reftitle"] = definitions[term]
    if page != GLOSSARY:
        return
    letters = {}
    for item in doctree.findall(nodes.definition_list_item):
        name = item.next_node(nodes.term)
        text, anchor = name.astext(), name["ids"][0]
        letters.setdefault(text[0].upper(), anchor)
        uses = [(p, ids[text]) for p, ids in app.env.course_terms.items() if text in ids]
        if uses:
            word = "Chapter " if len(uses) == 1 else "Chapters "
            back = nodes.paragraph("", word, classes=["uses"])
            for i, (chapter, anchor) in enumerate(sorted(uses)):
                number = str(int(chapter.partition("/")[2][:2]))
                uri = f"{app.builder.get_relative_uri(page, chapter)}#{anchor}"
                back += [nodes.Text(" " if i else ""), nodes.reference("", number, refuri=uri)]
            item.next_node(nodes.definition).append(back)
    index = nodes.paragraph("", "", classes=["letters"])
    for letter, anchor in sorted(letters.items()):
        index += [nodes.reference("", letter, refid=anchor), nodes.Text(" ")]
    first = doctree.next_node(nodes.definition_list)
    holder = first.parent
    holder.parent.insert(holder.parent.index(holder), index)


def forget(app: Sphinx, env: BuildEnvironment, page: str) -> None:
    """Drop what is known of a page that is read again."""
    getattr(env, "course_terms", {}).pop(page, None)

"""Figures as a notebook stores them: as PNG, and as SVG that is small, safe and always the same.

JupyterLab shows the PNG of a notebook that is not trusted, and the book takes the SVG. The look of
both is in `figures.mplstyle`, beside this file; the book gives the SVG the colors of its theme.
This module is also the plugin of pytest that `pyproject.toml` names.
"""

import re
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from nbformat import NotebookNode

FIGURE_FORMATS = [
    f"--InlineBackend.figure_formats={kind}" for kind in ("png", "svg")
]  # of a kernel
MOST_SVG_BYTES = 150_000  # of an SVG: what is heavier is a picture, and PNG holds it better
SHAPES = {
    *("svg", "g", "defs", "use", "title", "text", "tspan", "image", "path", "rect", "circle"),
    *("line", "polyline", "polygon", "clipPath", "pattern", "marker"),
}
OWN_LINK = re.compile(r"#[\w.-]+|data:image/png;base64,[A-Za-z0-9+/=\s]*")
USUAL_FONT = re.compile(r"(?:^|;)font-family:'DejaVu Sans'(?:, 'Verdana', sans-serif)?(?=;|$)")
PLACES = {"d", "x", "y", "width", "height", "points", "transform", "viewBox"}


def store_figures(notebook: NotebookNode) -> None:
    """Make the SVG of each figure small, in place; where it stays heavy, keep the PNG alone."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/svg+xml" in data and "image/png" in data:
                small = compact(data.pop("image/svg+xml"))
                if len(small.encode()) <= MOST_SVG_BYTES:
                    data["image/svg+xml"] = small


def compact(svg: str) -> str:
    """Drop from matplotlib's SVG what no reader sees: dates, names of parts, digits, groups."""
    root = read_svg(svg)
    # Once for all, in the place of matplotlib's style sheet, which a whole page would obey.
    root.set("stroke-linejoin", "round")
    root.set("font-family", "DejaVu Sans, Verdana, sans-serif")
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', ElementTree.tostring(root, "unicode")))
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        for name, value in element.attrib.items():
            if name in PLACES and not value.startswith("matrix"):  # of a picture's many pixels
                value = re.sub(r"(?<![\w.])-?\d+\.\d+", rounded, value)
                value = re.sub(r"\s*([MLQCZz])\s*", r"\1", value) if name == "d" else value
            if name == "style":
                value = USUAL_FONT.sub("", re.sub(r"([;:]) ", r"\1", value)).strip(";")
            element.set(name, " ".join(value.split()))
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
    ungroup(root)
    ElementTree.register_namespace("", "http://www.w3.org/2000/svg")
    for child in root:
        child.tail = "\n"  # lines, for who compares two versions
    return ElementTree.tostring(root, "unicode") + "\n"


def read_svg(svg: str) -> Element:
    """Parse an SVG; raise ValueError if it holds more than a drawing, such as a script.

    Matplotlib's metadata and style sheet are dropped, and so are blanks between elements.
    """
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        parent[:] = [child for child in parent if local(child) not in ("metadata", "style")]
        if len(parent) and not (parent.text or "").strip():
            parent.text = None
        for child in parent:
            child.tail = child.tail if (child.tail or "").strip() else None
    for element in root.iter():
        if local(element) not in SHAPES:
            raise ValueError(f"an SVG holds <{local(element)}>, which is no part of a drawing")
        for name, value in list(element.attrib.items()):
            if name.endswith("href"):
                del element.attrib[name]
                element.set(name := "href", value)  # without the prefix of old SVG
            if name.startswith("on") or (name == "href" and not OWN_LINK.fullmatch(value)):
                raise ValueError(f"an SVG holds {name}={value[:40]!r}: that may run or load things")
            if re.search(r"url\((?!#)|@import", value):
                raise ValueError(f"an SVG loads {value[:40]!r}")
    return root


def local(element: Element) -> str:
    """Return the name of an element without its namespace."""
    return element.tag.rpartition("}")[2]


def rounded(number: re.Match[str]) -> str:
    """Write a coordinate in hundredths of a point; leave what is small: it may be a factor."""
    if abs(value := float(number[0])) < 0.1 and value:
        return number[0]
    return f"{value:.2f}".rstrip("0").rstrip(".")


def ungroup(element: Element) -> None:
    """Put the children of groups that say nothing in the place of these groups."""
    for child in list(element):
        ungroup(child)
    flat: list[Element] = []
    for child in element:
        if local(child) == "g" and not child.attrib:
            flat += child
        elif local(child) != "defs" or len(child):
            flat.append(child)
    element[:] = flat


def pytest_collectstart(collector: Any) -> None:
    """Let nbval compare no drawings, as it compares no pixels: a kernel's own format is PNG."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("image/svg+xml",)

"""Drawings in the ink of the page: an SVG becomes a part of it, in the colors of its theme.

Black is the color of the text and white that of the page, in both themes. Every other color has a
counterpart in the dark: as far from the page as it was, in the same hue. What is printed is light.
"""

import io
import re
from base64 import b64decode, b64encode
from collections import Counter
from copy import copy
from functools import cache
from hashlib import sha256
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from docutils import nodes
from PIL import Image

from course.figures import local, read_svg

PIXELS_PER_POINT = 110 / 72  # as wide as the PNG, which has 110 pixels an inch
INK, PAPER = (0xCE, 0xD6, 0xDD), (0x12, 0x12, 0x12)  # text and background of the dark theme
THEME = {"000000": "currentColor", "ffffff": "var(--pst-color-background)"}
COLOR = re.compile(r"(?<!\()#([0-9a-f]{6}|[0-9a-f]{3})\b", re.IGNORECASE)
PICTURE = "data:image/png;base64,"


def show_drawing(writer: nodes.NodeVisitor, node: nodes.image) -> None:
    """Write an SVG into the page; leave other images, and the maps, to the theme."""
    file = Path(writer.builder.srcdir, node["uri"])
    if file.suffix != ".svg" or file.name.startswith("map-"):
        type(writer).visit_image(writer, node)
        return
    writer.builder.images.pop(node["uri"], None)  # no copy beside the page
    writer.body.append(draw(file.read_text(encoding="utf-8"), node.get("alt", "")))
    raise nodes.SkipNode


def end_image(writer: nodes.NodeVisitor, node: nodes.image) -> None:
    """End an image that was left to the theme."""
    type(writer).depart_image(writer, node)


def draw(svg: str, alt: str) -> str:
    """Return an SVG for a page: transparent, in the theme's colors, with ids of its own."""
    root = read_svg(svg)
    name = f"d{sha256(svg.encode()).hexdigest()[:8]}"
    if root.get("width", "").endswith("pt"):
        for side, points in zip(("width", "height"), root.get("viewBox").split()[2:], strict=True):
            root.set(side, f"{float(points) * PIXELS_PER_POINT:.0f}")
    remove_ground(root)
    for parent in list(root.iter()):
        for image in [child for child in parent if local(child) == "image"]:
            parent.insert(list(parent).index(image) + 1, for_the_dark(image))
    used: set[str] = set()
    for element in root.iter():
        take_colors(element, used)
        for key, value in element.attrib.items():
            if key == "id":
                value = f"{name}-{value}"
            elif key == "href" and value.startswith("#"):
                value = f"#{name}-{value[1:]}"
            element.set(key, value.replace("url(#", f"url(#{name}-"))
        element.tag = local(element)  # in a page there are no namespaces
    about = {"class": f"drawing {name}", "role": "img", "aria-label": alt, "fill": "currentColor"}
    root.attrib = about | root.attrib
    style = Element("style")
    style.text = name_styles(root, name)
    if used:
        pairs = "".join(f"--c{color}:#{bytes(dark(color)).hex()};" for color in sorted(used))
        style.text += f'@media screen{{html[data-theme="dark"] .{name}{{{pairs}}}}}'
    root.insert(0, style)
    return ElementTree.tostring(root, "unicode").replace("&gt;", ">").replace(" />", "/>")


def name_styles(root: Element, name: str) -> str:
    """Put a class in the place of each style that several elements share; return their rules."""
    times = Counter(element.get("style") for element in root.iter())
    shared = [style for style, n in times.items() if style and n > 1]
    classes = {style: f"s{i}" for i, style in enumerate(shared)}
    for element in root.iter():
        if element.get("style") in classes:
            names = [element.get("class"), classes[element.attrib.pop("style")]]
            element.set("class", " ".join(filter(None, names)))
    return "".join(f".{name} .{one}{{{style}}}" for style, one in classes.items())


def remove_ground(root: Element) -> None:
    """Remove the white sheet that a drawing lies on."""
    first = next(child for child in root if local(child) != "defs")
    look = f"{first.get('style', '')} {first.get('fill', '')}"
    if re.search(r"#fff(?:fff)?\b", look) and "stroke" not in look and not first.get("stroke"):
        root.remove(first)


def take_colors(element: Element, used: set[str]) -> None:
    """Give an element the colors of the theme; add to `used` those that have a counterpart."""

    def themed(found: re.Match[str]) -> str:
        color = found[1].lower()
        color = color if len(color) == 6 else "".join(c + c for c in color)
        if color in THEME:
            return THEME[color]
        used.add(color)
        return f"var(--c{color},#{color})"

    paint = [
        f"{key}:{element.attrib.pop(key)}" for key in ("fill", "stroke") if key in element.attrib
    ]
    if style := ";".join([*paint, *filter(None, [element.get("style")])]):
        element.set("style", COLOR.sub(themed, style))


@cache
def dark(color: str) -> tuple[int, int, int]:
    """Return the counterpart of a color in the dark theme; black is its ink and white its paper."""
    rgb = [value / 255 for value in bytes.fromhex(color)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in rgb]
    luminance = sum(v * w for v, w in zip(linear, (0.2126, 0.7152, 0.0722), strict=True))
    lightness = 1.16 * luminance ** (1 / 3) - 0.16 if luminance > 0.0089 else 9.03 * luminance
    middle = (max(rgb) + min(rgb)) / 2  # what is above and below it makes the hue
    parts = zip(rgb, INK, PAPER, strict=True)
    mixed = [i + (p - i) * lightness + 255 * (v - middle) for v, i, p in parts]
    return tuple(min(255, max(0, round(value))) for value in mixed)


def for_the_dark(image: Element) -> Element:
    """Return a picture's counterpart in the dark theme; the style sheet shows one of the two."""
    picture = Image.open(io.BytesIO(b64decode(image.get("href").removeprefix(PICTURE))))
    data = picture.convert("RGBA").tobytes()  # four bytes a pixel
    pixels = (bytes((*dark(data[i : i + 3].hex()), data[i + 3])) for i in range(0, len(data), 4))
    picture = Image.frombytes("RGBA", picture.size, b"".join(pixels))
    file = io.BytesIO()
    picture.save(file, "PNG")
    other = copy(image)
    other.attrib = {**image.attrib, "class": "by-night"}
    other.set("href", PICTURE + b64encode(file.getvalue()).decode())
    image.set("class", "by-day")
    return other

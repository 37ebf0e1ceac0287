"""The map of the course: twelve rooms below the preliminaries, one of them lit."""

from html import escape

from course.chapters import CHAPTERS, Chapter

COLUMNS, WIDTH, HEIGHT, GAP, MARGIN = 3, 180, 30, 8, 8
WHOLE = COLUMNS * (WIDTH + GAP) - GAP


def draw(lit: int) -> str:
    """Draw the map as SVG: chapter `lit` white on dark, earlier ones filled, later ones dashed."""
    rows = 1 - (-max(chapter.number for chapter in CHAPTERS) // COLUMNS)
    width = WHOLE + 2 * MARGIN
    height = rows * HEIGHT + (rows - 1) * GAP + 2 * MARGIN
    rooms = "\n".join(room(chapter, lit) for chapter in CHAPTERS)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="system-ui, sans-serif" font-size="12">\n'
        f'<rect width="{width}" height="{height}" rx="6" fill="#fff"/>\n{rooms}\n</svg>\n'
    )


def room(chapter: Chapter, lit: int) -> str:
    """Draw one room and its label; chapter 0 is as wide as the house."""
    row, column = divmod(chapter.number - 1, COLUMNS) if chapter.number else (-1, 0)
    x, y = MARGIN + column * (WIDTH + GAP), MARGIN + (row + 1) * (HEIGHT + GAP)
    width = WIDTH if chapter.number else WHOLE
    fill, ink, line = ("#fff", "#444", ' stroke-dasharray="4 3"')
    if chapter.number == lit:
        fill, ink, line = "#1b3a6b", "#fff", ""
    elif chapter.number < lit:
        fill, ink, line = "#dfe6f1", "#1b3a6b", ""
    label = f"{chapter.number} {escape(chapter.title)}"
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{HEIGHT}" rx="4" fill="{fill}" '
        f'stroke="#1b3a6b"{line}/>'
        f'<text x="{x + 8}" y="{y + 20}" fill="{ink}">{label}</text>'
    )

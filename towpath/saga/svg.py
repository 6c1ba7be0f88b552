"""Draws a diagram as an SVG document that stands alone: no tool, no font, no network."""

from dataclasses import dataclass
from html import escape
from textwrap import wrap

from towpath.saga.diagram import COLOURS, Box, Graph, Line

_LINE_HEIGHT, _PADDING, _GAP, _ROW_GAP = 18, 10, 40, 70
_FONT = 'font-family="sans-serif" font-size="12"'
_BOLD = ' font-weight="bold"'
_LABEL_WIDTH, _LABEL_HEIGHT = 22, 14  # characters, px
_CHARACTER_WIDTH = 7.3  # of a 12 px sans-serif, on the wide side, so that no text outgrows its box


@dataclass(frozen=True, slots=True)
class _Place:
    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


def to_svg(graph: Graph) -> str:
    """Return a graph as an SVG document that stands alone."""
    places, width, height = _layout(graph)
    text = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" {_FONT}>',
        f"<title>{escape(graph.title)}</title>",
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">',
        '<path d="M0 0 L8 4 L0 8 z" fill="#555555"/></marker></defs>',
    ]
    text += [_svg_line(line, places) for line in graph.lines]
    text += [_svg_box(box, places[box.key]) for row in graph.rows for box in row]
    return "\n".join([*text, "</svg>"]) + "\n"


def _layout(graph: Graph) -> tuple[dict[str, _Place], float, float]:
    """Return where each box stands, and the size of the whole: rows centred, one below the other."""
    sizes = {
        box.key: (
            max(map(len, box.lines)) * _CHARACTER_WIDTH + 2 * _PADDING,
            len(box.lines) * _LINE_HEIGHT + 2 * _PADDING,
        )
        for row in graph.rows
        for box in row
    }
    # An arrow's label stands beside its middle: leave it room.
    gap = max([_GAP, *(len(words) * _CHARACTER_WIDTH + _GAP for line in graph.lines for words in _label(line))])
    row_gap = _ROW_GAP + max([0, *(_LABEL_HEIGHT * len(_label(line)) for line in graph.lines)])
    widths = [sum(sizes[box.key][0] for box in row) + gap * (len(row) - 1) for row in graph.rows]
    whole = max(widths) + 2 * gap
    places: dict[str, _Place] = {}
    y: float = _GAP
    for row, row_width in zip(graph.rows, widths, strict=True):
        x = (whole - row_width) / 2
        for box in row:
            width, height = sizes[box.key]
            places[box.key] = _Place(x, y, width, height)
            x += width + gap
        y += max(sizes[box.key][1] for box in row) + row_gap
    return places, whole, y - row_gap + _GAP


def _label(line: Line) -> list[str]:
    return wrap(line.label, _LABEL_WIDTH)


def _svg_box(box: Box, place: _Place) -> str:
    fill, border = COLOURS[box.kind]
    lines = "".join(
        f'<tspan x="{place.middle:.0f}" dy="{_LINE_HEIGHT}"{"" if at else _BOLD}>{escape(line)}</tspan>'
        for at, line in enumerate(box.lines)
    )
    return (
        f'<g><rect x="{place.x:.0f}" y="{place.y:.0f}" width="{place.width:.0f}" height="{place.height:.0f}" rx="6" '
        f'fill="{fill}" stroke="{border}"/>'
        f'<text y="{place.y + _PADDING - 4:.0f}" text-anchor="middle" fill="#222222">{lines}</text></g>'
    )


def _svg_line(line: Line, places: dict[str, _Place]) -> str:
    source, target = places[line.source], places[line.target]
    # Where two arrows join the same boxes, the one that goes back keeps to the left of the other.
    shift = -24 if line.back else 0
    if source.y < target.y:
        x1, y1, x2, y2 = source.middle + shift, source.y + source.height, target.middle + shift, target.y
    elif source.y > target.y:
        x1, y1, x2, y2 = source.middle + shift, source.y, target.middle + shift, target.y + target.height
    else:
        right = source.x < target.x
        y1 = y2 = source.y + source.height / 2 + shift / 2
        x1, x2 = (source.x + source.width, target.x) if right else (source.x, target.x + target.width)
    dashes = ' stroke-dasharray="5 4"' if line.back else ""
    label = _svg_label(line, (x1, y1, x2, y2))
    path = (
        f'<path d="M{x1:.0f} {y1:.0f} L{x2:.0f} {y2:.0f}" stroke="#555555" fill="none"{dashes} marker-end="url(#tip)"/>'
    )
    return path + label


def _svg_label(line: Line, ends: tuple[float, float, float, float]) -> str:
    """Return the words beside an arrow: below a level one (above, if it goes back), else on its outer side."""
    x1, y1, x2, y2 = ends
    words = _label(line)
    # Nearer to the head than to the tail: arrows from one box lie further apart there.
    along = 0.5 if line.back or y1 == y2 else 0.62
    x, y = x1 + along * (x2 - x1), y1 + along * (y2 - y1)
    if y1 == y2:
        anchor = "middle"
        y += -6 - (len(words) - 1) * _LABEL_HEIGHT if line.back else _LABEL_HEIGHT
    else:
        leftwards = line.back or x2 < x1 - _GAP
        anchor, x = ("end", x - 8) if leftwards else ("start", x + 8)
        y -= (len(words) - 1) * _LABEL_HEIGHT / 2
    style = f'text-anchor="{anchor}" fill="#555555"'
    return "".join(
        f'<text x="{x:.0f}" y="{y + at * _LABEL_HEIGHT:.0f}" {style}>{escape(each)}</text>'
        for at, each in enumerate(words)
    )

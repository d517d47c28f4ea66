"""Draw lines over a linear and a logarithmic axis as an SVG, in light and dark colors as the viewer prefers."""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 900, 480
LEFT, RIGHT, TOP, BOTTOM = 70, 30, 44, 52  # margins around the lines
LEGEND_LINE: Final = 20
TICKS_MAX: Final = 10
# Smaller values are drawn here: 0 has no logarithm.
VALUE_MIN: Final = 1e-6
# Okabe and Ito's colors, which most color-blind people can tell apart (Color universal design, 2008). The first line
# has the color of the text.
COLORS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
STYLE: Final = """
svg { color: #1a1a1a; background: #ffffff; font: 13px system-ui, sans-serif }
text { fill: currentColor }
.grid { stroke: currentColor; stroke-opacity: 0.15 }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round }
@media (prefers-color-scheme: dark) { svg { color: #e6e6e6; background: #14161a } }
"""


class Line(NamedTuple):
    """One line: its name for the legend, and its points, by ascending x; NaN as a y interrupts the line."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


class Axis(NamedTuple):
    """An axis: its range, whether it is logarithmic, and the pixels of its two ends."""

    low: float
    high: float
    is_log: bool
    start: float
    end: float

    def place(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high, value = (math.log(one) if self.is_log else one for one in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round values within the range."""
        return _log_ticks(self.low, self.high) if self.is_log else _linear_ticks(self.low, self.high)


def draw_chart(title: str, x_label: str, y_label: str, lines: Sequence[Line]) -> str:
    """Return an SVG of lines; the y axis is logarithmic.

    Args:
        title: The title.
        x_label: The name of the x axis, which starts at 0.
        y_label: The name of the y axis.
        lines: The lines; one without points has only its name in the legend.
    """
    values = [max(value, VALUE_MIN) for line in lines for value in line.y if not math.isnan(value)] or [1.0]
    low, high = min(values), max(values)
    if high < 2 * low:  # room for some ticks
        low, high = low / math.sqrt(2), high * math.sqrt(2)
    legend = TOP + LEGEND_LINE * len(lines)
    bottom = legend + HEIGHT - TOP - BOTTOM
    x_axis = Axis(0, max((line.x[-1] for line in lines if len(line.x)), default=1.0), False, LEFT, WIDTH - RIGHT)
    y_axis = Axis(low, high, True, bottom, legend + 8)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + BOTTOM}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<rect width="100%" height="100%" fill="none"/><text x="{LEFT}" y="24" font-size="16">{escape(title)}</text>',
        *_draw_axes(x_axis, y_axis, x_label, y_label),
        *(part for number, line in enumerate(lines) for part in _draw_line(number, line, x_axis, y_axis)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _draw_axes(x_axis: Axis, y_axis: Axis, x_label: str, y_label: str) -> Iterator[str]:
    for value in y_axis.ticks():
        y = y_axis.place(value)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
    for value in x_axis.ticks():
        x = x_axis.place(value)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{y_axis.end:.1f}" y2="{y_axis.start:.1f}"/>'
        yield f'<text x="{x:.1f}" y="{y_axis.start + 20:.1f}" text-anchor="middle">{value:,.0f}</text>'
    middle = (y_axis.start + y_axis.end) / 2
    x = (x_axis.start + x_axis.end) / 2
    yield f'<text x="{x:.1f}" y="{y_axis.start + 42:.1f}" text-anchor="middle">{escape(x_label)}</text>'
    yield f'<text transform="translate(18 {middle:.1f}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'


def _draw_line(number: int, line: Line, x_axis: Axis, y_axis: Axis) -> Iterator[str]:
    color = "currentColor" if number == 0 else COLORS[(number - 1) % len(COLORS)]
    dashes = f' stroke-dasharray="{6 * cycle} 3"' if (cycle := (number - 1) // len(COLORS)) > 0 else ""
    stroke = f'class="line" stroke="{color}"{dashes}'
    points = list(zip(line.x, line.y, strict=True))
    for is_gap, run in groupby(points, key=lambda point: math.isnan(point[1])):
        if not is_gap:
            places = " ".join(f"{x_axis.place(x):.1f},{y_axis.place(max(y, VALUE_MIN)):.1f}" for x, y in run)
            yield f'<polyline {stroke} points="{places}"/>'
    y = TOP + LEGEND_LINE * number
    yield f'<line {stroke} x1="{LEFT}" x2="{LEFT + 28}" y1="{y - 4}" y2="{y - 4}"/>'
    yield f'<text x="{LEFT + 36}" y="{y}">{escape(line.name)}</text>'


def _linear_ticks(low: float, high: float) -> list[float]:
    exponent = math.floor(math.log10((high - low) / TICKS_MAX))
    steps = (factor * 10.0 ** (exponent + more) for more in (0, 1) for factor in (1, 2, 5))
    step = next(one for one in steps if (high - low) / one <= TICKS_MAX)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for factors in ((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 5), (1,)):
        ticks = [float(f"{factor}e{exponent}") for exponent in exponents for factor in factors]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= TICKS_MAX:
            break
    return ticks

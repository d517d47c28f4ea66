"""The chart of lines is an SVG in which each value is in its place."""

import math
from xml.etree import ElementTree as ET

import pytest

from service.line_chart import LEFT, RIGHT, WIDTH, Line, draw_chart

SVG = "{http://www.w3.org/2000/svg}"


def parse(chart: str) -> tuple[list[str], list[list[tuple[float, float]]]]:
    """Return the texts of a chart, and the points of its lines."""
    root = ET.fromstring(chart)  # noqa: S314  # the product's own output
    lines = [[place.split(",") for place in line.attrib["points"].split()] for line in root.iter(f"{SVG}polyline")]
    return [text.text or "" for text in root.iter(f"{SVG}text")], [
        [(float(x), float(y)) for x, y in one] for one in lines
    ]


def test_values_are_in_their_places() -> None:
    """The x axis is linear from 0 on, the y axis logarithmic, and NaN interrupts a line."""
    texts, (first, *parts) = parse(
        draw_chart("A & B", "rows", "loss", [
            Line("<unchanged>", [100, 200, 400], [1.0, 0.1, 0.01]), Line("b", [100, 200, 400], [0.5, math.nan, 0.5]),
        ])
    )  # fmt: skip
    assert {"A & B", "<unchanged>", "b", "rows", "loss", "0", "400", "0.01", "0.1", "1"} <= set(texts)
    (x1, y1), (x2, y2), (x3, y3) = first
    assert x3 == WIDTH - RIGHT
    assert (x2 - LEFT, x1 - LEFT) == pytest.approx(((x3 - LEFT) / 2, (x3 - LEFT) / 4), abs=0.1)
    assert y2 - y1 == pytest.approx(y3 - y2, abs=0.11)
    assert [len(part) for part in parts] == [1, 1]
    assert parts[0][0][1] == parts[1][0][1] < y2


@pytest.mark.parametrize("values", [[], [0.0], [0.0, 0.0], [2.5, 2.5], [1e-9, 1e3], [math.nan], [1e150, 1.0]])
def test_any_values_make_a_chart(values: list[float]) -> None:
    """No values, equal values, zeros and ranges of any size are drawn with at least one tick."""
    chart = draw_chart("t", "x", "y", [Line("a", list(range(1, len(values) + 1)), values), Line("none", [], [])])
    texts, lines = parse(chart)
    assert {"a", "none"} <= set(texts)
    assert sum(map(len, lines)) == sum(not math.isnan(value) for value in values)
    assert sum(text.replace(".", "").replace("e-", "").replace("e+", "").isdigit() for text in texts) >= 3

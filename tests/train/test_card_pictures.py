"""The pictures of a card, as SVG."""

import re

import pytest

from service.train.card_pictures import draw_reliability

RECTANGLE = re.compile(rb'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"/>\s*</clipPath>')
POINT = re.compile(rb'<g clip-path="[^"]+">\s*<use xlink:href="#(\w+)" x="([\d.]+)" y="([\d.]+)"')


@pytest.mark.parametrize("corner", [0.0, 1.0])
def test_the_largest_point_of_a_corner_is_whole(corner: float) -> None:
    """A bin in which all rows are right, or none, is not cut at the ends of the axes."""
    picture = draw_reliability([{"rows": 9, "confidence": corner, "accuracy": corner}])["card-reliability-light.svg"]
    rectangle, point = RECTANGLE.search(picture), POINT.search(picture)
    assert rectangle is not None
    assert point is not None
    path = picture[picture.index(b'<path id="%s" d="M 0 ' % point[1]) :]
    radius = float(path.split(maxsplit=5)[4])
    left, top, width, height = map(float, rectangle.groups())
    x, y = map(float, point.groups()[1:])
    assert radius > 5
    assert left <= x - radius < x + radius <= left + width
    assert top <= y - radius < y + radius <= top + height

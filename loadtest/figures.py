"""All figures of a run, in the order of the tables, and the measurements that some of them need."""

import figures_client
import figures_fields
import figures_learning
import figures_mathematics
import figures_serving
from figure import Figure, Results, Served

TABLES: dict[str, tuple[Figure, ...]] = {
    "Figures": figures_serving.FIGURES,
    "Figures of learning": figures_learning.FIGURES,
    "Figures of the mathematics": figures_mathematics.FIGURES,
    "Figures of fields": figures_fields.FIGURES,
    "Figures of the client": figures_client.FIGURES,
}
ALL = [figure for figures in TABLES.values() for figure in figures]
# The titles of the figures in README; results.md has all figures.
README_TITLES = (
    "`:predict`, one JSON row ÷ a raw ASGI app that answers `{}`",
    "kernel grid, ONNX Runtime's time ÷ ours, geo-mean",
    "v2 JSON ÷ Triton, Python backend, default settings",
    "`ftrl` on digits, Vowpal Wabbit's time ÷ ours",
    "acked feedback of one row, 64 connections, after 10⁶ events ÷ the raw ASGI app that answers `{}`",
)
NUMBERS = tuple(dict.fromkeys(figure.number for figure in ALL))


def evaluate(results: Results, numbers: tuple[str, ...]) -> list[dict[str, object]]:
    """Return every requested figure as JSON-ready values."""
    return [
        figure.evaluate(results) | {"table": name}
        for name, figures in TABLES.items()
        for figure in figures
        if figure.number in numbers
    ]


def needed(numbers: tuple[str, ...]) -> set[Served]:
    """Return the loads over HTTP that the requested figures need."""
    return {served for figure in ALL if figure.number in numbers for served in figure.needs}

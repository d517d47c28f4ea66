"""The figures of the mathematics: what each one is, its target, and how it follows from the measurements of one run."""

from figure import rates

EXPLAIN_1 = "explain-1"

FIGURES = (
    rates(
        ("softstep", EXPLAIN_1),
        ("raw-asgi", EXPLAIN_1),
        "M4",
        "`:explain`, one JSON row ÷ a raw ASGI app that answers `{}`",
        0.4,
    ),
)

"""The figures of learning: title, target, and how the value follows from the measurements of one run.

learning.py measures losses and the fold measured_once; feedback_service.py measures a service that receives feedback.
"""

from figure import Figure, MissingError, Results, part


def measured_once(results: Results, name: str) -> list[float]:
    """Return the value that learning.py measured under a name."""
    for figure in part(results, "learning")["figures"]:
        if figure["name"] == name:
            return [figure["measured"]]
    raise MissingError("not measured in this run")


def by_name(number: str, title: str, name: str, least: float | None = None, most: float | None = None) -> Figure:
    """Return a figure that learning.py measures once."""
    return Figure(number, title, lambda results: measured_once(results, name), least=least, most=most)


def worst(results: Results) -> list[float]:
    """Return the largest ratio of all sets when learning continues from an artifact."""
    figures = part(results, "learning")["figures"]
    ratios = [one["measured"] for one in figures if one["name"].startswith("2 ") and "geometric" not in one["name"]]
    if not ratios:
        raise MissingError("not measured in this run")
    return [max(ratios)]


def by_round(
    number: str, title: str, name: str, *, least: float | None = None, most: float | None = None, unit: str = ""
) -> Figure:
    """Return a figure that feedback_service.py measures round by round."""

    def measure(results: Results) -> list[float]:
        seen: list[float] | None = part(results, "feedback").get(name)
        if seen is None:
            raise MissingError("not measured in this run")
        return seen

    return Figure(number, title, measure, least=least, most=most, unit=unit)


CHANGED = "rows until the mean loss of 500 is under 0.5, after every label changed"
SINGLE = "acked feedback of one row, 64 connections, after 10⁶ events"

MEAN_40, MEAN_10 = (f"2 learned / static after {part}%, geometric mean" for part in (40, 10))
BEFORE = "loss before the change, minus the loss without forgetting"

FIGURES = (
    by_name(
        "L1",
        "progressive log loss from zero weights, six sets, geo-mean",
        "1 progressive log loss, geometric mean",
        most=0.238,
    ),
    by_name("L2", "loss ÷ the static artifact's, trained on 40 % of the rows, geo-mean", MEAN_40, most=0.99),
    by_name("L2", "loss ÷ the static artifact's, trained on 10 % of the rows, geo-mean", MEAN_10, most=0.80),
    Figure("L2", "the same, worst set of both", worst, most=1.02),
    by_name("L3", CHANGED, "3 rows until the mean loss of 500 is under 0.5", most=5000),
    by_name("L3", BEFORE, "3 loss before, more than without forgetting", most=0.002),
    by_name("L4", "fold, `sgd`, 32 features, 10 classes, rows/s", "4 sgd, 32 x 10, rows/s", least=1_500_000),
    by_name("L4", "fold, `ftrl`, 32 features, 10 classes, rows/s", "4 ftrl, 32 x 10, rows/s", least=700_000),
    by_name("L4", "fold, `newton`, digits, rows/s", "4 newton, digits, rows/s", least=100_000),
    by_name(
        "L4", "`ftrl` on digits, Vowpal Wabbit's time ÷ ours", "4 ftrl on digits, Vowpal Wabbit's time / ours", least=3
    ),
    by_round("L5", f"{SINGLE} ÷ the raw ASGI app that answers `{{}}`", "single_ratio", least=0.4),
    by_round("L5", "the same, events/s", "single_per_s"),
    by_round("L5", "the same, p99", "single_p99_ms", most=10, unit=" ms"),
    by_round("L6", "acked feedback, digits, requests of 32 rows, rows/s", "rows_per_s", least=100_000),
    by_round("L7", "`fdatasync` calls for an event at 64 connections", "syncs_per_event", most=0.1),
    by_round(
        "L8", "p99 of `:predict` during feedback at half its saturation ÷ p99 without", "predict_p99_ratio", most=1.5
    ),
    by_round("L9", "acked to served, p99", "served_p99_ms", most=50, unit=" ms"),
    by_round("L10", "restart after 10⁶ events and a checkpoint, until ready", "restart_s", most=3, unit=" s"),
    by_round("L10", "replay of 10⁶ events of one row, `ftrl`, rows/s", "replayed_per_s", least=300_000),
)

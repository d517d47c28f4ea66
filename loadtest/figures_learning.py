"""The figures of learning: title, target, and how the value follows from the measurements of one run.

learning.py measures losses and the speed of the fold; feedback_service.py a service that receives feedback;
learned_service.py and mixture_batches.py models that learned by the rule mixture.
"""

from figure import Figure, MissingError, Results, part
from figures_serving import quotients


def measured_once(results: Results, name: str) -> list[float]:
    """Return the value that learning.py measured under a name."""
    for figure in part(results, "learning")["figures"]:
        if figure["name"] == name:
            return [figure["measured"]]
    raise MissingError("not measured in this run")


def by_name(number: str, title: str, name: str, least: float | None = None, most: float | None = None) -> Figure:
    """Return a figure that learning.py measures once."""
    return Figure(number, title, lambda results: measured_once(results, name), least=least, most=most)


def worst(number: str, title: str, start: str, most: float) -> Figure:
    """Return a figure that is the largest ratio of all data sets, among those whose names have this start."""

    def measure(results: Results) -> list[float]:
        figures = part(results, "learning")["figures"]
        named = {one["name"]: one["measured"] for one in figures if one["name"].startswith(start)}
        ratios = [value for name, value in named.items() if "geometric" not in name]
        if not ratios:
            raise MissingError("not measured in this run")
        return [max(ratios)]

    return Figure(number, title, measure, most=most)


def batch_ratio(results: Results) -> list[float]:
    """Return ONNX Runtime's time for a batch through a network ÷ ours through a mixture, round by round."""
    return quotients(part(results, "batches")["predict"]["us"], "onnxruntime")


def by_round(
    number: str,
    title: str,
    name: str,
    *,
    least: float | None = None,
    most: float | None = None,
    unit: str = "",
    where: str = "feedback",
) -> Figure:
    """Return a figure that a service measures round by round; `where` is its part of the results."""

    def measure(results: Results) -> list[float]:
        seen: list[float] | None = part(results, where).get(name)
        if seen is None:
            raise MissingError("not measured in this run")
        return seen

    return Figure(number, title, measure, least=least, most=most, unit=unit)


CHANGED = "rows until the mean loss of 500 is under 0.5, after every label changed"
BEFORE = "loss before the change, minus the loss without forgetting"
SINGLE = "acked feedback of one row, 64 connections, after 10⁶ events"
RAW = "÷ the raw ASGI app that answers `{}`"
LEARNED = "digits learned by `mixture`"


def continued(rule: str, most_40: float, most_10: float) -> tuple[Figure, ...]:
    """Return the figures of a rule that continues from a trained artifact."""
    return (
        *(
            by_name(
                "L2",
                f"`{rule}`: loss ÷ the static artifact's, trained on {part} % of the rows, geo-mean",
                f"2 {rule}, learned / static after {part}%, geometric mean",
                most=most,
            )
            for part, most in ((40, most_40), (10, most_10))
        ),
        worst("L2", f"`{rule}`: the same, worst set of both", f"2 {rule}, ", 1.02),
    )


def changed(rule: str, most: float) -> tuple[Figure, ...]:
    """Return the figures of a rule when every label changes."""
    return (
        by_name("L3", f"`{rule}`: {CHANGED}", f"3 {rule}, rows until the mean loss of 500 is under 0.5", most=most),
        by_name("L3", f"`{rule}`: {BEFORE}", f"3 {rule}, loss before, more than without forgetting", most=0.002),
    )


FIGURES = (
    by_name(
        "L1",
        "progressive log loss from zero weights, default rule, six sets, geo-mean",
        "1 progressive log loss, geometric mean",
        most=0.185,
    ),
    by_name("L1", "the same by `newton`", "1 progressive log loss by newton, geometric mean"),
    worst("L1", "loss of the default rule ÷ `newton`'s, worst set", "1 loss / newton, ", 1.01),
    *continued("mixture", 0.81, 0.62),
    *continued("newton", 0.99, 0.80),
    *changed("mixture", 1600),
    *changed("newton", 5000),
    by_name("L4", "fold, `sgd`, 32 features, 10 classes, rows/s", "4 sgd, 32 x 10, rows/s", least=1_500_000),
    by_name("L4", "fold, `ftrl`, 32 features, 10 classes, rows/s", "4 ftrl, 32 x 10, rows/s", least=700_000),
    by_name("L4", "fold, `newton`, digits, rows/s", "4 newton, digits, rows/s", least=100_000),
    by_name("L4", "fold, `mixture`, digits, rows/s", "4 mixture, digits, rows/s"),
    by_name("L4", "fold, `mixture` ÷ `newton`, digits", "4 mixture / newton, digits, rows/s", least=0.3),
    by_name(
        "L4", "`ftrl` on digits, Vowpal Wabbit's time ÷ ours", "4 ftrl on digits, Vowpal Wabbit's time / ours", least=3
    ),
    by_round("L5", f"{SINGLE} {RAW}", "single_ratio", least=0.4),
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
    by_round("B6", f"`:predict`, one JSON row, {LEARNED} {RAW}", "digits_ratio", least=1.3, where="learned"),
    by_round("B6", "the same, requests/s", "digits_per_s", where="learned"),
    Figure("B6", f"256 rows, {LEARNED}: ONNX Runtime's time for a 64-256-10 network ÷ ours", batch_ratio, least=1),
    by_round("B7", f"{SINGLE}, {LEARNED} {RAW}", "feedback_ratio", least=0.4, where="learned_feedback"),
    by_round("B7", "the same, events/s", "feedback_per_s", where="learned_feedback"),
    by_round("B7", "the same, p99", "feedback_p99_ms", unit=" ms", where="learned_feedback"),
    by_round("B8", f"768 features, 10 classes, one row as v2 binary {RAW}", "wide_ratio", least=1, where="learned"),
    by_round("B8", "the same, learned by `mixture`", "wide-mixture_ratio", where="learned"),
)

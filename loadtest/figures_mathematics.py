"""The figures of the mathematics: title, target, and how the value follows from the measurements of one run.

exactness.py measures gradients and bits; networks.py measures networks and their peers.
"""

from typing import Any

from figure import Figure, MissingError, Results, part, rates

EXPLAIN_1 = "explain-1"
EXACT = 1e-6
ONE_CALL = "softstep, a row a call"


def gradient_error(results: Results, name: str) -> list[float]:
    """Return the largest relative difference of all activations."""
    return [max(point[name] for point in measured(results, "exactness", "gradients"))]


def predict_ratios(results: Results, rows: int) -> list[float]:
    """Return ONNX Runtime's time ÷ ours for that many rows: in each round the worst activation."""
    points = [point["ratio"] for point in measured(results, "networks", "predict") if point["rows"] == rows]
    return [min(ratios) for ratios in zip(*points, strict=True)]


def step_ratios(results: Results) -> list[float]:
    """Return PyTorch's time ÷ ours for the step of one row in a call: in each round the worst activation."""
    points = [point["ratio"][ONE_CALL] for point in measured(results, "networks", "step")]
    return [min(ratios) for ratios in zip(*points, strict=True)]


def hashes(results: Results) -> list[float]:
    """Return the number of different hashes among the targets."""
    return [float(len(set(measured(results, "exactness", "bits").values())))]


def measured(results: Results, name: str, piece: str) -> Any:  # noqa: ANN401 - a part of a JSON document
    """Return a piece of a part of the results."""
    found = part(results, name).get(piece)
    if found is None:
        raise MissingError("not measured in this run")
    return found


FIGURES = (
    Figure(
        "M1",
        "gradients of a network with three hidden layers, largest relative difference from finite differences",
        lambda results: gradient_error(results, "differences"),
        most=EXACT,
    ),
    Figure("M1", "the same, from autograd", lambda results: gradient_error(results, "autograd"), most=EXACT),
    Figure(
        "M2",
        "predict of a 64-32-10 network, one row, ONNX Runtime's time ÷ ours, worst activation",
        lambda results: predict_ratios(results, 1),
        least=2,
    ),
    Figure("M2", "the same, 256 rows", lambda results: predict_ratios(results, 256), least=0.9),
    Figure("M3", "its online step, one row, PyTorch's time ÷ ours, worst activation", step_ratios, least=20),
    rates(
        ("softstep", EXPLAIN_1),
        ("raw-asgi", EXPLAIN_1),
        "M4",
        "`:explain`, one JSON row ÷ a raw ASGI app that answers `{}`",
        0.4,
    ),
    Figure(
        "M5",
        "different hashes of all answers, gradients and folds, of networks too, over every processor target",
        hashes,
        most=1,
    ),
)

"""The learning rules side by side, for the table of docs/learning.md: losses, and what a step and a prediction cost.

    .venv/bin/python loadtest/rule_comparison.py [--shuffles 5] [--write]       about two minutes

Losses are progressive and the means over orders; the geometric mean of the six data sets counts. Trained artifacts are
those of `learning.py`. Costs are measured on digits in turns, one rule after another, as processor time.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any, Final

import numpy as np
from environments import HERE

sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE.parent / "docs"))

from artifacts import Rows, make_artifact
from datasets import SETS
from learning import SHUFFLES, TURNS, train_artifact
from machine import describe
from marked_table import replace_table
from tables import number, table

from service.learn.state import LearnerState
from service.softmax.classifier import Classifier
from service.store.artifact.artifact import Artifact
from service.store.artifact.model_factory import build_model

ROOT = HERE.parent
FILE = ROOT / "docs" / "benchmarks" / "rules.json"
PAGE = ROOT / "docs" / "learning.md"
MARK = "rules"
MACHINE = ("date", "processor", "load_before", "python")
# For which models each rule is the right one.
CHOICE: Final = {
    "mixture": "new models, and trained ones that need not stay linear",
    "newton": "trained models; new ones that must stay linear, to be explained feature by feature",
    "ftrl": "many features and classes, or the cheapest steps",
    "adagrad": "networks, and weights without `training`",
    "sgd": "comparisons with a textbook",
}
# On raw features, which sgd takes without a clip, its losses would be in the hundreds.
CONSTANTS: Final = {"sgd": {"clip": 2.0}}
PARTS = {"10 %": 0.1, "40 %": 0.4}
BATCH = 256
# Repetitions of one measurement of predictions.
REPEATS = {1: 2_000, BATCH: 40}


def with_rule(artifact: Artifact, rule: str) -> Artifact:
    """Return an artifact that learns by a rule."""
    fields = artifact.manifest.model_dump(mode="json", exclude_none=True, exclude={"format_version", "tensors_sha256"})
    return Artifact.from_fields(fields | learning(rule), artifact.tensors)


def learning(rule: str) -> dict[str, Any]:
    """Return the field of a manifest that names a rule."""
    return {"learning": {"rule": rule, "constants": CONSTANTS.get(rule, {})}}


def loss_from_zero(data: Rows, rule: str) -> float:
    """Return the loss of one pass from zero weights."""
    artifact = make_artifact(data, **learning(rule))
    return float(LearnerState(artifact).fold_rows(data.X, data.y).mean())


def losses_from_trained(data: Rows, part: float) -> dict[str, float]:
    """Return the loss of the rows after the first part, by rule; `static` is that of the artifact without learning."""
    count = int(part * len(data.y))
    artifact = train_artifact(data, count)
    X, y = data.X[count:].copy(), data.y[count:].copy()
    Y = np.eye(data.n_classes)[y] if data.n_classes > 2 else y[:, None].astype(np.float64)  # noqa: PLR2004
    learned = {rule: LearnerState(with_rule(artifact, rule)).fold_rows(X, y).mean() for rule in CHOICE}
    learned["static"] = build_model(artifact).losses(X, Y).mean()
    return {name: float(loss) for name, loss in learned.items()}


def measure_losses(shuffles: int) -> dict[str, Any]:
    """Return the losses by rule and data set, and after each part of the rows those relative to the static artifact."""
    zero: dict[str, dict[str, float]] = {rule: {} for rule in CHOICE}
    ratios: dict[str, dict[str, list[float]]] = {rule: {part: [] for part in PARTS} for rule in CHOICE}
    for name, load in SETS.items():
        orders = [load().shuffled(shuffle) for shuffle in range(shuffles)]
        for rule in CHOICE:
            zero[rule][name] = float(np.mean([loss_from_zero(order, rule) for order in orders]))
        for part, share in PARTS.items():
            each = [losses_from_trained(order, share) for order in orders]
            static = sum(one["static"] for one in each)
            for rule in CHOICE:
                ratios[rule][part].append(sum(one[rule] for one in each) / static)
        print(f"{name} is measured", file=sys.stderr)
    means = {rule: {part: geometric_mean(found) for part, found in each.items()} for rule, each in ratios.items()}
    return {"zero": zero, "trained": means}


def predict_seconds(model: Classifier, X: Any, size: int) -> float:  # noqa: ANN401
    """Return the processor seconds that a prediction of some rows takes."""
    rows, count = X[:size].copy(), REPEATS[size]
    began = time.process_time()
    for _ in range(count):
        model.predict(rows)
    return (time.process_time() - began) / count


def measure_costs(turns: int) -> dict[str, dict[str, float]]:
    """Return by rule the rows that are learned in a second, and the seconds of predictions of 1 and of 256 rows."""
    data = SETS["digits"]()
    models: dict[str, Classifier] = {}
    times: dict[str, dict[str, list[float]]] = {rule: {"fold": [], "1": [], str(BATCH): []} for rule in CHOICE}
    for rule in CHOICE:
        state = LearnerState(make_artifact(data, **learning(rule)))
        state.fold_rows(data.X, data.y)
        models[rule] = state.served_parameters().build_model()
    for _ in range(turns):
        for rule, model in models.items():
            state = LearnerState(make_artifact(data, **learning(rule)))
            began = time.process_time()
            state.fold_rows(data.X, data.y)
            times[rule]["fold"].append(time.process_time() - began)
            for size in REPEATS:
                times[rule][str(size)].append(predict_seconds(model, data.X, size))
    found = {rule: {name: median(values) for name, values in each.items()} for rule, each in times.items()}
    return {rule: each | {"rows_per_second": len(data.y) / each.pop("fold")} for rule, each in found.items()}


def name(rule: str) -> str:
    """Return a rule as it is written in a table, with the constants that are set."""
    constants = ", ".join(f"`{key}` {value:g}" for key, value in CONSTANTS.get(rule, {}).items())
    return f"`{rule}`, {constants}" if constants else f"`{rule}`"


def render(results: dict[str, Any]) -> str:
    """Return the tables and where they were measured, as Markdown."""
    losses, costs, machine = results["losses"], results["costs"], results["machine"]
    lines = [
        [
            name(rule),
            choice,
            f"{geometric_mean(losses['zero'][rule].values()):.3f}",
            *(f"{losses['trained'][rule][part]:.2f}" for part in PARTS),
            number(costs[rule]["rows_per_second"]),
            *(number(1e6 * costs[rule][str(size)] / size) for size in REPEATS),
        ]
        for rule, choice in CHOICE.items()
    ]
    head = [
        "rule",
        "choose it for",
        "loss from zero weights",
        *(f"trained on {part}: loss ÷ without learning" for part in PARTS),
        "rows learned per second",
        "µs to predict 1 row",
        f"µs a row to predict {BATCH}",
    ]
    sets = [[name(rule), *(f"{loss:.3f}" for loss in found.values())] for rule, found in losses["zero"].items()]
    # The second column is text.
    rules = table(head, lines).replace("| --- | ---: |", "| --- | --- |", 1)
    where = f"{machine['processor']}, one core, load before {machine['load_before']}, {machine['date'].split()[0]}"
    return (
        f"\n{rules}\n\nThe first loss is the geometric mean of these, each a mean of {results['shuffles']} orders:\n\n"
        f"{table(['rule', *losses['zero']['mixture']], sets)}\n\n"
        "The costs are those of digits: 64 features, 10 classes, float32 "
        f"({where}). `loadtest/rule_comparison.py` writes these tables.\n"
    )


def main() -> None:
    """Measure and print; if asked to, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shuffles", type=int, default=SHUFFLES, help=f"orders of the rows; default: {SHUFFLES}")
    parser.add_argument("--write", action="store_true", help="write the tables to docs/learning.md")
    options = parser.parse_args()
    machine = describe()
    results = {
        "shuffles": options.shuffles,
        "losses": measure_losses(options.shuffles),
        "costs": measure_costs(TURNS),
        "machine": {key: machine[key] for key in MACHINE},
    }
    print(render(results))
    if options.write:
        FILE.write_text(json.dumps(results, indent=1) + "\n")
        write_page(PAGE, results)


def write_page(page: Path, results: dict[str, Any]) -> None:
    """Write the tables of a page from the results."""
    page.write_text(replace_table(page.read_text(), MARK, render(results)))


if __name__ == "__main__":
    main()

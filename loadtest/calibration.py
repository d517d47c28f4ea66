"""Measure what calibration costs and gains on the six data sets: progressive log loss and expected calibration error.

    .venv/bin/python loadtest/calibration.py      (from the repository root)

For each of five shuffles of a set there is one pass from zero weights. Another pass continues from an artifact whose
weights were fitted on the first 40 % of the rows. Each runs with and without a learned calibration. Then the same
artifacts, with weights times 4, are far too confident and served without learning any weight. The error covers all rows
of a pass.
"""

import sys
from collections.abc import Iterator

import numpy as np
from environments import HERE

sys.path.insert(0, str(HERE.parent))

from artifacts import Rows, make_artifact
from datasets import SETS
from learning import SHUFFLES, geometric_mean, train_artifact

from service.learn.state import LearnerState
from service.softmax.reliability_diagram import reliability_diagram
from service.store.artifact.artifact import Artifact

SURE = 4.0


def with_calibration(artifact: Artifact, scale: float = 1.0) -> Artifact:
    """Return the artifact with a calibration that learns, and with its logits times `scale`."""
    kind = "temperature" if artifact.manifest.head == "softmax" else "platt"
    fields = artifact.manifest.model_dump(exclude_none=True, exclude={"format_version", "tensors_sha256"}, mode="json")
    tensors = {name: (tensor * scale).astype(np.float32) for name, tensor in artifact.tensors.items()}
    return Artifact.from_fields(fields | {"calibration": {"kind": kind, "learn": True}}, tensors)


def without_calibration(artifact: Artifact) -> Artifact:
    """Return the artifact without a calibration."""
    fields = artifact.manifest.model_dump(
        exclude_none=True, exclude={"format_version", "tensors_sha256", "calibration"}, mode="json"
    )
    return Artifact.from_fields(fields, artifact.tensors)


def run_pass(artifact: Artifact, data: Rows, rule: str | None) -> tuple[float, float]:
    """Return mean loss and calibration error of one pass; without a rule no weight is learned."""
    if rule is None:
        fields = artifact.manifest.model_dump(
            exclude_none=True, exclude={"format_version", "tensors_sha256"}, mode="json"
        )
        artifact = Artifact.from_fields(
            fields | {"learning": {"rule": "sgd", "constants": {"rate": 1e-12}}}, artifact.tensors
        )
    state, losses, windows = LearnerState(artifact), [], []
    for start in range(0, len(data.y), 1000):
        block = data.X[start : start + 1000].copy(), data.y[start : start + 1000].copy()
        losses.append(state.fold_rows(*block))
        name = "window" if artifact.manifest.calibration is None else "calibration.window"
        windows.append(state.tensors()[name][:, : len(block[1])])  # a block is as long as the window
    window = np.concatenate(windows, axis=1)
    error = reliability_diagram(window, window.shape[1])["expected_error"]
    return float(np.concatenate(losses).mean()), float(error)


def cases(data: Rows) -> Iterator[tuple[str, Artifact, Rows, str | None]]:
    """Yield the cases of one shuffle: name, artifact with calibration, rows, and the rule or None."""
    count = int(0.4 * len(data.y))
    rest = Rows(data.X[count:].copy(), data.y[count:].copy(), data.n_classes)
    learned = train_artifact(data, count)
    yield "from zero", with_calibration(make_artifact(data)), data, "default"
    yield "from 40 %", with_calibration(learned), rest, "default"
    yield "too sure", with_calibration(learned, SURE), rest, None


def main() -> None:
    """Measure every set and print a table."""
    print(f"{'':24}{'log loss':>22}{'calibration error':>22}")
    print(f"{'':24}{'plain':>11}{'calibrated':>11}{'plain':>11}{'calibrated':>11}")
    ratios: dict[str, list[float]] = {}
    for name, load in SETS.items():
        data, found = load(), {}
        for order in map(data.shuffled, range(SHUFFLES)):
            for case, artifact, given, rule in cases(order):
                one = [*run_pass(without_calibration(artifact), given, rule), *run_pass(artifact, given, rule)]
                found.setdefault(case, []).append(one)
        for case, each in found.items():
            loss, error, loss_after, error_after = np.mean(each, axis=0)
            ratios.setdefault(case, []).append(loss_after / loss)
            numbers = f"{loss:11.4f}{loss_after:11.4f}{error:11.4f}{error_after:11.4f}"
            print(f"{name:13}  {case:9}{numbers}", flush=True)
    for case, each in ratios.items():
        print(f"calibrated / plain loss, {case}: geometric mean {geometric_mean(each):.4f}, worst {max(each):.4f}")


if __name__ == "__main__":
    main()

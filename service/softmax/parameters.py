"""What a fold is told and what it gives: its rule with all numbers, and what is served after it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from service.softmax.calibration import Calibrated, Calibration, calibration_in, numbers_of
from service.softmax.classifier import Classifier
from service.softmax.input_stage import Delta, Doubles, Floats, Stage
from service.softmax.linear_model import Head, LinearModel

Form = Literal["plain", "running", "delta", "layers"]
RuleName = Literal["sgd", "adagrad", "ftrl", "newton"]

# A new class starts at the mean logit of the others less ln 100: by the inequality of the arithmetic and geometric
# means its softmax probability is then at most 1 / (100 K) in every row.
NEW_CLASS: Final = -4.605170185988092


@dataclass(frozen=True)
class Rule:
    """A learning rule with all its numbers; `docs/models.md` says what each does.

    `start` is what the rule's sums begin at: G_0 for adagrad and ftrl, the diagonal of P for newton. `offset` is
    adagrad's epsilon and ftrl's beta. `clip` cuts learned features, `step_clip` a step's effect on its own logits.
    """

    name: RuleName
    rate: float
    offset: float = 0.0
    floor: float = 0.0
    pull: float = 0.0
    forget: float = 0.0
    surprise: float = 0.0
    start: float = 0.0
    step_clip: float = np.inf
    clip: float = np.inf


@dataclass(frozen=True, eq=False)
class LinearParameters:
    """What a model is made of at one moment: own arrays, in the model's dtype."""

    head: Head
    weights: Floats
    bias: Floats
    stage: Stage | None = None
    delta: Delta | None = None
    calibration: Calibration | None = None

    def model(self) -> Classifier:
        """The model that answers."""
        model = LinearModel(self.head, self.weights, self.bias, self.stage, self.delta)
        return model if self.calibration is None else Calibrated(model, self.calibration)

    def tensors(self) -> list[Floats]:
        """The served tensors in the order of their hash: weights, bias, the delta's weights, the calibration."""
        more = [*([] if self.delta is None else [self.delta.weights]), *numbers_of(self.calibration)]
        return [self.weights, self.bias, *more]

    def with_classes(self, count: int) -> "LinearParameters":
        """The same with classes behind the others, see `with_means`; each one's bias is less by ln 100."""
        bias = with_means(self.bias[None].astype(np.float64), count)[0]
        bias[self.bias.size :] += NEW_CLASS
        delta = None if self.delta is None else replace(self.delta, weights=with_means(self.delta.weights, count))
        weights = with_means(self.weights, count)
        return replace(self, weights=weights, bias=bias.astype(self.bias.dtype), delta=delta)

    def arrays(self) -> dict[str, NDArray[np.floating[Any]]]:
        """All arrays by name; with the head and `clips` they make the same again."""
        found: dict[str, NDArray[np.floating[Any]]] = {"weights": self.weights, "bias": self.bias}
        if self.stage is not None:
            found |= {"stage.mean": self.stage.mean, "stage.scale": self.stage.scale}
        if self.delta is not None:
            stage = self.delta.stage
            found |= {"delta.weights": self.delta.weights, "delta.mean": stage.mean, "delta.scale": stage.scale}
        if self.calibration is not None:
            found["calibration"] = self.calibration.array()
        return found

    def clips(self) -> dict[str, float | None]:
        """The clip of each stage that there is, by the name of its arrays."""
        stages = {"stage": self.stage, "delta": None if self.delta is None else self.delta.stage}
        return {name: stage.clip for name, stage in stages.items() if stage is not None}

    @classmethod
    def of(
        cls, head: Head, arrays: Mapping[str, NDArray[np.floating[Any]]], clips: Mapping[str, float | None]
    ) -> "LinearParameters":
        """What gave these arrays and clips."""
        stages = {
            name: Stage(_double(arrays[f"{name}.mean"]), _double(arrays[f"{name}.scale"]), clip)
            for name, clip in clips.items()
        }
        delta = Delta(arrays["delta.weights"], stages["delta"]) if "delta" in stages else None
        return cls(head, arrays["weights"], arrays["bias"], stages.get("stage"), delta, calibration_in(head, arrays))


def with_means(columns: Any, count: int) -> Any:  # noqa: ANN401  # arrays of one dtype, in and out
    """Columns (M, K), and `count` more, each the mean of the first K in float64, added up in order."""
    means = np.add.accumulate(columns.astype(np.float64), axis=1)[:, -1:] / columns.shape[1]
    return np.hstack([columns, np.repeat(means, count, axis=1).astype(columns.dtype)])


def progress_of(progress: Doubles, recent: Doubles) -> dict[str, float]:
    """Counts since the beginning, and over the last rows: rows, loss and hits; skipped rows; norms of steps."""
    rows, loss, hits, skipped, steps, norm, norms, _ = progress.tolist()
    window = min(int(rows), recent.shape[1])
    # Added up anew, in the order of the ring, so that no rounding is carried along.
    losses, recent_hits = (np.add.accumulate(sums[:window])[-1:] for sums in recent)
    return {
        "rows": int(rows),
        "loss": loss / rows if rows else 0.0,
        "accuracy": hits / rows if rows else 0.0,
        "recent_rows": window,
        "recent_loss": float(losses[0]) / window if window else 0.0,
        "recent_accuracy": float(recent_hits[0]) / window if window else 0.0,
        "skipped_rows": int(skipped),
        "steps": int(steps),
        "step_norm": norm,
        "mean_step_norm": norms / steps if steps else 0.0,
    }


def _double(array: NDArray[np.floating[Any]]) -> Doubles:
    return array.astype(np.float64, copy=False)

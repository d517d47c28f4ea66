"""Bodies of the calls that show how a model has learned."""

from typing import Annotated, Final

from pydantic import Field

from service.serve.api.schemas.metadata_bodies import LearnerStatus, Reliability
from service.serve.api.schemas.row_forms import NamedRows
from service.serve.api.schemas.schema_types import (
    IRIS,
    IRIS_FEATURES,
    IRIS_PROBABILITIES,
    Count,
    RequestModel,
    ResponseModel,
    Seq,
)
from service.serve.metrics.counters import BOUNDS
from service.softmax.reliability_diagram import BINS

Counts = list[Count]
# A sum of losses is null if it is not finite.
Losses = list[float | None]


class HistoryBuckets(ResponseModel):
    """Sums over the rows of each bucket of events, each row answered before it was learned."""

    until: Seq | None = Field(description="The last event in the history; null if there is none.")
    epoch: Count | None = Field(description="How often feedback was forgotten; the history is computed again then.")
    from_: Seq | None = Field(alias="from", description="The event after which the history begins.")
    bucket: Count | None = Field(description="How many events a bucket has, a power of two. It doubles as they fill.")
    seq: list[Seq] = Field(description="The last event of each bucket.")
    rows: Counts = Field(description="How many rows were scored.")
    loss: Losses = Field(description="The sum of their losses.")
    loss_max: Losses = Field(description="The largest of their losses.")
    hits: Counts = Field(description="How many of them were answered right.")
    frozen_rows: Counts = Field(description="How many of them the artifact, as it was trained, was asked too.")
    frozen_loss: Losses = Field(description="The sum of its losses.")
    frozen_hits: Counts = Field(description="How many it answered right.")
    both_hits: Counts = Field(description="How many both answered right.")
    labels: list[Counts] | None = Field(
        description="How many rows had each label, in the order of the classes; null for more than 64 classes."
    )
    found: list[Counts] | None = Field(description="How many of them were answered right; null as `labels`.")


class PulseCounters(ResponseModel):
    """Counts of a model version since the start of the service, summed over all workers."""

    requests: Count = Field(description="Answered predictions of `:predict` and v2.")
    rows: Count = Field(description="Rows that were predicted or explained.")
    failures: Count = Field(description="Refused requests for predictions.")
    events: Count = Field(description="Feedback events that were stored.")
    duration_buckets: list[tuple[float | None, Count]] = Field(
        min_length=len(BOUNDS) + 1,
        max_length=len(BOUNDS) + 1,
        description="Pairs of a duration in seconds and the count of `requests` that took no longer. "
        "The last has null and all of them.",
    )


class ModelPulse(ResponseModel):
    """The live state of a model version."""

    seq: Seq = Field(description="The last event that the served weights hold.")
    epoch: Count = Field(description="How often feedback of this version was forgotten.")
    log_seq: Seq | None = Field(
        description="The last event that is committed; null if the service does not learn, as in the next members."
    )
    lag_events: Count | None = Field(description="How many committed events the served weights do not hold yet.")
    lag_seconds: float | None = Field(ge=0, description="The age of the first of them.")
    learner: LearnerStatus | None = Field(description="The learner.")
    published_seconds: float | None = Field(
        description="When the served weights were published, in seconds since 1970; null before any feedback."
    )
    admin_seq: Seq | None = Field(description="The last event that is not feedback, or 0.")
    counters: PulseCounters = Field(description="Counts, whose differences are rates.")
    history: HistoryBuckets | None = Field(
        description="The buckets with events after `since`, or all if the client's history is no longer valid. "
        "Null if there is no history."
    )


class TrainingStatistics(ResponseModel):
    """The statistics of the training rows."""

    rows: Count = Field(description="How many rows there were.")
    mean: list[float] = Field(description="The mean of each feature, or of each field that is a number.")
    scale: list[float] = Field(description="The standard deviation of each of them; 1 for a constant one.")


class FieldShares(ResponseModel):
    """Shares of the learned rows, by field."""

    names: list[str] = Field(description="The names of the fields.")
    shares: list[list[float] | None] | None = Field(
        description="For each bucket the share of its rows, by field. Null for a bucket without rows. All null without "
        "a history, or for more than 256 columns of numbers, missing and unknown values together."
    )


class FeatureDrift(ResponseModel):
    """How far the learned rows have moved from the training rows."""

    until: Seq | None = Field(description="The last event that counts; null if there is no history.")
    from_: Seq | None = Field(alias="from", description="The event after which the history begins.")
    bucket: Count | None = Field(description="How many events a bucket has, a power of two.")
    seq: list[Seq] = Field(description="The last event of each bucket.")
    training: TrainingStatistics | None = Field(description="The training rows; null if the artifact lacks them.")
    names: list[str] = Field(description="The names of the features, or of the fields that are numbers.")
    shift: list[list[float] | None] | None = Field(
        description="For each bucket the mean of (value - mean) / scale of each of them, each limited to -8 to 8. "
        "Null for a bucket without rows. All null for more than 256 features or without training statistics."
    )
    missing: FieldShares | None = Field(
        description="How many values were missing, of each field with a column for that; null without fields."
    )
    unknown: FieldShares | None = Field(
        description="How many values were unknown, of each category with a column `other`; null without fields."
    )


class AnswerQuality(ResponseModel):
    """How good the answers to some 1,000 rows were, each answered before it was learned."""

    seq: Seq | None = Field(description="The last event that counts; null if there is no history.")
    rows: Count = Field(description="How many rows count.")
    confusion: list[Counts] | None = Field(
        description="For each label, in the order of the classes, how often each class was answered. "
        "Null for more than 32 classes or a multi-label model."
    )
    calibration: Reliability = Field(description="How well confidence and accuracy agree.")
    accuracy: float | None = Field(description="The share of the rows that was answered right; null without rows.")
    frozen_accuracy: float | None = Field(description="The same of the artifact as it was trained, of `frozen_rows`.")
    both: float | None = Field(description="The share of `frozen_rows` that both answered right.")
    loss: float | None = Field(description="The mean loss.")
    frozen_loss: float | None = Field(description="The mean loss of the artifact as it was trained.")
    frozen_rows: Count = Field(description="How many of the rows the artifact was asked too.")


class TrajectoryRequest(RequestModel):
    """The row to follow."""

    instances: Annotated[NamedRows, Field(max_length=1)] = Field(
        description="One row: a list with one number for each feature, an object by their names, or base64."
    )


class RowTrajectory(ResponseModel):
    """The probabilities of a row at states of the model."""

    seq: list[Seq] = Field(
        description="The seqs of the states: 0, the model as it was trained; those of the keyframes; the served one."
    )
    probabilities: list[list[float]] = Field(
        description="The probabilities at each state, in the order of the classes. A state from before a class was "
        "added lacks that class."
    )


def _history(**values: object) -> dict[str, object]:
    """Return an example of a history; lists that are not given are empty."""
    lists = ("seq", "rows", "loss", "loss_max", "hits", "frozen_rows", "frozen_loss", "frozen_hits", "both_hits")
    return {name: values.get(name, []) for name in lists} | values


_NO_LABELS: Final = {"labels": None, "found": None}
_NO_HISTORY: Final = _history(until=None, epoch=None, bucket=None, **{"from": None}, **_NO_LABELS)
_TWO_EVENTS: Final = _history(
    until=2, epoch=0, bucket=1, seq=[1, 2], rows=[1, 1], loss=[0.5, 0.25], loss_max=[0.5, 0.25], hits=[1, 1],
    frozen_rows=[1, 1], frozen_loss=[0.5, 1.25], frozen_hits=[1, 0], both_hits=[1, 0],
    labels=[[0, 1, 0], [0, 0, 1]], found=[[0, 1, 0], [0, 0, 1]], **{"from": 0},
)  # fmt: skip
HISTORY: Final = {"before any feedback": _NO_HISTORY, "two events": _TWO_EVENTS}
PULSE: Final = {
    "before any feedback": {
        "seq": 0, "epoch": 0, "log_seq": 0, "lag_events": 0, "lag_seconds": 0.0, "learner": {"state": "following"},
        "published_seconds": None, "admin_seq": 0,
        "counters": {
            "requests": 0, "rows": 0, "failures": 0, "events": 0,
            "duration_buckets": [*([bound / 1e9, 0] for bound in BOUNDS), [None, 0]],
        },
        "history": None,
    }
}  # fmt: skip
IRIS_TRAINING: Final = {
    "rows": 112,
    "mean": [5.86607142857143, 3.0392857142857137, 3.7705357142857134, 1.2098214285714286],
    "scale": [0.8566497837744522, 0.4518527618233036, 1.7858390581409158, 0.7606341129784611],
}
DRIFT: Final = {
    "before any feedback": {
        "until": None, "from": None, "bucket": None, "seq": [], "training": IRIS_TRAINING,
        "names": IRIS_FEATURES, "shift": None, "missing": None, "unknown": None,
    },
    "two events": {
        "until": 2, "from": 0, "bucket": 1, "seq": [1, 2], "training": IRIS_TRAINING,
        "names": IRIS_FEATURES, "shift": [[-0.9, 1.0, -1.4, -1.35], [1.1, 0.3, 1.2, 1.45]],
        "missing": None, "unknown": None,
    },
    "a model with fields": {
        "until": 2, "from": 0, "bucket": 1, "seq": [1, 2],
        "training": {"rows": 5000, "mean": [38.6], "scale": [13.7]}, "names": ["age"], "shift": [[0.175], [0.0]],
        "missing": {"names": ["age"], "shares": [[0.0], [1.0]]},
        "unknown": {"names": ["country"], "shares": [[0.0], [0.0]]},
    },
}  # fmt: skip
_EMPTY_BIN: Final = {"rows": 0, "confidence": None, "accuracy": None}
QUALITY: Final = {
    "before any feedback": {
        "seq": None, "rows": 0, "confusion": None,
        "calibration": {"rows": 0, "expected_error": None, "bins": [_EMPTY_BIN] * BINS},
        "accuracy": None, "frozen_accuracy": None, "both": None, "loss": None, "frozen_loss": None, "frozen_rows": 0,
    },
    "two events": {
        "seq": 2, "rows": 2, "confusion": [[0, 0, 0], [0, 1, 0], [0, 0, 1]],
        "calibration": {
            "rows": 2, "expected_error": 0.25,
            "bins": [*[_EMPTY_BIN] * 7, {"rows": 2, "confidence": 0.75, "accuracy": 1.0}, *[_EMPTY_BIN] * 2],
        },
        "accuracy": 1.0, "frozen_accuracy": 0.5, "both": 0.5, "loss": 0.375, "frozen_loss": 0.875, "frozen_rows": 2,
    },
}  # fmt: skip
TRAJECTORY_REQUESTS: Final = {"one row": {"instances": [IRIS]}}
TRAJECTORY: Final = {"before any feedback": {"seq": [0], "probabilities": [IRIS_PROBABILITIES]}}

"""The history of a stream equals one that is counted row by row, however its events are split."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.learn.event_fold import EventFold
from service.learn.stream_history import History
from service.store.artifact.artifact import Artifact
from service.store.artifact.model_factory import build_model, tracked_columns
from service.store.log.events import Event, Kind, Position
from service.store.log.feedback_payload import Targets, encode_rows, encode_sparse_rows
from service.store.states.report import BUCKETS_MAX, COARSE_BUCKETS_MAX, DRIFT_MAX, Report
from tests.support.field_artifacts import DENSE_FIELDS, SPARSE_FIELDS, field_artifact
from tests.support.model_artifacts import make_artifact

N, ORIGIN = 3, 10
NAMES = ("a", "b", "c")
TRAINING = {"rows": 50, "mean": [0.5, -1.0, 0.0], "scale": [2.0, 0.5, 1.0]}
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


def artifact_of(head: str, *, calibrated: bool = False) -> Artifact:
    """Make a model with statistics of its training."""
    more: dict[str, Any] = {"training": TRAINING}
    if calibrated:
        more["calibration"] = {"kind": "temperature", "learn": True, "temperature": 0.5}
    if head == "multilabel":
        more["thresholds"] = [0.3, 0.5, 0.6]
    return make_artifact(head, N, list(NAMES[:2] if head == "sigmoid" else NAMES), **more)


def make_events(artifact: Artifact, count: int, *, soft: bool = False, gaps: bool = False) -> list[Event]:
    """Make feedback of one to three rows with random targets, after ORIGIN."""
    rng, K = np.random.default_rng(count), len(artifact.manifest.classes)
    seq, events = ORIGIN, []
    for _ in range(count):
        seq += int(rng.integers(1, 9)) if gaps else 1
        B = int(rng.integers(1, 4))
        X = (2 * rng.standard_normal((B, N))).astype(np.float32)
        if artifact.manifest.head == "multilabel":
            kind, targets = Targets.SET, rng.integers(0, 2, (B, K))
        elif soft:
            kind, targets = Targets.DISTRIBUTION, rng.dirichlet(np.ones(K), B).astype(np.float32)
        else:
            kind, targets = Targets.INDEX, rng.integers(0, K, B)
        events.append(Event(seq, Kind.FEEDBACK, b"id", 0, encode_rows(X, targets, kind, K), b""))
    return events


def make_history(artifact: Artifact, events: list[Event], cuts: list[int]) -> History:
    """Make the history of events that are folded in parts."""
    fold = EventFold(artifact, history=History(artifact, ORIGIN))
    for lo, hi in zip([0, *cuts], [*cuts, len(events)], strict=True):
        fold.fold_events(events[lo:hi])
    assert fold.history is not None
    return fold.history


def report_of(history: History) -> Report:
    """Return the report at the last row."""
    return history.report(Position(history.last_seq, b""), 0, history.fields()["columns"], [])


@settings(max_examples=12, deadline=None)
@given(
    head=st.sampled_from(["softmax", "sigmoid", "multilabel", "ovr"]),
    count=st.sampled_from([1, 5, 64, 65, 150]),
    cuts=st.lists(st.integers(0, 150), max_size=6),
    gaps=st.booleans(),
)
def test_any_split_gives_the_same_bits(head: str, count: int, cuts: list[int], *, gaps: bool) -> None:
    """Any split of the events gives the same history, also past the merging of buckets."""
    artifact = artifact_of(head)
    events = make_events(artifact, count, gaps=gaps)
    whole = make_history(artifact, events, [])
    parts = make_history(artifact, events, sorted(cut for cut in cuts if cut < count))
    assert parts.sha256() == whole.sha256()


@pytest.mark.parametrize(
    ("head", "soft", "calibrated"),
    [("softmax", False, False), ("softmax", True, False), ("softmax", False, True), ("sigmoid", False, False),
     ("sigmoid", True, False), ("ovr", False, False), ("multilabel", False, False)],
)  # fmt: skip
def test_counts_equal_those_of_each_row(head: str, *, soft: bool, calibrated: bool) -> None:
    """Every number of the report equals that of rows which are answered and counted one by one."""
    artifact = artifact_of(head, calibrated=calibrated)
    events = make_events(artifact, 90, soft=soft, gaps=True)
    report = report_of(make_history(artifact, events, [30, 45]))
    rows = count_rows(artifact, events)
    last = events[-1].seq - ORIGIN
    for width, most, sums in (
        (report.bucket, BUCKETS_MAX, report.history), (report.coarse_bucket, COARSE_BUCKETS_MAX, report.quality)
    ):  # fmt: skip
        assert width * most // 2 < last <= width * most or width == 1
        for bucket, found in enumerate(sums):
            inside = [row for row in rows if (row["seq"] - ORIGIN - 1) // width == bucket]
            np.testing.assert_allclose(found, summary(inside), **CLOSE)
    assert report.labels is not None
    assert report.found is not None
    for k in range(len(artifact.manifest.classes)):
        wanted = [row for row in rows if row["wanted"][k]]
        assert report.labels[:, k].sum() == len(wanted)
        assert report.found[:, k].sum() == sum(
            row["answered"][k] if head == "multilabel" else row["hit"] for row in wanted
        )
    np.testing.assert_allclose(report.calibration.sum(axis=0), calibration_of(rows), **CLOSE)
    assert report.drift is not None
    np.testing.assert_allclose(report.drift.sum(axis=0), sum(row["shift"] for row in rows), rtol=1e-3, atol=1e-2)
    if head != "multilabel":
        assert report.confusion is not None
        for k, answer in np.ndindex(report.confusion.shape[1:]):
            same = [row for row in rows if (row["label"], row["answer"]) == (k, answer)]
            assert report.confusion[:, k, answer].sum() == len(same)
    latest = rows[-len(report.recent) :]
    np.testing.assert_array_equal(report.recent_rows, [[row["seq"], row["label"], row["answer"]] for row in latest])
    np.testing.assert_allclose(report.recent[:, 0], [row["loss"] for row in latest], **CLOSE)
    worst = sorted(rows, key=lambda row: (-row["loss"], row["seq"]))[: len(report.surprising)]
    np.testing.assert_allclose(report.surprising[:, 0], [row["loss"] for row in worst], **CLOSE)


def count_rows(artifact: Artifact, events: list[Event]) -> list[dict[str, Any]]:
    """Answer the rows of events one by one, with the learned model and with the artifact."""
    fold, frozen, manifest = EventFold(artifact), build_model(artifact), artifact.manifest
    thresholds = np.array(manifest.thresholds or [0.5] * len(manifest.classes))
    rows = []
    for event in events:
        payload = np.frombuffer(event.payload or b"", np.uint8)
        kind, B, K = int(payload[2]), int(payload[4]), len(manifest.classes)
        body = payload[16:].tobytes()
        X = np.frombuffer(body, np.float32, B * N).reshape(B, N)
        rest = body[4 * B * N :]
        targets = {
            0: lambda rest=rest, K=K: np.eye(K)[np.frombuffer(rest, np.int32)],
            1: lambda rest=rest, B=B, K=K: np.frombuffer(rest, np.float32).reshape(B, K).astype(float),
            2: lambda rest=rest, B=B, K=K: np.frombuffer(rest, np.uint8).reshape(B, K).astype(float),
        }[kind]()
        for x, y in zip(X, targets, strict=True):
            row = x[np.newaxis].copy()
            one = encode_rows(row, y[np.newaxis].astype(np.float32) if kind < 2 else y[np.newaxis].astype(np.uint8),
                              Targets.DISTRIBUTION if kind < 2 else Targets.SET, K)  # fmt: skip
            model = fold.state.served_parameters().build_model()
            rows.append(
                {"seq": event.seq, "shift": shift_of(x), "wanted": y >= 0.5 if kind == 2 else np.eye(K)[y.argmax()] > 0}
                | answer_of(model, row, y, thresholds, many=kind == 2)
                | {f"frozen_{name}": value for name, value in answer_of(
                    frozen, row, y, thresholds, many=kind == 2).items()}
            )  # fmt: skip
            fold.fold_events([event._replace(payload=one)])
    return rows


def answer_of(model: Any, row: Any, y: Any, thresholds: Any, *, many: bool) -> dict[str, Any]:  # arrays
    """Return loss, hit, label and answer of one row by its probabilities."""
    P = model.predict(row)[0].astype(float)
    if many:
        answered = thresholds <= P
        right = np.where(P >= 0.5, y, 1 - y)
        return {
            "loss": -np.log(np.where(y > 0, P, 1 - P)).sum(), "hit": float((answered == (y >= 0.5)).all()), "label": -1,
            "answer": -1, "answered": answered, "confidence": np.maximum(P, 1 - P).mean(), "accuracy": right.mean(),
        }  # fmt: skip
    answer, label = int(P.argmax()), int(y.argmax())
    loss = -(y * np.log(P)).sum()
    return {
        "loss": loss, "hit": float(answer == label), "label": label, "answer": answer, "answered": None,
        "confidence": P[answer], "accuracy": y[answer],
    }  # fmt: skip


def shift_of(x: Any) -> Any:  # an array
    """Return how far a row is from the mean of the training, in its scales."""
    return np.clip((x.astype(float) - TRAINING["mean"]) / TRAINING["scale"], -8, 8)


def summary(rows: list[dict[str, Any]]) -> list[float]:
    """Return the sums of a bucket."""
    losses = [row["loss"] for row in rows]
    return [
        len(rows), sum(losses), max([0.0, *losses]), sum(row["hit"] for row in rows), len(rows),
        sum(row["frozen_loss"] for row in rows), sum(row["frozen_hit"] for row in rows),
        sum(row["hit"] * row["frozen_hit"] for row in rows),
    ]  # fmt: skip


def calibration_of(rows: list[dict[str, Any]]) -> Any:  # an array
    """Return rows, confidence and accuracy of each tenth of confidence."""
    sums = np.zeros((10, 3))
    for row in rows:
        sums[min(9, int(10 * row["confidence"]))] += 1, row["confidence"], row["accuracy"]
    return sums


def test_a_stored_history_goes_on(tmp_path: Any) -> None:  # noqa: ARG001
    """A history that continues from its fields and tensors equals one that was never stored."""
    artifact = artifact_of("softmax")
    events = make_events(artifact, 200)
    fold = EventFold(artifact, history=(stored := History(artifact, ORIGIN)))
    fold.fold_events(events[:120])
    tensors = {name: array.copy() for name, array in stored.tensors().items()}
    fold.history = restored = History.from_checkpoint(artifact, stored.fields(), tensors)
    assert restored.sha256() == stored.sha256()
    fold.fold_events(events[120:])
    assert restored.sha256() == make_history(artifact, events, []).sha256()


def test_added_classes_have_columns_of_their_own() -> None:
    """The artifact answers rows of an added class wrong; a class that was rolled back shows no more."""
    artifact = artifact_of("softmax")
    X = np.zeros((1, N), np.float32)
    fold = EventFold(artifact, history=(history := History(artifact, 0)))
    fold.state.add_classes(1)
    fold.classes.append("new")
    fold.fold_events([Event(1, Kind.FEEDBACK, b"", 0, encode_rows(X, np.array([3]), Targets.INDEX, 4), b"")])
    report = history.report(Position(1, b""), 0, [*NAMES, "new"], [])
    assert report.labels is not None
    assert report.labels[0].tolist() == [0, 0, 0, 1]
    assert report.history[0, 5:7].tolist() == [pytest.approx(np.log(4)), 0.0]
    other = history.report(Position(1, b""), 0, [*NAMES, "other"], [])
    assert other.labels is not None
    assert other.labels.tolist() == [[0, 0, 0, 0]]
    assert other.recent_rows[0, 1] == -1
    assert history.report(Position(1, b""), 0, NAMES, []).classes == NAMES


ROWS = [
    {"age": 55, "country": "DE"},
    {"age": None, "country": "FR", "picture": [1, 2, 3]},
    {"age": 700, "country": None, "subject": "late"},
    {"age": 25, "member": True, "country": "FR"},
]
# Of each row: the scaled age, which is cut at 3, and whether there is none; whether `member` is missing; and whether
# the country is unknown.
TRACKED = [[1.5, 0, 1, 0], [0, 1, 1, 1], [3, 0, 1, 0], [-1.5, 0, 0, 1]]


@pytest.mark.parametrize("fields", [DENSE_FIELDS, SPARSE_FIELDS], ids=["dense", "sparse"])
def test_fields_have_the_sums_of_tracked_columns(fields: Any) -> None:
    """Numbers are scaled already; a stored history goes on."""
    artifact = field_artifact(fields)
    assert artifact.row_encoder is not None
    events = []
    for seq, row in enumerate(ROWS, ORIGIN + 1):
        rows, targets = artifact.row_encoder.encode_objects([row]).rows.astype(np.float32), np.array([seq % 3])
        payload = (
            encode_sparse_rows(rows, artifact.n_features, targets, Targets.INDEX, 3)
            if artifact.has_sparse_rows
            else encode_rows(rows.to_matrix(artifact.n_features), targets, Targets.INDEX, 3)
        )
        events.append(Event(seq, Kind.FEEDBACK, b"id", 0, payload, b""))
    history = make_history(artifact, events, [1, 2])
    report = report_of(history)
    assert report.drift is not None
    tracked = tracked_columns(artifact)
    assert tracked is not None
    assert (tracked.numbers, tracked.missing, tracked.unknown) == (
        {"age": 0}, {"age": 1, "member": 2}, {"country": 3},
    )  # fmt: skip
    assert report.drift[:4].tolist() == TRACKED
    assert make_history(artifact, events, []).sha256() == history.sha256()
    again = History.from_checkpoint(artifact, history.fields(), history.tensors())
    assert again.sha256() == history.sha256()


def test_too_many_tracked_columns_have_no_sums() -> None:
    """The report has at most DRIFT_MAX of them."""
    for count in (DRIFT_MAX, DRIFT_MAX + 1):
        artifact = field_artifact(tuple({"name": f"n{j}", "kind": "number"} for j in range(count)))
        assert ("history.drift" in History(artifact, 0).tensors()) == (count == DRIFT_MAX)
    assert "history.drift" not in History(field_artifact((DENSE_FIELDS[4],)), 0).tensors()

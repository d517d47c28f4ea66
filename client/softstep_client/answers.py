"""The answers of calls, and how they are made of bodies."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer of `predict`.

    Attributes:
        labels: For each row the name of its class; of a multi-label model a list of names.
        probabilities: For each row the probability of each class, in the order of `classes`: a NumPy array of the
            model's dtype [rows, classes] if the rows came from NumPy or pandas, else lists.
        classes: The names of the classes.
        seq: The event up to which the weights that answered have learned; 0 is the model as it was trained.
        epoch: How often feedback was forgotten.
        model: The name of the model.
        version: The version that answered.
        tokens: For each row a feedback token, if they were requested.
    """

    labels: list[Any]
    probabilities: list[list[float]] | np.ndarray[Any, Any]
    classes: list[str]
    seq: int
    epoch: int
    model: str
    version: str
    tokens: list[str] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Explanations:
    """The answer of `explain`.

    Attributes:
        rows: For each row what its answer is made of: `label`, `logits`, `probabilities`, `bias`, `contributions`,
            `sensitivities`, `top`, and others (docs/explain.md of Softstep).
        classes: The names of the classes.
        features: The names of all columns, or None if rows list their own in `top`.
        seq: The event up to which the weights have learned.
        model: The name of the model.
        version: The version that answered.
        body: The whole answer.
    """

    rows: list[dict[str, Any]]
    classes: list[str]
    features: list[str] | None
    seq: int
    model: str
    version: str
    body: dict[str, Any] = field(repr=False)


class Event(NamedTuple):
    """One stored event.

    Attributes:
        id: Its id.
        seq: Its number in the log of its version.
        duplicate: Whether it had been stored before, by an earlier try or call.
        version: The version of the model that stores it.
    """

    id: str
    seq: int
    duplicate: bool
    version: str


@dataclass(frozen=True)
class Receipt:
    """The answer of a call that writes.

    Attributes:
        events: What was stored, in order: one event for each call, batch, token or corrected event.
        losses: With `wait=True` the loss of each row of feedback before its step, None for one that is no longer known
            or could not be scored; else None.
        model: The name of the model.
    """

    events: list[Event]
    losses: list[float | None] | None
    model: str

    @property
    def id(self) -> str:
        """The id of the first event."""
        return self.events[0].id

    @property
    def seq(self) -> int:
        """The number of the last event, such as for `min_seq` of a prediction."""
        return self.events[-1].seq


class ModelState(NamedTuple):
    """One entry of `models`.

    Attributes:
        name: The name of the model.
        version: The version that is served by default.
        state: READY, or another state of a model.
    """

    name: str
    version: str
    state: str


class ModelFacts(NamedTuple):
    """The part of a version's metadata that answers need.

    Attributes:
        classes: The names of its classes.
        dtype: "float32" or "float64".
    """

    classes: list[str]
    dtype: str

    def fits(self, width: int, labels: list[Any]) -> bool:
        """Return whether an answer with so many probabilities a row and these labels can be of these classes."""
        if len(self.classes) != width:
            return False
        names = set(self.classes)
        if labels and isinstance(labels[0], list):
            return all(names.issuperset(row) for row in labels)
        return names.issuperset(labels)


def parse_receipt(body: dict[str, Any], count: int) -> Receipt:
    """Return the answer of a call that writes.

    Args:
        body: The answer.
        count: The number of rows of each event; losses that are no longer known are None for each.
    """
    version = str(body["model_version"])
    events = [
        Event(event["id"], event["seq"], event["duplicate"], str(event.get("model_version", version)))
        for event in body.get("events", [body])
    ]
    return Receipt(events, _losses(body, count), body["model_name"])


def _losses(body: dict[str, Any], count: int) -> list[float | None] | None:
    events = body.get("events", [body])
    if not any("losses" in event for event in events):
        return None
    return [loss for event in events for loss in event.get("losses") or [None] * count]


def join_receipts(receipts: list[Receipt]) -> Receipt:
    """Return the answers of the batches of one call as one."""
    if len(receipts) == 1:
        return receipts[0]
    known = [receipt.losses for receipt in receipts if receipt.losses is not None]
    losses = [loss for part in known for loss in part] if len(known) == len(receipts) else None
    return Receipt([event for receipt in receipts for event in receipt.events], losses, receipts[0].model)


def join_predictions(parts: list[Prediction]) -> Prediction:
    """Return the answers to the parts of one call as one, with the state of the part that has learned least."""
    oldest = min(parts, key=lambda part: (part.epoch, part.seq))
    arrays: list[Any] = [part.probabilities for part in parts]
    if isinstance(arrays[0], list):
        probabilities = [row for rows in arrays for row in rows]
    else:
        probabilities = sys.modules["numpy"].concatenate(arrays)
    tokens = None if oldest.tokens is None else [token for part in parts for token in part.tokens or []]
    labels = [label for part in parts for label in part.labels]
    return replace(oldest, labels=labels, probabilities=probabilities, tokens=tokens)


def numpy_array(rows: list[list[float]], dtype: str) -> Any:  # noqa: ANN401 - a NumPy array
    """Return lists as a NumPy array; NumPy or pandas, which imports it, has made the rows of the request."""
    return sys.modules["numpy"].array(rows, dtype)

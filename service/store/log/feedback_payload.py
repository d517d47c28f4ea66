"""The payload of a feedback event: rows of features with their targets, as bytes that arrays can be made of in bulk.

    offset  size  field
    0       1     format version, 1
    1       1     dtype of the model's numbers: 0 float32, 1 float64
    2       1     targets: 0 a class index, 1 a distribution, 2 a set of classes (multi-label)
    3       1     1 where rows have weights, else 0
    4       4     B, rows, at least 1
    8       4     N, features, at least 1
    12      4     K, classes when it was posted, at least 1
    16      …     X (B, N) of the dtype
                  weights (B,) of the dtype, where there are any
                  targets: index (B,) int32 | distribution (B, K) of the dtype | set (B, K) uint8, each 0 or 1

All little-endian and row-major. A payload is valid when its length is what its head says, every index lies in [0, K)
and every member of a set is 0 or 1. Other numbers are as they were written; the fold decides what it does with them.

Equal heads mean equal layout, so events of one layout are joined and seen as one array without a loop over events.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import PayloadError

FORMAT_VERSION: Final = 1
HEAD: Final = struct.Struct("<BBBBIII")
DTYPES: Final = (np.dtype("<f4"), np.dtype("<f8"))
# No request is larger (64 MiB by default); bounds what a damaged head can ask for.
PAYLOAD_BYTES_MAX: Final = 1 << 30

Numbers = NDArray[np.floating[Any]]


class Targets(IntEnum):
    """What a row's target is; the numbers are on disk."""

    INDEX = 0
    DISTRIBUTION = 1
    SET = 2


# The kinds of NumPy dtypes that hold such targets without loss.
TARGET_KINDS: Final = {Targets.INDEX: "iu", Targets.DISTRIBUTION: "f", Targets.SET: "biu"}


class Layout(NamedTuple):
    """What a payload's head says: its dtype, kind of targets, whether it has weights, and its sizes B, N, K."""

    dtype: np.dtype[Any]
    targets: Targets
    weighted: bool
    rows: int
    n_features: int
    n_classes: int

    def record(self) -> np.dtype[Any]:
        """The whole payload as a packed NumPy record with the fields head, X, weights (maybe) and targets."""
        B, N, K = self.rows, self.n_features, self.n_classes
        shape = (B,) if self.targets == Targets.INDEX else (B, K)
        weights = [("weights", self.dtype, (B,))] if self.weighted else []
        targets = ("targets", _target_dtype(self), shape)
        return np.dtype([("head", "V16"), ("X", self.dtype, (B, N)), *weights, targets])


@dataclass(frozen=True, eq=False)
class Block:
    """The rows of E events of one layout, in order, R = E·B of them.

    Attributes:
        layout: What all E payloads have in common.
        events: The number E.
        X: (R, N) of the layout's dtype, C-contiguous, aligned, writable, its own.
        targets: (R,) int32, (R, K) of the dtype, or (R, K) uint8, as the layout's kind says; likewise its own.
        weights: (R,) of the dtype, or None where no row has one.
    """

    layout: Layout
    events: int
    X: Numbers
    targets: NDArray[Any]
    weights: Numbers | None


def encode_rows(
    X: Numbers, targets: NDArray[Any], kind: Targets, n_classes: int, weights: Numbers | None = None
) -> bytes:
    """The payload of one event.

    Args:
        X: (B, N) float32 or float64.
        targets: (B,) whole numbers, or (B, K) numbers, or (B, K) truth values, as `kind` says.
        kind: What the targets are.
        n_classes: The number K of classes.
        weights: (B,) numbers, or None.

    Raises:
        PayloadError: A shape or dtype does not fit, or a target is not one of the K classes.
    """
    if X.dtype not in DTYPES or X.ndim != 2:  # noqa: PLR2004  # a matrix
        raise PayloadError("features are no matrix of float32 or float64")
    layout = Layout(X.dtype, kind, weights is not None, X.shape[0], X.shape[1], n_classes)
    if not (layout.rows and layout.n_features):
        raise PayloadError("features are no matrix with rows and columns")
    if targets.shape != ((layout.rows,) if kind == Targets.INDEX else (layout.rows, n_classes)):
        raise PayloadError("targets have not the shape of the rows and classes")
    # Before the cast, which would make a class of 2³² + 1 or of 1.5.
    if targets.dtype.kind not in TARGET_KINDS[kind]:
        raise PayloadError("targets are not the numbers that their kind has")
    _check_targets(layout, targets)
    stored = np.ascontiguousarray(targets, _target_dtype(layout))
    parts = [_head(layout), X.astype(X.dtype.newbyteorder("<"), copy=False).tobytes()]
    if weights is not None:
        if weights.shape != (layout.rows,):
            raise PayloadError("there is not one weight for each row")
        parts.append(weights.astype(layout.dtype, copy=False).tobytes())
    return b"".join((*parts, stored.tobytes()))


def parse_layout(payload: bytes) -> Layout:
    """What a payload's head says, held against the payload's length.

    Raises:
        PayloadError: The bytes are no feedback payload.
    """
    if not HEAD.size <= len(payload) <= PAYLOAD_BYTES_MAX:
        raise PayloadError("a feedback payload is too short or too long to be one")
    version, dtype, targets, weighted, rows, n_features, n_classes = HEAD.unpack_from(payload)
    if version != FORMAT_VERSION:
        raise PayloadError("a feedback payload has a format version that this release does not know")
    if dtype >= len(DTYPES) or targets >= len(Targets) or weighted > 1 or not (rows and n_features and n_classes):
        raise PayloadError("a feedback payload's head says what no head may say")
    layout = Layout(DTYPES[dtype], Targets(targets), bool(weighted), rows, n_features, n_classes)
    if len(payload) != _payload_bytes(layout):
        raise PayloadError("a feedback payload is not as long as its head says")
    return layout


def decode_rows(payload: bytes) -> Block:
    """The rows of one event; raises PayloadError where the bytes are none."""
    return _decode_equal([payload])


def decode_events(payloads: Sequence[bytes]) -> list[Block]:
    """The rows of many events: one block for each run of events that have the same layout, in order.

    Raises:
        PayloadError: The bytes of one of them are no feedback payload; `parse_layout` and `decode_rows` tell which.
    """
    if not payloads:
        return []
    if len(set(map(len, payloads))) == 1:
        heads = np.frombuffer(b"".join(payloads), np.uint8).reshape(len(payloads), -1)[:, : HEAD.size]
        if (heads == heads[0]).all():
            return [_decode_equal(payloads)]
    return [_decode_equal(list(run)) for _, run in groupby(payloads, key=lambda payload: payload[: HEAD.size])]


def _decode_equal(payloads: Sequence[bytes]) -> Block:
    """One block from payloads with equal heads."""
    layout = parse_layout(payloads[0])
    if set(map(len, payloads)) != {len(payloads[0])}:
        raise PayloadError("a feedback payload is not as long as its head says")
    records = np.frombuffer(b"".join(payloads), layout.record())
    R = len(payloads) * layout.rows
    targets = _own(records["targets"], R)
    _check_targets(layout, targets)
    weights = _own(records["weights"], R) if layout.weighted else None
    return Block(layout, len(payloads), _own(records["X"], R), targets, weights)


def _own(field: NDArray[Any], rows: int) -> NDArray[Any]:
    """An aligned copy of a record's field (E, B, …) as (E·B, …), in the machine's byte order."""
    native = field.dtype.newbyteorder("=")
    return np.array(field, native, order="C").reshape(rows, *field.shape[2:])


def _check_targets(layout: Layout, targets: NDArray[Any]) -> None:
    if layout.targets == Targets.INDEX:
        if targets.min() < 0 or targets.max() >= layout.n_classes:
            raise PayloadError("a target is not the index of a class")
    elif layout.targets == Targets.SET and (targets.min() < 0 or targets.max() > 1):
        raise PayloadError("a set of classes holds something else than 0 and 1")


def _target_dtype(layout: Layout) -> np.dtype[Any]:
    return (np.dtype("<i4"), layout.dtype, np.dtype("u1"))[layout.targets]


def _head(layout: Layout) -> bytes:
    dtype = DTYPES.index(layout.dtype)
    return HEAD.pack(FORMAT_VERSION, dtype, layout.targets, layout.weighted, *layout[3:])


def _payload_bytes(layout: Layout) -> int:
    """The length of a payload, in Python's unbounded integers: a damaged head may ask for more than memory holds."""
    B, K = layout.rows, layout.n_classes
    cells = B if layout.targets == Targets.INDEX else B * K
    numbers = B * layout.n_features + (B if layout.weighted else 0)
    return HEAD.size + numbers * layout.dtype.itemsize + cells * _target_dtype(layout).itemsize

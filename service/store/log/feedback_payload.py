"""The payload of a feedback event: rows of features with their targets, in a format that NumPy reads in bulk.

    offset  size  field
    0       1     format version, 1
    1       1     dtype of the model's numbers: 0 float32, 1 float64
    2       1     targets: 0 a class index, 1 a distribution, 2 a set of classes (multi-label)
    3       1     1 if rows have weights, else 0
    4       4     B, rows, at least 1
    8       4     N, features, at least 1
    12      4     K, classes when it was posted, at least 1
    16      …     X (B, N) of the dtype
                  weights (B,) of the dtype, if rows have weights
                  targets: index (B,) int32 | distribution (B, K) of the dtype | set (B, K) uint8, each 0 or 1

All numbers are little-endian, all arrays row-major. A payload is valid if its length agrees with its head, every index
is in [0, K) and every member of a set is 0 or 1. Other numbers are not checked; the fold decides how to handle them.

Equal heads mean equal layout, so events of one layout are joined and read as one array without a loop over events.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import PayloadError

FORMAT_VERSION: Final = 1
HEAD: Final = struct.Struct("<BBBBIII")
DTYPES: Final = (np.dtype("<f4"), np.dtype("<f8"))
# No request is larger (64 MiB by default); limits the memory that a damaged head can request.
PAYLOAD_BYTES_MAX: Final = 1 << 30

Numbers = NDArray[np.floating[Any]]


class Targets(IntEnum):
    """The kind of a row's target; the numbers are on disk."""

    INDEX = 0
    DISTRIBUTION = 1
    SET = 2


# The kinds of NumPy dtypes that represent such targets without loss.
TARGET_KINDS: Final = {Targets.INDEX: "iu", Targets.DISTRIBUTION: "f", Targets.SET: "biu"}


class Layout(NamedTuple):
    """The head of a payload: its dtype, kind of targets, whether it has weights, and its sizes B, N and K."""

    dtype: np.dtype[Any]
    targets: Targets
    weighted: bool
    rows: int
    n_features: int
    n_classes: int

    @property
    def target_dtype(self) -> np.dtype[Any]:
        """The dtype of the targets."""
        return (np.dtype("<i4"), self.dtype, np.dtype("u1"))[self.targets]

    @property
    def target_shape(self) -> tuple[int, ...]:
        """The shape of the targets."""
        return (self.rows,) if self.targets == Targets.INDEX else (self.rows, self.n_classes)

    @property
    def target_bytes(self) -> int:
        """The size of the targets, in Python's unbounded integers: a damaged head may request any size."""
        return prod(self.target_shape) * self.target_dtype.itemsize

    def record(self) -> np.dtype[Any]:
        """Return the whole payload as a packed NumPy record with the fields head, X, weights (if any) and targets."""
        B, N = self.rows, self.n_features
        weights = [("weights", self.dtype, (B,))] if self.weighted else []
        targets = ("targets", self.target_dtype, self.target_shape)
        return np.dtype([("head", "V16"), ("X", self.dtype, (B, N)), *weights, targets])


@dataclass(frozen=True, eq=False)
class Block:
    """The rows of E events of one layout, in order, R = E·B of them.

    Attributes:
        layout: The layout of all E payloads.
        events: The number E.
        X: (R, N) of the layout's dtype, C-contiguous, aligned, writable, not shared.
        targets: (R,) int32, (R, K) of the dtype, or (R, K) uint8, as the layout's kind says; not shared.
        weights: (R,) of the dtype, or None if rows have no weights.
    """

    layout: Layout
    events: int
    X: Numbers
    targets: NDArray[Any]
    weights: Numbers | None

    def split(self) -> Iterator["Block"]:
        """Yield a block of each event, which shares the arrays of this one."""
        for start in range(0, len(self.X), self.layout.rows):
            rows = slice(start, start + self.layout.rows)
            weights = None if self.weights is None else self.weights[rows]
            yield Block(self.layout, 1, self.X[rows], self.targets[rows], weights)


def encode_rows(
    X: Numbers, targets: NDArray[Any], kind: Targets, n_classes: int, weights: Numbers | None = None
) -> bytes:
    """Return the payload of one event.

    Args:
        X: (B, N) float32 or float64.
        targets: (B,) whole numbers, or (B, K) numbers, or (B, K) truth values, as `kind` says.
        kind: The kind of the targets.
        n_classes: The number K of classes.
        weights: (B,) numbers, or None.

    Raises:
        PayloadError: A shape or dtype does not fit, or a target is not one of the K classes.
    """
    if X.dtype not in DTYPES or X.ndim != 2:  # noqa: PLR2004  # a matrix
        raise PayloadError("features must be a matrix of float32 or float64")
    layout = Layout(X.dtype, kind, weights is not None, X.shape[0], X.shape[1], n_classes)
    if not (layout.rows and layout.n_features):
        raise PayloadError("features must have at least one row and one column")
    stored = encode_targets(layout, targets)
    parts = [_pack_head(layout), X.astype(X.dtype.newbyteorder("<"), copy=False).tobytes()]
    if weights is not None:
        if weights.shape != (layout.rows,):
            raise PayloadError("there must be one weight for each row")
        parts.append(weights.astype(layout.dtype, copy=False).tobytes())
    return b"".join((*parts, stored))


def encode_targets(layout: Layout, targets: NDArray[Any]) -> bytes:
    """Return the targets of a payload as bytes.

    Args:
        layout: The layout of the payload.
        targets: (B,) whole numbers, or (B, K) numbers, or (B, K) truth values, as the layout's kind says.

    Raises:
        PayloadError: A shape or dtype does not fit, or a target is not one of the K classes.
    """
    if targets.shape != layout.target_shape:
        raise PayloadError("the shape of the targets does not match the rows and classes")
    # Before the cast, which would turn 2³² + 1 or 1.5 into a class.
    if targets.dtype.kind not in TARGET_KINDS[layout.targets]:
        raise PayloadError("the dtype of the targets does not match their kind")
    check_targets(layout, targets)
    return np.ascontiguousarray(targets, layout.target_dtype).tobytes()


def replace_targets(payload: bytes, kind: Targets, targets: bytes) -> bytes:
    """Return a payload with other targets, of the same or of another kind.

    Raises:
        PayloadError: The bytes are not a feedback payload, or the length of the targets does not match its head.
    """
    layout = parse_layout(payload)
    replaced = layout._replace(targets=kind)
    if len(targets) != replaced.target_bytes:
        raise PayloadError("the length of the targets does not match the rows and classes")
    return _pack_head(replaced) + payload[HEAD.size : len(payload) - layout.target_bytes] + targets


def has_same_content(payload: bytes, other: bytes) -> bool:
    """Return whether two payloads of one stream have the same rows, weights and labels.

    Classes may have been added between them; then the labels of the later one have no weight on the new classes.
    """
    try:
        layouts = parse_layout(payload), parse_layout(other)
    except PayloadError:
        return False
    fewer, more = sorted(layouts, key=lambda layout: layout.n_classes)
    if fewer != more._replace(n_classes=fewer.n_classes):
        return False
    (rows, targets), (other_rows, other_targets) = (
        (content[HEAD.size : len(content) - layout.target_bytes], content[len(content) - layout.target_bytes :])
        for content, layout in zip((payload, other), layouts, strict=True)
    )
    if rows != other_rows or fewer.targets == Targets.INDEX:
        return rows == other_rows and targets == other_targets
    narrow, wide = sorted((targets, other_targets), key=len)
    padded = np.zeros(more.target_shape, more.target_dtype)
    padded[:, : fewer.n_classes] = np.frombuffer(narrow, fewer.target_dtype).reshape(fewer.target_shape)
    return padded.tobytes() == wide


def check_targets(layout: Layout, targets: NDArray[Any]) -> None:
    """Raise PayloadError if an index is not that of a class, or a member of a set is neither 0 nor 1."""
    if layout.targets == Targets.INDEX:
        if targets.min() < 0 or targets.max() >= layout.n_classes:
            raise PayloadError("a target is not the index of a class")
    elif layout.targets == Targets.SET and (targets.min() < 0 or targets.max() > 1):
        raise PayloadError("a set of classes has a number other than 0 and 1")


def parse_layout(payload: bytes) -> Layout:
    """Return the layout in a payload's head, and check it against the payload's length.

    Raises:
        PayloadError: The bytes are not a feedback payload.
    """
    if not HEAD.size <= len(payload) <= PAYLOAD_BYTES_MAX:
        raise PayloadError("a feedback payload is too short or too long")
    version, dtype, targets, weighted, rows, n_features, n_classes = HEAD.unpack_from(payload)
    if version != FORMAT_VERSION:
        raise PayloadError("a feedback payload has an unknown format version")
    if dtype >= len(DTYPES) or targets >= len(Targets) or weighted > 1 or not (rows and n_features and n_classes):
        raise PayloadError("the head of a feedback payload has an invalid value")
    layout = Layout(DTYPES[dtype], Targets(targets), bool(weighted), rows, n_features, n_classes)
    if len(payload) != _payload_bytes(layout):
        raise PayloadError("the length of a feedback payload contradicts its head")
    return layout


def decode_rows(payload: bytes) -> Block:
    """Return the rows of one event.

    Raises:
        PayloadError: The bytes are not a feedback payload.
    """
    return _decode_run([payload])


def decode_events(payloads: Sequence[bytes]) -> list[Block]:
    """Return the rows of many events: one block for each run of events with the same layout, in order.

    Raises:
        PayloadError: The bytes of an event are not a feedback payload; `parse_layout` and `decode_rows` find it.
    """
    if not payloads:
        return []
    if len(set(map(len, payloads))) == 1:
        heads = np.frombuffer(b"".join(payloads), np.uint8).reshape(len(payloads), -1)[:, : HEAD.size]
        if (heads == heads[0]).all():
            return [_decode_run(payloads)]
    return [_decode_run(list(run)) for _, run in groupby(payloads, key=lambda payload: payload[: HEAD.size])]


def _decode_run(payloads: Sequence[bytes]) -> Block:
    """Return one block from payloads with equal heads."""
    layout = parse_layout(payloads[0])
    if set(map(len, payloads)) != {len(payloads[0])}:
        raise PayloadError("the length of a feedback payload contradicts its head")
    records = np.frombuffer(b"".join(payloads), layout.record())
    R = len(payloads) * layout.rows
    targets = _copy_field(records["targets"], R)
    check_targets(layout, targets)
    weights = _copy_field(records["weights"], R) if layout.weighted else None
    return Block(layout, len(payloads), _copy_field(records["X"], R), targets, weights)


def _copy_field(field: NDArray[Any], rows: int) -> NDArray[Any]:
    """Return an aligned copy of a record's field (E, B, …) as (E·B, …), in the machine's byte order."""
    native = field.dtype.newbyteorder("=")
    return np.array(field, native, order="C").reshape(rows, *field.shape[2:])


def _pack_head(layout: Layout) -> bytes:
    dtype = DTYPES.index(layout.dtype)
    return HEAD.pack(FORMAT_VERSION, dtype, layout.targets, layout.weighted, *layout[3:])


def _payload_bytes(layout: Layout) -> int:
    """Return the length of a payload, in Python's unbounded integers: a damaged head may request any size."""
    numbers = layout.rows * (layout.n_features + layout.weighted)
    return HEAD.size + numbers * layout.dtype.itemsize + layout.target_bytes

"""The payload of a feedback event: its rows with their targets, in one of two formats that are read in bulk.

Format 1 has dense rows, format 2 the entries of sparse rows:

    offset  size  field
    0       1     format version, 1 or 2
    1       1     dtype of the model's numbers: 0 float32, 1 float64
    2       1     targets: 0 a class index, 1 a distribution, 2 a set of classes (multi-label)
    3       1     1 if rows have weights, else 0
    4       4     B, rows, at least 1
    8       4     N, features of format 1, columns of format 2; at least 1
    12      4     K, classes when it was posted, at least 1
    16      …     format 1: X (B, N) of the dtype
                  format 2: E uint32, the entries of all rows
                            ends (B,) uint32: where the entries of each row end
                            columns (E,) uint32: the columns that are present
                            values (E,) of the dtype: their values
                  weights (B,) of the dtype, if rows have weights
                  targets: index (B,) int32 | distribution (B, K) of the dtype | set (B, K) uint8, each 0 or 1

All numbers are little-endian, all arrays row-major. A payload is valid if its length agrees with its head, every index
is in [0, K) and every member of a set is 0 or 1. In format 2 also the ends do not descend, the last one is E, and the
columns of each row ascend and are below N and 2³¹. Other numbers are not checked; the fold decides how to handle them.

Format 2 holds the output of the encoder, so a replay needs no encoder, and the log has no text of a row.

Events of one layout are joined and decoded without a loop over events in Python (feedback_blocks.py).
"""

import struct
from enum import IntEnum
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import PayloadError
from service.softmax.sparse_rows import SparseRows
from service.store.log.sparse_kernels import are_entries_valid

DENSE_FORMAT, SPARSE_FORMAT = 1, 2
HEAD: Final = struct.Struct("<BBBBIII")
# The number of entries, which follows the head in format 2.
ENTRIES: Final = struct.Struct("<I")
END_DTYPE: Final = np.dtype("<u4")
# SparseRows has columns of this dtype; those from 2³¹ on become negative, which is out of range.
COLUMN_DTYPE: Final = np.dtype("<i4")
DTYPES: Final = (np.dtype("<f4"), np.dtype("<f8"))
# No request is larger (64 MiB by default); limits the memory that a damaged head can request.
PAYLOAD_BYTES_MAX: Final = 1 << 30

CONTRADICTED_LENGTH: Final = "the length of a feedback payload contradicts its head"
INVALID_ENTRIES: Final = "the ends of rows must not descend, and their columns must ascend and be in range"

Numbers = NDArray[np.floating[Any]]


class Targets(IntEnum):
    """The kind of a row's target; the numbers are on disk."""

    INDEX = 0
    DISTRIBUTION = 1
    SET = 2


# The kinds of NumPy dtypes that represent such targets without loss.
TARGET_KINDS: Final = {Targets.INDEX: "iu", Targets.DISTRIBUTION: "f", Targets.SET: "biu"}


class Layout(NamedTuple):
    """The head of a payload: its dtype, kind of targets, whether it has weights, its sizes B, N and K, and its format.

    The number of entries is no part of it: events whose rows have any number of entries are of one layout.
    """

    dtype: np.dtype[Any]
    targets: Targets
    weighted: bool
    rows: int
    n_features: int
    n_classes: int
    is_sparse: bool = False

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

    @property
    def fixed_bytes(self) -> int:
        """The size of a payload without its entries, if it has any; unbounded like `target_bytes`."""
        numbers = self.rows * (self.weighted + (0 if self.is_sparse else self.n_features))
        ends = ENTRIES.size + self.rows * END_DTYPE.itemsize if self.is_sparse else 0
        return HEAD.size + ends + numbers * self.dtype.itemsize + self.target_bytes

    @property
    def entry_bytes(self) -> int:
        """The size of an entry of format 2."""
        return COLUMN_DTYPE.itemsize + self.dtype.itemsize


def encode_rows(
    X: Numbers, targets: NDArray[Any], kind: Targets, n_classes: int, weights: Numbers | None = None
) -> bytes:
    """Return the payload of one event with dense rows.

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
    return _join_parts(layout, [_little(X).tobytes()], targets, weights)


def encode_sparse_rows(  # noqa: PLR0917  # the arguments of `encode_rows`, and the number of columns
    rows: SparseRows,
    n_columns: int,
    targets: NDArray[Any],
    kind: Targets,
    n_classes: int,
    weights: Numbers | None = None,
) -> bytes:
    """Return the payload of one event with sparse rows.

    Args:
        rows: B rows of float32 or float64.
        n_columns: The number N of columns.
        targets: (B,) whole numbers, or (B, K) numbers, or (B, K) truth values, as `kind` says.
        kind: The kind of the targets.
        n_classes: The number K of classes.
        weights: (B,) numbers, or None.

    Raises:
        PayloadError: A shape or dtype does not fit, the rows are not valid for N columns, or a target is not one of the
            K classes.
    """
    ends, columns, values = rows
    if values.dtype not in DTYPES or ends.dtype != np.int64 or columns.dtype != np.int32:
        raise PayloadError("ends must be int64, columns int32, and values float32 or float64")
    if columns.shape != values.shape or any(part.ndim != 1 or not part.flags.c_contiguous for part in rows):
        raise PayloadError("ends, columns and values must be one-dimensional and contiguous, values as many as columns")
    layout = Layout(values.dtype, kind, weights is not None, len(ends), n_columns, n_classes, is_sparse=True)
    if not (layout.rows and n_columns):
        raise PayloadError("features must have at least one row and one column")
    if not are_entries_valid(ends, columns, n_columns):
        raise PayloadError(INVALID_ENTRIES)
    parts = [ENTRIES.pack(len(columns)), ends.astype(END_DTYPE).tobytes()]
    parts += [columns.astype(COLUMN_DTYPE, copy=False).tobytes(), _little(values).tobytes()]
    return _join_parts(layout, parts, targets, weights)


def _join_parts(layout: Layout, rows: list[bytes], targets: NDArray[Any], weights: Numbers | None) -> bytes:
    """Return the payload of rows that are encoded already."""
    stored = encode_targets(layout, targets)
    if weights is not None:
        if weights.shape != (layout.rows,):
            raise PayloadError("there must be one weight for each row")
        rows.append(_little(weights.astype(layout.dtype, copy=False)).tobytes())
    return b"".join((_pack_head(layout), *rows, stored))


def _little(numbers: Numbers) -> Numbers:
    """Return numbers in the byte order of payloads."""
    return numbers.astype(numbers.dtype.newbyteorder("<"), copy=False)


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
    if version not in {DENSE_FORMAT, SPARSE_FORMAT}:
        raise PayloadError("a feedback payload has an unknown format version")
    if dtype >= len(DTYPES) or targets >= len(Targets) or weighted > 1 or not (rows and n_features and n_classes):
        raise PayloadError("the head of a feedback payload has an invalid value")
    is_sparse = version == SPARSE_FORMAT
    layout = Layout(DTYPES[dtype], Targets(targets), bool(weighted), rows, n_features, n_classes, is_sparse)
    # Of a payload that ends before the number of entries, any number contradicts the length.
    entries = int.from_bytes(payload[HEAD.size : HEAD.size + ENTRIES.size], "little") if is_sparse else 0
    if len(payload) != layout.fixed_bytes + entries * layout.entry_bytes:
        raise PayloadError(CONTRADICTED_LENGTH)
    return layout


def _pack_head(layout: Layout) -> bytes:
    version = SPARSE_FORMAT if layout.is_sparse else DENSE_FORMAT
    dtype = DTYPES.index(layout.dtype)
    return HEAD.pack(version, dtype, layout.targets, layout.weighted, layout.rows, layout.n_features, layout.n_classes)

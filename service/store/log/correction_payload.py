"""The payload of a CORRECT event: the new targets of one feedback event, in the form that the event has them.

    offset  size  field
    0       1     format version, 1
    1       1     dtype of the event's numbers: 0 float32, 1 float64
    2       1     targets: 0 a class index, 1 a distribution, 2 a set of classes (multi-label)
    3       1     0
    4       4     B, rows of the event
    8       4     K, classes when the event was posted
    12      8     seq of the event, at least 1
    20      …     targets: index (B,) int32 | distribution (B, K) of the dtype | set (B, K) uint8, each 0 or 1

All numbers are little-endian, all arrays row-major. A payload is valid if its length agrees with its head, every index
is in [0, K) and every member of a set is 0 or 1. The targets may be of another kind than those that they replace.

A correction whose dtype, B or K is not that of the event changes nothing. The event's own payload never changes, so its
id still names the same content.
"""

import struct
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import PayloadError
from service.store.log.feedback_payload import (
    DTYPES,
    PAYLOAD_BYTES_MAX,
    Layout,
    Targets,
    check_targets,
    encode_targets,
    parse_layout,
    replace_targets,
)

FORMAT_VERSION: Final = 1
HEAD: Final = struct.Struct("<BBBBIIQ")


class Correction(NamedTuple):
    """A parsed payload.

    Attributes:
        seq: The seq of the feedback event.
        layout: The dtype, rows and classes of the event, with the kind of the new targets. The payload has neither
            features nor weights, so both are 0 here.
        targets: The bytes of the new targets.
    """

    seq: int
    layout: Layout
    targets: bytes


def encode_correction(seq: int, event: Layout, kind: Targets, targets: NDArray[Any]) -> bytes:
    """Return the payload of a CORRECT event.

    Args:
        seq: The seq of the feedback event.
        event: The layout of its payload.
        kind: The kind of the new targets.
        targets: (B,) whole numbers, or (B, K) numbers, or (B, K) truth values, as `kind` says.

    Raises:
        PayloadError: A shape or dtype does not fit, or a target is not one of the K classes.
    """
    dtype = DTYPES.index(event.dtype)
    head = HEAD.pack(FORMAT_VERSION, dtype, kind, 0, event.rows, event.n_classes, seq)
    return head + encode_targets(event._replace(targets=kind), targets)


def parse_correction(payload: bytes) -> Correction:
    """Return the parts of the payload of a CORRECT event.

    Raises:
        PayloadError: The bytes are not such a payload.
    """
    if not HEAD.size <= len(payload) <= PAYLOAD_BYTES_MAX:
        raise PayloadError("the payload of a correction is too short or too long")
    version, dtype, kind, zero, rows, n_classes, seq = HEAD.unpack_from(payload)
    if version != FORMAT_VERSION:
        raise PayloadError("the payload of a correction has an unknown format version")
    if dtype >= len(DTYPES) or kind >= len(Targets) or zero or not (rows and n_classes and seq):
        raise PayloadError("the head of a correction has an invalid value")
    layout = Layout(DTYPES[dtype], Targets(kind), weighted=False, rows=rows, n_features=0, n_classes=n_classes)
    targets = payload[HEAD.size :]
    if len(targets) != layout.target_bytes:
        raise PayloadError("the length of a correction contradicts its head")
    check_targets(layout, np.frombuffer(targets, layout.target_dtype))
    return Correction(seq, layout, targets)


def correct_payload(payload: bytes, correction: bytes) -> bytes:
    """Return the payload of a feedback event with the targets of a correction.

    Whatever the bytes are, there is a result: a payload that is not valid, and one that the correction does not fit,
    are returned as they are.
    """
    try:
        event, (_, layout, targets) = parse_layout(payload), parse_correction(correction)
        if (event.dtype, event.rows, event.n_classes) != (layout.dtype, layout.rows, layout.n_classes):
            return payload
        return replace_targets(payload, layout.targets, targets)
    except PayloadError:
        return payload

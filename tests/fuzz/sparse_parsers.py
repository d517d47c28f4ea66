"""The parsers of sparse rows in bytes: payloads of feedback events, and tokens; see parsers.py."""

from typing import Final

import numpy as np

from service.errors import InputError, PayloadError
from service.serve.wire.feedback_tokens import SparseTokenSealer, TokenKeys, decode_token
from service.softmax.sparse_rows import SparseRows, check_sparse_rows
from service.store.log.feedback_blocks import decode_events
from service.store.log.feedback_payload import Targets, encode_rows, encode_sparse_rows
from tests.fuzz.fuzzer import Parser

COLUMNS: Final = 7
SINGLE: Final = SparseRows(np.array([3]), np.array([1, 2, 6], np.int32), np.array([1, -2.5, 0], np.float32))
SEVERAL: Final = SparseRows(np.array([0, 3, 3]), SINGLE.columns, SINGLE.values)
PAYLOADS: Final = (
    encode_sparse_rows(SINGLE, COLUMNS, np.array([1]), Targets.INDEX, 3),
    encode_sparse_rows(SEVERAL, COLUMNS, np.eye(3, dtype=np.float32), Targets.DISTRIBUTION, 3, np.ones(3, np.float32)),
    encode_sparse_rows(SEVERAL, COLUMNS, np.eye(3, dtype=np.int64), Targets.SET, 3),
    encode_rows(np.ones((1, 4), np.float32), np.array([1]), Targets.INDEX, 3),
)


def decode_payload(data: bytes) -> object:
    """Decode a payload between others; kernels can read the rows of all."""
    blocks = decode_events([*PAYLOADS, data, PAYLOADS[0]])
    for block in blocks:
        if isinstance(block.rows, SparseRows):
            check_sparse_rows(block.rows, block.layout.n_features)
    return len(blocks)


SEALER: Final = SparseTokenSealer(
    TokenKeys([bytes(range(32))]), "mail", 1, bytes(32), COLUMNS, np.dtype(np.float32), 60.0, lambda: 1_800_000_000_000
)
ISSUED: Final = tuple(map(decode_token, SEALER.seal_rows(SEVERAL)))


def open_sparse_token(data: bytes) -> object:
    """Open the bytes of a token; only one that was issued opens."""
    _, row = SEALER.open_token(data)
    assert data in ISSUED, "a changed token was opened"
    return len(row.columns)


SPARSE_PARSERS: Final[dict[str, Parser]] = {
    "feedback payloads": Parser(PAYLOADS, decode_payload, (PayloadError,)),
    "feedback tokens of sparse rows": Parser(ISSUED, open_sparse_token, (InputError,)),
}

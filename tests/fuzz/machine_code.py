"""The parsers in machine code, fuzzed on bytes whose end is the end of readable memory.

Numba checks no bounds, so a read after a body would go unnoticed. Here it ends the process.
"""

import mmap
from typing import Final

import numpy as np

from service.errors import InputError
from service.serve.models.single_row import SingleRow
from service.serve.wire.row_scanner import scan_instances
from service.serve.wire.rows import RowParser
from service.softmax.arrays import Floats
from service.softmax.classifier import Classifier
from tests.support.guarded_bytes import LastBytes
from tests.support.http_requests import instances

# A guarded body, with the head of its object, fits into a page.
GUARDED_MAX: Final = mmap.PAGESIZE - bytes.__basicsize__
GUARD: Final = 0xA5
ROWS: Final = 3
BODIES: Final = (
    instances([[5.1, 3.5, 1.4, 0.2]]),
    b'{"instances":[[5.1,3.5,1.4,0.2]]}',
    b' {"instances" :\t[[1, -2.5,0.1e-3,40 ],\r\n[1,2,3,4] ]}\n',
    b'{"instances":[[9007199254740992e22,-0,-0.0,1E-22]]}',
)


class GuardedScanner:
    """Gives bodies to both entries of the scanner.

    Args:
        model: The model.
        rows: The parser of the model's rows, which must agree.
        single_row: The shortest way to predict a row.
    """

    def __init__(self, model: Classifier, rows: RowParser, single_row: SingleRow) -> None:
        self._model: Final = model
        self._rows: Final = rows
        self._single_row: Final = single_row
        self._guarded: Final = LastBytes()
        self._surroundings: Final = np.zeros((ROWS + 2, rows.n_features), rows.dtype)

    def scan(self, body: bytes) -> object:
        """Scan a body; what the scanner accepts is what the general parser accepts, and nothing else is written."""
        body = body[:GUARDED_MAX]
        cells = self._surroundings.view(np.uint8)
        cells[:] = GUARD
        count = scan_instances(self._guarded(body), self._surroundings[1:-1])
        assert (cells[0] == GUARD).all(), "a write before the rows"
        assert (cells[count + 1 if count else -1 :] == GUARD).all(), "a write after the rows"
        label = self._single_row.predict_row(self._guarded(body), 0)
        assert (label >= 0) == (count == 1 and not self._overflows(self._surroundings[1:2])), "the entries disagree"
        if count:
            assert len(self._accepted(body)) == count, "the general parser disagrees"
        return count, label < 0

    def _overflows(self, row: Floats) -> bool:
        """Whether the logits of a row overflow the model's dtype; the general path computes such a row again."""
        return not np.isfinite(self._model.logits(row)).all()

    def _accepted(self, body: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.floating]]:
        """Return the rows of the general parser; the scanner may not accept a body that it refuses."""
        try:
            return self._rows.parse_instances(body)
        except InputError as error:
            raise AssertionError("the general parser refuses the body") from error

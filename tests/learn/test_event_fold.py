"""Events that do not fit the model are counted, and change nothing else."""

import numpy as np
import pytest

from service.learn.event_fold import EventFold
from service.softmax.sparse_rows import SparseRows
from service.store.log.feedback_payload import Targets, encode_rows, encode_sparse_rows
from tests.support.artifacts import artifact
from tests.support.learner_states import has_same_bits


@pytest.mark.parametrize("broken", [False, True])
def test_sparse_rows_do_not_fit_a_dense_model(broken: bool) -> None:  # noqa: FBT001
    """An event of format 2, valid or not, is unfit though its sizes fit, wherever it is among others."""
    source = artifact("raw", "softmax")
    dtype, N = np.dtype(source.manifest.dtype), source.n_features
    K, label = len(source.manifest.classes), np.array([1])
    dense = encode_rows(np.ones((1, N), dtype), label, Targets.INDEX, K)
    row = SparseRows(np.array([N]), np.arange(N, dtype=np.int32), np.ones(N, dtype))
    sparse = encode_sparse_rows(row, N, label, Targets.INDEX, K)
    if broken:
        sparse = sparse[:20] + b"\xff" + sparse[21:]
    plain, mixed = EventFold(source), EventFold(source)
    plain.fold_payloads([dense] * 4)
    mixed.fold_payloads([sparse, dense, dense, sparse, sparse, dense, sparse, dense])
    assert (plain.events, plain.unfit, mixed.events, mixed.unfit) == (4, 0, 4, 4)
    assert has_same_bits(plain.state, mixed.state)

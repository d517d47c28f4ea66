"""Weighted sums of the squares of columns, in row order: the part of a Hessian's diagonal that no weight changes."""

import numpy as np
from numba import types

from service.compiler import kernel
from service.softmax.kernels.objective import COLUMNS, ENDS, MATRIX, VALUES, WEIGHTS


@kernel(types.void(MATRIX, WEIGHTS, types.float64[::1]))
def dense_squares(X, weights, sums):
    """X (b, N), weights (b,), sums (N,): adds the sum over rows i of w_i x_ij**2 to sums[j]."""
    for i in range(X.shape[0]):
        for j in range(X.shape[1]):
            x = np.float64(X[i, j])
            sums[j] += weights[i] * (x * x)


@kernel(types.boolean(ENDS, COLUMNS, VALUES, WEIGHTS, types.float64[::1]))
def sparse_squares(ends, columns, values, weights, sums):
    """Sparse rows of N columns, weights (b,), sums (N,): as `dense_squares`. Returns whether all columns are below N.

    If one is not, the sums are unset.
    """
    e = 0
    for i in range(ends.size):
        while e < ends[i]:
            if not 0 <= columns[e] < sums.size:
                return False
            x = np.float64(values[e])
            sums[columns[e]] += weights[i] * (x * x)
            e += 1
    return True

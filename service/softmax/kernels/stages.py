"""The input stage: x -> clip((x - mean) * inverse), from raw features to those that the weights take.

X (B, N)              raw features
mean, inverse (N,)    the stage's numbers in the model's dtype; an inverse of 0 marks a feature of unknown scale, and
                      stages every value of it to 0
out (B, F)            F = N; or F = 2 N for a model with a delta: the inputs of the weights, then those of the delta,
                      so that one product over 2 N features gives both parts of a logit
"""

import numpy as np

from service.compiler import inlined, kernel


@inlined
def stage_row(X, i, mean, inverse, limit, out, r, offset):
    """out[r, offset : offset + N] = the staged row i of X. Returns whether every x is finite."""
    finite = True
    for j in range(X.shape[1]):
        x = X[i, j]
        finite &= abs(x) < np.inf
        # With an inverse of 0, a difference that overflows would give NaN.
        staged = (x - mean[j]) * inverse[j] if inverse[j] != 0 else X.dtype.type(0)
        out[r, offset + j] = min(max(staged, -limit), limit)
    return finite


@kernel(
    "boolean(float32[:,::1],float32[::1],float32[::1],float64,float32[:,::1],int64)",
    "boolean(float64[:,::1],float64[::1],float64[::1],float64,float64[:,::1],int64)",
)
def stage_forward(X, mean, inverse, clip, out, offset):
    """X (B, N), mean and inverse (N,), out (B, F): the columns from `offset` on are written.

    They become (x - mean) * inverse, clipped to [-clip, clip]. Returns whether every x is finite, because a clip
    would hide one that is not.
    """
    limit = X.dtype.type(clip)
    finite = True
    for i in range(X.shape[0]):
        finite &= stage_row(X, i, mean, inverse, limit, out, i, offset)
    return finite

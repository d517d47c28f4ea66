"""The safe door to the heads as functions and to their derivatives: arrays in, fresh arrays out, checked.

    softmax, log_softmax        of logits, with a temperature and with classes left out, as explicit options
    softmax_jacobian            dp / dz, whole; softmax_product is its product with a vector, which never builds it
    log_softmax_jacobian        d ln p / dz, whole; log_softmax_product and log_softmax_backward are J v and J^T u
    sigmoid_slope               d sigma / dz = sigma (1 - sigma) = sigma(z) sigma(-z)
    affine_jacobian             d(x W + b) / dW, whole; affine_backward is what training uses: dW = X^T dZ, db, dX

The cross-entropies' derivatives by the logits, P - Y and its general form, are `Model.gradients` and
`cross_entropy_backward` (loss.py); those of networks are `Network.gradients`. Every array is float32 or float64 and
C-contiguous, all of one call are of one dtype, and results have that dtype. The formulas and their sources stand in
jacobians.py. A ValueError says which shape, dtype or option does not fit.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.softmax.input_stage import Doubles, Floats
from service.softmax.kernels import jacobians
from service.softmax.kernels.activations import SIGMOID, activation_forward
from service.softmax.kernels.heads import SOFTMAX
from service.softmax.kernels.loss import log_probabilities_forward
from service.softmax.linear_model import multiply


class AffineGradients(NamedTuple):
    """Derivatives of a scalar by what made Z = X W + b, summed over rows: `dW` (N, K), `db` (K,), `dX` (B, N)."""

    dW: Floats
    db: Floats
    dX: Floats


def softmax(Z: Floats, temperature: float = 1.0, allowed: NDArray[np.bool_] | None = None) -> Floats:
    """P (B, K), the softmax of Z / temperature; 1 changes no bit of what a model answers for these logits.

    Args:
        Z: Logits (B, K), finite.
        temperature: T > 0. Above 1 it makes rows flatter, below 1 sharper; the order of the classes stays.
        allowed: (K,), or None for all: the classes that can be. The others have the probability 0, and the rest are
            what they would be without them; there must be one.
    """
    _matrix(Z)
    kept = np.ones(Z.shape[1], np.bool_) if allowed is None else np.ascontiguousarray(allowed)
    if kept.shape != Z.shape[1:] or kept.dtype != np.bool_ or not kept.any():
        raise ValueError("allowed must be (K,) booleans, of which one is true")
    P = np.empty_like(Z)
    jacobians.masked_softmax_forward(_tempered(Z, temperature), kept, P)
    return P


def log_softmax(Z: Floats, temperature: float = 1.0) -> Doubles:
    """Ln P (B, K) float64 of the softmax of Z / temperature; finite for every finite Z."""
    _matrix(Z)
    out = np.empty(Z.shape)
    log_probabilities_forward(_tempered(Z, temperature), SOFTMAX, out)
    return out


def softmax_jacobian(P: Floats) -> Floats:
    """J (B, K, K), J[b, i, j] = dp_i / dz_j = p_i (d_ij - p_j), of probabilities P (B, K)."""
    _matrix(P)
    J = np.empty((*P.shape, P.shape[1]), P.dtype)
    jacobians.softmax_jacobian(P, J)
    return J


def softmax_product(P: Floats, V: Floats) -> Floats:
    """J V (B, K), which is also J^T V, of P (B, K) and V (B, K), in 4 K operations a row."""
    return _product(jacobians.softmax_product, P, V)


def log_softmax_jacobian(P: Floats) -> Floats:
    """J (B, K, K), J[b, i, j] = d ln p_i / dz_j = d_ij - p_j, of probabilities P (B, K)."""
    _matrix(P)
    J = np.empty((*P.shape, P.shape[1]), P.dtype)
    jacobians.log_softmax_jacobian(P, J)
    return J


def log_softmax_product(P: Floats, V: Floats) -> Floats:
    """J V (B, K) of log-softmax, of P (B, K) and V (B, K)."""
    return _product(jacobians.log_softmax_product, P, V)


def log_softmax_backward(P: Floats, dL: Floats) -> Floats:
    """DZ = J^T dL (B, K) of log-softmax, of P (B, K) and the derivatives dL (B, K) by ln P."""
    return _product(jacobians.log_softmax_backward, P, dL)


def sigmoid_slope(Z: Floats) -> Floats:
    """sigma(z) sigma(-z) (B, K) of logits Z (B, K): sigma (1 - sigma) with all digits also where sigma is near 1."""
    _matrix(Z)
    lanes = 64 // Z.itemsize
    wide = np.zeros((len(Z), -(-Z.shape[1] // lanes) * lanes), Z.dtype)
    wide[:, : Z.shape[1]] = Z
    parts = np.empty_like(Z), np.empty_like(Z)
    for sign, part in zip((1, -1), parts, strict=True):
        activation_forward(sign * wide, SIGMOID, part)
    return parts[0] * parts[1]


def affine_jacobian(X: Floats, K: int) -> Floats:
    """J (B, K, N K), J[b, k, j K + m] = dz_k / dW_jm = x_j d_km, of rows X (B, N); 1 in K of its numbers is not 0.

    For x = (x_0, x_1) and K = 3, with W in the order of its memory, W_00 W_01 W_02 W_10 W_11 W_12:

        x_0  0    0    x_1  0    0
        0    x_0  0    0    x_1  0
        0    0    x_0  0    0    x_1

    It is shown for what it is; `affine_backward` gives the same product without it.
    """
    _matrix(X)
    J = np.zeros((len(X), K, X.shape[1] * K), X.dtype)
    jacobians.affine_jacobian(X, J)
    return J


def affine_backward(X: Floats, W: Floats, dZ: Floats) -> AffineGradients:
    """DW = X^T dZ, db = sum of dZ and dX = dZ W^T, of X (B, N), W (N, K) and dZ (B, K), as training computes them."""
    for matrix in (X, W, dZ):
        _matrix(matrix)
    if (len(X), *W.shape) != (len(dZ), X.shape[1], dZ.shape[1]) or {W.dtype, dZ.dtype} != {X.dtype}:
        raise ValueError("X must be (B, N), W (N, K) and dZ (B, K), all of one dtype")
    sums = multiply(np.ascontiguousarray(np.vstack([X.T, np.ones((1, len(X)), X.dtype)])), dZ)
    return AffineGradients(sums[:-1], sums[-1], multiply(dZ, np.ascontiguousarray(W.T)))


def _product(kernel: Any, P: Floats, V: Floats) -> Floats:  # noqa: ANN401  # a Numba dispatcher
    _matrix(P)
    _matrix(V)
    if V.shape != P.shape or V.dtype != P.dtype:
        raise ValueError("both arrays must be (B, K) and of one dtype")
    out = np.empty_like(P)
    kernel(P, V, out)
    return out


def _tempered(Z: Floats, temperature: float) -> Floats:
    """Z / T in Z's dtype, which is Z where T is 1."""
    divisor = Z.dtype.type(temperature)
    if not 0 < divisor < np.inf:
        raise ValueError("the temperature must be positive, and finite in the logits' dtype")
    with np.errstate(over="ignore"):
        divided = Z / divisor
    if not np.isfinite(divided).all():
        raise ValueError("the logits divided by the temperature must be finite")
    return divided


def _matrix(array: Floats) -> None:
    """Raise ValueError where an array is not one that kernels can read."""
    if array.ndim != 2 or 0 in array.shape or array.dtype not in (np.float32, np.float64):  # noqa: PLR2004  # a matrix
        raise ValueError("every array must be a matrix of float32 or float64 with at least one number")
    if not array.flags.carray:
        raise ValueError("every array must be aligned, writable and C-contiguous")

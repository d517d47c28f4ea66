"""The heads as functions of arrays, and their derivatives.

    softmax, log_softmax        of logits, with a temperature and optionally fewer classes
    softmax_jacobian            dp / dz, complete; softmax_product is its product with a vector, computed without it
    log_softmax_jacobian        d ln p / dz, complete; log_softmax_product and log_softmax_backward are J v and J^T u
    sigmoid_slope               d sigma / dz = sigma (1 - sigma) = sigma(z) sigma(-z)
    affine_jacobian             d(x W + b) / dW, complete; affine_backward is what training uses: dW = X^T dZ, db, dX

The derivatives of the cross-entropies with respect to the logits, P - Y and its general form, are
`LinearModel.gradients` and `cross_entropy_backward` (kernels/loss.py); those of networks are `NetworkModel.gradients`.
Every array is float32 or float64 and C-contiguous. All arrays of one call have one dtype, and so has the result. The
formulas and their sources are in kernels/jacobians.py. A ValueError names the shape, dtype or option that does not fit.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.softmax.arrays import Doubles, Floats
from service.softmax.kernels import jacobians
from service.softmax.kernels.activations import SIGMOID, activation_forward
from service.softmax.kernels.heads import SOFTMAX
from service.softmax.kernels.loss import log_probabilities_forward
from service.softmax.kernels.matmul import multiply_matrices


class AffineGradients(NamedTuple):
    """Derivatives of a scalar function of Z = X W + b: `dW` (N, K) and `db` (K,), summed over rows, and `dX` (B, N)."""

    dW: Floats
    db: Floats
    dX: Floats


def softmax(Z: Floats, temperature: float = 1.0, allowed: NDArray[np.bool_] | None = None) -> Floats:
    """Return P (B, K), the softmax of Z / temperature; for 1, bit-identical to a model's probabilities.

    Args:
        Z: Logits (B, K), finite.
        temperature: T > 0. Above 1 it makes rows flatter, below 1 sharper; the order of the classes does not change.
        allowed: (K,), the possible classes, at least one; or None for all. The others get the probability 0, and the
            rest the probabilities that they have without them.
    """
    _check_matrix(Z)
    possible = np.ones(Z.shape[1], np.bool_) if allowed is None else np.ascontiguousarray(allowed)
    if possible.shape != Z.shape[1:] or possible.dtype != np.bool_ or not possible.any():
        raise ValueError("allowed must be (K,) booleans, at least one of them true")
    P = np.empty_like(Z)
    jacobians.masked_softmax_forward(_divide(Z, temperature), possible, P)
    return P


def log_softmax(Z: Floats, temperature: float = 1.0) -> Doubles:
    """Return ln P (B, K) float64 of the softmax of Z / temperature; finite for every finite Z."""
    _check_matrix(Z)
    out = np.empty(Z.shape)
    log_probabilities_forward(_divide(Z, temperature), SOFTMAX, out)
    return out


def softmax_jacobian(P: Floats) -> Floats:
    """Return J (B, K, K), J[b, i, j] = dp_i / dz_j = p_i (d_ij - p_j), of probabilities P (B, K)."""
    return _jacobian(jacobians.softmax_jacobian, P)


def softmax_product(P: Floats, V: Floats) -> Floats:
    """Return J V (B, K), which equals J^T V, of P (B, K) and V (B, K), in 4 K operations a row."""
    return _product(jacobians.softmax_product, P, V)


def log_softmax_jacobian(P: Floats) -> Floats:
    """Return J (B, K, K), J[b, i, j] = d ln p_i / dz_j = d_ij - p_j, of probabilities P (B, K)."""
    return _jacobian(jacobians.log_softmax_jacobian, P)


def log_softmax_product(P: Floats, V: Floats) -> Floats:
    """Return J V (B, K) of log-softmax, of P (B, K) and V (B, K)."""
    return _product(jacobians.log_softmax_product, P, V)


def log_softmax_backward(P: Floats, dL: Floats) -> Floats:
    """Return J^T dL (B, K) of log-softmax, of P (B, K) and the derivatives dL (B, K) with respect to ln P."""
    return _product(jacobians.log_softmax_backward, P, dL)


def sigmoid_slope(Z: Floats) -> Floats:
    """Return sigma(z) sigma(-z) (B, K) of logits Z (B, K); precise also where sigma is near 1, unlike 1 - sigma."""
    _check_matrix(Z)
    lanes = 64 // Z.itemsize
    wide = np.zeros((len(Z), -(-Z.shape[1] // lanes) * lanes), Z.dtype)
    wide[:, : Z.shape[1]] = Z
    parts = np.empty_like(Z), np.empty_like(Z)
    for sign, part in zip((1, -1), parts, strict=True):
        activation_forward(sign * wide, SIGMOID, part)
    return parts[0] * parts[1]


def affine_jacobian(X: Floats, K: int) -> Floats:
    """Return J (B, K, N K), J[b, k, j K + m] = dz_k / dW_jm = x_j d_km, of rows X (B, N).

    For x = (x_0, x_1) and K = 3, with W in memory order, W_00 W_01 W_02 W_10 W_11 W_12:

        x_0  0    0    x_1  0    0
        0    x_0  0    0    x_1  0
        0    0    x_0  0    0    x_1

    Only 1 / K of the numbers are not 0, so `affine_backward` computes products without J.
    """
    _check_matrix(X)
    J = np.zeros((len(X), K, X.shape[1] * K), X.dtype)
    jacobians.affine_jacobian(X, J)
    return J


def affine_backward(X: Floats, W: Floats, dZ: Floats) -> AffineGradients:
    """Return dW = X^T dZ, db = sum of dZ and dX = dZ W^T, of X (B, N), W (N, K) and dZ (B, K), as in training."""
    for matrix in (X, W, dZ):
        _check_matrix(matrix)
    if (len(X), *W.shape) != (len(dZ), X.shape[1], dZ.shape[1]) or {W.dtype, dZ.dtype} != {X.dtype}:
        raise ValueError("X must be (B, N), W (N, K) and dZ (B, K), all of one dtype")
    sums = multiply_matrices(np.ascontiguousarray(np.vstack([X.T, np.ones((1, len(X)), X.dtype)])), dZ)
    return AffineGradients(sums[:-1], sums[-1], multiply_matrices(dZ, np.ascontiguousarray(W.T)))


def _jacobian(kernel: Any, P: Floats) -> Floats:  # noqa: ANN401  # a Numba dispatcher
    """Return J (B, K, K) of P (B, K) by a kernel."""
    _check_matrix(P)
    J = np.empty((*P.shape, P.shape[1]), P.dtype)
    kernel(P, J)
    return J


def _product(kernel: Any, P: Floats, V: Floats) -> Floats:  # noqa: ANN401  # a Numba dispatcher
    """Return a product (B, K) of P (B, K) and V (B, K) by a kernel."""
    _check_matrix(P)
    _check_matrix(V)
    if V.shape != P.shape or V.dtype != P.dtype:
        raise ValueError("both arrays must be (B, K) and of one dtype")
    out = np.empty_like(P)
    kernel(P, V, out)
    return out


def _divide(Z: Floats, temperature: float) -> Floats:
    """Return Z / T in Z's dtype; bit-identical to Z for T = 1."""
    divisor = Z.dtype.type(temperature)
    if not 0 < divisor < np.inf:
        raise ValueError("the temperature must be positive, and finite in the dtype of the logits")
    with np.errstate(over="ignore"):
        divided = Z / divisor
    if not np.isfinite(divided).all():
        raise ValueError("the logits divided by the temperature must be finite")
    return divided


def _check_matrix(array: Floats) -> None:
    """Raise ValueError unless kernels can read the array as a matrix."""
    if array.ndim != 2 or 0 in array.shape or array.dtype not in (np.float32, np.float64):  # noqa: PLR2004  # a matrix
        raise ValueError("every array must be a matrix of float32 or float64 with at least one number")
    if not array.flags.carray:
        raise ValueError("every array must be aligned, writable and C-contiguous")

"""The derivatives of a mixture's answer with respect to the raw features of a row.

    z = (x - mean) / scale, cut at 1.25, 2 and 4       dz = dx / scale within the cut, else 0
    l = (g - mean) / scale, cut at 2.5                 dl = dg / scale within the cut; g = sign(x) ln(1 + 10 |x| / m)
    f_m = c cos(w_m . v + b_m)                         df_m = -c sin(w_m . v + b_m) w_m . dv; v has numbers of z or of l
    q_h = softmax(W_h . input_h + offset)              dq_h = J(q_h) (W_h . d input_h + d offset)
    u = softmax(sum a_h L_h)                           du = J(u) sum a_h dL_h; L_h = ln((1 - e) q_h + e / C)
    p = v_0 u + v_1 f + sum v_(h + 1) q_h              dp; and of the logits ln p: dp / p; f does not depend on the row

A sigmoid expert is the softmax of (0, z). Everything is computed in float64 from the numbers of the model's dtype, with
the sums of `multiply_matrices`, whose order does not depend on the processor or on the number of rows.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from service.softmax.arrays import Doubles, Floats
from service.softmax.derivatives import softmax_product
from service.softmax.kernels.calibration_kernels import head_forward
from service.softmax.kernels.cosine import cos_forward
from service.softmax.kernels.exp_log import log_forward
from service.softmax.kernels.heads import SOFTMAX
from service.softmax.kernels.matmul import multiply_matrices
from service.softmax.kernels.mixture import UNIFORM
from service.softmax.kernels.mixture_inputs import CLIPS, LOG_RATIO_MAX, feature_scale
from service.softmax.mixture_model import MixtureArrays

CUT_BASE, CUT_FEATURES, CUT_LINEAR, CUT_LOG = CLIPS
TINY: Final = 1e-300
HALF_PI: Final = 1.5707963267948966
# Numbers of the dense random features that are float64 at one time.
CHUNK_CELLS: Final = 1 << 18


class WithSlopes(NamedTuple):
    """Numbers (B, C) of rows, and their derivatives (B, C, N) with respect to the raw features."""

    values: Doubles
    slopes: Doubles


class _Inputs(NamedTuple):
    """The standardized row, and the derivatives of its numbers; each (B, N)."""

    z: Doubles
    dz: Doubles
    logs: Doubles
    dlogs: Doubles

    def cut(self, limit: float) -> tuple[Doubles, Doubles]:
        """Return z cut at a limit, and its derivative."""
        return np.clip(self.z, -limit, limit), np.where(np.abs(self.z) < limit, self.dz, 0.0)


class MixtureSlopes:
    """Differentiate the answers of one mixture.

    Args:
        experts: The numbers of the mixture.
    """

    def __init__(self, experts: MixtureArrays) -> None:
        layers = [rows.astype(np.float64) for rows in (experts.features, experts.base, experts.linear)]
        self._is_wide: Final = experts.is_wide
        self._n_logits: Final = experts.n_logits
        self._exponents: Final = experts.weights[: -experts.guard.size]
        self._guard: Final = experts.guard
        self._frequencies: Final = experts.frequencies
        self._heads: Final = [np.ascontiguousarray(head) for head in np.split(layers[0], experts.n_heads, axis=1)]
        self._linear: Final = [(rows, cut) for rows, cut in zip(layers[1:], (CUT_BASE, CUT_LINEAR), strict=True)]
        self._stage: Final = experts.stage.astype(np.float64)
        self._features: Final = _RandomFeatures(experts)

    def probabilities(self, X: Floats, offset: WithSlopes | None) -> WithSlopes:
        """Return the probabilities (B, C) of rows and their derivatives; not finite where the offset is not.

        Args:
            X: (B, N), finite.
            offset: The logits (B, K) of the trained model, or None.
        """
        inputs = _standardize(self._stage, X.astype(np.float64))
        found = self._features.logits(self._heads, inputs, is_wide=self._is_wide)
        for layer, limit in self._linear:
            if len(layer):
                rows, slopes = inputs.cut(limit)
                found.append(WithSlopes(_affine(rows, layer), layer[1:].T * slopes[:, None, :]))
        alone = range(1, len(self._heads))
        if offset is not None:
            found = [one if at in alone else _add(one, offset) for at, one in enumerate(found)]
        return self._mix([_softmax(one) for one in found])

    def logits(self, X: Floats, offset: WithSlopes | None) -> Doubles:
        """Return the derivatives (B, K, N) of the logits ln p, or of ln p_1 - ln p_0 for one logit.

        Before the first learned row the logits are those of the offset alone, or 0.
        """
        if not self._guard.any():
            return np.zeros((len(X), self._n_logits, X.shape[1])) if offset is None else offset.slopes
        P, slopes = self.probabilities(X, offset)
        slopes = slopes / np.maximum(P, TINY)[:, :, None]
        return slopes if self._n_logits > 1 else slopes[:, 1:] - slopes[:, :1]

    def _mix(self, found: list[WithSlopes]) -> WithSlopes:
        """Return the answer of the mixture from the probabilities of its experts."""
        C, v = found[0].values.shape[1], self._guard
        Z, slopes = np.zeros_like(found[0].values), np.zeros_like(found[0].slopes)
        for exponent, (Q, dQ) in zip(self._exponents, found, strict=True):
            floored = (1.0 - UNIFORM) * Q + UNIFORM / C
            Z += exponent * _log(floored)
            slopes += exponent * (1.0 - UNIFORM) * dQ / floored[:, :, None]
        mixed = _softmax(WithSlopes(Z, slopes))
        P, dP = v[0] * mixed.values + v[1] * self._frequencies, v[0] * mixed.slopes
        for weight, (Q, dQ) in zip(v[2:], found, strict=True):
            P, dP = P + weight * Q, dP + weight * dQ
        return WithSlopes(P, dP)


def _standardize(stage: Doubles, X: Doubles) -> _Inputs:
    mean, inverse, factor, log_mean, log_inverse = stage
    inverse, log_inverse = np.maximum(inverse, 0.0), np.maximum(log_inverse, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        z, ratio = np.where(inverse > 0, (X - mean) * inverse, 0.0), np.abs(X) * factor
    g = np.copysign(_log(1.0 + np.minimum(ratio, LOG_RATIO_MAX)), X)
    logs = (g - log_mean) * log_inverse
    inside = (np.abs(logs) < CUT_LOG) & (ratio < LOG_RATIO_MAX)
    return _Inputs(
        z,
        np.broadcast_to(inverse, X.shape),
        np.clip(logs, -CUT_LOG, CUT_LOG),
        np.where(inside, factor / (1.0 + ratio) * log_inverse, 0.0),
    )


class _RandomFeatures:
    """The random features of a mixture, and their derivatives."""

    def __init__(self, experts: MixtureArrays) -> None:
        drawn = experts.draw_features()
        N, self._n_dense = drawn.dense.shape
        self._dense: Final = drawn.dense
        self._chunk: Final = max(1, CHUNK_CELLS // N)
        self._bias: Final = np.concatenate([drawn.dense_bias, drawn.sparse_bias]).astype(np.float64)
        self._scale: Final = feature_scale(self._bias.size)
        half = len(drawn.sparse_index) // 2
        # The sparse features of z, then those of l, as matrices with two numbers in each column.
        self._sparse: Final = np.zeros((2, N, half))
        for m, (pair, numbers) in enumerate(zip(drawn.sparse_index, drawn.sparse_weights, strict=True)):
            np.add.at(self._sparse[m // half, :, m % half], pair, numbers)

    def logits(self, heads: Sequence[Doubles], inputs: _Inputs, *, is_wide: bool) -> list[WithSlopes]:
        """Return the logits of each expert on the features; a head (D, K) begins with the bias."""
        v, dv = inputs.cut(CUT_FEATURES)
        U = self._arguments(v, inputs.logs)
        rows, first = self._scale * _cos(U), 1
        if not is_wide:
            rows, first = np.hstack([v, rows]), 1 + v.shape[1]
        sines = -self._scale * _cos(U - HALF_PI)  # sin(u) = cos(u - pi / 2)
        found = []
        for head in heads:
            slopes = self._backward(head[first:].T * sines[:, None, :], dv, inputs.dlogs)
            if not is_wide:
                slopes += head[1:first].T * dv[:, None, :]
            found.append(WithSlopes(_affine(rows, head), slopes))
        return found

    def _arguments(self, v: Doubles, logs: Doubles) -> Doubles:
        """Return the arguments (B, M) of the cosines."""
        U = np.empty((len(v), self._bias.size))
        for at, dense in self._dense_chunks():
            U[:, at] = multiply_matrices(v, dense)
        for at, source, sparse in self._sparse_parts(v, logs):
            U[:, at] = multiply_matrices(source, sparse)
        return U + self._bias

    def _backward(self, G: Doubles, dv: Doubles, dlogs: Doubles) -> Doubles:
        """Return the derivatives (B, K, N) of a part of the logits from those by the arguments, G (B, K, M)."""
        slopes, dv, dlogs = np.zeros((*G.shape[:2], dv.shape[1])), dv[:, None, :], dlogs[:, None, :]
        for at, dense in self._dense_chunks():
            slopes += _times_transpose(G[:, :, at], dense)
        slopes *= dv
        for at, derivative, sparse in self._sparse_parts(dv, dlogs):
            slopes += _times_transpose(G[:, :, at], sparse) * derivative
        return slopes

    def _dense_chunks(self) -> Iterator[tuple[slice, Doubles]]:
        """Yield the dense features (N, m) in float64, some at a time, with their place."""
        for start in range(0, self._n_dense, self._chunk):
            at = slice(start, min(start + self._chunk, self._n_dense))
            yield at, np.ascontiguousarray(self._dense[:, at], np.float64)

    def _sparse_parts(self, of_z: Doubles, of_logs: Doubles) -> Iterator[tuple[slice, Doubles, Doubles]]:
        """Yield the place of the sparse features of z, what belongs to z, and the features (N, m); then those of l."""
        start, half = self._n_dense, self._sparse.shape[2]
        if half:
            yield slice(start, start + half), of_z, self._sparse[0]
            yield slice(start + half, start + 2 * half), of_logs, self._sparse[1]


def _times_transpose(G: Doubles, W: Doubles) -> Doubles:
    """Return G (B, K, m) times the transpose of W (N, m)."""
    B, K, m = G.shape
    flat = np.ascontiguousarray(G.reshape(B * K, m))
    product: Doubles = multiply_matrices(flat, np.ascontiguousarray(W.T)).astype(np.float64, copy=False)
    return product.reshape(B, K, len(W))


def _affine(rows: Doubles, layer: Doubles) -> Doubles:
    Z: Doubles = multiply_matrices(np.ascontiguousarray(rows), np.ascontiguousarray(layer[1:])) + layer[0]
    return Z


def _add(one: WithSlopes, other: WithSlopes) -> WithSlopes:
    return WithSlopes(one.values + other.values, one.slopes + other.slopes)


def _softmax(one: WithSlopes) -> WithSlopes:
    """Return probabilities (B, C) and their derivatives; one logit is that of a sigmoid."""
    Z, slopes = one
    if Z.shape[1] == 1:
        Z, slopes = np.hstack([np.zeros_like(Z), Z]), np.concatenate([np.zeros_like(slopes), slopes], axis=1)
    P = np.empty_like(Z)
    head_forward(np.ascontiguousarray(Z), SOFTMAX, P, np.empty(len(Z), np.int64))
    return WithSlopes(P, _through_softmax(P, slopes))


def _through_softmax(P: Doubles, slopes: Doubles) -> Doubles:
    """Return J(p) times slopes (B, C, N)."""
    B, C, N = slopes.shape
    rows = np.ascontiguousarray(np.repeat(P, N, axis=0))
    V = np.ascontiguousarray(slopes.transpose(0, 2, 1).reshape(B * N, C))
    products: Doubles = softmax_product(rows, V).astype(np.float64, copy=False)
    return products.reshape(B, N, C).transpose(0, 2, 1)


def _log(values: Doubles) -> Doubles:
    out = np.empty(values.size)
    log_forward(np.ascontiguousarray(values).reshape(-1), out)
    return out.reshape(values.shape)


def _cos(values: Doubles) -> Doubles:
    out = np.empty_like(values)
    cos_forward(np.ascontiguousarray(values), out)
    return out

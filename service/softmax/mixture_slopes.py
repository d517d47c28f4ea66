"""The derivatives of a mixture's answer with respect to the raw features of a row.

    z = (x - mean) / scale, cut at 1.25, 2 and 4       dz = dx / scale within the cut, else 0
    l = (g - mean) / scale, cut at 2.5                 dl = dg / scale within the cut; g = sign(x) ln(1 + 10 |x| / m)
    f_m = c cos(w_m . v + b_m)                         df_m = -c sin(w_m . v + b_m) w_m . dv; v has numbers of z or of l
    q_h = softmax(W_h . input_h + offset)              dq_h = J(q_h) (W_h . d input_h + d offset)
    u = softmax(sum a_h L_h)                           du = J(u) sum a_h dL_h; L_h = ln((1 - e) q_h + e / C)
    p = v_0 u + v_1 f + sum v_(h + 1) q_h              dp; and of the logits ln p: dp / p; f does not depend on the row

A sigmoid expert is the softmax of (0, z). Everything is computed in float64 from the numbers of the model's dtype, with
the sums of `multiply_matrices`, whose order does not depend on the processor.
"""

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
from service.softmax.kernels.mixture_inputs import CLIPS, feature_scale
from service.softmax.kernels.random_features import RandomFeatures
from service.softmax.mixture_model import MixtureArrays

CUT_BASE, CUT_FEATURES, CUT_LINEAR, CUT_LOG = CLIPS
TINY: Final = 1e-300
HALF_PI: Final = 1.5707963267948966


class LogitSlopes(NamedTuple):
    """Logits (B, C), and their derivatives (B, C, N) with respect to the raw features."""

    Z: Doubles
    slopes: Doubles


class Answers(NamedTuple):
    """The answers of a mixture and of its experts to B rows.

    Attributes:
        P: (B, C), the probabilities.
        slopes: (B, C, N), their derivatives with respect to the raw features.
        Q: (H, B, C), the probabilities of the experts.
    """

    P: Doubles
    slopes: Doubles
    Q: Doubles


class _Inputs(NamedTuple):
    """The standardized row, and the derivatives of its numbers; each (B, N)."""

    z: Doubles
    dz: Doubles
    logs: Doubles
    dlogs: Doubles

    def cut(self, limit: float) -> tuple[Doubles, Doubles]:
        """Return z cut at a limit, and its derivative."""
        return np.clip(self.z, -limit, limit), np.where(np.abs(self.z) < limit, self.dz, 0.0)


def differentiate(experts: MixtureArrays, drawn: RandomFeatures, X: Floats, offset: LogitSlopes | None) -> Answers:
    """Return the answer of a mixture to rows, with its derivatives.

    Args:
        experts: The numbers of the mixture.
        drawn: Its random features.
        X: (B, N), finite.
        offset: The logits of the trained model, (B, K) for a head with K logits, or None.
    """
    inputs, K = _standardize(experts.stage.astype(np.float64), X.astype(np.float64)), experts.n_logits
    layers = [rows.astype(np.float64) for rows in (experts.features, experts.base, experts.linear)]
    features = _RandomFeatures(drawn, inputs)
    found = []
    for head in range(experts.n_heads):
        layer = layers[0][:, head * K : (head + 1) * K]
        one = features.logits(layer, inputs, is_wide=experts.is_wide)
        found.append(one if head else _add(one, offset))
    for layer, limit in zip(layers[1:], (CUT_BASE, CUT_LINEAR), strict=True):
        if len(layer):
            rows, slopes = inputs.cut(limit)
            found.append(_add(LogitSlopes(_affine(rows, layer), layer[1:].T * slopes[:, None, :]), offset))
    return _mix(experts, [_softmax(one) for one in found])


def logit_slopes(answers: Answers, n_logits: int) -> Doubles:
    """Return the derivatives (B, K, N) of the logits ln p, or of ln p_1 - ln p_0 for one logit."""
    slopes = answers.slopes / np.maximum(answers.P, TINY)[:, :, None]
    return slopes if n_logits > 1 else slopes[:, 1:] - slopes[:, :1]


def _standardize(stage: Doubles, X: Doubles) -> _Inputs:
    mean, inverse, factor, log_mean, log_inverse = stage
    z, ratio = (X - mean) * inverse, 1.0 + np.abs(X) * factor
    g = np.copysign(_log(ratio), X)
    logs = (g - log_mean) * log_inverse
    inside = np.abs(logs) < CUT_LOG
    return _Inputs(
        z,
        np.broadcast_to(inverse, X.shape),
        np.clip(logs, -CUT_LOG, CUT_LOG),
        np.where(inside, factor / ratio * log_inverse, 0.0),
    )


class _RandomFeatures:
    """The random features of B rows, and what their derivatives are made of."""

    def __init__(self, drawn: RandomFeatures, inputs: _Inputs) -> None:
        self._dense = drawn.dense.astype(np.float64)
        self._sparse = drawn.sparse_weights.astype(np.float64)
        self._index = drawn.sparse_index
        v, self._dv = inputs.cut(CUT_FEATURES)
        self._dlogs = inputs.dlogs
        self._half = len(self._index) // 2
        arguments = [multiply_matrices(v, self._dense) + drawn.dense_bias]
        for source, part in ((v, slice(self._half)), (inputs.logs, slice(self._half, None))):
            picked = source[:, self._index[part]]
            arguments.append((picked * self._sparse[part]).sum(axis=2) + drawn.sparse_bias[part])
        U = np.hstack(arguments)
        scale = feature_scale(U.shape[1])
        self.values: Final = scale * _cos(U)
        self._slopes: Final = -scale * _cos(U - HALF_PI)  # sin(u) = cos(u - pi / 2)

    def logits(self, layer: Doubles, inputs: _Inputs, *, is_wide: bool) -> LogitSlopes:
        """Return the logits of an expert on the features; layer (D, K) begins with the bias."""
        rows, first = self.values, 1
        slopes = np.zeros((len(rows), layer.shape[1], inputs.z.shape[1]))
        if not is_wide:
            cut, dcut = inputs.cut(CUT_FEATURES)
            rows, first = np.hstack([cut, rows]), 1 + cut.shape[1]
            slopes += layer[1:first].T * dcut[:, None, :]
        return LogitSlopes(_affine(rows, layer), slopes + self._backward(layer[first:]))

    def _backward(self, weights: Doubles) -> Doubles:
        """Return the derivatives (B, K, N) of the part of the logits with the weights (M, K) of the features."""
        G = weights.T * self._slopes[:, None, :]  # (B, K, M)
        (B, K, _), (N, dense) = G.shape, self._dense.shape
        flat = np.ascontiguousarray(G[:, :, :dense].reshape(B * K, dense))
        slopes = multiply_matrices(flat, np.ascontiguousarray(self._dense.T)).reshape(B, K, N) * self._dv[:, None, :]
        for m, (pair, numbers) in enumerate(zip(self._index, self._sparse, strict=True)):
            source = self._dv if m < self._half else self._dlogs
            for j, w in zip(pair, numbers, strict=True):
                slopes[:, :, j] += G[:, :, dense + m] * (w * source[:, j])[:, None]
        return slopes


def _affine(rows: Doubles, layer: Doubles) -> Doubles:
    Z: Doubles = multiply_matrices(np.ascontiguousarray(rows), np.ascontiguousarray(layer[1:])) + layer[0]
    return Z


def _add(one: LogitSlopes, offset: LogitSlopes | None) -> LogitSlopes:
    return one if offset is None else LogitSlopes(one.Z + offset.Z, one.slopes + offset.slopes)


def _softmax(one: LogitSlopes) -> LogitSlopes:
    """Return probabilities (B, C) and their derivatives; one logit is that of a sigmoid."""
    Z, slopes = one
    if Z.shape[1] == 1:
        Z, slopes = np.hstack([np.zeros_like(Z), Z]), np.concatenate([np.zeros_like(slopes), slopes], axis=1)
    P = np.empty_like(Z)
    head_forward(np.ascontiguousarray(Z), SOFTMAX, P, np.empty(len(Z), np.int64))
    return LogitSlopes(P, _through_softmax(P, slopes))


def _through_softmax(P: Doubles, slopes: Doubles) -> Doubles:
    """Return J(p) times slopes (B, C, N)."""
    B, C, N = slopes.shape
    rows = np.ascontiguousarray(np.repeat(P, N, axis=0))
    V = np.ascontiguousarray(slopes.transpose(0, 2, 1).reshape(B * N, C))
    products: Doubles = softmax_product(rows, V).astype(np.float64, copy=False)
    return products.reshape(B, N, C).transpose(0, 2, 1)


def _mix(experts: MixtureArrays, found: list[LogitSlopes]) -> Answers:
    """Return the answer of the mixture from the probabilities of its experts."""
    H, C = len(found), found[0].Z.shape[1]
    a, v = experts.weights[:H], experts.weights[H:]
    Z, slopes = np.zeros_like(found[0].Z), np.zeros_like(found[0].slopes)
    for exponent, (Q, dQ) in zip(a, found, strict=True):
        floored = (1.0 - UNIFORM) * Q + UNIFORM / C
        Z += exponent * _log(floored)
        slopes += exponent * (1.0 - UNIFORM) * dQ / floored[:, :, None]
    mixed = _softmax(LogitSlopes(Z, slopes))
    P, dP = v[0] * mixed.Z + v[1] * experts.frequencies, v[0] * mixed.slopes
    for weight, (Q, dQ) in zip(v[2:], found, strict=True):
        P, dP = P + weight * Q, dP + weight * dQ
    return Answers(P, dP, np.stack([Q for Q, _ in found]))


def _log(values: Doubles) -> Doubles:
    out = np.empty(values.size)
    log_forward(np.ascontiguousarray(values).reshape(-1), out)
    return out.reshape(values.shape)


def _cos(values: Doubles) -> Doubles:
    out = np.empty_like(values)
    cos_forward(np.ascontiguousarray(values), out)
    return out

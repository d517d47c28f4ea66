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

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from service.softmax.arrays import Doubles, Floats
from service.softmax.classifier import NO_LABELS
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
# Numbers of one array of derivatives, or of random features in float64, that are in memory at one time.
BLOCK_CELLS: Final = 1 << 18


class WithSlopes(NamedTuple):
    """Numbers (B, C) of rows, and their derivatives (B, C, N) with respect to the raw features."""

    values: Doubles
    slopes: Doubles


class _Inputs(NamedTuple):
    """The standardized numbers of rows (B, N), and the derivatives (B, n) of those in some columns."""

    z: Doubles
    dz: Doubles
    logs: Doubles
    dlogs: Doubles
    columns: slice

    def cut(self, limit: float) -> tuple[Doubles, Doubles]:
        """Return z cut at a limit, and its derivatives."""
        inside = np.abs(self.z[:, self.columns]) < limit
        return np.clip(self.z, -limit, limit), np.where(inside, self.dz, 0.0)

    def take_columns(self, columns: slice) -> "_Inputs":
        """Return the same numbers with the derivatives of other columns, if these are those of all."""
        return self._replace(dz=self.dz[:, columns], dlogs=self.dlogs[:, columns], columns=columns)


class _Cosines(NamedTuple):
    """The random features (B, M), and their derivatives by the arguments of the cosines."""

    values: Doubles
    slopes: Doubles


class _Answers(NamedTuple):
    """The probabilities (B, C) of the mixture, of the learned mixture, and of the experts, also with their floor."""

    P: Doubles
    mixed: Doubles
    experts: list[Doubles]
    floored: list[Doubles]


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
        linear = zip(layers[1:], (CUT_BASE, CUT_LINEAR), strict=True)
        self._linear: Final = [(rows, cut) for rows, cut in linear if len(rows)]
        self._stage: Final = experts.stage.astype(np.float64)
        self._features: Final = _RandomFeatures(experts)

    def differentiate(self, X: Floats, offset: WithSlopes | None, out: Floats) -> None:
        """Write the derivatives (B, K, N) of the logits ln p, or of ln p_1 - ln p_0 for one logit.

        Before the first learned row the logits are those of the offset alone, or 0.

        Args:
            X: (B, N), finite.
            offset: The logits (B, K) of the trained model and their derivatives, or None.
            out: (B, K, N), written; not finite where the offset is not.
        """
        if not self._guard.any():
            out[...] = 0.0 if offset is None else offset.slopes
            return
        inputs = _standardize(self._stage, X.astype(np.float64))
        cosines = self._features.cosines(inputs)
        answers = self._answer(self._add(self._logits(inputs, cosines), None if offset is None else offset.values))
        size = max(1, BLOCK_CELLS // answers.P.size)
        for start in range(0, X.shape[1], size):
            columns = slice(start, start + size)
            found = self._logit_slopes(inputs.take_columns(columns), cosines)
            found = self._add(found, None if offset is None else offset.slopes[:, :, columns])
            slopes = self._answer_slopes(answers, found) / np.maximum(answers.P, TINY)[:, :, None]
            out[:, :, columns] = slopes if self._n_logits > 1 else slopes[:, 1:] - slopes[:, :1]

    def _logits(self, inputs: _Inputs, cosines: _Cosines) -> list[Doubles]:
        """Return the logits (B, K) of each expert without the offset."""
        rows = cosines.values
        if not self._is_wide:
            rows = np.hstack([inputs.cut(CUT_FEATURES)[0], rows])
        linear = [_affine(inputs.cut(limit)[0], layer) for layer, limit in self._linear]
        return [*(_affine(rows, head) for head in self._heads), *linear]

    def _logit_slopes(self, inputs: _Inputs, cosines: _Cosines) -> list[Doubles]:
        """Return the derivatives (B, K, n) of these logits by the columns of `inputs`."""
        found, first = [], 1 if self._is_wide else 1 + inputs.z.shape[1]
        dv = inputs.cut(CUT_FEATURES)[1]
        for head in self._heads:
            slopes = self._features.backward(head[first:].T * cosines.slopes[:, None, :], dv, inputs)
            if not self._is_wide:
                slopes += head[1:first][inputs.columns].T * dv[:, None, :]
            found.append(slopes)
        for layer, limit in self._linear:
            found.append(layer[1:][inputs.columns].T * inputs.cut(limit)[1][:, None, :])
        return found

    def _add(self, found: list[Doubles], offset: Floats | None) -> list[Doubles]:
        """Return the numbers of each expert plus those of the offset, which the second head does not have."""
        alone = range(1, len(self._heads))
        return found if offset is None else [one if at in alone else one + offset for at, one in enumerate(found)]

    def _answer(self, logits: list[Doubles]) -> _Answers:
        """Return the answer of the mixture from the logits of its experts."""
        v, experts = self._guard, [_softmax(Z) for Z in logits]
        floored = [(1.0 - UNIFORM) * Q + UNIFORM / Q.shape[1] for Q in experts]
        Z = np.zeros_like(experts[0])
        for exponent, L in zip(self._exponents, floored, strict=True):
            Z += exponent * _log(L)
        mixed = _softmax(Z)
        P = v[0] * mixed + v[1] * self._frequencies
        for weight, Q in zip(v[2:], experts, strict=True):
            P += weight * Q
        return _Answers(P, mixed, experts, floored)

    def _answer_slopes(self, answers: _Answers, logit_slopes: list[Doubles]) -> Doubles:
        """Return the derivatives (B, C, n) of the answer from those of the logits of its experts."""
        found = [_through_softmax(Q, slopes) for Q, slopes in zip(answers.experts, logit_slopes, strict=True)]
        dZ = np.zeros_like(found[0])
        for exponent, L, dQ in zip(self._exponents, answers.floored, found, strict=True):
            dZ += exponent * (1.0 - UNIFORM) * dQ / L[:, :, None]
        dP: Doubles = self._guard[0] * _through_softmax(answers.mixed, dZ)
        for weight, dQ in zip(self._guard[2:], found, strict=True):
            dP += weight * dQ
        return dP


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
        slice(None),
    )


class _RandomFeatures:
    """The random features of a mixture, and their derivatives."""

    def __init__(self, experts: MixtureArrays) -> None:
        drawn = experts.draw_features()
        N, self._n_dense = drawn.dense.shape
        self._dense: Final = drawn.dense
        self._chunk: Final = max(1, BLOCK_CELLS // N)
        self._bias: Final = np.concatenate([drawn.dense_bias, drawn.sparse_bias]).astype(np.float64)
        self._scale: Final = feature_scale(self._bias.size)
        half = len(drawn.sparse_index) // 2
        # The sparse features of z, then those of l, as matrices with two numbers in each column.
        self._sparse: Final = np.zeros((2, N, half))
        for m, (pair, numbers) in enumerate(zip(drawn.sparse_index, drawn.sparse_weights, strict=True)):
            np.add.at(self._sparse[m // half, :, m % half], pair, numbers)

    def cosines(self, inputs: _Inputs) -> _Cosines:
        """Return the random features of rows."""
        v, _ = inputs.cut(CUT_FEATURES)
        U = np.empty((len(v), self._bias.size))
        for start in range(0, self._n_dense, self._chunk):
            at = slice(start, min(start + self._chunk, self._n_dense))
            U[:, at] = multiply_matrices(v, np.ascontiguousarray(self._dense[:, at], np.float64))
        for at, source, sparse in self._sparse_parts(v, inputs.logs):
            U[:, at] = multiply_matrices(source, sparse)
        U += self._bias
        return _Cosines(self._scale * _cos(U), -self._scale * _cos(U - HALF_PI))  # sin(u) = cos(u - pi / 2)

    def backward(self, G: Doubles, dv: Doubles, inputs: _Inputs) -> Doubles:
        """Return the derivatives (B, K, n) of a part of the logits from those by the arguments, G (B, K, M)."""
        columns = inputs.columns
        slopes = _times_transpose(G[:, :, : self._n_dense], self._dense[columns]) * dv[:, None, :]
        for at, derivatives, sparse in self._sparse_parts(dv, inputs.dlogs):
            slopes += _times_transpose(G[:, :, at], sparse[columns]) * derivatives[:, None, :]
        return slopes

    def _sparse_parts(self, of_z: Doubles, of_logs: Doubles) -> Iterator[tuple[slice, Doubles, Doubles]]:
        """Yield the place of the sparse features of z, what belongs to z, and the features (N, m); then those of l."""
        start, half = self._n_dense, self._sparse.shape[2]
        if half:
            yield slice(start, start + half), of_z, self._sparse[0]
            yield slice(start + half, start + 2 * half), of_logs, self._sparse[1]


def _times_transpose(G: Doubles, W: Floats) -> Doubles:
    """Return G (B, K, m) times the transpose of W (n, m)."""
    B, K, m = G.shape
    flat = np.ascontiguousarray(G.reshape(B * K, m))
    product: Doubles = multiply_matrices(flat, np.ascontiguousarray(W.T, np.float64)).astype(np.float64, copy=False)
    return product.reshape(B, K, len(W))


def _affine(rows: Doubles, layer: Doubles) -> Doubles:
    Z: Doubles = multiply_matrices(np.ascontiguousarray(rows), np.ascontiguousarray(layer[1:])) + layer[0]
    return Z


def _softmax(Z: Doubles) -> Doubles:
    """Return the probabilities (B, C) of logits (B, K); one logit is that of a sigmoid."""
    Z = Z if Z.shape[1] > 1 else np.hstack([np.zeros_like(Z), Z])
    P = np.empty_like(Z)
    head_forward(Z, SOFTMAX, P, NO_LABELS)
    return P


def _through_softmax(P: Doubles, slopes: Doubles) -> Doubles:
    """Return J(p) times slopes (B, C, n); those of one logit (B, 1, n) are of a sigmoid."""
    if slopes.shape[1] < P.shape[1]:
        slopes = np.concatenate([np.zeros_like(slopes), slopes], axis=1)
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

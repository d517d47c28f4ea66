"""Mixtures of experts as plain arrays, and a reference implementation of the rule in NumPy's float64."""

from typing import Any

import numpy as np

from service.softmax.kernels import mixture_fold as fold
from service.softmax.kernels.heads import SIGMOID, SOFTMAX
from service.softmax.kernels.matmul import pack, unpack
from service.softmax.kernels.mixture import UNIFORM, mixture_start
from service.softmax.kernels.mixture_block import mixture_block_forward
from service.softmax.kernels.mixture_inputs import CLIPS
from service.softmax.kernels.mixture_predict import mixture_predict_forward
from service.softmax.kernels.newton import curvature_start, stored_size
from service.softmax.kernels.random_features import draw_features, pack_features
from service.softmax.kernels.shared_curvature import DELAY, DELAYED, REFILL, SCALE, shared_size, shared_start
from service.softmax.linear_model import LinearModel
from service.softmax.mixture_model import MixtureArrays, MixtureModel
from tests.support.reference import Array, log_softmax

NARROW_MAX = 128
FEATURES = 64


def constants(N: int, *, wide: bool, firm: float) -> Array:
    """Return the constants of the rule, in the order of the kernel."""
    return np.array(
        [4, 10, firm, 1e-3, 0.5, 1e-6, 100, 8, 0.4, 0.8, 10, 0.999, 0.001, min(0.3, 16 / N) if wide else 4, 1]
    )


class MixtureState:
    """The arrays of a mixture that has learned nothing, and calls of its kernels.

    Args:
        N: The features.
        K: The logits, 1 for sigmoid.
        wide: Whether rows are wide.
        heads: The heads of expert A: 2 with an offset, else 1.
        form: What moves, see mixture_fold.py.
        stage: The mean and scale of the features, for the form TRAINED.
        firm: The inverse of the first diagonal of the matrices of linear weights.
        dtype: The model's.
    """

    def __init__(
        self, N: int, K: int, *, wide: bool = False, heads: int = 1, form: int = fold.RUNNING, firm: float = 10.0,
        stage: tuple[Array, Array] | None = None, dtype: Any = np.float32,
    ) -> None:  # fmt: skip
        self.N, self.K, self.wide, self.heads, self.form, self.dtype = N, K, wide, heads, form, np.dtype(dtype)
        self.head, H = SIGMOID if K == 1 else SOFTMAX, heads + (1 if wide else 2)
        D, D_A, self.lanes = N + 1, FEATURES + 1 + (0 if wide else N), 64 // self.dtype.itemsize
        self.constants = constants(N, wide=wide, firm=firm)
        self.drawn = draw_features(11, N, FEATURES, narrow=not wide, dtype=dtype)
        self.features = tuple(pack_features(self.drawn))
        sizes = ((D_A, heads * K), (D, K), (1 if wide else D, K))
        self.panels = tuple(self._zeros(*size, self.dtype) for size in sizes)
        self.masters = tuple(self._zeros(*size, np.dtype(np.float64)) for size in sizes)
        first = np.full(D_A, 0.1)
        first[: 0 if wide else D] = 1 / firm
        self.shared = self._shared(first), self._shared(np.full(1 if wide else D, 1 / firm))
        self.whole = np.ones(2)
        self.P = np.zeros((1, 1) if wide else (K, stored_size(D)))
        if not wide:
            curvature_start(self.P, D, 1 / firm)
        self.squares = self._zeros(D, K, self.dtype) if wide else np.zeros((1, 1, self.lanes), self.dtype)
        S = -(-N // 16) * 16
        self.statistics, self.stage = np.zeros((5, S)), np.zeros((5, S), self.dtype)
        if stage is not None:
            self.stage[0, :N], self.stage[1, :N] = stage[0], 1 / stage[1]
        self.mix, self.mix_curvature = mixture_start(H), np.zeros((H, H))
        self.frequencies = np.array([np.ones(max(K, 2)), np.full(max(K, 2), 1 / max(K, 2))])
        self.progress, self.recent, self.window = np.zeros(8), np.zeros((2, 100)), np.zeros((2, 100))

    def fold(
        self, X: Array, labels: Array | None = None, *, Y: Array | None = None, weights: Array | None = None,
        offsets: Array | None = None, learning: bool = True,
    ) -> tuple[Array, Array]:  # fmt: skip
        """Fold rows; return their losses and scores."""
        losses, scores = np.zeros(len(X)), np.zeros((len(X), self.K), self.dtype)
        fold.mixture_fold_forward(
            X, np.empty(0, np.int64) if labels is None else labels, np.empty((0, self.K)) if Y is None else Y,
            np.empty(0) if weights is None else weights, self._offsets(offsets), self.head, self.form, learning,
            self.constants, self.features, self.stage, self.statistics, self.panels, self.masters, self.shared,
            self.whole, self.P, self.squares, self.mix, self.mix_curvature, self.frequencies, self.progress,
            self.recent, self.window, losses, scores,
        )  # fmt: skip
        return losses, scores

    def logits(self, X: Array, offsets: Array | None = None) -> Array:
        """Return the logits (B, K)."""
        Z, no_P = np.empty((len(X), self.K), self.dtype), np.empty((0, max(self.K, 2)), self.dtype)
        mixture_predict_forward(X, *self.served(offsets), Z, no_P, np.empty(0, np.int64))
        return Z

    def predict(self, X: Array, offsets: Array | None = None) -> tuple[Array, Array, int]:
        """Return the probabilities, the labels, and what the kernel returns."""
        P, labels = np.empty((len(X), max(self.K, 2)), self.dtype), np.empty(len(X), np.int64)
        first = mixture_predict_forward(X, *self.served(offsets), np.empty((0, self.K), self.dtype), P, labels)
        return P, labels, first

    def predict_block(self, X: Array, offsets: Array | None = None) -> Array:
        """Return the probabilities by the kernel of blocks."""
        P = np.empty((len(X), max(self.K, 2)), self.dtype)
        mixture_block_forward(X, *self.served(offsets), np.empty((0, self.K), self.dtype), P, np.empty(0, np.int64))
        return P

    def served(self, offsets: Array | None) -> tuple[Any, ...]:
        """Return the arguments of both kernels between the rows and the results."""
        numbers = (*self.features, *self.panels, self.stage, self.mix, self.frequencies[1], self.head)
        return (self._offsets(offsets), *numbers)

    def arrays(self) -> list[Array]:
        """Return all arrays that learning changes, but not the counts."""
        shared = [array for expert in self.shared for array in expert]
        own = [
            self.whole,
            self.P,
            self.squares,
            self.statistics,
            self.stage,
            self.mix,
            self.mix_curvature,
            self.frequencies,
        ]
        return [*self.panels, *self.masters, *shared, *own]

    def model(self, offset: LinearModel | None = None) -> MixtureModel:
        """Return the model with these numbers."""
        features, base, linear = self.learned()[:3]
        linear = linear[:0] if self.wide else linear
        draw, stage = np.array([FEATURES, 11.0]), self.stage[:, : self.N].copy()
        arrays = MixtureArrays(features, base, linear, stage, self.mix, self.frequencies[1], draw)
        return MixtureModel("sigmoid" if self.K == 1 else "softmax", arrays, offset)

    def learned(self) -> list[Array]:
        """Return these arrays with the weights as (D, K), because the width of a panel depends on the processor."""
        columns = (self.heads * self.K, self.K, self.K)
        weights = [unpack(panels, K) for panels, K in zip((*self.panels, *self.masters), columns * 2, strict=True)]
        squares = unpack(self.squares, self.K) if self.wide else self.squares[0]
        return [*weights, squares, *(array for array in self.arrays()[6:] if array is not self.squares)]

    def tobytes(self) -> bytes:
        """Return the bytes of these arrays."""
        return b"".join(array.tobytes() for array in self.arrays())

    def curvature(self, at: int) -> Array:
        """Return the whole matrix P of A (0) or of L (1) in float64, from what is stored and what is pending."""
        P, pending, delayed, _ = self.shared[at]
        D = self.panels[2 * at].shape[1]
        stored = np.zeros((D, -(-D // 16) * 16))
        for i in range(D):
            width = shared_size(i + 1) - shared_size(i)
            stored[i, :width] = P[0, shared_size(i) : shared_size(i + 1)]
        lower = np.tril(stored[:, :D])
        whole = delayed[SCALE] * (lower + np.tril(lower, -1).T)
        for g, s in zip(delayed[:DELAY], pending[:, :D].astype(np.float64), strict=True):
            whole -= g * np.outer(s, s)
        return whole + delayed[REFILL] * np.diag(self.first_diagonal(at, D))

    def first_diagonal(self, at: int, D: int) -> Array:
        """Return the diagonal (D,) of the first matrix of A (0) or of L (1)."""
        first = np.full(D, 1 / self.constants[fold.FIRM if at else fold.LAMBDA])
        first[: 0 if self.wide else self.N + 1] = 1 / self.constants[fold.FIRM]
        return first

    def _offsets(self, offsets: Array | None) -> Array:
        return np.empty((0, self.K), self.dtype) if offsets is None else offsets

    def _zeros(self, D: int, K: int, dtype: np.dtype[Any]) -> Array:
        return pack(np.zeros((D - 1, K), dtype), np.zeros(K, dtype), self.lanes)

    def _shared(self, diagonal: Array) -> tuple[Array, Array, Array, Array]:
        delayed = np.zeros(DELAYED)
        delayed[SCALE] = 1
        pending = np.zeros((DELAY, -(-len(diagonal) // 16) * 16), np.float32)
        return shared_start(diagonal.astype(np.float32)), pending, delayed, np.ones(self.K)


class ReferenceMixture:
    """The rule in float64, one row after another, for the arguments of a `MixtureState`."""

    def __init__(self, state: MixtureState, stage: tuple[Array, Array] | None = None) -> None:
        N, K, c = state.N, state.K, state.constants
        self.state, self.c, self.stage, self.K, self.C = state, c, stage, K, max(K, 2)
        self.drawn = state.drawn
        D_A, H = state.panels[0].shape[1], len(state.mix_curvature)
        self.P = {at: np.diag(state.first_diagonal(at, d)) for at, d in ((0, D_A), (1, N + 1))}
        self.P_0 = {at: P.copy() for at, P in self.P.items()}
        self.W = {"A": np.zeros((state.heads, D_A, K)), "B": np.zeros((N + 1, K)), "L": np.zeros((N + 1, K))}
        self.P_B, self.squares = np.array([np.eye(N + 1) / c[fold.FIRM]] * K), np.zeros((N + 1, K))
        self.own, self.whole = np.ones((2, K)), np.ones(2)
        self.a, self.v, self.curvature = np.full(H, 1 / H), np.full(H + 2, 1 / (H + 2)), np.zeros((H, H))
        self.counts = np.ones(self.C)
        self.rows: list[tuple[Array, Array]] = []  # x and its log-scaled values
        self.expert_losses: list[Array] = []

    def step(self, x: Array, y: Array, h: float = 1.0, offset: Array | None = None) -> Array:
        """Return the logits of a row, and learn from its targets y (K,) with the importance h."""
        g, inputs = self._inputs(x.astype(np.float64))
        offset = np.zeros(self.K) if offset is None else offset.astype(np.float64)
        heads = self.state.heads
        Z = [inputs[0] @ W + offset * (n == 0) for n, W in enumerate(self.W["A"])] + [inputs[1] @ self.W["B"] + offset]
        if not self.state.wide:
            Z.append(inputs[2] @ self.W["L"] + offset)
        P = np.array([self._probabilities(z) for z in Z])
        L = np.log((1 - UNIFORM) * P + UNIFORM / self.C)
        m = np.exp(log_softmax((self.a @ L)[None])[0])
        answer = np.log(self.v[0] * m + self.v[1] * self.counts / self.counts.sum() + self.v[2:] @ P)
        z = answer if self.K > 1 else answer[1:] - answer[:1]
        if not self.rows:
            z = offset
        p = P if self.K > 1 else P[:, 1:]
        mass = y.sum() if self.K > 1 else 1.0
        E = p * mass - y
        self._shared_step(0, inputs[0], Z[:heads], p[:heads], e=E[0], y=y, mass=mass, h=h)
        self._block_step(inputs[1], p[heads], E[heads], h)
        if not self.state.wide:
            self._shared_step(1, inputs[2], Z[-1:], p[-1:], e=E[-1], y=y, mass=mass, h=h)
        truth = y if self.K > 1 else np.array([1 - y[0], y[0]])
        self._mixture_step(P, L, m, truth, mass=mass, h=h)
        self.expert_losses.append(-np.log(P) @ truth)
        self.rows.append((x.astype(np.float64), g))
        return z

    def _probabilities(self, z: Array) -> Array:
        return np.exp(log_softmax((z if self.K > 1 else np.array([0.0, z[0]]))[None])[0])

    def _standardize(self, x: Array, rows: Array) -> Array:
        """Standardize by earlier rows; 0 where their scale is unknown."""
        if not len(rows):
            return np.zeros_like(x)
        mean, variance = rows.mean(0), rows.var(0)
        known = variance > mean**2 * 2.0**-40
        return np.where(known, (x - mean) / np.sqrt(np.where(known, variance, 1)), 0)

    def _inputs(self, x: Array) -> tuple[Array, list[Array]]:
        """Return the log-scaled values of a row, and the inputs of A, B and L, each with its 1."""
        rows = np.array([row for row, _ in self.rows])
        logs = np.array([row for _, row in self.rows])
        z = self._standardize(x, rows) if self.stage is None else (x - self.stage[0]) / self.stage[1]
        mean = np.abs(rows).mean(0) if len(rows) else np.zeros_like(x)
        if self.state.form == fold.FIXED:
            mean, logs = np.zeros_like(x), logs[:0]
        g = np.where(mean > 0, np.sign(x) * np.log1p(10 * np.abs(x) / np.where(mean > 0, mean, 1)), 0)
        cut_logs = np.clip(self._standardize(g, logs), -CLIPS[3], CLIPS[3])
        v, d = np.clip(z, -CLIPS[1], CLIPS[1]), self.drawn
        half = len(d.sparse_bias) // 2
        sources = np.vstack([np.tile(v, (half, 1)), np.tile(cut_logs, (len(d.sparse_bias) - half, 1))])
        pairs = np.take_along_axis(sources, d.sparse_index, 1)
        phases = np.concatenate([v @ d.dense + d.dense_bias, (pairs * d.sparse_weights).sum(1) + d.sparse_bias])
        phi = 0.3 * np.sqrt(512 / len(phases)) * np.cos(phases)
        A = np.concatenate([[1.0], v if not self.state.wide else [], phi])
        return g, [A, *(np.concatenate([[1.0], np.clip(z, -clip, clip)]) for clip in (CLIPS[0], CLIPS[2]))]

    def _forget(self, e: float) -> float:
        return min(0.5, self.c[fold.FORGET] * (1 + self.c[fold.SURPRISE] * e**4))

    def _shared_step(
        self, at: int, x: Array, Z: list[Array], p: Array, *, e: Array, y: Array, mass: float, h: float
    ) -> None:
        c, own = self.c, self.own[at]
        floor, pull = c[fold.FLOOR], c[fold.PULL]
        own += h * np.maximum(np.maximum(p[0] * (1 - p[0]), floor), pull * np.abs(e))
        first = (1 - (p[0] ** 2).sum()) / 2 if self.K > 1 else p[0, 0] * (1 - p[0, 0])
        w = h * max(first, floor, pull * np.abs(e).max())
        self.whole[at] += w
        u = self.P[at] @ x
        q, part = x @ u, self._forget(np.abs(e).max())
        den = 1 / w + q
        self.P[at] = (1 - part) * (self.P[at] - np.outer(u, u) / den) + part * self.P_0[at]
        r = c[fold.RATE] * h * (self.whole[at] / own) ** c[fold.SHARE_L if at else fold.SHARE_A] / (w * den)
        for n, z in enumerate(Z):
            z_next, p_next = z.copy(), p[n].copy()
            for _ in range(4):
                off = z_next - z + r * q * (p_next * mass - y)
                z_next = z_next - off / (1 + r * q * mass * p_next * (1 - p_next))
                p_next = self._probabilities(z_next)[-self.K :]
            step = r * (p_next * mass - y)
            step *= min(1.0, c[fold.STEP_CLIP] / max(np.abs(step * q).max(), 1e-300))
            W = self.W["L"] if at else self.W["A"][n]
            W -= np.outer(u, step)

    def _block_step(self, x: Array, p: Array, e: Array, h: float) -> None:
        c = self.c
        if self.state.wide:
            g = np.outer(x, h * e)
            self.squares += g**2
            step = c[fold.B_RATE] * g / (c[fold.B_BETA] + np.sqrt(self.squares))
            self.squares *= 1 - c[fold.FORGET]
            effect = np.abs(x @ step).max()
        else:
            step, effect = np.zeros_like(self.W["B"]), 0.0
            for k in range(self.K):
                w = h * max(p[k] * (1 - p[k]), c[fold.FLOOR], c[fold.PULL] * abs(e[k]))
                u, part = self.P_B[k] @ x, self._forget(e[k])
                den = 1 / w + x @ u
                step[:, k] = c[fold.B_RATE] * h * e[k] / (w * den) * u
                effect = max(effect, abs(step[:, k] @ x))
                self.P_B[k] = (1 - part) * (self.P_B[k] - np.outer(u, u) / den)
                self.P_B[k] += part / c[fold.FIRM] * np.eye(len(x))
        self.W["B"] -= min(1.0, c[fold.STEP_CLIP] / max(effect, 1e-300)) * step

    def _mixture_step(self, P: Array, L: Array, m: Array, truth: Array, *, mass: float, h: float) -> None:
        c, mean = self.c, L @ m
        off = L - mean[:, None]
        self.curvature = c[fold.MIX_KEEP] * self.curvature + h * mass * (off * m) @ off.T
        gradient = h * (mass * mean - L @ truth)
        step = np.linalg.solve(self.curvature + c[fold.MIX_LAMBDA] * np.eye(len(L)), gradient)
        self.a -= min(1.0, c[fold.STEP_CLIP] / max(np.abs(step @ L).max(), 1e-300)) * step
        powers = h * np.log(np.maximum(np.vstack([m, self.counts / self.counts.sum(), P]), 1e-12)) @ truth
        v = self.v * np.exp(powers - powers.max())
        self.v = (1 - c[fold.MIX_SHARE]) * v / v.sum() + c[fold.MIX_SHARE] / len(v)
        self.counts += h * truth

"""Mixtures of experts with random numbers, and their answer by the textbook formulas, for autograd."""

from typing import Any, Final, NamedTuple

import autograd.numpy as anp
import numpy as np

from service.softmax.classifier import Head
from service.softmax.input_stage import Stage
from service.softmax.kernels.mixture import UNIFORM
from service.softmax.kernels.mixture_inputs import CLIPS
from service.softmax.linear_model import LinearModel
from service.softmax.mixture_model import MixtureArrays, MixtureModel
from tests.support.reference import Array

FEATURES: Final = 64


class MixtureForm(NamedTuple):
    """What kind of mixture: its head, whether it has an offset, whether rows are wide, and its features."""

    head: Head
    has_offset: bool
    is_wide: bool
    n_features: int

    @property
    def names(self) -> list[str]:
        """The names of the members of its average."""
        alone = ["features alone"] if self.has_offset else []
        return ["mixture", "frequencies", "features", *alone, "base", *([] if self.is_wide else ["linear"])]


def random_mixture(form: MixtureForm, dtype: Any = np.float64, *, K: int = 3, seed: int = 0) -> MixtureModel:
    """Return a mixture whose numbers are random; the scale of its last feature is unknown if it has several."""
    rng, (head, has_offset, is_wide, N) = np.random.default_rng(seed), form
    K = 1 if head == "sigmoid" else K
    heads, members = 1 + has_offset, len(form.names)
    inputs = 1 + FEATURES + (0 if is_wide else N)
    stage = np.zeros((5, N))
    stage[[0, 3]], stage[[1, 2, 4]] = 0.3 * rng.standard_normal((2, N)), np.exp(0.5 * rng.standard_normal((3, N)))
    if N > 1:
        stage[:, -1] = 0
    if is_wide:
        stage[2:] = 0
    arrays = MixtureArrays(
        features=0.5 * rng.standard_normal((inputs, heads * K)).astype(dtype),
        base=rng.standard_normal((N + 1, K)).astype(dtype),
        linear=rng.standard_normal((0 if is_wide else N + 1, K)).astype(dtype),
        stage=stage.astype(dtype),
        weights=np.concatenate([rng.normal(0.4, 0.3, members - 2), rng.dirichlet(np.ones(members))]),
        frequencies=rng.dirichlet(np.ones(max(K, 2))),
        draw=np.array([FEATURES, 11.0]),
    )
    offset = None
    if has_offset:
        W, b = rng.standard_normal((N, K)).astype(dtype), rng.standard_normal(K).astype(dtype)
        offset = LinearModel(head, W, b, Stage(rng.standard_normal(N), np.exp(rng.standard_normal(N)), 1.5))
    return MixtureModel(head, arrays, offset)


def member_answers(model: MixtureModel, x: Array) -> Array:
    """Return the probabilities (E, C) of the members of the average for a raw row."""
    arrays, K = model.experts, model.n_logits
    mean, inverse, factor, log_mean, log_inverse = arrays.stage.astype(np.float64)
    z = (x - mean) * inverse
    g = anp.sign(x) * anp.log(1 + factor * anp.abs(x))
    v, logs = anp.clip(z, -CLIPS[1], CLIPS[1]), anp.clip((g - log_mean) * log_inverse, -CLIPS[3], CLIPS[3])
    drawn = arrays.draw_features()
    half = len(drawn.sparse_index) // 2
    sparse = [
        anp.sum(source[drawn.sparse_index[part]] * drawn.sparse_weights[part], axis=1) + drawn.sparse_bias[part]
        for source, part in ((v, slice(half)), (logs, slice(half, None)))
    ]
    phases = anp.concatenate([anp.dot(v, drawn.dense) + drawn.dense_bias, *sparse])
    phi = 0.3 * np.sqrt(512 / FEATURES) * anp.cos(phases)
    A = phi if arrays.is_wide else anp.concatenate([v, phi])
    heads = np.split(arrays.features.astype(np.float64), arrays.n_heads, axis=1)
    Z = [anp.dot(A, head[1:]) + head[0] for head in heads]
    for layer, clip in ((arrays.base, CLIPS[0]), (arrays.linear, CLIPS[2])):
        if len(layer):
            Z.append(anp.dot(anp.clip(z, -clip, clip), layer[1:]) + layer[0])
    if model.offset is not None:
        offset = _linear_logits(model.offset, x)
        Z = [logits if at == 1 else logits + offset for at, logits in enumerate(Z)]
    Q = [_softmax(logits if K > 1 else anp.concatenate([anp.zeros(1), logits])) for logits in Z]
    mixed = sum(a * anp.log((1 - UNIFORM) * q + UNIFORM / len(q)) for a, q in zip(arrays.weights, Q, strict=False))
    return anp.array([_softmax(mixed), arrays.frequencies, *Q])


def mixture_answer(model: MixtureModel, x: Array) -> Array:
    """Return the probabilities (C,) for a raw row."""
    answers = member_answers(model, x)
    return anp.dot(model.experts.weights[-len(answers) :], answers)


def _linear_logits(model: Any, x: Array) -> Array:
    stage = model.stage
    return anp.dot(anp.clip((x - stage.mean) / stage.scale, -stage.clip, stage.clip), model.weights) + model.bias


def _softmax(z: Array) -> Array:
    e = anp.exp(z - anp.max(z))
    return e / anp.sum(e)

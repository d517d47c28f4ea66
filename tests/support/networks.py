"""Small networks, rows and references in NumPy and for autograd."""

from itertools import pairwise
from typing import Any

import autograd.numpy as anp
import numpy as np

from service.softmax.input_stage import Stage
from service.softmax.kernels.network import Activation, LayerArrays
from service.softmax.network_learner import NetworkLearner
from service.softmax.parameters import NetworkParameters
from service.softmax.rule import Rule, RuleName
from tests.support.reference import Array, log_probabilities, logit_gradient, losses, probabilities, stage, targets

ACTIVATIONS: tuple[Activation, ...] = ("relu", "sigmoid", "tanh")
# Widths that fill no vector, one, and more than one panel.
WIDTHS = (1, 3, 8, 16, 17, 33, 50)
RULES: dict[RuleName, Rule] = {
    "sgd": Rule("sgd", rate=0.05),
    "adagrad": Rule("adagrad", rate=0.1, offset=1e-8, forget=1e-3, start=0.5, step_clip=8.0),
    "ftrl": Rule("ftrl", rate=0.1, offset=1.0, forget=1e-3, start=0.5, step_clip=8.0),
}


class Net:
    """A network of random weights, and rows with targets.

    Args:
        head: The head.
        hidden: The widths of its hidden layers; the activations repeat in the order of ACTIVATIONS.
    """

    def __init__(
        self, head: str, hidden: tuple[int, ...], *, N: int = 5, K: int = 3, B: int = 30, dtype: Any = np.float64,
        staged: bool = False, seed: int = 0, kind: str = "hard", shift: int = 0,
    ) -> None:  # fmt: skip
        rng, K = np.random.default_rng(seed), 1 if head == "sigmoid" else K
        self.head, self.N, self.K, self.dtype = head, N, K, np.dtype(dtype)
        sizes = (N, *hidden, K)
        self.affine = [
            ((rng.standard_normal((a, b)) / np.sqrt(a)).astype(dtype), (rng.standard_normal(b) * 0.3).astype(dtype))
            for a, b in pairwise(sizes)
        ]
        self.activations = tuple(ACTIVATIONS[(n + shift) % 3] for n in range(len(hidden)))
        self.stage = Stage(rng.standard_normal(N), np.exp(rng.standard_normal(N)), 2.0) if staged else None
        self.X = rng.standard_normal((B, N)).astype(dtype)
        self.Y = np.minimum(targets(head, kind, B, K, rng), 1)
        self.h = rng.uniform(0.2, 3, B)

    def parameters(self) -> NetworkParameters:
        """Return the parameters of the network."""
        hidden = tuple(LayerArrays(W, b, name) for (W, b), name in zip(self.affine, self.activations, strict=False))
        return NetworkParameters(self.head, hidden, *self.affine[-1], self.stage)  # type: ignore[arg-type]  # a head's name

    def learner(self, rule: Rule) -> NetworkLearner:
        """Return the learner."""
        return NetworkLearner(self.parameters(), rule, np.full(self.K, 0.5))


def activate(name: str, z: Array, numpy: Any = np) -> Array:
    """Return an activation by the textbook formula."""
    if name == "relu":
        return numpy.maximum(z, 0)
    return numpy.tanh(z) if name == "tanh" else 1 / (1 + numpy.exp(-z))


def slope(name: str, z: Array) -> Array:
    """Return the derivative of an activation with respect to its pre-activation."""
    if name == "relu":
        return (z > 0).astype(z.dtype)
    return 1 - np.tanh(z) ** 2 if name == "tanh" else activate(name, z) * (1 - activate(name, z))


def forward(net: Net, X: Array, affine: list[tuple[Array, Array]], numpy: Any = np) -> Array:
    """Return the logits by the textbook formula, in NumPy or for autograd, without the stage."""
    for (W, b), name in zip(affine[:-1], net.activations, strict=True):
        X = activate(name, numpy.dot(X, W) + b, numpy)
    return numpy.dot(X, affine[-1][0]) + affine[-1][1]


def summed_loss(net: Net, Z: Array) -> Array:
    """Return the summed training loss of logits, for autograd."""
    if net.head == "softmax":
        top = anp.max(Z, axis=1, keepdims=True)
        logs = Z - top - anp.log(anp.sum(anp.exp(Z - top), axis=1, keepdims=True))
        return -anp.sum(net.Y * logs)
    return anp.sum(anp.maximum(Z, 0) + anp.log(1 + anp.exp(-anp.abs(Z))) - net.Y * Z)


class ReferenceNetworkFold:
    """A reference implementation of the fold of a network in float64, one row at a time, with backpropagation."""

    def __init__(self, net: Net, rule: Rule) -> None:
        self.net, self.rule = net, rule
        self.layers = [np.vstack([b, W]).astype(np.float64) for W, b in net.affine]
        self.G = [np.full_like(layer, rule.start) for layer in self.layers]

    def row(self, x: Array, y: Array, h: float) -> float:
        """Score the row, take a step in every layer, and return the reported loss."""
        net, head = self.net, self.net.head
        x = x.astype(np.float64)
        layer_inputs, before = (
            [x if net.stage is None else stage(x[None], net.stage.mean, net.stage.scale, net.stage.clip)[0]],
            [],
        )
        for layer, name in zip(self.layers[:-1], net.activations, strict=True):
            before.append(layer_inputs[-1] @ layer[1:] + layer[0])
            layer_inputs.append(activate(name, before[-1]))
        Z = (layer_inputs[-1] @ self.layers[-1][1:] + self.layers[-1][0])[None]
        loss = -(y * log_probabilities("ovr", Z)).sum() if head == "ovr" else losses(head, Z, y[None])[0]
        e = h * logit_gradient(head, Z, y[None])[0].astype(np.float64)
        moved = []
        for number in range(len(self.layers) - 1, -1, -1):
            v = np.concatenate([[1.0], layer_inputs[number]])
            moved.append((number, v, np.outer(v, e)))
            if number:
                e = (self.layers[number][1:] @ e) * slope(net.activations[number - 1], before[number - 1])
        for number, v, g in moved:
            self.step(number, v, g)
        return float(loss)

    def step(self, number: int, v: Array, g: Array) -> None:
        """Take one step of one layer, limited where it would change a pre-activation by more than the clip."""
        rule, change = self.rule, -self.rule.rate * g
        if rule.name != "sgd":
            self.G[number] = self.G[number] + g**2
            change = -rule.rate * g / (rule.offset + np.sqrt(self.G[number]))
            self.G[number] = (1 - rule.forget) * self.G[number] + rule.forget * rule.start
        most = np.abs(v @ change).max()
        self.layers[number] = self.layers[number] + change * min(1, rule.step_clip / most if most else 1)


def reference_probabilities(net: Net, X: Array) -> Array:
    """Return the probabilities by the reference, in longdouble."""
    X = X.astype(np.longdouble)
    staged = X if net.stage is None else np.clip((X - net.stage.mean) / net.stage.scale, -2, 2)
    wide = [(W.astype(np.longdouble), b.astype(np.longdouble)) for W, b in net.affine]
    return probabilities(net.head, forward(net, staged, wide))

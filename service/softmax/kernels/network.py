"""Layers in front of a head: A_0 = X, A_(l+1) = f_l(A_l W_l + b_l), logits Z = A_L W_L + b_L.

    X (B, N)          rows as the first layer takes them
    plan (L + 1, 6)   int64, the columns below for each layer; layer 0 is the first hidden one, the head's is the last
    panels (S,)       the packed weights of every layer, one after another, each (C, N + 1, V L) as in matmul.py
    A_l (rows, K_l)   a layer's activations, without padding between rows, because the next layer reads them as X

    column       of a layer
    ACTIVATION   code of its activation, see activations.py; HEAD for the last layer
    INPUTS       N, its inputs
    OUTPUTS      K, its outputs
    COUNT        C, its panels
    WIDTH        V L, the lanes of a panel
    START        the index of its first panel in `panels`

A row's sums run as in matmul.py, independent of the other rows, so networks give the bits of docs/determinism.md. A row
with a pre-activation that is not finite is reported, although a tanh would hide it: its sum may have overflowed on the
way to a number that is not large.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from service.compiler import inlined, kernel
from service.softmax.arrays import Floats, Integers
from service.softmax.kernels.activations import RELU, SIGMOID, TANH, activation_block
from service.softmax.kernels.heads import BLOCK, NOT_FINITE, head_block
from service.softmax.kernels.matmul import linear_block, pack

Activation = Literal["relu", "sigmoid", "tanh"]

ACTIVATIONS: Final[dict[str, int]] = {"relu": RELU, "sigmoid": SIGMOID, "tanh": TANH}
HEAD = -1
ACTIVATION, INPUTS, OUTPUTS, COUNT, WIDTH, START = 0, 1, 2, 3, 4, 5
COLUMNS = 6


@dataclass(frozen=True, eq=False)
class LayerArrays:
    """One hidden layer: `weights` (N, K), feature-major, and `bias` (K,) of the model's dtype, and its activation."""

    weights: Floats
    bias: Floats
    activation: Activation


def make_plan(layers: tuple[LayerArrays, ...], n_inputs: int, n_logits: int, dtype: np.dtype[Any]) -> Integers:
    """Return the plan (L + 1, COLUMNS) of hidden layers and the head's layer after them."""
    sizes = [n_inputs, *(layer.bias.size for layer in layers), n_logits]
    codes = [*(ACTIVATIONS[layer.activation] for layer in layers), HEAD]
    plan, start = np.zeros((len(codes), COLUMNS), np.int64), 0
    for number, code in enumerate(codes):
        inputs, outputs = sizes[number], sizes[number + 1]
        count, _, width = pack(np.zeros((1, outputs), dtype), np.zeros(outputs, dtype)).shape
        plan[number] = code, inputs, outputs, count, width, start
        start += count * (inputs + 1) * width
    return plan


def pack_layers(matrices: list[Floats], lanes: int = 0) -> Floats:
    """Pack matrices (N + 1, K), the bias first, one after another; `lanes` as in `pack`."""
    return np.concatenate([pack(matrix[1:], matrix[0], lanes).ravel() for matrix in matrices])


def layer_view(panels: Floats, plan: Integers, number: int) -> Floats:
    """Return the panels (C, N + 1, V L) of a layer, as a view."""
    _, inputs, _, count, width, start = plan[number].tolist()
    return panels[start : start + count * (inputs + 1) * width].reshape(count, inputs + 1, width)


@inlined
def layer_panels(panels, plan, number):
    """The panels (C, N + 1, V L) of a layer."""
    count, rows, width, start = plan[number, COUNT], plan[number, INPUTS] + 1, plan[number, WIDTH], plan[number, START]
    return panels[start : start + count * rows * width].reshape((count, rows, width))


@inlined
def layer_rows(panels, plan, number):
    """The panels of a layer as rows (C (N + 1), V L), for steps."""
    rows, width, start = plan[number, COUNT] * (plan[number, INPUTS] + 1), plan[number, WIDTH], plan[number, START]
    return panels[start : start + rows * width].reshape((rows, width))


@inlined
def _widest(plan):
    """The lanes of the widest layer's panels, and the outputs of the widest hidden layer (at least 1)."""
    lanes, outputs = 0, 1
    for number in range(plan.shape[0]):
        lanes = max(lanes, plan[number, COUNT] * plan[number, WIDTH])
        if plan[number, ACTIVATION] != HEAD:
            outputs = max(outputs, plan[number, OUTPUTS])
    return lanes, outputs


@inlined
def _hidden_block(X, start, rows, panels, plan, z, a):
    """The hidden layers applied to rows of X; z and a are scratch for one layer.

    Returns the last hidden layer's activations (rows, K_l), and whether every pre-activation is finite.
    """
    source, first, finite = X, start, True
    for number in range(plan.shape[0] - 1):
        lanes, K = plan[number, COUNT] * plan[number, WIDTH], plan[number, OUTPUTS]
        Z = z[: rows * lanes].reshape((rows, lanes))
        linear_block(source, first, rows, layer_panels(panels, plan, number), Z)
        source, first = a[: rows * K].reshape((rows, K)), 0
        finite &= activation_block(plan[number, ACTIVATION], Z, rows, K, source)
    return source, finite


@kernel(
    "int64(float32[:,::1],float32[::1],int64[:,::1],int64,float32[:,::1],int64[::1])",
    "int64(float64[:,::1],float64[::1],int64[:,::1],int64,float64[:,::1],int64[::1])",
)
def network_forward(X, panels, plan, head, P, labels):
    """X (B, N), panels (S,), plan (L + 1, COLUMNS) with L >= 1, P (B, n_classes) written; see predict_forward.

    Returns the first row's label, or NOT_FINITE if any row has a pre-activation or logit that is not finite.
    """
    B, last = X.shape[0], plan.shape[0] - 1
    K, lanes = plan[last, OUTPUTS], plan[last, COUNT] * plan[last, WIDTH]
    most = min(B, BLOCK)
    widest, outputs = _widest(plan)
    scratch = np.empty(most * (widest + outputs), X.dtype)
    z, a = scratch[: most * widest], scratch[most * widest :]
    block = np.empty(BLOCK, np.int64)
    wanted = B == 1 or labels.size > 0
    finite, first = True, 0
    for start in range(0, B, BLOCK):
        rows = min(BLOCK, B - start)
        hidden, known = _hidden_block(X, start, rows, panels, plan, z, a)
        Z = z[: rows * lanes].reshape((rows, lanes))
        linear_block(hidden, 0, rows, layer_panels(panels, plan, last), Z)
        finite &= known & head_block(head, Z, rows, K, P, start, block, wanted)
        if start == 0 and wanted:
            first = block[0]
        if labels.size > 0:
            labels[start : start + rows] = block[:rows]
    return first if finite else NOT_FINITE

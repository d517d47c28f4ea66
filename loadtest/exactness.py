"""Measure how accurate the gradients are, and whether the bits are the same on every processor.

    PYTHONPATH=. .venv/bin/python loadtest/exactness.py gradients bits

Gradients: float64 networks of three hidden layers with soft targets, one with each activation and one with all three.
Every derivative of the summed loss, by each weight, bias and input, is compared with central differences of that loss.
It is also compared with `autograd`, an independent library, on the textbook's loss. A difference is relative to the
largest derivative of the same array.

Bits: the probe of the tests (tests/support/kernel_probe.py) hashes predictions, losses, gradients, folds of every rule,
networks and explanations. It runs once for each target that this processor can execute, with kernels compiled for it.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd import grad
from environments import ROOT
from llvmlite import binding
from numpy.typing import NDArray

from service.compiler import BASELINES
from service.softmax.kernels.network import ACTIVATIONS, LayerArrays
from service.softmax.network_model import NetworkModel

Doubles = NDArray[np.float64]

SIZES, ROWS = (16, 12, 10, 8, 5), 8
# The error of central differences is of the order of step² + rounding / step.
STEP = 1e-5
PROBE_SECONDS = 900
REFERENCES: dict[str, Callable[[Any], Any]] = {
    "relu": lambda z: anp.maximum(z, 0),
    "sigmoid": lambda z: 1 / (1 + anp.exp(-z)),
    "tanh": anp.tanh,
}


def loss(names: Sequence[str], Y: Doubles, arrays: list[Any]) -> Any:  # noqa: ANN401  # autograd's numbers
    """Return the summed cross-entropy by the textbook; `arrays` are X, then weights and bias of each layer."""
    A, *affine = arrays
    for number, name in enumerate(names):
        A = REFERENCES[name](anp.dot(A, affine[2 * number]) + affine[2 * number + 1])
    Z = anp.dot(A, affine[-2]) + affine[-1]
    top = anp.max(Z, axis=1, keepdims=True)
    return anp.sum(Y * (top + anp.log(anp.sum(anp.exp(Z - top), axis=1, keepdims=True)) - Z))


def network(names: Sequence[str], arrays: list[Doubles]) -> NetworkModel:
    """Return our network of these arrays."""
    weights, biases = arrays[1::2], arrays[2::2]
    hidden = tuple(LayerArrays(W, b, name) for W, b, name in zip(weights, biases, names, strict=False))  # type: ignore[arg-type]
    return NetworkModel("softmax", hidden, weights[-1], biases[-1])


def central_differences(names: Sequence[str], Y: Doubles, arrays: list[Doubles]) -> list[Doubles]:
    """Return the derivative of the summed loss by every number, as central differences of our own losses."""
    found = []
    for array in arrays:
        slope = np.empty_like(array)
        for at in np.ndindex(array.shape):
            original, losses = array[at], []
            for shifted in (original + STEP, original - STEP):
                array[at] = shifted
                losses.append(network(names, arrays).losses(arrays[0], Y).sum())
            array[at] = original
            slope[at] = (losses[0] - losses[1]) / (2 * STEP)
        found.append(slope)
    return found


def largest_difference(ours: list[Doubles], theirs: list[Doubles]) -> float:
    """Return the largest relative difference."""
    return max(float(np.abs(own - other).max() / np.abs(other).max()) for own, other in zip(ours, theirs, strict=True))


def gradients() -> list[dict[str, Any]]:
    """Compare the gradients for each choice of activations."""
    points = []
    for names in [*((name,) * 3 for name in ACTIVATIONS), tuple(ACTIVATIONS)]:
        rng = np.random.default_rng(0)
        arrays = [rng.standard_normal((ROWS, SIZES[0]))]
        for inputs, outputs in pairwise(SIZES):
            arrays += [rng.standard_normal((inputs, outputs)) / np.sqrt(inputs), rng.standard_normal(outputs)]
        Y = rng.dirichlet(np.ones(SIZES[-1]), ROWS)
        found = network(names, arrays).gradients(arrays[0], Y)
        ours = [found.dX, *(array for layer in found.layers for array in layer)]
        theirs = grad(lambda arrays, names=names, Y=Y: loss(names, Y, arrays))(arrays)
        points.append(
            {
                "activations": names,
                "differences": largest_difference(ours, central_differences(names, Y, arrays)),
                "autograd": largest_difference(ours, theirs),
            }
        )
    return points


def bits() -> dict[str, str]:
    """Return one hash of everything for each target that this processor can execute."""
    has = dict(binding.get_host_cpu_features())
    targets = {name: (name, "") for name, needed in BASELINES.items() if all(has.get(one, False) for one in needed)}
    targets["this processor"] = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
    return {name: probe(*target) for name, target in targets.items()}


def probe(name: str, features: str) -> str:
    """Return the hash that a process with kernels for a target prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.kernel_probe"],
        cwd=ROOT,
        env=os.environ | {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features},
        capture_output=True,
        text=True,
        timeout=PROBE_SECONDS,
        check=True,
    )
    return hashlib.sha256(json.dumps(json.loads(done.stdout)["digests"], sort_keys=True).encode()).hexdigest()


PARTS: dict[str, Callable[[], Any]] = {"gradients": gradients, "bits": bits}


def main() -> None:
    """Measure the chosen parts and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS, help="what to measure")
    args = parser.parse_args()
    print(json.dumps({name: PARTS[name]() for name in args.parts}))


if __name__ == "__main__":
    main()

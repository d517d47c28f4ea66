"""Compare networks with ONNX Runtime and PyTorch: the prediction and the online step of a 64-32-10 network.

    PYTHONPATH=loadtest python -c "from environments import NETWORKS; NETWORKS.ensure()"
    PYTHONPATH=. taskset -c 1 build/bench/networks/bin/python loadtest/networks.py predict step

Predictions go through each library's public, checked call, as in kernels.py. A step takes one labeled row through
forward, loss, backward and the update of every weight. Ours uses AdaGrad, with one call per row and with rows of one
call, as the learner folds events; PyTorch uses its plain SGD without momentum. Before anything is timed, the answers
and one step of plain SGD are compared. The libraries take turns; a time is the median of turns. The first line builds
the environment once; the second prints one JSON object.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from kernels import TOLERANCE, Call, Floats, alternate, measure, onnx_network

from service.softmax.kernels.network import ACTIVATIONS, LayerArrays
from service.softmax.network_learner import NetworkLearner
from service.softmax.parameters import NetworkParameters
from service.softmax.rule import Rule

SIZES = (64, 32, 10)
ROWS = (1, 256)
# Rows of one call to the fold.
BLOCK = 256
ADAGRAD = Rule("adagrad", rate=0.05, offset=1e-8, start=0.1, forget=1e-6, step_clip=8.0)
MODULES: dict[str, Callable[[], torch.nn.Module]] = {
    "relu": torch.nn.ReLU,
    "sigmoid": torch.nn.Sigmoid,
    "tanh": torch.nn.Tanh,
}
# The difference of two float32 steps from one start, with weights near 1.
STEP_TOLERANCE = 1e-5


def network(activation: Any) -> NetworkParameters:  # noqa: ANN401  # a literal's value, out of a dictionary
    """Return a network of random weights, scaled as they are after training."""
    rng, (N, H, K) = np.random.default_rng(0), SIZES
    first = rng.standard_normal((N, H), dtype=np.float32) / np.float32(np.sqrt(N))
    last = rng.standard_normal((H, K), dtype=np.float32) / np.float32(np.sqrt(H))
    biases = rng.standard_normal(H, dtype=np.float32), rng.standard_normal(K, dtype=np.float32)
    return NetworkParameters("softmax", (LayerArrays(first, biases[0], activation),), last, biases[1])


def softstep_predict(served: NetworkParameters, X: Floats) -> Call:
    """Return Softstep's checked call."""
    model = served.build_model()
    return lambda: model.predict(X)


def onnx_predict(served: NetworkParameters, X: Floats) -> Call:
    """Return ONNX Runtime on the same network."""
    (hidden,) = served.hidden
    return onnx_network(hidden, served.weights, served.bias, X)


def torch_module(served: NetworkParameters) -> torch.nn.Sequential:
    """Return the same network in PyTorch."""
    (hidden,) = served.hidden
    module = torch.nn.Sequential(
        torch.nn.Linear(SIZES[0], SIZES[1]), MODULES[hidden.activation](), torch.nn.Linear(SIZES[1], SIZES[2])
    )
    for layer, (W, b) in zip((module[0], module[2]), served.affine_layers(), strict=True):
        layer.weight.data[:], layer.bias.data[:] = torch.from_numpy(W.T.copy()), torch.from_numpy(b)
    return module


def torch_step(module: torch.nn.Sequential, x: Floats, label: int, rate: float) -> Call:
    """Return one row's step as in PyTorch's own tutorials."""
    optimizer, loss = torch.optim.SGD(module.parameters(), lr=rate), torch.nn.CrossEntropyLoss()
    rows, labels = torch.from_numpy(x), torch.tensor([label])

    def step() -> None:
        optimizer.zero_grad()
        loss(module(rows), labels).backward()
        optimizer.step()

    return step


def predict(turns: int) -> list[dict[str, Any]]:
    """Measure every activation and number of rows; exit if answers differ."""
    points = []
    for activation in ACTIVATIONS:
        served = network(activation)
        for B in ROWS:
            X = np.random.default_rng(1).standard_normal((B, SIZES[0]), dtype=np.float32)
            calls = {"softstep": softstep_predict(served, X), "onnxruntime": onnx_predict(served, X)}
            if not np.abs(calls["softstep"]() - calls["onnxruntime"]()).max() <= TOLERANCE:
                raise SystemExit(f"the probabilities of {activation} differ")
            times = alternate(calls, turns)
            ratio = times["onnxruntime"] / times["softstep"]
            points.append({"activation": activation, "rows": B, "us": times, "ratio": ratio})
    return points


def check_step(served: NetworkParameters, x: Floats, label: int) -> None:
    """Exit if our step differs from PyTorch's."""
    module, steps = torch_module(served), NetworkLearner(served, Rule("sgd", rate=0.1), np.full(SIZES[-1], 0.5))
    torch_step(module, x, label, 0.1)()
    steps.fold(x, np.array([label]))
    for layer, (W, b) in zip((module[0], module[2]), steps.parameters().affine_layers(), strict=True):
        theirs = layer.weight.detach().numpy().T, layer.bias.detach().numpy()
        if not max(np.abs(W - theirs[0]).max(), np.abs(b - theirs[1]).max()) <= STEP_TOLERANCE:
            raise SystemExit("the steps differ")


def step(turns: int) -> list[dict[str, Any]]:
    """Measure the online step of every activation."""
    torch.set_num_threads(1)
    points = []
    for activation in ACTIVATIONS:
        served, rng = network(activation), np.random.default_rng(2)
        X = rng.standard_normal((BLOCK, SIZES[0]), dtype=np.float32)
        labels = rng.integers(0, SIZES[-1], BLOCK)
        x, label = X[:1].copy(), labels[:1].copy()
        check_step(served, x, int(label[0]))
        single, block = (NetworkLearner(served, ADAGRAD, np.full(SIZES[-1], 0.5)) for _ in range(2))
        calls: dict[str, Call] = {
            "softstep, a row a call": lambda steps=single, x=x, label=label: steps.fold(x, label),
            "softstep, rows of one call": lambda steps=block, X=X, labels=labels: steps.fold(X, labels),
            "pytorch": torch_step(torch_module(served), x, int(label[0]), 0.01),
        }
        times = alternate(calls, turns)
        times["softstep, rows of one call"] /= BLOCK
        ratios = {name: times["pytorch"] / us for name, us in times.items() if name != "pytorch"}
        points.append({"activation": activation, "us": times, "ratio": ratios})
    return points


PARTS: dict[str, Callable[[int], Any]] = {"predict": predict, "step": step}


if __name__ == "__main__":
    measure(str(__doc__), PARTS)

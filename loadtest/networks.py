"""Networks beside ONNX Runtime and PyTorch: the prediction and the online step of a 64-32-10 network.

    PYTHONPATH=loadtest python -c "from environments import NETWORKS; NETWORKS.ensure()"
    PYTHONPATH=. taskset -c 1 build/bench/networks/bin/python loadtest/networks.py predict step

Predictions go through each library's own safe door, as in kernels.py: float32 rows in, a fresh array of probabilities
out, one thread. A step takes one labelled row through forward, loss, backward and the update of every weight: ours by
AdaGrad, one call for a row and as rows of one call, as the learner folds events; PyTorch's by its plain SGD, without
momentum. Before anything is timed the answers, and one step of plain sgd, are held to each other. The contenders take
turns; a time is the median of turns. The first line builds the environment once; the second prints one JSON object.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from kernels import TOLERANCE, Call, Floats, alternate, measure
from onnx import TensorProto, helper, numpy_helper

from service.softmax.kernels.network import ACTIVATIONS, LayerArrays
from service.softmax.network_learner import NetworkLearner, NetworkParameters
from service.softmax.parameters import Rule

SIZES = (64, 32, 10)
ROWS = (1, 256)
# Rows of one call to the fold.
BLOCK = 256
ADAGRAD = Rule("adagrad", rate=0.05, offset=1e-8, start=0.1, forget=1e-6, step_clip=8.0)
OPERATORS = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}
MODULES: dict[str, Callable[[], torch.nn.Module]] = {
    "relu": torch.nn.ReLU,
    "sigmoid": torch.nn.Sigmoid,
    "tanh": torch.nn.Tanh,
}
# Two float32 steps from one start, of weights near 1.
STEP_TOLERANCE = 1e-5


def network(activation: Any) -> NetworkParameters:  # noqa: ANN401  # a literal's value, out of a dictionary
    """A network of random weights, scaled as they are after training."""
    rng, (N, H, K) = np.random.default_rng(0), SIZES
    first = rng.standard_normal((N, H), dtype=np.float32) / np.float32(np.sqrt(N))
    last = rng.standard_normal((H, K), dtype=np.float32) / np.float32(np.sqrt(H))
    biases = rng.standard_normal(H, dtype=np.float32), rng.standard_normal(K, dtype=np.float32)
    return NetworkParameters("softmax", (LayerArrays(first, biases[0], activation),), last, biases[1])


def softstep_predict(served: NetworkParameters, X: Floats) -> Call:
    """Softstep's safe door."""
    model = served.model()
    return lambda: model.predict(X)


def onnx_predict(served: NetworkParameters, X: Floats) -> Call:
    """ONNX Runtime on Gemm, activation, Gemm and Softmax; one thread."""
    (hidden,) = served.hidden
    arrays = {"W": hidden.weights, "b": hidden.bias, "V": served.weights, "c": served.bias}
    nodes = [
        helper.make_node("Gemm", ["X", "W", "b"], ["H"]),
        helper.make_node(OPERATORS[hidden.activation], ["H"], ["A"]),
        helper.make_node("Gemm", ["A", "V", "c"], ["Z"]),
        helper.make_node("Softmax", ["Z"], ["P"], axis=1),
    ]
    rows = helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, SIZES[0]])
    probabilities = helper.make_tensor_value_info("P", TensorProto.FLOAT, [None, SIZES[-1]])
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "network", [rows], [probabilities], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(["P"], {"X": X})[0]


def torch_module(served: NetworkParameters) -> torch.nn.Sequential:
    """The same network in PyTorch."""
    (hidden,) = served.hidden
    module = torch.nn.Sequential(
        torch.nn.Linear(SIZES[0], SIZES[1]), MODULES[hidden.activation](), torch.nn.Linear(SIZES[1], SIZES[2])
    )
    for layer, (W, b) in zip((module[0], module[2]), served.affine(), strict=True):
        layer.weight.data[:], layer.bias.data[:] = torch.from_numpy(W.T.copy()), torch.from_numpy(b)
    return module


def torch_step(module: torch.nn.Sequential, x: Floats, label: int, rate: float) -> Call:
    """One row's step as PyTorch's own tutorials have it."""
    optimizer, loss = torch.optim.SGD(module.parameters(), lr=rate), torch.nn.CrossEntropyLoss()
    rows, labels = torch.from_numpy(x), torch.tensor([label])

    def step() -> None:
        optimizer.zero_grad()
        loss(module(rows), labels).backward()
        optimizer.step()

    return step


def predict(turns: int) -> list[dict[str, Any]]:
    """Measure every activation and number of rows; refuse to time answers that differ."""
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
    """Refuse to time a step that is not PyTorch's."""
    module, steps = torch_module(served), NetworkLearner(served, Rule("sgd", rate=0.1), np.full(SIZES[-1], 0.5))
    torch_step(module, x, label, 0.1)()
    steps.fold(x, np.array([label]))
    for layer, (W, b) in zip((module[0], module[2]), steps.served().affine(), strict=True):
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
        lone, block = (NetworkLearner(served, ADAGRAD, np.full(SIZES[-1], 0.5)) for _ in range(2))
        calls: dict[str, Call] = {
            "softstep, a row a call": lambda steps=lone, x=x, label=label: steps.fold(x, label),
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

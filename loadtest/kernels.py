"""The kernel grid (figure 6) and the exponential (figure 7), compared with NumPy, scikit-learn and ONNX Runtime.

Predictions go through each library's public, checked call: float32 rows in, a new array of probabilities out, one
thread, one process. The libraries take turns; a turn has as many calls as last a millisecond, and a time is the median
of turns. Runs in build/bench/kernels with the repository root on PYTHONPATH, and prints one JSON object.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression

from service.compiler import TARGET
from service.softmax.kernels.exp_log import exp_forward
from service.softmax.kernels.network import LayerArrays
from service.softmax.linear_model import LinearModel

Floats = NDArray[np.float32]
Call = Callable[[], Any]

GRID = (
    (1, 4, 3),
    (1, 30, 2),
    (1, 64, 10),
    (1, 784, 10),
    (1, 768, 1000),
    (16, 768, 1000),
    (256, 4, 3),
    (256, 64, 10),
    (256, 784, 10),
    (256, 768, 1000),
    (4096, 64, 10),
)
TURN_SECONDS = 0.001
TOLERANCE = 1e-4
# ONNX's names of the activations of hidden layers.
OPERATORS = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}
EXP_SIZE, EXP_LOWEST = 100_000, -87.0


def softstep_predict(X: Floats, W: Floats, b: Floats) -> Call:
    """Return Softstep's checked call."""
    model = LinearModel(head="softmax", weights=W, bias=b)
    return lambda: model.predict(X)


def numpy_predict(X: Floats, W: Floats, b: Floats) -> Call:
    """Return the usual three lines of NumPy."""

    def predict() -> Floats:
        logits = X @ W + b
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        return scores / scores.sum(axis=1, keepdims=True)

    return predict


def sklearn_predict(X: Floats, W: Floats, b: Floats) -> Call:
    """Return scikit-learn's estimator with these weights."""
    model = LogisticRegression()
    # For two classes scikit-learn has one row of coefficients: the difference of the two logits.
    binary = len(b) == 2  # noqa: PLR2004
    model.coef_ = np.ascontiguousarray((W[:, 1:] - W[:, :1]).T if binary else W.T)
    model.intercept_ = b[1:] - b[:1] if binary else b
    model.classes_ = np.arange(len(b))
    return lambda: model.predict_proba(X)


def onnx_predict(X: Floats, W: Floats, b: Floats) -> Call:
    """Return ONNX Runtime on a graph of Gemm and Softmax, its fastest form of this model."""
    nodes = [helper.make_node("Gemm", ["X", "W", "b"], ["Z"]), helper.make_node("Softmax", ["Z"], ["P"], axis=1)]
    return onnx_call(nodes, {"W": W, "b": b}, X, W.shape[1])


def onnx_network(hidden: LayerArrays, W: Floats, b: Floats, X: Floats) -> Call:
    """Return ONNX Runtime on a network with one hidden layer: Gemm, activation, Gemm and Softmax."""
    arrays = {"W": hidden.weights, "b": hidden.bias, "V": W, "c": b}
    nodes = [
        helper.make_node("Gemm", ["X", "W", "b"], ["H"]),
        helper.make_node(OPERATORS[hidden.activation], ["H"], ["A"]),
        helper.make_node("Gemm", ["A", "V", "c"], ["Z"]),
        helper.make_node("Softmax", ["Z"], ["P"], axis=1),
    ]
    return onnx_call(nodes, arrays, X, W.shape[1])


def onnx_call(nodes: list[Any], arrays: Mapping[str, Floats], X: Floats, outputs: int) -> Call:
    """Return ONNX Runtime on a graph from "X" to "P"; one thread.

    Args:
        nodes: The nodes of the graph.
        arrays: Its weights by name.
        X: (B, N) float32 rows.
        outputs: The number of columns of "P".
    """
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    rows = helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, X.shape[1]])
    probabilities = helper.make_tensor_value_info("P", TensorProto.FLOAT, [None, outputs])
    graph = helper.make_graph(nodes, "model", [rows], [probabilities], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(["P"], {"X": X})[0]


PREDICTORS = {
    "softstep": softstep_predict,
    "onnxruntime": onnx_predict,
    "numpy": numpy_predict,
    "scikit-learn": sklearn_predict,
}


def calls_per_turn(call: Call) -> int:
    """Return the number of calls that last about one turn."""
    count = 1
    while True:
        began = time.perf_counter()
        for _ in range(count):
            call()
        if time.perf_counter() - began >= TURN_SECONDS:
            return count
        count *= 2


def alternate(calls: dict[str, Call], turns: int) -> dict[str, float]:
    """Return the median microseconds of each call, measured in turns."""
    counts = {name: calls_per_turn(call) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            began = time.perf_counter()
            for _ in range(counts[name]):
                call()
            times[name].append((time.perf_counter() - began) / counts[name] * 1e6)
    return {name: median(values) for name, values in times.items()}


def exact(X: Floats, W: Floats, b: Floats) -> NDArray[np.float64]:
    """Return the probabilities in float64."""
    logits = X.astype(np.float64) @ W + b
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def grid(turns: int) -> list[dict[str, Any]]:
    """Measure every shape; exit if an answer is wrong."""
    rng, points = np.random.default_rng(0), []
    for B, N, K in GRID:
        X = rng.standard_normal((B, N), dtype=np.float32)
        W = rng.standard_normal((N, K), dtype=np.float32) / np.float32(np.sqrt(N))
        b = rng.standard_normal(K, dtype=np.float32)
        calls = {name: predictor(X, W, b) for name, predictor in PREDICTORS.items()}
        truth = exact(X, W, b)
        for name, call in calls.items():
            if not np.abs(call() - truth).max() <= TOLERANCE:
                raise SystemExit(f"{name} returns other probabilities at {(B, N, K)}")
        points.append({"shape": [B, N, K], "us": alternate(calls, turns)})
    return points


def exponential(turns: int) -> dict[str, Any]:
    """Measure both exponentials into a given output, and the error of each in units in the last place."""
    x = np.random.default_rng(0).uniform(EXP_LOWEST, 0, EXP_SIZE).astype(np.float32)
    x[0], x[1] = EXP_LOWEST, 0
    outputs = {"softstep": np.empty_like(x), "numpy": np.empty_like(x)}
    row, out = x.reshape(1, -1), outputs["softstep"].reshape(1, -1)
    calls: dict[str, Call] = {
        "softstep": lambda: exp_forward(row, out),
        "numpy": lambda: np.exp(x, out=outputs["numpy"]),
    }
    times = alternate(calls, turns)
    truth = np.exp(x.astype(np.float64))
    unit = np.spacing(truth.astype(np.float32)).astype(np.float64)
    errors = {name: float((np.abs(out - truth) / unit).max()) for name, out in outputs.items()}
    return {"size": EXP_SIZE, "us": times, "ulp": errors}


PARTS: dict[str, Callable[[int], Any]] = {"grid": grid, "exp": exponential}


def measure(description: str, parts: Mapping[str, Callable[[int], Any]]) -> None:
    """Measure the parts that the command line names, and print them."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=31, help="turns of each library at each measurement")
    parser.add_argument("parts", nargs="+", choices=parts, help="what to measure")
    args = parser.parse_args()
    print(json.dumps({"target": TARGET} | {name: parts[name](args.turns) for name in args.parts}))


if __name__ == "__main__":
    measure(str(__doc__), PARTS)

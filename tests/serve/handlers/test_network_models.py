"""Networks over HTTP: the bits of `NetworkModel`, by every protocol, in any batch, by the fast path and without it."""

import asyncio
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.serve.models.batcher import HEAVY_WEIGHTS, inline_rows, is_heavy
from service.softmax.network_model import NetworkModel
from service.store.artifact.artifact import Artifact
from service.store.artifact.model_factory import build_model
from tests.support.http_requests import binary, binary_request, infer, instances, request
from tests.support.model_artifacts import extra_artifacts, make_artifact
from tests.support.server_pair import Pair

NETWORKS = {
    name: artifact
    for name, artifact in extra_artifacts().items()
    if artifact.manifest.hidden and artifact.manifest.calibration is None
}
NAMES = sorted(NETWORKS)


def rows(name: str, count: int, seed: int = 0) -> Any:
    """X (count, N) of the network's dtype."""
    artifact = NETWORKS[name]
    return np.random.default_rng(seed).standard_normal((count, artifact.n_features)).astype(artifact.manifest.dtype)


def post(pair: Pair, path: str, body: bytes, *, fast: bool = True) -> Any:
    """The answer of one of the servers, which must be 200."""
    (answer,) = pair.ask(request("POST", path, body), fast=fast)
    assert answer.status == 200, answer.body
    return answer


def test_there_are_networks_of_both_dtypes() -> None:
    """The served networks have both dtypes, with and without a stage."""
    assert {artifact.manifest.dtype for artifact in NETWORKS.values()} == {"float32", "float64"}
    assert {artifact.manifest.stage is None for artifact in NETWORKS.values()} == {True, False}
    assert all(isinstance(build_model(artifact), NetworkModel) for artifact in NETWORKS.values())


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 40), seed=st.integers(0, 1000))
def test_answers_have_the_bits_of_the_network(pair: Pair, name: str, count: int, seed: int) -> None:
    """V1 and v2, JSON and binary, with and without the fast path, return the same bits, and matching labels."""
    X, artifact = rows(name, count, seed), NETWORKS[name]
    P, labels = build_model(artifact).classify(X)
    for fast in (True, False):
        answer = post(pair, f"/v1/models/{name}:predict", instances(X.tolist()), fast=fast)
        assert np.array(answer.json["predictions"], artifact.manifest.dtype).tobytes() == P.tobytes()
        if artifact.manifest.head != "multilabel":
            assert answer.json["labels"] == [artifact.manifest.classes[k] for k in labels]
        datatype = {"float32": "FP32", "float64": "FP64"}[artifact.manifest.dtype]
        answer = post(pair, f"/v2/models/{name}/infer", infer(X.tolist(), datatype), fast=fast)
        assert np.array(answer.json["outputs"][0]["data"], artifact.manifest.dtype).tobytes() == P.tobytes()
        text, raw = binary(X, X.dtype.newbyteorder("<").str, datatype, parameters={"binary_data_output": True})
        (answer,) = pair.ask(binary_request(f"/v2/models/{name}/infer", text, raw), fast=fast)
        assert answer.body.endswith(P.tobytes())


@pytest.mark.parametrize("name", NAMES)
def test_requests_of_one_turn_share_a_call_and_keep_their_bits(pair: Pair, name: str) -> None:
    """Many clients at once, with few rows and with more than the event loop computes itself."""
    artifact = NETWORKS[name]
    served = pair.worker.registry.now.find_served(name, None)
    sizes = [1, 2, 7, served.inline_rows + 1, 1, 3]
    X = [rows(name, size, size) for size in sizes]
    assert min(served.tables.rows_max, 1 << 15) > served.inline_rows

    async def talk() -> list[Any]:
        async def one(part: Any) -> Any:
            async with pair.connect() as client:
                return await client.ask(request("POST", f"/v1/models/{name}:predict", instances(part.tolist())))

        return await asyncio.gather(*(one(part) for part in X))

    answers = pair.run(talk(), 60)
    model = build_model(artifact)
    for part, answer in zip(X, answers, strict=True):
        expected = model.predict(part)
        assert np.array(answer.json["predictions"], artifact.manifest.dtype).tobytes() == expected.tobytes()


def test_metadata_tells_of_the_layers(pair: Pair) -> None:
    """Metadata has inputs, outputs, activation and parameters of each layer; a linear model has one layer."""
    (answer, linear) = pair.ask(request("GET", "/v1/models/network"), request("GET", "/v1/models/iris"))
    assert answer.json["layers"] == [
        {"inputs": 3, "outputs": 17, "activation": "sigmoid"},
        {"inputs": 17, "outputs": 5, "activation": "tanh"},
        {"inputs": 5, "outputs": 3, "activation": "identity"},
    ]
    assert answer.json["parameters"] == 4 * 17 + 18 * 5 + 6 * 3
    assert answer.json["weights_sha256"] == NETWORKS["network"].weights_sha256
    assert linear.json["layers"] == [{"inputs": 4, "outputs": 3, "activation": "identity"}]
    assert linear.json["parameters"] == 15


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"instances": [[1.0, 2.0]]}, 422),
        ({"instances": [[1.0, 2.0, 1e39]]}, 422),
        ({"instances": []}, 422),
        ({"instances": [[1.0, 2.0, None]]}, 422),
    ],
)
def test_bad_rows_are_refused_as_ever(pair: Pair, body: Any, status: int) -> None:
    """Both servers refuse them with the same sentence."""
    predict_request = request("POST", "/v1/models/network:predict", orjson.dumps(body))
    (fast,), (plain,) = pair.ask(predict_request), pair.ask(predict_request, fast=False)
    assert (fast.status, list(fast.json)) == (status, ["error", "code"])
    assert fast.body == plain.body


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"rule": "newton"}, "A model with hidden layers learns by sgd, adagrad or ftrl."),
        ({"rule": "adagrad", "constants": {"clip": 1.0}}, "Unknown rule, or a constant out of range;"),
    ],
)
def test_a_rule_that_networks_do_not_have_is_refused(pair: Pair, body: Any, reason: str) -> None:
    """Newton, or a clip; the event is not written."""
    (answer,) = pair.ask(request("POST", "/v1/models/network:configure", orjson.dumps(body)))
    assert (answer.status, answer.json["error"].startswith(reason)) == (422, True)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("heavy:configure", {"rule": "newton"}),
        ("digits:classes", {"add": [f"more {k}" for k in range(1000)]}),
    ],
)
def test_newton_is_refused_where_its_matrices_would_be_large(pair: Pair, path: str, body: Any) -> None:
    """The rule, or added classes, are refused so that a learner does not run out of memory."""
    for fast in (True, False):
        (answer,) = pair.ask(request("POST", f"/v1/models/{path}", orjson.dumps(body)), fast=fast)
        assert answer.status == 422
        assert answer.json == {
            "error": "The rule newton does not take so many features and classes; ftrl takes any number.",
            "code": "invalid_request",
        }


def of(*hidden: int, N: int = 64, K: int = 10) -> Artifact:
    """A network by its widths."""
    return make_artifact("softmax", N, [f"c{k}" for k in range(K)], hidden=hidden)


def test_the_cost_of_a_call_counts_every_layer() -> None:
    """Layers add up, activations count too, and a network of a million bytes is heavy."""
    linear, network, deep = (build_model(of(*hidden)) for hidden in ((), (32,), (32, 32, 32)))
    assert inline_rows(linear, 200) > inline_rows(network, 200) > inline_rows(deep, 200)
    assert inline_rows(linear, 200) == 200 * 50_000 // 640
    assert inline_rows(network, 200) == 200 * 50_000 // (64 * 32 + 32 * 32 + 32 * 10)
    heavy = of(600, 600)
    assert sum(layer.inputs * layer.outputs for layer in build_model(heavy).layers) > HEAVY_WEIGHTS
    assert is_heavy(build_model(heavy))
    assert not is_heavy(network)

"""Networks: predictions against a reference, gradients, bits in any batch, and invalid arguments."""

import itertools
from dataclasses import replace
from itertools import pairwise

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import UnacceptableError
from service.softmax.input_stage import Stage
from service.softmax.kernels.network import LayerArrays
from service.softmax.linear_model import LinearModel
from service.softmax.network_model import NetworkModel
from tests.support.networks import ACTIVATIONS, WIDTHS, Net, forward, reference_probabilities, summed_loss
from tests.support.reference import DTYPES, HEADS, Array

quick = settings(deadline=None, max_examples=60)


@st.composite
def nets(draw: st.DrawFn, most: int = 70) -> Net:
    """Return a random network and rows."""
    hidden = tuple(draw(st.lists(st.sampled_from(WIDTHS), min_size=1, max_size=4)))
    return Net(
        draw(st.sampled_from(HEADS)), hidden, N=draw(st.integers(1, 20)), K=draw(st.integers(1, 40)),
        B=draw(st.integers(1, most)), dtype=draw(st.sampled_from(DTYPES)), staged=draw(st.booleans()),
        seed=draw(st.integers(0, 999)), kind=draw(st.sampled_from(["hard", "soft", "any"])),
        shift=draw(st.integers(0, 2)),
    )  # fmt: skip


@quick
@given(nets())
def test_predictions_against_the_reference(net: Net) -> None:
    """Predictions equal the textbook formulas, and labels follow from them."""
    P, labels = net.parameters().build_model().classify(net.X)
    assert P.dtype == net.dtype
    assert np.abs(P - reference_probabilities(net, net.X)).max() <= 500 * np.finfo(net.dtype).eps
    assert labels == ([0] * len(P) if net.head == "multilabel" else P.argmax(axis=1).tolist())


@quick
@given(st.data(), nets(150))
def test_bits_in_any_batch(data: st.DataObject, net: Net) -> None:
    """Any split of a batch, and any single row, has the bits of the whole batch."""
    model, B = net.parameters().build_model(), len(net.X)
    P, labels = model.classify(net.X)
    logits, logs = model.logits(net.X), model.log_probabilities(net.X)
    losses, dX = model.losses(net.X, net.Y), model.gradients(net.X, net.Y).dX
    cuts = sorted({0, B, *data.draw(st.lists(st.integers(0, B), max_size=3))})
    alone = data.draw(st.integers(0, B - 1))
    for start, stop in [*pairwise(cuts), (alone, alone + 1)]:
        x, y, part = net.X[start:stop].copy(), net.Y[start:stop], slice(start, stop)
        assert model.predict(x).tobytes() == P[part].tobytes()
        assert model.classify(x)[1] == labels[part]
        assert model.logits(x).tobytes() == logits[part].tobytes()
        assert model.log_probabilities(x).tobytes() == logs[part].tobytes()
        assert model.losses(x, y).tobytes() == losses[part].tobytes()
        assert model.gradients(x, y).dX.tobytes() == dX[part].tobytes()


@quick
@given(nets(70))
def test_predictions_follow_from_the_logits(net: Net) -> None:
    """The fused kernel has the bits of a linear model whose features are the logits."""
    model = net.parameters().build_model()
    head = LinearModel(net.head, np.eye(net.K, dtype=net.dtype), np.zeros(net.K, net.dtype))  # type: ignore[arg-type]  # a head's name
    Z = model.logits(net.X)
    assert model.predict(net.X).tobytes() == head.predict(Z).tobytes()
    assert model.losses(net.X, net.Y).tobytes() == head.losses(Z, net.Y).tobytes()


def parameters(net: Net) -> list[Array]:
    """Return every array that has a gradient: weights and biases layer by layer, then the rows."""
    return [*itertools.chain.from_iterable(net.affine), net.X]


def by_differences(net: Net) -> list[Array]:
    """Return central differences of the summed loss with respect to every parameter and feature."""
    slopes = []
    for array in parameters(net):
        slope = np.empty_like(array)
        for at in np.ndindex(*array.shape):
            original, sums = array[at], []
            for step in (1e-5, -1e-5):
                array[at] = original + step
                sums.append(net.parameters().build_model().losses(net.X, net.Y).sum())
            array[at] = original
            slope[at] = (sums[0] - sums[1]) / 2e-5
        slopes.append(slope)
    return slopes


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("hidden", [(4,), (4, 3), (5, 4, 3)])
@pytest.mark.parametrize("kind", ["hard", "any"])
def test_gradients_three_ways(head: str, hidden: tuple[int, ...], kind: str) -> None:
    """Gradients agree with differences to 1e-6 and with autograd to 1e-10.

    They also satisfy the closed identities: db sums P - Y over rows for the head, and dW = A^T e.
    """
    for shift in range(3):
        net = Net(head, hidden, N=4, B=7, kind=kind, shift=shift, seed=shift)
        found = net.parameters().build_model().gradients(net.X, net.Y)
        got = [*itertools.chain.from_iterable(found.layers), found.dX]
        assert np.array_equal(found.losses, net.parameters().build_model().losses(net.X, net.Y))

        def loss(flat: list[Array], net: Net = net) -> Array:
            affine = list(zip(flat[:-1:2], flat[1:-1:2], strict=True))
            return summed_loss(net, forward(net, flat[-1], affine, anp))

        for mine, theirs, slope in zip(got, grad(loss)(parameters(net)), by_differences(net), strict=True):
            assert mine.shape == theirs.shape == slope.shape
            assert np.abs(mine - theirs).max() <= 1e-10 * np.abs(theirs).max()
            assert np.abs(mine - slope).max() <= 1e-6 * np.abs(slope).max()
        P = net.parameters().build_model().predict(net.X)
        P = P[:, 1:] if head == "sigmoid" else P
        if head != "ovr" and not (head == "softmax" and kind == "any"):
            np.testing.assert_allclose(found.layers[-1].db, (P - net.Y).sum(axis=0), rtol=1e-12, atol=1e-13)


def test_later_changes_of_the_stage_have_no_effect() -> None:
    """Writing into the stage of the constructor changes no prediction, also not in float64."""
    net, Y = Net("softmax", (6,), N=4, dtype=np.float32, staged=True), np.full((1, 3), 1 / 3)
    assert net.stage is not None
    net.stage = replace(net.stage, clip=None)
    net.affine[0][0][:] *= 1e4
    rows = [net.X[:1], np.full((1, 4), 3e37, np.float32)]
    untouched, model = net.parameters().build_model(), net.parameters().build_model()
    expected = [untouched.losses(X, Y)[0] for X in rows]
    assert expected[1] > np.finfo(np.float32).max
    net.stage.mean[:] += 1
    net.stage.scale[:] *= 2
    assert [model.losses(X, Y)[0] for X in rows] == expected


@pytest.mark.parametrize("clip", [None, 0.8])
def test_gradients_through_the_stage(clip: float | None) -> None:
    """dX is the slope with respect to raw rows, and 0 where the stage clips."""
    net = Net("softmax", (6, 5), N=4, B=6, staged=True, kind="soft")
    assert net.stage is not None
    net.stage = replace(net.stage, clip=clip)
    found, slope = net.parameters().build_model().gradients(net.X, net.Y).dX, by_differences(net)[-1]
    assert np.abs(found - slope).max() <= 1e-6 * np.abs(slope).max()
    assert (found == 0).any() == (clip is not None)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("head", HEADS)
def test_overflow_is_computed_in_float64(name: str, head: str) -> None:
    """Rows that overflow float32 in a hidden layer get the float64 result; the others keep their bits."""
    net = Net(head, (7, 6), B=20, dtype=np.float32, shift=ACTIVATIONS.index(name), kind="soft")
    # Two features cancel in float64 and overflow float32 on the way, which a saturating activation would hide.
    net.affine[0][0][0], net.affine[0][0][1] = 8, -8
    net.X[::4, :2] = 3e38
    model, usual = net.parameters().build_model(), np.arange(20) % 4 != 0
    wide = [LayerArrays(one.weights.astype(float), one.bias.astype(float), one.activation) for one in model.hidden]
    double = NetworkModel(model.head, tuple(wide), model.weights.astype(float), model.bias.astype(float))
    exact = double.predict(net.X.astype(float))
    P, labels = model.classify(net.X)
    assert np.array_equal(P[~usual], exact[~usual].astype(np.float32))
    assert P[usual].tobytes() == model.predict(net.X[usual]).tobytes()
    assert labels == ([0] * 20 if head == "multilabel" else P.argmax(axis=1).tolist())
    assert np.isnan(model.logits(net.X)[~usual]).all()
    losses, wanted = model.losses(net.X, net.Y), double.losses(net.X.astype(float), net.Y)
    assert np.array_equal(losses[~usual], wanted[~usual])
    found, exact_gradients = model.gradients(net.X, net.Y), double.gradients(net.X.astype(float), net.Y)
    assert np.array_equal(found.losses, losses)
    assert np.array_equal(found.dX[~usual], exact_gradients.dX[~usual].astype(np.float32))
    assert found.dX[usual].tobytes() == model.gradients(net.X[usual], net.Y[usual]).dX.tobytes()
    for got, other in zip(found.layers, exact_gradients.layers, strict=True):
        assert np.array_equal(got.dW, other.dW.astype(np.float32))
        assert np.array_equal(got.db, other.db.astype(np.float32))


@pytest.mark.parametrize("method", ["predict", "classify", "log_probabilities"])
def test_rows_without_a_prediction_are_rejected(method: str) -> None:
    """Rows that are not finite, or overflow float64, are rejected."""
    net = Net("softmax", (4,), N=2)
    net.affine[0][0][:] = 100
    call = getattr(net.parameters().build_model(), method)
    for bad, match in ((np.nan, "finite"), (np.inf, "finite"), (1e308, "overflow")):
        with pytest.raises(UnacceptableError, match=match):
            call(np.array([[0.0, 0.0], [bad, 0.0]]))
    for X, error in ((np.zeros((1, 3)), ValueError), (np.zeros((1, 2), np.float32), TypeError)):
        with pytest.raises(error, match="X"):
            call(X)


def test_gradients_that_overflow_are_rejected() -> None:
    """Rows whose gradient overflows are rejected, although they have a prediction."""
    net = Net("softmax", (1,), N=1, B=4, shift=0)
    net.affine[0] = (np.full((1, 1), 1e7), np.ones(1))
    net.X[:], net.affine[1][0][:] = 1e300, [[0.1, 0, -0.1]]
    net.Y[:] = [0, 0, 1e300]
    with pytest.raises(UnacceptableError, match="gradient"):
        net.parameters().build_model().gradients(net.X, net.Y)


def test_later_changes_of_the_arrays_have_no_effect() -> None:
    """Later changes of the arrays do not change a network, and it has no single-row plan."""
    net = Net("softmax", (4, 3))
    model = net.parameters().build_model()
    before = model.predict(net.X)
    for W, b in net.affine:
        W[:], b[:] = 9, 9
    assert np.array_equal(model.predict(net.X), before)
    assert model.single_row_plan() is None
    assert (model.n_features, model.n_logits, model.n_classes) == (5, 3, 3)


W, B = np.ones((4, 4)), np.ones(4)
HIDDEN = (LayerArrays(W, B, "relu"),)
BAD: dict[str, tuple[object, ...]] = {
    "unknown head": ("linear", HIDDEN, W, B),
    "no hidden layer": ("softmax", (), W, B),
    "unknown activation": ("softmax", (LayerArrays(W, B, "gelu"),), W, B),  # type: ignore[arg-type]
    "two dtypes": ("softmax", HIDDEN, W.astype(np.float32), B.astype(np.float32)),
    "half precision": (
        "softmax",
        (LayerArrays(W.astype("f2"), B.astype("f2"), "relu"),),
        W.astype("f2"),
        B.astype("f2"),
    ),
    "short bias": ("softmax", (LayerArrays(W, B[1:], "relu"),), W, B),
    "a vector of weights": ("softmax", HIDDEN, W[0], B),
    "layers that do not meet": ("softmax", (LayerArrays(W[:, :3], B[:3], "relu"),), W, B),
    "sigmoid with four logits": ("sigmoid", HIDDEN, W, B),
    "NaN weight": ("softmax", (LayerArrays(W * np.nan, B, "relu"),), W, B),
    "infinite bias": ("softmax", HIDDEN, W, B * np.inf),
    "short stage": ("softmax", HIDDEN, W, B, Stage(np.zeros(3), np.ones(3))),
}


@pytest.mark.parametrize("arguments", BAD.values(), ids=BAD.keys())
def test_invalid_layers_are_rejected(arguments: tuple[object, ...]) -> None:
    """Inconsistent layers, and numbers that are not finite, are rejected."""
    with pytest.raises(ValueError, match=r"head|weights|stage|activation"):
        NetworkModel(*arguments)  # type: ignore[arg-type]

"""Classifiers of scikit-learn as layers and a head."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from service.convert.columns.symbolic_matrix import SymbolicMatrix
from service.convert.converted_model import Activation, DenseLayer, Head
from service.convert.scikit.plain_object import PlainValue
from service.convert.scikit.step import Step
from service.softmax.arrays import Doubles

# The activations of MLPClassifier by their names there.
ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "identity": "identity",
    "logistic": "sigmoid",
    "relu": "relu",
    "tanh": "tanh",
}
Layer = tuple[Doubles, Doubles, Activation]
"""The weight, the bias and the activation of a layer."""

OUTPUTS: Final[Mapping[str, Head]] = {"softmax": "softmax", "logistic": "sigmoid"}


@dataclass(frozen=True, eq=False)
class Branch:
    """A part of the first layer: the columns that it reads, and their weights.

    Attributes:
        matrix: The columns.
        weight: (N, K) float64, for all K outputs of the first layer.
    """

    matrix: SymbolicMatrix
    weight: Doubles


@dataclass(frozen=True, eq=False)
class SymbolicNetwork:
    """A classifier of symbolic columns.

    Attributes:
        head: The head.
        classes: The classes as the source has them.
        branches: What the first layer adds up.
        layers: The layers; the weight of the first one is that of the branches, and has no rows here.
    """

    head: Head
    classes: Sequence[PlainValue]
    branches: Sequence[Branch]
    layers: Sequence[DenseLayer]


def name_class(value: PlainValue) -> str:
    """Return the name of a class: a text as it is, a number or boolean as in JSON."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _network(step: Step, x: SymbolicMatrix, head: Head, layers: Sequence[Layer]) -> SymbolicNetwork:
    """Return a network whose layers are weight, bias and activation; identities in between are multiplied out."""
    joined: list[Layer] = []
    for weight, bias, activation in layers:
        if joined and joined[-1][2] == "identity":
            first, first_bias, _ = joined.pop()
            weight, bias = first @ weight, first_bias @ weight + bias  # noqa: PLW2901  # the product replaces both
        joined.append((weight, bias, activation))
    first, bias, activation = joined[0]
    rest = [DenseLayer(*layer) for layer in joined[1:]]
    start = DenseLayer(np.zeros((0, len(bias))), bias, activation)
    return SymbolicNetwork(head, step.listed("classes_"), [Branch(x, first)], [start, *rest])


def _linear(step: Step, x: SymbolicMatrix, multiclass: Head, factor: float = 1.0) -> SymbolicNetwork:
    """Return a linear classifier with `coef_` and `intercept_`; `factor` multiplies its logit if it has two classes."""
    coefficients = step.numbers("coef_", None, x.width)
    outputs, classes = len(coefficients), len(step.listed("classes_"))
    if outputs != (1 if classes == 2 else classes):  # noqa: PLR2004  # two classes have one logit
        raise step.refuse("its coefficients do not fit its classes")
    intercept = step.need("intercept_")
    bias = step.numbers("intercept_", outputs) if np.ndim(intercept) else np.full(outputs, float(intercept))
    if outputs > 1:
        return _network(step, x, multiclass, [(coefficients.T, bias, "identity")])
    return _network(step, x, "sigmoid", [(coefficients.T * factor, bias * factor, "identity")])


def logistic_regression(step: Step, x: SymbolicMatrix) -> SymbolicNetwork:
    """Return `LogisticRegression` or `LogisticRegressionCV`: releases before 1.8 also have one-versus-rest."""
    multi_class = step.get("multi_class", "auto")
    liblinear = step.get("solver") == "liblinear" and multi_class != "multinomial"
    # A multinomial model of two classes has the logits -z and z.
    factor = 2.0 if multi_class == "multinomial" else 1.0
    return _linear(step, x, "ovr" if multi_class == "ovr" or liblinear else "softmax", factor)


def sgd_classifier(step: Step, x: SymbolicMatrix) -> SymbolicNetwork:
    """Return `SGDClassifier` with the log loss; of several classes each is one-versus-rest."""
    if step.get("loss") not in {"log_loss", "log"}:
        raise step.refuse('only loss="log_loss" gives probabilities of a logistic model')
    return _linear(step, x, "ovr")


def linear_discriminant(step: Step, x: SymbolicMatrix) -> SymbolicNetwork:
    """Return `LinearDiscriminantAnalysis`."""
    return _linear(step, x, "softmax")


def multinomial_naive_bayes(step: Step, x: SymbolicMatrix) -> SymbolicNetwork:
    """Return `MultinomialNB`, whose joint log likelihood is linear in the counts."""
    classes = len(step.listed("classes_"))
    weight = step.numbers("feature_log_prob_", classes, x.width).T
    bias = step.numbers("class_log_prior_", classes)
    if classes == 2:  # noqa: PLR2004  # two classes have one logit
        weight, bias = weight[:, 1:] - weight[:, :1], bias[1:] - bias[:1]
        return _network(step, x, "sigmoid", [(weight, bias, "identity")])
    if classes < 2:  # noqa: PLR2004
        raise step.refuse("it knows fewer than two classes")
    return _network(step, x, "softmax", [(weight, bias, "identity")])


def multilayer_perceptron(step: Step, x: SymbolicMatrix) -> SymbolicNetwork:
    """Return `MLPClassifier`, whose hidden layers have one activation."""
    hidden = ACTIVATIONS[step.choice("activation", "relu", *ACTIVATIONS)]
    head = OUTPUTS[step.choice("out_activation_", "", *OUTPUTS)]
    weights, biases = step.listed("coefs_"), step.listed("intercepts_")
    if not weights or len(weights) != len(biases):
        raise step.refuse("its layers have no weights")
    layers: list[Layer] = []
    width = x.width
    for place, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        matrix = step.as_numbers(weight, "coefs_", width, None)
        width = matrix.shape[1]
        activation = hidden if place < len(weights) - 1 else "identity"
        layers.append((matrix, step.as_numbers(bias, "intercepts_", width), activation))
    binarizer = step.child(step.need("_label_binarizer"))
    if head == "sigmoid" and binarizer.get("y_type_") == "multilabel-indicator":
        head = "multilabel"
    if width != (1 if head == "sigmoid" else len(step.listed("classes_"))):
        raise step.refuse("its last layer does not fit its classes")
    return _network(step, x, head, layers)


def join_one_vs_rest(step: Step, networks: Sequence[SymbolicNetwork]) -> SymbolicNetwork:
    """Return the network of `OneVsRestClassifier`: its estimators of two classes side by side."""
    binarizer = step.child(step.need("label_binarizer_"))
    classes = binarizer.listed("classes_")
    multilabel = str(binarizer.get("y_type_", "")).startswith("multilabel")
    head: Head = "multilabel" if multilabel else "ovr"
    shapes = {tuple(layer.activation for layer in network.layers) for network in networks}
    if any(network.head != "sigmoid" for network in networks) or len(shapes) != 1:
        raise step.refuse("its estimators are not alike, with two classes each")
    if not multilabel and len(classes) == 2 and len(networks) == 1:  # noqa: PLR2004
        only = networks[0]
        return SymbolicNetwork("sigmoid", classes, only.branches, only.layers)
    if len(networks) != len(classes):
        raise step.refuse("it has no estimator for each class")
    sizes = [len(network.layers[0].bias) for network in networks]
    total, branches, start = sum(sizes), [], 0
    for network, size in zip(networks, sizes, strict=True):
        for branch in network.branches:
            spread = np.zeros((branch.matrix.width, total))
            spread[:, start : start + size] = branch.weight
            branches.append(Branch(branch.matrix, spread))
        start += size
    layers = [_side_by_side(alike) for alike in zip(*(network.layers for network in networks), strict=True)]
    return SymbolicNetwork(head, classes, branches, layers)


def _side_by_side(layers: Sequence[DenseLayer]) -> DenseLayer:
    """Return the layer whose inputs and outputs are those of layers side by side."""
    heights = [layer.weight.shape[0] for layer in layers]
    widths = [layer.weight.shape[1] for layer in layers]
    weight = np.zeros((sum(heights), sum(widths)))
    top = left = 0
    for layer, height, width in zip(layers, heights, widths, strict=True):
        weight[top : top + height, left : left + width] = layer.weight
        top, left = top + height, left + width
    return DenseLayer(weight, np.concatenate([layer.bias for layer in layers]), layers[0].activation)


HEADS: Final = {
    "LinearDiscriminantAnalysis": linear_discriminant,
    "LogisticRegression": logistic_regression,
    "LogisticRegressionCV": logistic_regression,
    "MLPClassifier": multilayer_perceptron,
    "MultinomialNB": multinomial_naive_bayes,
    "SGDClassifier": sgd_classifier,
}

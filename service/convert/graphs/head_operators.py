"""Operators that are not linear: activations, heads, and the labels that follow from probabilities."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import onnx

from service.convert.columns.raw_inputs import ColumnError
from service.convert.graphs.graph_values import (
    ClassNames,
    Columns,
    Named,
    Probabilities,
    Reduction,
    Thresholded,
    Value,
    check_finite,
    name_classes,
    note_scaling,
)
from service.convert.graphs.level_blocks import apply_function, find_function
from service.convert.graphs.linear_operators import divide_by_sum
from service.convert.graphs.node_reading import Call

TWO_CLASSES: Final = 2


def activation(function: str) -> Callable[[Call], Value]:
    """Return the operator of a function of each column."""

    def apply(call: Call) -> Value:
        value = call.columns()
        return value.with_matrix(apply_function(function, value.take_numbers()))

    return apply


def exponential(call: Call) -> Value:
    """Return e^z; of the logarithm of probabilities these."""
    value = call.values[0] if call.values else None
    if isinstance(value, Probabilities) and value.kind == "log_softmax":
        return Probabilities("softmax", value.logits)
    return activation("exp")(call)


def logarithm(call: Call) -> Value:
    """Return ln z."""
    value = call.values[0] if call.values else None
    if isinstance(value, Probabilities) and value.kind == "softmax":
        return Probabilities("log_softmax", value.logits)
    return activation("log")(call)


def softmax(call: Call) -> Value:
    """Return the softmax of the columns; of ln sigma(z) it is sigma(z) divided by its sum."""
    value = call.columns()
    # Before opset 13 the default is 1, and later it is -1: the same one here.
    if len(value.tail) != 1 or call.axis(2, -1) != 1:
        raise ColumnError("its axis is not that of the columns")
    matrix = value.take_numbers()
    logistic = find_function(matrix, "log_logistic")
    if logistic is not None:
        return Probabilities("normalized", apply_function("sigmoid", logistic))
    return Probabilities("softmax", matrix)


def log_softmax(call: Call) -> Value:
    """Return the logarithm of the softmax."""
    value = softmax(call)
    if not isinstance(value, Probabilities) or value.kind != "softmax":
        raise ColumnError("it is no logarithm of a softmax")
    return Probabilities("log_softmax", value.logits)


def reduce_sum(call: Call) -> Value:
    """Return the sum of the columns of each row."""
    value = _find_reduced(call)
    matrix = value.take_numbers()
    total = matrix.mix(np.ones((value.width, 1)), np.zeros(1))
    tail = (*value.tail[:-1], 1) if call.whole("keepdims", 1) else value.tail[:-1]
    return Columns(total, tail, value.datatype, sum_of=find_function(matrix, "abs") or matrix)


def reduce_log_sum_exp(call: Call) -> Value:
    """Return the logarithm of the sum of e^z over the columns of each row."""
    return Reduction("log_sum_exp", _find_reduced(call).take_numbers())


def normalizer(call: Call) -> Value:
    """Divide probabilities by their sum."""
    value = call.values[0] if call.values else None
    if call.text("norm", "MAX") != "L1":
        raise ColumnError("only probabilities may be divided by a norm, by L1")
    if isinstance(value, Probabilities) and value.kind in {"softmax", "normalized"}:
        return value
    return divide_by_sum(call.columns())


def linear_classifier(call: Call) -> tuple[Value, ...]:
    """Return the label and the probabilities of a linear classifier."""
    value = call.columns()
    coefficients, intercepts = call.numbers("coefficients"), call.numbers("intercepts")
    texts, numbers = call.texts("classlabels_strings"), call.numbers("classlabels_ints")
    names = name_classes(texts if texts is not None else [] if numbers is None else numbers)
    if coefficients is None or not coefficients.size or coefficients.size % value.width or len(value.tail) != 1:
        raise ColumnError("its coefficients do not fit the columns")
    weights = coefficients.reshape(-1, value.width).T
    K = weights.shape[1]
    bias = np.zeros(K) if intercepts is None or not intercepts.size else intercepts
    transform = call.text("post_transform", "NONE")
    is_single = K == 1 and len(names) == TWO_CLASSES
    if bias.shape != (K,) or not (is_single or len(names) == K):
        raise ColumnError("its classes do not fit its coefficients")
    if is_single:
        if transform != "LOGISTIC":
            raise ColumnError("it has one row of coefficients for two classes, and no logistic function")
        weights, bias = np.hstack([-weights, weights]), np.hstack([-bias, bias])
    check_finite(weights, bias)
    note_scaling(value.take_numbers())
    scores = value.matrix.mix(weights, bias)
    if transform == "SOFTMAX":
        return ClassNames(names), Probabilities("softmax", scores)
    if transform == "LOGISTIC":
        scores = apply_function("sigmoid", scores, is_optional=not is_single)
    elif transform != "NONE":
        raise ColumnError("its probabilities are neither a softmax nor a logistic function")
    return ClassNames(names), Columns(scores, (len(names),), onnx.TensorProto.FLOAT)


def zip_map(call: Call) -> Value:
    """Return probabilities with the names of the classes."""
    texts, numbers = call.texts("classlabels_strings"), call.numbers("classlabels_int64s")
    names = name_classes(texts if texts is not None else [] if numbers is None else numbers)
    return Named(call.values[0] if call.values else None, names)


def arg_max(call: Call) -> Value:  # noqa: ARG001  # of any probabilities
    """Return the number of the most probable class."""
    return ClassNames()


def reach_threshold(call: Call) -> Value:
    """Compare probabilities with thresholds."""
    value, thresholds = call.columns(), call.need_constant(1)
    # The shortest decimal number that is the threshold in its own type: 0.3, and not 0.30000001192092896.
    exact = np.array([float(str(one)) for one in thresholds.ravel()]).reshape(thresholds.shape)
    return Thresholded(value.broadcast(exact)[1])


def _find_reduced(call: Call) -> Columns:
    """Return the columns that a node adds up."""
    value, axes = call.columns(), call.constant(1, "axes")
    rank = len(value.tail)
    if not rank or np.prod(value.tail[:-1]) != 1 or axes is None or axes.ravel().tolist() not in ([rank], [-1]):
        raise ColumnError("it adds up something else than the columns of a row")
    return value


ACTIVATION_OPERATORS: Final[Mapping[str, Callable[[Call], Value]]] = {
    "Abs": activation("abs"),
    "Relu": activation("relu"),
    "Sigmoid": activation("sigmoid"),
    "Tanh": activation("tanh"),
}

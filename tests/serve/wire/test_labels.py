"""Labels become targets, and every invalid label is rejected with one sentence."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import UnacceptableError
from service.serve.wire.labels import LabelParser
from service.softmax.scores import SUM_TOLERANCE
from service.store.log.feedback_payload import Targets

IRIS = LabelParser(["setosa", "versicolor", "virginica"], multilabel=False)
TAGS = LabelParser(["a", "b", "c"], multilabel=True)


def read(labels: LabelParser, *values: Any) -> tuple[Targets, list[Any], str]:
    kind, targets = labels.parse_labels(list(values), len(values))
    return kind, targets.tolist(), targets.dtype.name


def test_names_and_indices_mean_classes() -> None:
    assert read(IRIS, "virginica", 0, 1, "versicolor") == (Targets.INDEX, [2, 0, 1, 1], "int32")
    assert read(IRIS, 2, 0) == (Targets.INDEX, [2, 0], "int32")
    assert [IRIS.find_index(label) for label in ("setosa", 2, 3, -1, "x", True, 1.0, None)] == [0, 2, *[-1] * 6]


def test_one_distribution_makes_the_other_labels_distributions() -> None:
    kind, targets, dtype = read(IRIS, [0.5, 0, 0.5], "setosa", 2)
    assert (kind, dtype) == (Targets.DISTRIBUTION, "float64")
    assert targets == [[0.5, 0, 0.5], [1, 0, 0], [0, 0, 1]]


def test_a_list_of_classes_is_a_set_in_a_multilabel_model() -> None:
    assert read(TAGS, ["a", 2], [], ["b", "b", 1]) == (Targets.SET, [[1, 0, 1], [0, 0, 0], [0, 1, 0]], "uint8")


WRONG = [
    [1.0, 1e-3, 0], [-0.1, 1.1, 0], [-0.5, 1, 0.5], [0, 0, 0], [0.5, 0.5], [1, 0, 0, 0], [1, 0, "0"], [1, 0, True],
    [1, 0, None], [1e300, -1e300, 1], [[1, 0, 0]], [1e308, 1e308, 0],
]  # fmt: skip


@pytest.mark.parametrize("values", WRONG)
def test_an_invalid_distribution_is_rejected(values: Any) -> None:
    with pytest.raises(UnacceptableError, match="The distribution of row 1"):
        IRIS.parse_labels([[1, 0, 0], values], 2)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.floats(-3e-6, 3e-6))
def test_a_sum_is_1_within_the_tolerance(shares: list[float], off: float) -> None:
    """A distribution rounded to float32 is accepted; a larger difference is rejected."""
    if sum(shares) < 0.1:
        return
    values = [share / sum(shares) * (1 + off) for share in shares]
    distance = abs(float(np.sum(np.array(values))) - 1)
    if distance <= SUM_TOLERANCE:
        assert read(IRIS, values)[1] == [values]
    else:
        with pytest.raises(UnacceptableError):
            read(IRIS, values)
    if abs(off) < SUM_TOLERANCE / 2:
        single = np.array(values, np.float32).astype(float)
        assert read(IRIS, single.tolist())[0] == Targets.DISTRIBUTION


@pytest.mark.parametrize("names", [["0", "1", "2"], ["+0", "01", "x"], ["1.0", "-", "x2"]])
def test_an_index_is_accepted_if_it_means_one_class(names: list[str]) -> None:
    """This holds too if the names are whole numbers equal to their indices."""
    assert read(LabelParser(names, multilabel=False), 1, names[1], 2)[1] == [1, 1, 2]


@pytest.mark.parametrize("names", [["1", "2", "3"], ["a", "b", "0"], ["-1", "1", "2"], ["0", "1", "007"]])
@pytest.mark.parametrize("multilabel", [False, True])
def test_an_ambiguous_index_is_rejected(names: list[str], multilabel: bool) -> None:  # noqa: FBT001
    """Every index in every row is rejected, and names are still accepted."""
    labels = LabelParser(names, multilabel=multilabel)
    for index in range(3):
        assert labels.find_index(index) == -1
        for rows in ([index], [index, names[0]]):
            with pytest.raises(UnacceptableError, match="must be a class name"):
                labels.parse_labels([[label] for label in rows] if multilabel else rows, len(rows))
    assert [labels.find_index(name) for name in names] == [0, 1, 2]


@pytest.mark.parametrize("label", ["x", "", 3, -1, 2**64])
def test_an_unknown_class_names_the_endpoint_that_adds_it(label: Any) -> None:
    for labels, value in ((IRIS, label), (TAGS, [label])):
        with pytest.raises(UnacceptableError, match=re.escape('one of the model\'s "classes"; add a class with')):
            labels.parse_labels([value], 1)


@pytest.mark.parametrize("label", [True, 1.0, None, {}, {"a": 1}])
def test_a_label_of_another_type_is_rejected(label: Any) -> None:
    with pytest.raises(UnacceptableError, match="must be a class name, an index, or a distribution"):
        IRIS.parse_labels([label], 1)
    for value in (label, "a", 1):
        with pytest.raises(UnacceptableError, match="must be a list of class names or indices"):
            TAGS.parse_labels([value], 1)
    with pytest.raises(UnacceptableError, match="must be a list of class names or indices"):
        TAGS.parse_labels([[label]], 1)


@pytest.mark.parametrize("labels", [None, "ab", {"a": 1, "b": 2}, 2])
def test_labels_must_be_a_list_of_one_for_each_row(labels: Any) -> None:
    with pytest.raises(UnacceptableError, match='must have "labels"'):
        IRIS.parse_labels(labels, 2)

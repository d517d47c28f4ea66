"""A fitted pipeline in memory, as the source that a converted model is compared with."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

import numpy as np

from service.convert.converted_model import Doubles, Row
from service.convert.scikit.row_layout import PipelineInput, RowLayout
from service.errors import ConversionError


class ProbabilityClassifier(Protocol):
    """A fitted classifier of scikit-learn."""

    def predict_proba(self, X: PipelineInput, /) -> Doubles:
        """Return the probabilities (B, C) of B rows."""


@contextmanager
def asked_by_pairs(estimator: object) -> Iterator[None]:
    """Have hashers of lists of names take pairs of names and numbers, which they hash alike, for a while.

    Args:
        estimator: A classifier, a pipeline, or a search over one.
    """
    best = getattr(estimator, "best_estimator_", estimator)
    parts = [best, *getattr(best, "get_params", dict)().values()]
    hashers: list[Any] = [part for part in parts if getattr(part, "input_type", None) == "string"]
    for hasher in hashers:
        hasher.input_type = "pair"
    try:
        yield
    finally:
        for hasher in hashers:
            hasher.input_type = "string"


class PipelineSource:
    """A fitted classifier in memory.

    Args:
        estimator: The classifier, with `predict_proba`.
        layout: Its input.
    """

    def __init__(self, estimator: ProbabilityClassifier, layout: RowLayout) -> None:
        self._estimator: Final = estimator
        self._layout: Final = layout

    def predict_rows(self, rows: Sequence[Row]) -> Doubles:
        """Return the probabilities (B, C) of B rows.

        Raises:
            ConversionError: The classifier refuses a row.
        """
        try:
            with asked_by_pairs(self._estimator):
                return np.asarray(self._estimator.predict_proba(self._layout.to_input(rows)), np.float64)
        except Exception as error:
            raise ConversionError(f"the source refuses rows that the model accepts: {type(error).__name__}") from error

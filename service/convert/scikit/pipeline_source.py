"""A fitted pipeline in memory, as the source that a converted model is compared with."""

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np

from service.convert.converted_model import Doubles, Row
from service.convert.scikit.row_layout import PipelineInput, RowLayout
from service.errors import ConversionError


class ProbabilityClassifier(Protocol):
    """A fitted classifier of scikit-learn."""

    def predict_proba(self, X: PipelineInput, /) -> Doubles:
        """Return the probabilities (B, C) of B rows."""


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
            return np.asarray(self._estimator.predict_proba(self._layout.to_input(rows)), np.float64)
        except Exception as error:
            raise ConversionError(f"the source refuses rows that the model accepts: {type(error).__name__}") from error

"""The parameters that a sparse learner publishes, as parameters.py has those of other kinds."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.softmax.arrays import Floats
from service.softmax.calibration import Calibration, calibration_from_tensors, calibration_tensors
from service.softmax.classifier import Head
from service.softmax.sparse_model import SINGLE, SparseModel
from service.softmax.sparse_weights import SparseWeights


@dataclass(frozen=True, eq=False)
class SparseParameters:
    """The parameters of a sparse model, in float32."""

    head: Head
    weights: SparseWeights
    calibration: Calibration | None = None

    @property
    def n_logits(self) -> int:
        """K."""
        return self.weights.n_logits

    @property
    def n_features(self) -> int:
        """N, the number of columns."""
        return self.weights.n_columns

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32."""
        return SINGLE

    def build_model(self) -> SparseModel:
        """Return the model with these parameters; it shares the weights.

        Raises:
            ValueError: They form no model.
        """
        return SparseModel(self.head, self.weights, self.calibration)

    def tensors(self) -> list[Floats]:
        """Return copies of all tensors in the order of their hash: weights (N, K), bias (K,), the calibration.

        They are those of a `LinearParameters` of the same weights, so the hash is the same.
        """
        return [*self.weights.to_matrix(), *calibration_tensors(self.calibration)]

    def effective_tensors(self) -> list[Floats]:
        """Return the tensors that answers depend on: all."""
        return self.tensors()

    def with_classes(self, count: int) -> "SparseParameters":
        """Return parameters with `count` more classes, at the mean of the others; their biases lower by ln 100."""
        return replace(self, weights=self.weights.with_classes(count))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all arrays by name, not copied; `from_arrays` is the reverse, given the head.

        Returns:
            `sizes` (2,) int64, N and K; `base` (N + 1, Kp); `slots` (T,) and `changed` (T, Kp) if rows have changed;
            `calibration` if there is one.
        """
        weights = self.weights
        table = {} if not weights.n_changed else {"slots": weights.slots, "changed": weights.changed}
        own = {} if self.calibration is None else {"calibration": self.calibration.to_tensor()}
        return {"sizes": np.array([self.n_features, self.n_logits]), "base": weights.base, **table, **own}

    def whole_arrays(self) -> dict[str, NDArray[Any]]:
        """Return copies of all arrays by name as a linear model has them: weights (N, K), bias (K,), calibration."""
        weights, bias = self.weights.to_matrix()
        own = {} if self.calibration is None else {"calibration": self.calibration.to_tensor()}
        return {"weights": weights, "bias": bias, **own}

    def column_arrays(self, columns: NDArray[np.int32]) -> dict[str, NDArray[Any]]:
        """Return the arrays of some columns by name; `with_columns` is the reverse, given the other columns.

        Args:
            columns: (C,) the columns, ascending.

        Returns:
            `columns` as given; `weights` (C + 1, K), the bias first; `calibration` if there is one.
        """
        rows = np.concatenate([self.weights.bias()[None], self.weights.rows_of(columns)])
        own = {} if self.calibration is None else {"calibration": self.calibration.to_tensor()}
        return {"columns": columns, "weights": rows, **own}

    def with_columns(self, arrays: Mapping[str, NDArray[Any]]) -> "SparseParameters":
        """Return parameters with the bias, the columns and the calibration of `column_arrays`, copied.

        Raises:
            KeyError: An array is missing.
            ValueError: The shapes contradict each other, or a column is out of range.
        """
        weights = self.weights.with_rows(arrays["columns"], arrays["weights"])
        return SparseParameters(self.head, weights, calibration_from_tensors(self.head, arrays))

    def clips(self) -> dict[str, float | None]:
        """Return the clip of each stage: a sparse model has none."""
        return {}

    @classmethod
    def from_arrays(cls, head: Head, arrays: Mapping[str, NDArray[Any]]) -> "SparseParameters":
        """Return the parameters with these arrays, which may be read-only mappings.

        Raises:
            KeyError: An array is missing.
            ValueError: The shapes contradict each other.
            TypeError: An array has another dtype or layout.
        """
        n_features, n_logits = arrays["sizes"].tolist()
        weights = SparseWeights(arrays["base"], n_logits, arrays.get("slots"), arrays.get("changed"))
        if weights.n_columns != n_features:
            raise ValueError("base must have a row for the bias and for each column")
        return cls(head, weights, calibration_from_tensors(head, arrays))

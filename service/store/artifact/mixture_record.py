"""The field `mixture` of a manifest: a learned mixture of experts."""

from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from service.record import ROWS_MAX, Finites, Name, Probabilities, Record
from service.softmax.kernels.mixture_inputs import STAGE_ROWS
from service.softmax.kernels.random_features import FEATURES_STEP

# The inverse curvature of so many random features takes 64 MiB.
RANDOM_FEATURES_MAX: Final = 4096


class MixtureRecord(Record):
    """The numbers that a mixture of experts has learned; softmax/mixture_model.py describes the arrays.

    Attributes:
        features: Name of the tensor of the expert on random features.
        base: Name of the tensor of the base expert.
        linear: Name of the tensor of the linear expert, or None if rows are wide.
        stage: Name of the tensor of the inputs' statistics.
        weights: The weights of the mixture.
        frequencies: The frequencies of the classes.
        random_features: The number of random features.
        seed: Their seed.
    """

    features: Name
    base: Name
    linear: Name | None = None
    stage: Name
    weights: Finites
    frequencies: Probabilities
    random_features: Annotated[int, Field(ge=1, le=RANDOM_FEATURES_MAX, multiple_of=FEATURES_STEP)]
    seed: Annotated[int, Field(ge=0, le=ROWS_MAX)]

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """The names of the tensors, in the order of `MixtureArrays`."""
        return (self.features, self.base, *(() if self.linear is None else (self.linear,)), self.stage)

    @property
    def numbers(self) -> list[NDArray[np.float64]]:
        """The last arrays of `MixtureArrays`, which are no tensors of the file."""
        return [np.array(values, np.float64) for values in (self.weights, self.frequencies, self.draw)]

    @property
    def draw(self) -> tuple[int, int]:
        """The number of random features, and their seed."""
        return self.random_features, self.seed

    @property
    def n_heads(self) -> int:
        """The number of experts on random features."""
        return len(self.weights) // 2 - self._experts

    @property
    def _experts(self) -> int:
        """The number of experts without an offset."""
        return 2 if self.linear is None else 3

    def tensor_shapes(self, n_features: int, n_outputs: int) -> dict[str, tuple[int, ...]]:
        """Return each tensor's shape by its name."""
        inputs = 1 + self.random_features + (0 if self.linear is None else n_features)
        shapes: dict[str, tuple[int, ...]] = {self.features: (inputs, n_outputs * self.n_heads)}
        for name in (self.base, self.linear):
            if name is not None:
                shapes[name] = (n_features + 1, n_outputs)
        return shapes | {self.stage: (STAGE_ROWS, n_features)}

    @model_validator(mode="after")
    def _weights_fit(self) -> "MixtureRecord":
        if len(self.weights) not in {2 * self._experts + 2, 2 * self._experts + 4}:
            raise ValueError("weights must hold two numbers for each expert, and two")
        if not all(0 <= weight <= 1 for weight in self.weights[len(self.weights) // 2 - 1 :]):
            raise ValueError("the second half of weights, from the learned mixture's on, must be from 0 to 1")
        return self

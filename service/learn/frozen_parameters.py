"""The parameters that shadow mode serves, and the arrays with which checkpoints and BASE events hold them.

They are all arrays of the parameters. Of sparse rows they are `columns` (C,), those that differ from the artifact,
`weights` (C + 1, K), the bias first, and `calibration` if there is one.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from numpy.typing import NDArray

from service.softmax.parameters import Parameters
from service.softmax.sparse_parameters import SparseParameters
from service.store.artifact.artifact import Artifact
from service.store.artifact.model_factory import restore_parameters, sparse_parameters

Arrays = Mapping[str, NDArray[Any]]


class FrozenParameters:
    """Parameters of a state, which learning does not change. Immutable.

    Args:
        artifact: The artifact that the state starts from.
        parameters: The parameters.

    Attributes:
        parameters: As given.
    """

    def __init__(self, artifact: Artifact, parameters: Parameters) -> None:
        self._artifact: Final = artifact
        self.parameters: Final = parameters
        self._columns: Arrays | None = None

    def with_classes(self, count: int) -> "FrozenParameters":
        """Return the parameters with `count` more classes."""
        return FrozenParameters(self._artifact, self.parameters.with_classes(count))

    def arrays(self, added_classes: Sequence[int]) -> Arrays:
        """Return the arrays by name, not copied; `restore` is the reverse.

        Args:
            added_classes: The number of classes of each addition since the artifact, in order.
        """
        parameters = self.parameters
        if not isinstance(parameters, SparseParameters):
            return parameters.arrays()
        if self._columns is None:  # a comparison of all weights, once
            start = sparse_parameters(self._artifact, added_classes)
            self._columns = parameters.column_arrays(parameters.weights.differing_columns(start.weights))
        return self._columns

    @classmethod
    def restore(cls, artifact: Artifact, arrays: Arrays, scalars: Mapping[str, Any]) -> "FrozenParameters":
        """Return the parameters with these arrays.

        Args:
            artifact: The artifact.
            arrays: The arrays by name.
            scalars: Those of the state; `added_classes` for sparse rows, else `frozen_clips`.

        Raises:
            KeyError: An array or a scalar is missing.
            ValueError: The arrays are not those of such parameters.
        """
        if artifact.has_sparse_rows:
            return cls(artifact, sparse_parameters(artifact, scalars["added_classes"]).with_columns(arrays))
        return cls(artifact, restore_parameters(artifact.manifest, arrays, scalars["frozen_clips"]))

"""Store the served states of a sparse model as a base, whole weights, and the columns that have changed since.

A base is written for a learner that has none, when an eighth of the columns has changed, and for the parameters that
shadow mode serves. Bases that no snapshot names are deleted (store/states/bases.py).
"""

from typing import Any, Final

from numpy.typing import NDArray

from service.learn.state import LearnerState
from service.softmax.sparse_learner import SparseLearner
from service.softmax.sparse_parameters import SparseParameters
from service.softmax.sparse_weights import SparseWeights
from service.store.directory.data_directory import StreamFolder
from service.store.states.bases import delete_bases, write_base
from service.store.states.snapshots import BASE, Fields

# A base is written when 1 / 8 of the columns has changed: a table of more takes a quarter of the base and more.
CHANGED_SHARE: Final = 8


class SparseBases:
    """The bases of one stream.

    Args:
        folder: The folder of the stream.
    """

    def __init__(self, folder: StreamFolder) -> None:
        self._folder: Final = folder
        self._names: set[str] = set()  # those of this process
        self._frozen: tuple[SparseParameters, str] | None = None

    def store_state(self, state: LearnerState, learner: SparseLearner, position: Fields) -> tuple[str, dict[str, Any]]:
        """Return the name of a base of what a state serves, which may be new, and the arrays of a snapshot beside it.

        Args:
            state: The state.
            learner: Its learner.
            position: The fields that describe the position of the state.

        Raises:
            OSError: The disk failed; nothing has changed but for a base that no snapshot names.
        """
        served = state.served_parameters() if state.shadow else None
        if isinstance(served, SparseParameters):
            return self._store_frozen(served, position), _arrays_beside_base(served)
        touched = learner.touched
        if touched.saved_as not in self._names or CHANGED_SHARE * len(touched.changed()) > learner.n_features:
            touched.clear_changes(self._write(position, learner.weights.base))
        weights = SparseWeights(learner.weights.base, learner.n_logits, *learner.build_changes())
        assert touched.saved_as is not None  # noqa: S101  # it is one of the names
        return touched.saved_as, _arrays_beside_base(SparseParameters(learner.head, weights, state.calibration))

    def delete_unnamed(self) -> None:
        """Delete the bases that no snapshot names; call this after each snapshot, and after deleting some."""
        self._names &= delete_bases(self._folder.bases, self._folder.snapshots)

    def _store_frozen(self, served: SparseParameters, position: Fields) -> str:
        if self._frozen is None or self._frozen[0] is not served or self._frozen[1] not in self._names:
            self._frozen = served, self._write(position, served.weights.merged())
        return self._frozen[1]

    def _write(self, position: Fields, base: NDArray[Any]) -> str:
        name = write_base(self._folder.bases, position, base)
        self._names.add(name)
        return name


def _arrays_beside_base(parameters: SparseParameters) -> dict[str, NDArray[Any]]:
    return {name: array for name, array in parameters.arrays().items() if name != BASE}

"""Store the served states of a sparse model as a base, whole weights, and the columns that have changed since.

The first base is the artifact that the stream is bound to. Another is written when an eighth of the columns has changed
since the last one, for a fold that starts from the state of an earlier release, and for the parameters that shadow mode
serves. But for the first one, bases that no snapshot names are deleted (store/states/bases.py).
"""

from typing import Any, Final

from numpy.typing import NDArray

from service.learn.state import LearnerState
from service.softmax.sparse_learner import SparseLearner
from service.softmax.sparse_parameters import SparseParameters
from service.softmax.sparse_weights import SparseWeights
from service.store.artifact.artifact import Artifact
from service.store.artifact.mapped_artifact import BASE
from service.store.directory.data_directory import StreamFolder
from service.store.states.bases import delete_bases, write_base, write_first_base
from service.store.states.snapshots import Fields

# A base is written when 1 / 8 of the columns has changed: a table of more takes a quarter of the base and more.
CHANGED_SHARE: Final = 8


class SparseBases:
    """The bases of one stream.

    Args:
        folder: The folder of the stream.
        artifact: The artifact that it is bound to.
    """

    def __init__(self, folder: StreamFolder, artifact: Artifact) -> None:
        self._folder: Final = folder
        self._artifact: Final = artifact
        self._first: str | None = None
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
        first = self._find_first()
        served = state.served_parameters() if state.shadow else None
        if isinstance(served, SparseParameters):
            return self._store_frozen(served, position), _arrays_beside_base(served)
        touched = learner.touched
        if touched.saved_as is None and state.artifact is self._artifact:
            touched.saved_as = first
        if touched.saved_as not in self._names or CHANGED_SHARE * len(touched.changed()) > learner.n_features:
            touched.clear_changes(self._write(position, learner.weights.base))
        weights = SparseWeights(learner.weights.base, learner.n_logits, *learner.build_changes())
        assert touched.saved_as is not None  # noqa: S101  # it is one of the names
        return touched.saved_as, _arrays_beside_base(SparseParameters(learner.head, weights, state.calibration))

    def delete_unnamed(self) -> None:
        """Delete the bases that no snapshot names; call this after each snapshot, and after deleting some."""
        self._names &= delete_bases(self._folder.bases, self._folder.snapshots, self._first)

    def _find_first(self) -> str:
        """Return the name of the first base, which is written if it is missing."""
        if self._first is None or self._first not in self._names:
            self._first = write_first_base(self._folder.bases, self._artifact)
            self._names.add(self._first)
        return self._first

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

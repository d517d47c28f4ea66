"""The learning state of one model: state(0) is an artifact, and each event gives the next state.

    fold_rows(rows)     score rows, then learn from them, one after the other
    add_classes(n)      add classes
    configure(changes)  change the rule or its constants; pause (only score rows); shadow mode (learn, serve the old)

Invariants:

- A state is a function of the artifact and of these calls. No clock, file, environment variable or number of processes
  changes it; only what is passed in does.
- The same artifact and calls give the same bits on every processor. Rows may be split into calls at any point.
- A trained artifact is served with exactly its own weights until the first row is learned.
- New classes come after the old ones. No two old classes change their order in any row, but for close ones of a
  mixture.
- Another rule starts with new sums and learns the same weights in the same coordinates. The rule mixture adds weights
  of its own to what was learned before, and no other rule can continue from it.
- The clip of a stage is part of what is served. Another rule leaves it alone unless the change names it.
- In shadow mode the parameters from its start are served, and new classes are added to them too.
- A calibration learns beside the weights and never changes what they learn.
- A change of what is computed, of a default or of a guard raises FOLD_VERSION: it changes what logs replay to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ArtifactError, ClassesFixedError
from service.learn.export import build_artifact
from service.learn.frozen_parameters import FrozenParameters
from service.learn.learning_rule import LearningRule
from service.learn.scored_rows import ScoredRows
from service.softmax.arrays import Doubles, Floats, Integers
from service.softmax.calibration import Calibration
from service.softmax.learner_factory import AnyLearner
from service.softmax.learner_tensors import copy_tensors, tensors_below
from service.softmax.parameters import Parameters
from service.softmax.progress import OUTCOMES
from service.softmax.reliability_diagram import reliability_diagram
from service.softmax.sparse_learner import SparseLearner
from service.softmax.sparse_rows import Rows, count_rows
from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import FOLD_VERSION, OLDEST_FOLD_VERSION
from service.store.artifact.manifest import LearningRecord
from service.store.artifact.model_factory import build_row_model, calibration_learner_of

Tensors = Mapping[str, NDArray[np.floating[Any]]]

SETTINGS: Final = frozenset(("rule", "constants", "paused", "shadow"))
# Prefixes of tensors that are not the learner's.
PARTS: Final = ("frozen.", "artifact.", "calibration.", "history.")


class LearnerState:
    """The state of one model that learns.

    Args:
        artifact: The artifact that it starts from.
        fold_version: The version of the fold, which decides the defaults; by default this release's.

    Raises:
        ArtifactError: The manifest names an unknown rule or constant, or statistics that the model's dtype cannot hold.
    """

    def __init__(self, artifact: Artifact, fold_version: int | None = None) -> None:
        self.artifact: Final = artifact
        self._fold_version: Final = FOLD_VERSION if fold_version is None else fold_version
        self._rule = LearningRule(artifact, self._fold_version)
        self._calibration_learner = calibration_learner_of(artifact)
        self.paused = False
        self._frozen: FrozenParameters | None = None

    @property
    def _learner(self) -> AnyLearner:
        return self._rule.learner

    @property
    def n_classes(self) -> int:
        """The number of classes now."""
        return len(self.artifact.manifest.classes) + sum(self._learner.added_classes)

    @property
    def sparse_learner(self) -> SparseLearner | None:
        """The learner of a model of sparse rows, which a publisher reads; None for other models."""
        return self._learner if isinstance(self._learner, SparseLearner) else None

    @property
    def calibration(self) -> Calibration | None:
        """The learned calibration, or None."""
        return None if self._calibration_learner is None else self._calibration_learner.calibration()

    @property
    def served_calibration(self) -> Calibration | None:
        """The calibration that is served, or None."""
        return self.calibration if self._frozen is None else self._frozen.parameters.calibration

    @property
    def shadow(self) -> bool:
        """Whether the parameters from the start of shadow mode are served."""
        return self._frozen is not None

    @property
    def progress(self) -> dict[str, float]:
        """The progressive loss and accuracy, in total and over the recent rows; see `Learner.progress`."""
        counts = self._learner.progress
        return counts if self._calibration_learner is None else self._calibration_learner.progress(counts)

    @property
    def reliability(self) -> dict[str, Any]:
        """The calibration of the answers over the recent rows; see `reliability_diagram`."""
        answering = self._learner if self._calibration_learner is None else self._calibration_learner
        return reliability_diagram(answering.window, int(self.progress["rows"]))

    @property
    def rule_settings(self) -> dict[str, Any]:
        """The rule, the form and every constant in effect, for the metadata."""
        return self._rule.settings

    def copy(self) -> "LearnerState":
        """Return an equal state that shares nothing with this one."""
        other = LearnerState(self.artifact, self._fold_version)
        other._rule, other.paused, other._frozen = self._rule.copy(), self.paused, self._frozen
        other._calibration_learner = None if self._calibration_learner is None else self._calibration_learner.copy()
        return other

    def fold_rows(
        self,
        rows: Rows,
        labels: Integers | None = None,
        Y: Doubles | None = None,
        weights: Doubles | None = None,
    ) -> Doubles:
        """Score and learn rows in their order, in place.

        Args:
            rows: X (B, N), C-contiguous, of the model's dtype; or B sparse rows.
            labels: (B,) class indices, or None with Y.
            Y: (B, K) float64 targets of the logits, or None with labels.
            weights: (B,) float64 importance; None means 1 for each row.

        Returns:
            (B,) the loss of each row before its step; NaN for a row that was skipped.
        """
        return self._fold(rows, labels, Y, weights, scores=None, outcomes=None)

    def fold_scored_rows(
        self,
        rows: Rows,
        labels: Integers | None = None,
        Y: Doubles | None = None,
        weights: Doubles | None = None,
    ) -> ScoredRows:
        """Do as `fold_rows`, and return how each row was answered before its step."""
        B = count_rows(rows)
        scores, outcomes = np.empty((B, self._learner.n_logits), self._learner.dtype), np.empty((OUTCOMES, B))
        losses = self._fold(rows, labels, Y, weights, scores=scores, outcomes=outcomes)
        return ScoredRows(losses, outcomes, scores)

    def _fold(  # noqa: PLR0917  # the parts of rows
        self,
        rows: Rows,
        labels: Integers | None,
        Y: Doubles | None,
        weights: Doubles | None,
        scores: Floats | None,
        outcomes: Doubles | None,
    ) -> Doubles:
        learner, learning, calibration = self._rule.row_learner, not self.paused, self._calibration_learner
        if calibration is None:
            return learner.fold(rows, labels, Y, weights, learning=learning, scores=scores, outcomes=outcomes)
        if scores is None:
            scores = np.empty((count_rows(rows), learner.n_logits), learner.dtype)
        losses = learner.fold(rows, labels, Y, weights, learning=learning, scores=scores)
        return calibration.fold(scores, losses, labels, Y, weights, learning=learning, outcomes=outcomes)

    def add_classes(self, count: int) -> None:
        """Add classes after the others, each improbable at first.

        Raises:
            ClassesFixedError: The head is sigmoid, which has two classes.
            ValueError: `count` is less than 1.
        """
        if self.artifact.manifest.head == "sigmoid":
            raise ClassesFixedError("A sigmoid head has two classes; train a softmax head to add one.")
        if count < 1:
            raise ValueError("at least one class must be added")
        self._rule.add_classes(count)
        if self._frozen is not None:
            self._frozen = self._frozen.with_classes(count)

    def configure(self, changes: Mapping[str, Any]) -> None:
        """Change how the fold continues: any of `rule`, `constants`, `paused`, `shadow`.

        `constants` replaces all constants that were set before; those it leaves out get their defaults.

        Raises:
            ArtifactError: A name or a value is invalid; nothing is changed.
        """
        if not changes.keys() <= SETTINGS:
            raise ArtifactError("only rule, constants, paused and shadow can be configured")
        for switch in ("paused", "shadow"):
            if not isinstance(changes.get(switch, False), bool):
                raise ArtifactError(f"{switch} must be true or false")
        if "rule" in changes or "constants" in changes:
            self._rule.change(changes.get("rule", self._rule.name), changes.get("constants", {}))
        self.paused = changes.get("paused", self.paused)
        if changes.get("shadow", self.shadow) != self.shadow:
            self._frozen = None if self.shadow else FrozenParameters(self.artifact, self.candidate_parameters())

    def resume_serving(self, *, paused: bool, frozen: Parameters | None) -> None:
        """Continue as another state did: paused or not, and with its parameters in shadow mode, or None."""
        self.paused, self._frozen = paused, None if frozen is None else FrozenParameters(self.artifact, frozen)

    def candidate_parameters(self) -> Parameters:
        """Return copies of the learned parameters."""
        return replace(self._learner.parameters(), calibration=self.calibration)

    def served_parameters(self) -> Parameters:
        """Return the parameters that are served: the learned ones, or in shadow mode those from its start."""
        return self.candidate_parameters() if self._frozen is None else self._frozen.parameters

    def classify(self, row: Rows) -> tuple[Floats, int]:
        """Return the probabilities (1, C) and the label of one row that are served now; nothing is counted."""
        if self._frozen is None:
            answer = self._rule.row_learner.classify(row, self.calibration)
            if answer is not None:
                return answer
        P, labels = build_row_model(self.served_parameters()).classify(row)
        return P, labels[0]

    def tensors(self) -> dict[str, NDArray[np.floating[Any]]]:
        """Return copies of all arrays of the state by name; a checkpoint holds them and `scalars`."""
        tensors = self._rule.tensors() | {"window": self._learner.window.copy()}
        if self._calibration_learner is not None:
            tensors |= {f"calibration.{name}": array for name, array in self._calibration_learner.tensors().items()}
        if self._frozen is not None:
            frozen = self._frozen.arrays(self._learner.added_classes)
            tensors |= {f"frozen.{name}": array for name, array in frozen.items()}
        return tensors

    def scalars(self) -> dict[str, Any]:
        """Return the rest of the state as JSON values."""
        clips = None if self._frozen is None else self._frozen.parameters.clips()
        own = {"paused": self.paused, "frozen_clips": clips}
        return {"fold_version": self._fold_version, **self._rule.scalars(), **own}

    @classmethod
    def from_tensors(cls, artifact: Artifact, tensors: Tensors, scalars: Mapping[str, Any]) -> "LearnerState":
        """Restore the state that returned these tensors and scalars, to the bit.

        Raises:
            ArtifactError: They belong to another artifact, or to a fold of another release.
            KeyError: A scalar is missing.
        """
        if not OLDEST_FOLD_VERSION <= scalars["fold_version"] <= FOLD_VERSION:
            raise ArtifactError("another version of the fold made this state")
        state = cls(artifact, scalars["fold_version"])
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith(PARTS)}
        if "window" not in own:
            raise ArtifactError("a checkpoint lacks the window of recent rows")
        try:
            window = own.pop("window")
            state._rule.restore(own, scalars)
            copy_tensors({"window": state._learner.window}, {"window": window})
            if state._calibration_learner is not None:
                state._calibration_learner.restore(tensors_below(tensors, "calibration."))
            if scalars["frozen_clips"] is not None:
                state._frozen = FrozenParameters.restore(artifact, tensors_below(tensors, "frozen."), scalars)
        except ValueError as error:
            raise ArtifactError(str(error)) from None
        state.paused = scalars["paused"]
        return state

    def export_artifact(self, classes: Sequence[str], provenance: Mapping[str, str]) -> Artifact:
        """Return the learned model as an artifact of its own; see `build_artifact`.

        Args:
            classes: The names of all classes, those of the artifact first.
            provenance: Where the model comes from.

        Raises:
            ArtifactError: The number of names is not that of the classes, or two are equal.
        """
        return build_artifact(
            self.artifact,
            self.candidate_parameters(),
            form=self._learner.form,
            rows=int(self.progress["steps"]),
            learning=self.learning_record,
            classes=classes,
            provenance=provenance,
        )

    @property
    def learning_record(self) -> LearningRecord:
        """The rule and the constants that are set, for a manifest."""
        return LearningRecord(rule=self._rule.name, constants=self._rule.constants)

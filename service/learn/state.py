"""The fold: state(0) is an artifact, state(n + 1) = step(state(n), event(n + 1)). Pure: no clock, file or environment.

A state moves by these alone, each a function of the state and of what it is given:

    fold(rows)          rows are scored, then learned from, one after the other
    add_classes(n)      classes are added behind the others; no other two change their order in any row
    configure(changes)  another rule or other constants; paused (rows are scored only); shadow (learn, serve the old)

The same artifact and the same events give the same bits on every processor, in blocks of any size. A change of what is
computed, of a default or of a guard raises FOLD_VERSION, because it changes what every log replays to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ArtifactError, ClassesFixedError
from service.learn.export import build_artifact
from service.softmax.calibration_learner import CalibrationLearner, fill, reliability_of
from service.softmax.fold_arguments import Integers
from service.softmax.input_stage import Stage
from service.softmax.learner import Parameters, learner_of
from service.softmax.linear_model import Doubles, Floats
from service.softmax.parameters import RuleName
from service.store.artifact.artifact import Artifact, LearningRecord
from service.store.artifact.fingerprint import FOLD_VERSION
from service.store.artifact.learning_rules import (
    build_rule,
    check_constants,
    effective_constants,
    learning_form,
    parse_rule_name,
    select_rule,
)
from service.store.artifact.model_factory import initial_parameters, restore_parameters

THRESHOLD: Final = 0.5
# Tensors that stand beside those of the rule.
PARTS: Final = ("frozen.", "artifact.", "calibration.")


class LearnerState:
    """The state of one model's fold.

    Args:
        artifact: What it starts from.

    Raises:
        ArtifactError: The manifest asks for a rule or constants that there are not, or its statistics cannot be
            represented in the model's dtype.
    """

    def __init__(self, artifact: Artifact) -> None:
        self.artifact: Final = artifact
        self._name, self._constants = select_rule(artifact)
        form = learning_form(artifact, self._name, self._constants)
        manifest = artifact.manifest
        thresholds = np.array(manifest.thresholds or [THRESHOLD] * manifest.n_outputs)
        learned = None
        if form == "delta" and manifest.delta is None and manifest.training is not None:
            learned = Stage(np.array(manifest.training.mean), np.array(manifest.training.scale))
        start = replace(initial_parameters(artifact), calibration=None)
        rule = build_rule(artifact, self._name, form, self._constants)
        try:
            self._learner = learner_of(start, form, rule, thresholds, learned)
        except ValueError as error:
            raise ArtifactError(str(error)) from None
        self._calibration_learner = calibration_learner_of(artifact)
        self.paused = False
        self._frozen: Parameters | None = None

    @property
    def n_classes(self) -> int:
        """The number of classes now."""
        return len(self.artifact.manifest.classes) + sum(self._learner.added)

    @property
    def shadow(self) -> bool:
        """Whether what was served when shadow mode began is still served."""
        return self._frozen is not None

    @property
    def progress(self) -> dict[str, float]:
        """The progressive loss and accuracy, in all and over the last rows; see `Steps.progress`."""
        counted = self._learner.progress
        return counted if self._calibration_learner is None else self._calibration_learner.progress(counted)

    @property
    def reliability(self) -> dict[str, Any]:
        """How far confidence and truth agree over the last rows; see `reliability_of`."""
        told = self._learner if self._calibration_learner is None else self._calibration_learner
        return reliability_of(told.window, int(self.progress["rows"]))

    @property
    def rule_settings(self) -> dict[str, Any]:
        """The rule, the form, and every constant in effect, for the metadata."""
        form = self._learner.form
        return {"rule": self._name, "form": form, "constants": effective_constants(self._name, form, self._constants)}

    def copy(self) -> "LearnerState":
        """Another state that is equal, and goes its own way."""
        other = LearnerState(self.artifact)
        other._name, other._constants = self._name, dict(self._constants)
        other._learner, other.paused, other._frozen = self._learner.copy(), self.paused, self._frozen
        other._calibration_learner = None if self._calibration_learner is None else self._calibration_learner.copy()
        return other

    def fold_rows(
        self,
        X: Floats,
        labels: Integers | None = None,
        Y: Doubles | None = None,
        weights: Doubles | None = None,
    ) -> Doubles:
        """Take the rows of one event, or of several in their order, in place; see `Steps.fold` for the arrays.

        Returns:
            (B,) the loss of each row before its step; NaN for a row that was skipped.
        """
        learning, calibrator = not self.paused, self._calibration_learner
        if calibrator is None:
            return self._learner.fold(X, labels, Y, weights, learning=learning)
        scores = np.empty((len(X), self._learner.n_logits), self._learner.dtype)
        losses = self._learner.fold(X, labels, Y, weights, learning=learning, scores=scores)
        return calibrator.fold(scores, losses, labels, Y, weights, learning=learning)

    def add_classes(self, count: int) -> None:
        """Add `count` classes behind the others, each improbable at first.

        Raises:
            ClassesFixedError: The head is sigmoid, which has two classes.
            ValueError: `count` is less than 1.
        """
        if self.artifact.manifest.head == "sigmoid":
            raise ClassesFixedError("A sigmoid head has two classes; train a softmax head to add one.")
        if count < 1:
            raise ValueError("at least one class must be added")
        self._learner.add_classes(count)
        if self._frozen is not None:
            self._frozen = self._frozen.with_classes(count)

    def configure(self, changes: Mapping[str, Any]) -> None:
        """Change how the fold goes on: any of `rule`, `constants`, `paused`, `shadow`.

        `constants` replaces all that were set before; those that are left out have their defaults. Another rule begins
        with new sums and learns the same weights in the same coordinates.

        Raises:
            ArtifactError: A name or a value is none that there is; nothing is changed.
        """
        if not changes.keys() <= {"rule", "constants", "paused", "shadow"}:
            raise ArtifactError("what can be configured is rule, constants, paused and shadow")
        for switch in ("paused", "shadow"):
            if not isinstance(changes.get(switch, False), bool):
                raise ArtifactError(f"{switch} must be true or false")
        if "rule" in changes or "constants" in changes:
            self._set_rule(changes.get("rule", self._name), changes.get("constants", {}))
        self.paused = changes.get("paused", self.paused)
        if changes.get("shadow", self.shadow) != self.shadow:
            self._frozen = None if self.shadow else self.candidate_parameters()

    def resume_serving(self, *, paused: bool, frozen: Parameters | None) -> None:
        """Go on as a state did that was paused or not, and served something frozen or not."""
        self.paused, self._frozen = paused, frozen

    def candidate_parameters(self) -> Parameters:
        """What has been learned, as copies."""
        served, calibrator = self._learner.served(), self._calibration_learner
        return served if calibrator is None else replace(served, calibration=calibrator.calibration())

    def served_parameters(self) -> Parameters:
        """What answers: the candidate, but in shadow mode what was served when that began."""
        return self.candidate_parameters() if self._frozen is None else self._frozen

    def tensors(self) -> dict[str, NDArray[np.floating[Any]]]:
        """All numbers of the state by name, as copies; what a checkpoint keeps beside `scalars`."""
        kept = self._learner.tensors() | {"window": self._learner.window.copy()}
        if self._calibration_learner is not None:
            kept |= {f"calibration.{name}": tensor for name, tensor in self._calibration_learner.tensors().items()}
        if self._frozen is not None:
            kept |= {f"frozen.{name}": tensor for name, tensor in self._frozen.arrays().items()}
        return kept

    def scalars(self) -> dict[str, Any]:
        """The rest of the state, as plain JSON."""
        return {
            "fold_version": FOLD_VERSION,
            "rule": self._name,
            "constants": dict(self._constants),
            "added_classes": list(self._learner.added),
            "paused": self.paused,
            "frozen_clips": None if self._frozen is None else self._frozen.clips(),
        }

    @classmethod
    def from_tensors(
        cls, artifact: Artifact, tensors: Mapping[str, NDArray[np.floating[Any]]], scalars: Mapping[str, Any]
    ) -> "LearnerState":
        """The state that gave these tensors and scalars, to the bit.

        Raises:
            ArtifactError: They belong to another artifact, or to another FOLD_VERSION.
        """
        if scalars["fold_version"] != FOLD_VERSION:
            raise ArtifactError("this state was made by another version of the fold")
        state = cls(artifact)
        for count in scalars["added_classes"]:
            state.add_classes(count)
        state._take_rule(parse_rule_name(scalars["rule"]), dict(scalars["constants"]))
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith(PARTS)}
        frozen = _part(tensors, "frozen.")
        try:
            # Checkpoints of before there was a window have none: what they hold is folded anew.
            fill({"window": state._learner.window}, {name: own.pop(name) for name in ("window",) if name in own})
            state._learner.restore(own)
            if state._calibration_learner is not None:
                state._calibration_learner.restore(_part(tensors, "calibration."))
        except ValueError as error:
            raise ArtifactError(str(error)) from None
        state.paused = scalars["paused"]
        if scalars["frozen_clips"] is not None:
            state._frozen = restore_parameters(artifact.manifest, frozen, scalars["frozen_clips"])
        return state

    def export_artifact(self, classes: Sequence[str], provenance: Mapping[str, str]) -> Artifact:
        """What has been learned as an artifact of its own, which answers with the same bits and goes on learning.

        Args:
            classes: The names of all classes, those of the artifact first.
            provenance: Where it comes from.

        Raises:
            ArtifactError: The names are not as many as the classes, or not unique.
        """
        return build_artifact(
            self.artifact,
            self.candidate_parameters(),
            form=self._learner.form,
            rows=int(self.progress["steps"]),
            learning=LearningRecord(rule=self._name, constants=self._constants),
            classes=classes,
            provenance=provenance,
        )

    def _set_rule(self, rule: object, constants: object) -> None:
        if not isinstance(constants, Mapping):
            raise ArtifactError("constants must be an object of numbers")
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in constants.values()):
            raise ArtifactError("constants must be an object of numbers")
        name, form = parse_rule_name(str(rule)), self._learner.form
        numbers = {str(key): float(value) for key, value in constants.items()}
        if form in {"running", "delta"}:  # a clip is part of what is served: only who names it changes it
            numbers.setdefault("clip", self._learner.rule.clip)
        check_constants(name, numbers, layers=form == "layers")
        self._take_rule(name, numbers)

    def _take_rule(self, name: RuleName, constants: dict[str, float]) -> None:
        self._learner.set_rule(build_rule(self.artifact, name, self._learner.form, constants))
        self._name, self._constants = name, constants


def calibration_learner_of(artifact: Artifact) -> CalibrationLearner | None:
    """What calibrates an artifact's answers, where something does."""
    record = artifact.manifest.calibration
    return None if record is None else CalibrationLearner(artifact.manifest.head, record.scaling(), learn=record.learn)


def _part(tensors: Mapping[str, NDArray[np.floating[Any]]], prefix: str) -> dict[str, NDArray[np.floating[Any]]]:
    """The tensors under a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

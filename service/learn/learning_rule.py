"""The rule of a state, with the constants that are set and the learner that follows it.

A change of the rule keeps what was learned. The rule mixture adds experts of its own to it: what was learned becomes
the offset, whose logits are added to theirs, and no other rule can continue from there.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ArtifactError
from service.learn.export import THRESHOLD
from service.softmax.input_stage import Stage
from service.softmax.learner_factory import AnyLearner, create_learner
from service.softmax.learner_tensors import tensors_below
from service.softmax.linear_learner import LinearLearner
from service.softmax.mixture_learner import MixtureLearner
from service.softmax.parameters import OFFSET_PREFIX, LinearParameters
from service.softmax.row_protocols import RowLearner
from service.softmax.rule import RuleName
from service.softmax.sparse_learner import SparseLearner
from service.store.artifact.artifact import Artifact
from service.store.artifact.learning_rules import (
    build_rule,
    check_constants,
    effective_constants,
    learning_form,
    parse_rule_name,
    select_rule,
)
from service.store.artifact.mixture_rules import check_mixture, drawn_features
from service.store.artifact.model_factory import first_squares, initial_parameters, training_stage
from service.store.artifact.rule_sizes import check_size

Tensors = Mapping[str, NDArray[np.floating[Any]]]


class LearningRule:
    """The rule of one state.

    Args:
        artifact: The artifact that the state starts from.
        fold_version: The version of the fold, which decides the defaults.

    Attributes:
        learner: The learner.

    Raises:
        ArtifactError: The manifest names an unknown rule or constant, or statistics that the model's dtype cannot hold.
    """

    def __init__(self, artifact: Artifact, fold_version: int) -> None:
        self._artifact: Final = artifact
        self._fold_version: Final = fold_version
        self.name, self.constants = select_rule(artifact, fold_version)
        form = learning_form(artifact, self.name, self.constants)
        manifest = artifact.manifest
        thresholds = np.array(manifest.thresholds or [THRESHOLD] * manifest.n_outputs)
        start = replace(initial_parameters(artifact), calibration=None)
        rule = build_rule(artifact, self.name, form, self.constants, fold_version=fold_version)
        constants = effective_constants(artifact, self.name, form, self.constants, fold_version)
        squares = first_squares(artifact, form, constants)
        try:
            self.learner: AnyLearner = create_learner(
                start, form, rule, thresholds, _training_stage(artifact, form), squares
            )
        except ValueError as error:
            raise ArtifactError(str(error)) from None
        # What another rule had learned when mixture was configured, and in how many rows.
        self._offset: LinearParameters | None = None
        self._offset_rows = 0

    @property
    def row_learner(self) -> RowLearner:
        """The learner, for rows in the form of the artifact's."""
        return self.learner

    @property
    def settings(self) -> dict[str, Any]:
        """The rule, the form and every constant in effect, for the metadata."""
        form = self.learner.form
        constants = effective_constants(self._artifact, self.name, form, self.constants, self._fold_version)
        return {"rule": self.name, "form": form, "constants": constants}

    def copy(self) -> "LearningRule":
        """Return an equal rule whose learner shares nothing with this one."""
        other = LearningRule(self._artifact, self._fold_version)
        other.name, other.constants, other.learner = self.name, dict(self.constants), self.learner.copy()
        other._offset, other._offset_rows = self._offset, self._offset_rows
        return other

    def add_classes(self, count: int) -> None:
        """Add classes after the others."""
        self.learner.add_classes(count)
        if self._offset is not None:
            self._offset = self._offset.with_classes(count)

    def change(self, rule: object, constants: object) -> None:
        """Continue with another rule or other constants; `constants` replaces all that were set before.

        Raises:
            ArtifactError: A name or a value is invalid; nothing is changed.
        """
        if not isinstance(constants, Mapping):
            raise ArtifactError("constants must be an object of numbers")
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in constants.values()):
            raise ArtifactError("constants must be an object of numbers")
        name, form = parse_rule_name(str(rule)), self.learner.form
        numbers = {str(key): float(value) for key, value in constants.items()}
        if form == "mixture" and name != "mixture":
            raise ArtifactError("only the rule mixture continues from mixture; roll back to before it instead")
        if form in {"running", "delta"} and name != "mixture":  # the forms with a clip
            numbers.setdefault("clip", self.learner.rule.clip)
        check_constants(name, numbers, self._artifact)
        if name == "mixture":
            check_mixture(self._artifact, numbers)
            check_size(name, numbers, self._artifact, self.learner.n_logits)
        if name == "mixture" and form == "mixture":
            if drawn_features(numbers) != drawn_features(self.constants):
                raise ArtifactError("features and seed of mixture stay as they are; roll back to before it instead")
        elif name == "mixture":
            self._begin_mixture(numbers)
            return
        self._set(name, numbers)

    def tensors(self) -> dict[str, NDArray[np.floating[Any]]]:
        """Return copies of the learner's arrays by name, and of those of the offset."""
        tensors = self.learner.tensors()
        if self._offset is not None:
            tensors |= {OFFSET_PREFIX + name: array for name, array in self._offset.arrays().items()}
        return tensors

    def scalars(self) -> dict[str, Any]:
        """Return the rest as JSON values."""
        offset = {} if self._offset is None else {"clips": self._offset.clips(), "rows": self._offset_rows}
        return {
            "rule": self.name,
            "constants": dict(self.constants),
            "added_classes": list(self.learner.added_classes),
            **({"offset": offset} if offset else {}),
        }

    def restore(self, tensors: Tensors, scalars: Mapping[str, Any]) -> None:
        """Restore what these tensors and scalars were, from the rule of the artifact.

        Raises:
            ArtifactError: The scalars name no rule.
            ValueError: The tensors are not those of such a learner.
            KeyError: A scalar or an array is missing.
        """
        for count in scalars["added_classes"]:
            self.add_classes(count)
        name, constants = parse_rule_name(scalars["rule"]), dict(scalars["constants"])
        if "offset" in scalars:
            arrays, clips = tensors_below(tensors, OFFSET_PREFIX), scalars["offset"]["clips"]
            offset = LinearParameters.from_arrays(self._artifact.manifest.head, arrays, clips)
            self._continue_from(offset, scalars["offset"]["rows"], constants)
        else:
            self._set(name, constants)
        self.learner.restore({key: array for key, array in tensors.items() if not key.startswith(OFFSET_PREFIX)})

    def _begin_mixture(self, constants: dict[str, float]) -> None:
        """Continue with the rule mixture from what was learned by another one."""
        offset, training = self.learner.parameters(), self._artifact.manifest.training
        assert isinstance(offset, LinearParameters)  # noqa: S101  # networks refuse the rule
        rows = (0 if training is None else training.rows) + int(self.learner.progress["steps"])
        self._continue_from(offset, rows, constants)

    def _continue_from(self, offset: LinearParameters, rows: int, constants: dict[str, float]) -> None:
        """Add a mixture of experts to a linear model that was learned from some rows."""
        before = self.learner
        assert not isinstance(before, SparseLearner)  # noqa: S101  # refuses the rule
        rule = build_rule(self._artifact, "mixture", "mixture", constants, fold_version=self._fold_version, rows=rows)
        learner = MixtureLearner(offset, rule, before.thresholds, _learned_stage(offset))
        learner.continue_counts(before)
        self.learner, self.name, self.constants = learner, "mixture", constants
        self._offset, self._offset_rows = offset, rows

    def _set(self, name: RuleName, constants: dict[str, float]) -> None:
        rows = None if self._offset is None else self._offset_rows
        version = self._fold_version
        form = self.learner.form
        rule = build_rule(self._artifact, name, form, constants, fold_version=version, rows=rows)
        if isinstance(self.learner, SparseLearner | LinearLearner):
            values = effective_constants(self._artifact, name, form, constants, version)
            self.learner.set_rule(rule, first_squares(self._artifact, form, values))
        else:
            self.learner.set_rule(rule)
        self.name, self.constants = name, constants


def _training_stage(artifact: Artifact, form: str) -> Stage | None:
    """Return the stage by which an artifact's training statistics standardize rows, if learning takes it."""
    manifest = artifact.manifest
    # Without training rows, the inputs of a mixture follow the rows that are learned.
    begins = form == "mixture" and manifest.mixture is None and manifest.training is not None
    return training_stage(artifact) if begins or (form == "delta" and manifest.delta is None) else None


def _learned_stage(parameters: LinearParameters) -> Stage | None:
    """Return the stage of the weights that have learned, or None if they take raw rows."""
    stage = parameters.stage if parameters.delta is None else parameters.delta.stage
    return None if stage is None else Stage(stage.mean, stage.scale)

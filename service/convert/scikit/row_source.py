"""The input of a pipeline before its first step has read it, and the columns that a step may read as texts."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from service.convert.columns.raw_inputs import ColumnError, RawInputs
from service.convert.columns.symbolic_blocks import NumberBlock
from service.convert.columns.symbolic_matrix import SymbolicMatrix
from service.convert.scikit.step import Step

# Rows of more values are served slowly, and each value takes an object here; texts and bags are one value each.
INPUTS_MAX: Final = 65_536
# The names of values without a name, as in manifests whose `features` are a number.
FEATURE_NAME: Final = "feature_{}"
TEXT_NAME: Final = "text"
BAG_NAME: Final = "features"


@dataclass(frozen=True, eq=False)
class RowSource:
    """The rows that the pipeline receives: the first step says whether they are a matrix, texts or bags."""

    inputs: RawInputs

    def to_matrix(self, step: Step) -> SymbolicMatrix:
        """Return the input as a matrix.

        Raises:
            ConversionError: Other steps read texts or bags, or the input has too many columns.
        """
        inputs = self.inputs
        if inputs.form is None:
            # A selector by a model has the number of its columns from the model.
            counted = step if step.has("n_features_in_") else step.child(step.get("estimator_", step.part))
            count = counted.count("n_features_in_")
            if not 0 < count <= INPUTS_MAX:
                raise step.refuse(f"a row must have from 1 to {INPUTS_MAX} values")
            inputs.form = "matrix"
            names = step.listed("feature_names_in_") if step.has("feature_names_in_") else []
            if names and (len(names) != count or not all(isinstance(name, str) for name in names)):
                raise step.refuse("its names of columns are not texts, one for each column")
            inputs.has_names = bool(names)
            inputs.add_all([str(name) for name in names] or [FEATURE_NAME.format(i) for i in range(count)])
        if inputs.form != "matrix":
            raise step.refuse("the pipeline's steps read both a matrix and texts or bags")
        return SymbolicMatrix.of_inputs(inputs)

    def to_texts(self) -> int:
        """Return the value that is the whole row, a text."""
        return self._single("texts", TEXT_NAME)

    def to_bags(self) -> int:
        """Return the value that is the whole row, a bag."""
        return self._single("bags", BAG_NAME)

    def _single(self, form: "str", name: str) -> int:
        inputs = self.inputs
        if inputs.form is None:
            inputs.form = "texts" if form == "texts" else "bags"
            inputs.add(name)
            inputs.mark_read()
        if inputs.form != form:
            raise ColumnError("the pipeline's steps read texts and something else")
        return 0


@dataclass(frozen=True, eq=False)
class SingleColumn:
    """One column of a matrix, as a column transformer passes it when its column is a name and not a list."""

    block: NumberBlock

    def to_texts(self) -> int:
        """Return the value that is a text."""
        if not self.block.is_plain[0] or not np.isnan(self.block.missing[0]):
            raise ColumnError("its input is not a column of the row")
        return int(self.block.indices[0])

    def to_bags(self) -> int:
        """Return the value that is a bag."""
        return self.to_texts()


Symbolic = RowSource | SingleColumn | SymbolicMatrix
"""What flows from step to step."""

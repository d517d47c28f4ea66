"""The proof of a conversion: the artifact gives the probabilities of its source, on rows that both answer.

rows       at least 200 that are generated from the fields, and those of a file, if there is one
dtype      float32; float64 for dense rows if float32 is off by more than 1e-5 and float64 is nearer
refused    above a difference of 1e-4 in any probability; no artifact comes out
kept       in `provenance` the largest difference and the number of rows; eight rows as `examples`, with the
           probabilities of the source
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from service.convert.converted_model import ConvertedModel, Doubles, Dtype, Row, Source
from service.errors import ConversionError, InputError
from service.fields.generated_rows import USUAL_ROWS, RowGenerator, number_encoder
from service.fields.row_encoder import RowEncoder
from service.softmax.sparse_rows import SparseRows
from service.store.artifact.artifact import Artifact
from service.store.artifact.artifact_loader import TOLERANCE
from service.store.artifact.model_factory import build_model

GENERATED_ROWS: Final = 200
# Differences of float32 arithmetic are below this one in nearly all models.
FLOAT32_DIFFERENCE: Final = 1e-5
# Numbers of generated rows that are in memory at once: a Python number takes some 32 bytes, and its name is shared.
NUMBERS_AT_ONCE: Final = 1 << 20
# A probability of a source in float32 may be so far outside of 0 to 1.
ROUNDING: Final = 1e-6
# Longer rows are no examples: a page shows them.
EXAMPLE_CHARACTERS_MAX: Final = 4096


class Proof(NamedTuple):
    """A converted model that was compared with its source.

    Attributes:
        artifact: The artifact, with examples and provenance.
        difference: The largest difference of a probability.
        rows: The number of rows that were compared.
    """

    artifact: Artifact
    difference: float
    rows: int


def prove(model: ConvertedModel, source: Source, rows: Sequence[Row] = (), *, seed: int = 0) -> Proof:
    """Compare a model with its source on generated rows, and on others.

    Args:
        model: The converted model.
        source: The source.
        rows: Further rows.
        seed: The seed of the generated rows.

    Raises:
        ConversionError: A probability differs by more than 1e-4, the source answers something else than probabilities,
            or one of the further rows cannot be used.
        ArtifactError: The model cannot be served.
    """
    comparison = SourceComparison(model, seed)
    for block in comparison.generate_blocks():
        comparison.add(block, source.predict_rows(block), "generated row")
    if rows:
        comparison.encode_rows(rows, "row")
        comparison.add(rows, source.predict_rows(rows), "row")
    return comparison.finish({})


def prove_expected(model: ConvertedModel, rows: Sequence[Row], expected: Doubles) -> Proof:
    """Compare a model with probabilities that its source gave earlier.

    Args:
        model: The converted model.
        rows: B rows, B >= 1.
        expected: (B, C) the probabilities of the source.

    Raises:
        ConversionError: As for `prove`.
        ArtifactError: The model cannot be served.
    """
    comparison = SourceComparison(model)
    comparison.add(rows, expected, "row")
    return comparison.finish({"compared_with": "expected probabilities"})


class SourceComparison:
    """Compares a model with probabilities of its source, block by block.

    Args:
        model: The converted model.
        seed: The seed of generated rows.

    Raises:
        ArtifactError: The model cannot be served.
    """

    def __init__(self, model: ConvertedModel, seed: int = 0) -> None:
        self._model: Final = model
        single = model.to_artifact("float32")
        self._artifacts: Final[dict[Dtype, Artifact]] = {"float32": single}
        if not single.has_sparse_rows:
            self._artifacts["float64"] = model.to_artifact("float64")
        self._largest: Final[dict[Dtype, float]] = dict.fromkeys(self._artifacts, 0.0)
        self._worst: Final[dict[Dtype, str]] = dict.fromkeys(self._artifacts, "")
        self._encoder: Final = single.row_encoder or feature_encoder(single, scaled=False)
        generated = single.row_encoder or feature_encoder(single, scaled=True)
        self._generator: Final = RowGenerator(generated, seed, model.words)
        self._models: Final = {dtype: build_model(artifact) for dtype, artifact in self._artifacts.items()}
        self._examples: Final[list[dict[str, Any]]] = []
        self._rows = 0

    def generate_blocks(self) -> Iterator[list[Row]]:
        """Yield blocks of generated rows."""
        step = max(USUAL_ROWS, NUMBERS_AT_ONCE // len(self._encoder.fields))
        for first in range(0, GENERATED_ROWS, step):
            yield self._generator.make_rows(first, min(first + step, GENERATED_ROWS))

    def add(self, rows: Sequence[Row], expected: Doubles, noun: str) -> None:
        """Compare the probabilities (B, C) of B rows.

        Args:
            rows: The rows.
            expected: The probabilities that the source gives.
            noun: The kind of rows, for errors.

        Raises:
            ConversionError: A row cannot be used, or the source has other probabilities or none.
        """
        if not rows:
            return
        classes = self._model.classes
        if expected.shape != (len(rows), len(classes)):
            raise ConversionError(f"the source must answer {len(rows)} rows with {len(classes)} probabilities each")
        wrong = ~(np.abs(expected - 0.5) <= 0.5 + ROUNDING).all(axis=1)  # also NaN
        if wrong.any():
            raise ConversionError(f"the source has no probability from 0 to 1 for {noun} {int(np.argmax(wrong))}")
        expected = np.clip(np.asarray(expected, np.float64), 0, 1)
        for dtype, model in self._models.items():
            off = np.abs(self._predict(model, dtype, rows, noun) - expected)
            row, k = divmod(int(off.argmax()), len(classes))
            if off[row, k] >= self._largest[dtype]:
                self._largest[dtype] = float(off[row, k])
                self._worst[dtype] = f'the probability of the class "{classes[k]}" of {noun} {row}'
        self._rows += len(rows)
        self._add_examples(rows, expected)

    def finish(self, provenance: dict[str, str]) -> Proof:
        """Return the artifact and what was compared.

        Args:
            provenance: Further entries.

        Raises:
            ConversionError: A probability differs by more than 1e-4, or nothing was compared.
        """
        if not self._rows:
            raise ConversionError("no row was compared; give rows in a file")
        dtype = self._choose_dtype()
        difference = self._largest[dtype]
        if not difference <= TOLERANCE:
            raise ConversionError(
                f"{self._worst[dtype]} differs from the source by {difference:.2g}, and at most {TOLERANCE:g} is "
                f"allowed; nothing was written"
            )
        proof = {"largest_difference": f"{difference:.2g}", "rows_compared": str(self._rows), **provenance}
        examples = self._examples if self._model.fields is not None and self._examples else None
        return Proof(self._model.to_artifact(dtype, examples, proof), difference, self._rows)

    def _choose_dtype(self) -> Dtype:
        """Return float32, or float64 if float32 is off and float64 is nearer."""
        single, double = self._largest["float32"], self._largest.get("float64")
        return "float64" if double is not None and single > FLOAT32_DIFFERENCE and double < single else "float32"

    def encode_rows(self, rows: Sequence[Row], noun: str) -> SparseRows:
        """Return rows in the columns of the model, in float64.

        Raises:
            ConversionError: A row cannot be used.
        """
        try:
            return self._encoder.encode_objects(rows).rows
        except InputError as error:
            raise ConversionError(f"a {noun} is no row of the model: {error}") from None

    def _predict(self, model: Any, dtype: Dtype, rows: Sequence[Row], noun: str) -> Doubles:  # noqa: ANN401  # of any kind
        """Return the probabilities (B, C) of rows."""
        encoded = self.encode_rows(rows, noun)
        try:
            sparse = self._encoder.to_model_rows(encoded, np.dtype(dtype))
            dense = not self._artifacts[dtype].has_sparse_rows
            P = model.predict(sparse.to_matrix(self._encoder.n_columns) if dense else sparse)
        except InputError as error:
            raise ConversionError(f"a {noun} is no row of the model: {error}") from None
        return np.asarray(P, np.float64)

    def _add_examples(self, rows: Sequence[Row], expected: Doubles) -> None:
        """Keep the first rows that are short, with their probabilities."""
        for row, p in zip(rows, expected.tolist(), strict=True):
            if len(self._examples) == USUAL_ROWS:
                return
            if len(str(row)) <= EXAMPLE_CHARACTERS_MAX:
                self._examples.append({"row": dict(row), "probabilities": p})


def model_encoder(model: ConvertedModel) -> RowEncoder:
    """Return the encoder of a model's rows.

    Raises:
        ArtifactError: The model cannot be served.
    """
    artifact = model.to_artifact("float32")
    return artifact.row_encoder or feature_encoder(artifact, scaled=False)


def feature_encoder(artifact: Artifact, *, scaled: bool) -> RowEncoder:
    """Return an encoder of objects of features.

    Args:
        artifact: A model without fields.
        scaled: Whether numbers are scaled by the training statistics, if these are known; else they stay as they are.
    """
    training = artifact.manifest.training if scaled else None
    if training is None or training.mean is None or training.scale is None:
        return number_encoder(artifact.column_names, [0.0] * artifact.n_features, [1.0] * artifact.n_features)
    return number_encoder(artifact.column_names, training.mean, training.scale)

"""Write a model to an ONNX file, once onnxruntime has answered generated rows as the service does."""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from service.convert.converted_model import Doubles, Row
from service.convert.graphs.field_nodes import MISSING_TEXT, has_whole_numbers
from service.convert.graphs.graph_export import input_forms, make_onnx
from service.convert.graphs.graph_session import OnnxSession
from service.convert.proof import FLOAT32_DIFFERENCE, feature_encoder
from service.errors import ConversionError
from service.fields.column_names import show_category
from service.fields.field_records import CategoryField
from service.fields.generated_rows import RowGenerator
from service.fields.row_encoder import RowEncoder
from service.store.artifact.artifact import Artifact
from service.store.artifact.artifact_loader import TOLERANCE
from service.store.artifact.model_factory import build_model
from service.store.filesystem import sync_folder, write_synced_file

GENERATED_ROWS: Final = 200
INT64_MAX: Final = 2**63 - 1


class OnnxCheck(NamedTuple):
    """A model as ONNX that was compared with the service.

    Attributes:
        raw: The bytes of the file.
        difference: The largest difference of a probability.
        rows: The number of rows that were compared.
    """

    raw: bytes
    difference: float
    rows: int


def write_onnx(path: Path, artifact: Artifact) -> OnnxCheck:
    """Write an artifact as ONNX; the file appears complete or not at all.

    Raises:
        ConversionError: ONNX cannot express the model, or onnxruntime answers something else; nothing is written.
        OSError: The disk failed.
    """
    check = check_onnx(artifact)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}"
    try:
        write_synced_file(temporary, check.raw)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return check


def check_onnx(artifact: Artifact, *, seed: int = 0) -> OnnxCheck:
    """Return an artifact as ONNX, compared with the service on generated rows.

    Rows that no input of the graph can express are left out, and rows whose probabilities the rounding of float32
    decides.

    Args:
        artifact: The artifact.
        seed: The seed of the rows.

    Raises:
        ConversionError: ONNX cannot express the model, or onnxruntime answers something else.
    """
    model = make_onnx(artifact)
    raw = model.SerializeToString(deterministic=True)
    encoder = artifact.row_encoder or feature_encoder(artifact, scaled=False)
    generator = RowGenerator(artifact.row_encoder or feature_encoder(artifact, scaled=True), seed)
    rows = [row for row in generator.make_rows(0, GENERATED_ROWS) if is_expressible(artifact, row)]
    session = OnnxSession(raw, input_forms(artifact), model.graph.output[1].name)
    expected, stable = _predict(artifact, encoder, rows)
    if not stable.any():
        raise ConversionError("no generated row could be compared")
    off = np.abs(session.run(rows) - expected).max(axis=1)[stable]
    difference = float(off.max())
    if not difference <= TOLERANCE:
        raise ConversionError(
            f"onnxruntime answers a probability that differs by {difference:.2g}, and at most {TOLERANCE:g} is allowed"
        )
    return OnnxCheck(raw, difference, len(off))


def is_expressible(artifact: Artifact, row: Row) -> bool:
    """Return whether the inputs of the graph can have the values of a row: one type, and a value for a missing one."""
    for field in artifact.manifest.fields or ():
        if not isinstance(field, CategoryField):
            continue
        value, values = row.get(field.value_name), field.values or ()
        if has_whole_numbers(field):
            if value is not None and abs(value) > INT64_MAX:
                return False
            continue
        if value is None:
            # The text that stands for a missing one may be a category.
            if MISSING_TEXT in map(show_category, values):
                return False
            continue
        shown = value if isinstance(value, str) else show_category(int(value) if type(value) is float else value)
        known = any((type(one), one) == (type(value), value) for one in values)
        if not known and (shown in map(show_category, values) or shown == MISSING_TEXT):
            return False
    return True


def _predict(artifact: Artifact, encoder: RowEncoder, rows: Sequence[Row]) -> tuple[Doubles, Any]:
    """Return the probabilities (B, C) of the service, and (B,) in which rows rounding does not decide them."""
    model: Any = build_model(artifact)
    encoded = encoder.to_model_rows(encoder.encode_objects(rows).rows, artifact.weights.dtype)
    X: Any = encoded if artifact.has_sparse_rows else encoded.to_matrix(encoder.n_columns)
    P = np.asarray(model.predict(X), np.float64)
    exact = model.float64_model.predict(X.astype(np.float64))
    return P, np.abs(P - exact).max(axis=1) <= FLOAT32_DIFFERENCE

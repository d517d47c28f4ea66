"""`softstep import`: convert a model of another library, prove that it is equal, and write the next version."""  # noqa: N999

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from service.console import convert_disk_errors, print_result
from service.convert.converted_model import ConvertedModel, Row
from service.convert.import_card import write_card
from service.convert.proof import Proof, model_encoder, prove, prove_expected
from service.convert.row_files import read_probabilities, read_rows
from service.convert.source_file import open_source
from service.convert.source_kinds import read_source
from service.convert.source_options import ReadSource, SourceOptions
from service.convert.training_rows import add_training_rows
from service.errors import ConversionError
from service.fields.column_blocks import FieldLimits
from service.settings import Settings
from service.store.artifact.artifact import Artifact, write_artifact
from service.store.artifact.field_layout import check_fields
from service.store.artifact.version_folders import MODEL_NAME, next_version_folder


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Return 0 once the version is complete; on an error nothing is written."""
    if arguments.training_rows is not None and arguments.training_rows < 1:
        raise ConversionError("--training-rows must be a whole number from 1")
    if not MODEL_NAME.fullmatch(arguments.name):
        raise ConversionError("--name must be a-z, 0-9, dots, hyphens and underscores, up to 64 characters")
    options = SourceOptions(
        classes=arguments.classes,
        features=arguments.features,
        vector=arguments.vector,
        head=arguments.head,
        layers=arguments.layers,
        weight_rows=arguments.weight_rows,
        namespaces=arguments.namespaces,
        training_rows=arguments.training_rows,
    )
    read = read_source(arguments.source, options)
    rows = [] if arguments.rows is None else read_rows(arguments.rows, model_encoder(read.model))
    model = add_facts(read.model, arguments.training_rows, rows, arguments.source)
    proof = prove_source(replace(read, model=model), rows, arguments.expected)
    limits = FieldLimits(settings.fields_max, settings.columns_max, settings.entries_max)
    check_fields(proof.artifact.manifest, {name: one.shape for name, one in proof.artifact.tensors.items()}, limits)
    with convert_disk_errors():
        folder = next_version_folder(settings.models, arguments.name)
        write_artifact(folder, proof.artifact, further=write_card(arguments.name, proof.artifact))
    print_proof(folder, proof, as_json=arguments.json)
    return 0


def add_facts(model: ConvertedModel, training_rows: int | None, rows: Sequence[Row], source: Path) -> ConvertedModel:
    """Return a model with the statistics of its training rows, and with the hash of its source.

    Args:
        model: The model.
        training_rows: The number of rows that the source was trained on, or None if it is not given.
        rows: A sample of them, if the number is given; may be empty.
        source: The file.
    """
    if training_rows is not None and rows:
        model = add_training_rows(model, rows, training_rows)
    elif training_rows is not None:
        if model.fields is None and model.training is None:
            raise ConversionError(
                "--training-rows needs the mean and scale of each number; the source lacks them, so add --rows"
            )
        model = replace(model, training={**(model.training or {}), "rows": training_rows})
    with open_source(source) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return replace(model, provenance={**model.provenance, "source_sha256": digest})


def prove_source(read: ReadSource, rows: Sequence[Row], expected: Path | None) -> Proof:
    """Return the proof of a source by itself, or by the probabilities of a file.

    Raises:
        ConversionError: The source cannot be asked, or its probabilities differ.
    """
    if expected is not None and not rows:
        raise ConversionError("--expected has the probabilities of the rows in --rows; give both")
    model = read.model
    if expected is not None:
        return prove_expected(model, rows, read_probabilities(expected, model.classes))
    if read.source is None:
        raise ConversionError("the source cannot be asked; give rows and its probabilities with --rows and --expected")
    compared = {**model.provenance, "compared_with": read.compared_with}
    return prove(replace(model, provenance=compared), read.source, rows)


def print_proof(folder: Path, proof: Proof, *, as_json: bool) -> None:
    """Print the version, the largest difference and the fields."""
    artifact, compared = proof.artifact, proof.artifact.manifest.provenance["compared_with"]
    manifest = artifact.manifest
    inputs = list_inputs(artifact)
    result: dict[str, Any] = {
        "directory": str(folder),
        "head": manifest.head,
        "classes": len(manifest.classes),
        "rows_compared": proof.rows,
        "largest_difference": proof.difference,
        "compared_with": compared,
        "fields": inputs,
        "weights_sha256": artifact.weights_sha256,
    }
    width = max(len(one["name"]) for one in inputs)
    lines = [
        f"{folder}: {manifest.head}, {len(manifest.classes)} classes, {artifact.n_features} columns",
        f"largest difference {proof.difference:.2g} in {proof.rows} rows, compared with {compared}",
        *(f"  {one['name']:<{width}}  {one['kind']:<8}  {one['columns']}" for one in inputs),
    ]
    print_result(result, "\n".join(lines), as_json=as_json)


def list_inputs(artifact: Artifact) -> list[Mapping[str, Any]]:
    """Return the name, the kind and the number of columns of each field, or of all numbers together."""
    encoder = artifact.row_encoder
    if encoder is None:
        return [{"name": "features", "kind": "numbers", "columns": artifact.n_features}]
    return [
        {"name": field.name, "kind": field.kind, "columns": block.end - block.start}
        for field, block in zip(encoder.fields, encoder.blocks, strict=True)
    ]

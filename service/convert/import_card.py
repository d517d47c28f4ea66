"""Write the card of a converted model: a page in Markdown for those who use the model."""

import json
from collections.abc import Iterator
from typing import Any, Final

from service.fields.field_records import CrossField
from service.fields.row_encoder import RowEncoder
from service.markdown_table import escape_cell, make_table
from service.store.artifact.artifact import Artifact

CARD_NAME: Final = "card.md"
# Classes that are named, and examples that are shown.
CLASSES_SHOWN: Final = 40
EXAMPLES_SHOWN: Final = 3
# A longer row, such as one with an embedding, is not shown.
ROW_CHARACTERS_MAX: Final = 400
HIDDEN_OPTIONS: Final = frozenset({"name", "kind", "terms", "values", "idf", "mean", "scale", "stop_words"})


def write_card(name: str, artifact: Artifact) -> dict[str, bytes]:
    """Return the card of a converted model by the name of its file.

    Args:
        name: The name of the model.
        artifact: The model, compared with its source.
    """
    sections = [f"# {escape_cell(name)}", make_table(("", ""), _list_facts(artifact))]
    encoder = artifact.row_encoder
    if encoder is not None:
        table = make_table(("field", "kind", "columns", ""), _list_fields(encoder))
        sections += [f"## Fields\n\n{table}", *_show_examples(artifact)]
    return {CARD_NAME: "\n\n".join(sections).encode() + b"\n"}


def _list_facts(artifact: Artifact) -> Iterator[tuple[str, str]]:
    """Yield where the model is from, what it is, and how it was compared."""
    manifest, given = artifact.manifest, artifact.manifest.provenance
    names = ", ".join(manifest.classes[:CLASSES_SHOWN])
    others = f" and {len(manifest.classes) - CLASSES_SHOWN} more" if len(manifest.classes) > CLASSES_SHOWN else ""
    yield "source", escape_cell(given.get("source", "layers of a network"))
    if "source_sha256" in given:
        yield "SHA-256 of the source", f"`{escape_cell(given['source_sha256'])}`"
    if "data_set" in given:
        yield "data", escape_cell(given["data_set"])
    yield "model", f"{manifest.head}, {artifact.n_features:,} columns, {manifest.dtype}"
    yield "classes", escape_cell(names) + others
    if manifest.training is not None:
        yield "trained on", f"{manifest.training.rows:,} rows"
    for metric, value in manifest.metrics.items():
        yield metric.replace("_", " "), f"{value:.6g}"
    if "compared_with" in given:
        yield "compared with", escape_cell(given["compared_with"])
    yield (
        "largest difference",
        f"{given['largest_difference']} of a probability, in {int(given['rows_compared']):,} rows",
    )
    yield "weights", f"`{artifact.weights_sha256}`"


def _list_fields(encoder: RowEncoder) -> Iterator[tuple[str, str, str, str]]:
    """Yield the fields with their numbers of columns and their short options."""
    for field, block in zip(encoder.fields, encoder.blocks, strict=True):
        options = field.model_dump(mode="json", exclude_defaults=True, exclude=set(HIDDEN_OPTIONS))
        shown = ", ".join(f"{key} {_show_option(value)}" for key, value in options.items())
        noun = "of " + " and ".join(field.fields) if isinstance(field, CrossField) else ""
        yield f"`{escape_cell(field.name)}`", field.kind, f"{block.end - block.start:,}", escape_cell(noun or shown)


def _show_option(value: Any) -> str:  # noqa: ANN401  # any JSON value
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _show_examples(artifact: Artifact) -> Iterator[str]:
    """Yield a section of rows with the probabilities of the source."""
    lines: list[tuple[str, str]] = []
    for example in artifact.manifest.examples or ():
        row = json.dumps(example.row, ensure_ascii=False)
        if len(row) > ROW_CHARACTERS_MAX or len(lines) == EXAMPLES_SHOWN:
            continue
        best = max(range(len(example.probabilities)), key=example.probabilities.__getitem__)
        label = f"{artifact.manifest.classes[best]} {example.probabilities[best]:.4f}"
        lines.append((escape_cell(row), escape_cell(label)))
    if lines:
        yield f"## Examples\n\nThe most probable class, as the source gives it.\n\n{make_table(('row', ''), lines)}"

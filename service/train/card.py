"""Write the card of a trained model: a page in Markdown, with pictures beside it, for those who use the model."""

from typing import Final

from service.markdown_table import escape_cell, make_table
from service.store.artifact.artifact import Artifact
from service.train.card_pictures import draw_columns, draw_confusion, draw_losses, draw_reliability
from service.train.evaluation import Evaluation
from service.train.field_table import count_values, describe_options
from service.train.heavy_columns import CLASSES_SHOWN, COLUMNS_SHOWN, HeavyColumn, list_heavy_columns
from service.train.training import FittedModel, PreparedTable

CARD_NAME: Final = "card.md"
CLASSES_OF_A_PICTURE: Final = 40


def write_card(
    name: str, prepared: PreparedTable, fitted: FittedModel, artifact: Artifact, evaluation: Evaluation | None
) -> dict[str, bytes]:
    """Return the files of a card by their names.

    Args:
        name: The name of the model.
        prepared: The file after pass 1.
        fitted: The fits.
        artifact: The artifact.
        evaluation: The metrics of held-out rows, or None without such rows.
    """
    pictures: dict[str, bytes] = {}
    sections = [
        f"# {name}",
        _describe_data(prepared, artifact),
        _describe_columns(prepared),
        _describe_losses(fitted, pictures),
    ]
    if evaluation is not None:
        sections += [_describe_metrics(artifact, evaluation, pictures), _describe_reliability(evaluation, pictures)]
    if not fitted.best.hidden:
        mean_squares = fitted.support / fitted.rows.trained.n_rows
        weights = fitted.best.weights
        heavy = list_heavy_columns(fitted.encoder, weights, mean_squares, prepared.survey.classes.names)
        sections.append(_describe_heavy(heavy, pictures))
    return {CARD_NAME: "\n\n".join(sections).encode() + b"\n", **pictures}


def _describe_data(prepared: PreparedTable, artifact: Artifact) -> str:
    survey, manifest = prepared.survey, artifact.manifest
    provenance = manifest.provenance
    facts = [
        (
            "data",
            f"`{escape_cell(provenance['file'])}`, {survey.rows:,} rows, label `{escape_cell(provenance['label'])}`",
        ),
        ("trained on", f"{artifact.manifest.training.rows if artifact.manifest.training else 0:,} rows"),
        ("held out", f"{survey.held_out:,} rows: {provenance['held_out']}"),
        ("model", f"{manifest.head}, {artifact.n_features:,} columns, {len(manifest.classes)} classes"),
        ("trainer", f"{provenance['trainer']}, C = {provenance['C']}"),
        ("weights", f"`{artifact.weights_sha256}`"),
    ]
    if survey.unlabeled:
        facts.insert(1, ("left out", f"{survey.unlabeled:,} rows without a label"))
    facts += [(name, escape_cell(provenance[name])) for name in ("weight", "balance") if name in provenance]
    return make_table(("", ""), facts)


def _describe_columns(prepared: PreparedTable) -> str:
    lines = []
    for column in prepared.chosen:
        tally = prepared.survey.tallies.get(column.name)
        kind = "left out" if column.spec is None else column.spec["kind"]
        options = "" if column.spec is None else describe_options(column.spec)
        gaps = f"{tally.gaps:,}" if tally is not None and tally.gaps else ""
        values = "" if tally is None else count_values(tally)
        note = "; ".join(part for part in (options, column.note) if part)
        lines.append((f"`{escape_cell(column.name)}`", kind, values, gaps, escape_cell(note)))
    return f"## Fields\n\n{make_table(('column', 'field', 'values', 'gaps', ''), lines)}"


def _describe_losses(fitted: FittedModel, pictures: dict[str, bytes]) -> str:
    text = (
        "## Losses\n\nThe mean loss over the rows that are trained on, and over those that are held out. A small C is "
        "a strong penalty. The C with the least held-out loss was kept."
    )
    lines = [
        (
            f"**{one.C:g}**" if one is fitted.best else f"{one.C:g}",
            f"{one.loss:.6f}",
            "" if loss is None else f"{loss:.6f}",
            f"{one.iterations}",
            f"{one.gradient:.1e}",
        )
        for one, loss in fitted.fits
    ]
    table = make_table(("C", "trained on", "held out", "steps", "gradient"), lines)
    ordered = sorted(fitted.fits, key=lambda fit: fit[0].C)
    losses = [loss for _, loss in ordered if loss is not None]
    if len(ordered) == 1 or len(losses) < len(ordered):
        return f"{text}\n\n{table}"
    drawn = draw_losses([one.C for one, _ in ordered], [one.loss for one, _ in ordered], losses)
    return f"{text}\n\n{table}\n\n{_add(pictures, drawn, 'Mean loss by C')}"


def _describe_metrics(artifact: Artifact, evaluation: Evaluation, pictures: dict[str, bytes]) -> str:
    classes, counts = artifact.manifest.classes, evaluation.confusion
    shown = [(name.replace("_", " "), f"{value:g}") for name, value in evaluation.metrics.items()]
    text = f"## Held-out rows\n\n{make_table(('metric', ''), shown)}"
    lines = []
    for k, name in enumerate(classes):
        if artifact.manifest.head == "multilabel":
            (_, false), (missed, right) = counts[k].tolist()
        else:
            right = int(counts[k, k])
            missed, false = int(counts[k].sum()) - right, int(counts[:, k].sum()) - right
        precision, recall = (f"{right / total:.3f}" if total else "" for total in (right + false, right + missed))
        lines.append((escape_cell(name), f"{right + missed:,}", precision, recall))
    text += f"\n\n{make_table(('class', 'rows', 'precision', 'recall'), lines)}"
    if artifact.manifest.head == "multilabel" or len(classes) > CLASSES_OF_A_PICTURE:
        return text
    picture = _add(pictures, draw_confusion(classes, counts), "Confusion matrix: the rows of each class by prediction")
    return f"{text}\n\n{picture}"


def _describe_reliability(evaluation: Evaluation, pictures: dict[str, bytes]) -> str:
    error = evaluation.reliability["expected_error"]
    drawn = draw_reliability(evaluation.reliability["bins"])
    return (
        "## Reliability\n\nOf predictions with a probability of 0.8, eight in ten should be right. Points have the "
        f"size of their share of rows. The expected calibration error is {error:.4f}.\n\n"
        f"{_add(pictures, drawn, 'Share of right predictions by probability')}"
    )


def _describe_heavy(heavy: dict[str, list[HeavyColumn]], pictures: dict[str, bytes]) -> str:
    text = (
        f"## Heaviest columns\n\nFor each of up to {CLASSES_SHOWN} classes the {COLUMNS_SHOWN} columns with the "
        "largest effect: the weight, times the root of the mean square of the column."
    )
    drawn = draw_columns({name: columns for name, columns in heavy.items() if columns})
    lines = [
        (escape_cell(name), ", ".join(f"`{escape_cell(column.name)}` {column.effect:+.3g}" for column in columns))
        for name, columns in heavy.items()
    ]
    picture = _add(pictures, drawn, "Heaviest columns of each class")
    return f"{text}\n\n{picture}\n\n{make_table(('class', 'columns'), lines)}"


def _add(pictures: dict[str, bytes], drawn: dict[str, bytes], description: str) -> str:
    """Keep a picture, and return the Markdown that shows it."""
    pictures |= drawn
    light, dark = drawn
    return (
        f'<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="{dark}">\n'
        f'  <img src="{light}" alt="{description}">\n</picture>'
    )

"""`softstep whatif`: fold a model's log again with changes, and compare the results. Nothing in the data is changed."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from service.commands.export import write_learned
from service.commands.replay import compare_published, read_published
from service.console import Progress, convert_disk_errors, print_error, print_result
from service.errors import ArtifactError, SoftstepError
from service.learn.event_fold import EventFold
from service.learn.publish import snapshot_contents
from service.learn.replay import StreamReplay
from service.learn.variant_fold import VariantFold, VariantFolds, refuse_base_events
from service.learn.variant_losses import VariantLosses
from service.line_chart import Line, draw_chart
from service.settings import Settings
from service.store.artifact.version_folders import new_version_folder
from service.store.directory.offline import StoredData, find_stream, open_stored_data
from service.store.directory.stream_artifact import read_stream_artifact
from service.store.states.served_state import describe_progress, served_sha256
from service.variant_events import VariantReader
from service.variant_options import VariantOptions

UNCHANGED: Final = "unchanged"
# Heading, name in a result, and format of a number.
COLUMNS: Final[tuple[tuple[str, str, str], ...]] = (
    ("rows", "rows", "d"),
    ("loss", "loss", ".6f"),
    ("shared loss", "shared_loss", ".6f"),
    ("accuracy", "accuracy", ".4f"),
    ("calibration error", "calibration_error", ".4f"),
    ("weights", "weights_sha256", "s"),
)
CELL: Final = 10  # characters, for 10^9 rows


class Comparison(NamedTuple):
    """The folds of one log.

    Attributes:
        replay: The fold without changes.
        variants: The fold of each variant.
        losses: The losses of all, the unchanged first.
        published: Whether the published state equals the fold without changes: "equal", "different" or None.
    """

    replay: StreamReplay
    variants: list[VariantFold]
    losses: VariantLosses
    published: str | None


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Return 0 for a comparison, 1 if the published state differs from the unchanged fold, 2 without a variant."""
    options = named_variants(arguments)
    if not options:
        print_error("name a variant: --rule, --constants, --without, --labels or --variant")
        return 2
    if arguments.keep is not None and arguments.keep != options[0].keep:
        print_error("--keep is for the variant of the other options; in --variant write keep=DIR")
        return 2
    refuse_targets(options, arguments.plot)
    with open_stored_data(settings, read_only=True) as stored:
        compared = compare_variants(settings, stored, arguments.model, options)
        position = compared.replay.position
    results = describe_variants(compared, [UNCHANGED, *(one.name for one in options)])
    for one, variant, result in zip(options, compared.variants, results[1:], strict=True):
        if one.keep is not None:
            folder, _ = write_learned(one.keep, variant.fold, compared.replay.stream, position, whatif=one.name)
            result["directory"] = str(folder)
    if arguments.plot is not None:
        with convert_disk_errors():
            arguments.plot.write_text(plot_losses(compared, results), "utf-8")
    _print_results(compared, results, as_json=arguments.json)
    return 1 if compared.published == "different" else 0


def named_variants(arguments: argparse.Namespace) -> list[VariantOptions]:
    """Return the variant of the options, if there are any, and those of --variant."""
    single = VariantOptions(arguments.rule, arguments.constants, arguments.without, arguments.labels, arguments.keep)
    return [*([single] if single.name else []), *arguments.variant]


def refuse_targets(options: Sequence[VariantOptions], plot: Path | None) -> None:
    """Refuse folders and files that cannot be written, before the log is folded.

    Raises:
        ArtifactError: A folder to keep a variant in has a version already, or two variants would have the same folder.
        SoftstepError: The folder of the plot does not exist.
    """
    with convert_disk_errors():
        new = [
            folder for one in options if one.keep is not None and (folder := new_version_folder(one.keep)) == one.keep
        ]
        if plot is not None and not plot.parent.is_dir():
            raise SoftstepError("the folder of the plot does not exist")
    if len(set(new)) < len(new):
        raise ArtifactError("two variants have the same folder; name one for each, or the folder of a model")


def compare_variants(
    settings: Settings, stored: StoredData, name: str, options: Sequence[VariantOptions]
) -> Comparison:
    """Fold a stream without changes and with those of each variant, in one pass; show the progress."""
    stream = find_stream(stored.log, name)
    folder = stored.data.stream_folder(stream.model, stream.version)
    artifact = read_stream_artifact(stored, stream, settings)
    replay = StreamReplay(stream, artifact, stored.log)
    published = read_published(folder.snapshots / str(replay.last))
    reader = VariantReader(stored.log, stream, replay.lineage, artifact.manifest)
    variants = [reader.read(one) for one in options]
    refuse_base_events(replay.lineage, replay.last, variants)
    batches = replay.read_batches(replay.last)
    folds, losses = VariantFolds(replay.fold, variants), VariantLosses(1 + len(variants))
    progress = Progress("folding", "events")
    for batch in batches:
        losses.add(folds.fold_batch(batch))
        progress.update(*batch.progress)
    progress.finish()
    fields, _ = snapshot_contents(replay.fold, replay.position_fields())
    return Comparison(replay, folds.folds, losses, compare_published(published, fields))


def describe_variants(compared: Comparison, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the result of each fold, the unchanged one first."""
    replay = compared.replay
    changes = [(0, 0), *((one.left_out, one.relabeled) for one in compared.variants)]
    folds = [replay.fold, *(one.fold for one in compared.variants)]
    results = []
    for number, (name, fold, (left_out, relabeled)) in enumerate(zip(names, folds, changes, strict=True)):
        results.append(
            {
                "model": replay.stream.model,
                "version": str(replay.stream.version),
                "seq": replay.seq,
                "variant": name,
                **fold.state.rule_settings,
                "left_out": left_out,
                "relabeled": relabeled,
                **_describe_fold(fold),
                "shared_rows": compared.losses.shared_rows,
                "shared_loss": compared.losses.shared_loss(number),
                "published": compared.published if number == 0 else None,
                "directory": None,
            }
        )
    return results


def plot_losses(compared: Comparison, results: Sequence[dict[str, Any]]) -> str:
    """Return an SVG with the mean loss of each fold along the rows of the log."""
    stream = compared.replay.stream
    lines = []
    for number, result in enumerate(results):
        rows, losses = compared.losses.curve(number)
        mean = "" if result["loss"] is None else f", mean {result['loss']:.4f}"
        lines.append(Line(result["variant"] + mean, rows.tolist(), losses.tolist()))
    title = f"{stream.model}/{stream.version}: loss of each row before its step"
    return draw_chart(title, "rows of the log", "loss", lines)


def _describe_fold(fold: EventFold) -> dict[str, Any]:
    fields, _ = snapshot_contents(fold, {})
    progress = describe_progress(fields["progressive"])
    return {
        **{name: progress[name] for name in ("events", "unfit_events", "rows", "loss", "accuracy")},
        "calibration_error": progress["calibration"]["expected_error"],
        "weights_sha256": served_sha256(fold.state.served_parameters(), fields),
    }


def _print_results(compared: Comparison, results: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    stream = compared.replay.stream
    if as_json:
        for result in results:
            print_result(result, "", as_json=True)
        return
    print_result({}, f"{stream.model}/{stream.version} at seq {compared.replay.seq}", as_json=False)
    for line in _table(results):
        print_result({}, line, as_json=False)
    for result in results:
        if result["directory"] is not None:
            print_result({}, f"{result['directory']}: {result['variant']}", as_json=False)
    if compared.published is not None:
        print_result({}, f"the published state is {compared.published}", as_json=False)


def _table(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of the table; the loss over shared rows is shown if variants have different rows or labels."""
    differ = any(result["left_out"] or result["relabeled"] for result in results)
    columns = [column for column in COLUMNS if differ or column[1] != "shared_loss"]
    width = max(len("variant"), *(len(result["variant"]) for result in results))
    yield "  ".join(["variant".ljust(width), *(heading.rjust(CELL) for heading, _, _ in columns[:-1]), columns[-1][0]])
    for result in results:
        cells = ["" if result[name] is None else format(result[name], form) for _, name, form in columns]
        sizes = [max(CELL, len(heading)) for heading, _, _ in columns[:-1]]
        numbers = (cell.rjust(size) for cell, size in zip(cells[:-1], sizes, strict=True))
        yield "  ".join([result["variant"].ljust(width), *numbers, cells[-1]])

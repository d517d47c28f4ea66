"""Convert random sources of scikit-learn, ONNX, Vowpal Wabbit and layers, and compare them; writes docs/conversions.md.

    python -m tests.conversions [--write] [--count N]

A source follows from its seed alone. Each one answers 200 generated rows, and so does its artifact.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import sklearn

from service.convert.converted_model import ConvertedModel, Source
from service.convert.proof import SourceComparison, prove
from service.convert.scikit.estimator import convert_estimator
from service.convert.scikit.pipeline_source import PipelineSource
from service.convert.scikit.plain_object import plain_object
from service.convert.scikit.row_layout import RowLayout
from tests.support.converted_models import predict_in_float64
from tests.support.paths import ROOT
from tests.support.scikit_pipelines import fit_pipeline, list_parts
from tests.support.scripts import load_script

PAGE = ROOT / "docs" / "conversions.md"
TARGET = 1e-5
# Sources of scikit-learn, and those that each part is in.
PIPELINES = 150
PART_MIN = 5
SINGLE = "float32"
graph_conversions = load_script("loadtest/graph_conversions.py")
other_conversions = load_script("loadtest/other_conversions.py")
# Each other kind: its differences, and the number of its sources.
KINDS = {
    "ONNX graphs of skl2onnx": (graph_conversions.graph_differences, 120),
    "readable models of Vowpal Wabbit": (other_conversions.vowpal_differences, 25),
    "layers of safetensors and `.npz`": (other_conversions.layer_differences, 25),
}


class Conversion(NamedTuple):
    """A source that was converted.

    Attributes:
        parts: The names of its parts.
        exact: The largest difference of a probability in float64.
        difference: The largest difference of the artifact.
        dtype: The dtype of the artifact.
    """

    parts: frozenset[str]
    exact: float
    difference: float
    dtype: str


def compare(model: ConvertedModel, source: Source, seed: int, parts: frozenset[str]) -> Conversion:
    """Return how far a model is from its source."""
    exact = max(
        float(abs(source.predict_rows(rows) - predict_in_float64(model, rows)).max())
        for rows in SourceComparison(model, seed).generate_blocks()
    )
    proof = prove(model, source, seed=seed)
    return Conversion(parts, exact, proof.difference, proof.artifact.manifest.dtype)


def convert_pipelines(count: int) -> Iterator[Conversion]:
    """Yield random pipelines of scikit-learn over every part."""
    for seed in range(count):
        estimator = fit_pipeline(seed).estimator
        with warnings.catch_warnings():
            # scikit-learn warns of unknown categories.
            warnings.simplefilter("ignore")
            model, inputs = convert_estimator(plain_object(estimator))
            source = PipelineSource(estimator, RowLayout.of_model(model, inputs))
            yield compare(model, source, seed, frozenset(list_parts(estimator)) - {"Pipeline"})


def convert_others() -> dict[str, list[float]]:
    """Return the largest difference of each source of the other kinds."""
    found = {}
    for kind, (differences, count) in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            found[kind] = [difference for _, difference in differences(Path(folder), count)]
    return found


def render(conversions: list[Conversion], others: dict[str, list[float]]) -> str:
    """Return the page."""
    by_part: dict[str, list[Conversion]] = defaultdict(list)
    for conversion in conversions:
        for part in conversion.parts:
            by_part[part].append(conversion)
    rows = [describe(part, found) for part, found in sorted(by_part.items())]
    doubles = sum(one.dtype != SINGLE for one in conversions)
    worst, exact = max(one.difference for one in conversions), max(one.exact for one in conversions)
    return f"""# Conversions

Random pipelines of scikit-learn, converted and compared with their `predict_proba`. `make conversions` writes this
page. Each pipeline is fitted on data of its own, and answers 200 rows that are generated from its fields: usual
values, gaps, unknown categories, and numbers far from the mean.

- {len(conversions)} pipelines of scikit-learn {sklearn.__version__} were converted.
- The largest difference of a probability is {worst:.1e}; the target is {TARGET:.0e}.
- Each part that [scikit-learn](scikit_learn.md#what-is-covered) names is in {PART_MIN} of them or more.
- {doubles} of the artifacts are in float64, because float32 was off by more than that.
- In float64 the largest difference of all models is {exact:.1e}.

| part | pipelines | largest difference in float64 | largest difference of the artifact |
|---|---|---|---|
{chr(10).join(rows)}

Sources of other kinds answer 200 generated rows too: ONNX graphs by onnxruntime, Vowpal Wabbit in an environment of its
own, and the tensors of layers by NumPy in float64. Graphs that cannot be compared are refused by the name of a node.

| source | made | compared | largest difference |
|---|---|---|---|
{chr(10).join(f"| {kind} | {KINDS[kind][1]} | {len(found)} | {max(found):.1e} |" for kind, found in others.items())}
"""


def describe(part: str, found: list[Conversion]) -> str:
    """Return the row of the table for a class, or for one of its options."""
    exact, difference = max(one.exact for one in found), max(one.difference for one in found)
    name, comma, option = part.partition(", ")
    return f"| `{name}`{comma}{option} | {len(found)} | {exact:.1e} | {difference:.1e} |"


def main() -> None:
    """Convert all sources, and write or print the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/conversions.md")
    parser.add_argument("--count", type=int, default=PIPELINES, help="the number of pipelines")
    options = parser.parse_args()
    start = time.monotonic()
    conversions = list(convert_pipelines(options.count))
    others = convert_others()
    page = render(conversions, others)
    if options.write:
        PAGE.write_text(page)
    sys.stdout.write(f"{page}\n{time.monotonic() - start:.0f} s\n")
    worst = max(*(one.difference for one in conversions), *(max(found) for found in others.values()))
    if worst > TARGET:
        raise SystemExit(f"a probability is off by {worst:.1e}")


if __name__ == "__main__":
    main()

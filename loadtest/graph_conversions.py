"""Random ONNX sources (figure T4).

    .venv/bin/python loadtest/graph_conversions.py [--count 120]      (from the repository root)

Pipelines of scikit-learn are fitted and converted by skl2onnx in an environment of its own. Each graph is converted and
compared with onnxruntime on 200 generated rows, as `softstep import` does. Graphs that are refused by name, or that
onnxruntime has no kernels for, are listed and not compared.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from environments import HERE, ROOT, Environment

sys.path.insert(0, str(ROOT))

from service.convert.graphs.graph_source import read_graph
from service.convert.proof import prove
from service.errors import ConversionError

GRAPHS = Environment("graphs", (HERE / "peers" / "graphs.txt",))


def graph_differences(folder: Path, count: int) -> Iterator[tuple[str, float]]:
    """Yield the parts and the largest difference of each graph that can be compared."""
    python = GRAPHS.ensure()
    subprocess.run([str(python), str(HERE / "graph_models.py"), str(folder), str(count)], check=True)
    for seed in range(count):
        path = folder / f"{seed}.onnx"
        text = path.with_suffix(".txt").read_text()
        try:
            converted = read_graph(path)
        except ConversionError as error:
            print(f"refused  {error}  {text}", flush=True)
            continue
        if converted.source is None:
            print(f"not run by onnxruntime  {text}", flush=True)
            continue
        yield text, prove(converted.model, converted.source, seed=seed).difference


def main() -> None:
    """Print each source and its largest difference, and the largest of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=120, help="sources")
    count = parser.parse_args().count
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for text, difference in graph_differences(Path(folder), count):
            found.append(difference)
            print(f"{difference:.1e}  {text}", flush=True)
    print(json.dumps({"sources": count, "compared": len(found), "largest": max(found)}))


if __name__ == "__main__":
    main()

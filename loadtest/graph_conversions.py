"""Random ONNX sources (figure T4).

    .venv/bin/python loadtest/graph_conversions.py [--count 100]      (from the repository root)

Pipelines of scikit-learn are fitted and converted by skl2onnx in an environment of its own. Each graph is converted and
compared with onnxruntime on 200 generated rows, as `softstep import` does.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from environments import HERE, ROOT, Environment

sys.path.insert(0, str(ROOT))

from service.convert.graphs.graph_source import read_graph
from service.convert.proof import prove
from service.errors import ConversionError

GRAPHS = Environment("graphs", (ROOT / "tests" / "golden" / "graphs" / "requirements.txt",))


def main() -> None:
    """Print each source and its largest difference, and the largest of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="sources")
    parser.add_argument("--python", type=Path, help="interpreter with skl2onnx; default: an environment that is built")
    arguments = parser.parse_args()
    python = arguments.python or GRAPHS.ensure()
    found, unasked, refused = [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([str(python), str(HERE / "graph_models.py"), folder, str(arguments.count)], check=True)
        for seed in range(arguments.count):
            path = Path(folder) / f"{seed}.onnx"
            try:
                converted = read_graph(path)
            except ConversionError as error:
                refused += 1
                print(f"refused  {error}", flush=True)
                continue
            if converted.source is None:
                unasked += 1
                continue
            proof = prove(converted.model, converted.source, seed=seed)
            found.append(proof.difference)
            print(f"{proof.difference:.1e}  {path.with_suffix('.txt').read_text()}", flush=True)
    counts = {"sources": len(found), "refused": refused, "not run by onnxruntime": unasked}
    print(json.dumps({**counts, "largest": max(found)}))


if __name__ == "__main__":
    main()

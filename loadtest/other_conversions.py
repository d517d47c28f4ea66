"""Random sources that are neither scikit-learn's nor ONNX: Vowpal Wabbit, safetensors and .npz (figure T4).

    .venv/bin/python loadtest/other_conversions.py [--count 25]      (from the repository root)

Each source is converted and compared on 200 generated rows, as `softstep import` does. Vowpal Wabbit answers in an
environment of its own, and a network by PyTorch's arithmetic in NumPy.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from environments import HERE, ROOT

sys.path.insert(0, str(ROOT))

from vowpal_process import VOWPAL

from service.convert.layers.layer_model import read_layer_source
from service.convert.proof import prove
from service.convert.source_options import SourceOptions
from service.convert.vowpal.vowpal_fields import VowpalModel
from service.convert.vowpal.vowpal_source import VowpalSource

ACTIVATIONS = ("relu", "sigmoid", "tanh")


def vowpal_differences(folder: Path, count: int) -> Iterator[tuple[str, float]]:
    """Yield the options and the largest difference of each model of Vowpal Wabbit."""
    python = VOWPAL.ensure()
    subprocess.run([str(python), str(HERE / "vowpal_models.py"), str(folder), str(count)], check=True)
    for seed in range(count):
        facts = json.loads((folder / f"{seed}.json").read_text())
        model = VowpalModel(folder / f"{seed}.txt", facts["namespaces"])
        proof = prove(model.convert(), VowpalSource(model, str(python)), seed=seed)
        yield f"vw {facts['options']}", proof.difference


def layer_differences(folder: Path, count: int) -> Iterator[tuple[str, float]]:
    """Yield the shape and the largest difference of each network."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        sizes = [int(size) for size in rng.choice([1, 2, 5, 16, 64, 384], int(rng.integers(2, 5)))]
        head = "sigmoid" if sizes[-1] == 1 else str(rng.choice(["softmax", "multilabel", "ovr"]))
        rows = str(rng.choice(["outputs", "inputs"]))
        tensors: dict[str, Any] = {}
        words = []
        for i, (inputs, outputs) in enumerate(pairwise(sizes)):
            weight = rng.normal(0, 1 / np.sqrt(inputs), (inputs, outputs)).astype(rng.choice(["f4", "f8"]))
            tensors[f"w{i}"] = np.ascontiguousarray(weight.T if rows == "outputs" else weight)
            tensors[f"b{i}"] = rng.normal(0, 0.5, outputs).astype(np.float32)
            last = i == len(sizes) - 2
            words.append(f"w{i},b{i}" + ("" if last else f":{rng.choice(ACTIVATIONS)}"))
        path = folder / f"{seed}.{'npz' if seed % 2 else 'safetensors'}"
        if seed % 2:
            np.savez_compressed(path, **tensors)
        else:
            safetensors.numpy.save_file(tensors, path)
        vector = "embedding" if seed % 3 == 0 and sizes[0] > 1 else ""
        read = read_layer_source(
            path, SourceOptions(layers=",".join(words), head=head, weight_rows=rows, vector=vector)
        )
        yield f"{path.suffix[1:]} {sizes} {head}", prove(read.model, read.source, seed=seed).difference


def main() -> None:
    """Print each source and its largest difference, and the largest of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=25, help="sources of each kind")
    count = parser.parse_args().count
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, differences in (("vowpal", vowpal_differences), ("layers", layer_differences)):
            (Path(folder) / kind).mkdir()
            for i, (name, difference) in enumerate(differences(Path(folder) / kind, count)):
                found[f"{kind} {i}"] = difference
                print(f"{difference:.1e}  {name}", flush=True)
    print(json.dumps({"sources": len(found), "largest": max(found.values())}))


if __name__ == "__main__":
    main()

"""Write tests/golden/release: a data directory as a release left it, and what it served at the end.

    python -m tests.support.make_release_data

A release writes it once; every later release with the same fold must open it and serve the same bits. The service is
driven over HTTP only, so that the script runs with any release that PYTHONPATH names.

    iris         feedback, a further class, a rollback, a forgotten event
    digits-mlp   feedback for a network
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden" / "release"
MODELS = Path(__file__).parents[2] / "models"
PORT = 18231
START_SECONDS = 120.0


def call(path: str, body: Any = None) -> Any:
    """Return the JSON response of a call."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", data, timeout=60) as response:
        return json.load(response)


@contextmanager
def running(data: Path) -> Iterator[None]:
    """Serve the shipped models from a data directory until the end."""
    command = [str(Path(sys.executable).parent / "softstep"), "serve", "--models", str(MODELS), "--data", str(data)]
    process = subprocess.Popen([*command, "--port", str(PORT)], env=dict(os.environ))
    try:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                call("/readyz")
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        assert process.wait(60) == 0


def teach(model: str, ids: range, n_features: int, n_classes: int, call_of: str = ":feedback?wait=true") -> None:
    """Post one random row for each id; the id is its seed."""
    for number in ids:
        rng = np.random.default_rng(number)
        row = rng.normal(3, 2, n_features).round(2).tolist()
        body = {"id": f"evt-{number}", "instances": [row], "labels": [int(rng.integers(n_classes))]}
        call(f"/v1/models/{model}{call_of}", body)


def served(model: str) -> dict[str, Any]:
    """Return what identifies the served state of a model, and one prediction."""
    metadata = call(f"/v1/models/{model}")
    row = np.linspace(0, 4, metadata["n_features"]).round(2).tolist()
    prediction = call(f"/v1/models/{model}:predict", {"instances": [row]})
    state = {name: metadata[name] for name in ("seq", "epoch", "weights_sha256", "classes")}
    return {**state, "row": row, "predictions": prediction["predictions"]}


def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return an entry without who made it and when."""
    return entry.replace(uid=0, gid=0, uname="", gname="", mtime=0, deep=False)


def main() -> None:
    """Write the data directory and what was served."""
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        with running(data):
            teach("iris", range(20), 4, 3)
            call("/v1/models/iris:classes?wait=true", {"id": "class", "add": ["gigantea"]})
            teach("iris", range(20, 30), 4, 4)
            call("/v1/models/iris:rollback?wait=true", {"id": "back", "seq": 25})
            teach("iris", range(30, 40), 4, 4)
            call("/v1/models/iris:forget?wait=true", {"id": "forget", "ids": ["evt-3"]})
            teach("digits-mlp", range(100, 110), 64, 10)
            expected = {model: served(model) for model in ("iris", "digits-mlp")}
        (data / "token.key").unlink(missing_ok=True)
        GOLDEN.mkdir(exist_ok=True)
        with tarfile.open(GOLDEN / "data.tar.xz", "w:xz") as archive:
            archive.add(data, "data", filter=anonymous)
    (GOLDEN / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")


if __name__ == "__main__":
    main()

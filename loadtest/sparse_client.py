"""Send feedback of rows with names to the model of sparse_model.py.

    .venv/bin/python loadtest/sparse_client.py PORT MODEL --rate 40 --seconds 5

sends 32 rows in each request, at that many requests a second, or each with the answer to the one before without a rate.
It prints how many requests and rows were acknowledged. The names are drawn evenly, so that ever more columns change.
"""

import argparse
import json
import sys
from typing import Any

import numpy as np
from paced_clients import PacedLoad, post, run_loads

ROWS, NAMES, BODIES, CLASSES, CONNECTIONS = 32, 30, 400, 10, 4
NAMES_MAX = 1 << 20
ACCEPTED = 202


def make_bodies() -> list[bytes]:
    """Return bodies of feedback without ids; a label depends on the first name of its row."""
    rng = np.random.default_rng(0)
    bodies = []
    for names in rng.integers(0, NAMES_MAX, (BODIES, ROWS, NAMES)).tolist():
        rows = [{"words": [f"name {n}" for n in row]} for row in names]
        bodies.append(json.dumps({"instances": rows, "labels": [row[0] % CLASSES for row in names]}).encode())
    return bodies


def main() -> None:
    """Send feedback, and print how many requests and rows were acknowledged."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("model")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    bodies, turn = make_bodies(), 0

    def make() -> tuple[bytes, Any]:
        nonlocal turn
        turn += 1
        return post(f"/v1/models/{options.model}:feedback", bodies[turn % len(bodies)]), None

    load = PacedLoad(options.rate, CONNECTIONS, make)
    run_loads(options.port, [load], options.seconds)
    requests = sum(answer.status == ACCEPTED for answer in load.answers)
    sys.stdout.write(json.dumps({"requests": requests, "rows": ROWS * requests}))


if __name__ == "__main__":
    main()

"""Sparse rows beside Vowpal Wabbit: predictions (F4), the fold (F5) and the progressive loss of languages (F6).

    .venv/bin/python loadtest/beside_vowpal.py [--turns 9] predict learn loss      (from the repository root)

Rows of F4 and F5 have 100 of 2^18 columns, drawn evenly, and one of 10 classes. Softstep gets them as arrays, 1,000 in
a call of predictions and all in one of the fold. Vowpal Wabbit gets parsed examples, one in each call of its Python. It
has a table of 2^22 weights, so that no two columns and classes share one, and of its default size too. Both have one
thread, in turns.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from environments import BUILD, ROOT

sys.path.insert(0, str(ROOT))

from sparse_rates import build_rule, pass_loss
from sparse_sets import SparseSet, languages
from vowpal_process import VowpalWabbit, write_examples

from service.softmax.rule import Rule
from service.softmax.sparse_model import SparseModel
from service.softmax.sparse_rows import SparseRows
from service.store.artifact.learning_rules import SPARSE_RATE

ROWS, ENTRIES, COLUMNS, CLASSES = 10_000, 100, 1 << 18, 10
ROWS_OF_A_CALL = 1000
# Bits of the tables of Vowpal Wabbit; the first one is that of the figures.
TABLES = (22, 18)
SHUFFLES = 5


def draw_rows() -> SparseSet:
    """Return random rows with the classes that random weights give them."""
    rng = np.random.default_rng(0)
    columns = np.stack([np.sort(rng.choice(COLUMNS, ENTRIES, replace=False)) for _ in range(ROWS)]).astype(np.int32)
    values = rng.standard_normal((ROWS, ENTRIES), np.float32)
    truth = rng.standard_normal((COLUMNS, CLASSES), np.float32)
    y = np.einsum("be,bek->bk", values, truth[columns]).argmax(axis=1)
    ends = np.arange(1, ROWS + 1, dtype=np.int64) * ENTRIES
    return SparseSet(SparseRows(ends, columns.ravel(), values.ravel()), y, COLUMNS, CLASSES)


def default_rule() -> Rule:
    """Return the rule of a new sparse model."""
    return build_rule("adagrad", SPARSE_RATE)


def predict_seconds(model: SparseModel, parts: list[SparseRows]) -> float:
    """Return the seconds of one pass of predictions."""
    began = time.perf_counter()
    for rows in parts:
        model.predict(rows)
    return time.perf_counter() - began


def learn_seconds(data: SparseSet) -> float:
    """Return the seconds of one pass of a new model."""
    learner = data.learner(default_rule())
    began = time.perf_counter()
    learner.fold(data.rows, data.y)
    return time.perf_counter() - began


def alternate(command: str, own: Callable[[], float], data: SparseSet, turns: int) -> dict[str, Any]:
    """Return the rows per second of Softstep, and its ratio to each table of Vowpal Wabbit, as medians of turns."""
    file = BUILD / "sparse.txt"
    write_examples(file, data.rows, data.y)
    found: dict[str, Any] = {}
    for bits in TABLES:
        with VowpalWabbit(file, f"--oaa {CLASSES} -b {bits}") as peer:
            peer.run("learn")
            pairs = [(own(), peer.run(command)) for _ in range(turns)]
        ours, theirs = (median(seconds) for seconds in zip(*pairs, strict=True))
        found.setdefault("rows_per_s", len(data.y) / ours)
        found[f"ratio_{bits}"] = theirs / ours
    return found


def predict(turns: int) -> dict[str, Any]:
    """Measure F4: weights that have learned the rows once predict them."""
    data = draw_rows()
    learner = data.learner(default_rule())
    learner.fold(data.rows, data.y)
    model = learner.parameters().build_model()
    parts = [data.rows.slice_rows(start, start + ROWS_OF_A_CALL) for start in range(0, ROWS, ROWS_OF_A_CALL)]
    return alternate("predict", lambda: predict_seconds(model, parts), data, turns)


def learn(turns: int) -> dict[str, Any]:
    """Measure F5: weights of 0 learn the rows once."""
    data = draw_rows()
    return alternate("learn", lambda: learn_seconds(data), data, turns)


def loss(_: int) -> dict[str, Any]:
    """Measure F6: training rows of languages in several orders, by the default rule and by Vowpal Wabbit's."""
    data, file = languages(), BUILD / "languages.txt"
    own, peer = [], []
    for seed in range(SHUFFLES):
        order = data.shuffled(seed)
        write_examples(file, order.rows, order.y)
        own.append(pass_loss(order, default_rule()))
        with VowpalWabbit(file, f"--oaa {data.n_classes} --probabilities -b {TABLES[0]}") as other:
            peer.append(other.run("loss"))
    ours, theirs = float(np.mean(own)), float(np.mean(peer))
    return {"loss": ours, "peer": theirs, "ratio": ours / theirs}


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {"predict": predict, "learn": learn, "loss": loss}


def main() -> None:
    """Measure the parts that the command line names, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=9, help="turns of each library")
    parser.add_argument("parts", nargs="+", choices=PARTS, help="what to measure")
    options = parser.parse_args()
    print(json.dumps({name: PARTS[name](options.turns) for name in options.parts}))


if __name__ == "__main__":
    main()

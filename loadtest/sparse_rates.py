"""The progressive loss of a sparse model from zero weights in one pass, by the rate of its rule: to choose a default.

    .venv/bin/python loadtest/sparse_rates.py ROWS.npz --columns N [--rule adagrad] [--head softmax] [--orders 1]

ROWS.npz has the arrays `ends` (B,), `columns` (E,), `values` (E,) of service/softmax/sparse_rows.py and `labels` (B,).
Each rate takes one pass over the rows in their order, and `--orders` more in random orders. A loss is the mean over all
rows, each scored before it is learned; of several orders, the mean of their losses.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from environments import HERE

sys.path.insert(0, str(HERE.parent))

from service.softmax.rule import Rule
from service.softmax.sparse_learner import SparseLearner
from service.softmax.sparse_parameters import SparseParameters
from service.softmax.sparse_rows import SparseRows, check_sparse_rows
from service.softmax.sparse_weights import SparseWeights
from service.store.artifact.learning_rules import CONSTANTS

RATES = (0.05, 0.08, 0.12, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2, 2.0)


def load_rows(path: Path, n_columns: int) -> tuple[SparseRows, np.ndarray]:
    """Return the rows of a file, and their labels (B,)."""
    with np.load(path) as arrays:
        rows = SparseRows(
            arrays["ends"].astype(np.int64), arrays["columns"].astype(np.int32), arrays["values"].astype(np.float32)
        )
        labels = arrays["labels"].astype(np.int64)
    check_sparse_rows(rows, n_columns)
    return rows, labels


def build_rule(name: str, rate: float) -> Rule:
    """Return a rule with the defaults of a manifest, but for its rate."""
    defaults = {constant: numbers.default for constant, numbers in CONSTANTS[name].items()}  # type: ignore[index]
    return Rule(
        name=name,  # type: ignore[arg-type]
        rate=rate,
        offset=defaults.get("epsilon") or defaults.get("beta") or 0.0,
        forget=defaults.get("forget") or 0.0,
        step_clip=defaults.get("step_clip") or np.inf,
    )


def pass_loss(rows: SparseRows, labels: np.ndarray, head: str, rule: Rule, n_columns: int) -> float:
    """Return the progressive loss of one pass from zero weights."""
    K = 1 if head == "sigmoid" else int(labels.max()) + 1
    weights = SparseWeights.from_matrix(np.zeros((n_columns, K), np.float32), np.zeros(K, np.float32))
    learner = SparseLearner(SparseParameters(head, weights), rule, np.full(K, 0.5))  # type: ignore[arg-type]
    return float(np.nanmean(learner.fold(rows, labels)))


def main() -> None:
    """Print the loss of each rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="the rows and their labels")
    parser.add_argument("--columns", type=int, required=True, help="N, the number of columns")
    parser.add_argument("--rule", choices=("sgd", "adagrad", "ftrl"), default="adagrad")
    parser.add_argument("--head", choices=("softmax", "sigmoid", "ovr"), default="softmax")
    parser.add_argument("--orders", type=int, default=0, help="passes in random orders, after that of the file")
    options = parser.parse_args()
    rows, labels = load_rows(options.rows, options.columns)
    orders = [
        np.arange(rows.n_rows),
        *(np.random.default_rng(n).permutation(rows.n_rows) for n in range(options.orders)),
    ]
    passes = [(rows.take(order), labels[order]) for order in orders]
    print(f"{rows.n_rows} rows, {len(rows.columns)} entries, {options.rule}, {len(passes)} orders")
    for rate in RATES:
        rule = build_rule(options.rule, rate)
        losses = [pass_loss(some, wanted, options.head, rule, options.columns) for some, wanted in passes]
        print(f"rate {rate:<5g} progressive loss {np.mean(losses):.4f}", flush=True)


if __name__ == "__main__":
    main()

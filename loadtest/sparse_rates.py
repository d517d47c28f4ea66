"""The progressive loss of sparse models from zero weights in one pass, by the rate of their rule: to choose a default.

    .venv/bin/python loadtest/sparse_rates.py [--rule adagrad] [--shuffles 5] [--write]       about three minutes

Each rate takes one pass over each set of sparse_sets.py in several orders. A loss is the mean over all rows, each
scored before it is learned; of several orders, the mean of their losses. Each rate is compared with the best one of
the set, and the geometric mean of these ratios counts. With `--write` the table is written to docs/rules.md.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import geometric_mean
from typing import Any, Final

import numpy as np
from environments import ROOT

sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "docs"))

from marked_table import replace_table
from sparse_sets import SETS, SparseSet
from tables import table

from service.softmax.rule import Rule
from service.store.artifact.learning_rules import CONSTANTS, SPARSE_DEFAULTS

FILE = ROOT / "docs" / "benchmarks" / "sparse_rates.json"
PAGE = ROOT / "docs" / "rules.md"
MARK: Final = "sparse rates"
RATES: Final = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.2, 2.0)
SHUFFLES: Final = 5
DEFAULT: Final = "adagrad"


def build_rule(name: str, rate: float) -> Rule:
    """Return a rule with the defaults of sparse models, but for its rate."""
    constants = {key: constant.default for key, constant in CONSTANTS[name].items()}  # type: ignore[index]
    constants |= SPARSE_DEFAULTS[name]  # type: ignore[index]
    return Rule(
        name=name,  # type: ignore[arg-type]
        rate=rate,
        offset=constants.get("epsilon") or constants.get("beta") or 0.0,
        forget=constants.get("forget") or 0.0,
        step_clip=constants.get("step_clip") or np.inf,
    )


def pass_loss(data: SparseSet, rule: Rule) -> float:
    """Return the progressive loss of one pass from zero weights."""
    losses = data.learner(rule).fold(data.rows, data.y)
    if np.isnan(losses).any():
        raise ValueError("a row was skipped")
    return float(losses.mean())


def measure(rule: str, shuffles: int) -> dict[str, dict[str, float]]:
    """Return the loss by set and rate."""
    found: dict[str, dict[str, float]] = {}
    for name, load in SETS.items():
        data = load()
        orders = [data.shuffled(seed) for seed in range(shuffles)]
        found[name] = {
            f"{rate:g}": float(np.mean([pass_loss(order, build_rule(rule, rate)) for order in orders]))
            for rate in RATES
        }
        shown = ", ".join(f"{rate}: {loss:.4f}" for rate, loss in found[name].items())
        print(f"{name}, {len(data.y)} rows, {len(data.rows.columns)} entries: {shown}", file=sys.stderr, flush=True)
    return found


def compare(losses: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return by rate the geometric mean of its loss ÷ that of the best rate of the set."""
    best = {name: min(each.values()) for name, each in losses.items()}
    rates = next(iter(losses.values()))
    return {rate: geometric_mean(each[rate] / best[name] for name, each in losses.items()) for rate in rates}


def render(results: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    losses: dict[str, dict[str, float]] = results["losses"]
    rows = [
        [rate, f"{mean:.3f}", *(f"{each[rate]:.3f}" for each in losses.values())]
        for rate, mean in compare(losses).items()
    ]
    return "\n" + table(["rate", "loss ÷ that of the best rate", *losses], rows) + "\n"


def main() -> None:
    """Measure and print; if asked to, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", choices=list(SPARSE_DEFAULTS), default=DEFAULT)
    parser.add_argument("--shuffles", type=int, default=SHUFFLES, help=f"orders of the rows; default: {SHUFFLES}")
    parser.add_argument("--write", action="store_true", help="write the table to docs/rules.md")
    options = parser.parse_args()
    if options.write and options.rule != DEFAULT:
        parser.error(f"--write needs the rule {DEFAULT}")
    results = {"rule": options.rule, "shuffles": options.shuffles, "losses": measure(options.rule, options.shuffles)}
    print(render(results))
    if options.write:
        FILE.write_text(json.dumps(results, indent=1) + "\n")
        write_page(PAGE, results)


def write_page(page: Path, results: dict[str, Any]) -> None:
    """Write the table of a page from the results."""
    page.write_text(replace_table(page.read_text(), MARK, render(results)))


if __name__ == "__main__":
    main()

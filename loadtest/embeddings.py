"""Figure B8: how well a head over sentence embeddings learns in one pass, compared with batch LogisticRegression.

    .venv/bin/python loadtest/embeddings.py [--rule RULE …] [--shuffles 3] [--write]

The texts and their labels are those of docs/examples/embed_texts.py: 4,000 phrases with one of 15 labels, and 384
numbers for each. They are embedded once, into build/bench/embeddings.npz. Every loss is progressive, from zero weights:
the loss of a row is taken with the state before that row has any effect.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from artifacts import Rows, make_artifact
from datasets import rows
from environments import BUILD, EMBEDDINGS, ROOT
from machine import describe
from operations import HEAD, MACHINE, row
from tables import table

sys.path.insert(0, str(ROOT / "docs" / "examples"))

from embedding_head import batch_losses

from service.learn.state import LearnerState

FOLDER = ROOT / "docs" / "benchmarks"
FILE = BUILD / "embeddings.npz"
SHUFFLES = 3
RATIO_MAX = 1.02
# From too strong a regularization to too weak a one; the best in hindsight counts.
BATCH_C = (3.0, 10.0, 30.0)
PAGE = """# Heads over embeddings

`loadtest/embeddings.py` measures these figures and writes this page. [Embeddings](../embeddings.md) has the example.

4,000 phrases for diagnoses, with one of 15 labels; 384 numbers for each from all-MiniLM-L6-v2. One pass from zero
weights; the losses are means over {shuffles} orders. The loss of a row is taken before the row has any effect.
LogisticRegression is fitted to all rows so far whenever they have grown by 10 %. Its C is the one of {candidates} with
the least loss, known only in hindsight. The uniform guess is mixed into its answers with the weight of one row, because
a fit has no probability for a label without rows. {machine}

{table}
"""


def load_rows() -> Rows:
    """Return the embeddings with their labels; compute them the first time."""
    if not FILE.exists():
        python = EMBEDDINGS.ensure()
        script = ROOT / "docs" / "examples" / "embed_texts.py"
        subprocess.run([str(python), str(script), str(FILE)], check=True)
    with np.load(FILE) as arrays:
        return rows(arrays["embeddings"], arrays["labels"])


def fold_loss(data: Rows, rule: str | None) -> float:
    """Return the progressive loss of a rule, by default that of the service for this shape."""
    fields = {} if rule is None else {"learning": {"rule": rule}}
    return float(LearnerState(make_artifact(data, **fields)).fold_rows(data.X, data.y).mean())


def batch_loss(data: Rows, C: float) -> float:
    """Return the progressive loss of batch refits."""
    return float(batch_losses(data.X, data.y, data.n_classes, C).mean())


def mean(losses: list[float]) -> float:
    """Return the arithmetic mean."""
    return float(np.mean(losses))


def measure(rules: list[str], shuffles: int) -> dict[str, Any]:
    """Return the losses of the default rule and of the named ones, and of batch refits with each C."""
    orders = [load_rows().shuffled(seed) for seed in range(shuffles)]
    folded = {rule or "default": mean([fold_loss(order, rule) for order in orders]) for rule in (None, *rules)}
    batch = {f"{C:g}": mean([batch_loss(order, C) for order in orders]) for C in BATCH_C}
    return {"shuffles": shuffles, "folded": folded, "batch": batch}


def table_of(losses: dict[str, Any]) -> str:
    """Return the table of losses and ratios as Markdown."""
    C, best = min(losses["batch"].items(), key=lambda pair: pair[1])
    lines = [[f"loss of LogisticRegression, C = {C}", "", f"{best:.3f}", ""]]
    for rule, loss in losses["folded"].items():
        name = "the default rule" if rule == "default" else f"`{rule}`"
        lines.append([f"loss of {name}", "", f"{loss:.3f}", ""])
        ratio = loss / best
        target = f"≤ {RATIO_MAX}" if rule == "default" else ""
        line = row(f"B8 loss of {name} ÷ LogisticRegression", target, f"{ratio:.3f}", met=ratio <= RATIO_MAX)
        lines.append(line if target else [*line[:-1], ""])
    return table(HEAD, lines)


def render(results: dict[str, Any]) -> str:
    """Return the page."""
    machine = results["machine"]
    return PAGE.format(
        shuffles=results["shuffles"],
        candidates=", ".join(results["batch"]),
        machine=f"{machine['processor']}, Python {machine['python']}, {machine['date'].split()[0]}.",
        table=table_of(results),
    )


def main() -> None:
    """Measure and print; if asked to, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", nargs="*", default=[], metavar="RULE", help="rules to compare with the default")
    parser.add_argument("--shuffles", type=int, default=SHUFFLES, help=f"orders of the rows; default: {SHUFFLES}")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/embeddings.md")
    options = parser.parse_args()
    machine = describe()
    results = measure(options.rule, options.shuffles)
    print(table_of(results))
    if options.write:
        results["machine"] = {key: machine[key] for key in MACHINE}
        write_page(FOLDER, results)


def write_page(folder: Path, results: dict[str, Any]) -> None:
    """Write embeddings.json, and embeddings.md from it."""
    (folder / "embeddings.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "embeddings.md").write_text(render(results))


if __name__ == "__main__":
    main()

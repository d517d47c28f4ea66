"""Train the model flares with Vowpal Wabbit, and write it as text; imported_models.py runs it in another environment.

python flares_text.py LINES MODEL.txt         needs vowpalwabbit; the lines are examples in its text format
"""

import sys
from pathlib import Path

import vowpalwabbit

# The namespaces and their cross have some 220 features in a table of 1,024 weights. Log losses in five-fold
# cross-validation on the training rows, by --l2: 0.416 at 0, 0.410 at 1e-4, 0.395 at 1e-3, 0.402 at 4e-3.
OPTIONS = "--loss_function logistic --link logistic -b 10 -q sh --l2 1e-3"
PASSES = 10


def main() -> None:
    """Learn the lines in several passes, and write the weights with the names of their features."""
    source, target = sys.argv[1:]
    lines = Path(source).read_text(encoding="utf-8").splitlines()
    workspace = vowpalwabbit.Workspace(f"{OPTIONS} --quiet --invert_hash {target}")
    for _ in range(PASSES):
        for line in lines:
            workspace.learn(line)
    workspace.finish()


if __name__ == "__main__":
    main()

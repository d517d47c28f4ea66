"""Vowpal Wabbit's Python `learn` on parsed examples, for figure 4 of learning.py; runs in an environment of its own.

    python vowpal.py CLASSES LINES      reads one line of input per pass; prints the seconds that the pass took

LINES is a file of examples in Vowpal Wabbit's text format. All are parsed before the clock starts.
"""

import sys
import time
from pathlib import Path

import vowpalwabbit


def main() -> None:
    """Parse the examples, and learn them once for each line of input."""
    options = f"--oaa {sys.argv[1]} --ftrl --loss_function logistic --quiet"
    lines = Path(sys.argv[2]).read_text().splitlines()
    for _ in sys.stdin:
        workspace = vowpalwabbit.Workspace(options)
        examples = [workspace.parse(line, vowpalwabbit.LabelType.MULTICLASS) for line in lines]
        began = time.perf_counter()
        for example in examples:
            workspace.learn(example)
        seconds = time.perf_counter() - began
        for example in examples:
            workspace.finish_example(example)
        workspace.finish()
        print(seconds, flush=True)


if __name__ == "__main__":
    main()

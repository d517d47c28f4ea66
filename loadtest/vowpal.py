"""Vowpal Wabbit's Python on parsed examples; runs in an environment of its own (vowpal_process.py).

    python vowpal.py LINES OPTIONS      does what each line of input says, and prints a number

    learn      a new model learns the examples: the seconds that this takes
    predict    that model predicts them: the seconds
    loss       a new model predicts each example, then learns it: the mean log loss of its probabilities

LINES is a file of examples in Vowpal Wabbit's text format, with labels from 1. All are parsed before the clock starts.
"""

import math
import sys
import time
from pathlib import Path

import vowpalwabbit

# As for all learners of rivals.py: one probability of 0 would make any loss infinite.
PROBABILITY_MIN = 1e-6


class Examples:
    """The examples of a file, and the model that learned them last."""

    def __init__(self, lines: list[str], options: str) -> None:
        self.lines, self.options = lines, f"{options} --loss_function logistic --quiet"
        self.workspace: vowpalwabbit.Workspace | None = None
        self.examples: list[vowpalwabbit.Example] = []

    def start(self) -> None:
        """Begin with a new model; examples belong to the model that parsed them."""
        self.finish()
        self.workspace = vowpalwabbit.Workspace(self.options)
        self.examples = [self.workspace.parse(line, vowpalwabbit.LabelType.MULTICLASS) for line in self.lines]

    def finish(self) -> None:
        """Release the model and its examples."""
        if self.workspace is not None:
            for example in self.examples:
                self.workspace.finish_example(example)
            self.examples.clear()
            self.workspace.finish()

    def learn(self) -> float:
        """Return the seconds of one pass of a new model."""
        self.start()
        began = time.perf_counter()
        for example in self.examples:
            self.workspace.learn(example)
        return time.perf_counter() - began

    def predict(self) -> float:
        """Return the seconds of one pass of predictions."""
        began = time.perf_counter()
        for example in self.examples:
            self.workspace.predict(example)
        return time.perf_counter() - began

    def loss(self) -> float:
        """Return the progressive log loss of one pass of a new model."""
        self.start()
        total = 0.0
        for line, example in zip(self.lines, self.examples, strict=True):
            p = self.workspace.predict(example)[int(line.partition(" ")[0]) - 1]
            total -= math.log(max(p, PROBABILITY_MIN))
            self.workspace.learn(example)
        return total / len(self.lines)


def main() -> None:
    """Follow the lines of input."""
    examples = Examples(Path(sys.argv[1]).read_text().splitlines(), sys.argv[2])
    commands = {"learn": examples.learn, "predict": examples.predict, "loss": examples.loss}
    for line in sys.stdin:
        print(commands[line.strip()](), flush=True)
    examples.finish()


if __name__ == "__main__":
    main()

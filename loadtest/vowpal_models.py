"""Train random models of Vowpal Wabbit; runs in an environment of its own (vowpal_process.py).

    python vowpal_models.py FOLDER COUNT      writes FOLDER/<i>.txt, and FOLDER/<i>.json with the namespaces of its rows

Each has other options: bits, classes, interactions, a rule of learning, a bias or none, and names in the file or none.
"""

import json
import random
import sys
from pathlib import Path

import vowpalwabbit

NAMES = ["refund", "money", "late", "age", "height", "12", "007", "grün", "東京", "😀", "a=b", "-3", "x_1", "don't"]
SPACES = ["", "user", "item", "text", "usage", "x", "日本"]
RULES = ["", "--ftrl", "--sgd", "--l1 0.001", "--l2 0.001"]
BITS, CLASSES = [8, 10, 14, 18], [2, 2, 3, 4, 5, 8, 13]
BINARY = 2
ROWS, PASSES = 200, 3


def choose_options(chance: random.Random, namespaces: list[str], classes: int) -> str:
    """Return random options; interactions are of two or three namespaces with letters of their own."""
    words = [f"-b {chance.choice(BITS)}", chance.choice(RULES)]
    letters = list(dict.fromkeys(space[0] for space in namespaces if space.isascii() and space))
    for length, names in ((2, ["-q", "--interactions"]), (3, ["--cubic", "--interactions"])):
        if len(letters) >= length and chance.choice([True, True, False]):
            words.append(f"{chance.choice(names)} {''.join(chance.sample(letters, length))}")
    if classes > BINARY:
        words.append(f"--oaa {classes} {chance.choice(['', '--probabilities'])}")
    else:
        words.append(chance.choice(["", "--link logistic"]))
    return " ".join([*words, chance.choice(["", "--noconstant"])])


def make_line(chance: random.Random, namespaces: list[str]) -> str:
    """Return features of a random row."""
    parts = []
    for space in namespaces:
        names = chance.sample(NAMES, chance.randrange(6))
        parts.append(f"|{space} {' '.join(f'{name}:{chance.choice([1, 1, 2, 0.5, -0.25])}' for name in names)}")
    return " ".join(parts)


def train(folder: Path, seed: int) -> None:
    """Train and write one model."""
    chance = random.Random(seed)  # noqa: S311  # no secret
    namespaces = chance.sample(SPACES, 1 + chance.randrange(4))
    classes = chance.choice(CLASSES)
    options, file = choose_options(chance, namespaces, classes), folder / f"{seed}.txt"
    form = chance.choice(["--readable_model", "--invert_hash"])
    workspace = vowpalwabbit.Workspace(f"--loss_function logistic --quiet {options} {form} {file}")
    lines = [make_line(chance, namespaces) for _ in range(ROWS)]
    labels = [chance.randrange(classes) for _ in lines]
    for _ in range(PASSES):
        for line, k in zip(lines, labels, strict=True):
            workspace.learn(f"{(-1, 1)[k] if classes == BINARY else k + 1} {line}")
    workspace.finish()
    (folder / f"{seed}.json").write_text(json.dumps({"namespaces": namespaces, "options": options}))


if __name__ == "__main__":
    for number in range(int(sys.argv[2])):
        train(Path(sys.argv[1]), number)

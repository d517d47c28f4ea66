"""Make tests/golden/vowpal: readable models of Vowpal Wabbit 9.11.9, and the probabilities that it gives to rows.

build/bench/vowpalwabbit/bin/python tests/support/make_vowpal_models.py    (needs the package vowpalwabbit alone)
"""

import json
import random
from pathlib import Path

import vowpalwabbit

FOLDER = Path(__file__).parents[1] / "golden" / "vowpal"
# Options of each model, its namespaces ("" is the default one), and the number of its classes.
MODELS = {
    "binary": ("--link logistic -b 10", [""], 2),
    "crosses": ("--link logistic -b 12 -q ui --interactions uix --l2 1e-4", ["user", "usage", "item", "x"], 2),
    "l1": ("--link logistic -b 8 --l1 0.01 --noconstant", ["", "user"], 2),
    "ftrl": ("--link logistic -b 9 --ftrl --ftrl_alpha 0.1 --cubic uix", ["user", "item", "x"], 2),
    "oaa3": ("--oaa 3 --probabilities -b 11 -q ui", ["user", "item", ""], 3),
    "oaa10": ("--oaa 10 --probabilities -b 12 --indexing 0", ["user"], 10),
    "named": ("--oaa 4 --probabilities -b 10 --named_labels ant,bee,cat,dog", ["user"], 4),
}
NAMES = ["a", "b", "age", "12", "007", "grün", "東京", "x_1", "don't", "😀", "a=b", "-3"]
ROWS, PASSES = 60, 3


def make_row(namespaces: list[str], chance: random.Random) -> dict[str, dict[str, float]]:
    """Return a bag for each namespace; some are empty."""
    return {
        space or "features": {
            name: chance.choice([1, 1, 2, 0.5, -0.25]) for name in chance.sample(NAMES, chance.randrange(5))
        }
        for space in namespaces
    }


def to_line(row: dict[str, dict[str, float]]) -> str:
    """Return a row in Vowpal Wabbit's text format."""
    parts = []
    for space, bag in row.items():
        features = " ".join(f"{name}:{value}" for name, value in bag.items())
        parts.append(f"|{'' if space == 'features' else space} {features}")
    return " ".join(parts)


def make_model(name: str) -> dict[str, object]:
    """Train and write one model; return its rows and their probabilities."""
    options, namespaces, classes = MODELS[name]
    chance = random.Random(name)
    files = f"--readable_model {FOLDER / name}.txt --invert_hash {FOLDER / name}.names.txt"
    workspace = vowpalwabbit.Workspace(f"--loss_function logistic --quiet {options} {files}")
    rows = [make_row(namespaces, chance) for _ in range(ROWS)]
    labels = [chance.randrange(classes) for _ in rows]
    for _ in range(PASSES):
        for row, k in zip(rows, labels, strict=True):
            if classes == 2:
                label = ("-1", "1")[k]
            elif "named" in options:
                label = ["ant", "bee", "cat", "dog"][k]
            else:
                label = str(k if "--indexing 0" in options else k + 1)
            workspace.learn(f"{label} {to_line(row)}")
    asked = rows[:20] + [make_row(namespaces, chance) for _ in range(20)]
    answers = [workspace.predict(to_line(row)) for row in asked]
    workspace.finish()
    probabilities = [[1 - p, p] for p in answers] if classes == 2 else answers
    return {"namespaces": namespaces, "rows": asked, "probabilities": probabilities}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    made = {name: make_model(name) for name in MODELS}
    (FOLDER / "rows.json").write_text(json.dumps(made, ensure_ascii=False))

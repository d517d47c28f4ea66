"""The page docs/benchmarks/rivals.md: Softstep and other learners in one pass, from rivals.json.

    python loadtest/rivals_page.py       write the page again, without measuring

rivals.py measures. The file has an entry for each learner: its title, the shuffles, the machine, and for each data set
and setting the mean loss, and the rows, the processor seconds and the elapsed seconds of all passes.
"""

import json
from statistics import geometric_mean
from typing import Any

from environments import ROOT
from tables import MET, number, table

Entry = dict[str, Any]

FOLDER = ROOT / "docs" / "benchmarks"
FILE = FOLDER / "rivals.json"
MACHINE = ("date", "processor")
# What is added up over the passes.
SUMS = ("rows", "seconds", "elapsed")
# The learner that others are compared with.
OWN = "softstep"
# By learner; a name in braces stands for the version of that package.
TITLES = {
    OWN: "**Softstep**, default rule",
    "vowpal-linear": "Vowpal Wabbit {vowpalwabbit}, linear",
    "vowpal-quadratic": "Vowpal Wabbit {vowpalwabbit}, quadratic: `-q ::`",
    "vowpal-nn": "Vowpal Wabbit {vowpalwabbit}, `--nn`",
    "river-softmax": "River {river}, `SoftmaxRegression`",
    "river-amf": "River {river}, `AMFClassifier`",
    "river-arf": "River {river}, `ARFClassifier`",
    "river-knn": "River {river}, `KNNClassifier`",
    "sklearn-logistic": "scikit-learn {scikit_learn}, `LogisticRegression` refitted",
    "sklearn-forest": "scikit-learn {scikit_learn}, `RandomForestClassifier` refitted",
    "sklearn-boosting": "scikit-learn {scikit_learn}, `HistGradientBoostingClassifier` refitted",
}
INTRODUCTION = """# Softstep beside other learners

Each learner passes over six data sets once, and starts from nothing. The loss is the mean log loss of all rows, each
predicted with the state before it. `loadtest/README.md` explains the method, and `loadtest/rivals.py` writes this page.

Softstep has one setting: its default. Each other learner has its best of several settings for each set, chosen after
the passes. A second column of losses shows its best setting for all sets together."""
SPEED = """Rows/s are for one thread and its processor time, on {processors}. That time does not count while other
work has the processor, but it grows a little when such work shares the caches. The last table has its share of the
elapsed time: 100 % means that the learner never waited. Losses do not depend on other work on the machine."""
REFITS = "scikit-learn is fitted on all rows so far each time that they have grown by 10 %."
SETTINGS = """## Settings

The settings in brackets are the best on these sets. "Smoothed" adds one row to each prediction, on which all classes
are equally probable."""


def best_settings(entry: Entry) -> dict[str, str]:
    """Return the setting with the lowest loss on each data set."""
    return {name: min(each, key=lambda setting: each[setting]["loss"]) for name, each in entry["sets"].items()}


def losses(entry: Entry) -> dict[str, float]:
    """Return the loss of the best setting on each data set."""
    return {name: entry["sets"][name][setting]["loss"] for name, setting in best_settings(entry).items()}


def mean_loss(entry: Entry) -> float:
    """Return the geometric mean of the losses with the best setting of each data set."""
    return geometric_mean(losses(entry).values())


def single_setting(entry: Entry) -> tuple[str, float]:
    """Return the best setting for all data sets together, and its geometric mean."""
    each = list(entry["sets"].values())
    means = {setting: geometric_mean(found[setting]["loss"] for found in each) for setting in each[0]}
    best = min(means, key=lambda setting: means[setting])
    return best, means[best]


def share(entry: Entry) -> float:
    """Return the processor seconds of all passes ÷ the elapsed seconds."""
    passes = [one for each in entry["sets"].values() for one in each.values()]
    return float(sum(one["seconds"] for one in passes) / sum(one["elapsed"] for one in passes))


def rows_per_second(entry: Entry) -> float:
    """Return all rows of the best passes, divided by their processor time."""
    chosen = [entry["sets"][name][setting] for name, setting in best_settings(entry).items()]
    return float(sum(one["rows"] for one in chosen) / sum(one["seconds"] for one in chosen))


def comparison(entries: dict[str, Entry]) -> str:
    """Return the table of losses and speeds, the best learner first."""
    own = mean_loss(entries[OWN]) if OWN in entries else None
    names = list(next(iter(entries.values()))["sets"])
    rows = []
    for name, entry in sorted(entries.items(), key=lambda item: mean_loss(item[1])):
        mean, found = mean_loss(entry), losses(entry)
        ratio, met = "", ""
        if own is not None and not name.startswith(OWN):
            ratio, met = f"{mean / own:.2f}", MET[mean > own]
        speed, single = number(rows_per_second(entry)), single_setting(entry)[1]
        cells = [f"{mean:.3f}", ratio, met, f"{single:.3f}", speed, *(f"{found[one]:.3f}" for one in names)]
        rows.append([entry["title"], *cells])
    head = ["learner", "log loss", "÷ Softstep's", "B9: > 1", "one setting", "rows/s", *names]
    return table(head, rows)


def settings(entries: dict[str, Entry]) -> str:
    """Return the table of the best settings, and of when each learner was measured."""
    rows = []
    for entry in entries.values():
        best, single = best_settings(entry), single_setting(entry)[0]
        count, machine = len(next(iter(entry["sets"].values()))), entry["machine"]
        places = {setting: [name for name in best if best[name] == setting] for setting in best.values()}
        each = "; ".join(f"`{setting}` ({', '.join(names)})" for setting, names in places.items())
        words = f"{each}; one for all sets: `{single}`" if count > 1 else f"`{single}`"
        measured = f"{machine['date'].split()[0]}, {share(entry):.0%}"
        rows.append([entry["title"], words, str(count), str(entry["shuffles"]), measured])
    lines = table(["learner", "best settings", "of", "shuffles", "measured, share"], rows).splitlines()
    return "\n".join([lines[0], "| --- | --- | ---: | ---: | --- |", *lines[2:]])


def complete(entries: dict[str, Entry]) -> dict[str, Entry]:
    """Return the entries that have all data sets."""
    names = {name for entry in entries.values() for name in entry["sets"]}
    return {name: entry for name, entry in entries.items() if entry["sets"].keys() == names}


def render(entries: dict[str, Entry]) -> str:
    """Return the page, with the learners that have all data sets."""
    shown = complete(entries)
    processors = ", ".join(dict.fromkeys(entry["machine"]["processor"] for entry in shown.values()))
    texts = [
        INTRODUCTION,
        comparison(shown),
        f"{SPEED.format(processors=processors)}\n\n{REFITS}",
        SETTINGS,
        settings(shown),
    ]
    return "\n\n".join(texts) + "\n"


def read_entries() -> dict[str, Entry]:
    """Return the stored entries."""
    return dict(json.loads(FILE.read_text())) if FILE.exists() else {}


def merge(earlier: Entry | None, entry: Entry) -> Entry:
    """Return an entry with the data sets of an earlier one too, if that has the same title and shuffles."""
    if earlier is None or any(earlier[key] != entry[key] for key in ("title", "shuffles")):
        return entry
    return entry | {"sets": earlier["sets"] | entry["sets"]}


def stored_sets(name: str, title: str, shuffles: int) -> list[str]:
    """Return the data sets on which a learner was measured with this title and as many shuffles."""
    entry = read_entries().get(name)
    return [] if entry is None or (entry["title"], entry["shuffles"]) != (title, shuffles) else list(entry["sets"])


def store(name: str, entry: Entry) -> None:
    """Add an entry to the file, or replace its data sets there, and write the page."""
    found = read_entries()
    found[name] = merge(found.get(name), entry)
    order = list(TITLES)
    # Other rules of Softstep come after its default.
    stored = dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else 0.5))
    FILE.write_text(json.dumps(stored, indent=1) + "\n")
    write_page()


def write_page() -> None:
    """Write rivals.md from rivals.json."""
    (FOLDER / "rivals.md").write_text(render(read_entries()))


if __name__ == "__main__":
    write_page()

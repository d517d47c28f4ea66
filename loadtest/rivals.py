"""Softstep beside other learners: progressive log loss of one pass over six data sets, and rows per second (B9).

    .venv/bin/python loadtest/rivals.py --write                             everything: about two hours
    .venv/bin/python loadtest/rivals.py --write --missing                   what the page lacks, after a stopped run
    .venv/bin/python loadtest/rivals.py --write --only softstep             Softstep alone: 30 seconds
    .venv/bin/python loadtest/rivals.py --write --only river-amf --set digits
    .venv/bin/python loadtest/rivals.py --set digits --rows 300 --shuffles 1

The other learners run in an environment of their own (rival_learners.py), with one process for each data set, one after
another. With `--write` each data set of a learner is stored as soon as it is measured, and leaves all others as they
are. So a run may be split and continued. The page shows the learners that have all data sets.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
from artifacts import make_artifact
from clock import Clock
from environments import BUILD, HERE, Environment, NotAvailableError

sys.path.insert(0, str(HERE.parent))

from datasets import SETS
from learning import SHUFFLES
from machine import describe
from processes import environment
from rivals_page import MACHINE, OWN, SUMS, TITLES, Entry, comparison, merge, settings, store, stored_sets

from service.learn.state import LearnerState
from service.softmax.rule import RuleName

PEERS = Environment("rivals", (HERE / "peers" / "rivals.txt",), locked=True)
ROWS_MAX = 10_000
LOSS_CLIP = 1e-6
# Rules of Softstep that are shown beside its default.
BESIDE = ("newton",)


def learn_softstep(rule: str | None, name: str, shuffles: int, rows: int) -> list[dict[str, Any]]:
    """Return each pass of Softstep over a data set, by the default rule or another one."""
    fields = {} if rule is None else {"learning": {"rule": rule}}
    data, passes = SETS[name](), []
    # Compiled before the clock starts.
    LearnerState(make_artifact(data, **fields)).fold_rows(data.X[:1].copy(), data.y[:1].copy())
    for shuffle in range(shuffles):
        order, state, clock = data.shuffled(shuffle), LearnerState(make_artifact(data, **fields)), Clock()
        X, y = order.X[:rows].copy(), order.y[:rows].copy()
        with clock:
            losses = state.fold_rows(X, y)
        loss = float(losses.clip(max=-np.log(LOSS_CLIP)).mean())
        setting = state.rule_settings["rule"]
        passes.append({"set": name, "setting": setting, "loss": loss, "rows": len(y), **vars(clock)})
    return passes


def write_set(name: str) -> Path:
    """Write a data set as a file that the other environment can read; return its path."""
    folder, data = BUILD / "sets", SETS[name]()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.npz"
    np.savez(path, X=data.X, y=data.y, K=data.n_classes)
    return path


def learn_peer(learner: str, name: str, shuffles: int, rows: int) -> list[dict[str, Any]]:
    """Return each pass of another learner over a data set.

    Raises:
        NotAvailableError: It could not be installed, or it failed.
    """
    script, file = HERE / "rival_learners.py", write_set(name)
    command = [str(PEERS.ensure()), str(script), learner, str(shuffles), str(rows), str(file)]
    done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise NotAvailableError(f"failed with exit code {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def summarize(title: str, passes: list[dict[str, Any]], shuffles: int, machine: dict[str, Any]) -> Entry:
    """Return the entry of one learner: means over shuffles by data set and setting."""
    sets: dict[str, dict[str, Any]] = {}
    for one in passes:
        found = sets.setdefault(one["set"], {}).setdefault(one["setting"], dict.fromkeys(SUMS, 0) | {"loss": 0.0})
        found["loss"] += one["loss"] / shuffles
        for key in SUMS:
            found[key] += one[key]
    return {"title": title, "shuffles": shuffles, "machine": {key: machine[key] for key in MACHINE}, "sets": sets}


def parse_options() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(TITLES), help="a learner to measure; may be repeated")
    parser.add_argument(
        "--rule",
        action="append",
        choices=get_args(RuleName),
        help="measure Softstep with this rule in place of the default and newton; may be repeated",
    )
    parser.add_argument("--set", action="append", choices=list(SETS), help="a data set; may be repeated")
    parser.add_argument("--shuffles", type=int, default=SHUFFLES, help="orders of the rows of each set")
    parser.add_argument("--rows", type=int, default=ROWS_MAX, help="the first rows of each order")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/rivals.md")
    parser.add_argument("--missing", action="store_true", help="leave out what is stored with as many shuffles")
    options = parser.parse_args()
    if options.write and options.rows != ROWS_MAX:
        parser.error("--write needs all rows")
    return options


def measure(name: str, rules: dict[str, str | None], options: argparse.Namespace) -> Iterator[Entry]:
    """Yield an entry of a learner for each data set.

    Raises:
        NotAvailableError: The learner could not be installed, or it failed.
    """
    if name not in rules:
        PEERS.ensure()
    for data_set in options.set or list(SETS):
        machine = describe()
        title = TITLES.get(name, f"Softstep, `{rules.get(name)}`").format(**machine["versions"].get(PEERS.name, {}))
        if options.missing and data_set in stored_sets(name, title, options.shuffles):
            continue
        amount = options.shuffles, options.rows
        own = name in rules
        passes = learn_softstep(rules[name], data_set, *amount) if own else learn_peer(name, data_set, *amount)
        yield summarize(title, passes, options.shuffles, machine)


def main() -> None:
    """Measure each learner, and print the tables."""
    options = parse_options()
    chosen = options.only or list(TITLES)
    rules: dict[str, str | None] = {f"{OWN}-{rule}": rule for rule in options.rule or BESIDE}
    if not options.rule:
        rules[OWN] = None
    entries: dict[str, Entry] = {}
    for name in [*(rules if OWN in chosen else ()), *(name for name in chosen if name != OWN)]:
        try:
            for entry in measure(name, rules, options):
                entries[name] = merge(entries.get(name), entry)
                if options.write:
                    store(name, entry)
                print(f"{name} is measured on {', '.join(entry['sets'])}", file=sys.stderr, flush=True)
        except NotAvailableError as reason:
            print(f"{name} {reason}", file=sys.stderr, flush=True)
    if entries:
        print(f"{comparison(entries)}\n\n{settings(entries)}")


if __name__ == "__main__":
    main()

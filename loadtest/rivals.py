"""Softstep beside other learners: progressive log loss of one pass over six data sets, and rows per second (B9).

    .venv/bin/python loadtest/rivals.py --write                             everything: about two hours
    .venv/bin/python loadtest/rivals.py --only softstep --rule ftrl         Softstep with a rule that is named
    .venv/bin/python loadtest/rivals.py --set digits --rows 300 --shuffles 1

The other learners run in an environment of their own (rival_learners.py), with one process for each, one after another.
A learner that was measured replaces its own entry in the page, so a run with `--only` leaves the others as they are.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
from environments import BUILD, HERE, Environment, NotAvailableError

sys.path.insert(0, str(HERE.parent))

from datasets import SETS
from learning import SHUFFLES, make_artifact
from machine import describe
from processes import environment
from rivals_page import MACHINE, OWN, TITLES, Entry, comparison, settings, store

from service.learn.state import LearnerState
from service.softmax.parameters import RuleName

PEERS = Environment("rivals", (HERE / "peers" / "rivals.txt",), locked=True)
ROWS_MAX = 10_000
LOSS_CLIP = 1e-6


def learn_softstep(rule: str | None, names: list[str], shuffles: int, rows: int) -> list[dict[str, Any]]:
    """Return each pass of Softstep, by the default rule or another one."""
    fields = {} if rule is None else {"learning": {"rule": rule}}
    passes = []
    for name in names:
        data = SETS[name]()
        # Compiled before the clock starts.
        LearnerState(make_artifact(data, **fields)).fold_rows(data.X[:1].copy(), data.y[:1].copy())
        for shuffle in range(shuffles):
            order, state = data.shuffled(shuffle), LearnerState(make_artifact(data, **fields))
            X, y = order.X[:rows].copy(), order.y[:rows].copy()
            began = time.process_time()
            losses = state.fold_rows(X, y)
            seconds = time.process_time() - began
            loss = float(losses.clip(max=-np.log(LOSS_CLIP)).mean())
            one = {"set": name, "setting": rule or "default", "loss": loss, "rows": len(y), "seconds": seconds}
            passes.append(one)
    return passes


def write_sets(names: list[str]) -> list[Path]:
    """Write data sets as files that the other environment can read; return their paths."""
    folder = BUILD / "sets"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.npz" for name in names]
    for name, path in zip(names, paths, strict=True):
        data = SETS[name]()
        np.savez(path, X=data.X, y=data.y, K=data.n_classes)
    return paths


def learn_peer(name: str, files: list[Path], shuffles: int, rows: int) -> list[dict[str, Any]]:
    """Return each pass of another learner.

    Raises:
        NotAvailableError: It could not be installed, or it failed.
    """
    command = [str(PEERS.ensure()), str(HERE / "rival_learners.py"), name, str(shuffles), str(rows), *map(str, files)]
    done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise NotAvailableError(f"failed with exit code {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def summarize(title: str, passes: list[dict[str, Any]], shuffles: int, machine: dict[str, Any]) -> Entry:
    """Return the entry of one learner: means over shuffles by data set and setting."""
    sets: dict[str, dict[str, Any]] = {}
    for one in passes:
        found = sets.setdefault(one["set"], {}).setdefault(one["setting"], {"loss": 0.0, "rows": 0, "seconds": 0.0})
        found["loss"] += one["loss"] / shuffles
        found["rows"] += one["rows"]
        found["seconds"] += one["seconds"]
    return {"title": title, "shuffles": shuffles, "machine": {key: machine[key] for key in MACHINE}, "sets": sets}


def parse_options() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(TITLES), help="a learner to measure; may be repeated")
    parser.add_argument(
        "--rule",
        action="append",
        choices=get_args(RuleName),
        help="measure Softstep with this rule in place of the default; may be repeated",
    )
    parser.add_argument("--set", action="append", choices=list(SETS), help="a data set; may be repeated")
    parser.add_argument("--shuffles", type=int, default=SHUFFLES, help="orders of the rows of each set")
    parser.add_argument("--rows", type=int, default=ROWS_MAX, help="the first rows of each order")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/rivals.md")
    options = parser.parse_args()
    if options.write and (options.set or options.rows != ROWS_MAX):
        parser.error("--write needs all data sets and rows")
    return options


def main() -> None:
    """Measure each learner, and print the tables."""
    options = parse_options()
    chosen, names = options.only or list(TITLES), options.set or list(SETS)
    amount = options.shuffles, options.rows
    cases = {OWN if rule is None else f"{OWN}-{rule}": rule for rule in options.rule or [None]}
    files, entries = write_sets(names), {}
    for name in [*(cases if OWN in chosen else ()), *(name for name in chosen if name != OWN)]:
        try:
            if name not in cases:
                PEERS.ensure()
            machine = describe()
            passes = learn_softstep(cases[name], names, *amount) if name in cases else learn_peer(name, files, *amount)
        except NotAvailableError as reason:
            print(f"{name} {reason}", file=sys.stderr)
            continue
        title = TITLES.get(name, f"Softstep, `{cases.get(name)}`").format(**machine["versions"].get(PEERS.name, {}))
        entries[name] = summarize(title, passes, options.shuffles, machine)
        if options.write:
            store({name: entries[name]})
        print(f"{name} is measured", file=sys.stderr)
    if entries:
        print(f"{comparison(entries)}\n\n{settings(entries)}")


if __name__ == "__main__":
    main()

"""The same events fold to the same bits on every processor, and from every checkpoint.

10^5 events are folded for each rule, for a model with an input stage, for a network, for weights of 0 and for sparse
rows; those with an input stage also learn their calibration. Some processes have kernels compiled for other processors.
In others NumPy, OpenBLAS and the C library may not use some features of this processor. Every process must return the
same hash. The events are made from the output of a hash function, so that no numerical library takes part in making
them.

A fold that continues from a checkpoint file, at random points, must end where the whole fold does. After an event is
forgotten, the follower's state must be the fold of a stream that never had it.

    python -m tests.torture.fold_determinism EVENTS

prints the hashes of this process as JSON.
"""

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from llvmlite import binding

from service import compiler
from service.learn.event_fold import EventFold
from service.learn.follow import Follower
from service.store.artifact.fingerprint import compute_genesis
from service.store.directory.data_directory import StreamFolder
from service.store.log.admin_payloads import dump, dump_classes, dump_forget_ids
from service.store.log.events import Draft, Event, EventLocation, Kind
from service.store.states.snapshots import read_snapshot, write_snapshot
from tests.support.memory_log import MemoryLog
from tests.torture.fold_models import MODELS, RUN, K, make_artifact, make_payloads
from tests.torture.reference_state import state_hash
from tests.torture.results import ResultRow

ROOT: Final = Path(__file__).parents[2]
EVENTS: Final = 100_000
FOLDS: Final = 20
CUTS: Final = 350
FORGETS: Final = 350
# Cuts and forgets of each model of dense rows, and of the sparse one.
DENSE_CUTS: Final = 31
SPARSE_CUTS: Final = 110
# The rule that a model continues by halfway; only mixture continues mixture.
CHANGES: Final = dict.fromkeys(MODELS, "adagrad") | dict.fromkeys(("mixture", "staged", "new"), "mixture")
# Smaller shares skip processors whose kernels may have to be compiled first.
COMPILING_SHARE: Final = 0.1


def fold_hashes(count: int) -> dict[str, str]:
    """Return the hash of each model's whole state after `count` events."""
    hashes = {}
    for model in MODELS:
        fold = EventFold(make_artifact(model))
        fold.fold_payloads(make_payloads(model, count))
        assert fold.events == count
        hashes[model] = hashlib.sha256(state_hash(fold).encode()).hexdigest()
    return hashes


def environments(*, compiling: bool) -> dict[str, dict[str, str]]:
    """Return the environment variables of each process, by the name of the setting.

    Args:
        compiling: Whether to include processors for which kernels may have to be compiled first.
    """
    without_dispatch = {"NPY_DISABLE_CPU_FEATURES": " ".join(numpy_dispatched())}
    found = {
        "as installed": {},
        "NumPy without dispatch": without_dispatch,
        "OpenBLAS for Nehalem and the C library without FMA": {
            "OPENBLAS_CORETYPE": "Nehalem",
            "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA,-AVX2,-AVX512F",
        },
    }
    if compiling:
        # The private function is the only place that knows what this processor can execute.
        host = compiler._host_features()
        for target, needed in compiler.BASELINES.items():
            if target != compiler.TARGET and all(host.get(feature, False) for feature in needed):
                found[target] = {"NUMBA_CPU_NAME": target, "NUMBA_CPU_FEATURES": ""}
        own = {"NUMBA_CPU_NAME": binding.get_host_cpu_name()}
        own["NUMBA_CPU_FEATURES"] = binding.get_host_cpu_features().flatten()
        found["this very processor and NumPy without dispatch"] = own | without_dispatch
    return found


def numpy_dispatched() -> list[str]:
    """Return the processor features that NumPy dispatches to; only a private module of NumPy lists them."""
    # NumPy lists these features nowhere else.
    features = np._core._multiarray_umath  # type: ignore[attr-defined]
    return [name for name in features.__cpu_dispatch__ if features.__cpu_features__[name]]


def run_probe(environment: dict[str, str], count: int) -> dict[str, str]:
    """Run this module in a process with an environment; return its hashes."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", __spec__.name, str(count)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=1800,  # the first run compiles kernels, which takes a minute of processor time
        check=True,
    )
    report = json.loads(done.stdout)
    assert report["target"] == environment.get("NUMBA_CPU_NAME", compiler.TARGET)
    off = environment.get("NPY_DISABLE_CPU_FEATURES", "").split()
    assert not set(off) & set(report["dispatched"]), "NumPy ignored the setting"
    hashes: dict[str, str] = report["digests"]
    return hashes


def compare_processors(share: float) -> ResultRow:
    """Compare the folds under every setting with those of the first one."""
    count = max(RUN, round(EVENTS * share))
    settings = environments(compiling=share >= COMPILING_SHARE)
    found = {name: run_probe(environment, count) for name, environment in settings.items()}
    first = found["as installed"]
    assert len(set(first.values())) == len(MODELS), "two models fold to one state"
    differing = [f"{name}: {model}" for name, each in found.items() for model in MODELS if each[model] != first[model]]
    note = f"{count} events; {', '.join(found)}" + "".join(f"; another hash: {one}" for one in differing)
    return ResultRow(
        "folds under other settings of processor and libraries", len(found) * len(MODELS), FOLDS, len(differing), note
    )


def make_events(model: str, count: int) -> list[Event]:
    """Return a model's feedback events with a change of the rule halfway and an added class near the end."""
    events = []
    for seq, payload in enumerate(make_payloads(model, count), 1):
        kind, content = Kind.FEEDBACK, payload
        if seq == count // 2:
            kind, content = Kind.CONFIGURE, dump({"rule": CHANGES[model], "constants": {"rate": 0.25}})
        elif seq == count * 9 // 10:
            kind, content = Kind.CLASSES, dump_classes(["new"])
        events.append(Event(seq, kind, b"%d" % seq, 0, content, b""))
    return events


def cuts_of(model: str, share: float) -> int:
    """Return the number of cuts or forgets of a model in a share of the campaign."""
    return max(1, round(share * (SPARSE_CUTS if model == "sparse" else DENSE_CUTS)))


def compare_checkpoints(folder: Path, share: float) -> ResultRow:
    """Compare folds that continue from a checkpoint with the whole fold."""
    rng, differing, count = random.Random(3), [], 0
    for model in MODELS:
        artifact, events = make_artifact(model), make_events(model, 300)
        whole, fold, done = EventFold(artifact), EventFold(artifact), 0
        whole.fold_events(events)
        for cut in sorted(rng.choices(range(len(events) + 1), k=cuts_of(model, share))):
            fold.fold_events(events[done:cut])
            done = cut
            fields, arrays = fold.checkpoint_contents()
            path = write_snapshot(folder / model, cut, fields, arrays, durable=False)
            restored = EventFold.from_checkpoint(artifact, read_snapshot(path))
            for start in range(cut, len(events), step := rng.randint(1, 40)):
                restored.fold_events(events[start : start + step])
            count += 1
            if state_hash(restored) != state_hash(whole):
                differing.append(f"{model} at {cut}")
    return ResultRow("checkpoint and tail, against the whole fold", count, CUTS, len(differing), "; ".join(differing))


def compare_forgets(folder: Path, share: float) -> ResultRow:
    """Forget one event after another, and compare with the fold of a stream that never had them."""
    rng, differing, count = random.Random(4), [], 0
    for model in MODELS:
        artifact, log, events = make_artifact(model), MemoryLog(), make_events(model, 200)
        stream = log.open_stream("m", 1, compute_genesis(artifact), K)
        for event in events:
            _append(log, stream.number, event.kind, event.id, event.payload or b"")
        follower = Follower(stream, artifact, log, StreamFolder(folder / f"forgets {model}"))
        for at in (40, 120, 199):
            follower.fold_batch(follower.read_next(at - follower.seq))
            follower.write_checkpoint()
        feedback = [event.seq for event in events if event.kind == Kind.FEEDBACK]
        forgotten: set[int] = set()
        for seq in rng.sample(feedback, cuts_of(model, share)):
            _append(log, stream.number, Kind.FORGET, b"forget %d" % seq, dump_forget_ids([b"%d" % seq]))
            forgotten.add(seq)
            while more := follower.read_next(rng.randint(1, 60)):
                follower.fold_batch(more)
            without = EventFold(artifact)
            without.fold_events(event for event in events if event.seq not in forgotten)
            count += 1
            if state_hash(follower.fold) != state_hash(without):
                differing.append(f"{model} without {seq}")
    note = "; ".join(differing)
    return ResultRow("a forgotten event, against the fold without it", count, FORGETS, len(differing), note)


def _append(log: MemoryLog, stream: int, kind: int, id_: bytes, payload: bytes) -> None:
    (outcome,) = log.append([Draft(stream, Kind(kind), id_, payload, 0)])
    assert isinstance(outcome, EventLocation)


def run_campaign(folder: Path, share: float = 1.0) -> Iterator[ResultRow]:
    """Run a share of the campaign in a folder."""
    yield compare_processors(share)
    yield compare_checkpoints(folder, share)
    yield compare_forgets(folder, share)


def main(arguments: Sequence[str]) -> None:
    """Print the hashes of this process."""
    report = {
        "target": compiler.TARGET,
        "dispatched": numpy_dispatched(),
        "digests": fold_hashes(int(arguments[0])),
    }
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1:])

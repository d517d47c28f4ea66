"""One fold, whatever computes it and however it is cut.

10^5 events are folded for each rule, for a model with an input stage and for a network, both of which learn their
calibration, in processes whose kernels are compiled for another processor, and in which NumPy, OpenBLAS and the C
library are told to do without what this processor has; every one must come to the same hash. Events are made of the
bytes of a hash function, so that no library has a part in them.

A fold that goes on from a checkpoint file, at random cuts, must end where the whole one does. After an event is
forgotten, the follower's state must be the fold of a stream that never had it.

    python -m tests.torture.fold_determinism EVENTS

prints what this process's fold is, as JSON.
"""

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from llvmlite import binding

from service import compiler
from service.learn.event_fold import EventFold
from service.learn.follow import Follower
from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import compute_genesis
from service.store.directory.data_directory import StreamFolder
from service.store.log.admin_payloads import dump, dump_classes, dump_forget_ids
from service.store.log.events import Draft, Event, EventLocation, Kind
from service.store.log.feedback_payload import Targets, encode_rows
from service.store.states.snapshots import read_snapshot, write_snapshot
from tests.support.memory_log import MemoryLog
from tests.torture.reference_state import weights_of
from tests.torture.results import Line

ROOT: Final = Path(__file__).parents[2]
EVENTS: Final = 100_000
FOLDS: Final = 20
CUTS: Final = 250
FORGETS: Final = 250
N, K = 8, 5
MODELS: Final = ("sgd", "adagrad", "ftrl", "newton", "staged", "network")
# Widths and activations of the network's hidden layers.
HIDDEN: Final = ((7, "sigmoid"), (6, "tanh"), (9, "relu"))
# Events of one form follow one another, as they do where a client sends many.
RUN: Final = 64
# A smaller share leaves out what may have to be compiled first.
COMPILING_SHARE: Final = 0.1


def numbers(name: str, count: int) -> Any:
    """(count,) float64 multiples of 2**-13 in [-4, 4), picked by a hash of the name."""
    return np.frombuffer(hashlib.shake_128(name.encode()).digest(2 * count), "<i2") * 2.0**-13


def made(model: str) -> Artifact:
    """An artifact that learns by a rule, in training coordinates but for sgd; or with a stage, and more behind it."""
    statistics = {"mean": numbers("mean", N).tolist(), "scale": (abs(numbers("scale", N)) + 0.25).tolist()}
    fields: dict[str, Any] = {
        "head": "softmax",
        "classes": [f"class {k}" for k in range(K)],
        "features": [f"feature {j}" for j in range(N)],
        "dtype": "float32",
        "layers": [{"weight": "weight", "bias": "bias", "activation": "identity"}],
        "training": {**statistics, "rows": 200},
    }
    tensors, inputs = {}, N
    for number, (width, activation) in enumerate(HIDDEN if model == "network" else ()):
        names = f"{number}.weight", f"{number}.bias"
        fields["layers"].insert(number, {"weight": names[0], "bias": names[1], "activation": activation})
        tensors[names[0]] = numbers(names[0], inputs * width).reshape(inputs, width) / 4
        tensors[names[1]] = numbers(names[1], width)
        inputs = width
    if model in {"staged", "network"}:
        fields["stage"] = {**statistics, "clip": 3.0}
        fields["calibration"] = {"kind": "temperature", "learn": True, "temperature": 0.25}
    else:
        fields["learning"] = {"rule": model, "constants": {}}
    tensors |= {"weight": numbers("weight", inputs * K).reshape(inputs, K) / 4, "bias": numbers("bias", K)}
    return Artifact.from_fields(fields, {name: tensor.astype(np.float32) for name, tensor in tensors.items()})


def payloads(count: int) -> list[bytes]:
    """Feedback of one row each: labels, and now and then distributions, some with weights."""
    X = numbers("X", count * N).reshape(count, N).astype(np.float32)
    labels = (np.abs(X[:, 0] * 8191).astype(np.int64) + np.argmax(X[:, :K], axis=1)) % K
    made_ = []
    for at in range(count):
        row, label = X[at : at + 1], labels[at : at + 1]
        if at // RUN % 8 == 3:
            Y = np.full((1, K), 0.125, np.float32)
            Y[0, label] = 0.5
            made_.append(encode_rows(row, Y, Targets.DISTRIBUTION, K))
        else:
            made_.append(encode_rows(row, label, Targets.INDEX, K))
    return made_


def digests(count: int) -> dict[str, str]:
    """The hash of everything that each model's fold is after so many events."""
    rows, found = payloads(count), {}
    for model in MODELS:
        fold = EventFold(made(model))
        fold.fold_payloads(rows)
        assert fold.events == count
        found[model] = hashlib.sha256(weights_of(fold).encode()).hexdigest()
    return found


def settings(*, compiling: bool) -> dict[str, dict[str, str]]:
    """What is set in the environment of each process, by what it is called."""
    features = np._core._multiarray_umath  # type: ignore[attr-defined]  # where NumPy says what it chose
    dispatched = [name for name in features.__cpu_dispatch__ if features.__cpu_features__[name]]
    without = {"NPY_DISABLE_CPU_FEATURES": " ".join(dispatched)}
    found = {
        "as installed": {},
        "NumPy without dispatch": without,
        "OpenBLAS for Nehalem and the C library without FMA": {
            "OPENBLAS_CORETYPE": "Nehalem",
            "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA,-AVX2,-AVX512F",
        },
    }
    if compiling:
        host = compiler._host_features()
        for target, needed in compiler.BASELINES.items():
            if target != compiler.TARGET and all(host.get(feature, False) for feature in needed):
                found[target] = {"NUMBA_CPU_NAME": target, "NUMBA_CPU_FEATURES": ""}
        own = {"NUMBA_CPU_NAME": binding.get_host_cpu_name()}
        own["NUMBA_CPU_FEATURES"] = binding.get_host_cpu_features().flatten()
        found["this very processor and NumPy without dispatch"] = own | without
    return found


def probed(environment: dict[str, str], count: int) -> dict[str, str]:
    """What a process with that environment prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", __spec__.name, str(count)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=1800,  # the first time kernels are compiled, for a minute of the processor
        check=True,
    )
    report = json.loads(done.stdout)
    assert report["target"] == environment.get("NUMBA_CPU_NAME", compiler.TARGET)
    off = environment.get("NPY_DISABLE_CPU_FEATURES", "").split()
    assert not set(off) & set(report["dispatched"]), "NumPy took no notice"
    digests_: dict[str, str] = report["digests"]
    return digests_


def processors(share: float) -> Line:
    """The same fold under every setting, held to the first one."""
    count = max(RUN, round(EVENTS * share))
    found = {name: probed(more, count) for name, more in settings(compiling=share >= COMPILING_SHARE).items()}
    first = found["as installed"]
    assert len(set(first.values())) == len(MODELS), "two models fold to one state"
    wrong = [f"{name}: {model}" for name, each in found.items() for model in MODELS if each[model] != first[model]]
    note = f"{count} events; {', '.join(found)}" + "".join(f"; another hash: {one}" for one in wrong)
    return Line(
        "folds under other settings of processor and libraries", len(found) * len(MODELS), FOLDS, len(wrong), note
    )


def history(count: int) -> list[Event]:
    """Events with a class added and two changes of the rule on the way."""
    events = []
    for seq, payload in enumerate(payloads(count), 1):
        kind, content = Kind.FEEDBACK, payload
        if seq == count // 2:
            kind, content = Kind.CONFIGURE, dump({"rule": "adagrad"})
        elif seq == count * 9 // 10:
            kind, content = Kind.CLASSES, dump_classes(["new"])
        events.append(Event(seq, kind, b"%d" % seq, 0, content, b""))
    return events


def cuts(folder: Path, share: float) -> Line:
    """Checkpoint and tail, against the whole."""
    seeded, wrong, count = random.Random(3), [], 0
    for model in MODELS:
        artifact, events = made(model), history(300)
        whole, fold, done = EventFold(artifact), EventFold(artifact), 0
        whole.fold_events(events)
        for cut in sorted(seeded.choices(range(len(events) + 1), k=max(1, round(CUTS * share / len(MODELS))))):
            fold.fold_events(events[done:cut])
            done = cut
            fields, arrays = fold.checkpoint_contents()
            path = write_snapshot(folder / model, cut, fields, arrays, durable=False)
            restored = EventFold.from_checkpoint(artifact, read_snapshot(path))
            for start in range(cut, len(events), step := seeded.randint(1, 40)):
                restored.fold_events(events[start : start + step])
            count += 1
            if weights_of(restored) != weights_of(whole):
                wrong.append(f"{model} at {cut}")
    return Line("checkpoint and tail, against the whole fold", count, CUTS, len(wrong), "; ".join(wrong))


def forgets(folder: Path, share: float) -> Line:
    """Forgotten one after the other, against the fold of what never was there."""
    seeded, wrong, count = random.Random(4), [], 0
    for model in MODELS:
        artifact, log, events = made(model), MemoryLog(), history(200)
        stream = log.open_stream("m", 1, compute_genesis(artifact), K)
        append = _appender(log, stream.number)
        for event in events:
            append(event.kind, event.id, event.payload or b"")
        follower = Follower(stream, artifact, log, StreamFolder(folder / f"forgets {model}"))
        for at in (40, 120, 199):
            follower.fold_batch(follower.read_next(at - follower.seq))
            follower.write_checkpoint()
        feedback = [event.seq for event in events if event.kind == Kind.FEEDBACK]
        gone: set[int] = set()
        for seq in seeded.sample(feedback, max(1, round(FORGETS * share / len(MODELS)))):
            append(Kind.FORGET, b"forget %d" % seq, dump_forget_ids([b"%d" % seq]))
            gone.add(seq)
            while more := follower.read_next(seeded.randint(1, 60)):
                follower.fold_batch(more)
            without = EventFold(artifact)
            without.fold_events(event for event in events if event.seq not in gone)
            count += 1
            if weights_of(follower.fold) != weights_of(without):
                wrong.append(f"{model} without {seq}")
    return Line("an event is forgotten, against the fold without it", count, FORGETS, len(wrong), "; ".join(wrong))


def _appender(log: MemoryLog, stream: int) -> Any:
    def append(kind: int, id_: bytes, payload: bytes) -> None:
        (outcome,) = log.append([Draft(stream, Kind(kind), id_, payload, 0)])
        assert isinstance(outcome, EventLocation)

    return append


def folds(folder: Path, share: float = 1.0) -> Iterator[Line]:
    """The campaign."""
    yield processors(share)
    yield cuts(folder, share)
    yield forgets(folder, share)


def main(arguments: Sequence[str]) -> None:
    """Tell what this process's fold is."""
    features = np._core._multiarray_umath  # type: ignore[attr-defined]  # as above
    report = {
        "target": compiler.TARGET,
        "dispatched": [name for name in features.__cpu_dispatch__ if features.__cpu_features__[name]],
        "digests": digests(int(arguments[0])),
    }
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1:])

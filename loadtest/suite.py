"""The run: every contender in turn, round after round; then latency, start-up, kernels and stages; then the figures."""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from child_runs import attempt, collect, print_progress, run_child
from client_service import CLIENT_NUMBERS, ClientRun
from closedloop import CONNECTIONS, saturate
from contenders import CONTENDERS, RAW, SOFTSTEP, Contender
from environments import BUILD, CLIENT, HERE, KERNELS, NETWORKS, ROOT, NotAvailableError
from feedback_service import FEEDBACK_NUMBERS, FeedbackService
from fields_run import FIELD_NUMBERS, FieldsRun
from figure import Served
from figures import NUMBERS, evaluate, needed
from figures_serving import PREDICT_1
from learned_service import LEARNED_NUMBERS, LearnedService
from loads import Load, make_loads
from machine import describe
from processes import CLIENT_CORE, CORES, SERVER_CORE, Running, pinned
from report import merge_results, show, write
from schedule import pool

LOAD_MAX = 0.5  # runnable processes before the run; more of them would compete with the measurement
AVX2 = {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": ""}
IMPORTS = "import fastapi, uvicorn, numba"
# The tail at p99 consists of pauses that come a few times a second. The servers alternate in short turns, so that a bad
# minute falls on both; there are enough turns that their common p99 does not depend on chance.
LATENCY_TURNS, LATENCY_SECONDS = 10, 1


class Suite:
    """One run with its options; every method returns a JSON-ready part of the results."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.seconds, self.rounds, self.turns = args.seconds, args.rounds, args.turns
        self.models = args.models.resolve()
        self.numbers = tuple(args.only or NUMBERS)
        self.scratch = BUILD / "run" / time.strftime("%Y%m%d-%H%M%S")
        self.scratch.mkdir(parents=True)
        self.loads: dict[str, Load] = make_loads(self.models)

    def run(self) -> dict[str, Any]:
        """Measure everything that the requested figures need."""
        results: dict[str, Any] = {"machine": describe()}
        results["settings"] = {"seconds": self.seconds, "rounds": self.rounds, "connections": CONNECTIONS}
        results["servers"] = self.servers(self.wanted())
        if "8" in self.numbers:
            results["latency"] = attempt(lambda: self.latency(results["servers"]))
        if "9" in self.numbers:
            results["start"] = attempt(self.start)
        parts = [name for number, name in (("6", "grid"), ("7", "exp")) if number in self.numbers]
        if parts:
            results["kernels"] = attempt(lambda: self.kernels(parts))
        if "6" in self.numbers:
            results["kernels_avx2"] = attempt(lambda: self.kernels(["grid"], **AVX2))
        if "11" in self.numbers:
            results["stages"] = attempt(self.stages)
        if {"L1", "L2", "L3", "L4"} & set(self.numbers):
            results["learning"] = attempt(self.learning)
        if set(FEEDBACK_NUMBERS) & set(self.numbers):
            feedback = FeedbackService(self.models, self.scratch, self.rounds, self.seconds, print_progress)
            results["feedback"] = attempt(lambda: feedback.run(self.numbers))
        if set(LEARNED_NUMBERS) & set(self.numbers):
            results |= self.learned()
        results |= self.mathematics()
        results |= self.applications()
        results["figures"] = evaluate(results, self.numbers)
        return results

    def learned(self) -> dict[str, Any]:
        """Measure models that learned by the rule mixture."""
        service = LearnedService(self.scratch, self.rounds, self.seconds, print_progress)
        found: dict[str, Any] = {}
        if {"B6", "B8"} & set(self.numbers):
            found["learned"] = attempt(lambda: service.predictions(self.numbers))
        if "B7" in self.numbers:
            found["learned_feedback"] = attempt(service.feedback)
        if "B6" in self.numbers:
            found["batches"] = attempt(lambda: self.run_rounds(str(KERNELS.ensure()), "mixture_batches", ["predict"]))
        return found

    def applications(self) -> dict[str, Any]:
        """Measure what an application sends: rows with names, and the requests of the Python client."""
        found: dict[str, Any] = {}
        if set(FIELD_NUMBERS) & set(self.numbers):
            found |= FieldsRun(self.scratch, self.rounds, self.seconds, print_progress).run(self.numbers)
        if set(CLIENT_NUMBERS) & set(self.numbers):
            run = ClientRun(self.models, self.scratch, self.rounds, self.seconds, print_progress)
            found |= run.run(self.numbers)
        return found

    def mathematics(self) -> dict[str, Any]:
        """Measure networks and their peers, and how exact everything is."""
        found: dict[str, Any] = {}
        networks = [name for number, name in (("M2", "predict"), ("M3", "step")) if number in self.numbers]
        if networks:
            found["networks"] = attempt(lambda: self.networks(networks))
        exactness = [name for number, name in (("M1", "gradients"), ("M5", "bits")) if number in self.numbers]
        if exactness:
            found["exactness"] = attempt(lambda: self.exactness(exactness))
        return found

    def wanted(self) -> set[Served]:
        """Return the loads to measure over HTTP: all in a whole run, else those that the figures need."""
        if self.numbers == NUMBERS:
            return {(contender.name, load) for contender in CONTENDERS for load in contender.loads}
        return needed(self.numbers)

    def servers(self, wanted: set[Served]) -> dict[str, Any]:
        """Measure saturation, memory and start-up of every contender in turn, `rounds` times."""
        found: dict[str, Any] = {}
        for turn in range(self.rounds):
            for contender in CONTENDERS:
                loads = [load for load in contender.loads if (contender.name, load) in wanted]
                if not loads:
                    continue
                empty = {"title": contender.title, "reason": "", "loads": defaultdict(list), "private_bytes": []}
                seen = found.setdefault(contender.name, empty)
                if not seen["reason"]:
                    print_progress(f"round {turn + 1}/{self.rounds}: {contender.name} {', '.join(loads)}")
                    self.turn(contender, loads, seen)
        return found

    def turn(self, contender: Contender, loads: list[str], seen: dict[str, Any]) -> None:
        """Start a contender, check its answers, measure its loads, stop it; record a failure instead of raising it."""
        try:
            with contender.running(self.models, self.scratch) as server:
                for load in loads:
                    self.loads[load].verify(server.port, empty=contender.empty)
                    seen["loads"][load].append(saturate(server, self.loads[load], self.seconds, self.scratch))
                seen["private_bytes"].append(server.worker_private_bytes())
        except (NotAvailableError, OSError, ValueError, KeyError) as error:
            seen["reason"] = str(error) or type(error).__name__
            print_progress(f"  not run: {seen['reason']}")

    def latency(self, servers: dict[str, Any]) -> dict[str, Any]:
        """Measure open-loop latency of Softstep and of the raw application, each at half of its own saturation."""
        found: dict[str, Any] = {}
        for contender in (SOFTSTEP, RAW):
            seen = servers[contender.name]
            if seen["reason"]:
                raise NotAvailableError(f"{seen['title']} {seen['reason']}")
            rate = median(turn["per_s"] for turn in seen["loads"][PREDICT_1]) / 2
            found[contender.name] = {"title": contender.title, "rate": rate, "rounds": []}
        with SOFTSTEP.running(self.models, self.scratch) as ours, RAW.running(self.models, self.scratch) as raw:
            for turn in range(self.rounds):
                print_progress(f"round {turn + 1}/{self.rounds}: latency, {LATENCY_TURNS} turns of {LATENCY_SECONDS} s")
                turns: dict[str, list[dict[str, Any]]] = defaultdict(list)
                for _ in range(LATENCY_TURNS):
                    for contender, server in ((SOFTSTEP, ours), (RAW, raw)):
                        turns[contender.name].append(self.open_loop(contender, server, found[contender.name]["rate"]))
                for name, some in turns.items():
                    found[name]["rounds"].append(pool(some))
        return found

    def open_loop(self, contender: Contender, server: Running, rate: float) -> dict[str, Any]:
        """Run the open-loop client once, on the client's core."""
        load, out = self.loads[PREDICT_1], self.scratch / "openloop.json"
        load.verify(server.port, empty=contender.empty)
        command = [str(CLIENT.python), str(HERE / "openloop.py")]
        command += [f"http://127.0.0.1:{server.port}{load.path}", "--rate", f"{rate:.0f}"]
        command += ["--seconds", str(LATENCY_SECONDS), "--connections", str(CONNECTIONS)]
        command += ["--body", str(load.write(self.scratch)), "--json", str(out)]
        run_child(pinned(command, CLIENT_CORE))
        return dict(json.loads(out.read_text()))

    def start(self) -> dict[str, Any]:
        """Measure in turns the bare imports and our start until ready, both on the server's core with warm caches."""
        python = str(ROOT / ".venv" / "bin" / "python")
        imports: list[float] = []
        ours: list[float] = []
        for turn in range(self.rounds + 1):
            print_progress(f"round {turn}/{self.rounds}: start")
            began = time.perf_counter()
            run_child(pinned([python, "-c", IMPORTS], SERVER_CORE))
            imports.append(time.perf_counter() - began)
            with SOFTSTEP.running(self.models, self.scratch) as server:
                ours.append(server.start_seconds)
        # The first pair only fills the caches.
        return {"imports_s": imports[1:], "softstep_s": ours[1:]}

    def kernels(self, parts: list[str], **target: str) -> dict[str, Any]:
        """Measure the kernels, compiled for `target` or for this processor; each round is a process of its own.

        The memory layout of a process changes a library's time by tens of percent.
        """
        return self.run_rounds(str(KERNELS.ensure()), "kernels", parts, **target)

    def networks(self, parts: list[str]) -> dict[str, Any]:
        """Measure networks in the same way."""
        return self.run_rounds(str(NETWORKS.ensure()), "networks", parts)

    def run_rounds(self, python: str, script: str, parts: list[str], **target: str) -> dict[str, Any]:
        """Run a script that measures Softstep and other libraries, once per round."""
        command = [python, str(HERE / f"{script}.py"), "--turns", str(self.turns), *parts]
        seen = []
        for turn in range(self.rounds):
            print_progress(f"round {turn + 1}/{self.rounds}: {script} {' '.join([*parts, *target.values()])}")
            seen.append(json.loads(run_child(pinned(command, SERVER_CORE), PYTHONPATH=str(ROOT), **target)))
        return dict(collect(seen))

    def exactness(self, parts: list[str]) -> dict[str, Any]:
        """Measure the accuracy of gradients and the equality of bits, in Softstep's own environment."""
        print_progress(f"exactness {' '.join(parts)}")
        command = [str(ROOT / ".venv" / "bin" / "python"), str(HERE / "exactness.py"), *parts]
        return dict(json.loads(run_child(command, PYTHONPATH=str(ROOT))))

    def learning(self) -> dict[str, Any]:
        """Measure how well and how fast the fold learns, in Softstep's own environment."""
        parts = [number[1:] for number in ("L1", "L2", "L3", "L4") if number in self.numbers]
        print_progress(f"learning {' '.join(parts)}")
        out = self.scratch / "learning.json"
        command = [str(ROOT / ".venv" / "bin" / "python"), str(HERE / "learning.py"), "--json", str(out), *parts]
        run_child(pinned(command, SERVER_CORE))
        return dict(json.loads(out.read_text()))

    def stages(self) -> dict[str, Any]:
        """Measure the stages of one request in Softstep's own environment."""
        print_progress("stages")
        command = [str(ROOT / ".venv" / "bin" / "python"), str(HERE / "stages.py"), "--models", str(self.models)]
        return dict(json.loads(run_child(pinned(command, SERVER_CORE))))


def main() -> None:
    """Parse the command line, measure, print and write."""
    parser = argparse.ArgumentParser(prog="bench.py", description=__doc__)
    parser.add_argument("--only", type=lambda text: text.split(","), help="figures to measure, such as 1,2,8")
    parser.add_argument("--seconds", type=int, default=4, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds; each measures everything once")
    parser.add_argument("--turns", type=int, default=31, help="turns of each library at each shape of the kernel grid")
    parser.add_argument("--models", type=Path, default=ROOT / "models")
    parser.add_argument("--onto", action="store_true", help="replace the figures of --only in the earlier results")
    parser.add_argument(
        "--out", type=Path, help="folder for the results; a whole run writes docs/benchmarks and README by default"
    )
    args = parser.parse_args()
    if unknown := set(args.only or ()) - set(NUMBERS):
        raise SystemExit(f"no figure {', '.join(sorted(unknown))}; there are {', '.join(NUMBERS)}")
    if len(CORES) == 1:
        raise SystemExit("This needs two cores: one for the server, one for the client.")
    os.sched_setaffinity(0, {CLIENT_CORE})
    # SIGTERM unwinds the stack too, so that no server keeps running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if os.getloadavg()[0] > LOAD_MAX:
        print_progress(f"other processes are running (load {os.getloadavg()[0]:.1f}): expect wide ranges")
    suite = Suite(args)
    results = suite.run()
    show(results)
    folder = args.out or ROOT / "docs" / "benchmarks"
    if args.onto:
        write(merge_results(json.loads((folder / "results.json").read_text()), results), folder)
    elif args.out or not args.only:
        write(results, folder)
    # The logs of a failed measurement stay: they may show the reason.
    if all(figure["value"] is not None for figure in results["figures"]):
        shutil.rmtree(suite.scratch)


if __name__ == "__main__":
    main()

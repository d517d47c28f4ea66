"""Measure a service whose models learned by the rule mixture: predictions (B6, B8) and feedback (B7), over HTTP.

Each load goes to Softstep and to the raw application in turns. The worker has the server's core to itself; its learner
shares the client's core with the client.
"""

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
from closedloop import saturate, saturate_feedback
from contenders import RAW
from environments import HERE
from feedback_service import EVENTS, PYTHON, FeedbackService, run, wait_until_served
from loads import Load, v1, v2_binary

# The figures that this module measures.
LEARNED_NUMBERS = ("B6", "B7", "B8")
# A million events of digits take a learner half a minute on a core of its own.
HISTORY_SECONDS = 600.0


class LearnedService:
    """One run; each method measures one figure, round by round.

    Args:
        scratch: The folder of the run.
        rounds: Rounds of each figure.
        seconds: The length of one measurement.
        progress: Is called with lines of text.
    """

    def __init__(self, scratch: Path, rounds: int, seconds: int, progress: Callable[[str], None]) -> None:
        self.scratch, self.rounds, self.seconds, self.progress = scratch, rounds, seconds, progress
        self.folder = scratch / "learned"
        self.service = FeedbackService(self.folder / "models", scratch, rounds, seconds, progress)

    @cached_property
    def loads(self) -> dict[str, Load]:
        """The load of each model, with the answer it must get; the models are learned first."""
        self.progress("learning the models of B6 to B8")
        run([str(PYTHON), str(HERE / "learned_models.py"), str(self.folder)])
        loads = {}
        for name, answer in json.loads((self.folder / "answers.json").read_text()).items():
            row, P = (np.array(answer[key], np.float32) for key in ("row", "probabilities"))
            make = v1 if name == "digits" else v2_binary
            loads[name] = make(name, name, row, P)
        return loads

    def predictions(self, numbers: tuple[str, ...]) -> dict[str, list[float]]:
        """Measure one row a request, of each model, and the raw application with the same requests."""
        names = [name for name in self.loads if ("B6" if name == "digits" else "B8") in numbers]
        found: dict[str, list[float]] = {}
        data = self.scratch / "learned-data"
        with self.service.server(data) as server, RAW.running(self.service.models, self.scratch) as raw:
            for turn in range(self.rounds):
                for name in names:
                    self.progress(f"round {turn + 1}/{self.rounds}: predictions of {name}")
                    load = self.loads[name]
                    rates = []
                    for one, is_raw in ((server, False), (raw, True)):
                        load.verify(one.port, empty=is_raw)
                        rates.append(saturate(one, load, self.seconds, self.scratch)["per_s"])
                    found.setdefault(f"{name}_per_s", []).append(rates[0])
                    found.setdefault(f"{name}_ratio", []).append(rates[0] / rates[1])
        return found

    def feedback(self) -> dict[str, list[float]]:
        """Measure acknowledged feedback of one row after a million events, in turns with the raw application."""
        data, body = self.scratch / "learned-history", self.scratch / "learned-row.json"
        load = self.loads["digits"]
        body.write_bytes(json.dumps(json.loads(load.body) | {"labels": [2]}, separators=(",", ":")).encode())
        self.progress(f"writing {EVENTS:,} events of digits")
        command = [str(PYTHON), str(HERE / "history.py"), str(self.scratch / "learned-copy"), str(data)]
        run([*command, "--rows", str(EVENTS), "--model", str(self.service.models / "digits")])
        found: dict[str, list[float]] = {"feedback_ratio": [], "feedback_per_s": [], "feedback_p99_ms": []}
        with self.service.server(data) as server, RAW.running(self.service.models, self.scratch) as raw:
            wait_until_served(server.port, "digits", HISTORY_SECONDS)
            for turn in range(self.rounds):
                self.progress(f"round {turn + 1}/{self.rounds}: feedback on digits at saturation")
                ours = saturate_feedback(server, "/v1/models/digits:feedback", body, self.seconds)
                theirs = saturate_feedback(raw, "/", body, self.seconds)
                found["feedback_ratio"].append(ours["per_s"] / theirs["per_s"])
                found["feedback_per_s"].append(ours["per_s"])
                found["feedback_p99_ms"].append(ours["p99_us"] / 1000)
                wait_until_served(server.port, "digits")
        return found

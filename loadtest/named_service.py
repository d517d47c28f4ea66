"""Measure rows with names over HTTP: predictions (F1 to F3) and feedback (F9), each beside a peer in turns."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import numpy as np
from closedloop import saturate, saturate_feedback
from contenders import RAW, Contender
from environments import HERE, PIPELINE
from feedback_service import PYTHON, FeedbackService, run, wait_until_served
from loads import Load, decode_outputs, decode_v1
from processes import Running

# The figures that this module measures.
NAMED_NUMBERS = ("F1", "F2", "F3", "F9")
MANY = 1000
# The peer takes some 50 ms for 1,000 rows, and 16 connections wait for each other.
SECONDS_MAX = 10
JSON = {"Content-Type": "application/json"}
PEER = Contender(
    "fastapi-pipeline",
    "FastAPI + pydantic + pandas + scikit-learn's Pipeline",
    ("row", "rows"),
    "/openapi.json",
    PIPELINE,
    "fastapi_pipeline.py",
)


class NamedService:
    """One run; each method measures some figures, round by round.

    Args:
        scratch: The folder of the run.
        rounds: Rounds of each figure.
        seconds: The length of one measurement.
        progress: Is called with lines of text.
    """

    def __init__(self, scratch: Path, rounds: int, seconds: int, progress: Callable[[str], None]) -> None:
        self.scratch, self.rounds, self.seconds, self.progress = scratch, rounds, seconds, progress
        self.folder = scratch / "named"
        self.service = FeedbackService(self.folder / "models", scratch, rounds, seconds, progress)

    @cached_property
    def loads(self) -> dict[str, Load]:
        """The requests by name; their models are made first."""
        self.progress("making the models of F1 to F3")
        run([str(PYTHON), str(HERE / "named_rows.py"), str(self.folder)])
        loads = {}
        for name, model in (
            ("row", "rows"),
            ("rows", "rows"),
            ("columns", "rows"),
            ("numbers", "numbers"),
            ("iris", "iris"),
        ):
            body = (self.folder / "requests" / f"{name}.json").read_bytes()
            expected = np.array(
                json.loads((self.folder / "requests" / f"{name}.expected.json").read_text()), np.float32
            )
            decode = decode_outputs if name == "columns" else decode_v1
            loads[name] = Load(name, f"/v1/models/{model}:predict", body, expected, decode, JSON, SECONDS_MAX)
        return loads

    def predictions(self, numbers: tuple[str, ...]) -> dict[str, list[float]]:
        """Measure requests of one row and of 1,000 rows, in turns with those of their peers."""
        found: dict[str, list[float]] = {}
        models = self.service.models
        names = ["row", "numbers", "iris", *(("rows", "columns") if "F3" in numbers else ())] if self.loads else []
        with ExitStack() as stack:
            ours = stack.enter_context(self.service.server(self.scratch / "named-data"))
            peer = stack.enter_context(PEER.running(models, self.scratch)) if numbers != ("F1",) else None
            for turn in range(self.rounds):
                self.progress(f"round {turn + 1}/{self.rounds}: rows with names")
                for name in names:
                    found.setdefault(f"{name}_per_s", []).append(self.saturate(ours, name))
                    if peer is not None and name in PEER.loads:
                        found.setdefault(f"peer_{name}_per_s", []).append(self.saturate(peer, name))
        return found | {name: divide(found, *pair) for name, pair in RATIOS.items() if set(pair) <= found.keys()}

    def saturate(self, server: Running, name: str) -> float:
        """Return the requests per second of a load whose answer is right."""
        load = self.loads[name]
        load.verify(server.port, empty=False)
        return float(saturate(server, load, self.seconds, self.scratch)["per_s"])

    def feedback(self) -> dict[str, list[float]]:
        """Measure acknowledged feedback of one row, in turns with the raw application."""
        found: dict[str, list[float]] = {"ratio": [], "per_s": [], "p99_ms": []}
        path, body = self.loads["row"].path.replace(":predict", ":feedback"), self.folder / "requests" / "feedback.json"
        data = self.scratch / "named-feedback"
        with self.service.server(data) as server, RAW.running(self.service.models, self.scratch) as raw:
            for turn in range(self.rounds):
                self.progress(f"round {turn + 1}/{self.rounds}: feedback of rows with names")
                ours = saturate_feedback(server, path, body, self.seconds)
                theirs = saturate_feedback(raw, "/", body, self.seconds)
                found["ratio"].append(ours["per_s"] / theirs["per_s"])
                found["per_s"].append(ours["per_s"])
                found["p99_ms"].append(ours["p99_us"] / 1000)
                wait_until_served(server.port, "rows")
        return found


RATIOS = {
    "row_to_iris": ("row_per_s", "iris_per_s"),
    "row_to_numbers": ("row_per_s", "numbers_per_s"),
    "row_to_peer": ("row_per_s", "peer_row_per_s"),
    "rows_to_peer": ("rows_per_s", "peer_rows_per_s"),
    "columns_to_rows": ("columns_per_s", "rows_per_s"),
}


def divide(found: dict[str, list[float]], one: str, other: str) -> list[float]:
    """Return the ratio of two rates, round by round."""
    return [a / b for a, b in zip(found[one], found[other], strict=True)]

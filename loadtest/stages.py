"""Measure where the time of one request goes (figure 11): the stages of one `:predict` of one iris row, each in a loop.

Runs with Softstep's own Python on the server's core and prints JSON. Each stage is the service's own code on the result
of the stage before it. Parsing and predicting are one call of machine code. The time of parsing is that of a body that
is rejected after its row; predicting is the rest. Reading, writing and the event loop show only under load, so the
table takes them from the server's processor time at saturation.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import orjson

from service.process.shared_memory import SharedMemory
from service.serve.http.response_forms import PREDICTIONS
from service.serve.worker import Worker
from service.settings import Settings

Stage = Callable[[], object]

CALLS, TURNS = 2000, 25
PATH, BODY = b"/v1/models/iris:predict", b'{"instances":[[5.1,3.5,1.4,0.2]]}'


def request_stages(models: Path) -> dict[str, Stage]:
    """Return the stages of a request as calls; "parse" is rejected after the row, before it is predicted."""
    worker = Worker(Settings(models=models), SharedMemory(1, 1), slot=0, pipe=-1, actor_key=bytes(32))
    asyncio.run(worker.registry.rescan(frozenset()))
    form = worker.shared.usual_form
    served = worker.registry.now.fast_endpoints[PATH].served
    single_row = served.single_row
    if single_row is None:
        raise SystemExit("the model has no short way for a single row, whose stages are to be shown")
    date = [(b"date", b"Tue, 01 Jan 2030 00:00:00 GMT"), (b"server", b"softstep")]
    doubtful = BODY + b" x"

    def encode() -> bytes:
        numbers = orjson.dumps(single_row.P, None, orjson.OPT_SERIALIZE_NUMPY)
        rest = served.v1_single[0]
        size = len(PREDICTIONS) + len(numbers) + len(rest)
        return form.single_row(date) % (size, next(form.numbers), numbers, rest)

    return {
        "parse": lambda: single_row.predict_row(doubtful, 0),
        "parse and predict": lambda: single_row.predict_row(BODY, 0),
        "encode": encode,
        "count": single_row.count_row,
    }


def microseconds(stages: dict[str, Stage]) -> dict[str, float]:
    """Return the median time of one call of each stage, measured in turns."""
    times: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(TURNS):
        for name, stage in stages.items():
            began = time.perf_counter()
            for _ in range(CALLS):
                stage()
            times[name].append((time.perf_counter() - began) / CALLS * 1e6)
    return {name: median(seen) for name, seen in times.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="directory of models/<name>/<version>/")
    us = microseconds(request_stages(parser.parse_args().models))
    us["predict"] = us.pop("parse and predict") - us["parse"]
    print(json.dumps({"us": {name: us[name] for name in ("parse", "predict", "encode", "count")}}))


if __name__ == "__main__":
    main()

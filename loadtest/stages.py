"""Where one request's time goes (figure 11): the stages of one `:predict` of one iris row, each timed in a loop.

Runs with Softstep's own Python on the server's core and prints JSON. Each stage is the service's own code on what the
stage before it gave: bytes to rows, rows to probabilities, and, as what the whole answer takes beyond these two, the
answer's bytes with the checks and counters around them. Reading, writing and the event loop show only under load, so
the table takes them from the server's processor time at saturation.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from service.board import Board
from service.serve.answers import Answers, RequestHead
from service.serve.live import Live
from service.serve.metrics import Meter
from service.settings import Settings
from service.store.repository import Repository

Stage = Callable[[], object]

CALLS, TURNS = 2000, 25
PATH, BODY = b"/v1/models/iris:predict", b'{"instances":[[5.1,3.5,1.4,0.2]]}'


def request_stages(models: Path) -> dict[str, Stage]:
    """Return the two stages inside a request, and the whole of it, as calls."""
    settings, meter = Settings(), Meter(Board(1, 1), 0)
    repository = Repository(models, settings.artifact_bytes_max, settings.models_max)
    with ThreadPoolExecutor(1) as executor:
        live = Live(repository, settings, meter, executor, lambda _: lambda model, X: model.classify(X))
        asyncio.run(live.refresh(frozenset()))
    endpoint = live.now.hot[PATH]
    answers, served = Answers(live, meter, settings), endpoint.served
    head = RequestHead.of({b"content-type": b"application/json"})
    rows = served.rows.instances(BODY).copy()
    return {
        "parse": lambda: served.rows.instances(BODY),
        "predict": lambda: served.model.classify(rows),
        "whole": lambda: answers.respond(endpoint, head, BODY),
    }


def microseconds(stages: dict[str, Stage]) -> dict[str, float]:
    """Return the median time of one call of each, measured in turn."""
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
    encode = us["whole"] - us["parse"] - us["predict"]
    print(json.dumps({"us": {"parse": us["parse"], "predict": us["predict"], "encode, check and count": encode}}))


if __name__ == "__main__":
    main()

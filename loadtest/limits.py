"""Measure the limits of a key: what is accepted in 10 s at three times the limit, by 1, 2 and 4 workers.

    python loadtest/limits.py [--seconds 10] [--rate 600] [--write]

Each line is one limit: requests/s with one row each, requests/s with bodies that the general path parses, and rows/s in
requests of some rows. The service runs with a key of its own, whose limits are shared by all workers.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from checkout_service import CheckoutService
from machine import describe
from operations import read_options, report, row
from paced_clients import PacedLoad, post, run_loads
from processes import free_port

from service.access.api_key import digest_of, make_key
from service.access.key_file import KeyRecord, LimitsRecord, SecretRecord, utc_now, write_keys
from service.access.scopes import Scope

PREDICT = "/v1/models/iris:predict"
ROW = [5.1, 3.5, 1.4, 0.2]
ROWS = 8
WORKERS = (1, 2, 4)
TIMES = 3
ERROR_MAX = 0.05
CONNECTIONS = 32
OK, REFUSED = 200, 429
ABOUT = "A key with one limit, {times} times as many requests for {seconds:g} s."


def write_key(path: Path, **limits: float) -> str:
    """Write a file with one key and return its text."""
    key = make_key()
    secret = SecretRecord(sha256=digest_of(key.text.encode()).hex(), created=utc_now())
    record = KeyRecord(
        id=key.id,
        name="limits",
        created=utc_now(),
        scopes=tuple(Scope),
        secrets=(secret,),
        limits=LimitsRecord.model_validate(limits),
    )
    write_keys(path, (record,))
    return key.text


def measure(
    folder: Path, workers: int, rows: int, rate: float, seconds: float, **limits: float
) -> tuple[int, set[int]]:
    """Return how many requests were accepted, and the statuses of all.

    Args:
        folder: A folder of the measurement's own.
        workers: The number of workers.
        rows: The rows of a request; `seconds` of them are sent at `rate` requests a second.
        rate: Requests a second.
        seconds: The time.
        limits: The limits of the key.
    """
    service = CheckoutService(free_port(), folder, {"workers": workers, "keys_file": folder / "keys.json"})
    header = f"Authorization: Bearer {write_key(folder / 'keys.json', **limits)}"
    body = json.dumps({"instances": [ROW] * rows}).encode()
    request = post(PREDICT, body, header)
    load = PacedLoad(rate, CONNECTIONS, lambda: (request, None))
    with service.running():
        run_loads(service.port, [load], seconds)
    if load.broken:
        raise SystemExit(f"{load.broken} connections broke")
    statuses = [answer.status for answer in load.answers]
    return statuses.count(OK), set(statuses)


def main() -> None:
    """Measure and print."""
    options = read_options(__doc__, seconds=10.0, rate=(600.0, "the limit, in requests a second"))
    machine = describe()
    limit, seconds = options.rate, options.seconds
    kinds: dict[str, tuple[int, dict[str, Any]]] = {
        "requests/s, one row each": (1, {"requests_per_second": limit}),
        f"requests/s, {ROWS} rows each": (ROWS, {"requests_per_second": limit}),
        f"rows/s, {ROWS} rows each": (ROWS, {"rows_per_second": limit * ROWS}),
    }
    rows, all_met = [], True
    with tempfile.TemporaryDirectory() as name:
        for workers in WORKERS:
            for title, (size, limits) in kinds.items():
                folder = Path(name) / str(len(rows))
                folder.mkdir()
                accepted, statuses = measure(folder, workers, size, TIMES * limit, seconds, **limits)
                error = accepted / (limit * seconds) - 1
                met = abs(error) <= ERROR_MAX and statuses <= {OK, REFUSED}
                all_met &= met
                figure = f"accepted, compared with a limit of {title}; {workers} workers"
                rows.append(row(figure, f"± {ERROR_MAX:.0%}", f"{error:+.1%}", met=met))
    report("limits", ABOUT.format(times=TIMES, seconds=seconds), rows, machine, write=options.write)
    if not all_met:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

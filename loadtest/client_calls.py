"""Measure the Python client beside httpx2, and its feedback through a proxy that disturbs answers (T7, T8).

    python loadtest/client_calls.py predict PORT SECONDS    one row, in turns: requests per second of each
    python loadtest/client_calls.py import                  seconds to import each, in processes of their own
    python loadtest/client_calls.py feedback PORT COUNT     calls, and how many were lost or counted twice

It prints JSON, and needs client/ and the repository's root on PYTHONPATH.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx2
from softstep_client import AsyncSoftstep, Softstep

from tests.support.disturbed_feedback import run_disturbed

# Short turns, so that a slow moment falls on all.
TURNS = 20
IMPORTS = 15
ROW = [5.1, 3.5, 1.4, 0.2]
IMPORT = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"
MODULES = {"client": "softstep_client", "bare": "httpx2"}


def count_in(seconds: float, call: Callable[[], object]) -> float:
    """Return how many calls a second end within a time."""
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        call()
        count += 1
    return count / (time.perf_counter() - began)


def predict(port: int, seconds: float) -> dict[str, float]:
    """Measure one row by each, in turns on one connection each.

    Args:
        port: The port of the service.
        seconds: The length of the measurement of each.
    """
    url = f"http://127.0.0.1:{port}"
    path, body = f"{url}/v1/models/iris:predict", {"instances": [ROW]}
    loop, rates = asyncio.new_event_loop(), dict.fromkeys(("client", "bare", "async_client", "async_bare"), 0.0)
    async_bare, async_client = httpx2.AsyncClient(), AsyncSoftstep(url)

    async def one_bare() -> Any:  # noqa: ANN401 - a JSON document
        return (await async_bare.post(path, json=body)).json()

    with Softstep(url) as client, httpx2.Client() as bare:
        calls: dict[str, Callable[[], object]] = {
            "client": lambda: client.predict("iris", [ROW]),
            "bare": lambda: bare.post(path, json=body).json(),
            "async_client": lambda: loop.run_until_complete(async_client.predict("iris", [ROW])),
            "async_bare": lambda: loop.run_until_complete(one_bare()),
        }
        for call in calls.values():
            count_in(seconds / TURNS, call)
        for _ in range(TURNS):
            for name, call in calls.items():
                rates[name] += count_in(seconds / TURNS, call) / TURNS
    loop.run_until_complete(async_client.close())
    loop.run_until_complete(async_bare.aclose())
    loop.close()
    return {
        "predict_ratio": rates["client"] / rates["bare"],
        "async_ratio": rates["async_client"] / rates["async_bare"],
        "per_s": rates["client"],
    }


def measure_imports() -> dict[str, float]:
    """Return the ratio of the shortest times of an import, which the pauses of other processes do not lengthen."""
    seconds: dict[str, list[float]] = {name: [] for name in MODULES}
    for _ in range(IMPORTS):
        for name, module in MODULES.items():
            done = subprocess.run([sys.executable, "-c", IMPORT.format(module)], capture_output=True, check=True)
            seconds[name].append(float(done.stdout))
    return {"import_ratio": min(seconds["client"]) / min(seconds["bare"]), "import_ms": 1000 * min(seconds["client"])}


def feedback(port: int, count: int) -> dict[str, float]:
    """Post feedback through a proxy that disturbs one answer in ten."""
    outcome, proxy = run_disturbed("sync", f"http://127.0.0.1:{port}", ("127.0.0.1", port), count)
    learned = outcome.metadata["progressive"]["rows"]
    return {
        "calls": float(len(outcome.receipts)),
        "violations": float(len(outcome.violations()) + abs(learned - count)),
        "disturbed": float(proxy.disturbed.total()),
    }


def main() -> None:
    """Measure the part that the arguments name."""
    part, *rest = sys.argv[1:]
    numbers = [int(text) for text in rest]
    parts: dict[str, Callable[..., dict[str, float]]] = {
        "predict": predict,
        "import": measure_imports,
        "feedback": feedback,
    }
    print(json.dumps(parts[part](*numbers)))


if __name__ == "__main__":
    main()

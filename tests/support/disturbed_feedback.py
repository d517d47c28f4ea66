"""Feedback of both clients through a proxy that disturbs answers, and what the service has stored in the end."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import httpx
from softstep_client import AsyncSoftstep, Receipt, Softstep

from tests.support.disturbing_proxy import DisturbingProxy

# An answer counts as lost after this time; a late one comes later. A busy machine may be slower, and is asked again.
TIMEOUT = 1.0
LATE_SECONDS = 1.5
# Of a hundred million calls one finds that many answers in a row disturbed, if one in ten is.
RETRIES = 8
CALLS_AT_ONCE = 16
SHARE = 0.1
EVENTS_MAX = 200
LABELS = ("setosa", "versicolor", "virginica")


class Outcome(NamedTuple):
    """What clients received and what the service has.

    Attributes:
        receipts: The answers that the client received.
        events: The events of the log, oldest first.
        metadata: The metadata of the model.
    """

    receipts: list[Receipt]
    events: list[dict[str, Any]]
    metadata: dict[str, Any]

    def violations(self) -> list[str]:
        """Return each receipt that is not exactly one event, and each event that has no receipt."""
        stored = [(event["id"], event["seq"]) for event in self.events if event["kind"] == "feedback"]
        received = [(receipt.id, receipt.seq) for receipt in self.receipts]
        twice = (
            sorted({one for one in received if received.count(one) > 1}) if len(set(received)) < len(received) else []
        )
        return [f"lost: {one}" for one in set(received) - set(stored)] + [
            *(f"not acknowledged: {one}" for one in set(stored) - set(received)),
            *(f"one event for two calls: {one}" for one in twice),
        ]


def row(number: int) -> list[float]:
    """Return a row of iris of its own for each call."""
    return [5.0 + number % 7 / 7, 3.0, 1.0 + number % 11 / 3, number * 1e-5]


def post_all(kind: str, url: str, count: int) -> list[Receipt]:
    """Post feedback of one row `count` times, some calls at once."""
    options: dict[str, Any] = {"timeout": TIMEOUT, "max_retries": RETRIES}
    if kind == "sync":
        with Softstep(url, **options) as client, ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
            calls = [pool.submit(client.feedback, "iris", [row(n)], [LABELS[n % 3]]) for n in range(count)]
            return [call.result() for call in calls]

    async def post() -> list[Receipt]:
        gate = asyncio.Semaphore(CALLS_AT_ONCE)
        async with AsyncSoftstep(url, **options) as client:

            async def one(number: int) -> Receipt:
                async with gate:
                    return await client.feedback("iris", [row(number)], [LABELS[number % 3]])

            return list(await asyncio.gather(*map(one, range(count))))

    return asyncio.run(post())


def run_disturbed(kind: str, service: str, address: tuple[str, int], count: int) -> tuple[Outcome, DisturbingProxy]:
    """Post feedback through a new proxy before a service, and read what the service has stored.

    Args:
        kind: "sync" or "async".
        service: The URL of the service.
        address: Its host and port.
        count: The number of calls.
    """
    proxy = DisturbingProxy(address, SHARE, LATE_SECONDS)
    with proxy.running() as url:
        receipts = post_all(kind, url, count)
    last = max(receipt.seq for receipt in receipts)
    model = f"{service}/v1/models/iris"
    with httpx.Client() as http:
        # Until everything is learned: a prediction that holds the last event.
        while http.post(f"{model}:predict", json={"instances": [row(0)], "min_seq": last}).status_code == 409:
            pass
        events: list[dict[str, Any]] = []
        while True:
            before = {} if not events else {"before": events[-1]["seq"]}
            page = http.get(f"{model}/events", params={"limit": EVENTS_MAX, **before}).json()["events"]
            if not page:
                return Outcome(receipts, events[::-1], http.get(model).json()), proxy
            events += page

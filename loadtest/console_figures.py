"""Measure the console in Chromium, and take the screenshots of the README.

    python loadtest/console_figures.py            # prints the figures: 10 minutes
    python loadtest/console_figures.py --write    # also writes docs/benchmarks/console.md, docs/images and README

V1  bytes that a browser loads, plain and compressed
V2  first contentful paint over loopback: the median of some loads with an empty cache
V3  violations of the Content-Security-Policy, requests to other hosts, and errors in the browser's console
V4  violations that axe-core finds: both themes, wide and narrow, now and in the past
V5  pixels by which the page is wider than a window of 400 pixels
V6  CPU time of the service above idle while a page is open, in shares of a core: at rest, and at 100 events a second
V7  share of the time that the browser's main thread is busy while nothing happens
V8  size and time of a steady pulse (pulse.py)

The service has two workers and the stream of console_stream.py. console_page.py has the targets, and writes the page.
"""

import argparse
import itertools
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

from axe_playwright_python.sync_playwright import Axe
from console_page import show, write
from console_stream import EVENTS, MODEL, send, send_paced
from machine import describe
from playwright.sync_api import Browser, Page, sync_playwright
from processes import Running, free_port, serving
from pulse import measure_pulses

from service.serve.api.console_files import read_console_files

ROOT: Final = Path(__file__).parent.parent
CHROMIUM: Final = "/usr/bin/chromium"
IMAGES: Final = ROOT / "docs" / "images"
WIDE: Final = {"width": 1360, "height": 1120}
NARROW: Final = {"width": 400, "height": 900}
LOADS: Final = 5
REST_SECONDS: Final = 15.0
# Turns without and with a page, while its cost for the service is measured.
TURNS: Final = 8
# After this time a page has loaded everything.
SETTLE_SECONDS: Final = 3.0
# Events a second while the cost of a page is measured.
RATE: Final = 100
PAINT: Final = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
# A three on the drawing pad, in shares of its sides.
STROKE: Final = [(0.3, 0.15), (0.6, 0.12), (0.68, 0.25), (0.45, 0.45), (0.7, 0.65), (0.62, 0.85), (0.3, 0.85)]


def sizes() -> tuple[int, int]:
    """Return the bytes of all files, plain and compressed."""
    files = read_console_files().values()
    return sum(len(file.plain) for file in files), sum(len(file.compressed) for file in files)


def open_page(
    browser: Browser,
    url: str,
    faults: list[str],
    seq: int | None = None,
    **options: Any,  # noqa: ANN401  # those of Playwright
) -> Page:
    """Open the console in a context of its own, and wait until it shows the model, now or after a past event.

    Faults of the page are collected.
    """
    page = browser.new_context(**{"viewport": WIDE, **options}).new_page()
    page.on("console", lambda message: faults.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(url) else faults.append(request.url))
    page.goto(f"{url}/#{MODEL}" if seq is None else f"{url}/#{MODEL}@{seq}")
    page.locator("body:not(.loading)").wait_for()
    return page


def draw(page: Page) -> None:
    """Draw a digit on the pad, and wait for the answer."""
    pad = page.locator("#pad")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    if box is None:
        sys.exit("console_figures: there is no pad to draw on")
    for i, (x, y) in enumerate(STROKE):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=6)
        if i == 0:
            page.mouse.down()
    page.mouse.up()
    page.locator("#bars[aria-busy=false] .best").wait_for()


def take_screenshots(browser: Browser, url: str, folder: Path) -> list[str]:
    """Write a picture of the page in each theme, and return the faults."""
    faults: list[str] = []
    folder.mkdir(exist_ok=True)
    for scheme in ("light", "dark"):
        page = open_page(browser, url, faults, color_scheme=scheme, reduced_motion="reduce")
        draw(page)
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=folder / f"console-{scheme}.png")
        page.context.close()
    return faults


def measure(
    browser: Browser,
    url: str,
    *,
    loads: int = LOADS,
    rest_seconds: float = REST_SECONDS,
    settle_seconds: float = SETTLE_SECONDS,
) -> dict[str, Any]:
    """Return the figures of a running service by their numbers."""
    faults: list[str] = []
    paints = []
    for _ in range(loads):
        page = open_page(browser, url, faults)
        paints.append(page.evaluate(PAINT))
        page.context.close()
    page = open_page(browser, url, faults, viewport=NARROW)
    draw(page)
    overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    page.context.close()
    page = open_page(browser, url, faults)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    page.wait_for_timeout(settle_seconds * 1000)
    busy = [_task_seconds(session)]
    time.sleep(rest_seconds)
    busy.append(_task_seconds(session))
    page.context.close()
    plain, compressed = sizes()
    return {
        "V1": (plain, compressed), "V2": median(paints), "V3": len(faults), "V5": overflow,
        "V7": (busy[1] - busy[0]) / rest_seconds, "faults": faults,
    }  # fmt: skip


def find_violations(browser: Browser, url: str, past: int, faults: list[str]) -> list[str]:
    """Return what axe-core finds in all pages: both themes and widths, now and after a past event."""
    violations = []
    for scheme, viewport, seq in itertools.product(("light", "dark"), (WIDE, NARROW), (None, past)):
        options = {"color_scheme": scheme, "viewport": viewport, "reduced_motion": "reduce"}
        page = open_page(browser, url, faults, seq, **options)
        page.wait_for_timeout(SETTLE_SECONDS * 1000)
        violations += [one["id"] for one in Axe().run(page).response["violations"]]
        page.context.close()
    return violations


def measure_service(browser: Browser, url: str, running: Running) -> tuple[float, float]:
    """Return the CPU time that an open page costs the service, in shares of a core: at rest, and while events come.

    Both are the medians of turns, of which every other one begins with the page: the log grows meanwhile.
    """

    def used() -> float:
        before = sum(running.cpu_seconds())
        time.sleep(REST_SECONDS)
        return (sum(running.cpu_seconds()) - before) / REST_SECONDS

    def used_with_page() -> float:
        page = open_page(browser, url, [])
        page.wait_for_timeout(SETTLE_SECONDS * 1000)
        share = used()
        page.context.close()
        return share

    def used_by_page() -> float:
        costs = []
        for turn in range(TURNS):
            with_page = used_with_page() if turn % 2 else None
            without = used()
            costs.append((used_with_page() if with_page is None else with_page) - without)
        return median(costs)

    at_rest, stop = used_by_page(), threading.Event()
    sender = threading.Thread(target=send_paced, args=(url, RATE, stop))
    sender.start()
    try:
        return at_rest, used_by_page()
    finally:
        stop.set()
        sender.join()


def _task_seconds(session: Any) -> float:  # noqa: ANN401  # Playwright's session of the browser's own protocol
    """Return the time that the main thread has been busy."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(float(metric["value"]) for metric in metrics if metric["name"] == "TaskDuration")


def main() -> None:
    """Run a service with the stream, and measure its console."""
    options = argparse.ArgumentParser(description="Measure the console in Chromium.")
    options.add_argument("--write", action="store_true", help="write the page, README's sentence and the screenshots")
    options.add_argument("--events", type=int, default=EVENTS, help="events of the stream")
    chosen, machine = options.parse_args(), describe()
    with tempfile.TemporaryDirectory() as scratch:
        port = free_port()
        command = [sys.executable, "-m", "service", "serve", "--port", str(port), "--workers", "2"]
        command += ["--models", str(ROOT / "models"), "--data", f"{scratch}/data"]
        with serving(command, port, "/readyz", Path(scratch) / "log") as running, sync_playwright() as playwright:
            url = f"http://127.0.0.1:{port}"
            send(url, chosen.events)
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            figures = measure(browser, url)
            faults = figures.pop("faults")
            if chosen.write:
                faults += take_screenshots(browser, url, IMAGES)
            violations = find_violations(browser, url, chosen.events // 2, faults)
            figures |= {"V3": len(faults), "V4": len(violations)}
            figures["V8"] = measure_pulses(port, lambda: sum(running.cpu_seconds()))._asdict()
            figures["V6"] = measure_service(browser, url, running)
            machine["browser"] = browser.version
            browser.close()
    print(show(figures), *faults, *violations, sep="\n")
    if chosen.write:
        write(figures, machine)


if __name__ == "__main__":
    main()

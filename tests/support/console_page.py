"""The console in a real browser: pages whose faults are collected, and what tests do on them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Route

CHROMIUM = "/usr/bin/chromium"
# The shape of a three on the drawing pad, in shares of its sides.
THREE = [(0.3, 0.15), (0.6, 0.12), (0.68, 0.25), (0.45, 0.45), (0.7, 0.65), (0.62, 0.85), (0.3, 0.85)]
# Statuses that tests provoke; the browser reports each failed request by itself.
PROVOKED = ("the server responded with a status of ", "net::ERR_")
DEADLINE_MS = 15_000
# A model is shown, and its bars are of the row and the event that the reader chose.
SETTLED = "body:not(.loading):not(:has(.card[inert])) #bars:not([aria-busy=true])"
BACKGROUND = ["--no-sandbox", "--disable-background-networking", "--no-first-run", "--disable-component-update"]


@contextmanager
def visiting(
    browser: Browser, url: str, prepare: Callable[[Page], object] = lambda _: None, **options: Any
) -> Iterator[Page]:
    """Open a page in a context of its own; at the end, fail if it had a fault.

    A fault is an exception, an error or warning in the browser's console, among them violations of the policy, or a
    request to another host.

    Args:
        browser: The browser.
        url: The page.
        prepare: Is called with the empty page, before it loads.
        options: Those of Playwright's context, such as `viewport` and `color_scheme`.
    """
    faults: list[str] = []
    context = browser.new_context(**{"viewport": {"width": 1360, "height": 900}, "reduced_motion": "reduce", **options})
    context.set_default_timeout(DEADLINE_MS)
    page = context.new_page()

    def note(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not any(text in message.text for text in PROVOKED):
            faults.append(message.text)

    def check(request: Request) -> None:
        if urlsplit(request.url).netloc != urlsplit(url).netloc:
            faults.append(f"a request to {request.url}")

    page.on("console", note)
    page.on("pageerror", lambda error: faults.append(str(error.stack)))
    page.on("request", check)
    try:
        prepare(page)
        page.goto(url)
        yield page
    finally:
        context.close()
    assert not faults, faults


def is_settled(page: Page) -> None:
    """Wait until the page shows a model, and its answer to the row as of the playhead."""
    page.locator(SETTLED).wait_for(state="attached")


def hold(page: Page, path: str) -> list[Route]:
    """Hold the page's calls of a path, and return the list where they arrive; `continue_` sends one on."""
    held: list[Route] = []

    def add(route: Route) -> None:
        held.append(route)

    page.route(path, add)
    return held


def wait_for_calls(page: Page, held: list[Route], count: int) -> None:
    """Wait until so many calls of the page are held."""
    until = time.monotonic() + DEADLINE_MS / 1000
    while len(held) < count and time.monotonic() < until:
        page.wait_for_timeout(20)  # Playwright calls handlers while it waits
    assert len(held) == count


def check_accessibility(page: Page) -> None:
    """Fail if axe-core finds a violation."""
    found = Axe().run(page).response["violations"]
    assert not found, [(one["id"], [node["target"] for node in one["nodes"]]) for one in found]


def known(page: Page, expression: str) -> Any:
    """Return a part of what the page knows, such as `S.answer.probabilities`."""
    return page.evaluate(f"import('./console/page.js').then(({{ S }}) => {expression})")


def draw(page: Page, points: list[tuple[float, float]]) -> None:
    """Draw a line on the pad with the mouse, and wait for the answer."""
    pad = page.locator("#pad")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places:
        page.mouse.move(*place, steps=5)
    page.mouse.up()
    is_settled(page)

"""The page docs/benchmarks/console.md and README's sentence on the console, from console.json.

    python loadtest/console_page.py       write both again, without measuring

console_figures.py measures. The file has the machine and the figures by their numbers.
"""

import json
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from environments import ROOT
from tables import MET, table

Figures = dict[str, Any]

FOLDER = ROOT / "docs" / "benchmarks"
FILE, PAGE, README = FOLDER / "console.json", FOLDER / "console.md", ROOT / "README.md"
MACHINE = ("date", "processor", "cores", "kernel", "load_before", "python", "browser")
SENTENCE = re.compile(r"^`loadtest/console_figures\.py`, on .*$", re.MULTILINE)
HEAD = ["#", "figure", "target", "measured", ""]
# Targets, in the units of the figures.
BYTES_MAX, COMPRESSED_MAX = 120_000, 50_000
PAINT_MS_MAX = 500
SERVICE_SHARE_MAX = 0.01
BROWSER_SHARE_MAX = 0.03
PULSE_BYTES_MAX, PULSE_SECONDS_MAX = 2048, 0.0003

INTRODUCTION = """# Console

`loadtest/console_figures.py --write` writes this page, the screenshots and the sentence in README."""
METHOD = """## Method

The service has two workers. It has learned the stream of `loadtest/console_stream.py`: drift, a rollback, a new class
and a pause. Chromium shows its console over loopback.

- **V2** is the median of loads with an empty cache.
- **V3** and **V4** are of all pages that the script opens. axe-core checks both themes, windows of 1360 and 400 pixels,
  the present, and the state of a past event. `make test` checks the dialogs and an empty service too.
- **V6** is the processor time of all processes of the service with a page open, less that without: the median of turns.
- **V7** is the share of the time that the browser's main thread is busy, once the page is loaded.
- **V8** is the time of a steady pulse as its client sees it: from the first byte sent to the last one received, the
  median. The processor time is that of all processes of the service, the mean.

[V9](operations.md#the-history-of-answers) is what the history costs the learner, by `loadtest/history_cost.py`."""


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        number: The number of its figure.
        title: What was measured.
        target: The target, in words.
        describe: Returns the figure in words.
        is_met: Whether the figure meets the target.
    """

    number: str
    title: str
    target: str
    describe: Callable[[Any], str]
    is_met: Callable[[Any], bool]


ROWS: Final = (
    Row(
        "V1",
        "bytes that a browser loads, plain / compressed",
        f"≤ {BYTES_MAX:,} / ≤ {COMPRESSED_MAX:,}",
        lambda sizes: f"{sizes[0]:,} / {sizes[1]:,}",
        lambda sizes: sizes[0] <= BYTES_MAX and sizes[1] <= COMPRESSED_MAX,
    ),
    Row(
        "V2",
        "first contentful paint, loopback",
        f"≤ {PAINT_MS_MAX} ms",
        lambda ms: f"{ms:.0f} ms",
        lambda ms: ms <= PAINT_MS_MAX,
    ),
    Row("V3", "policy violations, requests to other hosts, console errors", "0", str, lambda count: count == 0),
    Row("V4", "violations that axe-core finds", "0", str, lambda count: count == 0),
    Row("V5", "horizontal overflow at 400 px", "0", lambda pixels: f"{pixels} px", lambda pixels: pixels <= 0),
    Row(
        "V6",
        "service CPU of an open page, at rest / at 100 events/s",
        f"≤ {SERVICE_SHARE_MAX:.0%} of a core",
        lambda shares: " / ".join(f"{share:.2%}" for share in shares),
        lambda shares: max(shares) <= SERVICE_SHARE_MAX,
    ),
    Row(
        "V7",
        "browser's main thread at rest",
        f"≤ {BROWSER_SHARE_MAX:.0%}",
        lambda share: f"{share:.1%}",
        lambda share: share <= BROWSER_SHARE_MAX,
    ),
    Row(
        "V8",
        "size of a steady pulse",
        f"≤ {PULSE_BYTES_MAX:,} bytes",
        lambda cost: f"{cost['size']:,} bytes",
        lambda cost: cost["size"] <= PULSE_BYTES_MAX,
    ),
    Row(
        "V8",
        "time of a steady pulse / its processor time in the service",
        f"≤ {1000 * PULSE_SECONDS_MAX:.1f} ms",
        lambda cost: f"{1000 * cost['seconds']:.2f} ms / {1000 * cost['processor_seconds']:.2f} ms",
        lambda cost: cost["seconds"] <= PULSE_SECONDS_MAX,
    ),
)


def rows(figures: Figures) -> list[list[str]]:
    """Return the rows of the figures that were measured."""
    shown = [(row, figures[row.number]) for row in ROWS if row.number in figures]
    return [[row.number, row.title, row.target, row.describe(one), MET[row.is_met(one)]] for row, one in shown]


def show(figures: Figures) -> str:
    """Return the figures as a table of Markdown."""
    head, _, *lines = table(HEAD, rows(figures)).splitlines()
    return "\n".join([head, "| --- | --- | --- | --- | --- |", *lines])


def render(results: dict[str, Any]) -> str:
    """Return the page."""
    machine = results["machine"]
    where = (
        f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}, "
        f"Chromium {machine['browser']}, {machine['date'].split()[0]}, load before {machine['load_before']}."
    )
    return "\n\n".join([INTRODUCTION, where, "## Figures", show(results["figures"]), METHOD]) + "\n"


def describe_briefly(results: dict[str, Any]) -> str:
    """Return README's sentence: the first three figures."""
    figures, machine = results["figures"], results["machine"]
    plain, compressed = figures["V1"]
    return (
        f"`loadtest/console_figures.py`, on {machine['cores']} cores of {machine['processor']}: "
        f"{plain:,} bytes to load, {compressed:,} compressed; first contentful paint {figures['V2']:.0f} ms; "
        f"{figures['V3'] or 'no'} policy violations, foreign requests or console errors "
        f"([all figures](docs/benchmarks/console.md))."
    )


def write(figures: Figures, machine: dict[str, Any]) -> None:
    """Keep the figures, and write the page and README's sentence."""
    kept = {"machine": {key: machine[key] for key in MACHINE}, "figures": figures}
    FILE.write_text(json.dumps(kept, indent=1) + "\n")
    write_page()


def write_page() -> None:
    """Write the page and README's sentence."""
    results = json.loads(FILE.read_text())
    PAGE.write_text(render(results))
    text, count = SENTENCE.subn(lambda _: describe_briefly(results), README.read_text())
    if count != 1:
        raise SystemExit("README has no line on the figures of the console, or several; it is unchanged")
    README.write_text(text)


if __name__ == "__main__":
    write_page()

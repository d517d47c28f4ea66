"""The script that measures the console and takes the screenshots of the README."""

from pathlib import Path

from playwright.sync_api import Browser

from tests.support.paths import ROOT
from tests.support.running_service import Service
from tests.support.scripts import load_script

EVENTS = 60
PNG = b"\x89PNG\r\n"


def test_the_figures_and_screenshots_are_made(console: Service, browser: Browser, tmp_path: Path) -> None:
    """The script sends its stream, writes both screenshots, and finds no fault and no overflow."""
    load_script("loadtest/console_stream.py").send(console.url, EVENTS)
    script = load_script("loadtest/console_figures.py")
    assert script.take_screenshots(browser, console.url, tmp_path) == []
    assert [(tmp_path / f"console-{theme}.png").read_bytes()[:6] for theme in ("light", "dark")] == [PNG, PNG]
    figures = script.measure(browser, console.url, loads=1, rest_seconds=0.5, settle_seconds=0)
    assert (figures["faults"], figures["V3"], figures["V5"]) == ([], 0, 0)
    assert figures["V2"] > 0
    shown = script.show(figures)
    assert [number for number in ("V1", "V2", "V3", "V5", "V7") if f"| {number} |" not in shown] == []


def test_the_screenshots_are_in_the_readme() -> None:
    """The README shows a picture for each theme, and both exist."""
    text = (ROOT / "README.md").read_text()
    for theme in ("light", "dark"):
        assert f"docs/images/console-{theme}.png" in text
        assert (ROOT / "docs" / "images" / f"console-{theme}.png").read_bytes()[:6] == PNG

"""Draw, teach, forget: the page changes the model, and takes that back."""

import re
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.console_page import THREE, draw, is_settled, known, visiting
from tests.support.learning_client import rows_of
from tests.support.running_service import Service


def test_a_drawn_digit_is_taught_and_forgotten(console: Service, browser: Browser) -> None:
    """Teaching moves the bar of the digit; forgetting gives the probabilities of before, to the bit."""
    with visiting(browser, f"{console.url}/#digits") as page:
        is_settled(page)
        expect(page.locator("#headline")).to_contain_text("Nothing has been learned yet")
        draw(page, THREE)
        expect(page.locator(".bar")).to_have_count(10)
        before, row = known(page, "S.answer.probabilities"), known(page, "S.row")
        assert len(row) == 64
        assert 14 <= max(row) <= 16
        predicted = httpx.post(f"{console.url}/v1/models/digits:predict", json={"instances": [row]}).json()
        assert predicted["predictions"] == [before]
        page.get_by_role("button", name="it is this: 7").click()
        expect(page.locator("#said")).to_contain_text(re.compile(r"Learned as event 1\. 7: .* → "))
        taught = known(page, "S.answer.probabilities")
        assert taught[7] > before[7]
        expect(page.locator(".bar").nth(7).locator(".track b")).to_be_visible()  # the mark of before
        page.get_by_role("button", name="Forget it again").click()
        expect(page.locator("#said")).to_contain_text("Forgotten as event 2")
        assert known(page, "S.answer.probabilities") == before


def test_the_keyboard_alone_is_enough(console: Service, browser: Browser) -> None:
    """A model is picked, a cell inked, and the digit taught without a mouse."""
    with visiting(browser, f"{console.url}/#iris") as page:
        is_settled(page)
        page.locator("#model").focus()
        page.keyboard.type("digits-mlp")
        expect(page).to_have_title("digits-mlp · Softstep")
        is_settled(page)
        page.locator("#pad").focus()
        for key in ("ArrowDown", "ArrowRight", "Space", "ArrowDown", "Space", "ArrowDown", "Space"):
            page.keyboard.press(key)
        is_settled(page)
        assert [i for i, value in enumerate(known(page, "S.answer.row")) if value] == [9, 17, 25]
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "it is this"
        page.keyboard.press("Enter")
        expect(page.locator("#said")).to_contain_text("Learned as event")
        assert page.evaluate("document.activeElement.tagName") == "BUTTON", "the focus stays where it was"


@pytest.mark.parametrize(("motion", "duration"), [("reduce", "0s"), ("no-preference", "0.35s")])
def test_reduced_motion_is_honored(console: Service, browser: Browser, motion: Any, duration: str) -> None:
    """Bars move only for readers who have not asked for less motion."""
    with visiting(browser, f"{console.url}/#iris", reduced_motion=motion) as page:
        is_settled(page)
        style = page.locator(".track i").first.evaluate("bar => getComputedStyle(bar).transitionDuration")
        assert style == duration


def test_a_version_is_chosen(console: Service, browser: Browser) -> None:
    """A version that the reader chose is shown, asked and taught; the address names all but the newest."""
    with visiting(browser, f"{console.url}/#versions") as page:
        is_settled(page)
        versions = page.locator("#version")
        expect(versions.locator("option")).to_have_text(["v10, newest", "v9"])
        newest = known(page, "S.answer.probabilities")
        versions.select_option(label="v9")
        expect(page).to_have_title("versions v9 · Softstep")
        is_settled(page)
        expect(page.locator("#headline")).to_contain_text("versions v9 is as it was trained")
        assert page.evaluate("location.hash") == "#versions/9"
        row, shown = known(page, "S.answer.row"), known(page, "S.answer.probabilities")
        path = f"{console.url}/v1/models/versions"
        assert shown != newest
        assert shown == httpx.post(f"{path}/versions/9:predict", json={"instances": [row]}).json()["predictions"][0]
        page.get_by_role("button", name="it is this: b").click()
        expect(page.locator("#said")).to_contain_text("Learned as event 1")
        expect(page.locator("#tiles dd").first).to_have_text("1")
        assert [httpx.get(f"{path}{end}").json()["log_seq"] for end in ("", "/versions/9")] == [0, 1]
        page.locator("#playhead").focus()
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#said")).to_have_text("Go back to now to teach.")
        assert page.evaluate("location.hash") == "#versions/9@0"
        page.reload()
        is_settled(page)
        assert (known(page, "S.meta.version"), known(page, "S.answer.probabilities")) == ("9", shown)
        versions.select_option(label="v10, newest")
        expect(page).to_have_title("versions · Softstep")
        assert page.evaluate("location.hash") == "#versions"
        page.goto(f"{console.url}/#versions/8@3")
        is_settled(page)
        assert known(page, "S.meta.version") == "10", "the newest, as there is no such version"


def test_several_labels_are_taught_together(console: Service, browser: Browser) -> None:
    """A multi-label model has a box for each label, checked as each row is answered, and one button for all."""
    path, rows = f"{console.url}/v1/models/yeast", rows_of("yeast", 3)
    found = httpx.post(f"{path}:predict", json={"instances": rows}).json()["predictions"]
    with visiting(browser, f"{console.url}/#yeast") as page:
        is_settled(page)
        boxes = page.locator("#bars").get_by_role("checkbox")
        for row, probabilities in zip(rows, found, strict=True):
            paste(page, row)
            checked = boxes.evaluate_all("boxes => boxes.map(({ checked }) => checked)")
            assert checked == [p >= 0.5 for p in probabilities]
        wanted = [not is_checked for is_checked in checked]
        for k, is_wanted in enumerate(wanted):
            boxes.nth(k).set_checked(is_wanted)
        page.get_by_role("button", name="The checked labels are right").click()
        expect(page.locator("#said")).to_contain_text("Learned as event 1")
        learned = np.subtract(known(page, "S.answer.probabilities"), found[-1])
        assert ((learned > 0) == wanted).all()


def paste(page: Page, row: list[float]) -> None:
    """Paste a row, and wait for the answer."""
    page.get_by_role("button", name="Paste row").click()
    page.locator("#row-text").fill(str(row))
    page.get_by_role("button", name="Use it").click()
    is_settled(page)


def test_a_pasted_row_is_checked(console: Service, browser: Browser) -> None:
    """A row that does not fit is refused with the reason; a good one is used, also beyond the sliders, and copied."""
    with visiting(browser, f"{console.url}/#iris") as page:
        is_settled(page)
        for text, reason in (
            ("1, 2, 3", "That is 3 numbers; this model takes 4."),
            ("1 2 x 4", "Number 3 is not a number."),
            ("", "That is 0 numbers; this model takes 4."),
        ):
            page.get_by_role("button", name="Paste row").click()
            page.locator("#row-text").fill(text)
            page.get_by_role("button", name="Use it").click()
            expect(page.locator("#row-error")).to_have_text(reason)
            page.get_by_role("button", name="Cancel").click()
        page.get_by_role("button", name="Paste row").click()
        page.locator("#row-text").fill("[6.0, 2.7; 5.1 1600]")
        page.get_by_role("button", name="Use it").click()
        is_settled(page)
        assert known(page, "S.answer.row") == [6, 2.7, 5.1, 1600]
        page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        page.get_by_role("button", name="Copy as curl").click()
        command = f"curl -s '{console.url}/v1/models/iris:predict' -d '{{\"instances\":[[6,2.7,5.1,1600]]}}'"
        expect(page.locator("#said")).to_have_text(command)

"""Models of every kind and size: each shipped one is asked, taught and made to forget; wide ones stay usable."""

import re

import httpx
import numpy as np
from playwright.sync_api import Browser, expect

from tests.support.console_page import THREE, draw, is_settled, known, visiting
from tests.support.paths import SHIPPED
from tests.support.running_service import Service

NARROW = {"width": 400, "height": 800}
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"
LETTERS = 26  # too many for a table of mistakes, few enough to be counted
MISTAKES = 20
PROBABILITIES = "S.answer.probabilities"


def test_every_shipped_model_is_taught_and_forgets(console: Service, browser: Browser) -> None:
    """Each model answers as `:predict` does; teaching moves the bar of the label; forgetting restores every bit."""
    names = sorted(path.parent.parent.name for path in SHIPPED.glob("*/*/model.json"))
    with visiting(browser, console.url) as page:
        is_settled(page)
        for name in names:
            page.locator("#model").select_option(name)
            expect(page).to_have_title(f"{name} · Softstep")
            is_settled(page)
            if page.locator("#pad").count():
                draw(page, THREE)
            before, row = known(page, PROBABILITIES), known(page, "S.answer.row")
            path = f"{console.url}/v1/models/{name}"
            assert httpx.post(f"{path}:predict", json={"instances": [row]}).json()["predictions"] == [before], name
            expect(page.locator(".bar")).to_have_count(len(before))
            label = int(np.argmin(before))
            if known(page, "S.meta.head") == "multilabel":
                page.locator("#bars").get_by_role("checkbox").nth(label).check()
                page.get_by_role("button", name="The checked labels are right").click()
            else:
                page.locator(".bar button").nth(label).click()
            expect(page.locator("#said")).to_contain_text("Learned as event 1.")
            bar = page.locator(".bar").nth(label)
            expect(bar.locator(".track b")).to_be_visible()  # the mark of before
            taught = known(page, PROBABILITIES)
            assert taught[label] > before[label], name
            expect(bar.locator(".value")).to_have_text(re.compile(r"\d\s%$"))
            page.get_by_role("button", name="Forget it again").click()
            expect(page.locator("#said")).to_contain_text("Forgotten as event 2")
            assert known(page, PROBABILITIES) == before, name


def test_a_new_class_gets_a_bar(console: Service, browser: Browser) -> None:
    """A class that is added while the page is open is shown without a reload, taught, and counted as a mistake."""
    with visiting(browser, f"{console.url}/#digits") as page:
        is_settled(page)
        draw(page, THREE)
        added = httpx.post(f"{console.url}/v1/models/digits:classes?wait=true", json={"id": "more", "add": ["ten"]})
        added.raise_for_status()
        button = page.get_by_role("button", name="it is this: ten")
        expect(button).to_be_visible(timeout=30_000)
        is_settled(page)
        expect(page.locator(".bar")).to_have_count(11)
        before = known(page, PROBABILITIES)
        button.click()
        expect(page.locator("#said")).to_contain_text(re.compile(r"Learned as event \d+\. ten: .* → "))
        assert known(page, PROBABILITIES)[10] > before[10]
        expect(page.locator(".confusion tbody tr")).to_have_count(11)
        expect(page.locator("#commonest")).to_contain_text("ten taken for")


def test_a_thousand_classes_stay_usable(console: Service, browser: Browser) -> None:
    """The most probable classes have bars, any other is taught by its name, and nothing is wider than a phone."""
    with visiting(browser, f"{console.url}/#wide", viewport=NARROW) as page:
        is_settled(page)
        expect(page.locator(".bar")).to_have_count(12)
        before = known(page, PROBABILITIES)
        label = int(np.argmin(before))
        other = page.get_by_label("Another class")
        other.fill("none")
        other.press("Enter")
        expect(page.locator("#said")).to_have_text("This model has no such class.")
        other.fill(f"c{label}")
        other.press("Enter")
        expect(page.locator("#said")).to_contain_text(f"Learned as event 1. c{label}: ")
        assert known(page, PROBABILITIES)[label] > before[label]
        expect(page.locator("#confusion")).to_contain_text("Mistakes are counted for models of up to 32 classes.")
        assert page.evaluate(OVERFLOW) == 0


def test_the_commonest_mistakes_are_listed(console: Service, browser: Browser) -> None:
    """A model with more classes than a table shows has a list of its commonest mistakes, in their order."""
    path = f"{console.url}/v1/models/letters"
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((300, 3)).round(3).tolist()
    answers = httpx.post(f"{path}:predict", json={"instances": rows}).json()["labels"]
    labels = [answers[0], *(chr(97 + k) for k in rng.integers(0, LETTERS, 299))]
    counts: dict[tuple[str, str], int] = {}
    for label, answer in zip(labels, answers, strict=True):
        counts[label, answer] = counts.get((label, answer), 0) + (label != answer)
    expected = [
        f"{label} taken for {answer}, {n} time{'s' if n > 1 else ''}"
        for (label, answer), n in sorted(counts.items(), key=lambda cell: (-cell[1], cell[0]))
    ][:MISTAKES]
    httpx.post(f"{path}:feedback?wait=true", json={"instances": rows, "labels": labels}).raise_for_status()
    with visiting(browser, f"{console.url}/#letters") as page:
        is_settled(page)
        expect(page.locator("#confusion li")).to_have_text(expected)

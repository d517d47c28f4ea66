"""What the page shows of a stream: counts that the test makes itself, states of the past, and all numbers as tables."""

from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, expect
from safetensors.numpy import load
from sklearn.datasets import load_iris

from tests.support.console_page import check_accessibility, hold, is_settled, known, visiting, wait_for_calls
from tests.support.running_service import Service
from tests.support.waiting import wait_until

EVENTS = 90
# Of each ten labels, one is wrong.
WRONG = 10
# The sum of layout shifts, each the share of the window that moved times how far; and the most that is good.
SHIFTS = """new Promise(done => {
    const add = list => done(list.getEntries().reduce((sum, { value }) => sum + value, 0));
    new PerformanceObserver(add).observe({ type: "layout-shift", buffered: true });
    setTimeout(done, 500, 0);
})"""
SHIFT_MAX = 0.05
CLASSES = ["setosa", "versicolor", "virginica"]


class Taught(NamedTuple):
    """What the test sent, and how the model answered before it learned."""

    rows: list[list[float]]
    labels: list[int]
    answers: list[int]

    @property
    def right(self) -> int:
        """How many answers were right."""
        return sum(a == b for a, b in zip(self.labels, self.answers, strict=True))


@pytest.fixture(scope="module")
def taught(console: Service) -> Taught:
    """Iris after some events of one row, a rollback, a new class, and a pause that ends."""
    data = load_iris()
    order = np.random.default_rng(3).permutation(len(data.data))[:EVENTS]
    rows = data.data[order].tolist()
    labels = [int(label + (i % WRONG == 0)) % 3 for i, label in enumerate(data.target[order])]
    path, answers = f"{console.url}/v1/models/iris", []
    with httpx.Client(timeout=30) as client:

        def post(end: str, **body: Any) -> Any:
            return client.post(path + end, json=body).raise_for_status().json()

        seq = 0
        for i, (row, label) in enumerate(zip(rows, labels, strict=True)):
            answer = post(":predict", instances=[row], min_seq=seq)["labels"][0]
            answers.append(CLASSES.index(answer))
            seq = post(":feedback", id=f"row-{i}", instances=[row], labels=[label])["seq"]
        post(":rollback?wait=true", id="back", seq=EVENTS - 10)
        post(":classes?wait=true", id="more", add=["<b>new</b>"])
        post(":configure?wait=true", id="stop", paused=True)
        post(":configure?wait=true", id="go", paused=False)
    return Taught(rows, labels, answers)


def test_the_page_agrees_with_counts_of_the_test(console: Service, browser: Browser, taught: Taught) -> None:
    """Headline, confusion, lanes and flags say what the test counted and did."""
    with visiting(browser, f"{console.url}/#iris") as page:
        is_settled(page)
        share = f"{100 * taught.right / EVENTS:.1f} %"
        expect(page.locator("#headline")).to_contain_text(f"iris is right {share} of the time")
        expect(page.locator("#flags button")).to_have_text(
            ["rolled back to 80", "+ class <b>new</b>", "paused", "went on"]
        )
        expect(page.locator(".layer .undone").first).to_be_attached()
        confusion = page.locator(".confusion tbody tr").evaluate_all(
            "rows => rows.map(row => [...row.querySelectorAll('td:not(.recall)')].map(cell => +cell.textContent))"
        )
        counted = np.zeros((4, 4), int)
        np.add.at(counted, (taught.labels, taught.answers), 1)
        assert confusion == counted.tolist()
        page.get_by_role("button", name="Table").click()
        tables = page.locator("#tables table")
        expect(tables).to_have_count(4)
        cells = tables.nth(1).locator("tbody td").all_text_contents()
        lanes = np.array([cell.split(" of ") for cell in cells], int).reshape(-1, 4, 2)
        found, labeled = lanes.sum(axis=0).T
        assert labeled.tolist() == counted.sum(axis=1).tolist()
        assert found.tolist() == counted.diagonal().tolist()


def fold(service: Service, seq: int) -> dict[str, Any]:
    """Return the tensors of a state of the past, once they are folded."""
    answers: list[httpx.Response] = []

    def is_folded() -> bool:
        answers.append(httpx.get(f"{service.url}/v1/models/iris/weights", params={"seq": seq}).raise_for_status())
        return answers[-1].status_code == httpx.codes.OK

    wait_until(is_folded)
    return dict(load(answers[-1].content))


@pytest.mark.usefixtures("taught")
def test_the_playhead_shows_a_state_of_the_past(console: Service, browser: Browser) -> None:
    """At event n the answer is that of the weights of event n; teaching is off until the reader is back at now."""
    seq = 40
    with visiting(browser, f"{console.url}/#iris@{seq}") as page:
        is_settled(page)
        page.locator("#at", has_text=f"after event {seq}").wait_for()
        expect(page.locator("#said")).to_have_text("Go back to now to teach.")
        expect(page.locator(".bar button:disabled")).to_have_count(len(CLASSES))
        expect(page.locator("#headline")).to_contain_text("iris was right")
        row, shown = known(page, "S.row"), known(page, "S.answer.probabilities")
        weights = fold(console, seq)
        spread = (np.array(row) - weights["delta.mean"]) / weights["delta.scale"]
        logits = np.array(row) @ weights["weights"] + spread @ weights["delta.weights"] + weights["bias"]
        expected = np.exp(logits - logits.max())
        assert np.allclose(shown, expected / expected.sum(), atol=1e-5)
        body = {"instances": [row], "seq": seq}
        explained = httpx.post(f"{console.url}/v1/models/iris:explain", json=body).raise_for_status().json()
        assert shown == explained["explanations"][0]["probabilities"]
        page.locator("#playhead").focus()
        page.keyboard.press("ArrowLeft")
        page.locator("#at", has_text=f"after event {seq - 1}").wait_for()
        assert page.evaluate("location.hash") == f"#iris@{seq - 1}"
        page.get_by_role("button", name="Back to now").click()
        expect(page.locator("#said")).to_have_text("")
        expect(page.locator(".bar button:disabled")).to_have_count(0)
        expect(page.locator(".bar button:enabled")).to_have_count(len(known(page, "S.meta.classes")))
        assert page.evaluate("location.hash") == "#iris"


@pytest.mark.usefixtures("taught")
def test_only_an_answer_of_now_is_taught(console: Service, browser: Browser) -> None:
    """Teaching is off from the moment the playhead leaves now until the answer of now is shown again."""
    on, off = (f".bar button:{state}" for state in ("enabled", "disabled"))
    with visiting(browser, f"{console.url}/#iris") as page:
        is_settled(page)
        expect(page.locator(on)).to_have_count(4)
        held = hold(page, "**:explain")
        page.locator("#playhead").focus()
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#said")).to_have_text("Go back to now to teach.")
        expect(page.locator(off)).to_have_count(4)
        wait_for_calls(page, held, 1)
        held[0].continue_()
        is_settled(page)
        page.get_by_role("button", name="Back to now").click()
        wait_for_calls(page, held, 2)
        expect(page.locator("#said")).to_have_text("Go back to now to teach.")
        expect(page.locator(off)).to_have_count(4)
        held[1].continue_()
        expect(page.locator("#said")).to_have_text("")
        expect(page.locator(on)).to_have_count(4)


@pytest.mark.usefixtures("taught")
def test_a_lost_answer_of_the_past_is_asked_for_again(console: Service, browser: Browser) -> None:
    """If the service did not answer, the page asks again by itself, and shows the state that the reader chose."""
    with visiting(browser, f"{console.url}/#iris") as page:
        is_settled(page)
        held = hold(page, "**:explain")
        page.locator("#playhead").focus()
        page.keyboard.press("Home")
        wait_for_calls(page, held, 1)
        held[0].abort()
        wait_for_calls(page, held, 2)
        held[1].continue_()
        expect(page.locator(".bar")).to_have_count(3)
        assert known(page, "S.answer.head") == 0
        expect(page.locator("#tiles dd").first).to_have_text("0")
        expect(page.locator("#status")).to_have_text("Live")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.usefixtures("taught")
def test_now_and_past_are_accessible_and_do_not_jump(console: Service, browser: Browser, scheme: Any) -> None:
    """Axe-core finds nothing in a page with all its charts; the layout hardly moves while it loads."""
    with visiting(browser, f"{console.url}/#iris", color_scheme=scheme) as page:
        is_settled(page)
        page.locator(".list").wait_for()
        assert page.evaluate(SHIFTS) <= SHIFT_MAX
        check_accessibility(page)
        page.get_by_role("button", name="Table").click()
        page.locator("#playhead").focus()
        page.keyboard.press("ArrowLeft")
        page.get_by_role("button", name="Back to now").wait_for()
        check_accessibility(page)
        page.set_viewport_size({"width": 400, "height": 900})
        check_accessibility(page)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") == 0


def test_a_selection_zooms_every_chart(console: Service, browser: Browser, taught: Taught) -> None:
    """Dragging along a strip zooms into its events; the readout follows the mouse; a double click shows all."""
    with visiting(browser, f"{console.url}/#iris") as page:
        is_settled(page)
        box = page.locator("#loss").bounding_box()
        assert box is not None
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + 300, middle)
        expect(page.locator("#readout")).to_contain_text("loss")
        page.mouse.down()
        page.mouse.move(box["x"] + 700, middle, steps=3)
        page.mouse.up()
        show_all = page.get_by_role("button", name="Show all")
        expect(show_all).to_be_visible()
        limits = page.evaluate(
            "[document.getElementById('playhead').min, document.getElementById('playhead').max].map(Number)"
        )
        assert 0 < limits[0] < limits[1] < len(taught.rows)
        page.mouse.dblclick(box["x"] + 500, middle)
        expect(show_all).to_be_hidden()


@pytest.mark.usefixtures("taught")
def test_the_mouse_may_leave_a_model_that_was_left(console: Service, browser: Browser) -> None:
    """The charts of a model that was left do nothing until those of the next one are there."""
    with visiting(browser, f"{console.url}/#iris") as page:
        is_settled(page)
        page.locator("#loss").hover()
        held = hold(page, "**/v1/models/segment")
        page.locator("#model").select_option("segment")
        wait_for_calls(page, held, 1)
        page.mouse.move(1, 1)
        held[0].continue_()
        expect(page).to_have_title("segment · Softstep")
        is_settled(page)

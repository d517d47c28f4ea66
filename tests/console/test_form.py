"""A model with fields: its row is put in by a form, and sent, taught, explained and copied as an object."""

import json
import shlex
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.console_page import check_accessibility, is_settled, known, visiting
from tests.support.running_service import Service
from tests.support.shared_values import VALUE_NAMES
from tests.support.waiting import wait_until

OVERFLOW = "document.documentElement.scrollWidth - innerWidth"
START = {"age": 40, "country": "DE", "member": False, "subject": "", "basket": [], "picture": [0, 0, 0]}
FILLED = {"age": 51.5, "country": 7, "member": True, "subject": "late Refund", "basket": ["tea", "milk"]}


def test_the_form_makes_an_object(console: Service, browser: Browser) -> None:
    """Each control sets the value of its field, and `:predict` answers the row as the page does."""
    with visiting(browser, f"{console.url}/#form") as page:
        is_settled(page)
        expect(page.locator("img")).to_have_count(0)
        names = [field["name"] for field in known(page, "S.meta.fields")]
        assert page.locator(".field > label:first-child").all_text_contents() == names
        assert known(page, "S.row") == {**START, names[-1]: 0}
        control(page, "age").fill("51.5")
        control(page, "country").select_option("7")
        control(page, "member").check()
        control(page, "subject").fill("late Refund")
        control(page, "basket").fill("tea\nmilk")
        control(page, "picture").fill("[1, -2; 0.5]")
        control(page, names[-1]).fill("2")
        row = {**FILLED, "picture": [1, -2, 0.5], names[-1]: 2}
        assert answered(page) == row
        sent = httpx.post(f"{console.url}/v1/models/form:predict", json={"instances": [row]}).json()
        assert sent["predictions"] == [known(page, "S.answer.probabilities")]
        page.get_by_label("Slider of age").focus()
        page.keyboard.press("Home")
        assert answered(page)["age"] == 10
        page.get_by_role("button", name="Clear").click()
        assert answered(page) == {**START, names[-1]: 0}


def test_fields_of_one_value_have_one_control(console: Service, browser: Browser) -> None:
    """It is of the kind that is no category, and the row has the name of the value."""
    with visiting(browser, f"{console.url}/#shared") as page:
        is_settled(page)
        assert page.locator(".field > label:first-child").all_text_contents() == VALUE_NAMES
        row = {"age": 30, "note": "a late refund", "basket": ["tea"], "picture": [1, 2], "member": True}
        control(page, "age").fill("30")
        control(page, "note").fill("a late refund")
        control(page, "basket").fill("tea")
        control(page, "picture").fill("1, 2")
        control(page, "member").check()
        assert answered(page) == row
        sent = httpx.post(f"{console.url}/v1/models/shared:predict", json={"instances": [row]}).json()
        assert sent["predictions"] == [known(page, "S.answer.probabilities")]
        page.get_by_label("missing: note").check()
        assert answered(page)["note"] is None


def test_a_missing_value_is_null(console: Service, browser: Browser) -> None:
    """The box sends null, an edit ends that, and a field that must be given has no box."""
    with visiting(browser, f"{console.url}/#form") as page:
        is_settled(page)
        for name in ("age", "country", "member", "subject", "basket"):
            page.get_by_label(f"missing: {name}").check()
            assert answered(page)[name] is None
        expect(page.get_by_label("missing: picture")).to_have_count(0)
        control(page, "subject").fill("late")
        expect(page.get_by_label("missing: subject")).not_to_be_checked()
        control(page, "age").fill("30")
        control(page, "age").fill("")
        expect(page.get_by_label("missing: age")).to_be_checked()
        page.get_by_label("missing: country").uncheck()
        row = answered(page)
        assert {name: row[name] for name in START} == {
            **START, "age": None, "member": None, "subject": "late", "basket": None,
        }  # fmt: skip


def test_a_refused_row_has_no_answer(console: Service, browser: Browser) -> None:
    """The page shows the service's sentence, and no bars of another row."""
    with visiting(browser, f"{console.url}/#form") as page:
        is_settled(page)
        control(page, "picture").fill("1, x, 3")
        expect(page.locator("#said")).to_contain_text('Row 0: "picture" must be')
        expect(page.locator("#bars")).to_have_text("No answer.")
        control(page, "picture").fill("1, 2, 3")
        expect(page.locator(".bar")).to_have_count(3)


def test_it_is_taught_and_explained_by_columns(console: Service, browser: Browser) -> None:
    """Reasons are the columns that the row has, by their names; teaching and forgetting work as for numbers."""
    with visiting(browser, f"{console.url}/#form") as page:
        is_settled(page)
        control(page, "country").select_option("PT")
        control(page, "subject").fill("refund")
        answered(page)
        expect(page.locator(".effects .name")).to_have_count(2)
        assert set(page.locator(".effects .name").all_text_contents()) == {"country=PT", "subject: refund"}
        before = known(page, "S.answer.probabilities")
        page.get_by_role("button", name="it is this: b").click()
        expect(page.locator("#said")).to_contain_text("Learned as event 1. b: ")
        assert known(page, "S.answer.probabilities")[1] > before[1]
        expect(page.locator("#since")).to_be_visible()
        page.get_by_role("button", name="Forget it again").click()
        expect(page.locator("#said")).to_contain_text("Forgotten as event 2")
        assert known(page, "S.answer.probabilities") == before


def test_sparse_rows_are_answered_and_taught(console: Service, browser: Browser) -> None:
    """A model with hashed columns has bars, is taught, and is explained by what the row holds, also as of the past."""
    with visiting(browser, f"{console.url}/#sparse") as page:
        is_settled(page)
        control(page, "city").fill("Porto")
        control(page, "tags").fill("new")
        row, before = answered(page), known(page, "S.answer.probabilities")
        assert (row["city"], row["tags"]) == ("Porto", ["new"])
        assert "country and age" not in row, "a cross has no value"
        names = page.locator(".effects .name")
        expect(names.filter(has_text="city=Porto")).to_have_count(1)
        top = [one["feature"] for one in known(page, "S.answer.top")]
        assert {"city=Porto", "tags: new"} <= set(top)
        assert set(names.all_text_contents()) <= set(top)
        page.get_by_role("button", name="it is this: b").click()
        expect(page.locator("#said")).to_contain_text("Learned as event 1. b: ")
        assert known(page, "S.answer.probabilities")[1] > before[1]
    with visiting(browser, f"{console.url}/#sparse@0") as page:
        is_settled(page)
        control(page, "city").fill("Porto")
        answered(page)
        assert known(page, "S.answer.head") == 0
        expect(page.locator(".effects .name").filter(has_text="city=Porto")).to_have_count(1)


def test_the_drift_is_that_of_fields(console: Service, browser: Browser) -> None:
    """The strip has a lane for each number, and for the missing and unknown values of a field; the table has all."""
    for row in ({"age": 55, "country": "DE"}, {"country": "FR"}):
        event = {"instances": [row], "labels": ["a"]}
        httpx.post(f"{console.url}/v1/models/gaps:feedback?wait=true", json=event).raise_for_status()
    wait_until(lambda: httpx.get(f"{console.url}/v1/models/gaps/drift").json()["until"] == 2)
    with visiting(browser, f"{console.url}/#gaps") as page:
        is_settled(page)
        drift = known(page, "S.drift")
        assert (drift["names"], drift["shift"]) == (["age"], [[1.5], [0]])
        assert drift["missing"] == {"names": ["age"], "shares": [[0], [1]]}
        assert drift["unknown"] == {"names": ["country"], "shares": [[0], [1]]}
        strip = page.locator("#drift")
        expect(strip).to_be_visible()
        size = strip.bounding_box()
        assert size is not None
        for x, lane, text in (
            (0.25, 0, "age +1.5 spreads"),
            (0.75, 1, "age missing in 100"),
            (0.75, 2, "country unknown"),
        ):
            strip.hover(position={"x": x * size["width"], "y": (lane + 0.5) / 3 * size["height"]})
            expect(page.locator("#readout")).to_contain_text(text)
        page.get_by_role("button", name="Table").click()
        for caption in ("Feature shift from training", "value is missing, by field", "value is unknown, by field"):
            expect(page.locator("#tables caption").filter(has_text=caption)).to_have_count(1)


def test_a_row_is_pasted_and_copied(console: Service, browser: Browser) -> None:
    """A JSON object fills the form, also with what no control offers; the command's quotes are those of a shell."""
    with visiting(browser, f"{console.url}/#form") as page:
        is_settled(page)
        for text, reason in (("age: 3", "That is not JSON."), ("[1, 2]", "A row of this model is a JSON object.")):
            paste(page, text)
            expect(page.locator("#row-error")).to_have_text(reason)
            page.get_by_role("button", name="Cancel").click()
        pasted: dict[str, Any] = {
            "age": 999, "country": "FR", "subject": "it's <b>", "basket": {"milk": 2.5}, "picture": [1, 2, 3],
        }  # fmt: skip
        paste(page, json.dumps(pasted))
        row = answered(page)
        assert {name: value for name, value in row.items() if value is not None} == pasted
        assert control(page, "country").evaluate("choice => choice.value") == "FR"
        assert control(page, "basket").input_value() == '{"milk":2.5}'
        page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
        page.get_by_role("button", name="Copy as curl").click()
        expect(page.locator("#said")).to_contain_text("curl -s")
        command = shlex.split(page.locator("#said").text_content() or "")
        assert command[:4] == ["curl", "-s", f"{console.url}/v1/models/form:predict", "-d"]
        assert json.loads(command[4]) == {"instances": [row]}
        paste(page, '{"no such field": 1, "picture": [1, 2, 3]}')
        expect(page.locator("#said")).to_contain_text("Row 0")  # it is not dropped in silence


@pytest.mark.parametrize(("scheme", "width"), [("light", 1360), ("dark", 400)])
def test_the_form_is_accessible(console: Service, browser: Browser, scheme: Any, width: int) -> None:
    """Axe-core finds nothing, with and without missing values, and nothing is wider than the page."""
    size = {"width": width, "height": 900}
    with visiting(browser, f"{console.url}/#form", viewport=size, color_scheme=scheme) as page:
        is_settled(page)
        check_accessibility(page)
        page.get_by_label("missing: age").check()
        answered(page)
        check_accessibility(page)
        assert page.evaluate(OVERFLOW) == 0


def control(page: Page, name: str) -> Any:
    """Return the control of a field."""
    return page.get_by_label(name, exact=True)


def answered(page: Page) -> Any:
    """Wait for the answer to the row of the form, and return the row."""
    is_settled(page)
    return known(page, "S.answer.row")


def paste(page: Page, text: str) -> None:
    """Paste a row."""
    page.get_by_role("button", name="Paste row").click()
    page.locator("#row-text").fill(text)
    page.get_by_role("button", name="Use it").click()

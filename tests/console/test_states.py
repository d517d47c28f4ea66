"""The states of the page: keys, no model, no answer, no learning, names of every kind, and every width."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from service.access.scopes import Scope
from tests.support.api_keys import add_key
from tests.support.console_page import (
    THREE,
    check_accessibility,
    draw,
    hold,
    is_settled,
    known,
    visiting,
    wait_for_calls,
)
from tests.support.running_service import Service, serving

NARROW = {"width": 400, "height": 800}
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1360), ("dark", 400)])
def test_the_page_is_accessible(console: Service, browser: Browser, scheme: Any, width: int) -> None:
    """Axe-core finds nothing in both themes and widths, in the dialog neither, and nothing is wider than the page."""
    with visiting(
        browser, f"{console.url}/#digits", viewport={"width": width, "height": 900}, color_scheme=scheme
    ) as page:
        is_settled(page)
        draw(page, THREE)
        check_accessibility(page)
        page.get_by_role("button", name="Paste row").click()
        check_accessibility(page)
        assert page.evaluate(OVERFLOW) == 0


def test_every_model_fits_a_phone(console: Service, browser: Browser) -> None:
    """Each model is shown without an overflow, also one of a thousand classes."""
    with visiting(browser, f"{console.url}/", viewport=NARROW) as page:
        is_settled(page)
        for name in page.locator("#model option").evaluate_all("options => options.map(({ value }) => value)"):
            page.locator("#model").select_option(name)
            expect(page).to_have_title(f"{name} · Softstep")
            is_settled(page)
            expect(page.locator("#headline")).to_contain_text(name)
            expect(page.locator("#since")).to_be_hidden()  # nothing was learned
            assert page.evaluate(OVERFLOW) == 0, name
        page.route("**/pulse*", lambda route: route.abort())
        expect(page.locator("#status")).to_contain_text("trying again")
        assert page.evaluate(OVERFLOW) == 0


def test_the_model_that_was_chosen_last_is_shown(console: Service, browser: Browser) -> None:
    """An answer about a model that the reader has left changes nothing, however late it comes."""
    with visiting(browser, f"{console.url}/#digits") as page:
        is_settled(page)
        held = hold(page, "**/v1/models/iris")
        page.locator("#model").select_option("iris")
        wait_for_calls(page, held, 1)
        page.locator("#model").select_option("segment")
        expect(page.locator("#headline")).to_contain_text("segment")
        is_settled(page)
        with page.expect_response("**/v1/models/iris"):
            held[0].continue_()
        with page.expect_response("**/v1/models/segment/pulse*"):
            pass
        assert known(page, "[S.name, S.meta.name, S.input.kind]") == ["segment", "segment", "sliders"]
        expect(page.locator("#headline")).to_contain_text("segment")


def test_hostile_names_are_text(console: Service, browser: Browser) -> None:
    """Markup in names of classes, features and provenance is shown as text, in a layout that holds."""
    with visiting(browser, f"{console.url}/#hostile") as page:
        is_settled(page)
        expect(page.locator("img")).to_have_count(0)
        names = page.locator(".bar .name").all_text_contents()
        assert names == known(page, "S.meta.classes")
        assert names[0] == "<img src=x onerror=alert(1)>"
        assert page.evaluate(OVERFLOW) == 0


def test_a_first_model_appears(console: Service, browser: Browser) -> None:
    """Without a model the page says which files go where; it shows the first one as soon as it is served."""

    def prepare(page: Page) -> None:
        page.route("**/v1/models", lambda route: route.fulfill(json={"models": []}))

    with visiting(browser, f"{console.url}/#iris", prepare) as page:
        expect(page.locator("#headline")).to_have_text("No model is served yet.")
        expect(page.locator("#subline")).to_contain_text("model.json and model.safetensors")
        page.unroute("**/v1/models")
        expect(page.locator("#headline")).to_contain_text("iris is as it was trained")


@pytest.mark.parametrize("cause", ["learning is off", "its data directory cannot be written"])
def test_a_service_that_does_not_learn_says_so(browser: Browser, iris_models: Path, tmp_path: Path, cause: str) -> None:
    """Without learning there is no teaching, and the banner gives the reason."""
    learn = cause != "learning is off"
    if learn:
        (tmp_path / "data").touch()  # a file in place of the directory: also root cannot write there
    with serving(iris_models, tmp_path, SOFTSTEP_LEARN=learn) as running, visiting(browser, running.url) as page:
        is_settled(page)
        expect(page.locator("#banner")).to_contain_text("This service does not learn")
        expect(page.locator("#said")).to_contain_text("This service does not learn")
        expect(page.locator(".bar button:disabled")).to_have_count(3)


def use_key(page: Page, key: str) -> None:
    """Open the page again with another key."""
    page.evaluate("key => sessionStorage.setItem('softstep-key', key)", key)
    page.reload()
    is_settled(page)


def test_keys_are_asked_for_and_their_scopes_obeyed(browser: Browser, iris_models: Path, tmp_path: Path) -> None:
    """The page asks for a key, keeps it out of addresses, and disables what its scopes do not allow."""
    file = tmp_path / "keys.json"
    key, teacher, admin = (add_key(file, *scopes) for scopes in ([Scope.PREDICT], [Scope.PREDICT, Scope.FEEDBACK], []))
    with serving(iris_models, tmp_path, SOFTSTEP_KEYS_FILE=file) as running, visiting(browser, running.url) as page:
        page.locator("#login[open]").wait_for()
        check_accessibility(page)
        page.locator("#key").fill("softstep_wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#key-error")).to_have_text("This service does not know that key.")
        page.locator("#key").fill(key)
        page.keyboard.press("Enter")
        is_settled(page)
        expect(page.locator(".bar button:disabled")).to_have_count(3)
        expect(page.locator("#said")).to_have_text("This key does not have the scope feedback.")
        expect(page.locator("#events")).to_contain_text("This key does not have the scope admin.")
        assert page.evaluate("Object.values(sessionStorage)") == [key]
        assert key not in page.evaluate("JSON.stringify(localStorage) + location + document.body.innerText")
        use_key(page, teacher)
        page.get_by_role("button", name="it is this: setosa").click()
        expect(page.locator("#said")).to_contain_text("Learned as event 1.")
        expect(page.get_by_role("button", name="Forget it again")).to_have_count(0)
        use_key(page, admin)
        expect(page.locator("#events tbody tr")).to_have_count(1)
        page.get_by_role("button", name="it is this: setosa").click()
        page.get_by_role("button", name="Forget it again").click()
        expect(page.locator("#said")).to_contain_text("Forgotten as event 3")
        expect(page.locator("#flags button")).to_have_text(["forgot 1"])


def test_it_works_behind_a_prefix(console: Service, browser: Browser) -> None:
    """Every path is relative, so a proxy may put the service below a path of its own."""
    prefix = "/behind/a/proxy"

    def prepare(page: Page) -> None:
        page.route(f"**{prefix}/**", lambda route: route.continue_(url=route.request.url.replace(prefix, "", 1)))

    paths = set()
    with visiting(browser, f"{console.url}{prefix}/#iris", prepare) as page:
        page.on("request", lambda request: paths.add(request.url.removeprefix(console.url)))
        is_settled(page)
        page.locator("#model").select_option("segment")
        expect(page.locator("#headline")).to_contain_text("segment")
    assert paths
    assert [path for path in paths if not path.startswith(prefix)] == []


def test_a_log_that_cannot_be_read_is_reported(console: Service, browser: Browser) -> None:
    """The page says that predictions go on and feedback does not."""

    def change(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "learner": {"state": "unavailable"}})

    with visiting(browser, f"{console.url}/#iris", lambda page: page.route("**/iris/pulse*", change)) as page:
        is_settled(page)
        expect(page.locator("#status")).to_have_text("No log")
        expect(page.locator("#banner")).to_contain_text("cannot be read")


def test_the_page_waits_in_its_layout(console: Service, browser: Browser) -> None:
    """Before the first answer the page says that it connects; what comes then hardly moves the layout."""
    held: list[Route] = []

    def prepare(page: Page) -> None:
        held.extend(hold(page, "**/v1/key"))

    with visiting(browser, f"{console.url}/#iris", prepare) as page:
        expect(page.locator("#status")).to_have_text("Connecting")
        expect(page.locator("#headline")).to_have_text("Connecting")
        page.unroute_all()


@pytest.mark.parametrize("origin", ["same", "other"])
def test_only_pages_of_the_service_may_teach(console: Service, browser: Browser, other_site: str, origin: str) -> None:
    """A page of another site is open in the same browser, and what it posts changes nothing."""
    path = f"{console.url}/v1/models/digits"
    before = httpx.get(path).json()["log_seq"]
    page = browser.new_page()
    page.goto({"same": console.url, "other": other_site}[origin])
    body = json.dumps({"instances": [[0] * 64], "labels": [0]})
    with page.expect_response(f"{path}:feedback") as answer:
        page.evaluate(
            "([path, body]) => fetch(path, { method: 'POST', mode: 'no-cors', body }).then(() => 0, () => 0)",
            [f"{path}:feedback", body],
        )
    page.close()
    assert answer.value.status == {"same": 202, "other": 403}[origin]
    assert httpx.get(path).json()["log_seq"] == before + {"same": 1, "other": 0}[origin]

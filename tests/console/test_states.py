"""The states of the page: keys, no model, no answer, no learning, names of every kind, and every width."""

import json
import re
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

PAUSED = {"rule": "newton", "paused": True, "shadow": False}
SHADOW = {"rule": "newton", "paused": False, "shadow": True}

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
            assert page.evaluate(OVERFLOW) == 0, name


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


def test_a_service_that_does_not_learn_says_so(browser: Browser, iris_models: Path, tmp_path: Path) -> None:
    """Without learning there is no teaching, and the banner gives the reason."""
    with serving(iris_models, tmp_path, SOFTSTEP_LEARN="false") as running, visiting(browser, running.url) as page:
        is_settled(page)
        expect(page.locator("#banner")).to_contain_text("This service does not learn")
        expect(page.locator("#said")).to_contain_text("This service does not learn")
        expect(page.locator(".bar button:disabled")).to_have_count(3)


def test_keys_are_asked_for_and_their_scopes_obeyed(browser: Browser, iris_models: Path, tmp_path: Path) -> None:
    """The page asks for a key, keeps it out of addresses, and disables what its scopes do not allow."""
    file = tmp_path / "keys.json"
    key = add_key(file, Scope.PREDICT)
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


def test_a_forgotten_state_is_gone(console: Service, browser: Browser) -> None:
    """A state that is being folded is waited for; one that held a forgotten event is gone, and the page says so."""
    row = [0.5] * httpx.get(f"{console.url}/v1/models/phishing").json()["n_features"]
    for number in (1, 2):
        body = {"id": f"row-{number}", "instances": [row], "labels": [0]}
        httpx.post(f"{console.url}/v1/models/phishing:feedback?wait=true", json=body).raise_for_status()
    answers = [202]

    def answer(route: Route) -> None:
        if b'"seq"' in (route.request.post_data_buffer or b""):
            body = {"error": "It is gone.", "code": "state_forgotten"}
            route.fulfill(status=answers[-1], headers={"Retry-After": "1"}, json=body)
        else:
            route.continue_()

    with visiting(browser, f"{console.url}/#phishing@1", lambda page: page.route("**:explain", answer)) as page:
        expect(page.locator("#said")).to_have_text("Folding event 1…")
        answers.append(410)
        expect(page.locator("#said")).to_have_text("Gone: it held a forgotten event.")


def test_silence_dims_the_page_and_ends(console: Service, browser: Browser) -> None:
    """Without answers the page says for how long, and dims; with the first answer it is as before."""
    with visiting(browser, f"{console.url}/#iris") as page:
        is_settled(page)
        shown = page.locator("#headline").inner_text()
        page.route("**/v1/**", lambda route: route.abort())
        expect(page.locator("#status")).to_contain_text("trying again")
        page.locator("body.stale").wait_for()
        expect(page.locator("#headline")).to_have_text(shown)
        page.unroute("**/v1/**")
        expect(page.locator("#status")).to_have_text("Live")
        expect(page.locator("body.stale")).to_have_count(0)


@pytest.mark.parametrize(
    ("fields", "pill", "banner"),
    [
        ({"learner": {"state": "stalled", "seq": 7, "reason": "<b>why</b>"}}, "Stalled", "before event 7: <b>why</b>"),
        ({"learner": {"state": "held", "reason": "the disk is full"}}, "Held", "the disk is full"),
        ({"learner": {"state": "refolding", "refolded": 0.4}}, "Folding again, 40 %", "40 % done"),
        ({"learner": {"state": "unavailable"}}, "No log", "cannot be read"),
        ({"learning": PAUSED}, "Paused", "Learning is paused"),
        ({"learning": SHADOW}, "Shadow", "in the shadow"),
        ({"bound_differs": True}, "Live", "another artifact"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_state_has_its_sentence(
    console: Service, browser: Browser, fields: dict[str, Any], pill: str, banner: str
) -> None:
    """The pill names the state, and the banner says what it means."""

    def change(route: Route) -> None:
        answer = route.fetch()
        known = {name: value for name, value in fields.items() if name in answer.json()}
        route.fulfill(response=answer, body=json.dumps({**answer.json(), **known}))

    def prepare(page: Page) -> None:
        page.route(re.compile("/v1/models/iris(/pulse.*)?$"), change)

    with visiting(browser, f"{console.url}/#iris", prepare) as page:
        is_settled(page)
        expect(page.locator("#status")).to_have_text(pill)
        expect(page.locator("#banner")).to_contain_text(banner)

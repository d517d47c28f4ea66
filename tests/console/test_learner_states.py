"""States of the learner and of the service, each by its real cause: what the page says, and that it ends."""

import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from service.store.artifact.artifact import write_artifact
from service.store.directory.data_directory import DataDirectory
from tests.support.console_page import is_settled, known, visiting
from tests.support.data_directories import run_command
from tests.support.learning_client import data_of, metadata, post, rows_of
from tests.support.model_artifacts import make_artifact
from tests.support.paths import ROOT, SHIPPED
from tests.support.processes import children
from tests.support.running_service import Service, serving
from tests.support.waiting import wait_until

# Of one row each; the fold of the service is made to take a tenth of a second for each.
SLOW_EVENTS = 24
MORE_EVENTS = 74
PATIENCE_MS = 20_000


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose fold fails at some events, and is slow at others."""
    scratch = tmp_path_factory.mktemp("faulty")
    for name in ("iris", "segment"):
        shutil.copytree(SHIPPED / name, scratch / "models" / name)
    path = f"{ROOT / 'tests' / 'support' / 'faulty_fold'}:{ROOT}"
    with serving(scratch / "models", scratch, workers=2, PYTHONPATH=path) as running:
        yield running


def shows(page: Page, pill: str, banner: str = "") -> None:
    """Wait until the page names a state, and explains it in its banner; without a sentence there is no banner."""
    expect(page.locator("#status")).to_contain_text(pill, timeout=PATIENCE_MS)
    if banner:
        expect(page.locator("#banner")).to_contain_text(banner, timeout=PATIENCE_MS)
    else:
        expect(page.locator("#banner")).to_be_hidden()


def test_an_event_that_fails_stalls_the_learner(faulty: Service, browser: Browser) -> None:
    """The page names the event that the learner cannot pass; after a skip it is live again."""
    with visiting(browser, f"{faulty.url}/#iris") as page:
        is_settled(page)
        shows(page, "Live")
        row = known(page, "S.answer.row")
        post(faulty, "iris:feedback", {"id": "broken-1", "instances": [row], "labels": [0]})
        shows(page, "Stalled", "Learning stands still before event 1: ")
        expect(page.locator("#banner")).to_contain_text(
            "Predictions go on from event 0 and feedback is still kept: 1 event waits. "
            "An operator can leave the event out with “softstep skip”."
        )
        done = run_command("skip", "iris", 1, "--data", data_of(faulty))
        assert done.returncode == 0, done.stderr
        shows(page, "Live")
        page.get_by_role("button", name="it is this: setosa").click()
        expect(page.locator("#said")).to_contain_text("Learned as event 3")
        snapshots = DataDirectory(data_of(faulty)).stream_folder("iris", 1).snapshots
        snapshots.rename(snapshots.with_name("aside"))
        snapshots.touch()  # a file in place of the folder: no state can be written
        post(faulty, "iris:feedback", {"instances": [row], "labels": [0]})
        shows(page, "Held", "Learning waits: disk error: ")
        expect(page.locator("#banner")).to_contain_text("It goes on by itself once the cause is gone; 1 event waits.")
        snapshots.unlink()
        snapshots.with_name("aside").rename(snapshots)
        shows(page, "Live")


def test_a_forgotten_event_is_folded_out(faulty: Service, browser: Browser) -> None:
    """Forgetting shows how far the fold is; a past state is then folded while the last stays, or is gone."""
    rows = rows_of("segment", SLOW_EVENTS)
    with visiting(browser, f"{faulty.url}/#segment") as page:
        is_settled(page)
        for number, row in enumerate(rows, 1):
            post(faulty, "segment:feedback", {"id": f"slow-{number}", "instances": [row], "labels": [number % 7]})
        wait_until(lambda: metadata(faulty, "segment")["seq"] == SLOW_EVENTS, seconds=30)
        post(faulty, "segment:forget", {"id": "forget", "ids": ["slow-2"]})
        shows(page, "Folding again, ", "An event was forgotten, corrected or rolled back")
        shows(page, "Live")
    # From then on so many events that some states have no file.
    for _ in range(MORE_EVENTS):
        post(faulty, "segment:feedback", {"instances": rows[:1], "labels": [0]})
    last = SLOW_EVENTS + 1 + MORE_EVENTS
    wait_until(lambda: metadata(faulty, "segment")["seq"] == last)
    past = last - MORE_EVENTS // 2 - 1  # odd: one event of each two has a file
    with visiting(browser, f"{faulty.url}/#segment@{past}") as page:
        expect(page.locator("#said")).to_have_text(f"Folding event {past}…")
        expect(page.locator(".bar")).to_have_count(7)
        expect(page.locator("#said")).to_have_text("Go back to now to teach.", timeout=PATIENCE_MS)
        is_settled(page)
        body = {"instances": [known(page, "S.answer.row")], "seq": past}
        explained = post(faulty, "segment:explain", body).json()["explanations"][0]
        assert known(page, "S.answer.probabilities") == explained["probabilities"]
        page.goto(f"{faulty.url}/#segment@{SLOW_EVENTS}")
        expect(page.locator("#said")).to_have_text("Gone: it held a forgotten event.")
        expect(page.locator("#bars")).to_have_text("No answer.")
        page.get_by_role("button", name="Back to now").click()
        expect(page.locator(".bar button:enabled")).to_have_count(7)


def test_paused_and_shadow_are_explained(console: Service, browser: Browser) -> None:
    """What `:configure` changes is on the page as soon as it is served, and is not called learned."""
    with visiting(browser, f"{console.url}/#breast-cancer") as page:
        is_settled(page)
        for number, (field, pill, banner, said) in enumerate([
            ("paused", "Paused", "Learning is paused: feedback is kept and scored", "Kept as event"),
            ("shadow", "Shadow", "The model learns in the shadow", "Learned in the shadow as event"),
        ]):  # fmt: skip
            for is_on in (True, False):
                body: Any = {"id": f"{number}-{is_on}", field: is_on}
                post(console, "breast-cancer:configure", body, wait=True).raise_for_status()
                shows(page, *((pill, banner) if is_on else ("Live",)))
                page.locator(".bar button").first.click()
                expect(page.locator("#said")).to_contain_text(said if is_on else "Learned as event")


def test_another_artifact_than_the_bound_one_is_reported(
    console: Service, console_models: Path, browser: Browser
) -> None:
    """The page says that the files of a version that learns were replaced."""
    post(console, "letters:feedback", {"instances": [[1, 2, 3]], "labels": [0]}, wait=True).raise_for_status()
    replaced = make_artifact("softmax", 3, [chr(97 + k) for k in range(26)], seed=8)
    write_artifact(console_models / "letters" / "1", replaced, overwrite=True)
    wait_until(lambda: metadata(console, "letters")["bound_differs"])
    with visiting(browser, f"{console.url}/#letters") as page:
        is_settled(page)
        shows(page, "Live", "The models directory has another artifact than the one that learns.")


def test_a_service_that_stands_still_is_noticed(console: Service, browser: Browser) -> None:
    """While no call is answered the page says for how long, and dims; then it is as before, without a reload."""
    with visiting(browser, f"{console.url}/#iris") as page:
        is_settled(page)
        shown = page.locator("#headline").inner_text()
        stopped = [console.process.pid, *children(console.process.pid)]
        for process in stopped:
            os.kill(process, signal.SIGSTOP)
        try:
            expect(page.locator("#status")).to_have_text(
                re.compile(r"^No answer for \d+ s, trying again$"), timeout=PATIENCE_MS
            )
            page.locator("body.stale").wait_for()
            expect(page.locator("#headline")).to_have_text(shown)
        finally:
            for process in reversed(stopped):
                os.kill(process, signal.SIGCONT)
        shows(page, "Live")
        expect(page.locator("body.stale")).to_have_count(0)
        expect(page.locator("#headline")).to_have_text(shown)


@pytest.mark.parametrize("newest", ["metadata", "taught"])
def test_other_data_is_noticed_by_all_that_the_page_knows(browser: Browser, tmp_path: Path, newest: str) -> None:
    """A service with older data may be as old as the last pulse, which came before other answers of the first one."""
    models, other = tmp_path / "models", tmp_path / "other"
    shutil.copytree(SHIPPED / "iris", models / "iris")
    other.mkdir()
    with ExitStack() as page_end, ExitStack() as first_end:
        first = first_end.enter_context(serving(models, tmp_path))
        page = page_end.enter_context(visiting(browser, first.url))
        is_settled(page)
        paths = ["**/pulse*"] + (["**/v1/models/iris"] if newest == "taught" else [])
        for path, body in zip(paths, (known(page, "S.pulse"), known(page, "S.meta")), strict=False):
            page.route(path, partial(answer_with, body))
        page.get_by_role("button", name="it is this: setosa").click()
        expect(page.locator("#said")).to_contain_text("Learned as event 1.")
        if newest == "metadata":
            expect(page.locator("#headline")).to_contain_text("of the time", timeout=PATIENCE_MS)
        assert [known(page, f"S.{part}.seq") for part in ("pulse", "meta")] == [0, int(newest == "metadata")]
        first_end.close()
        page.unroute_all()
        with serving(models, other, SOFTSTEP_PORT=first.address[1]):
            wait_until(lambda: known(page, "S.taught") is None, seconds=PATIENCE_MS / 1000)
            shows(page, "Live")
            expect(page.locator("#headline")).to_contain_text("iris is as it was trained", timeout=PATIENCE_MS)
            is_settled(page)
            page.get_by_role("button", name="it is this: setosa").click()
            expect(page.locator("#said")).to_contain_text("Learned as event 1.")


def answer_with(body: Any, route: Route) -> None:
    """Answer a call of the page with a body."""
    route.fulfill(json=body)


@pytest.mark.parametrize("part", ["drift", "quality", "explain"])
def test_a_model_that_was_shown_in_part_is_shown_again(console: Service, browser: Browser, part: str) -> None:
    """A call of the first ones fails; the page goes on by itself, and each part can be used."""
    failing, call = [503, 503], re.compile(f"/models/iris[:/]{part}")

    def fail(route: Route) -> None:
        if failing:
            route.fulfill(status=failing.pop(), json={"error": "Not now."})
        else:
            route.continue_()

    with visiting(browser, f"{console.url}/#iris", lambda page: page.route(call, fail)) as page:
        is_settled(page)
        assert not failing
        shows(page, "Live")
        page.get_by_label("sepal length").first.focus()
        page.keyboard.press("Home")
        is_settled(page)
        assert known(page, "S.answer.row") == known(page, "S.row")


def test_a_restarted_service_is_found_again(browser: Browser, tmp_path: Path) -> None:
    """The page names an unloaded model and a stopped service, and goes on without a reload when they are back.

    The second service has other data, as from a backup, and a full disk. So it refuses to learn, and the page says why.
    """
    models = tmp_path / "models"
    shutil.copytree(SHIPPED / "iris", models / "iris")
    with ExitStack() as page_end, ExitStack() as first_end:
        first = first_end.enter_context(serving(models, tmp_path))
        page = page_end.enter_context(visiting(browser, first.url))
        is_settled(page)
        httpx.post(f"{first.url}/v2/repository/models/iris/unload").raise_for_status()
        expect(page.locator("#headline")).to_have_text("iris is not served.", timeout=PATIENCE_MS)
        expect(page.locator("#subline")).to_have_text("Version 1: unloaded.")
        shows(page, "Unavailable")
        httpx.post(f"{first.url}/v2/repository/models/iris/load").raise_for_status()
        expect(page.locator("#headline")).to_contain_text("iris is as it was trained", timeout=PATIENCE_MS)
        is_settled(page)
        page.get_by_role("button", name="it is this: setosa").click()
        expect(page.locator("#said")).to_contain_text("Learned as event 1.")
        first_end.close()
        expect(page.locator("#status")).to_contain_text("No answer for ", timeout=PATIENCE_MS)
        other = tmp_path / "other"
        other.mkdir()
        reserve, port = 1 << 60, first.address[1]
        with serving(models, other, SOFTSTEP_PORT=port, SOFTSTEP_DISK_RESERVE_BYTES=reserve) as second:
            shows(page, "Live")
            expect(page.locator("#headline")).to_contain_text("iris is as it was trained", timeout=PATIENCE_MS)
            is_settled(page)
            page.get_by_role("button", name="it is this: setosa").click()
            refused = post(second, "iris:feedback", {"instances": [[5, 3, 1, 0]], "labels": [0]}).json()["error"]
            expect(page.locator("#said")).to_have_text(refused)

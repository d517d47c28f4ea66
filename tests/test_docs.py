"""The documentation is true: README's commands give README's answers, and no endpoint or setting goes unnamed."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from service.serve.api.app import CALLS
from service.settings import Settings
from tests.support.pages import sessions
from tests.support.servers import Service, serving

ROOT = Path(__file__).parent.parent

README = list(sessions(ROOT / "README.md"))
EXPLAIN = list(sessions(ROOT / "docs" / "explain.md"))


@pytest.fixture(scope="module")
def fresh(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that has learned nothing yet, and is taught by README alone."""
    with serving(models, tmp_path_factory.mktemp("readme")) as running:
        yield running


@pytest.fixture(scope="module")
def untaught(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that nobody teaches."""
    with serving(models, tmp_path_factory.mktemp("untaught")) as running:
        yield running


def printed(command: str, service: Service) -> str:
    """What a page's command prints when it asks this service."""
    asked = command.replace("localhost:8000", service.url.removeprefix("http://"))
    done = subprocess.run(["sh", "-c", asked], capture_output=True, text=True, timeout=30, check=True)  # noqa: S607
    return done.stdout.strip()


@pytest.mark.parametrize(("command", "output"), README, ids=range(len(README)))
def test_readme_shows_what_the_service_answers(command: str, output: str, fresh: Service) -> None:
    """Every command in README, one after the other against the shipped models, prints what README says."""
    assert printed(command, fresh) == output.strip()


@pytest.mark.parametrize(("command", "output"), EXPLAIN, ids=range(len(EXPLAIN)))
def test_the_page_of_explanations_shows_what_the_service_answers(command: str, output: str, untaught: Service) -> None:
    """Every command in docs/explain.md prints what stands there."""
    assert printed(command, untaught) == output.strip()


def test_readme_has_commands() -> None:
    """README shows at least a prediction by each protocol and an error."""
    assert len(README) >= 9
    assert len(EXPLAIN) >= 4


def paths() -> set[str]:
    """Return the path of every documented call."""
    app = FastAPI()
    app.include_router(CALLS)
    return set(app.openapi()["paths"])


@pytest.mark.parametrize("path", sorted(paths()))
def test_every_endpoint_is_documented(path: str) -> None:
    """docs/http.md names every path."""
    assert f"{path}`" in (ROOT / "docs/http.md").read_text()


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_documented(name: str) -> None:
    """docs/settings.md names every setting by its environment variable."""
    assert f"`SOFTSTEP_{name.upper()}`" in (ROOT / "docs/settings.md").read_text()


@pytest.mark.parametrize(
    "page", ["README.md", "ARCHITECTURE.md", *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    """Every relative link of a page leads to a file of the repository."""
    text = (ROOT / page).read_text()
    targets = re.findall(r"\]\(([^)#:]+)\)", text)
    missing = [target for target in targets if not (ROOT / page).parent.joinpath(target).exists()]
    assert missing == []

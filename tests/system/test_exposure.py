"""A real service without keys: whom it answers, where it listens, and what it prints if it may not start."""

import os
import subprocess
import sys
from pathlib import Path

import httpx

from tests.support.api_keys import add_key, bearer
from tests.support.http_requests import instances
from tests.support.paths import ROOT
from tests.support.running_service import START_SECONDS, serving
from tests.support.waiting import wait_until

ANY = "0.0.0.0"  # noqa: S104  # the address is the subject
PREDICT = "/v1/models/iris:predict"
BODY = instances([[5.1, 3.5, 1.4, 0.2]])


def test_a_service_without_keys_does_not_listen_elsewhere(tmp_path: Path) -> None:
    """It exits with 2, prints the command that makes a key, and leaves no data directory."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("SOFTSTEP_", "AIP_"))}
    command = [sys.executable, "-m", "service", "serve", "--host", ANY, "--data", str(tmp_path / "my data")]
    done = subprocess.run(
        command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=START_SECONDS, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    create = f"softstep keys create --name me --scopes predict,feedback,admin --data '{tmp_path / 'my data'}'"
    assert done.stderr.splitlines() == [
        f"softstep: other machines can reach {ANY}, but there are no API keys",
        f"softstep: create one, and start again: {create}",
        "softstep: or let everyone who reaches the port make every call: SOFTSTEP_OPEN=true",
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_service_with_keys_listens_anywhere(models: Path, tmp_path: Path) -> None:
    """Any Host is answered, each call needs the key, and nothing says that the service is open."""
    key = add_key(tmp_path / "data" / "keys.json")
    with serving(models, tmp_path, SOFTSTEP_HOST=ANY) as service, httpx.Client(base_url=service.url) as client:
        headers = {"Host": "models.example"}
        assert client.get("/readyz", headers=headers).status_code == 200
        assert client.post(PREDICT, content=BODY, headers=headers).status_code == 401
        assert client.post(PREDICT, content=BODY, headers={**headers, **dict([bearer(key)])}).status_code == 200
        assert "\nsoftstep_open 0.0\n" in client.get("/metrics", headers=dict([bearer(key)])).text
    assert "open_service" not in service.log.read_text()


def test_an_open_service_says_so_until_there_is_a_key(models: Path, tmp_path: Path) -> None:
    """A warning at the start and a gauge; when a key is made, the service closes within a second."""
    with (
        serving(models, tmp_path, SOFTSTEP_HOST=ANY, SOFTSTEP_OPEN="true") as service,
        httpx.Client(base_url=service.url) as client,
    ):
        headers = {"Host": "models.example"}
        assert client.post(PREDICT, content=BODY, headers=headers).status_code == 200
        assert "\nsoftstep_open 1.0\n" in client.get("/metrics").text
        (line,) = [line for line in service.log.read_text().splitlines() if '"open_service"' in line]
        assert '"level":"warning"' in line
        assert f"everyone who reaches {service.url} may make every call" in line
        key = add_key(tmp_path / "data" / "keys.json")
        wait_until(lambda: client.post(PREDICT, content=BODY, headers=headers).status_code == 401)
        assert "\nsoftstep_open 0.0\n" in client.get("/metrics", headers=dict([bearer(key)])).text


def test_the_loopback_of_ipv6_needs_no_keys(models: Path, tmp_path: Path) -> None:
    """The service answers requests for [::1] and localhost, and refuses the name of a web page."""
    with serving(models, tmp_path, SOFTSTEP_HOST="::1") as service, httpx.Client(base_url=service.url) as client:
        assert service.url.startswith("http://[::1]:")
        assert client.post(PREDICT, content=BODY).status_code == 200
        assert client.get("/readyz", headers={"Host": "localhost:8000"}).status_code == 200
        refused = client.get("/readyz", headers={"Host": "a.example"})
        assert (refused.status_code, refused.json()["code"]) == (421, "host_not_permitted")
        assert "\nsoftstep_open 0.0\n" in client.get("/metrics").text

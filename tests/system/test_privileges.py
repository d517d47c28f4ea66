"""The service needs no privileges: bubblewrap runs it as the image does, with even less."""

import os
import signal
import subprocess
from pathlib import Path

import httpx

from tests.support.api_keys import add_key, bearer
from tests.support.http_requests import instances
from tests.support.processes import SECONDS, children
from tests.support.programs import program
from tests.support.running_service import serving

NOBODY = "65534"
ROW = [6.0, 2.7, 5.1, 1.6]
# What the process of a command in the sandbox is, and what it can write.
REPORT = """
id -u; id -g
grep -E "^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs):" /proc/self/status | cut -f 2
for folder in "$@"; do (: > "$folder/written") 2> /dev/null && echo "$folder"; done
exit 0
"""


def sandbox(*writable: Path) -> list[str]:
    """Return a command that runs another one as nobody, without capabilities; it can write the given folders alone."""
    binds = [part for folder in writable for part in ("--bind", str(folder), str(folder))]
    user = ["--unshare-user", "--uid", NOBODY, "--gid", NOBODY, "--cap-drop", "ALL"]
    return [program("bwrap"), "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev", *binds, *user, "--"]


def test_the_sandbox_takes_all_privileges(tmp_path: Path) -> None:
    """In it a process is nobody, has no capabilities, cannot gain any, and can write the given folder alone."""
    writable, other = tmp_path / "writable", tmp_path / "other"
    for folder in (writable, other):
        folder.mkdir()
    command = [*sandbox(writable), "sh", "-c", REPORT, "sh"]
    places = [str(path) for path in (writable, other, tmp_path, "/", "/tmp", "/var/tmp")]  # noqa: S108
    done = subprocess.run([*command, *places], capture_output=True, text=True, timeout=SECONDS, check=True)
    assert done.stdout.split() == [NOBODY, NOBODY, *["0000000000000000"] * 5, "1", str(writable)]


def test_a_service_without_privileges_serves_learns_and_restarts(models: Path, tmp_path: Path) -> None:
    """It writes to its data directory alone, continues with what it has learned, and stops with exit code 0."""
    data = tmp_path / "data"
    key = dict([bearer(add_key(data / "keys.json"))])
    body = instances([ROW], labels=["versicolor"], id="a")
    answers = []
    for _ in range(2):
        with serving(models, tmp_path, under=sandbox(data)) as service:
            with httpx.Client(base_url=service.url, headers=key) as client:
                learned = client.post("/v1/models/iris:feedback", params={"wait": "true"}, content=body)
                answers.append(client.post("/v1/models/iris:predict", content=instances([ROW])).json())
            (process,) = children(service.process.pid)
            os.kill(process, signal.SIGTERM)
            assert service.process.wait(SECONDS) == 0
        assert learned.json()["seq"] == 1
    assert answers[0]["seq"] == 1
    assert answers[0] == answers[1]

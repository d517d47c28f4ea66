"""A running service with two workers follows the file of API keys: new, rotated, expired and revoked keys."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from service.access.key_file import read_keys
from tests.support.api_keys import add_key, bearer
from tests.support.data_directories import run_command
from tests.support.paths import ROOT
from tests.support.processes import CLIENT, ROW, SECONDS, predict, worker_of, workers
from tests.support.running_service import Service, serving
from tests.support.waiting import wait_until

# A revocation takes a second at most; a loaded machine adds to that.
HONORED_SECONDS = 3.0
NO_KEY = "none"
WORKERS = 2
# With two workers, all these answers come from one of them with a probability of 2**-199.
ANSWERS_MAX = 200
CONNECTIONS = 6


class Guarded(NamedTuple):
    """A running service, and its file of keys."""

    service: Service
    keys: Path

    def run_keys(self, *argv: object) -> str:
        """Run `softstep keys` on the file; return what it prints."""
        done = run_command("keys", *argv, "--keys-file", self.keys, "--data", self.keys.parent)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def statuses(self, *keys: str) -> list[set[int]]:
        """Return the statuses that each key gets from all workers."""
        return [{answer.status_code for answer in self._ask_workers(key)} for key in keys]

    def _ask_workers(self, key: str) -> list[httpx.Response]:
        """Return answers to a key, eight or as many as it takes until each worker has answered."""
        url, answers = f"{self.service.url}/v1/models/iris:predict", list[httpx.Response]()
        while len(answers) < 8 or (len(set(map(worker_of, answers))) < WORKERS and len(answers) < ANSWERS_MAX):
            answers.append(CLIENT.post(url, json=ROW, headers=[bearer(key)]))
        return answers


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Guarded]:
    """A service with two workers, and a key of the test's own in it."""
    scratch = tmp_path_factory.mktemp("keys")
    with serving(models, scratch, workers=WORKERS) as service:
        guarded = Guarded(service, scratch / "data" / "keys.json")
        assert CLIENT.post(f"{service.url}/v1/models/iris:predict", json=ROW).status_code == 200
        key = guarded.run_keys("create", "--name", "first")
        wait_until(lambda: guarded.statuses(NO_KEY) == [{401}] and guarded.statuses(key) == [{200}], SECONDS)
        yield guarded


@contextmanager
def requesting(service: Service, key: str) -> Iterator[list[tuple[float, int]]]:
    """Send predictions with a key over kept connections; note when each answer came, and its status."""
    answers: list[tuple[float, int]] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=SECONDS, headers=[bearer(key)]) as client:
            while not stop.is_set():
                answer = client.post(f"{service.url}/v1/models/iris:predict", json=ROW)
                answers.append((time.monotonic(), answer.status_code))
                time.sleep(0.002)

    threads = [threading.Thread(target=ask) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join(SECONDS)


def test_a_revocation_is_honored_while_requests_run(guarded: Guarded) -> None:
    """Every worker refuses a revoked key within moments, also on connections that used it before; others go on."""
    key, other = guarded.run_keys("create", "--name", "one"), guarded.run_keys("create", "--name", "other")
    wait_until(lambda: guarded.statuses(key, other) == [{200}, {200}], SECONDS)
    with requesting(guarded.service, key) as answers, requesting(guarded.service, other) as others:
        wait_until(lambda: len(answers) > 100, SECONDS)
        assert {status for _, status in answers} == {200}
        guarded.run_keys("revoke", key[9:17])
        revoked = time.monotonic()
        wait_until(lambda: time.monotonic() > revoked + HONORED_SECONDS, 2 * HONORED_SECONDS)
        assert {status for moment, status in answers if moment > revoked + HONORED_SECONDS - 1} == {401}
        assert {status for _, status in others} == {200}
    assert guarded.statuses(key, other) == [{401}, {200}]
    assert len(workers(guarded.service.process.pid)) == WORKERS


def test_keys_end_by_themselves(guarded: Guarded) -> None:
    """A key is refused after its end, and a rotated one after the overlap; until then both its secrets are accepted."""
    old = guarded.run_keys("create", "--name", "one")
    wait_until(lambda: guarded.statuses(old) == [{200}], SECONDS)
    short = guarded.run_keys("create", "--name", "two", "--expires", "4s")
    with requesting(guarded.service, old) as answers:
        new = guarded.run_keys("rotate", old[9:17], "--overlap", "4s")
        wait_until(lambda: guarded.statuses(new, short) == [{200}, {200}], SECONDS)
        assert {status for _, status in answers} == {200}
        wait_until(lambda: guarded.statuses(old, short) == [{401}, {401}], SECONDS)
    assert guarded.statuses(new) == [{200}]


def test_a_file_that_is_damaged_never_opens_the_service(guarded: Guarded) -> None:
    """Keys stay as they were while the file is damaged or missing; a worker that starts then refuses every call."""
    key = guarded.run_keys("create", "--name", "one")
    wait_until(lambda: guarded.statuses(key) == [{200}], SECONDS)
    whole = guarded.keys.read_bytes()
    guarded.keys.write_bytes(whole[:-20])
    wait_until(lambda: "the API keys stay as they were" in guarded.service.log.read_text(), SECONDS)
    assert guarded.statuses(key, NO_KEY) == [{200}, {401}]
    guarded.keys.unlink()
    wait_until(lambda: "the file of API keys is missing" in guarded.service.log.read_text(), SECONDS)
    assert guarded.statuses(key, NO_KEY) == [{200}, {401}]
    killed = workers(guarded.service.process.pid)[0]
    os.kill(killed, signal.SIGKILL)
    answers: list[httpx.Response] = []

    def have_both_answered() -> bool:
        answers.extend(predict(guarded.service.url) for _ in range(8))
        return len({worker_of(answer) for answer in answers}) == WORKERS

    wait_until(lambda: killed not in workers(guarded.service.process.pid), SECONDS)
    wait_until(have_both_answered, SECONDS)
    assert {answer.status_code for answer in answers} == {401}
    guarded.keys.write_bytes(whole)
    wait_until(lambda: guarded.statuses(key) == [{200}], SECONDS)
    guarded.run_keys("revoke", key[9:17])
    wait_until(lambda: guarded.statuses(key) == [{401}], SECONDS)


def test_the_page_on_security_works(guarded: Guarded) -> None:
    """The commands of the page's section on keys, run in order, make keys that the service accepts and refuses."""
    section = (ROOT / "docs" / "security.md").read_text().partition("## 1. Keys")[2].partition("\n## ")[0]
    (create, ask), (*others, revoke) = (
        block.split("\n") for block in re.findall(r"```sh\n(.*?)\n```", section, re.DOTALL)
    )
    key = run_shell(guarded, f"{create}; echo $KEY")
    wait_until(lambda: guarded.statuses(key) == [{200}], SECONDS)
    assert '"labels":["setosa"]' in run_shell(guarded, f"KEY={key}; {ask}")
    for line in others:
        run_shell(guarded, line.replace("k7m2q9xd", key[9:17]))
    assert run_shell(guarded, revoke.replace("k7m2q9xd", key[9:17])) == f"{key[9:17]} is revoked"
    wait_until(lambda: guarded.statuses(key) == [{401}], SECONDS)


def run_shell(guarded: Guarded, script: str) -> str:
    """Run a script of the page in the folder of the data directory; return what it prints."""
    script = script.replace("localhost:8000", guarded.service.url.removeprefix("http://"))
    script = script.replace("softstep keys", f"{sys.executable} -m service keys")
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["/bin/sh", "-ec", script], cwd=guarded.keys.parent.parent, env=variables,
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_keys_are_read_from_a_mounted_secret(models: Path, tmp_path: Path) -> None:
    """A service that does not learn follows a file behind the links of a Secret, and writes nothing beside it."""
    keys = tmp_path / "made" / "keys.json"
    key, other = add_key(keys), add_key(keys)
    mount = tmp_path / "mount"
    mount.mkdir()
    publish(mount, keys)
    (mount / "keys.json").symlink_to("..data/keys.json")
    with serving(models, tmp_path, SOFTSTEP_LEARN="off", SOFTSTEP_KEYS_FILE=mount / "keys.json") as service:
        guarded = Guarded(service, keys)
        assert guarded.statuses(key, other, NO_KEY) == [{200}, {200}, {401}]
        guarded.run_keys("revoke", key[9:17])
        publish(mount, keys)
        wait_until(lambda: guarded.statuses(key) == [{401}], SECONDS)
        assert guarded.statuses(other) == [{200}]
        assert sorted(path.name for path in mount.iterdir() if not path.name.startswith("..")) == ["keys.json"]
        assert not (tmp_path / "data").exists()
    assert len(read_keys(mount / "keys.json").keys) == 2


def publish(mount: Path, keys: Path) -> None:
    """Replace the content of a mounted Secret as Kubernetes does: a new folder, and a link that is renamed to it."""
    folder = mount / f"..{time.monotonic_ns()}"
    folder.mkdir()
    shutil.copy(keys, folder / "keys.json")
    (folder / "keys.json").chmod(0o444)
    (mount / "..new").symlink_to(folder.name)
    (mount / "..new").rename(mount / "..data")

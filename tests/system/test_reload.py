"""Models are added, changed, damaged and removed under a running service, while a client sends requests."""

import hashlib
import json
import os
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.store.artifact.artifact import Artifact, read_artifact, write_artifact
from service.store.artifact.artifact_folder import MANIFEST_NAME, TENSORS_NAME
from tests.support.model_artifacts import make_artifact
from tests.support.paths import SHIPPED
from tests.support.processes import (
    CLIENT,
    SECONDS,
    LoadClient,
    ask_every_worker,
    is_running,
    kill,
    log_of,
    predict,
    worker_of,
    workers,
)
from tests.support.running_service import Service, is_ready, serving
from tests.support.waiting import wait_until

# The bound: a new version is served within 2 s with the default pause between looks.
PICKED_UP_SECONDS = 2.0
NAN = struct.pack("<f", float("nan"))


def shipped_iris() -> Artifact:
    """Return the shipped model."""
    return read_artifact(SHIPPED / "iris" / "1", 1 << 20)


def change_tensors(folder: Path, change: Callable[[bytes], bytes], *, seal: bool) -> None:
    """Replace the tensor file; with `seal`, the manifest names the new bytes' checksum."""
    raw = change((folder / TENSORS_NAME).read_bytes())
    (folder / TENSORS_NAME).write_bytes(raw)
    if seal:
        manifest = json.loads((folder / MANIFEST_NAME).read_text())
        manifest["tensors_sha256"] = hashlib.sha256(raw).hexdigest()
        (folder / MANIFEST_NAME).write_text(json.dumps(manifest))


def flip_last_bit(raw: bytes) -> bytes:
    """Change the last bit."""
    return raw[:-1] + bytes([raw[-1] ^ 1])


BREAKS = {
    "a wrong checksum": lambda folder: change_tensors(folder, flip_last_bit, seal=False),
    "a number that is not finite": lambda folder: change_tensors(folder, lambda raw: raw[:-4] + NAN, seal=True),
    "a truncated file": lambda folder: change_tensors(folder, lambda raw: raw[:-10], seal=True),
    "no tensors": lambda folder: (folder / TENSORS_NAME).unlink(),
    "a broken manifest": lambda folder: (folder / MANIFEST_NAME).write_text('{"head": "softmax"'),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Path]]:
    """Serve with two workers; tests add models of their own to the models directory."""
    scratch = tmp_path_factory.mktemp("reload")
    shutil.copytree(SHIPPED / "iris", scratch / "models" / "iris")
    with serving(scratch / "models", scratch, workers=2) as service:
        yield service, scratch / "models"


@contextmanager
def model(shared: tuple[Service, Path], name: str) -> Iterator[Path]:
    """Add a model for one test, and wait until every worker serves its version 1."""
    service, models = shared
    write_artifact(models / name / "1", shipped_iris())
    load_or_unload(service, name, "load")
    try:
        yield models / name
    finally:
        shutil.rmtree(models / name)


def load_or_unload(service: Service, name: str, do: str) -> int:
    """Load or unload a model; return the status of the response."""
    return CLIENT.post(f"{service.url}/v2/repository/models/{name}/{do}").status_code


def states(service: Service, name: str) -> dict[str, tuple[str, str]]:
    """Return state and reason of each version in the metadata, and check that the index agrees."""
    versions = CLIENT.get(f"{service.url}/v1/models/{name}").json()["versions"]
    index = [row for row in CLIENT.post(f"{service.url}/v2/repository/index").json() if row["name"] == name]
    found = {row["version"]: (row["state"], row["reason"]) for row in versions}
    return found if found == {row["version"]: (row["state"], row["reason"]) for row in index} else {}


def wait_logged(service: Service, message: str, times: int = 2) -> None:
    """Wait until the log contains a sentence once for each worker."""
    wait_until(lambda: log_of(service).count(message) >= times)
    assert log_of(service).count(message) == times


def wait_served(service: Service, name: str) -> set[tuple[str, str]]:
    """Wait until every worker answers with a version."""
    answers = [predict(service.url, name) for _ in range(30)]
    assert {answer.status_code for answer in answers} == {200}
    return {(worker_of(answer), answer.json()["model_version"]) for answer in answers}


def test_a_new_version_is_served_without_a_failed_request(shared: tuple[Service, Path]) -> None:
    """Under load every worker serves it within 2 s; the old one stays reachable; then the new one is removed."""
    service, _ = shared
    load = LoadClient(service.url, "new")
    with model(shared, "new") as folder:
        with load.running():
            write_artifact(folder / "2", shipped_iris())
            wait_until(lambda: {version for _, version in wait_served(service, "new")} == {"2"}, PICKED_UP_SECONDS)
            wait_logged(service, "model new version 2: ready")
            assert predict(service.url, "new/versions/1").json()["model_version"] == "1"
            shutil.rmtree(folder / "2")
            wait_until(lambda: {version for _, version in wait_served(service, "new")} == {"1"}, PICKED_UP_SECONDS)
            wait_logged(service, "model new version 2: removed")
        assert load.failed == []
        assert {"1", "2"} == set(load.versions())
        assert predict(service.url, "new/versions/2").status_code == 404


@pytest.mark.parametrize("what", BREAKS)
def test_an_invalid_new_version_is_rejected_and_the_old_one_is_served(shared: tuple[Service, Path], what: str) -> None:
    """The reason is in the log, in the metadata and in the index."""
    service, _ = shared
    name = what.replace(" ", "-")
    load = LoadClient(service.url, name)
    with model(shared, name) as folder, load.running():
        broken = folder / ".2"
        write_artifact(broken, shipped_iris())
        BREAKS[what](broken)
        broken.rename(folder / "2")
        wait_until(lambda: "2" in states(service, name), PICKED_UP_SECONDS)
        wait_logged(service, f"model {name} version 2 refused")
        state, reason = states(service, name)["2"]
        assert state == "UNAVAILABLE"
        assert reason
        assert json.dumps(reason)[1:-1] in log_of(service)
        assert states(service, name)["1"] == ("READY", "")
        assert {version for _, version in wait_served(service, name)} == {"1"}
        assert predict(service.url, f"{name}/versions/2").status_code == 503
        ready = CLIENT.post(f"{service.url}/v2/repository/index", json={"ready": True}).json()
        assert [row["version"] for row in ready if row["name"] == name] == ["1"]
    assert load.failed == []


def test_a_version_damaged_in_place_is_still_served(shared: tuple[Service, Path]) -> None:
    """It is READY, with the reason for rejecting the newer files; valid files replace it."""
    service, _ = shared
    load = LoadClient(service.url, "place")
    with model(shared, "place") as folder, load.running():
        before = CLIENT.get(f"{service.url}/v1/models/place").json()["weights_sha256"]
        change_tensors(folder / "1", flip_last_bit, seal=False)
        wait_logged(service, "model place version 1 refused")
        assert states(service, "place")["1"][1]
        assert states(service, "place")["1"][0] == "READY"
        assert CLIENT.get(f"{service.url}/v1/models/place").json()["weights_sha256"] == before
        assert predict(service.url, "place").status_code == 200
        write_artifact(folder / "1", make_artifact("softmax", 4, ["a", "b", "c"]), overwrite=True)
        wait_logged(service, "model place version 1: ready", 4)
        assert states(service, "place")["1"] == ("READY", "")
        assert {predict(service.url, "place").json()["labels"][0] for _ in range(20)} <= {"a", "b", "c"}
    assert load.failed == []


def test_a_version_replaced_by_unusable_numbers_is_still_served(shared: tuple[Service, Path]) -> None:
    """Valid files with numbers that the kernels cannot use are rejected, and reported once."""
    service, _ = shared
    unfit = make_artifact("softmax", 4, ["a", "b"], stage={"mean": [0] * 4, "scale": [1e-300] * 4})
    with model(shared, "unfit") as folder:
        write_artifact(folder / "1", unfit, overwrite=True)
        for _ in range(3):
            assert load_or_unload(service, "unfit", "load") == 400
        wait_logged(service, "model unfit version 1 refused: it cannot be prepared")
        assert "cannot be prepared" in states(service, "unfit")["1"][1]
        assert {version for _, version in wait_served(service, "unfit")} == {"1"}
        assert set(predict(service.url, "unfit").json()["labels"]) == {"setosa"}
        write_artifact(folder / "1", shipped_iris(), overwrite=True)
        assert load_or_unload(service, "unfit", "load") == 200
        assert states(service, "unfit")["1"] == ("READY", "")


def test_a_removed_model_is_unknown(shared: tuple[Service, Path]) -> None:
    """The other models are served as before."""
    service, _ = shared
    with model(shared, "gone"):
        assert predict(service.url, "gone").status_code == 200
    wait_until(lambda: predict(service.url, "gone").status_code == 404, PICKED_UP_SECONDS)
    assert predict(service.url).status_code == 200


def test_every_worker_agrees_after_load_and_unload(shared: tuple[Service, Path]) -> None:
    """Ten times over, no answer of any worker contradicts the last call."""
    service, _ = shared
    with model(shared, "ordered"):
        for _ in range(10):
            assert load_or_unload(service, "ordered", "unload") == 200
            assert {predict(service.url, "ordered").status_code for _ in range(20)} == {503}
            assert states(service, "ordered")["1"] == ("UNAVAILABLE", "unloaded")
            assert load_or_unload(service, "ordered", "load") == 200
            assert {predict(service.url, "ordered").status_code for _ in range(20)} == {200}
        assert len(wait_served(service, "ordered")) == 2


def test_a_new_version_is_loaded_at_once_on_request(shared: tuple[Service, Path]) -> None:
    """No worker waits for its next scan."""
    service, _ = shared
    with model(shared, "asked") as folder:
        for version in ("2", "3", "4"):
            write_artifact(folder / version, shipped_iris())
            assert load_or_unload(service, "asked", "load") == 200
            assert {answered for _, answered in wait_served(service, "asked")} == {version}


def test_a_load_reports_a_refusal(shared: tuple[Service, Path]) -> None:
    """A load whose largest version is refused is an error with the reason; the version before is served."""
    service, _ = shared
    with model(shared, "refused") as folder:
        write_artifact(folder / "2", shipped_iris())
        change_tensors(folder / "2", flip_last_bit, seal=False)
        answer = CLIENT.post(f"{service.url}/v2/repository/models/refused/load")
        assert (answer.status_code, answer.json()["code"]) == (400, "load_refused")
        assert answer.json()["error"].startswith("Version 2 was refused: model.safetensors is not the file")
        assert {version for _, version in wait_served(service, "refused")} == {"1"}


def test_a_load_reads_files_again_that_look_unchanged(shared: tuple[Service, Path]) -> None:
    """After a load every worker serves what is on disk, also where the scan cannot see the change."""
    service, _ = shared
    with model(shared, "again") as folder:
        assert load_or_unload(service, "again", "unload") == 200
        write_artifact(folder / "1", make_artifact("softmax", 4, ["a", "b", "c"]), overwrite=True)
        assert load_or_unload(service, "again", "load") == 200
        assert {predict(service.url, "again").json()["labels"][0] for _ in range(20)} <= {"a", "b", "c"}


def test_a_folder_that_is_not_served_is_reported_once(shared: tuple[Service, Path]) -> None:
    """Each worker logs the folder once, and the index lists it with the reason."""
    service, models = shared
    folder = models / "Wrong Name" / "1"
    write_artifact(folder, shipped_iris())
    try:
        wait_logged(service, "folder Wrong Name/1 is not served")
        rows = [row for row in CLIENT.post(f"{service.url}/v2/repository/index").json() if row["version"] == ""]
        assert [(row["name"], row["state"]) for row in rows] == [("Wrong Name/1", "UNAVAILABLE")]
        ready = CLIENT.post(f"{service.url}/v2/repository/index", json={"ready": True}).json()
        assert "Wrong Name/1" not in {row["name"] for row in ready}
    finally:
        shutil.rmtree(models / "Wrong Name")


def test_a_models_directory_that_vanishes_unloads_nothing(iris_models: Path, tmp_path: Path) -> None:
    """The models are served, the metric and the log tell, and all is well when the directory is back."""
    with serving(iris_models, tmp_path) as service:
        aside = iris_models.with_name("aside")
        iris_models.rename(aside)
        wait_logged(service, "models directory: the models directory does not exist", 1)
        assert predict(service.url).status_code == 200
        assert "softstep_models_readable 0" in CLIENT.get(f"{service.url}/metrics").text
        aside.rename(iris_models)
        wait_logged(service, "models directory: readable again", 1)
        assert "softstep_models_readable 1" in CLIENT.get(f"{service.url}/metrics").text


@pytest.mark.parametrize("name", ["unknown", "UPPER", "x" * 65, "x" * 9000, "%22", "%0A"])
def test_loading_unknown_names_is_rejected(shared: tuple[Service, Path], name: str) -> None:
    """So are impossible names, and names that do not fit the pipe to the parent."""
    service, _ = shared
    assert {load_or_unload(service, name, do) for do in ("load", "unload") for _ in range(4)} == {404}
    assert load_or_unload(service, "iris", "load") == 200


def test_impossible_names_never_reach_the_parent(shared: tuple[Service, Path]) -> None:
    """Long lines could fill the pipe and arrive in parts, so they are rejected while the parent is stopped."""
    service, _ = shared
    os.kill(service.process.pid, signal.SIGSTOP)
    try:
        assert {load_or_unload(service, "x" * 20_000, "load") for _ in range(6)} == {404}
    finally:
        os.kill(service.process.pid, signal.SIGCONT)
    assert load_or_unload(service, "iris", "load") == 200


def test_the_only_model_can_be_unloaded_and_loaded(iris_models: Path, tmp_path: Path) -> None:
    """The service is not ready in between, and every worker serves again when the call returns."""
    with serving(iris_models, tmp_path, workers=2) as service:
        assert load_or_unload(service, "iris", "unload") == 200
        wait_until(lambda: is_ready(service.url, 0))
        assert CLIENT.get(f"{service.url}/readyz").status_code == 503
        assert load_or_unload(service, "iris", "load") == 200
        assert {predict(service.url).status_code for _ in range(30)} == {200}
        assert CLIENT.get(f"{service.url}/readyz").status_code == 200


def test_unloading_holds_for_workers_started_later(iris_models: Path, tmp_path: Path) -> None:
    """An unloaded model stays unloaded when every worker is replaced."""
    shutil.copytree(iris_models / "iris", iris_models / "second")
    with serving(iris_models, tmp_path, workers=2) as service:
        assert load_or_unload(service, "second", "unload") == 200
        for killed in workers(service.process.pid):
            kill(killed)
            wait_until(lambda killed=killed: not is_running(killed))  # type: ignore[misc]
        wait_until(lambda: is_ready(service.url, 2))
        ask_every_worker(service.url, 2)
        assert {predict(service.url, "second").status_code for _ in range(20)} == {503}


def test_a_worker_killed_during_a_load_does_not_block(iris_models: Path, tmp_path: Path) -> None:
    """The call waits for a stopped worker and returns when it is killed; the next worker applies the list."""
    shutil.copytree(iris_models / "iris", iris_models / "second")
    with serving(iris_models, tmp_path, workers=2) as service:
        killed = workers(service.process.pid)[0]
        os.kill(killed, signal.SIGSTOP)
        # Calls that the stopped worker took are lost with it; those of the other one are answered.
        with ThreadPoolExecutor(6) as callers:
            calls = [callers.submit(try_load_or_unload, service, "second", "unload") for _ in range(6)]
            assert not wait(calls, 0.5).done
            kill(killed)
            assert {call.result(SECONDS) for call in calls} in ({200}, {200, 0})
        wait_until(lambda: is_ready(service.url, 2))
        ask_every_worker(service.url, 2)
        assert {predict(service.url, "second").status_code for _ in range(20)} == {503}


def try_load_or_unload(service: Service, name: str, do: str) -> int:
    """Do as `load_or_unload`, but return 0 if the connection breaks."""
    try:
        return load_or_unload(service, name, do)
    except httpx.TransportError:
        return 0


def test_memory_does_not_grow_with_reloads(tmp_path: Path) -> None:
    """Fifty reloads of a model of 3 MB leave the memory of a worker unchanged."""
    artifacts = [make_artifact("softmax", 768, [f"c{k}" for k in range(1000)], seed=seed) for seed in range(2)]
    folder = tmp_path / "models" / "large" / "1"
    write_artifact(folder, artifacts[0])
    with serving(tmp_path / "models", tmp_path, SOFTSTEP_SCAN_SECONDS=60) as service:
        (worker,) = workers(service.process.pid)
        sizes = []
        hashes = set()
        for number in range(55):
            write_artifact(folder, artifacts[number % 2], overwrite=True)
            assert load_or_unload(service, "large", "load") == 200
            hashes.add(CLIENT.get(f"{service.url}/v1/models/large").json()["weights_sha256"])
            sizes.append(_resident_bytes(worker))
        assert len(hashes) == 2
        assert max(sizes[-5:]) - max(sizes[:5]) < 30 << 20
        assert len(list(Path(f"/proc/{worker}/fd").iterdir())) < 40


def _resident_bytes(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

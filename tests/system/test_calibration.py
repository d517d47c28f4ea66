"""A calibrated model behind a real service: its calibration is learned, reported and stored to the bit."""

from pathlib import Path

import httpx
import numpy as np
import pytest

from service.store.artifact.artifact import Artifact, read_artifact, write_artifact
from service.store.artifact.model_factory import build_model
from tests.support.artifacts import digits
from tests.support.data_directories import LIMIT, json_lines, run_command
from tests.support.learning_client import caught_up, data_of, metadata, post, samples
from tests.support.paths import SHIPPED
from tests.support.processes import children, kill, workers
from tests.support.running_service import Service, serving
from tests.support.waiting import wait_until

ROWS, BATCH = 400, 20


def overconfident(name: str) -> Artifact:
    """Return a shipped model with scores four times too large and a temperature that learns."""
    shipped = read_artifact(SHIPPED / name / "1", LIMIT)
    fields = shipped.manifest.model_dump(mode="json", exclude_none=True, exclude={"format_version", "tensors_sha256"})
    last = fields["layers"][-1]
    tensors = {n: t * np.float32(4 if n in {last["weight"], last["bias"]} else 1) for n, t in shipped.tensors.items()}
    return Artifact.from_fields(fields | {"calibration": {"kind": "temperature", "learn": True}}, tensors)


def learn_temperature(service: Service, name: str) -> float:
    """Post digits with their labels, kill the learner half way, and return the served temperature."""
    X, y = digits()
    (learner,) = set(children(service.process.pid)) - set(workers(service.process.pid))
    for at in range(0, ROWS, BATCH):
        body = {"id": f"d{at}", "instances": X[at : at + BATCH].tolist(), "labels": y[at : at + BATCH].tolist()}
        assert post(service, f"{name}:feedback", body).status_code == 202
        if at == ROWS // 2:
            kill(learner)
    # Several calls, which reach both workers.
    wait_until(lambda: {metadata(service, name)["seq"] for _ in range(8)} == {ROWS // BATCH}, 20)
    return float(caught_up(service, name)["calibration"]["temperature"])


@pytest.mark.parametrize("name", ["digits", "digits-mlp"])
def test_a_temperature_is_learned_reported_and_stored(name: str, tmp_path: Path) -> None:
    """It is in the metadata, metrics and answers, and survives replay, verify, restart, export and rollback."""
    made = overconfident(name)
    write_artifact(tmp_path / "models" / name / "1", made)
    rows = digits()[0][-50:]
    instances = {"instances": rows.tolist(), "min_seq": ROWS // BATCH}
    with serving(tmp_path / "models", tmp_path, workers=2) as service:
        data = data_of(service)
        result = caught_up(service, name)
        assert (result["calibration"]["temperature"], result["weights_sha256"]) == (1.0, made.weights_sha256)
        temperature = learn_temperature(service, name)
        assert temperature > 1.2
        result = caught_up(service, name)
        reliability = result["progressive"]["calibration"]
        assert (reliability["rows"], sum(each["rows"] for each in reliability["bins"])) == (ROWS, ROWS)
        labels = {"model": name, "version": "1"}
        wait_until(lambda: samples(service).get(("softstep_learn_rows", tuple(labels.items()))) == ROWS)
        seen = samples(service)
        assert seen["softstep_learn_calibration_error", tuple(labels.items())] == reliability["expected_error"]
        for number, each in enumerate(reliability["bins"], 1):
            key = tuple(sorted({**labels, "bin": f"{number / 10:g}"}.items()))
            values = [seen.get((f"softstep_learn_bin_{cell}", key)) for cell in ("rows", "confidence", "accuracy")]
            assert values == [each[cell] for cell in ("rows", "confidence", "accuracy")]
        answer = post(service, f"{name}:predict", instances).json()["predictions"]
        service.process.kill()
        service.process.wait()
    with serving(tmp_path / "models", tmp_path) as service:
        wait_until(lambda: metadata(service, name)["seq"] == ROWS // BATCH, 10)
        assert caught_up(service, name)["calibration"] == result["calibration"]
        assert caught_up(service, name)["weights_sha256"] == result["weights_sha256"]
        assert post(service, f"{name}:predict", instances).json()["predictions"] == answer
        (again,) = json_lines(run_command("replay", name, "--data", data, "--json"))
        assert (again["weights_sha256"], again["published"]) == (result["weights_sha256"], "equal")
        assert run_command("verify", "--refold", "--data", data).returncode == 0
        assert run_command("export", name, tmp_path / "exported" / name / "2", "--data", data).returncode == 0
        assert post(service, f"{name}:rollback", {"seq": 0}, wait=True).status_code == 200
        assert caught_up(service, name)["calibration"]["temperature"] == 1.0
        assert httpx.get(f"{service.url}/readyz").status_code == 200
    exported = read_artifact(tmp_path / "exported" / name / "2", LIMIT)
    assert exported.manifest.calibration is not None
    assert exported.manifest.calibration.temperature == temperature
    assert exported.weights_sha256 == result["weights_sha256"]
    assert build_model(exported).predict(rows).tobytes() == np.array(answer, np.float32).tobytes()
    assert run_command("check", tmp_path / "exported" / name / "2").returncode == 0

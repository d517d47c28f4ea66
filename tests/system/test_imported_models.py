"""The imported models behind a real service: it answers rows with names, learns from them, is killed, and replays."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.data_directories import json_lines, run_command
from tests.support.imported_models import IMPORTED_NAMES, imported, imported_data, script
from tests.support.learning_client import caught_up, data_of, metadata, post, replay_stream
from tests.support.paths import SHIPPED
from tests.support.running_service import Service, serving
from tests.support.waiting import wait_until

ROWS = 40
# The mean change of a probability after one event. Without the statistics of their training rows it is 0.43 for wine,
# and 0.14 for flares.
MOVED_MAX = 0.05


class Learned(NamedTuple):
    """What a model answers after it has learned, and the hash of its weights."""

    probabilities: NDArray[np.float64]
    weights_sha256: str


def ask(service: Service, name: str) -> dict[str, Any]:
    """Return the answer to rows that the model was not trained on."""
    answer: dict[str, Any] = post(
        service, f"{name}:predict", {"instances": imported_data(name).held_out_rows[:ROWS]}
    ).json()
    return answer


def teach(service: Service, name: str) -> Learned:
    """Post the class that the model holds for least probable; it moves there, and other rows move little."""
    data = imported_data(name)
    rows, classes = data.held_out_rows[:ROWS], list(data.classes)
    answer = ask(service, name)
    before = np.array(answer["predictions"])
    np.testing.assert_allclose(before, script().predict(imported(name), rows), atol=1e-6)
    assert answer["labels"] == [classes[k] for k in before.argmax(axis=1)]
    least = int(before[0].argmin())
    event = {"id": "first", "instances": rows[:1], "labels": [classes[least]]}
    (loss,) = post(service, f"{name}:feedback", event, wait=True).json()["losses"]
    assert loss == pytest.approx(-np.log(before[0, least]), rel=1e-3)
    after = np.array(ask(service, name)["predictions"])
    assert after[0, least] > before[0, least]
    assert 0 < np.abs(after - before).mean() < MOVED_MAX
    return Learned(after, caught_up(service, name)["weights_sha256"])


def test_imported_models_learn_and_replay(tmp_path: Path) -> None:
    """Each is taught one row; a kill loses nothing, and the log makes the same bits again."""
    models = tmp_path / "models"
    for name in IMPORTED_NAMES:
        shutil.copytree(SHIPPED / name, models / name)
    with serving(models, tmp_path) as service:
        data = data_of(service)
        learned = {name: teach(service, name) for name in IMPORTED_NAMES}
        for name, one in learned.items():
            assert replay_stream(data, name, models=models)[0] == one.weights_sha256
        service.process.kill()
        service.process.wait()
    with serving(models, tmp_path) as service:
        for name, one in learned.items():
            wait_until(lambda name=name: metadata(service, name)["seq"] == 1)
            assert caught_up(service, name)["weights_sha256"] == one.weights_sha256
            assert np.array_equal(ask(service, name)["predictions"], one.probabilities)
    for name, one in learned.items():
        (replayed,) = json_lines(run_command("replay", name, "--data", data, "--json"))
        assert (replayed["weights_sha256"], replayed["published"]) == (one.weights_sha256, "equal")

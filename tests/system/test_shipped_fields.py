"""The shipped models with fields behind a real service: it answers rows as objects, learns from them, and replays."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.store.artifact.model_factory import build_row_model
from tests.support.data_directories import json_lines, run_command
from tests.support.learning_client import caught_up, data_of, metadata, post, replay_stream
from tests.support.paths import SHIPPED
from tests.support.running_service import Service, serving
from tests.support.shipped_fields import FIELD_NAMES, prepared, shipped_fields
from tests.support.waiting import wait_until

ROWS, ROWS_OF_AN_EVENT = 300, 20
# The next class is said to be right: penguins is right about all of its rows, so it learns nothing from true labels.
SHIFTS = {"penguins": 1, "languages": 0}


@pytest.fixture
def field_models(tmp_path: Path) -> Path:
    """A models directory with the shipped models with fields."""
    for name in FIELD_NAMES:
        shutil.copytree(SHIPPED / name, tmp_path / "models" / name)
    return tmp_path / "models"


def labeled_rows(name: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Return rows with their labels: first those that the model was not trained on, then others."""
    data = prepared(name).data
    numbers = [*prepared(name).test, *prepared(name).train][:ROWS]
    labels = [data.classes[(data.y[i] + SHIFTS[name]) % len(data.classes)] for i in numbers]
    return [data.rows[i] for i in numbers], labels


def post_rows(service: Service, name: str, rows: list[dict[str, Any]], labels: list[str], start: str) -> list[float]:
    """Post rows as feedback, some in each event; return the loss of each row before its step."""
    losses: list[float] = []
    for first in range(0, len(rows), ROWS_OF_AN_EVENT):
        part = slice(first, first + ROWS_OF_AN_EVENT)
        body = {"id": f"{start}-{first}", "instances": rows[part], "labels": labels[part]}
        losses += post(service, f"{name}:feedback", body, wait=True).json()["losses"]
    return losses


def probabilities(service: Service, name: str, rows: list[dict[str, Any]]) -> bytes:
    """Return the probabilities that the service answers, as bytes."""
    answer = post(service, f"{name}:predict", {"instances": rows}).json()
    return np.array(answer["predictions"], np.float32).tobytes()


def replayed_probabilities(name: str, rows: list[dict[str, Any]], parameters: Any) -> bytes:
    """Return the probabilities that replayed parameters answer, as bytes."""
    artifact = shipped_fields(name)
    encoder = artifact.row_encoder
    assert encoder is not None
    encoded = encoder.to_model_rows(encoder.encode_objects(rows).rows, np.dtype(np.float32))
    model = build_row_model(parameters)
    answered = model.predict(encoded if artifact.has_sparse_rows else encoded.to_matrix(encoder.n_columns))
    return np.asarray(answered, np.float32).tobytes()


@pytest.mark.parametrize("name", FIELD_NAMES)
def test_a_shipped_model_learns_real_rows_and_replays(name: str, field_models: Path, tmp_path: Path) -> None:
    """The loss falls when rows come again; a kill loses nothing; the log makes the same bits again."""
    rows, labels = labeled_rows(name)
    with serving(field_models, tmp_path, workers=2) as service:
        data = data_of(service)
        before = probabilities(service, name, rows)
        first = post_rows(service, name, rows, labels, "first")
        second = post_rows(service, name, rows, labels, "second")
        assert len(first) == len(second) == ROWS
        assert np.mean(second) < 0.8 * np.mean(first)
        result = caught_up(service, name)
        assert result["progressive"]["rows"] == 2 * ROWS
        assert result["progressive"]["loss"] == pytest.approx(np.mean([*first, *second]))
        sha, fold = replay_stream(data, name, models=field_models)
        assert result["weights_sha256"] == sha
        learned = probabilities(service, name, rows)
        assert learned != before
        assert learned == replayed_probabilities(name, rows, fold.state.served_parameters())
        service.process.kill()
        service.process.wait()
    with serving(field_models, tmp_path) as service:
        wait_until(lambda: metadata(service, name)["seq"] == 2 * ROWS // ROWS_OF_AN_EVENT)
        assert caught_up(service, name)["weights_sha256"] == sha
        assert probabilities(service, name, rows) == learned
    (replayed,) = json_lines(run_command("replay", name, "--data", data, "--json"))
    assert (replayed["weights_sha256"], replayed["published"]) == (sha, "equal")

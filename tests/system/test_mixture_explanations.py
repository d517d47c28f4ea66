"""Explanations of a model that learns by the rule mixture, from a real service."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.softmax.explainer_factory import create_explainer
from tests.support.learning_client import data_of, post, replay_stream, rows_of
from tests.support.paths import SHIPPED
from tests.support.running_service import Service, serving

MODEL = "iris"
EXPERTS = ["mixture", "frequencies", "features", "features alone", "base", "linear"]


def explain(service: Service, rows: Any, path: str = MODEL, **more: Any) -> Any:
    """Return the explanations of rows."""
    answer = post(service, f"{path}:explain", {"instances": rows, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()["explanations"]


def test_explanations_follow_what_is_learned(tmp_path: Path) -> None:
    """Experts are explained from the first learned row on, as the log says, until a rollback; then as before."""
    shutil.copytree(SHIPPED / MODEL, tmp_path / "models" / MODEL)
    rows = rows_of(MODEL, 40)
    with serving(tmp_path / "models", tmp_path, workers=2) as service:
        first = explain(service, rows[:3])
        assert post(service, f"{MODEL}:configure", {"rule": "mixture"}, wait=True).json()["seq"] == 1
        assert explain(service, rows[:3], min_seq=1) == first
        assert "experts" not in first[0]
        for start in range(0, 40, 8):
            body = {"instances": rows[start : start + 8], "labels": [at % 3 for at in range(8)]}
            assert post(service, f"{MODEL}:feedback", body, wait=True).status_code == 200
        found = explain(service, rows[:3], f"{MODEL}/versions/1", labels=["setosa"] * 3, min_seq=6)
        _, fold = replay_stream(data_of(service), MODEL)
        explainer = create_explainer(fold.state.served_parameters().build_model())
        expected = explainer.explain(np.array(rows[:3], np.float32), np.eye(3)[[0, 0, 0]])
        predicted = post(service, f"{MODEL}:predict", {"instances": rows[:3], "min_seq": 6}).json()
        assert [row["probabilities"] for row in found] == predicted["predictions"]
        assert expected.experts is not None
        assert expected.loss_gradients is not None
        for i, row in enumerate(found):
            assert row["contributions"] is None
            assert [expert["name"] for expert in row["experts"]] == EXPERTS
            assert sum(expert["weight"] for expert in row["experts"]) == pytest.approx(1)
            answers = [expert["probabilities"] for expert in row["experts"]]
            for values, array in (
                (answers, expected.experts),
                (row["sensitivities"], expected.sensitivities),
                (row["loss_gradient"], expected.loss_gradients),
            ):
                assert np.array(values, np.float32).tobytes() == np.ascontiguousarray(array[i]).tobytes()
        post(service, f"{MODEL}:rollback", {"seq": 1}, wait=True)
        assert explain(service, rows[:3], min_seq=7) == first

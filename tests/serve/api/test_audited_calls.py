"""Loads and unloads are recorded in the audit log, with the key that made the call, and the outcome."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.access.scopes import Scope
from tests.support.api_keys import add_key, bearer
from tests.support.http_requests import request
from tests.support.server_pair import Pair

PATH = "/v2/repository/models"
EMPTY = b"{}"


def lines_of(pair: Pair) -> list[dict[str, Any]]:
    """Return the lines of the audit log, without their times."""
    path = pair.settings.audit_path
    lines = path.read_text().splitlines() if path.exists() else []
    return [{name: value for name, value in json.loads(line).items() if name != "time"} for line in lines]


def call(pair: Pair, target: str, *headers: tuple[str, str]) -> int:
    """Make a call and return the status of the answer."""
    (answer,) = pair.ask(request("POST", f"{PATH}/{target}", EMPTY, headers))
    return answer.status


def test_calls_are_recorded_with_their_keys(iris_models: Path, paired: Callable[..., Pair], tmp_path: Path) -> None:
    """A line names the key, the call, the model and the request; a call that is refused for its key has none."""
    path = tmp_path / "keys.json"
    key, weak = add_key(path), add_key(path, Scope.PREDICT)
    pair = paired(iris_models, keys_file=path)
    assert call(pair, "iris/unload", bearer(weak)) == 403
    assert call(pair, "iris/unload", bearer(key)) == 200
    assert call(pair, "iris/load", bearer(key)) == 200
    rest = {"actor": f"key:{key[9:17]}", "object": "iris", "outcome": "done", "request_id": "test"}
    assert lines_of(pair) == [{**rest, "action": "unload"}, {**rest, "action": "load"}]
    assert key[18:] not in pair.settings.audit_path.read_text()


def test_a_call_without_effect_is_recorded_with_its_code(iris_models: Path, paired: Callable[..., Pair]) -> None:
    """The outcome is the code of the error; a name of no model is not recorded."""
    pair = paired(iris_models)
    (iris_models / "iris" / "1" / "model.json").write_text("{")
    assert call(pair, "iris/load") == 400
    assert call(pair, "canary/load") == 404
    assert call(pair, "canary/unload") == 404
    (line,) = lines_of(pair)
    assert (line["actor"], line["action"], line["outcome"]) == ("anyone", "load", "load_refused")


def test_an_audit_log_that_fails_stops_no_call(
    iris_models: Path, paired: Callable[..., Pair], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An unload is carried out, and the log of the service has a line in its place."""
    pair = paired(iris_models, audit_file=tmp_path)
    assert call(pair, "iris/unload") == 200
    assert "iris" not in [name for name, _ in pair.worker.registry.now.served]
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.getMessage() == "anyone: unload of iris: done; the audit log has no such line: Is a directory"

"""Replicas whose clocks differ by hours learn the same, and decide by the database's clock who is there."""

import contextlib
import time
from pathlib import Path
from typing import Any

import pytest

from service.store.log.postgres import PostgresLog
from tests.support.learning_client import IRIS, metadata, post
from tests.support.log_replicas import learned, predict, readiness, replica, teach
from tests.support.paths import ROOT
from tests.support.running_service import Service
from tests.support.waiting import SECONDS, wait_until

FOLDER = ROOT / "tests" / "support" / "skewed_clock"
HOUR = 3600
AHEAD = 29 * HOUR
TOKENS_LAST = 2 * HOUR  # less than the clocks differ by


def token_of(service: Service) -> Any:
    (token,) = predict(service, feedback_tokens=True)["feedback_tokens"]
    return token


def use_token(service: Service, token: str) -> int:
    return post(service, "iris:feedback", {"tokens": [token], "labels": ["setosa"]}).status_code


def test_replicas_learn_and_erase_whatever_their_clocks_say(iris_models: Path, tmp_path: Path, address: str) -> None:
    """Order, waiting, comparisons of seqs, liveness and erasure depend on no clock of a replica.

    A token's age does: it is the difference of the clocks of two replicas, and one of the future counts as new.
    """
    tokens = {"SOFTSTEP_TOKEN_SECONDS": TOKENS_LAST}
    skewed = {"PYTHONPATH": f"{FOLDER}:{ROOT}", "CLOCK_OFFSET": AHEAD}
    with (
        replica(iris_models, tmp_path / "a", address, **tokens, **skewed) as a,
        replica(iris_models, tmp_path / "b", address, **tokens) as b,
    ):
        for number in range(4):
            (seq,) = teach(a, f"a{number}")
            assert predict(b, min_seq=seq)["seq"] >= seq
            waited = post(b, "iris:feedback", {"id": f"b{number}", "instances": [IRIS], "labels": [1]}, wait=True)
            assert (waited.status_code, waited.json()["seq"]) == (200, seq + 1)
        assert learned(a, 8) == learned(b, 8)
        assert post(b, "iris:configure", {"paused": True, "if_seq": 3}).status_code == 409
        check_log(address)
        assert post(b, "iris:forget", {"ids": ["a1"], "if_seq": 8}).status_code in {200, 202}
        for service in (a, b):
            wait_until(lambda service=service: metadata(service, "iris")["erased"], 4 * SECONDS)
            assert readiness(service) == 200
        assert learned(a, 9) == learned(b, 9)
        assert use_token(b, token_of(a)) == 202
        assert use_token(a, token_of(b)) == 422


def check_log(address: str) -> None:
    """Check that events have the times of their replicas, and that replicas are seen by the database's clock."""
    with contextlib.closing(PostgresLog(address, copies=1)) as log:
        (stream,) = log.list_streams()
        ages = [time.time() - event.time_ms / 1000 for event in log.read_events(stream.number, 0, 8)]
        assert ages == pytest.approx([-AHEAD, 0] * 4, abs=HOUR)
        assert [replica.seconds < 60 for replica in log.facts.list_replicas()] == [True, True]

"""Tokens reach the version that issued them, in one transaction, and each bad token refuses itself alone.

The fast server and the plain one answer, with a real log and without a learner.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.serve.handlers import feedback, token_feedback
from service.serve.handlers.feedback_context import now_ms
from service.store.artifact.artifact import read_artifact
from service.store.artifact.fingerprint import compute_geneses
from service.store.log.feedback_blocks import decode_rows
from service.store.log.sqlite import SqliteLog
from tests.support.error_bodies import check_error
from tests.support.format_1_tokens import seal_format_1
from tests.support.http_connection import Response
from tests.support.http_requests import instances, request
from tests.support.paths import SHIPPED
from tests.support.server_pair import Pair

ROW = [5.1, 3.5, 1.4, 0.2]
OTHER = [6.7, 3.0, 5.2, 2.3]
KEY = bytes(32)  # of the servers of a pair
SPEEDS = pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])


@pytest.fixture
def two(paired: Callable[..., Pair], versions: Path, tmp_path: Path) -> Pair:
    shutil.copytree(versions, tmp_path / "models")
    return paired(tmp_path / "models")


def post(pair: Pair, path: str, *, fast: bool = True, **body: Any) -> Response:
    (answer,) = pair.ask(request("POST", f"/v1/models/iris{path}", json.dumps(body).encode()), fast=fast)
    return answer


def issue(pair: Pair, version: int, *rows: list[float]) -> list[str]:
    """Tokens of predictions of one version."""
    (answer,) = pair.ask(
        request(
            "POST",
            f"/v1/models/iris/versions/{version}:predict",
            instances(list(rows) or [ROW], feedback_tokens=True),
        )
    )
    tokens: list[str] = answer.json["feedback_tokens"]
    return tokens


def issue_old(version: int, row: list[float] = ROW) -> str:
    """A token of format 1, as an earlier release issued it for a version."""
    genesis = compute_geneses(read_artifact(SHIPPED / "iris" / "1", 1 << 20))[-1]
    return seal_format_1(KEY, genesis, "iris", version, np.array(row, "<f4").tobytes(), now_ms())


def stored(pair: Pair) -> dict[int, list[list[float]]]:
    """The rows of the feedback in the log, by version."""
    with closing(SqliteLog(pair.settings.data / "log.sqlite")) as log:
        return {
            stream.version: [
                decode_rows(event.payload).X[0].round(3).tolist()
                for event in log.read_events(stream.number, 0, 100)
                if event.kind == 1 and event.payload is not None
            ]
            for stream in log.list_streams()
        }


def seqs(answer: Response) -> list[tuple[int, str | None]]:
    """The seq of each event, and its version if that is not the one asked."""
    return [(event["seq"], event.get("model_version")) for event in answer.json["events"]]


def codes(answer: Response) -> list[str | None]:
    """The code of each token, or None if it is kept."""
    check_error(answer.status, dict(answer.headers), answer.body)
    return [event.get("code") for event in answer.json["events"]]


def rescan(pair: Pair) -> None:
    pair.run(pair.worker.load_unload.rescan_models())


@SPEEDS
def test_a_token_reaches_its_version_after_a_release(two: Pair, *, fast: bool) -> None:
    """A token of either format that is posted to the model is stored by the version that issued it."""
    (token,), old = issue(two, 2), issue_old(1, OTHER)
    shutil.copytree(SHIPPED / "iris" / "1", two.settings.models / "iris" / "3")
    rescan(two)
    answer = post(two, ":feedback", tokens=[token, old], labels=["setosa", 2], fast=fast)
    assert (answer.status, answer.json["model_version"]) == (202, "3")
    assert seqs(answer) == [(1, "2"), (1, "1")]
    again = post(two, ":feedback", tokens=[old], labels=["virginica"], fast=fast)
    assert [event["duplicate"] for event in again.json["events"]] == [True]
    assert {version: len(rows) for version, rows in stored(two).items()} == {1: 1, 2: 1}


@SPEEDS
def test_a_body_may_mix_versions_and_formats(two: Pair, *, fast: bool) -> None:
    """All events are written by one append, each row to its version, and answered in their order."""
    first, third = issue(two, 2, ROW, OTHER)
    tokens = [first, issue_old(1, ROW), third, *issue(two, 1, OTHER)]
    answer = post(two, ":feedback", tokens=tokens, labels=[0, 0, 1, 1], fast=fast)
    assert answer.status == 202
    assert seqs(answer) == [(1, None), (1, "1"), (2, None), (2, "1")]
    rows = [np.array(row, "f4").round(3).tolist() for row in (ROW, OTHER)]
    assert stored(two) == {1: rows, 2: rows}


def test_labels_are_read_with_the_classes_of_their_version(two: Pair) -> None:
    """A class that only version 1 has is known for its tokens; for those of version 2 it refuses the whole body."""
    assert post(two, "/versions/1:classes", add=["gigantea"]).status == 202
    tokens = [*issue(two, 1), *issue(two, 2)]
    answer = post(two, ":feedback", tokens=tokens, labels=[0, "gigantea"])
    assert (answer.status, list(answer.json)) == (422, ["error", "code"])
    assert "row 1" in answer.json["error"]
    assert stored(two) == {1: []}
    # Without a learner version 1 still serves three classes, so the log refuses its event, and that alone.
    answer = post(two, ":feedback", tokens=tokens, labels=[0, "setosa"])
    assert (answer.status, codes(answer)) == (409, ["classes_changed", None])
    assert (answer.json["code"], answer.json["reason"], answer.json["accepted"]) == (
        "some_refused",
        "classes_changed",
        1,
    )


@SPEEDS
def test_each_bad_token_refuses_itself_alone(two: Pair, *, fast: bool) -> None:
    """The status is that of the first refusal; every token has its seq or its code, and the good ones are stored."""
    (good,), (taken,) = issue(two, 2), issue(two, 1)
    assert post(two, ":feedback", tokens=[taken], labels=[0]).status == 202
    forged = good[:-8] + ("AAAAAAAA" if good[-8:] != "AAAAAAAA" else "BBBBBBBB")
    tokens, labels = [taken, forged, good, "", issue_old(1)], [1, 0, 0, "no class", 2]
    answer = post(two, ":feedback", tokens=tokens, labels=labels, fast=fast)
    assert (answer.status, codes(answer)) == (409, ["id_taken", "invalid_token", None, "invalid_token", None])
    document = answer.json
    assert (document["code"], document["reason"]) == ("some_refused", "id_taken")
    assert (document["accepted"], document["refused"]) == (2, [0, 1, 3])
    assert "others are stored" in document["error"]
    kept = document["events"][2]
    assert kept == {"id": kept["id"], "seq": 1, "duplicate": False}
    assert document["events"][4]["model_version"] == "1"
    assert [set(event) for event in document["events"][:2]] == [{"id", "code"}, {"code"}]
    again = post(two, ":feedback", tokens=[forged, good], labels=[0, 0], fast=fast)
    assert (again.status, codes(again)) == (422, ["invalid_token", None])
    assert (again.json["reason"], again.json["events"][1]["duplicate"]) == ("invalid_token", True)


@SPEEDS
@pytest.mark.parametrize("query", ["", "?wait=true"])
def test_refused_tokens_have_their_codes(two: Pair, query: str, *, fast: bool) -> None:
    """If all are refused, the code is that of the first, nothing is accepted, and nothing is stored."""
    tokens = [*issue(two, 1), "é", issue_old(1)]
    answer = post(two, f"/versions/2:feedback{query}", tokens=tokens, labels=[0, 0, 0], fast=fast)
    assert (answer.status, codes(answer)) == (
        422,
        ["token_of_other_version", "invalid_token", "token_of_other_version"],
    )
    assert (answer.json["code"], answer.json["accepted"], answer.json["refused"]) == (
        "token_of_other_version",
        0,
        [0, 1, 2],
    )
    assert "Token 0 " in answer.json["error"]
    (answer,) = (post(two, f"/versions/2:feedback{query}", tokens=tokens[:1], labels=[0], fast=fast),)
    assert codes(answer) == ["token_of_other_version"]
    assert not stored(two)


def test_a_token_of_a_version_that_is_not_served_is_refused_alone(two: Pair) -> None:
    """It is kept once the version is served again."""
    tokens = [*issue(two, 1), *issue(two, 2)]
    (two.settings.models / "iris" / "1").rename(two.settings.models.parent / "1")
    rescan(two)
    answer = post(two, ":feedback", tokens=tokens, labels=[0, 0])
    assert (answer.status, codes(answer)) == (409, ["version_not_served", None])
    (two.settings.models.parent / "1").rename(two.settings.models / "iris" / "1")
    rescan(two)
    answer = post(two, ":feedback", tokens=tokens, labels=[0, 0])
    assert (answer.status, seqs(answer)) == (202, [(1, "1"), (1, None)])


@pytest.mark.parametrize("query", ["", "?wait=true"])
def test_a_bad_label_or_weight_stores_nothing(two: Pair, query: str) -> None:
    """The whole body is refused, whatever the version of its token."""
    tokens: Sequence[str] = [*issue(two, 1), *issue(two, 2), "invalid"]
    for body in ({"labels": [0, 9, 0]}, {"labels": [[1], 0, 0]}, {"labels": [0, 0, 0], "weights": [1, 0, 1]}):
        answer = post(two, f":feedback{query}", tokens=tokens, **body)
        assert (answer.status, list(answer.json)) == (422, ["error", "code"])
    assert not stored(two)


@SPEEDS
def test_many_tokens_are_read_in_turns(two: Pair, monkeypatch: pytest.MonkeyPatch, *, fast: bool) -> None:
    """A large body is answered as a small one, also if a label late in it refuses it, or every token is refused."""
    for module in (feedback, token_feedback):
        monkeypatch.setattr(module, "TOKENS_PER_TURN", 2)
    tokens = [*issue(two, 1, ROW, OTHER, ROW), *issue(two, 2, OTHER, ROW), "bad"]
    refused = post(two, ":feedback", tokens=tokens, labels=[0, 1, 2, 0, "no class", 0], fast=fast)
    assert (refused.status, list(refused.json)) == (422, ["error", "code"])
    assert "row 4" in refused.json["error"]
    every = post(two, ":feedback", tokens=["bad"] * 5, labels=[0] * 5, fast=fast)
    assert (every.status, codes(every)) == (422, ["invalid_token"] * 5)
    assert not stored(two)
    answer = post(two, ":feedback", tokens=tokens, labels=[0] * 6, fast=fast)
    assert (answer.status, codes(answer)) == (422, [None] * 5 + ["invalid_token"])
    assert "Token 5 " in answer.json["error"]
    again = post(two, ":feedback", tokens=tokens[:5], labels=[0] * 5, fast=fast)
    assert (again.status, seqs(again)) == (202, [(1, "1"), (2, "1"), (3, "1"), (1, None), (2, None)])
    assert two.run(two.settled()) == (0, 0)


def test_a_removed_event_is_refused_by_its_token(two: Pair) -> None:
    """Tokens whose events were rolled back or forgotten have those codes, beside a token that is a duplicate."""
    tokens = issue(two, 1, ROW, OTHER, ROW)
    first = post(two, ":feedback", tokens=tokens, labels=[0, 1, 2])
    ids = [event["id"] for event in first.json["events"]]
    assert post(two, "/versions/1:forget", ids=ids[1:2]).status == 202
    assert post(two, "/versions/1:rollback", seq=2).status == 202
    answer = post(two, ":feedback", tokens=tokens, labels=[0, 1, 2])
    assert (answer.status, codes(answer)) == (409, [None, "forgotten", "rolled_back"])
    assert answer.json["events"][0] == {"id": ids[0], "seq": 1, "duplicate": True, "model_version": "1"}
    assert answer.json["events"][1] == {"id": ids[1], "code": "forgotten"}


def test_only_the_tokens_of_a_slow_version_wait(paired: Callable[..., Pair], versions: Path) -> None:
    """Tokens of a version that learns too slowly are refused alone with 429; also events by token count."""
    pair = paired(versions, lag_events_max=1)
    tokens = issue(pair, 1, ROW, OTHER, ROW)
    assert [post(pair, ":feedback", tokens=[token], labels=[0]).status for token in tokens] == [202, 202, 429]
    answer = post(pair, ":feedback", tokens=[*issue(pair, 2), tokens[2]], labels=[0, 0])
    assert (answer.status, codes(answer)) == (429, [None, "learner_behind"])
    assert answer.header("retry-after") == "1"


def test_refused_tokens_are_counted(two: Pair) -> None:
    """A token that cannot be opened counts as a refused event of the version that was asked."""
    post(two, ":feedback", tokens=["x", *issue(two, 2)], labels=[0, 0])
    (metrics,) = two.ask(request("GET", "/metrics"))
    line = 'softstep_feedback_refusals_total{model="iris",version="2"} 1.0'
    assert line in metrics.body.decode()

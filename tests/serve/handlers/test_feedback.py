"""Feedback to a model with several versions, and what becomes of it later.

The fast server and the plain one answer, with a real log and without a learner.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service.store.artifact import fingerprint as genesis
from service.store.artifact.artifact import read_artifact
from service.store.log.admin_payloads import dump_seq
from service.store.log.events import Draft, Event, Kind
from service.store.log.sqlite import SqliteLog
from tests.support.http_connection import ClientConnection, Response
from tests.support.http_requests import instances, request
from tests.support.paths import SHIPPED
from tests.support.server_pair import Pair

ROW = [5.1, 3.5, 1.4, 0.2]
OTHER = [6.7, 3.0, 5.2, 2.3]


@pytest.fixture
def two(paired: Callable[..., Pair], versions: Path) -> Pair:
    return paired(versions)


def post(pair: Pair, path: str, body: bytes, *, fast: bool = True) -> Response:
    (answer,) = pair.ask(request("POST", f"/v1/models/iris{path}", body), fast=fast)
    return answer


def post_row(pair: Pair, path: str, id_: str, row: list[float] = ROW, label: int = 0, *, fast: bool = True) -> Response:
    return post(pair, path, instances([row], id=id_, labels=[label]), fast=fast)


def events(pair: Pair) -> dict[int, list[Event]]:
    """Everything in the log, by version."""
    learning = pair.worker.learning
    assert learning is not None

    async def read() -> dict[int, list[Event]]:
        return await learning.writer.call_with_log(
            lambda log: {stream.version: log.read_events(stream.number, 0, 100) for stream in log.list_streams()}
        )

    return pair.run(read())


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
def test_a_duplicate_names_the_version_that_holds_it(two: Pair, *, fast: bool) -> None:
    """A retry after a deploy gets the seq and the version of the stored event."""
    assert post_row(two, "/versions/2:feedback", "x", OTHER, fast=fast).json["seq"] == 1
    assert post_row(two, "/versions/1:feedback", "a", fast=fast).json["model_version"] == "1"
    again = post_row(two, ":feedback", "a", fast=fast)
    assert again.status == 202
    assert again.json == {"model_name": "iris", "model_version": "1", "id": "a", "seq": 1, "duplicate": True}
    own = post_row(two, ":feedback", "x", OTHER, fast=fast)
    assert own.json == {"model_name": "iris", "model_version": "2", "id": "x", "seq": 1, "duplicate": True}
    assert {version: len(stored_events) for version, stored_events in events(two).items()} == {1: 1, 2: 1}


def forget(pair: Pair, path: str, ids: list[str], **more: Any) -> Response:
    return post(pair, path, instances(None, ids=ids, **more).replace(b'"instances": null, ', b""))


def test_ids_are_forgotten_in_whichever_versions_hold_them(two: Pair) -> None:
    """One call adds an event to each version, and a retry finds them; a version in the path limits the call to it."""
    post_row(two, "/versions/1:feedback", "a")
    post_row(two, "/versions/1:feedback", "b", OTHER)
    post_row(two, "/versions/2:feedback", "c")
    assert forget(two, "/versions/2:forget", ["a"]).status == 404
    first = forget(two, ":forget", ["a", "c", "b"], id="removal")
    assert first.status == 202
    stored_events = [
        {"id": "removal", "seq": 2, "duplicate": False},
        {"id": "removal/1", "seq": 3, "duplicate": False, "model_version": "1"},
    ]
    assert first.json == {"model_name": "iris", "model_version": "2", "events": stored_events}
    again = forget(two, ":forget", ["b", "a", "c"], id="removal")
    assert again.json["events"] == [{**event, "duplicate": True} for event in stored_events]
    stored = events(two)
    assert [(one.kind, one.payload) for one in stored[1]] == [(1, None), (1, None), (Kind.FORGET, b'{"seqs":[1,2]}')]
    assert [(one.kind, one.payload) for one in stored[2]] == [(1, None), (Kind.FORGET, b'{"seqs":[1]}')]
    answer = post_row(two, ":feedback", "a")
    assert (answer.status, answer.json["code"]) == (409, "forgotten")


def test_ids_of_one_other_version_are_forgotten_there(two: Pair) -> None:
    """The answer names that version, and `if_seq` is of its stream."""
    post_row(two, "/versions/1:feedback", "a")
    post_row(two, "/versions/2:feedback", "c")
    post_row(two, "/versions/2:feedback", "d")
    assert forget(two, ":forget", ["a"], if_seq=2).status == 409
    answer = forget(two, ":forget", ["a"], if_seq=1, id="removal")
    assert answer.json == {"model_name": "iris", "model_version": "1", "id": "removal", "seq": 2, "duplicate": False}


@pytest.mark.parametrize(
    ("ids", "more", "status"),
    [
        (["a", "c", "never"], {}, 404),
        (["a", "c", "pause"], {}, 404),
        (["a", "c"], {"if_seq": 1}, 422),
        (["a", "c"], {"id": "x" * 128}, 422),
    ],
    ids=["unknown", "no feedback", "if_seq", "long id"],
)
def test_all_is_forgotten_or_nothing(two: Pair, ids: list[str], more: dict[str, Any], status: int) -> None:
    """An unknown id, or a call that is valid for one version only, changes no version."""
    post_row(two, "/versions/1:feedback", "a")
    post_row(two, "/versions/2:feedback", "c")
    assert post(two, ":configure", b'{"paused": true, "id": "pause"}').status == 202
    before = events(two)
    answer = forget(two, ":forget", ids, **more)
    assert (answer.status, list(answer.json)) == (status, ["error", "code"])
    assert events(two) == before


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
def test_what_was_removed_is_not_acknowledged(two: Pair, *, fast: bool) -> None:
    """A retry of an event that was rolled back or skipped is refused; after a rollback to its seq it is a duplicate."""
    retry = partial(post_row, two, "/versions/1:feedback", fast=fast)
    assert [retry(id_).status for id_ in ("a", "b", "c")] == [202] * 3
    skip(two, 2)
    assert (retry("b").status, retry("b").json["code"]) == (409, "skipped")
    assert post(two, "/versions/1:rollback", b'{"seq": 1, "id": "back"}').status == 202
    answers = {id_: (retry(id_).status, retry(id_).json.get("code")) for id_ in ("a", "b", "c")}
    assert answers == {"a": (202, None), "b": (409, "skipped"), "c": (409, "rolled_back")}
    assert retry("c", OTHER).json["code"] == "id_taken"
    assert post(two, "/versions/1:rollback", b'{"seq": 4}').status == 202
    assert retry("c").json == {"model_name": "iris", "model_version": "1", "id": "c", "seq": 3, "duplicate": True}
    back = post(two, "/versions/1:rollback", b'{"seq": 1, "id": "back"}', fast=fast)
    assert (back.status, back.json["code"]) == (409, "rolled_back")
    assert forget(two, "/versions/1:forget", ["b", "c"], id="out").status == 202
    assert (retry("b").json["code"], retry("c").json["code"]) == ("forgotten", "forgotten")
    assert forget(two, "/versions/1:forget", ["b", "c"], id="out").json["duplicate"] is True


def skip(pair: Pair, seq: int) -> None:
    """Skip an event of version 1, as `softstep skip` does beside a running service."""
    with closing(SqliteLog(pair.settings.data / "log.sqlite")) as log:
        number = next(stream.number for stream in log.list_streams() if stream.version == 1)
        log.append([Draft(number, Kind.SKIP, b"skip", dump_seq(seq), 0)])


def head_without_id(body: bytes) -> bytes:
    """A request with a head that the protocol remembers."""
    head = b"POST /v1/models/iris:feedback HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    return head + body


def named(id_: str) -> bytes:
    return head_without_id(instances([ROW], id=id_, labels=[0]))


def test_the_event_of_a_client_that_disconnects_is_stored(two: Pair) -> None:
    """A remembered head does not change that; other clients get answers, and nothing stays in flight."""
    learning = two.worker.learning
    assert learning is not None
    shared_state, held = two.worker.shared, threading.Event()

    async def talk(client: ClientConnection) -> Response:
        assert (await client.ask(named("a"))).status == 202
        writing = learning.writer.call_with_log(lambda _log: held.wait(10))
        async with two.connect() as leaving:
            leaving.end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # it ends with a reset
            await leaving.send(named("c"))
            async with asyncio.timeout(5):
                while shared_state.in_flight < 1:  # noqa: ASYNC110  # no event reports it
                    await asyncio.sleep(0.01)
            await client.send(named("d"))
        async with asyncio.timeout(5):
            while len(two.connections) > 1:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.01)
        held.set()
        await writing
        return await client.read()

    answer = two.talk(talk)
    assert (answer.status, answer.json["id"]) == (202, "d")
    assert two.run(two.settled()) == (0, 0)
    assert [event.id for event in events(two)[2]] == [b"a", b"c", b"d"]


def test_a_fault_is_answered(two: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A fault while a body is parsed or an answer is encoded gives 500, and the connection stays usable."""
    learning = two.worker.learning
    assert learning is not None

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    async def talk(client: ClientConnection) -> list[int]:
        statuses = [(await client.ask(named("a"))).status]
        with monkeypatch.context() as patch:
            patch.setattr(learning.feedback, "_context_of", broken)
            statuses.append((await client.ask(named("b"))).status)
        with monkeypatch.context() as patch:
            patch.setattr(learning.feedback, "_encode_one", broken)
            statuses.append((await client.ask(named("c"))).status)
        return [*statuses, (await client.ask(named("d"))).status]

    assert two.talk(talk) == [202, 500, 500, 202]
    assert "ZeroDivisionError" in caplog.text
    assert two.run(two.settled()) == (0, 0)


def test_a_stream_of_an_earlier_fold_accepts_feedback(two: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an upgrade a stream accepts feedback of the model that it began with, and of no other."""
    artifact = read_artifact(SHIPPED / "iris" / "1", 1 << 20)
    learning = two.worker.learning
    assert learning is not None

    async def begin(version: int, fold: int) -> None:
        await learning.writer.call_with_log(
            lambda log: log.open_stream("iris", version, genesis.compute_genesis(artifact, fold), 3)
        )

    monkeypatch.setattr(genesis, "FOLD_VERSION", genesis.FOLD_VERSION + 1)
    two.run(begin(2, genesis.FOLD_VERSION - 1))
    two.run(begin(1, genesis.FOLD_VERSION + 1))
    assert post_row(two, ":feedback", "behind").json["seq"] == 1
    assert post_row(two, "/versions/1:feedback", "other").status == 409

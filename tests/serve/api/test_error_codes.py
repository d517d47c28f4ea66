"""Every code of the table of error codes is sent over a socket, with the status and Retry-After that the table gives.

Each case is a server with settings or files that cause the error, and the request that gets it. The log's errors come
from a real log: over a disk that fails, under a lock, or with a byte of its file changed.
"""

import json
import re
import shutil
import socket
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import apsw
import pytest

from service.access.key_file import LimitsRecord
from service.access.scopes import Scope
from service.learn.fold_upgrade import take_over
from service.serve.api.schemas.error_examples import SENTENCES
from service.serve.error_codes import ERROR_CODES, SOME_REFUSED
from service.serve.models import load_unload
from service.store.artifact.artifact import write_artifact
from service.store.artifact.fingerprint import FOLD_VERSION
from service.store.directory import log_opening
from service.store.log import database
from service.store.log.admin_payloads import dump_seq
from service.store.log.events import Draft, Kind
from service.store.log.sqlite import SqliteLog
from tests.support.api_keys import add_key, bearer
from tests.support.artifacts import artifact
from tests.support.data_directories import History, iris_artifact
from tests.support.disk_faults import Disk, Fault
from tests.support.error_bodies import check_error
from tests.support.field_artifacts import field_artifact
from tests.support.history_machine import restore_fold_version, set_fold_version
from tests.support.http_connection import ClientConnection, Response
from tests.support.http_requests import instances, request
from tests.support.jwt_issuer import AUDIENCE, ISSUER, issuer_key
from tests.support.make_fold1 import GOLDEN
from tests.support.model_artifacts import make_artifact
from tests.support.scripts import load_script
from tests.support.server_pair import Pair
from tests.support.waiting import SECONDS, wait_until

ROW = [5.1, 3.5, 1.4, 0.2]
IRIS = "/v1/models/iris"
PREDICT = request("POST", f"{IRIS}:predict", instances([ROW]))
NAMES = [str(number) for number in range(12_000)]


class Scene(NamedTuple):
    """What a case works with.

    Attributes:
        root: A models directory that holds iris version 1, of the case's own.
        data: The case's data directory.
        shared: A server of the shipped models and one of each further kind, shared by all tests.
        stack: Ends servers at the end of the case.
        monkeypatch: Replaces attributes during the case.
    """

    root: Path
    data: Path
    shared: Pair
    stack: ExitStack
    monkeypatch: pytest.MonkeyPatch

    def start(self, **settings: Any) -> Pair:
        """Start a server of the case's models and data directory."""
        return self.stack.enter_context(Pair(self.root, **{"data": self.data, **settings}))


Case = Callable[[Scene], Response]
CASES: dict[str, Case] = {}


def case(code: str) -> Callable[[Case], Case]:
    """Add a case to the table."""

    def add(function: Case) -> Case:
        CASES[code] = function
        return function

    return add


@pytest.fixture
def scene(iris_models: Path, tmp_path: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(iris_models, tmp_path / "data", pair, stack, monkeypatch)


def ask(pair: Pair, data: bytes) -> Response:
    """Send a request over a connection of its own."""
    return pair.ask(data)[0]


def get(pair: Pair, target: str) -> Response:
    return ask(pair, request("GET", target))


def post(pair: Pair, path: str, **body: Any) -> Response:
    """Send a call of iris."""
    return ask(pair, request("POST", f"{IRIS}{path}", json.dumps(body).encode()))


def feed(pair: Pair, id_: str, label: int = 0, path: str = ":feedback") -> Response:
    """Send feedback of one row."""
    return post(pair, path, instances=[ROW], labels=[label], id=id_)


def tokens(pair: Pair, count: int) -> list[str]:
    """Ask for feedback tokens."""
    sealed: list[str] = post(pair, ":predict", instances=[ROW] * count, feedback_tokens=True).json["feedback_tokens"]
    return sealed


# Requests that any server refuses

REQUESTS = {
    "malformed_http": b"not HTTP\r\n\r\n",
    "invalid_target": request("GET", "http://softstep"),
    "malformed_body": request("POST", f"{IRIS}:predict", b'{"instances": '),
    "model_not_found": request("POST", "/v1/models/unknown:predict", instances([ROW])),
    "version_not_found": request("POST", f"{IRIS}/versions/9:predict", instances([ROW])),
    "model_not_named": request("POST", "/invocations", instances([ROW])),
    "unknown_id": request("POST", f"{IRIS}:forget", b'{"ids": ["unknown"]}'),
    "seq_not_found": request("GET", f"{IRIS}/weights?seq=999999"),
    "not_found": request("GET", "/unknown"),
    "method_not_allowed": request("GET", f"{IRIS}:predict"),
    "classes_fixed": request("POST", "/v1/models/platt:classes", b'{"add": ["maybe"]}'),
    "seq_moved": request("POST", f"{IRIS}:rollback", b'{"seq": 0, "if_seq": 999999}'),
    "malformed_encoding": request("POST", f"{IRIS}:predict", b"{}", [("Content-Encoding", "gzip")]),
    "unsupported_encoding": request("POST", f"{IRIS}:predict", b"{}", [("Content-Encoding", "br")]),
    "unsupported_media_type": request("POST", f"{IRIS}:predict", b"{}", [("Content-Type", "text/csv")]),
    "cross_site": request("POST", f"{IRIS}:feedback", b"{}", [("Origin", "https://a.example")]),
    "invalid_request": request("POST", f"{IRIS}:predict", instances([ROW[:3]])),
    "invalid_parameter": request("POST", f"{IRIS}:feedback?wait=perhaps", instances([ROW], labels=[0])),
    "invalid_token": request("POST", f"{IRIS}:feedback", b'{"tokens": ["forged"], "labels": [0]}'),
    "unknown_seq": request("POST", f"{IRIS}:rollback", b'{"seq": 999999}'),
    "head_too_large": request("GET", "/" + "x" * 50_000),
    "host_not_permitted": PREDICT.replace(b"localhost", b"a.example"),
}


# Limits and states of a server


@case("request_timeout")
def slow_request(scene: Scene) -> Response:
    async def stall(client: ClientConnection) -> Response:
        await client.send(b"GET /healthz HTTP/1.1\r\n")
        return await client.read()

    return scene.start(header_seconds=0.2).talk(stall)


@case("body_too_large")
def large_body(scene: Scene) -> Response:
    return ask(scene.start(body_bytes_max=10), PREDICT)


@case("not_in_role")
def learner_role(scene: Scene) -> Response:
    return ask(scene.start(role="learner", log="postgresql://localhost:1/none"), PREDICT)


@case("request_too_large")
def many_rows(scene: Scene) -> Response:
    return post(scene.start(rows_max=1), ":predict", instances=[ROW, ROW])


@case("overloaded")
def many_bytes(scene: Scene) -> Response:
    return ask(scene.start(body_bytes_in_flight_max=10), PREDICT)


@case("not_ready")
def no_models(scene: Scene) -> Response:
    shutil.rmtree(scene.root / "iris")
    return get(scene.start(), "/readyz")


@case("model_not_ready")
def damaged_model(scene: Scene) -> Response:
    (scene.root / "iris" / "1" / "model.json").write_text("{")
    return ask(scene.start(), PREDICT)


@case("load_pending")
def busy_parent(scene: Scene) -> Response:
    pair = scene.start()
    pair.loop.call_soon_threadsafe(pair.loop.remove_reader, pair.orders)
    scene.monkeypatch.setattr(load_unload, "ACKNOWLEDGE_SECONDS", 0.1)
    return ask(pair, request("POST", "/v2/repository/models/iris/load"))


@case("load_refused")
def damaged_newest_version(scene: Scene) -> Response:
    pair = scene.start()
    shutil.copytree(scene.root / "iris" / "1", scene.root / "iris" / "2")
    (scene.root / "iris" / "2" / "model.safetensors").write_bytes(b"damaged")
    return ask(pair, request("POST", "/v2/repository/models/iris/load"))


@case("rule_fixed")
def model_of_zero_weights(scene: Scene) -> Response:
    write_artifact(scene.root / "new" / "1", artifact("zero"))
    return ask(scene.start(), request("POST", "/v1/models/new:configure", b'{"rule": "newton"}'))


@case("internal_error")
def broken_handler(scene: Scene) -> Response:
    pair = scene.start()
    assert pair.worker.learning is not None
    scene.monkeypatch.delattr(pair.worker.learning.feedback, "_writer")
    return feed(pair, "a")


@case("cors_refused")
def other_origin(scene: Scene) -> Response:
    pair = scene.start(cors_origins=("https://a.example",))
    allowed, refused = (
        ask(
            pair, request("OPTIONS", "/v1/models", None, [("Origin", origin), ("Access-Control-Request-Method", "GET")])
        )
        for origin in ("https://a.example", "https://b.example")
    )
    assert (allowed.status, allowed.header("access-control-allow-origin")) == (200, "https://a.example")
    assert str(refused.header("vary")).startswith("Origin")
    assert refused.header("access-control-allow-origin") is None
    return refused


# Rows with names


def predict_claim(scene: Scene, row: dict[str, Any], **settings: Any) -> Response:
    """Ask a model with fields about a row that lacks nothing else."""
    fields = (
        {"name": "age", "kind": "number"},
        {"name": "country", "kind": "category", "values": ["DE"], "unknown": "refuse"},
        {"name": "body", "kind": "text", "words": [1, 1], "bits": 4, "missing": "refuse"},
    )
    write_artifact(scene.root / "claims" / "1", field_artifact(fields))
    body = json.dumps({"instances": [{"body": "a late refund", **row}]}).encode()
    return ask(scene.start(**settings), request("POST", "/v1/models/claims:predict", body))


@case("invalid_value")
def wrong_value(scene: Scene) -> Response:
    return predict_claim(scene, {"age": "41"})


@case("missing_value")
def no_value(scene: Scene) -> Response:
    return predict_claim(scene, {"body": None})


@case("unknown_value")
def new_category(scene: Scene) -> Response:
    return predict_claim(scene, {"country": "PT"})


@case("unknown_field")
def other_name(scene: Scene) -> Response:
    return predict_claim(scene, {"Age": 41})


@case("too_many_entries")
def long_text(scene: Scene) -> Response:
    return predict_claim(scene, {"body": "one two three four"}, entries_max=3)


@case("learning_off")
def without_learning(scene: Scene) -> Response:
    pair = scene.start(learn=False)
    assert post(pair, ":rollback", seq=0).json["code"] == "learning_off"
    return feed(pair, "a")


# Keys


def ask_with_key(scene: Scene, key: str | None) -> Response:
    headers = [] if key is None else [bearer(key)]
    return ask(scene.start(), request("POST", f"{IRIS}:predict", instances([ROW]), headers))


@case("key_missing")
def no_key(scene: Scene) -> Response:
    add_key(scene.data / "keys.json")
    response = ask_with_key(scene, None)
    assert response.header("www-authenticate") == 'Bearer realm="softstep"'
    return response


@case("key_invalid")
def unknown_key(scene: Scene) -> Response:
    key = add_key(scene.data / "keys.json")
    response = ask_with_key(scene, key[:-1])
    assert response.header("www-authenticate") == 'Bearer realm="softstep", error="invalid_token"'
    return response


@case("issuer_unavailable")
def unread_key_set(scene: Scene) -> Response:
    keys = scene.data / "jwks.json"
    pair = scene.start(jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_keys=str(keys))
    return ask(pair, request("POST", f"{IRIS}:predict", instances([ROW]), [bearer(issuer_key().token())]))


@case("scope_missing")
def other_scope(scene: Scene) -> Response:
    return ask_with_key(scene, add_key(scene.data / "keys.json", Scope.FEEDBACK))


@case("model_not_permitted")
def other_model(scene: Scene) -> Response:
    return ask_with_key(scene, add_key(scene.data / "keys.json", models=("digits",)))


# Limits of keys


def start_limited(scene: Scene, **limits: float) -> tuple[Pair, tuple[str, str]]:
    """Start a server, and return the header that carries a key with limits."""
    key = add_key(scene.data / "keys.json", limits=LimitsRecord.model_validate(limits))
    return scene.start(), bearer(key)


def ask_limited(scene: Scene, call: str, body: bytes, **limits: float) -> Response:
    """Send the same call again until a limit refuses it; the first one is answered."""
    pair, header = start_limited(scene, **limits)
    first, *_, last = (ask(pair, request("POST", f"{IRIS}{call}", body, [header])) for _ in range(3))
    assert first.status in {200, 202}
    assert int(last.header("retry-after")) > 1
    return last


@case("too_many_requests")
def many_requests(scene: Scene) -> Response:
    return ask_limited(scene, ":predict", instances([ROW]), requests_per_second=0.01)


@case("too_many_rows")
def many_rows_a_second(scene: Scene) -> Response:
    return ask_limited(scene, ":predict", instances([ROW]), rows_per_second=0.01)


@case("too_much_feedback")
def much_feedback(scene: Scene) -> Response:
    return ask_limited(scene, ":feedback", instances([ROW], labels=[0]), feedback_events_per_hour=1)


@case("too_much_importance")
def much_importance(scene: Scene) -> Response:
    body = instances([ROW, ROW], labels=[0, 1], weights=[3.0, 4.0])
    return ask_limited(scene, ":feedback", body, importance_per_hour=7)


@case("too_many_in_flight")
def many_in_flight(scene: Scene) -> Response:
    pair, header = start_limited(scene, requests_in_flight=1)
    waiting = request("POST", f"{IRIS}:predict", instances([ROW], min_seq=1), [header])
    with socket.create_connection(pair.fast_listener.getsockname(), SECONDS) as end:
        end.sendall(waiting)
        wait_until(lambda: pair.worker.shared.in_flight == 1)
        return ask(pair, request("POST", f"{IRIS}:predict", instances([ROW]), [header]))


# Feedback that is refused


@case("id_taken")
def other_content(scene: Scene) -> Response:
    pair = scene.start()
    assert feed(pair, "a", 0).status == 202
    return feed(pair, "a", 1)


@case(SOME_REFUSED)
def one_of_two(scene: Scene) -> Response:
    pair = scene.start()
    sealed = tokens(pair, 2)
    assert post(pair, ":feedback", tokens=sealed[:1], labels=[0]).status == 202
    response = post(pair, ":feedback", tokens=sealed, labels=[1, 1])
    assert (response.status, response.json["reason"], response.json["refused"]) == (409, "id_taken", [0])
    return response


@case("token_expired")
def old_token(scene: Scene) -> Response:
    pair = scene.start(token_seconds=0.001)
    sealed = tokens(pair, 1)
    last: list[Response] = []

    def is_expired() -> bool:
        last[:] = [post(pair, ":feedback", tokens=sealed, labels=[0])]
        return last[0].status == 422

    wait_until(is_expired)
    return last[0]


@case("feedback_queue_full")
def full_queue(scene: Scene) -> Response:
    pair = scene.start(feedback_waiting_max=1)
    return post(pair, ":feedback", tokens=tokens(pair, 2), labels=[0, 0])


@case("learner_behind")
def no_learner(scene: Scene) -> Response:
    pair = scene.start(lag_events_max=1)
    assert [feed(pair, id_).status for id_ in ("a", "b")] == [202, 202]
    return feed(pair, "c")


@case("classes_changed")
def added_class(scene: Scene) -> Response:
    pair = scene.start()
    assert post(pair, ":classes", add=["gigantea"]).status == 202
    return feed(pair, "a")


@case("forgotten")
def correction_of_a_forgotten_event(scene: Scene) -> Response:
    pair = scene.start()
    assert feed(pair, "a").status == 202
    assert post(pair, ":forget", ids=["a"]).status == 202
    return post(pair, ":correct", ids=["a"], labels=[[1]])


@case("skipped")
def correction_of_a_skipped_event(scene: Scene) -> Response:
    pair = scene.start()
    assert feed(pair, "a").status == 202
    with closing(SqliteLog(scene.data / "log.sqlite")) as log:
        log.append([Draft(log.list_streams()[0].number, Kind.SKIP, b"skip", dump_seq(1), 0)])
    return post(pair, ":correct", ids=["a"], labels=[[1]])


@case("rolled_back")
def correction_of_a_rolled_back_event(scene: Scene) -> Response:
    pair = scene.start()
    assert feed(pair, "a").status == 202
    assert post(pair, ":rollback", seq=0).status == 202
    return post(pair, ":correct", ids=["a"], labels=[[1]])


@case("too_many_classes")
def classes_added_twice(scene: Scene) -> Response:
    """Add classes twice before the first are served: each call alone is below the limit."""
    pair = scene.start()
    assert post(pair, ":classes", add=NAMES[:6000]).status == 202
    return post(pair, ":classes", add=NAMES[6000:])


@case("stream_gone")
def purged_stream(scene: Scene) -> Response:
    pair = scene.start()
    assert feed(pair, "a").status == 202
    with closing(SqliteLog(scene.data / "log.sqlite")) as log:
        log.purge_stream(log.list_streams()[0].number)
    response = feed(pair, "b")
    assert feed(pair, "b").json["seq"] == 1
    return response


@case("artifact_changed")
def replaced_model(scene: Scene) -> Response:
    with Pair(scene.root, data=scene.data) as pair:
        assert feed(pair, "a").status == 202
    shutil.rmtree(scene.data / "streams")
    shutil.rmtree(scene.root / "iris")
    write_artifact(scene.root / "iris" / "1", make_artifact("softmax", 4, ["a", "b", "c"]))
    return feed(scene.start(), "b")


@case("token_of_other_version")
def token_of_another_version(scene: Scene) -> Response:
    shutil.copytree(scene.root / "iris" / "1", scene.root / "iris" / "2")
    pair = scene.start()
    return post(pair, "/versions/1:feedback", tokens=tokens(pair, 1), labels=[0])


# Events that are not served


@case("not_reached_yet")
def waiting_without_a_learner(scene: Scene) -> Response:
    pair = scene.start(wait_seconds=0.1, min_seq_seconds=0.1)
    assert post(pair, ":predict", instances=[ROW], min_seq=9).json["code"] == "not_reached_yet"
    response = feed(pair, "a", path=":feedback?wait=true")
    assert feed(pair, "a").json["duplicate"] is True
    return response


@case("version_not_served")
def removed_version(scene: Scene) -> Response:
    shutil.copytree(scene.root / "iris" / "1", scene.root / "iris" / "2")
    pair = scene.start()
    assert feed(pair, "a", path="/versions/2:feedback").status == 202
    shutil.rmtree(scene.root / "iris" / "2")
    pair.run(pair.worker.load_unload.rescan_models())
    return feed(pair, "a", path=":feedback?wait=true")


# States of the past


@case("state_pending")
def state_to_compute(scene: Scene) -> Response:
    """A later retry gets the state, which a process of its own folds meanwhile."""
    pair = scene.start()
    assert pair.worker.learning is not None
    assert feed(pair, "a").status == 202
    target = f"{IRIS}/weights?seq=1"
    response = get(pair, target)
    # No call of the service waits for the process that folds a past state.
    (task,) = pair.worker.learning.past_states._replays.values()
    wait_until(task.done, 60)
    assert get(pair, target).status == 200
    return response


@case("state_forgotten")
def forgotten_event(scene: Scene) -> Response:
    pair = scene.start()
    assert feed(pair, "a").status == 202
    assert post(pair, ":forget", ids=["a"]).status == 202
    return get(pair, f"{IRIS}/weights?seq=1")


def upgraded(scene: Scene) -> Pair:
    """Start a server on the data directory of an earlier release, whose stream a learner of this one has taken over."""
    with tarfile.open(GOLDEN / "data.tar") as archive:
        archive.extractall(scene.data.parent, filter="data")
    set_fold_version(FOLD_VERSION + 1)
    scene.stack.callback(restore_fold_version)
    history = History.open(scene.data)
    take_over(history.stream, iris_artifact(), history.log, history.folder.checkpoints, 0)
    history.close()
    return scene.start()


@case("earlier_release")
def rollback_to_an_earlier_release(scene: Scene) -> Response:
    return post(upgraded(scene), ":rollback", seq=7)


@case("state_irreproducible")
def weights_of_an_earlier_release(scene: Scene) -> Response:
    return get(upgraded(scene), f"{IRIS}/weights?seq=7")


# The log


@case("log_full")
def full_disk(scene: Scene) -> Response:
    return feed(scene.start(disk_reserve_bytes=1 << 60), "a")


@case("log_unavailable")
def locked_log(scene: Scene) -> Response:
    scene.monkeypatch.setattr(database, "BUSY_MS", 50)
    pair = scene.start()
    assert feed(pair, "a").status == 202
    with closing(apsw.Connection(str(scene.data / "log.sqlite"))) as other:
        other.execute("BEGIN IMMEDIATE")
        response = feed(pair, "b")
    assert feed(pair, "b").status == 202
    return response


@case("log_unsafe")
def foreign_database(scene: Scene) -> Response:
    pair = scene.start()
    with closing(apsw.Connection(str(scene.data / "log.sqlite"))) as other:
        other.execute("CREATE TABLE another (column)")
    return feed(pair, "a")


@case("log_damaged")
def flipped_byte(scene: Scene) -> Response:
    pair = scene.start()
    path = scene.data / "log.sqlite"
    with closing(SqliteLog(path)) as log:
        log.empty_wal()
    damaged = bytearray(path.read_bytes())
    damaged[0] ^= 1
    path.write_bytes(damaged)
    return feed(pair, "a")


@case("outcome_unknown")
def failing_disk(scene: Scene) -> Response:
    disk = Disk()
    scene.monkeypatch.setattr(log_opening, "SqliteLog", partial(SqliteLog, vfs=disk.name))
    pair = scene.start()
    assert feed(pair, "a").status == 202
    disk.fail(0, Fault.IO)
    response = feed(pair, "b")
    assert feed(pair, "b").status == 202
    return response


# The table


@pytest.mark.parametrize("code", [*ERROR_CODES, SOME_REFUSED])
def test_each_code_is_sent(scene: Scene, code: str) -> None:
    """Every code of the table is the answer to some request, with the status and headers of the table."""
    response = ask(scene.shared, REQUESTS[code]) if code in REQUESTS else CASES[code](scene)
    assert check_error(response.status, dict(response.headers), response.body) == code
    if code != SOME_REFUSED:
        assert response.status == ERROR_CODES[code].status
    if code in SENTENCES:
        assert without_numbers(response.json["error"]) == without_numbers(SENTENCES[code])


def without_numbers(sentence: str) -> str:
    """Return a sentence with each number replaced, because limits and positions differ."""
    return re.sub(r"[0-9]+(\.[0-9]+)?", "0", sentence)


def test_each_case_is_a_code_of_the_table() -> None:
    """No case is left of a code that was removed."""
    assert REQUESTS.keys() | CASES.keys() == {*ERROR_CODES, SOME_REFUSED}
    assert not REQUESTS.keys() & CASES.keys()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (409, {"error": "The id is taken.", "code": "another_code"}),
        (400, {"error": "The id is taken.", "code": "id_taken"}),
        (409, {"error": "The id is taken."}),
        (409, {"error": "The id is taken", "code": "id_taken"}),
        (409, {"error": "The id is taken.", "code": "id_taken", "detail": []}),
        (409, {"error": "Some are refused.", "code": SOME_REFUSED, "reason": "x", "accepted": 1, "refused": [0]}),
        (503, {"error": "The disk is full.", "code": "log_full"}),
        (400, {"detail": "Bad request"}),
    ],
    ids=["code", "status", "no code", "no sentence", "more", "reason", "no Retry-After", "framework"],
)
def test_another_form_of_error_is_noticed(status: int, body: dict[str, Any]) -> None:
    """The check of every client in these tests fails for a code, status or body that is not in the table."""
    with pytest.raises((AssertionError, KeyError)):
        check_error(status, {"content-type": "application/json"}, json.dumps(body).encode(), IRIS)


def test_v2_has_400_for_what_cannot_be_accepted() -> None:
    """A status of 422 belongs to v1 paths alone."""
    body = b'{"error": "The shape is wrong.", "code": "invalid_request"}'
    headers = {"content-type": "application/json"}
    assert check_error(400, headers, body, "/v2/models/iris/infer") == "invalid_request"
    for status, target in ((422, "/v2/models/iris/infer"), (400, f"{IRIS}:predict")):
        with pytest.raises(AssertionError):
            check_error(status, headers, body, target)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("docs/write_errors.py")


def test_the_page_has_the_table(script: ModuleType) -> None:
    """`python docs/write_errors.py` changes nothing in docs/errors.md."""
    text = script.PAGE.read_text()
    assert script.page(text) == text
    with pytest.raises(ValueError, match="no lines"):
        script.page(text.replace("<!-- end of error codes -->\n", ""))

"""Each event of a running service names the key that sent it, on every way from a request to the log."""

import shutil
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from service.access.key_file import read_keys
from tests.support.api_keys import add_key, bearer
from tests.support.data_directories import json_lines, run_command
from tests.support.learning_client import IRIS, data_of
from tests.support.paths import SHIPPED
from tests.support.running_service import Service, serving
from tests.support.waiting import wait_until

TOKENS_PER_TURN = 1000  # of TokenFeedback; more tokens take another way


class Sender(NamedTuple):
    """A client with a key of its own, and the name of that key in events."""

    client: httpx.Client
    actor: str

    def post(self, call: str, **body: Any) -> Any:
        """Send a call on the client's connection, and return the answer."""
        answer = self.client.post(f"/v1/models/{call}", json=body)
        assert answer.status_code in {200, 202}, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with keys and two versions of iris."""
    folder = tmp_path_factory.mktemp("actors")
    for version in ("1", "2"):
        shutil.copytree(SHIPPED / "iris" / "1", folder / "models" / "iris" / version)
    key = add_key(folder / "data" / "keys.json")
    with serving(folder / "models", folder, key=key) as running:
        yield running


@pytest.fixture
def senders(service: Service) -> Iterator[tuple[Sender, Sender]]:
    """Two clients."""
    path = data_of(service) / "keys.json"
    made = []
    for _ in range(2):
        key = add_key(path)
        client = httpx.Client(base_url=service.url, headers=[bearer(key)], timeout=30)
        made.append(Sender(client, f"key:{read_keys(path).keys[-1].id}"))
    one, two = made
    for sender in made:
        wait_until(lambda sender=sender: sender.client.get("/v1/models/iris").status_code == 200)
    yield one, two
    for sender in made:
        sender.client.close()


def listed(service: Service, version: int = 1) -> dict[str, str]:
    """Return the actor of each event of a version, by id."""
    done = run_command("events", f"iris/{version}", "--json", "--data", data_of(service))
    return {event["id"]: event["actor"] for event in json_lines(done)}


def test_every_way_to_the_log_keeps_the_actor(service: Service, senders: tuple[Sender, Sender]) -> None:
    """Remembered heads, the application, waits, tokens, admin calls and a command each store who asked."""
    one, two = senders
    row: dict[str, Any] = {"instances": [IRIS], "labels": [0]}
    first, path = "iris/versions/1", "/v1/models/iris/versions/1"
    for number in range(3):  # the later heads are remembered
        one.post(f"{first}:feedback", id=f"fast-{number}", **row)
        two.post(f"{first}:feedback", id=f"else-{number}", **row)
    one.post(f"{first}%3Afeedback", id="slow", **row)
    waited = two.post(f"{first}:feedback?wait=true", id="wait", **row)
    one.post("iris:feedback", id="newest", **row)
    made = one.post(f"{first}:predict", instances=[IRIS, IRIS], feedback_tokens=True)["feedback_tokens"]
    made += one.post("iris:predict", instances=[IRIS], feedback_tokens=True)["feedback_tokens"]
    tokens = two.post("iris:feedback", tokens=made, labels=[1, 1, 1])["events"]
    (alone,) = one.post(f"{first}:predict", instances=[IRIS], feedback_tokens=True)["feedback_tokens"]
    tokens += one.post("iris:feedback?wait=true", tokens=[alone], labels=[1])["events"]
    one.post(f"{first}:classes", id="class", add=["gigantea"])
    two.post(f"{first}:configure", id="rule", paused=False)
    one.post("iris:correct", id="fix", ids=["fast-0", "newest"], labels=[[1], [1]])
    two.post("iris:forget", id="sorry", ids=["fast-1", "newest"])
    seq = one.post(f"{first}:rollback?wait=true", id="back", seq=3)["seq"]
    assert run_command("skip", "iris/1", 3, "--id", "ticket", "--data", data_of(service)).returncode == 0
    first_actors, second_actors = listed(service), listed(service, 2)
    by_token = [event["id"] for event in tokens]
    assert first_actors == {
        **{f"fast-{number}": one.actor for number in range(3)},
        **{f"else-{number}": two.actor for number in range(3)},
        "slow": one.actor, "wait": two.actor,
        by_token[0]: two.actor, by_token[1]: two.actor, by_token[3]: one.actor,
        "class": one.actor, "rule": two.actor, "fix": one.actor, "sorry/1": two.actor, "back": one.actor,
        "ticket": "command",
    }  # fmt: skip
    assert second_actors == {"newest": one.actor, by_token[2]: two.actor, "fix/2": one.actor, "sorry": two.actor}
    assert len(first_actors) == seq + 1
    metadata = one.client.get(path).text
    for name in (one.actor, two.actor):
        assert name not in metadata + str(waited)
    assert run_command("verify", "--refold", "--data", data_of(service)).returncode == 0


def test_many_tokens_keep_their_actor(service: Service, senders: tuple[Sender, Sender]) -> None:
    """More tokens than are read in one turn of the event loop are all of the sender."""
    one, _ = senders
    rows = [IRIS] * (TOKENS_PER_TURN + 1)
    tokens = one.post("iris:predict", instances=rows, feedback_tokens=True)["feedback_tokens"]
    events = one.post("iris:feedback", tokens=tokens, labels=[0] * len(rows))["events"]
    actors = listed(service, 2)
    assert {actors[event["id"]] for event in events} == {one.actor}


def test_a_retry_by_another_key_is_the_same_event(service: Service, senders: tuple[Sender, Sender]) -> None:
    """It is answered as a duplicate, on each way, and the event keeps its first actor."""
    one, two = senders
    body: dict[str, Any] = {"id": "again", "instances": [IRIS], "labels": [0]}
    seq = one.post("iris/versions/1:feedback", **body)["seq"]
    for call in (":feedback", ":feedback?wait=true", "%3Afeedback"):
        answer = two.post(f"iris/versions/1{call}", **body)
        assert (answer["seq"], answer["duplicate"]) == (seq, True)
    assert listed(service)["again"] == one.actor

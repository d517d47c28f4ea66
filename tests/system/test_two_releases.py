"""Services of two releases share a log: the later one takes the streams over, and the older one serves what it has.

The later release is this one with another fold (tests/support/later_fold), in processes of its own.
"""

import contextlib
from pathlib import Path
from typing import Any

from service.store.artifact.fingerprint import FOLD_VERSION
from service.store.log.events import Kind
from service.store.log.postgres import PostgresLog
from tests.support.learning_client import IRIS, metadata, post
from tests.support.log_replicas import learned, predict, readiness, replica, teach
from tests.support.paths import ROOT
from tests.support.running_service import Service
from tests.support.waiting import SECONDS, wait_until

LATER = f"{ROOT / 'tests' / 'support' / 'later_fold'}:{ROOT}"
REASON = "a later release has taken over the stream; serve it with that release"
EVENTS = 20


def later(models: Path, scratch: Path, address: str) -> contextlib.AbstractContextManager[Service]:
    """Run a replica of the later release."""
    return replica(models, scratch, address, PYTHONPATH=LATER)


def learner_status(service: Service) -> Any:
    return metadata(service, "iris")["learner"]


def bases(address: str) -> list[tuple[int, bytes]]:
    """Return the seq and the id of each BASE in the log of iris."""
    with contextlib.closing(PostgresLog(address, copies=1)) as log:
        (stream,) = log.list_streams()
        return [(event.seq, event.id) for event in log.read_admin_events(stream.number) if event.kind == Kind.BASE]


def test_an_older_release_serves_what_it_has_until_it_is_upgraded(
    iris_models: Path, tmp_path: Path, address: str
) -> None:
    """It stays ready, takes feedback that the later one learns, and says why it does not learn. Nothing is lost."""
    with contextlib.ExitStack() as until_upgraded:
        a = until_upgraded.enter_context(
            replica(iris_models, tmp_path / "a", address, SOFTSTEP_LAG_EVENTS_MAX=5, SOFTSTEP_WAIT_SECONDS=1)
        )
        with replica(iris_models, tmp_path / "b", address) as b:
            teach(b, *range(EVENTS))
            before = learned(a, EVENTS)
            assert learned(b, EVENTS) == before
        with later(iris_models, tmp_path / "b", address) as b:
            assert bases(address) == [(EVENTS + 1, b"\xffbase 1 %d" % (FOLD_VERSION + 1))]
            assert learned(b, EVENTS + 1) == before
            wait_until(lambda: learner_status(a) == {"state": "held", "reason": REASON}, SECONDS)
            assert learned(a, EVENTS) == before
            assert readiness(a) == 200
            seqs = teach(a, "old 1", "old 2")
            assert seqs == [EVENTS + 2, EVENTS + 3]
            assert predict(b, min_seq=seqs[-1])["seq"] == seqs[-1]
            assert predict(a)["seq"] == EVENTS
            refused = post(a, "iris:predict", {"instances": [IRIS], "min_seq": seqs[-1]})
            assert (refused.status_code, refused.json()["code"]) == (409, "not_reached_yet")
            assert metadata(a, "iris")["lag_events"] == 3
            # Feedback that nobody here learns is refused at the limit, as for any learner that is behind.
            wait_until(lambda: is_refused(a), SECONDS)
            until_upgraded.close()
            assert a.log.read_text().count('"learning_held"') == 1
            with later(iris_models, tmp_path / "a", address) as upgraded:
                last = metadata(b, "iris")["seq"]
                wait_until(lambda: metadata(upgraded, "iris")["seq"] >= last, SECONDS)
                assert learned(upgraded, last) == learned(b, last)
                assert learner_status(upgraded) == {"state": "following"}
    assert len(bases(address)) == 1


def is_refused(service: Service) -> bool:
    answer = post(service, "iris:feedback", {"instances": [IRIS], "labels": [0]})
    assert answer.status_code in {202, 429}
    return answer.status_code == 429

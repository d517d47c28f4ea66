"""How a service stops: readiness fails, the listener closes, requests in flight finish, and the exit code is 0."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.processes import (
    CLIENT,
    ROW,
    SECONDS,
    LoadClient,
    ask_every_worker,
    children,
    is_free,
    is_running,
    log_of,
    predict,
    seconds_until_exit,
    workers,
)
from tests.support.running_service import Service, is_ready, serving
from tests.support.waiting import is_readable, wait_until

BODY = json.dumps(ROW).encode()
HEAD = b"POST /v1/models/iris:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"


@contextmanager
def connection(service: Service) -> Iterator[socket.socket]:
    """Open a connection with a limit on every wait."""
    with socket.create_connection(service.address, timeout=SECONDS) as end:
        yield end


def is_pending(process: int, number: signal.Signals) -> bool:
    """Return whether a signal has been sent to a process that has not handled it."""
    status = Path(f"/proc/{process}/status").read_text()
    pending = int(status.partition("ShdPnd:")[2].split()[0], 16)
    return bool(pending >> (number - 1) & 1)


def read_all(end: socket.socket) -> bytes:
    """Read what a server sends until it closes."""
    parts = []
    while part := end.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def read_answer(end: socket.socket) -> bytes:
    """Read one answer with a body, and nothing after it."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += (part := end.recv(1 << 16))
        assert part
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += (part := end.recv(1 << 16))
        assert part
    assert len(body) == length
    return head + b"\r\n\r\n" + body


def is_open(end: socket.socket) -> bool:
    """Return whether a server has neither sent anything nor closed the connection."""
    return not is_readable(end)


def is_unready(service: Service) -> bool:
    """Return whether readiness fails while the service still answers."""
    return CLIENT.get(f"{service.url}/readyz").status_code == 503


@pytest.mark.parametrize("count", [1, 2])
def test_sigterm_fails_readiness_and_finishes_requests(iris_models: Path, tmp_path: Path, count: int) -> None:
    """Requests work during the drain, one in mid-body finishes after it, and then all processes are gone."""
    with (
        serving(iris_models, tmp_path, workers=count, SOFTSTEP_DRAIN_SECONDS=2.0) as service,
        connection(service) as slow,
    ):
        family = children(service.process.pid)
        slow.sendall(HEAD % len(BODY) + BODY[:10])
        ask_every_worker(service.url, count)
        service.process.terminate()
        wait_until(lambda: is_unready(service))
        for path in ("/v2/health/ready", "/ping", "/v2/models/iris/ready"):
            assert CLIENT.get(f"{service.url}{path}").status_code == 503
        assert CLIENT.get(f"{service.url}/healthz").status_code == 200
        assert predict(service.url).status_code == 200
        wait_until(lambda: is_free(service.address))
        assert service.process.poll() is None
        slow.sendall(BODY[10:])
        answer = read_all(slow)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer.lower()
        assert b'"predictions"' in answer
        assert seconds_until_exit(service.process) < 10
        assert service.process.returncode == 0
        assert not any(map(is_running, family))


FEEDBACK = b'{"instances":[[5.1,3.5,1.4,0.2]],"labels":[0]}'
# Remembered heads, the parser's fast path, and FastAPI.
KINDS = {
    "predict": HEAD % len(BODY) + BODY,
    "feedback": HEAD.replace(b":predict", b":feedback") % len(FEEDBACK) + FEEDBACK,
    "probe": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "models": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "unknown": b"GET /unknown HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


def test_the_drain_answers_on_open_connections_and_closes_them(iris_models: Path, tmp_path: Path) -> None:
    """Quiet connections stay open, the next answer of each closes it, and the rest is closed when the drain is over."""
    with ExitStack() as stack:
        service = stack.enter_context(serving(iris_models, tmp_path, SOFTSTEP_DRAIN_SECONDS=2.5))
        ends = {kind: stack.enter_context(connection(service)) for kind in KINDS}
        quiet, new = stack.enter_context(connection(service)), stack.enter_context(connection(service))
        for end in (*ends.values(), quiet):
            for _ in range(2):
                end.sendall(KINDS["predict"])
                assert b"\r\nconnection:" not in read_answer(end).lower()
        service.process.terminate()
        wait_until(lambda: is_unready(service))
        assert all(map(is_open, (*ends.values(), quiet, new)))
        for kind, end in ends.items():
            end.sendall(KINDS[kind])
            answer = read_answer(end)
            assert b"\r\nconnection: close\r\n" in answer
            assert answer.startswith(b"HTTP/1.1 404" if kind == "unknown" else b"HTTP/1.1 20")
            assert end.recv(1) == b""
        assert is_open(quiet)
        assert is_open(new)
        new.sendall(KINDS["predict"])
        assert b"\r\nconnection: close\r\n" in read_answer(new)
        wait_until(lambda: is_free(service.address))
        assert quiet.recv(1) == b""
        assert service.process.wait(SECONDS) == 0


def test_queued_connections_are_answered(iris_models: Path, tmp_path: Path) -> None:
    """The kernel has completed them before SIGTERM, while the only worker could not accept them."""
    with ExitStack() as stack:
        service = stack.enter_context(serving(iris_models, tmp_path))
        (worker,) = workers(service.process.pid)
        os.kill(worker, signal.SIGSTOP)
        ends = [stack.enter_context(connection(service)) for _ in range(50)]
        for end in ends:
            end.sendall(KINDS["predict"])
        service.process.terminate()
        wait_until(lambda: is_pending(worker, signal.SIGTERM))
        os.kill(worker, signal.SIGCONT)
        answers = [read_all(end) for end in ends]
        assert all(answer.startswith(b"HTTP/1.1 200") and b"\r\nconnection: close\r\n" in answer for answer in answers)
        assert service.process.wait(SECONDS) == 0


def test_a_worker_that_is_stopped_alone_loses_no_request(iris_models: Path, tmp_path: Path) -> None:
    """It drains as the whole service does, and another one replaces it."""
    with serving(iris_models, tmp_path, SOFTSTEP_DRAIN_SECONDS=1.0) as service, connection(service) as end:
        end.sendall(KINDS["predict"])
        read_answer(end)
        (worker,) = workers(service.process.pid)
        load = LoadClient(service.url)
        with load.running():
            os.kill(worker, signal.SIGTERM)
            time.sleep(0.1)
            end.sendall(KINDS["predict"])
            assert b"\r\nconnection: close\r\n" in read_answer(end)
            wait_until(lambda: workers(service.process.pid) not in ([], [worker]), 15)
            wait_until(lambda: is_ready(service.url, 1), 15)
        assert load.failed == []


def test_a_learner_that_is_stopped_alone_is_replaced(iris_models: Path, tmp_path: Path) -> None:
    """Feedback is learned before and after."""
    with serving(iris_models, tmp_path) as service:
        learners = [child for child in children(service.process.pid) if child not in workers(service.process.pid)]
        for _ in range(2):
            feedback = {"instances": [[5.1, 3.5, 1.4, 0.2]], "labels": ["setosa"]}
            answer = CLIENT.post(f"{service.url}/v1/models/iris:feedback?wait=true", json=feedback)
            assert answer.status_code == 200
            if learners:
                os.kill(learners.pop(), signal.SIGTERM)
        records = [json.loads(line) for line in log_of(service).splitlines()]
        events = [record["event"] for record in records if record.get("child") == "learner"]
        assert events == ["child_started", "child_exited", "child_started"]


def test_a_large_request_is_answered_completely(iris_models: Path, tmp_path: Path) -> None:
    """SIGTERM comes while its body is sent, and again before its response is read."""
    count = 30_000
    body = json.dumps({"instances": ROW["instances"] * count}).encode()
    with serving(iris_models, tmp_path) as service, connection(service) as end:
        end.sendall(HEAD % len(body) + body[: len(body) // 2])
        time.sleep(0.1)
        service.process.terminate()
        wait_until(lambda: is_free(service.address))
        end.sendall(body[len(body) // 2 :])
        head, _, answer = read_all(end).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert len(json.loads(answer)["predictions"]) == count
        assert service.process.wait(SECONDS) == 0


def test_sigterm_under_load_fails_no_request_before_the_listener_closes(iris_models: Path, tmp_path: Path) -> None:
    """A client that leaves when readiness fails, as a load balancer does, sees no error."""
    with serving(iris_models, tmp_path, workers=2, SOFTSTEP_DRAIN_SECONDS=1.5) as service:
        load = LoadClient(service.url)
        with load.running():
            service.process.terminate()
            wait_until(lambda: is_unready(service))
        assert len(load.seen) > 40
        assert load.failed == []
        assert service.process.wait(SECONDS) == 0


def test_a_second_sigterm_changes_nothing(iris_models: Path, tmp_path: Path) -> None:
    """Requests in flight finish after a second SIGTERM during the drain and after it."""
    with serving(iris_models, tmp_path, SOFTSTEP_DRAIN_SECONDS=0.5) as service, connection(service) as slow:
        slow.sendall(HEAD % len(BODY) + BODY[:10])
        time.sleep(0.1)
        service.process.terminate()
        wait_until(lambda: is_unready(service))
        service.process.terminate()
        wait_until(lambda: is_free(service.address))
        service.process.terminate()
        slow.sendall(BODY[10:])
        assert read_all(slow).startswith(b"HTTP/1.1 200")
        assert service.process.wait(SECONDS) == 0


def test_sigint_stops_without_a_drain(iris_models: Path, tmp_path: Path) -> None:
    """Ctrl-C at a terminal does not wait for load balancers."""
    with serving(iris_models, tmp_path, workers=2, SOFTSTEP_DRAIN_SECONDS=30) as service:
        service.process.send_signal(signal.SIGINT)
        assert seconds_until_exit(service.process) < 6
        assert service.process.returncode == 0
        wait_until(lambda: is_free(service.address))


def test_ctrl_c_reaches_the_workers_too_and_they_finish(iris_models: Path, tmp_path: Path) -> None:
    """A terminal sends SIGINT to every process of the group; only the parent handles it."""
    with serving(iris_models, tmp_path) as service, connection(service) as slow:
        slow.sendall(HEAD % len(BODY) + BODY[:10])
        time.sleep(0.1)
        for process in (*children(service.process.pid), service.process.pid):
            os.kill(process, signal.SIGINT)
        wait_until(lambda: is_free(service.address))
        slow.sendall(BODY[10:])
        assert read_all(slow).startswith(b"HTTP/1.1 200")
        assert service.process.wait(SECONDS) == 0


def test_a_request_that_never_ends_is_cut_off(iris_models: Path, tmp_path: Path) -> None:
    """The time to finish is limited, and the exit code is 0."""
    with serving(iris_models, tmp_path, SOFTSTEP_SHUTDOWN_SECONDS=1.5) as service, connection(service) as slow:
        slow.sendall(HEAD % len(BODY) + BODY[:10])
        time.sleep(0.1)
        service.process.terminate()
        assert seconds_until_exit(service.process) < 8
        assert service.process.returncode == 0
        assert b"200 OK" not in read_all(slow)


def test_the_log_reports_the_stop(iris_models: Path, tmp_path: Path) -> None:
    """The log reports the stop and no error."""
    with serving(iris_models, tmp_path, workers=2) as service:
        service.process.terminate()
        assert service.process.wait(SECONDS) == 0
        records = [json.loads(line) for line in log_of(service).splitlines()]
        assert [record["event"] for record in records][-4:] == [
            "draining", "listener_closed", "workers_stopped", "stopped"
        ]  # fmt: skip
        assert {record["level"] for record in records} == {"info"}

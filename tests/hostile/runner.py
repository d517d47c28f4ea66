"""Send hostile requests, each over a connection of its own, and judge the answers.

The connections come from a function, so that they may be plain or TLS.
"""

import contextlib
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from tests.hostile.cases import Case
from tests.support.error_bodies import check_error, is_error
from tests.support.http_requests import target_of
from tests.support.leaked_secrets import find_secrets

ANSWER_BYTES_MAX: Final = 16 << 10
# A connection that had all its answers is watched for this time: a smuggled request would be answered too.
QUIET_SECONDS: Final = 0.2
# The longest limits of the tested service are below it.
SECONDS_MAX: Final = 8.0
CONNECTIONS: Final = 24

# Opens a connection that is plain or TLS.
Connect = Callable[[], socket.socket]


class Answer(NamedTuple):
    """One answer: its status, its headers by name in lower case, its body, and all its bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    size: int


class Outcome(NamedTuple):
    """What a case led to.

    Attributes:
        statuses: The statuses of the answers.
        faults: What was wrong, whichever answers were expected.
    """

    statuses: tuple[int, ...]
    faults: tuple[str, ...]


def send_cases(connect: Connect, cases: Mapping[str, Case]) -> dict[str, Outcome]:
    """Send each case over a connection of its own, some at a time, and return their outcomes by name."""
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        outcomes = pool.map(lambda case: judge(connect, case), cases.values())
        return dict(zip(cases, outcomes, strict=True))


def judge(connect: Connect, case: Case) -> Outcome:
    """Send one case and judge its answers."""
    began = time.monotonic()
    with connect() as end:
        received = exchange(end, case.data, len(case.statuses))
    has_body = not case.data.startswith(b"HEAD")
    seconds = time.monotonic() - began
    answers, rest = split_answers(received, has_body=has_body)
    faults = [f"{len(rest)} bytes are no answer"] if rest else []
    if seconds > SECONDS_MAX:
        faults.append("neither answered nor closed in time")
    for number, answer in enumerate(answers):
        faults += fault_of(answer, target_of(case.data.lstrip(b"\r\n")) if number == 0 else None)
    return Outcome(tuple(answer.status for answer in answers), tuple(faults))


def exchange(end: socket.socket, data: bytes, expected: int) -> bytes:
    """Send bytes, and return what arrives until the connection ends, or rests after the expected number of answers."""
    end.settimeout(SECONDS_MAX)
    with contextlib.suppress(OSError):  # a refusal may come before the end
        end.sendall(data)
    received, until = b"", time.monotonic() + SECONDS_MAX
    while (now := time.monotonic()) < until:
        done = len(split_answers(received, has_body=not data.startswith(b"HEAD"))[0]) >= expected
        end.settimeout(QUIET_SECONDS if done else until - now)
        try:
            part = end.recv(1 << 16)
        except TimeoutError:
            return received
        except OSError:
            break
        if not part:
            break
        received += part
    return received


def split_answers(received: bytes, *, has_body: bool = True) -> tuple[list[Answer], bytes]:
    """Return the whole answers in some bytes, and the bytes after them; an answer to HEAD has no body."""
    answers = []
    while b"\r\n\r\n" in received:
        head, _, rest = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", 0)) if has_body else 0
        if not first.startswith("HTTP/1.1 ") or len(rest) < length:
            break
        answers.append(Answer(int(first.split()[1]), headers, rest[:length], len(head) + 4 + length))
        received = rest[length:]
    return answers, received


def fault_of(answer: Answer, target: str | None) -> Iterable[str]:
    """Yield what is wrong with an answer, whatever was asked."""
    if answer.status >= 500:
        yield f"status {answer.status}"
    if answer.size > ANSWER_BYTES_MAX and answer.headers.get("content-type", "").startswith("application/json"):
        yield f"an answer of {answer.size} bytes"
    if answer.body and is_error(answer.status, answer.body):
        try:
            check_error(answer.status, answer.headers, answer.body, target)
        except (AssertionError, KeyError, ValueError) as fault:
            yield f"error body: {fault}"
    for secret in find_secrets(answer.body.decode("latin-1")):
        yield f"the answer repeats {secret}"

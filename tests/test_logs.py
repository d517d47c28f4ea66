"""Lines of the log: their form, what they leave out, and streams that fail."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import LogFullError, SoftstepError
from service.log_events import logger
from service.logs import AccessLog, JsonFormatter, LineHandler, LineWriter, TextFormatter, format_exception
from tests.support.paths import ROOT
from tests.support.waiting import SECONDS

MEMBERS = ["time", "level", "event", "message", "process"]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The records that a test logs."""
    caplog.set_level(logging.INFO)
    return caplog


def lines_of(path: Path) -> list[str]:
    """Return the lines of a file."""
    return path.read_text().splitlines()


def test_a_json_line_has_the_members_of_the_table(log: pytest.LogCaptureFixture) -> None:
    """The common members come first, then the fields of the event, with their types."""
    logger.event("model_loaded", model="iris", version=1, seq=7)
    line = JsonFormatter().format(log.records[0])
    members = json.loads(line)
    assert list(members) == [*MEMBERS, "model", "version", "seq"]
    assert members["message"] == "model iris version 1: ready at seq 7"
    assert (members["level"], members["event"], members["process"]) == ("info", "model_loaded", os.getpid())
    assert (members["model"], members["version"], members["seq"]) == ("iris", 1, 7)


def test_a_line_of_a_package_names_its_logger(log: pytest.LogCaptureFixture) -> None:
    """It has the same members, and the name of the package's logger."""
    logging.getLogger("uvicorn.error").warning("Invalid %s", "request")
    members = json.loads(JsonFormatter().format(log.records[0]))
    assert list(members) == [*MEMBERS, "logger"]
    assert (members["event"], members["message"], members["logger"]) == ("library", "Invalid request", "uvicorn.error")


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "é", "\udcff", "\u2028", '"}'], ids=ascii)
def test_text_cannot_forge_a_line(text: str) -> None:
    """Control characters are escaped, and a path that is no UTF-8 is written too."""
    records: list[logging.LogRecord] = []

    def keep(record: logging.LogRecord) -> bool:
        records.append(record)
        return False  # a report with a character that is no UTF-8 cannot leave a test process

    package = logging.getLogger("softstep")
    package.addFilter(keep)
    try:
        logger.event("models_unreadable", reason=text)
    finally:
        package.removeFilter(keep)
    line = JsonFormatter().format(records[0])
    assert len(line.encode(errors="strict").splitlines()) == 1
    assert "\x1b" not in line
    assert json.loads(line)["reason"] == text
    plain = TextFormatter().format(records[0])
    assert plain.isascii()
    assert plain.isprintable()


def test_text_lines_are_for_people(log: pytest.LogCaptureFixture) -> None:
    """Time, level, message, and the request's id if there is one."""
    logger.event("request_failed", request_id="abc-1")
    assert TextFormatter().format(log.records[0])[8:] == " error   a request failed (request abc-1)"


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """Return an exception that was raised, with its traceback."""
    try:
        raise error from cause
    except type(error) as caught:  # the one that was raised
        return caught


def test_a_traceback_leaves_out_values_of_a_request() -> None:
    """The message of an exception is written only if it is known to hold no value."""
    text = format_exception(raised(ValueError("canary")))
    assert text.endswith("\nValueError")
    assert "canary" not in text.replace('ValueError("canary")', "")
    assert "in raised" in text
    assert format_exception(raised(OSError(28, "No space left"))).endswith("OSError: [Errno 28] No space left")
    assert format_exception(LogFullError("full")) == "service.errors.LogFullError: full"


def test_a_traceback_has_the_causes_first() -> None:
    """A cause, or an exception that was handled, comes before the exception that it led to."""
    try:
        try:
            {}["canary"]
        except KeyError:
            raise SoftstepError("second")  # noqa: B904  # the context is the subject
    except SoftstepError as error:
        text = format_exception(error)
    first, second = text.split("\nThen:\n")
    assert first.endswith("KeyError")
    assert second.endswith("service.errors.SoftstepError: second")
    assert "Then" not in format_exception(raised(SoftstepError("alone"), None))


def test_a_record_whose_arguments_do_not_fit_is_written(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    """A fault in a package's own message loses the arguments, not the line."""
    logging.getLogger("package").addFilter(lambda _: True)
    record = logging.LogRecord("package", logging.ERROR, "", 0, "%d of", ("x",), None)
    with (tmp_path / "log").open("w") as stream:
        handler = LineHandler(LineWriter(stream))
        handler.setFormatter(JsonFormatter())
        handler.emit(record)
    assert json.loads((tmp_path / "log").read_text())["message"] == "%d of"
    assert log.records == []


def test_a_full_disk_loses_lines_and_raises_nothing() -> None:
    """Nothing is kept that would fail again when the process exits."""
    with Path("/dev/full").open("w") as stream:
        writer = LineWriter(stream)
        for _ in range(3):
            writer.write("line")


def test_a_closed_pipe_loses_lines_and_raises_nothing() -> None:
    """The same for a reader that has left."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        LineWriter(stream).write("line")


def test_a_process_without_the_stream_writes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """A closed standard error may be the descriptor of another file, which must not be written to."""
    LineWriter(None).write("line")
    assert capfd.readouterr() == ("", "")


def test_a_line_that_was_cut_is_ended_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line after a full disk begins on its own."""
    write, limits = os.write, iter([3, None])

    def write_some(descriptor: int, data: bytes) -> int:
        limit = next(limits, -1)
        if limit is None:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:limit] if limit > 0 else data)

    with (tmp_path / "log").open("w") as stream:
        writer = LineWriter(stream)
        monkeypatch.setattr(os, "write", write_some)
        writer.write("first")
        writer.write("second")
        writer.write("third")
    assert lines_of(tmp_path / "log") == ["fir", "second", "third"]


ACCESS = {
    "request_id": "a-1",
    "method": "POST",
    "route": "/v1/models/{name}:predict",
    "status": 200,
    "model": "iris",
    "version": 1,
    "seq": 0,
    "duration_ms": 0.125,
    "bytes_in": 36,
    "bytes_out": 70,
}


def test_an_access_line_has_the_members_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fields stand beside the common members, as for any other event."""
    with (tmp_path / "log").open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        AccessLog("json").write(ACCESS)
    (line,) = lines_of(tmp_path / "log")
    members = json.loads(line)
    assert list(members) == [*MEMBERS, *ACCESS]
    assert {name: members[name] for name in ACCESS} == ACCESS
    assert (members["level"], members["event"]) == ("info", "access")
    assert members["message"] == "POST /v1/models/{name}:predict 200"


def test_an_access_line_for_people_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the method, the route, the status and the duration."""
    with (tmp_path / "log").open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        AccessLog("text").write({**ACCESS, "route": None, "status": 404})
    (line,) = lines_of(tmp_path / "log")
    assert line[8:] == " info    POST - 404 in 0.125 ms"


PROGRAM = """
import logging, threading, warnings
from service.logs import configure_logging

def fail():
    raise ValueError("can" + "ary")

configure_logging("json")
warnings.warn("a warning", stacklevel=1)
logging.getLogger("asyncio").error("a task failed")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""


def test_nothing_else_is_written_to_standard_error() -> None:
    """Warnings, lines of packages and exceptions that no code catches are lines like all others."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["library", "library", "uncaught_exception", "uncaught_exception"]
    assert [line.get("logger") for line in lines] == ["py.warnings", "asyncio", None, None]
    assert all(line["exception"].endswith("\nValueError") for line in lines[2:])
    assert "canary" not in done.stderr

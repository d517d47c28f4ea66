"""Progress of commands: one line that is overwritten on a terminal, or a line every few seconds."""

import sys

import pytest

from service import console
from service.console import Progress, convert_disk_errors
from service.errors import SoftstepError
from tests.support.set_clock import SetClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Replace the clock of Progress."""
    clock = SetClock()
    monkeypatch.setattr(console, "time", clock)
    return clock


def test_a_file_gets_a_line_every_few_seconds(clock: SetClock, capsys: pytest.CaptureFixture[str]) -> None:
    """A quick command writes none."""
    progress = Progress("replaying", "events")
    for done in range(1, 13):
        clock.now += 1
        progress.update(done * 1000, 12_000)
    progress.finish()
    assert capsys.readouterr().err == (
        "replaying: 5,000 of 12,000 events, 1,000/s\nreplaying: 10,000 of 12,000 events, 1,000/s\n"
    )


def test_a_terminal_shows_one_line(
    clock: SetClock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line is overwritten and cleared at the end."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = Progress("p", "e")
    for done in (10, 20):
        clock.now += 1
        progress.update(done, 20)
    progress.finish()
    first, second = "p: 10 of 20 e, 10/s", "p: 20 of 20 e, 10/s"
    assert capsys.readouterr().err == f"\r{first}\r{second}\r{' ' * len(second)}\r"


def test_a_disk_error_becomes_a_sentence() -> None:
    """The error has no path and no traceback."""
    with pytest.raises(SoftstepError, match=r"^disk error: No space left on device$"), convert_disk_errors():
        raise OSError(28, "No space left on device", "secret")

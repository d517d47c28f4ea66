"""The table of log events: each is written with its fields, and docs/logs.md lists all."""

import ast
import logging
from collections.abc import Iterator
from types import ModuleType

import pytest

from service.log_event_table import EVENTS
from service.log_events import REQUEST_ID, logger
from tests.support.paths import ROOT
from tests.support.scripts import load_script

METHODS = {"event", "exception"}
# Written by code of its own, or for the records of packages.
OTHER_WRITERS = {"access", "library"}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """Import docs/write_logs.py, which is in no package."""
    return load_script("docs/write_logs.py")


def calls() -> Iterator[tuple[str, str, set[str]]]:
    """Yield the place, the event and the fields of each call of the logger in the service."""
    for path in sorted((ROOT / "service").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(ast.Attribute(ast.Name("logger"), method), [ast.Constant(str(event))], keywords):
                    if method in METHODS:
                        fields = {str(keyword.arg) for keyword in keywords} - {"exc_info", "request_id"}
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", event, fields


def test_every_call_names_an_event_and_its_fields() -> None:
    """No line lacks a field of the table, or has another one."""
    found = list(calls())
    assert len(found) > 30
    assert [(place, event) for place, event, _ in found if event not in EVENTS] == []
    assert [(place, event) for place, event, fields in found if fields != set(EVENTS[event].fields)] == []


def test_every_event_is_written_by_the_service() -> None:
    """The table has no event that no code writes."""
    assert {event for _, event, _ in calls()} == set(EVENTS) - OTHER_WRITERS


def test_only_the_table_is_logged() -> None:
    """No module of the service makes a logger of its own."""
    makers = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "service").rglob("*.py"))
        if "getLogger" in path.read_text()
    ]
    assert makers == ["service/log_events.py", "service/logs.py"]


def test_the_page_is_what_the_script_writes(script: ModuleType) -> None:
    """If this fails, run `python docs/write_logs.py`."""
    assert (ROOT / "docs" / "logs.md").read_text() == script.page()


def test_every_event_is_in_one_group_of_the_page(script: ModuleType) -> None:
    """The page lists the events in the order of the table, each once."""
    assert [name for _, group in script.groups() for name in group] == list(EVENTS)


def test_a_line_has_the_id_of_its_request(caplog: pytest.LogCaptureFixture) -> None:
    """The id is that of the current request, unless the call names another one."""
    caplog.set_level(logging.INFO, "softstep")
    token = REQUEST_ID.set("one")
    try:
        logger.event("models_readable")
        logger.event("request_failed", request_id="two")
    finally:
        REQUEST_ID.reset(token)
    logger.event("stopped")
    # The attribute is made by the logger's extra fields.
    assert [getattr(record, "fields", None) for record in caplog.records] == [
        {"request_id": "one"}, {"request_id": "two"}, {}
    ]  # fmt: skip

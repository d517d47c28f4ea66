"""The members of uvicorn that the protocol relies on; these tests check a new release before it is used."""

import inspect
import re
from importlib.metadata import requires, version

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import Server, ServerState

PROTOCOL = {
    "app", "config", "connections", "cycle", "expect_100_continue", "flow",
    "headers", "loop", "parser", "pipeline", "server_state", "tasks", "transport", "url",
}  # fmt: skip
CYCLE = {"disconnected", "keep_alive", "message_event", "response_complete", "response_started"}
METHODS = [
    "_start_asgi_task", "connection_lost", "connection_made", "data_received", "eof_received", "on_body", "on_header",
    "on_headers_complete", "on_message_begin", "on_message_complete", "on_response_complete", "on_url", "pause_writing",
    "resume_writing", "shutdown",
]  # fmt: skip


def test_uvicorn_is_the_pinned_release() -> None:
    """Installed is just the release that pyproject.toml names."""
    (pinned,) = [line for line in requires("softstep") or () if line.startswith("uvicorn")]
    assert pinned == f"uvicorn=={version('uvicorn')}"


def assigned(kind: type, name: str = "self") -> set[str]:
    """The attributes that a class sets."""
    return set(re.findall(rf"\b{name}\.(\w+)(?:: [^=\n]+)? = ", inspect.getsource(kind)))


def test_the_protocol_has_the_attributes_that_the_fast_path_uses() -> None:
    """Each is set by uvicorn under that name."""
    assert assigned(HttpToolsProtocol) >= PROTOCOL


@pytest.mark.parametrize("name", METHODS)
def test_the_protocol_has_the_methods_that_the_fast_path_extends(name: str) -> None:
    """Each is there to be called or overridden."""
    assert callable(vars(HttpToolsProtocol)[name])


def test_a_cycle_has_the_attributes_that_a_pending_request_stands_in_for() -> None:
    """The protocol reads only attributes of a cycle that its own class has."""
    assert assigned(RequestResponseCycle) >= CYCLE
    read = set(re.findall(r"self\.cycle\.(\w+)", inspect.getsource(HttpToolsProtocol)))
    assert read <= CYCLE | {"body", "more_body"}


def test_a_cycle_calls_back_when_its_answer_is_complete() -> None:
    """The protocol continues with the next request from there."""
    assert "on_response" in inspect.signature(RequestResponseCycle).parameters
    assert "on_response=self.on_response_complete" in inspect.getsource(HttpToolsProtocol.on_headers_complete)


def test_flow_control_has_the_attributes_that_the_fast_path_uses() -> None:
    """Two pauses, each with a flag; the transport stays under its name."""
    assert assigned(FlowControl) >= {"read_paused", "write_paused", "_transport"}
    for name in ("pause_reading", "resume_reading", "pause_writing", "resume_writing"):
        assert callable(vars(FlowControl)[name])


def test_the_server_ticks_and_shares_its_state() -> None:
    """Deadlines are kept by the tick; the headers of every answer are a new list whenever they change."""
    assert inspect.iscoroutinefunction(Server.on_tick)
    assert set(vars(ServerState())) >= {"connections", "default_headers", "tasks", "total_requests"}
    source = inspect.getsource(Server.on_tick)
    assert "self.server_state.default_headers = date_header + self.config.encoded_headers" in source
    assert {200, 431, 503} <= STATUS_LINE.keys()


def test_a_start_without_sockets_opens_none() -> None:
    """The service opens its own servers after uvicorn has started the lifespan."""
    assert "if sockets is not None" in inspect.getsource(Server.startup)

"""The `softstep` command: its output, its exit codes and the settings it reads."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from pkgutil import resolve_name

import pytest

from service import __version__, compiler, configuration
from service import command_line as command
from service.commands import serve, warm
from service.serve.handlers.health import NOT_CAUGHT_UP
from service.serve.responses import HttpResponse
from service.settings import Settings
from tests.support.paths import ROOT
from tests.support.processes import SECONDS, predict
from tests.support.running_service import Service, serving


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove all settings from the environment, and keep the logging of the test run."""
    for name in os.environ:
        if name.startswith(("SOFTSTEP_", "AIP_")) and name != "SOFTSTEP_KERNELS":
            monkeypatch.delenv(name)
    monkeypatch.setattr(serve, "configure_logging", lambda *_, **__: None)


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Listen on the service's port from another socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("SOFTSTEP_PORT", str(listener.getsockname()[1]))
        yield listener


def settings_of(*argv: str) -> Settings:
    """Return the settings that a command line leads to."""
    return configuration.read_settings(command.build_parser().parse_args(argv))


def test_it_prints_its_version() -> None:
    """The command runs as a module of the interpreter, as in a container."""
    done = subprocess.run(
        [sys.executable, "-m", "service", "--version"],
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=True,
    )  # fmt: skip
    assert done.stdout == f"{__version__}\n"


@pytest.mark.parametrize("argv", [["--version"], ["--help"], ["serve", "--help"], ["health"]])
def test_health_and_version_import_no_kernel(argv: list[str], listener: socket.socket) -> None:
    """Neither kernels, server nor NumPy are imported for --version, --help and health."""
    listener.close()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "service", *argv],
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == (1 if argv == ["health"] else 0)  # nothing listens there
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "service.settings" in imported
    assert {"numba", "llvmlite", "numpy", "fastapi", "starlette", "uvicorn", "prometheus_client"} & imported == set()


@pytest.mark.parametrize(
    ("response", "printed"),
    [
        (NOT_CAUGHT_UP, "Not ready: the models have not learned yet what the feedback log had at the start."),
        (HttpResponse(502, b"<html>"), "the service answers with status 502"),
        (None, "no service answers at this host and port"),
    ],
)
def test_health_says_why_a_service_is_not_ready(
    response: HttpResponse | None,
    printed: str,
    listener: socket.socket,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Docker keeps what its health check prints."""

    def answer() -> None:
        with listener.accept()[0] as end:
            end.recv(1 << 16)
            if response is not None:
                head = f"HTTP/1.1 {response.status} x\r\ncontent-length: {len(response.body)}\r\n\r\n"
                end.sendall(head.encode() + response.body)

    thread = threading.Thread(target=answer)
    thread.start()
    assert command.main(["health"]) == 1
    thread.join()
    assert capsys.readouterr().err == f"softstep: {printed}\n"


def test_every_command_has_a_module() -> None:
    """The command line accepts exactly the commands of service/commands/."""
    modules = {path.stem for path in (ROOT / "service" / "commands").glob("*.py")} - {"__init__"}
    with pytest.raises(SystemExit), redirect_stdout(io.StringIO()) as result:
        command.main(["--help"])
    assert set(re.findall(r"^    (\w+)", result.getvalue(), re.MULTILINE)) - {"command"} == modules
    assert all(callable(resolve_name(f"service.commands.{name}:run")) for name in modules)


def test_a_command_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command the exit code is 2 and the error says so."""
    with pytest.raises(SystemExit) as ended:
        command.main([])
    assert ended.value.code == 2
    assert "command" in capsys.readouterr().err


def test_a_port_in_use_is_reported(listener: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    """The log has one sentence, and the exit code is 1."""
    assert command.main(["serve"]) == 1
    message = f"cannot listen on 127.0.0.1 port {listener.getsockname()[1]}: Address already in use"
    assert caplog.messages == [message]


def test_an_address_of_another_machine_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """192.0.2.1 is reserved for documentation, so no machine has it."""
    monkeypatch.setenv("SOFTSTEP_OPEN", "true")
    assert command.main(["serve", "--host", "192.0.2.1", "--port", "0"]) == 1
    assert caplog.messages[-1].startswith("cannot listen on 192.0.2.1 port 0: ")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "a.example"])  # noqa: S104
@pytest.mark.parametrize("keys_file", [False, True])
def test_without_keys_serve_does_not_listen_elsewhere(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, keys_file: bool
) -> None:
    """The exit code is 2, and the command that makes a key names the file in which the service looks for it."""
    data, keys = tmp_path / "data", tmp_path / "my keys.json"
    if keys_file:
        monkeypatch.setenv("SOFTSTEP_KEYS_FILE", str(keys))
    assert command.main(["serve", "--host", host, "--data", str(data)]) == 2
    text = capsys.readouterr().err
    assert f"softstep: other machines can reach {host}, but there are no API keys\n" in text
    assert (f"--keys-file '{keys}'\n" if keys_file else f"--data {data}\n") in text
    assert not data.exists()


def test_damaged_keys_fail_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The service starts neither open nor with workers that cannot read their keys; the exit code is 1."""
    (tmp_path / "keys.json").write_text("{")
    assert command.main(["serve", "--data", str(tmp_path)]) == 1
    assert caplog.messages[-1].startswith("the file of API keys is damaged")


COMMANDS = [["serve"], ["check", "models"], ["config"], ["health"], ["warm"], ["verify"], ["replay", "iris"]]


@pytest.mark.parametrize("run", COMMANDS)
@pytest.mark.parametrize(
    ("name", "value"),
    [("WORKERS", "none"), ("WORKERS", "0"), ("PORT", "65536"), ("DRAIN_SECONDS", "-1"), ("CORS_ORIGINS", "secret")],
)
def test_invalid_settings_are_reported(
    run: list[str], name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the setting without its value or a traceback, and the exit code is 2."""
    monkeypatch.setenv(f"SOFTSTEP_{name}", value)
    assert command.main(run) == 2
    message = capsys.readouterr().err
    assert message.startswith("softstep: ")
    assert name in message.upper()
    assert len(message.splitlines()) == 1
    assert "secret" not in message


@pytest.mark.parametrize("run", COMMANDS)
def test_an_unknown_setting_stops_every_command(
    run: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the nearest setting, and the exit code is 2."""
    monkeypatch.setenv("SOFTSTEP_WORKER", "secret")
    assert command.main(run) == 2
    message = "softstep: SOFTSTEP_WORKER is not a setting; the nearest name is SOFTSTEP_WORKERS\n"
    assert capsys.readouterr().err == message


def test_an_interrupted_command_leaves_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its exit code is that of a shell."""

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "resolve_name", lambda _: interrupted)
    assert command.main(["verify"]) == 130
    assert capsys.readouterr().err == ""


def test_options_that_are_zero_are_not_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    """Port 0 means any free port; zero workers are rejected."""
    assert settings_of("serve", "--port", "0").port == 0
    assert command.main(["serve", "--workers", "0"]) == 2
    assert "workers" in capsys.readouterr().err


def test_options_override_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options override the environment, which overrides the defaults."""
    monkeypatch.setenv("SOFTSTEP_PORT", "9000")
    monkeypatch.setenv("SOFTSTEP_HOST", "::1")
    settings = settings_of("serve", "--port", "9001", "--models", "elsewhere")
    assert (settings.port, settings.host, settings.models) == (9001, "::1", Path("elsewhere"))


def test_a_sagemaker_container_is_recognized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its model folder exists: port 8080 on every address, unless options say otherwise."""
    assert settings_of("serve").port == 8000
    monkeypatch.setattr(configuration, "SAGEMAKER_MODEL", tmp_path)
    for argv in (["serve"], ["health"]):
        settings = settings_of(*argv)
        assert (settings.models, settings.host, settings.port) == (tmp_path, "0.0.0.0", 8080)  # noqa: S104
    assert settings_of("serve", "--port", "9000").port == 9000
    assert settings_of("serve", "--models", "elsewhere").port == 8000
    monkeypatch.setenv("SOFTSTEP_MODELS", "elsewhere")
    assert (settings_of("serve").models, settings_of("serve").port) == (Path("elsewhere"), 8000)


def test_a_sagemaker_container_serves_its_model(iris_models: Path, tmp_path: Path) -> None:
    """One model without a name is served at SageMaker's paths."""
    with serving(
        iris_models / "iris" / "1", tmp_path, AIP_PREDICT_ROUTE="/vertex:predict", AIP_HEALTH_ROUTE="/h"
    ) as service:
        body = b'{"instances": [[5.1, 3.5, 1.4, 0.2]]}'
        for target in ("/invocations", "/vertex:predict"):
            assert b"200 OK" in request_raw(service, b"POST %b" % target.encode(), body)
        for target in ("/ping", "/h"):
            assert b"200 OK" in request_raw(service, b"GET %b" % target.encode(), b"")


def request_raw(service: Service, line: bytes, body: bytes) -> bytes:
    """Return the beginning of the response to a request."""
    with socket.create_connection(service.address, SECONDS) as end:
        head = b"%b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        end.sendall(head % (line, len(body)) + body)
        return end.recv(1 << 16)


def test_health_returns_whether_the_service_is_ready(
    iris_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code is 0 while it is ready, 1 while it drains and after it stopped."""
    with serving(iris_models, tmp_path, SOFTSTEP_DRAIN_SECONDS=2.0) as service:
        monkeypatch.setenv("SOFTSTEP_PORT", str(service.address[1]))
        assert command.main(["health"]) == 0
        for host in ("0.0.0.0", "localhost"):  # noqa: S104
            monkeypatch.setenv("SOFTSTEP_HOST", host)
            assert command.main(["health"]) == 0
        service.process.send_signal(signal.SIGTERM)
        while predict(service.url).status_code == 200:
            if command.main(["health"]) == 1:
                break
        else:
            pytest.fail("it was never unready")
    assert command.main(["health"]) == 1


def test_health_of_another_server_is_bad(listener: socket.socket) -> None:
    """A server that does not speak HTTP is not ready."""

    def answer() -> None:
        end, _ = listener.accept()
        with end:
            end.recv(1 << 16)
            end.sendall(b"SSH-2.0-\r\n")

    answering = threading.Thread(target=answer)
    answering.start()
    assert command.main(["health"]) == 1
    answering.join(SECONDS)


def test_check_prints_a_valid_model(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints the head, the size and the hash of the weights."""
    assert command.main(["check", str(ROOT / "models" / "iris" / "1")]) == 0
    assert capsys.readouterr().out.startswith("valid: softmax, 4 features, 3 classes, weights ")


def test_check_reports_an_invalid_model(iris_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 1 for a damaged model and for a folder without a model."""
    (iris_models / "iris" / "1" / "model.safetensors").write_bytes(b"")
    for folder in (iris_models / "iris" / "1", tmp_path / "nothing"):
        assert command.main(["check", str(folder)]) == 1
        assert capsys.readouterr().err.startswith("invalid: ")


# Private, because no public name counts all kernels: cache_misses() counts those compiled in this process.
COUNTED = "; from service import compiler; print(len(compiler._entries))"


def run_python(*arguments: object) -> list[str]:
    """Run a program and return the words that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_warm_compiles_all_that_serving_needs(tmp_path: Path) -> None:
    """`softstep serve` imports no kernel that `softstep warm` has not compiled, and each process compiles its share."""
    served = int(run_python(f"import service.commands.serve{COUNTED}")[0])
    assert run_python(f"{warm.SHARE}{COUNTED}", tmp_path) == ["0", str(served)]
    (tmp_path / "service.softmax.kernels.jacobians").unlink()
    (tmp_path / "service.softmax.kernels.heads").unlink()
    assert run_python(f"{warm.SHARE}{COUNTED}", tmp_path) == ["0", "8"]


def test_warm_compiles_this_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It compiles this package from any directory, and nothing that is in the cache."""
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__init__.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path)

    def warm_up() -> str:
        assert command.main(["warm"]) == 0
        return capsys.readouterr().out

    # The first run may have to compile.
    assert any(f"{compiler.TARGET}: 0 kernels compiled" in warm_up() for _ in range(2))


def test_kernels_are_compiled_without_a_writable_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder that lacks kernels and is not writable, as on a read-only root, does not prevent a start."""
    source = tmp_path / "twice.py"
    source.write_text("def twice(x):\n    return 2 * x\n")
    names: dict[str, object] = {}
    exec(compile(source.read_text(), source, "exec"), names)  # noqa: S102
    monkeypatch.setattr(
        compiler.KernelLocator, "from_function", classmethod(lambda cls, function, _: cls(function, ""))
    )
    monkeypatch.setattr(compiler.KernelLocator, "ensure_cache_path", _refuse)
    monkeypatch.setattr(compiler, "_entries", [])
    twice = compiler.kernel("int64(int64)")(names["twice"])
    assert twice(21) == 42
    assert compiler.cache_misses() == 1


def _refuse(_locator: object) -> None:
    raise OSError(30, "Read-only file system")

"""The `softstep` command: the only place where the rooms are put together."""

import argparse
import os
import subprocess
import sys
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

import orjson
from pydantic import ValidationError
from pydantic_settings import SettingsError

from service import __version__, compiler, logs
from service.board import Board
from service.errors import ArtifactError
from service.serve import orders, worker
from service.settings import Settings
from service.store.artifact import read_artifact
from service.supervisor import Supervisor, listen

# Where SageMaker puts a model, and the port on which it asks.
SAGEMAKER_MODEL: Final = Path("/opt/ml/model")
SAGEMAKER_PORT: Final = 8080
# Where a service that listens everywhere is asked for its health.
LOOPBACKS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
# The folder that holds this package, so that it is the one which a further interpreter imports.
ROOT: Final = Path(__file__).parent.parent


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except ValidationError as reason:
        for fault in reason.errors(include_input=False, include_url=False, include_context=False):
            print(f"softstep: setting {'.'.join(map(str, fault['loc']))}: {fault['msg']}", file=sys.stderr)
        return 2
    except SettingsError as reason:
        print(f"softstep: {reason}", file=sys.stderr)
        return 2
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("softstep", description="Serves softmax models that learn while they serve.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")
    serve = commands.add_parser("serve", help="serve a models directory over HTTP", description=_SERVE)
    serve.add_argument("--models", type=Path, help="directory of models/<name>/<version>/")
    serve.add_argument("--data", type=Path, help="directory for what the service keeps")
    serve.add_argument("--host", help="address to listen on")
    serve.add_argument("--port", type=int, help="port to listen on")
    serve.add_argument("--workers", type=int, help="number of worker processes")
    serve.set_defaults(run=_serve)
    warm = commands.add_parser("warm", help="compile the kernels ahead of the first start")
    warm.add_argument("targets", nargs="*", help="processor baselines; this machine's if none is named")
    warm.set_defaults(run=_warm)
    check = commands.add_parser("check", help="verify one model version and say what is wrong with it")
    check.add_argument("directory", type=Path, help="a folder with model.json and model.safetensors")
    check.set_defaults(run=_check)
    health = commands.add_parser("health", help="ask a running service whether it is ready")
    health.set_defaults(run=_health)
    return parser


_SERVE: Final = "Options override the settings SOFTSTEP_<NAME> of the environment; docs/settings.md lists them all."


def _settings(arguments: argparse.Namespace) -> Settings:
    """The environment's settings, overridden by options; where a container contract says more, by that first."""
    names = ("models", "data", "host", "port", "workers")
    options = {name: value for name in names if (value := getattr(arguments, name, None)) is not None}
    if SAGEMAKER_MODEL.is_dir() and "models" not in options and "SOFTSTEP_MODELS" not in os.environ:
        options = {"models": SAGEMAKER_MODEL, "port": SAGEMAKER_PORT, "host": "0.0.0.0", **options}  # noqa: S104
    return Settings(**options)


def _serve(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    logs.set_up(as_json=settings.log_json, access=settings.access_log)
    try:
        listener = listen(settings.host, settings.port)
    except OSError as reason:
        print(f"softstep: cannot listen on {settings.host} port {settings.port}: {reason.strerror}", file=sys.stderr)
        return 1
    if compiler.FAMILY == "none":
        print("softstep: this processor has no fused multiply-add; predictions are correct but slow", file=sys.stderr)
    host, port = listener.getsockname()[:2]
    print(
        f"softstep {__version__}: http://{f'[{host}]' if ':' in host else host}:{port} (kernels: {compiler.TARGET})",
        flush=True,
    )
    # A model that is replaced again and again leaves counters behind; twice the limit is room for many of them.
    board = Board(settings.workers, 2 * settings.models_max)
    unloaded: frozenset[str] = frozenset()

    def change(line: bytes) -> tuple[int, int, bytes]:
        nonlocal unloaded
        unloaded = orders.changed(unloaded, line)
        return *orders.token_of(line), orjson.dumps(sorted(unloaded))

    Supervisor(settings, board, listener, partial(worker.run, settings, board), change).run()
    return 0


def _warm(arguments: argparse.Namespace) -> int:
    """Compile for each baseline in a process of its own; importing the kernels is what compiles them."""
    for target in arguments.targets or [compiler.TARGET]:
        environment = {**os.environ, "NUMBA_CPU_NAME": target, "NUMBA_CPU_FEATURES": ""}
        report = "from service.compiler import cache_misses; import service.serve.live; print(cache_misses())"
        done = subprocess.run(  # noqa: S603  # this interpreter, with a fixed program
            [sys.executable, "-c", report], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return done.returncode
        print(f"{target}: {done.stdout.strip()} kernels compiled, the others were in {compiler.CACHE.name}/")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    try:
        artifact = read_artifact(arguments.directory, Settings().artifact_bytes_max)
    except ArtifactError as reason:
        print(f"refused: {reason}", file=sys.stderr)
        return 1
    manifest = artifact.manifest
    shape = f"{len(manifest.features)} features, {len(manifest.classes)} classes"
    print(f"good: {manifest.head}, {shape}, weights {artifact.weights_sha256}")
    return 0


def _health(arguments: argparse.Namespace) -> int:
    """Ask for readiness from this machine; for a container's HEALTHCHECK, which may have no shell and no curl."""
    settings = _settings(arguments)
    connection = HTTPConnection(LOOPBACKS.get(settings.host, settings.host), settings.port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return 0 if connection.getresponse().status == 200 else 1  # noqa: PLR2004
    except (OSError, HTTPException):
        return 1
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())

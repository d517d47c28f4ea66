"""The `softstep` command: reads the command line and the settings, and hands both to the command's own module.

Only that module is imported: `softstep health` runs beside a service again and again, and importing Numba and the
server would cost it more than a second of a core each time. tests/commands/test_command.py holds it light.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Final

from pydantic import ValidationError
from pydantic_settings import SettingsError

from service import __version__
from service.errors import SoftstepError
from service.settings import Settings

Command = Callable[[Settings, argparse.Namespace], int]
"""What a command's module has as `run`: given the settings and the command line, work and return the exit code."""

# Where SageMaker puts a model, and the port on which it asks.
SAGEMAKER_MODEL: Final = Path("/opt/ml/model")
SAGEMAKER_PORT: Final = 8080
INTERRUPTED: Final = 130  # what a shell returns for a command that SIGINT ended
_SERVE: Final = "Options override the settings SOFTSTEP_<NAME> of the environment; docs/settings.md lists them all."


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        settings = _settings(arguments)
    except ValidationError as reason:
        for fault in reason.errors(include_input=False, include_url=False, include_context=False):
            print(f"softstep: setting {'.'.join(map(str, fault['loc']))}: {fault['msg']}", file=sys.stderr)
        return 2
    except SettingsError as reason:
        print(f"softstep: {reason}", file=sys.stderr)
        return 2
    run: Command = resolve_name(f"service.commands.{arguments.command}:run")
    try:
        return run(settings, arguments)
    except SoftstepError as reason:
        print(f"softstep: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    """Every command here is a module of service/commands/."""
    parser = argparse.ArgumentParser("softstep", description="Serves softmax models that learn while they serve.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")
    serve = commands.add_parser("serve", help="serve a models directory over HTTP", description=_SERVE)
    serve.add_argument("--models", type=Path, help="directory of models/<name>/<version>/")
    serve.add_argument("--data", type=Path, help="directory for what the service keeps")
    serve.add_argument("--host", help="address to listen on")
    serve.add_argument("--port", type=int, help="port to listen on")
    serve.add_argument("--workers", type=int, help="number of worker processes")
    warm = commands.add_parser("warm", help="compile the kernels ahead of the first start")
    warm.add_argument("targets", nargs="*", help="processor baselines; this machine's if none is named")
    check = commands.add_parser("check", help="verify one model version and say what is wrong with it")
    check.add_argument("directory", type=Path, help="a folder with model.json and model.safetensors")
    commands.add_parser("health", help="ask a running service whether it is ready")
    _add_keeping(commands)
    return parser


def _add_keeping(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The commands that work on what a service keeps."""
    keeps = argparse.ArgumentParser(add_help=False)
    keeps.add_argument("--data", type=Path, help="directory for what the service keeps")
    keeps.add_argument("--json", action="store_true", help="results as one JSON object a line")
    streams = argparse.ArgumentParser(add_help=False, parents=[keeps])
    streams.add_argument("model", help="model, or model/version where several versions have learned")
    replay = commands.add_parser("replay", parents=[streams], help="fold a model's events anew and compare")
    replay.add_argument("--seq", type=int, help="the event up to which; the last one if none is named")
    replay.add_argument("--keep", type=Path, metavar="DIR", help="write the state there, as a snapshot file")
    verify = commands.add_parser("verify", parents=[keeps], help="hold all that is kept against the log")
    verify.add_argument("--refold", action="store_true", help="also fold each kept state anew, and compare")
    skip = commands.add_parser("skip", parents=[streams], help="let a model's fold go past an event")
    skip.add_argument("seq", type=int, help="the event")
    skip.add_argument("--id", help="a name for this call, so that a retry finds it; made if none is given")
    purge = commands.add_parser("purge", parents=[streams], help="delete all that a model version has learned")
    purge.add_argument("--yes", action="store_true", help="it is meant")
    backup = commands.add_parser("backup", parents=[keeps], help="copy what a service keeps, while it runs")
    backup.add_argument("directory", type=Path, help="a folder that is not there yet")
    restore = commands.add_parser("restore", parents=[keeps], help="put a backup into an empty data directory")
    restore.add_argument("directory", type=Path, help="the backup")
    restore.add_argument("--over", action="store_true", help="replace what is there; what it forgot stays forgotten")
    export = commands.add_parser("export", parents=[streams], help="write what a model has learned as a new version")
    export.add_argument("--seq", type=int, help="the event up to which; the last one if none is named")
    export.add_argument("directory", type=Path, help="a version's folder that is not there yet, or a model's folder")


def _settings(arguments: argparse.Namespace) -> Settings:
    """The environment's settings, overridden by options; where a container contract says more, by that first."""
    names = ("models", "data", "host", "port", "workers")
    options = {name: value for name in names if (value := getattr(arguments, name, None)) is not None}
    if SAGEMAKER_MODEL.is_dir() and "models" not in options and "SOFTSTEP_MODELS" not in os.environ:
        options = {"models": SAGEMAKER_MODEL, "port": SAGEMAKER_PORT, "host": "0.0.0.0", **options}  # noqa: S104
    return Settings(**options)


if __name__ == "__main__":
    sys.exit(main())

"""The command line of `softstep`: parse it, read the settings, and run the command's module.

Only that module is imported. `softstep health` runs beside a service every half minute, and importing Numba and the
server would take more than a second of a core each time. tests/commands/test_command.py checks the imports.
"""

import argparse
import gc
import re
from collections.abc import Callable
from importlib import import_module
from math import nan
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Final

from service import __version__, variant_options
from service.access import key_options
from service.configuration import InvalidSettingsError, read_settings
from service.console import discard_output, flush_output, print_error
from service.convert.import_arguments import add_import_command
from service.errors import SoftstepError
from service.settings import Settings
from service.train.training_options import add_train_command

Command = Callable[[Settings, argparse.Namespace], int]
"""Runs a command, given the settings and the parsed command line; returns the exit code."""

INTERRUPTED: Final = 130  # a shell's exit code for a command that SIGINT ended
OUTPUT_CLOSED: Final = 141  # the same for SIGPIPE, which ends a command whose output goes to `head`
COUNT: Final = re.compile("[1-9][0-9]{0,12}")  # a stream can have no more events
# The limits of a key, which access/key_file.py stores.
LIMITS: Final = {
    "requests_per_second": "requests of all kinds a second",
    "rows_per_second": "rows of predictions, explanations and feedback a second",
    "requests_in_flight": "requests in progress at one time",
    "feedback_events_per_hour": "events of feedback an hour, for each model",
    "importance_per_hour": "sum of the importance of rows of feedback an hour, for each model",
}
# Packages that only some commands need, by the extra that installs them.
EXTRAS: Final = {
    "matplotlib": "train",
    "pyarrow": "train",
    "rich": "train",
    "onnx": "convert",
    "onnxruntime": "convert",
    "sklearn": "convert",
    "skops": "convert",
}
# Commands that import no kernels.
WITHOUT_KERNELS: Final = frozenset(("config", "health", "keys"))
SERVE_TEXT: Final = "Options override the settings SOFTSTEP_<NAME> of the environment; `softstep config` lists all."


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        settings = read_settings(arguments)
        code = _import_command(arguments.command)(settings, arguments)
        flush_output()
    except InvalidSettingsError as error:
        for sentence in error.sentences:
            print_error(sentence)
        return 2
    except BrokenPipeError:
        discard_output()
        return OUTPUT_CLOSED
    except SoftstepError as error:
        print_error(str(error))
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _import_command(name: str) -> Command:
    """Return a command; nothing that it imports is garbage, and looking for some would take a tenth of a start.

    What it imports may compile kernels, which is said on standard error then.

    Raises:
        SoftstepError: It needs packages that are not installed.
    """
    gc.disable()
    try:
        if name not in WITHOUT_KERNELS:
            import_module("service.compilation_notice")
        command: Command = resolve_name(f"service.commands.{name}:run")
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        raise SoftstepError(f'softstep {name} needs more packages: pip install "softstep[{extra}]"') from None
    finally:
        gc.enable()
    return command


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each command is a module of service/commands/."""
    parser = argparse.ArgumentParser("softstep", description="Serve softmax models that learn from feedback.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--models", type=Path, help="directory of models/<name>/<version>/")
    options.add_argument("--data", type=Path, help="data directory: the log and what was learned")
    options.add_argument("--log", metavar="ADDRESS", help="address of a feedback log in PostgreSQL: postgresql://…")
    options.add_argument("--role", help="what this replica of a log in PostgreSQL does: all, worker or learner")
    options.add_argument("--host", help="address to listen on")
    options.add_argument("--port", type=int, help="port to listen on")
    options.add_argument("--workers", type=int, help="number of worker processes")
    commands.add_parser("serve", parents=[options], help="serve a models directory over HTTP", description=SERVE_TEXT)
    config = commands.add_parser("config", parents=[options], help="print every setting, its value and its source")
    config.add_argument("--json", action="store_true", help="print one JSON object for each setting")
    warm = commands.add_parser("warm", help="compile the kernels ahead of the first start")
    warm.add_argument("targets", nargs="*", help="processor baselines; default: the best one of this machine")
    check = commands.add_parser("check", help="validate the files of one model version")
    check.add_argument("directory", type=Path, help="folder with model.json and model.safetensors")
    commands.add_parser("health", help="ask a running service whether it is ready")
    add_train_command(commands)
    add_import_command(commands)
    _add_data_commands(commands)
    _add_key_commands(commands)
    return parser


def _add_data_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands that work on a log and a data directory."""
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument("--data", type=Path, help="data directory: the log and what was learned")
    folder.add_argument("--json", action="store_true", help="print results as one JSON object a line")
    data = argparse.ArgumentParser(add_help=False, parents=[folder])
    data.add_argument("--log", metavar="ADDRESS", help="address of a feedback log in PostgreSQL: postgresql://…")
    streams = argparse.ArgumentParser(add_help=False, parents=[data])
    streams.add_argument("model", help="model, or model/version if several versions have learned")
    replay = commands.add_parser("replay", parents=[streams], help="fold a model's events again and compare")
    replay.add_argument("--seq", type=int, help="last event to fold; default: the last one of all")
    replay.add_argument("--keep", type=Path, metavar="DIR", help="folder to write the state to, as a snapshot file")
    verify = commands.add_parser("verify", parents=[data], help="verify the log and all files that are derived from it")
    verify.add_argument("--refold", action="store_true", help="also fold each stored state again and compare")
    log = commands.add_parser("log", parents=[streams], help="print a model's latest events, and those that come")
    log.add_argument("--follow", action="store_true", help="go on with new events until interrupted")
    log.add_argument("--limit", type=_parse_count, default=50, metavar="N", help="number of events; default: 50")
    log.add_argument(
        "--kind",
        choices=("all", "admin", "surprising"),
        default="all",
        help="all events, administrative changes alone, or the rows with the largest losses; default: all",
    )
    events = commands.add_parser("events", parents=[streams], help="check and list all events and who sent them")
    events.add_argument("--actor", help='only the events of this actor, such as key:k7m2q9xd; "" for those without one')
    bisect = commands.add_parser("bisect", parents=[streams], help="list the events that changed the answer to a row")
    bisect.add_argument("row", help="JSON list of numbers or object of named features; a file with one; or - for stdin")
    bisect.add_argument(
        "--threshold",
        type=_parse_threshold,
        metavar="CLASS=P",
        help="list the events at which the probability of a class crossed P; default: changes of the label",
    )
    skip = commands.add_parser("skip", parents=[streams], help="make a model's fold leave out an event")
    skip.add_argument("seq", type=int, help="seq of the event")
    skip.add_argument("--id", help="id of this call, so that a retry is recognized; default: a new one")
    purge = commands.add_parser("purge", parents=[streams], help="delete everything a model version has learned")
    purge.add_argument("--yes", action="store_true", help="confirm the deletion")
    backup = commands.add_parser("backup", parents=[data], help="copy a data directory, while the service runs")
    backup.add_argument("directory", type=Path, help="folder to create")
    restore = commands.add_parser("restore", parents=[data], help="restore a backup to an empty data directory")
    restore.add_argument("directory", type=Path, help="folder of the backup")
    restore.add_argument("--over", action="store_true", help="replace a data directory; forgotten events stay so")
    migrate = commands.add_parser(
        "migrate", parents=[folder], help="make the tables of a log in PostgreSQL, or copy a log"
    )
    place = "data directory, or postgresql://…; default: SOFTSTEP_LOG, which other users do not see"
    migrate.add_argument("--from", dest="source", metavar="LOG", help=f"log to copy: {place}")
    migrate.add_argument("--to", dest="target", metavar="LOG", help=f"log to make: {place}")
    export = commands.add_parser("export", parents=[streams], help="write a learned model as a new version, or as ONNX")
    export.add_argument("--seq", type=int, help="last event to fold; default: the last one of all")
    export.add_argument("--models", type=Path, help="with --onnx: models directory, for a model that has not learned")
    target = export.add_argument("directory", type=Path, help="version folder to create, or folder of a model")
    meaning = "ONNX file to write in place of a version"
    export.add_argument("--onnx", type=Path, metavar="FILE", action=_InPlaceOf, replaced=target, help=meaning)
    _add_whatif(commands, streams)


def _add_whatif(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", streams: argparse.ArgumentParser
) -> None:
    """Add `softstep whatif`, whose options are one variant, beside those of --variant."""
    whatif = commands.add_parser("whatif", parents=[streams], help="fold a model's events again with changes")
    whatif.add_argument("--rule", help="learning rule")
    whatif.add_argument(
        "--constants",
        type=_text(variant_options.parse_constants),
        default={},
        metavar="NAME=NUMBER,…",
        help="constants of the rule; the others have their defaults",
    )
    whatif.add_argument(
        "--without", metavar="IDS", help="events to leave out: a file of ids, or ids separated by commas"
    )
    whatif.add_argument("--labels", type=Path, metavar="FILE", help="CSV file with an id and other labels in each line")
    whatif.add_argument("--keep", type=Path, metavar="DIR", help="folder to write this variant to, as export does")
    whatif.add_argument("--plot", type=Path, metavar="FILE", help="SVG file to draw, with the loss along the rows")
    whatif.add_argument(
        "--variant",
        type=_text(variant_options.parse_variant),
        action="append",
        default=[],
        metavar="CHANGES",
        help="a further variant, such as 'rule=ftrl rate=0.1'; may be repeated",
    )


def _add_key_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `softstep keys`, whose commands change the API keys of a file or a log."""
    keys = commands.add_parser("keys", help="create, list, rotate and revoke API keys")
    actions = keys.add_subparsers(required=True, metavar="action", dest="action")
    file = argparse.ArgumentParser(add_help=False)
    file.add_argument("--data", type=Path, help="data directory: keys.json in it is the file of keys")
    place = file.add_mutually_exclusive_group()
    place.add_argument("--keys-file", type=Path, help="file of keys; default: SOFTSTEP_KEYS_FILE, or that of --data")
    place.add_argument("--log", metavar="ADDRESS", help="log in PostgreSQL that has the keys; default: SOFTSTEP_LOG")
    file.add_argument("--json", action="store_true", help="print results as one JSON object a line")
    create = actions.add_parser("create", parents=[file], help="make a key and print it, this once")
    create.add_argument("--name", type=_text(key_options.parse_name), required=True, help="who uses the key")
    create.add_argument(
        "--scopes",
        type=_text(key_options.parse_scopes),
        default="predict",
        help="predict, feedback and admin, separated by commas; default: predict",
    )
    create.add_argument(
        "--models",
        type=_text(key_options.parse_models),
        dest="model_patterns",  # `models` is a setting
        metavar="PATTERNS",
        help="models that the key is for, such as 'fraud-*,iris'; default: all",
    )
    expiry = _text(key_options.parse_expiry)
    create.add_argument("--expires", type=expiry, default="365d", help="90d, 2027-01-01 or never; default: 365d")
    for name, meaning in LIMITS.items():
        option = f"--{name.replace('_', '-')}"
        parse = key_options.parse_count if name == "requests_in_flight" else key_options.parse_amount
        create.add_argument(option, type=_text(parse), metavar="N", help=f"{meaning}; default: no limit")
    actions.add_parser("list", parents=[file], help="list all keys, without their secrets")
    rotate = actions.add_parser("rotate", parents=[file], help="make a new secret of a key, and end the old one")
    rotate.add_argument("id", help="id of the key")
    overlap = _text(key_options.parse_period)
    rotate.add_argument("--overlap", type=overlap, default="24h", help="how long the old one stays; default: 24h")
    rotate.add_argument("--expires", type=expiry, help="default: after the lifetime that the old one had")
    revoke = actions.add_parser("revoke", parents=[file], help="end a key at once")
    revoke.add_argument("id", help="id of the key")
    actions.add_parser("audit", parents=[file], help="print who changed what in a log in PostgreSQL, as JSON lines")


class _InPlaceOf(argparse.Action):
    """An option that makes a positional argument unnecessary; argparse takes an optional one only beside the others."""

    def __init__(self, *args: Any, replaced: argparse.Action, **options: Any) -> None:  # noqa: ANN401  # argparse's own
        super().__init__(*args, **options)
        self._replaced: Final = replaced

    def __call__(self, _parser: object, namespace: argparse.Namespace, values: object, _option: object = None) -> None:
        setattr(namespace, self.dest, values)
        self._replaced.required = False


def _parse_count(text: str) -> int:
    """Return a number of events."""
    if COUNT.fullmatch(text) is None:
        raise argparse.ArgumentTypeError("write a whole number from 1")
    return int(text)


def _parse_threshold(text: str) -> tuple[str, float]:
    """Return the class and the probability of "class=probability"."""
    name, equals, number = text.rpartition("=")
    try:
        probability = float(number)
    except ValueError:
        probability = nan
    if not (equals and 0 <= probability <= 1):
        raise argparse.ArgumentTypeError("write a class, an equals sign and a probability from 0 to 1")
    return name, probability


def _text(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a parser of an argument's text whose errors argparse shows."""

    def parse_text(text: str) -> Any:  # noqa: ANN401  # what the parser returns
        try:
            return parse(text)
        except SoftstepError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_text

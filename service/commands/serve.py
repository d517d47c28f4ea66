"""`softstep serve`: put the rooms together and serve until told to stop."""

import argparse
import sys
from functools import partial

import orjson

from service import __version__, compiler, logs
from service.board import Board
from service.serve import orders, worker
from service.settings import Settings
from service.supervisor import Supervisor, listen


def run(settings: Settings, _arguments: argparse.Namespace) -> int:
    """Serve; 0 when it was stopped, 1 where the address cannot be listened on."""
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

"""Start MLServer with the custom runtime, with default settings or tuned for small models.

By default inference runs in a second process and metrics are on. Tuned, it runs in the server's own process, without
metrics and debug mode: each of the three costs requests.
"""

import json
import os
import sys
from pathlib import Path

from weights import arguments

HERE = Path(__file__).resolve().parent
TUNED = {"parallel_workers": 0, "metrics_endpoint": None, "debug": False}


def main() -> None:
    """Write the settings and replace this process by MLServer."""
    options = arguments()
    settings = {
        "host": "127.0.0.1",
        "http_port": options.port,
        "grpc_port": options.port + 1,
        "metrics_port": options.port + 2,
    }
    if options.tuned:
        settings |= TUNED
    (options.scratch / "settings.json").write_text(json.dumps(settings))
    folder = options.scratch / "iris"
    folder.mkdir()
    model = {
        "name": "iris",
        "implementation": "mlserver_runtime.Softmax",
        "parameters": {"uri": str(options.models.resolve())},
    }
    (folder / "model-settings.json").write_text(json.dumps(model))
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    command = [str(Path(sys.executable).with_name("mlserver")), "start", str(options.scratch)]
    os.execve(command[0], command, environment)  # noqa: S606 - the launcher becomes the server


if __name__ == "__main__":
    main()

"""Read each source of a folder in a process of its own, and report what it did and what it took.

    python -m tests.support.source_reader FOLDER SEED…

prints {"imports": bytes, "results": {name: {"outcome", "is_refused", "seen", "seconds", "growth"}}} as JSON. The seeds
are sources that can be read; they are read first, so that everything is imported. Each process is forked from this one.
It has a hook of the interpreter that notes imports, code, other processes, sockets, changes of folders, and opened
files other than the source. `imports` is the largest memory of this process, and `growth` what a source adds to it.
"""

import codecs
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from service.convert.source_kinds import read_source
from service.convert.source_options import SourceOptions
from service.errors import SoftstepError
from tests.support.peak_memory import peak_memory

OPTIONS = SourceOptions(layers="w,", weight_rows="inputs")
WATCHED = (
    "import", "exec", "os.system", "os.remove", "os.mkdir", "os.rename", "os.symlink", "os.exec", "os.posix_spawn",
    "pickle.find_class", "socket.connect", "subprocess.Popen",
)  # fmt: skip
WRITES = os.O_WRONLY | os.O_RDWR


def read_watched(path: Path) -> dict[str, Any]:
    """Return what reading a source gives, does and takes; the interpreter is watched from now on."""
    seen: list[str] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and not isinstance(arguments[0], int):
            if str(arguments[0]) != str(path) or (arguments[2] or 0) & WRITES:
                seen.append("open")
        elif event in WATCHED:
            seen.append(event)

    before = peak_memory()
    sys.addaudithook(note)
    is_refused = False
    try:
        read_source(path, OPTIONS).model.to_artifact("float32")
        outcome = "accepted"
    except SoftstepError as error:
        outcome, is_refused = str(error), True
    except BaseException as error:  # noqa: BLE001  # whatever comes out is reported
        outcome = f"{type(error).__name__}: {error}"
    noted = list(seen)
    used, growth = resource.getrusage(resource.RUSAGE_SELF), peak_memory() - before
    return {
        "outcome": outcome,
        "is_refused": is_refused,
        "seen": noted,
        "seconds": used.ru_utime + used.ru_stime,
        "growth": growth,
    }


def fork_reader(path: Path) -> dict[str, Any]:
    """Return what `read_watched` returns in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        with os.fdopen(writing, "w") as file:
            json.dump(read_watched(path), file)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    _, status = os.waitpid(child, 0)
    if status:
        return {"outcome": f"killed: {status}", "is_refused": False, "seen": [], "seconds": 0.0, "growth": 0}
    result: dict[str, Any] = json.loads(text)
    return result


def main(folder: Path, seeds: list[Path]) -> None:
    """Read the seeds and then the sources, and print the report."""
    # The codec of names in archives without a flag.
    codecs.lookup("cp437")
    for seed in seeds:
        read_source(seed, OPTIONS).model.to_artifact("float32")
    imports = peak_memory()
    results = {path.name: fork_reader(path) for path in sorted(folder.iterdir())}
    sys.stdout.write(json.dumps({"imports": imports, "results": results}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(seed) for seed in sys.argv[2:]])

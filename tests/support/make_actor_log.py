"""Write tests/golden/actors: a data directory whose log has schema 3, with events of several actors.

    python -m tests.support.make_actor_log

It is run once. Every later release must open the log, verify its chain and list the same events.
"""

import tarfile
import tempfile
from pathlib import Path

import orjson

from service.store.directory.backup_files import close_log
from service.store.log.events import ACTOR_BYTES_MAX, COMMAND, Kind
from tests.support.data_directories import History, json_lines, row_payload, run_command
from tests.support.make_fold1 import remove_owner

GOLDEN = Path(__file__).parents[1] / "golden" / "actors"
ACTORS = (b"key:k7m2q9xd", b"", b"jwt:" + b"0f" * 32, b"x" * ACTOR_BYTES_MAX)


def main() -> None:
    """Write the data directory again, and what it holds."""
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder) / "data")
        for number, actor in enumerate(ACTORS * 3):
            history.append([history.draft(Kind.FEEDBACK, f"evt-{number}", row_payload(number))._replace(actor=actor)])
        history.correct(2, 1)
        history.forget("evt-0", "evt-1")
        history.rollback(9)
        history.append([history.draft(Kind.CONFIGURE, "rule", b'{"paused":true}')._replace(actor=COMMAND)])
        last = history.log.stream_state(history.stream.number).hash
        close_log(history.data, history.log)
        events = json_lines(run_command("events", "iris", "--json", "--data", history.data.path))
        GOLDEN.mkdir(exist_ok=True)
        with tarfile.open(GOLDEN / "data.tar.xz", "w:xz") as archive:
            archive.add(history.data.path, "data", filter=remove_owner)
    expected = {"hash": last.hex(), "events": events}
    (GOLDEN / "expected.json").write_bytes(orjson.dumps(expected, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()

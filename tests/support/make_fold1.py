"""Write tests/golden/fold1: the data directory of a release whose fold has version 1, which later releases take over.

    python -m tests.support.make_fold1

It is run once, by that release. If a test fails on the directory, old streams are not understood any more.

    1 … 20    feedback of one row; then 21, an added class; 22 … 30 feedback; checkpoint and snapshot at 30
    31 … 35   feedback that was acknowledged and not folded when the process was stopped
"""

import tarfile
import tempfile
from pathlib import Path

import orjson

from service.learn.follow import Follower
from service.learn.publish import Publisher
from service.store.artifact.fingerprint import FOLD_VERSION
from service.store.directory.backup_files import close_log
from service.store.states.snapshots import read_fields
from tests.support.data_directories import History, iris_artifact

GOLDEN = Path(__file__).parents[1] / "golden" / "fold1"


def remove_owner(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Remove owner and time from an archive entry."""
    return entry.replace(uid=0, gid=0, uname="", gname="", mtime=0, deep=False)


def main() -> None:
    """Write the data directory again."""
    assert FOLD_VERSION == 1
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder) / "data")
        history.add_feedback(*range(20))
        history.add_class("gigantea")
        history.add_feedback(*range(21, 30), classes=4)
        follower = Follower(history.stream, iris_artifact(), history.log, history.folder)
        while events := follower.read_next(99):
            follower.fold_batch(events)
        follower.write_checkpoint()
        Publisher(follower, 1 << 20).publish_snapshot(0.0, lambda: 0.0)
        history.add_feedback(*range(30, 35), classes=4)
        close_log(history.data, history.log)
        fields = read_fields(history.folder.snapshots / "30")
        GOLDEN.mkdir(exist_ok=True)
        with tarfile.open(GOLDEN / "data.tar", "w") as archive:
            archive.add(history.data.path, "data", filter=remove_owner)
    expected = {name: fields[name] for name in ("weights_sha256", "genesis", "classes")}
    (GOLDEN / "expected.json").write_bytes(orjson.dumps(expected, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()

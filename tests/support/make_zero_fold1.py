"""Write tests/golden/zero_fold1: streams from zero weights, as a release left them whose default rules were others.

    python -m tests.support.make_zero_fold1

It is run once, by a release whose fold has version 1. Streams continue with the rule that they began with, to the bit.

    narrow    learns by newton: 1 … 20 feedback of one row, checkpoint and snapshot at 20; 21, an added class
    wide      learns by ftrl: 1 … 20 feedback; checkpoint and snapshot at 20

expected.json has the rule of each stream and the hash of its weights at 20, and at 40 after more feedback, which the
data directory does not hold.
"""

import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from service.learn.follow import Follower
from service.learn.publish import Publisher, snapshot_contents
from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import FOLD_VERSION, compute_genesis
from service.store.directory.backup_files import close_log
from service.store.directory.bound_artifact import bind_artifact
from service.store.directory.data_directory import DataDirectory
from service.store.log.admin_payloads import dump_classes
from service.store.log.events import Draft, EventLocation, Kind
from service.store.log.feedback_log import FeedbackLog
from service.store.log.feedback_payload import Targets, encode_rows
from service.store.log.sqlite import SqliteLog
from tests.support.make_fold1 import remove_owner

GOLDEN = Path(__file__).parents[1] / "golden" / "zero_fold1"
BYTES_MAX = 1 << 20
BEFORE, LAST = 20, 40


class Model(NamedTuple):
    """A model of the data directory.

    Attributes:
        head: The head.
        n_features: The number of features.
        added: The number of classes that are added at 21.
    """

    head: str
    n_features: int
    added: int

    @property
    def classes(self) -> list[str]:
        """The names of the classes at first."""
        return ["a", "b", "c"] if self.head == "softmax" else ["no", "yes"]

    def artifact(self) -> Artifact:
        """Return the model: weights of 0, and no field that names the rule."""
        outputs = 1 if self.head == "sigmoid" else len(self.classes)
        fields = {
            "head": self.head,
            "classes": self.classes,
            "features": [f"x{j}" for j in range(self.n_features)],
            "dtype": "float32",
            "layers": [{"weight": "weight", "bias": "bias", "activation": "identity"}],
        }
        tensors = {"weight": np.zeros((self.n_features, outputs), np.float32), "bias": np.zeros(outputs, np.float32)}
        return Artifact.from_fields(fields, tensors)

    def draft(self, stream: int, seq: int) -> Draft:
        """Return the event of a seq: an added class at 21, else feedback of one row."""
        if self.added and seq == BEFORE + 1:
            return Draft(stream, Kind.CLASSES, b"class", dump_classes(["d"]), 1)
        random = np.random.RandomState(seq)  # its numbers are those of every release of NumPy
        classes = len(self.classes) + (self.added if seq > BEFORE else 0)
        row, label = random.randn(1, self.n_features).astype(np.float32), random.randint(0, classes, 1)
        return Draft(stream, Kind.FEEDBACK, b"%d" % seq, encode_rows(row, label, Targets.INDEX, classes), 1)


MODELS = {"narrow": Model("softmax", 5, 1), "wide": Model("sigmoid", 520, 0)}


def append(log: FeedbackLog, stream: int, model: Model, first: int, last: int) -> None:
    """Append the events from one seq to another, both included."""
    outcomes = log.append([model.draft(stream, seq) for seq in range(first, last + 1)])
    assert all(isinstance(outcome, EventLocation) for outcome in outcomes), outcomes


def fold(follower: Follower) -> dict[str, Any]:
    """Fold everything that is in the log; return the fields of the snapshot."""
    while events := follower.read_next(99):
        follower.fold_batch(events)
    return snapshot_contents(follower.fold, follower.position_fields())[0]


def main() -> None:
    """Write the data directory and the hashes."""
    assert FOLD_VERSION == 1
    expected: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        data = DataDirectory(Path(scratch) / "data")
        for name, model in MODELS.items():
            folder, source = data.stream_folder(name, 1), model.artifact()
            folder.path.mkdir(parents=True, exist_ok=True)
            bind_artifact(folder, source, BYTES_MAX)
            log = SqliteLog(data.log)
            stream = log.open_stream(name, 1, compute_genesis(source), len(model.classes))
            append(log, stream.number, model, 1, BEFORE)
            follower = Follower(stream, source, log, folder)
            fields = fold(follower)
            follower.write_checkpoint()
            Publisher(follower, 1 << 20).publish_snapshot(0.0, lambda: 0.0)
            if model.added:
                append(log, stream.number, model, BEFORE + 1, BEFORE + 1)
            expected[name] = {
                "rule": fields["learning"]["rule"],
                "genesis": stream.genesis.hex(),
                "before": fields["weights_sha256"],
            }
            close_log(data, log)
        GOLDEN.mkdir(exist_ok=True)
        with tarfile.open(GOLDEN / "data.tar.xz", "w:xz") as archive:
            archive.add(data.path, "data", filter=remove_owner)
        for name, model in MODELS.items():
            log = SqliteLog(data.log)
            (stream,) = [one for one in log.list_streams() if one.model == name]
            append(log, stream.number, model, BEFORE + 1 + model.added, LAST)
            follower = Follower(stream, model.artifact(), log, data.stream_folder(name, 1))
            expected[name]["after"] = fold(follower)["weights_sha256"]
            log.close()
    (GOLDEN / "expected.json").write_text(json.dumps(expected, indent=2) + "\n")


if __name__ == "__main__":
    main()

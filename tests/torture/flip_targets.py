"""The kinds of files in which a bit is flipped."""

from dataclasses import dataclass
from typing import Final

from tests.torture.disk_workload import DENSE, SPARSE, ModelWorkload
from tests.torture.flip_positions import PositionChooser, anywhere, in_header, in_marks, in_tensors


@dataclass(frozen=True)
class Target:
    """A kind of file to damage.

    Attributes:
        name: Its name in the report.
        count: The number of flips in a full campaign.
        files: The pattern of its files within a data directory.
        choose: Chooses the byte in a file.
        model: The model of the directory.
    """

    name: str
    count: int
    files: str
    choose: PositionChooser = anywhere
    model: ModelWorkload = DENSE


LOG: Final = "log.sqlite"
STREAM: Final = "streams/m/1"
TARGETS: Final = (
    Target("the log's database", 400, LOG),
    Target("the log's id index", 150, LOG),
    Target("the write-ahead log", 250, "log.sqlite-wal"),
    Target("a checkpoint's tensors", 100, f"{STREAM}/checkpoints/*", in_tensors),
    Target("a checkpoint's header", 100, f"{STREAM}/checkpoints/*", in_header),
    Target("a snapshot's tensors", 100, f"{STREAM}/snapshots/*", in_tensors),
    Target("a snapshot's header", 100, f"{STREAM}/snapshots/*", in_header),
    Target("marks", 100, "marks/*", in_marks),
    Target("the bound artifact's manifest", 100, f"{STREAM}/artifact/model.json"),
    Target("the bound artifact's tensors", 100, f"{STREAM}/artifact/model.safetensors"),
    Target("a base of a sparse model", 150, f"{STREAM}/bases/*", model=SPARSE),
    Target("the changes of a sparse snapshot", 100, f"{STREAM}/snapshots/*", in_tensors, SPARSE),
    Target("the header of a sparse snapshot", 100, f"{STREAM}/snapshots/*", in_header, SPARSE),
    Target("a checkpoint of a sparse model", 100, f"{STREAM}/checkpoints/*", in_tensors, SPARSE),
)

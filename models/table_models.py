"""Train models on files of rows by `softstep train`, as anyone would; train.py calls `train_table`.

    softstep train docs/examples/penguins.csv --label species --name penguins     makes the same weights

Only the origin of the data is added to what the command writes.
"""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from field_data import FIELD_DATA

from service import command_line
from service.store.artifact.artifact import Artifact, read_artifact, write_artifact

# Larger than each of the models.
BYTES_MAX = 1 << 20


class TableData(NamedTuple):
    """A file of rows in a wheel: its package, its path there, and the column of labels."""

    package: str
    path: str
    label: str


TABLE_DATA = {"penguins": TableData("palmerpenguins", "data/penguins.csv", "species")}


def train_table(name: str, out: Path) -> Artifact:
    """Train one model of `TABLE_DATA`, write it with its card as version 1, and return it."""
    data = TABLE_DATA[name]
    with TemporaryDirectory() as scratch:
        file, models = Path(scratch) / f"{name}.csv", Path(scratch) / "models"
        file.write_bytes(files(data.package).joinpath(data.path).read_bytes())
        arguments = ["train", file, "--label", data.label, "--name", name, "--models", models]
        if command_line.main([str(argument) for argument in arguments]) != 0:
            raise SystemExit(f"{name} was not trained")
        folder = models / name / "1"
        artifact = read_artifact(folder, BYTES_MAX)
        card = {path.name: path.read_bytes() for path in folder.glob("card*")}
    provenance = artifact.manifest.provenance | FIELD_DATA[name]().origin | {"script": "models/train.py"}
    described = replace(artifact, manifest=artifact.manifest.model_copy(update={"provenance": provenance}))
    write_artifact(out / name / "1", described, overwrite=True, further=card)
    return described

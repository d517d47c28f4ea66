"""Further files of a version: they appear with it, and no service reads them."""

from pathlib import Path

from service.store.artifact.artifact import read_artifact, write_artifact
from service.store.artifact.repository import Repository
from tests.support.paths import SHIPPED

LIMIT = 1 << 20
CARD = {"card.md": b"# A card", "card-light.svg": b"<svg/>"}


def test_further_files_appear_with_a_version(tmp_path: Path) -> None:
    """In a new folder and in one that exists; the version is the same, and the scan reports nothing."""
    artifact = read_artifact(SHIPPED / "iris" / "1", LIMIT)
    folder = tmp_path / "iris" / "1"
    write_artifact(folder, artifact, further=CARD)
    view = Repository(tmp_path, LIMIT, 8).scan()
    assert [(key, version.state) for key, version in view.versions.items()] == [(("iris", 1), "READY")]
    assert view.unserved == ()
    write_artifact(folder, artifact, overwrite=True, further={"card.md": b"# Another"})
    assert {path.name: path.read_bytes() for path in folder.glob("card*")} == {**CARD, "card.md": b"# Another"}
    assert read_artifact(folder, LIMIT).weights_sha256 == artifact.weights_sha256
    assert [path.name for path in folder.parent.iterdir()] == ["1"]

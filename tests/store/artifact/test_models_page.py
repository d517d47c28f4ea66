"""docs/models.md and docs/manifest.md say what the code does: the example runs, tables name fields and models."""

import re
from pathlib import Path

import pytest

from service.store.artifact.artifact import read_artifact
from service.store.artifact.artifact_folder import MANIFEST_BYTES_MAX
from service.store.artifact.manifest import Manifest
from service.store.artifact.mixture_record import MixtureRecord
from tests.support.shipped_fields import FIELD_BYTES_MAX

ROOT = Path(__file__).parents[3]
MODELS = (ROOT / "docs" / "models.md").read_text()
MANIFEST = (ROOT / "docs" / "manifest.md").read_text()


def cells(page: str, first: str) -> list[str]:
    """The cells of the first table row of a page that begins with a code word."""
    rows = [line for line in page.splitlines() if line.startswith(f"| `{first}` |")]
    return [cell.strip() for cell in rows[0].strip("|").split("|")] if rows else []


def test_the_example_writes_a_model_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code for scikit-learn users runs as it stands."""
    (code,) = re.findall(r"```python\n(.*?)```", MODELS, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/models.md", "exec"), {})  # noqa: S102
    wine = read_artifact(tmp_path / "models" / "wine" / "2", 1 << 20)
    assert (wine.manifest.head, wine.n_features, len(wine.manifest.classes)) == ("softmax", 13, 3)


@pytest.mark.parametrize("field", list(Manifest.model_fields))
def test_every_field_of_the_manifest_is_documented(field: str) -> None:
    """With its value, and with what its absence means."""
    assert (cells(MANIFEST, field)[-1] == "refused") == Manifest.model_fields[field].is_required()


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*/1")), ids=lambda path: path.parent.name)
def test_the_metrics_of_shipped_models_are_those_of_their_manifests(path: Path) -> None:
    """The numbers in the table are rounded from the manifests."""
    shipped = read_artifact(path, FIELD_BYTES_MAX)
    manifest = shipped.manifest
    metrics = manifest.metrics
    _, head, sizes, rows, loss, quality = cells(MODELS, path.parent.name)
    assert (head, sizes) == (manifest.head, f"{shipped.n_features} → {len(manifest.classes)}")
    assert (rows, loss) == (f"{metrics['held_out_rows']:.0f}", f"{metrics['log_loss']:.4f}")
    names = ["accuracy"] if "accuracy" in metrics else ["subset_accuracy", "micro_f1", "hamming_loss"]
    assert re.findall(r"\d\.\d+", quality) == [f"{metrics[name]:.3f}" for name in names]


@pytest.mark.parametrize("field", list(MixtureRecord.model_fields))
def test_every_field_of_a_mixture_is_documented(field: str) -> None:
    """The table of the mixture names it; two fields may share a row."""
    table = MANIFEST[MANIFEST.index("## A learned mixture") : MANIFEST.index("## Calibration")]
    assert any(f"`{field}`" in line.split("|")[1] for line in table.splitlines() if line.startswith("|"))


def test_the_limit_of_the_manifest_is_documented() -> None:
    """The limit is in MiB."""
    assert f"at most {MANIFEST_BYTES_MAX >> 20} MiB" in MANIFEST

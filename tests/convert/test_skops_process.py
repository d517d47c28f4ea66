"""scikit-learn as it is asked about a .skops file, in a process of its own."""

import tomllib
from pathlib import Path

import pytest

from service.convert.proof import prove
from service.convert.scikit.skops_source import read_skops_source
from service.convert.source_options import SourceOptions
from service.errors import ConversionError
from tests.support.paths import ROOT

COLUMNS = ROOT / "tests" / "golden" / "skops" / "1.9" / "columns.skops"
EXTRA = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["convert"]
DISTRIBUTIONS = {"pandas": "pandas", "sklearn": "scikit-learn", "skops": "skops"}


@pytest.mark.parametrize("package", DISTRIBUTIONS)
def test_a_package_that_is_missing_is_one_of_the_extra(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it nothing answers, and the sentence names the extra that installs it."""
    (tmp_path / f"{package}.py").write_text(f'raise ModuleNotFoundError("No module named {package!r}")\n')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    read = read_skops_source(COLUMNS, SourceOptions())
    assert read.source is not None
    with pytest.raises(ConversionError, match=r'needs more packages: pip install "softstep\[convert\]", or give its'):
        prove(read.model, read.source)
    assert any(requirement.startswith(f"{DISTRIBUTIONS[package]}>=") for requirement in EXTRA)

"""docs/metrics.md and the table of metrics agree."""

from types import ModuleType

import pytest

from service.serve.metrics.metric_table import METRICS, SECTIONS
from tests.support.paths import ROOT
from tests.support.scripts import load_script


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """Import docs/write_metrics.py, which is in no package."""
    return load_script("docs/write_metrics.py")


def test_the_page_is_what_the_script_writes(script: ModuleType) -> None:
    """If this fails, run `python docs/write_metrics.py`."""
    assert (ROOT / "docs" / "metrics.md").read_text() == script.page()


def test_every_metric_is_in_one_section() -> None:
    """No section replaces a metric of another one."""
    assert len(METRICS) == sum(len(section) for section in SECTIONS.values())


def test_names_follow_the_conventions_of_prometheus() -> None:
    """Counters end in _total, and only they; names begin with the service's; histograms are in seconds."""
    for name, spec in METRICS.items():
        assert name.startswith("softstep_")
        assert name.endswith("_total") == (spec.kind == "counter")
        assert spec.unit in name.removesuffix("_total") or spec.unit not in {"seconds", "bytes"}
        assert spec.text.endswith(".")

"""Render the metrics in Prometheus' text format."""

from collections import defaultdict
from collections.abc import Iterable
from itertools import accumulate
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from service.serve.metrics.counters import BOUNDS, Histogram
from service.serve.metrics.metric_table import METRICS, MetricSpec
from service.serve.metrics.samples import MetricSources, Sample, read_samples

FAMILIES: Final = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
# The upper bounds of the buckets as labels, in seconds.
BUCKET_LABELS: Final = (*(str(bound / 1e9) for bound in BOUNDS), "+Inf")


class MetricsCollector(Collector):
    """Collects the metrics of the service when Prometheus scrapes it."""

    def __init__(self, sources: MetricSources) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        """Yield every metric of the table, with its samples."""
        samples: defaultdict[str, list[Sample]] = defaultdict(list)
        for sample in read_samples(self._sources):
            samples[sample.metric].append(sample)
        for name, spec in METRICS.items():
            yield _family(name, spec, samples.pop(name, []))
        assert not samples, "a sample's metric is missing in metric_table.py"  # noqa: S101


def _family(name: str, spec: MetricSpec, samples: Iterable[Sample]) -> Any:  # noqa: ANN401  # a family of each kind
    family: Any = FAMILIES[spec.kind](name, spec.text, labels=spec.labels)
    for sample in samples:
        value = sample.value
        if isinstance(value, Histogram):
            counts = map(float, accumulate(value.counts))
            buckets = list(zip(BUCKET_LABELS, counts, strict=True))
            family.add_metric(sample.labels, buckets, value.nanoseconds / 1e9)
        else:
            family.add_metric(sample.labels, value)
    return family


def render_metrics(sources: MetricSources) -> bytes:
    """Return the metrics of all workers in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MetricsCollector(sources))
    return generate_latest(registry)

"""Write docs/metrics.md from service/serve/metrics/: `python docs/write_metrics.py`, in the project's environment."""  # noqa: INP001

from pathlib import Path

from service.serve.metrics.counters import BOUNDS, ROUTES
from service.serve.metrics.metric_table import SECTIONS, MetricSpec

PAGE = Path(__file__).parent / "metrics.md"

HEAD = """\
# Metrics

`GET /metrics` answers in Prometheus' text format. Scrape one address of a service: each worker returns the sums over
all workers. A count goes on when a worker is restarted, and starts at 0 when the service is.

```yaml
scrape_configs:
  - job_name: softstep
    authorization: {credentials_file: /etc/prometheus/softstep.key}  # only if the service has keys
    static_configs:
      - targets: ["localhost:8000"]
```

In a service [with keys](security.md) Prometheus needs a key with the scope `predict` and for all models, because the
metrics name every model. `SOFTSTEP_METRICS_ACCESS=open` lets everybody read them.

[deploy/prometheus/alerts.yaml](../deploy/prometheus/alerts.yaml) has alert rules;
[alerts](alerts.md) has what to do at each.
[deploy/grafana/dashboard.json](../deploy/grafana/dashboard.json) is a dashboard for Grafana.

This page is written by `docs/write_metrics.py` from `service/serve/metrics/metric_table.py`.
"""

TAIL = """
## Labels

| label | values |
|---|---|
| `model`, `version` | a served version; `other` once more versions were served than the shared memory has rows for |
| `route` | the path of a call, with `{{name}}` for the model's name |
| `process` | `parent`, `worker-0`, `worker-1`, …, `learner` |
| `code` | a code of the [table of errors](errors.md); for several events, that of the first refusal |
| `protocol` | `v1` or `v2` |
| `bin` | the upper bound of a confidence bin of the [reliability diagram](learning.md#calibration) |

Every label comes from a closed set: no request can add a series with a name of its own.

`softstep_request_seconds` counts requests that succeeded. Those to a model have its labels, under one of these routes:
{routes}.
The same path with a version counts there too, and so do `/invocations` and Vertex AI's route. Their time begins when
the request is complete. Requests on other routes have no model, and their time begins with the head.
The buckets end at {bounds} seconds.
"""


def page() -> str:
    """Return the page: a table for each section of the metrics."""
    parts = [HEAD]
    for title, metrics in SECTIONS.items():
        parts.append(f"\n## {title}\n\n| metric | type | labels | unit | meaning |\n|---|---|---|---|---|\n")
        parts += [row(name, spec) for name, spec in metrics.items()]
    routes = ", ".join([f"`{route}`" for route in ROUTES])
    return "".join([*parts, TAIL.format(routes=routes, bounds=", ".join([f"{bound / 1e9:g}" for bound in BOUNDS]))])


def row(name: str, spec: MetricSpec) -> str:
    """Return the table row of a metric."""
    labels = ", ".join([f"`{label}`" for label in spec.labels])
    return f"| `{name}` | {spec.kind} | {labels} | {spec.unit} | {spec.text} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())

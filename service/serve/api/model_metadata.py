"""Documents about models and the server: metadata, configuration, statistics, the repository's index.

Sources of the v2 forms: Open Inference Protocol, inference_rest.md; Triton's extension_model_configuration.md,
extension_statistics.md and extension_model_repository.md.
"""

from collections.abc import Iterable
from typing import Any, Final

from service import __version__
from service.access.principal import Principal
from service.process.shared_memory import COUNTERS
from service.serve.api.row_schema import describe_fields
from service.serve.api.tensor_inputs import list_inputs
from service.serve.api.tensorflow_metadata import version_status
from service.serve.metrics.counters import (
    COMPUTE_NANOSECONDS,
    EXECUTIONS,
    EXPLAIN,
    FAILURES,
    LAST_MS,
    ROWS,
    histogram_of,
)
from service.serve.models.live_models import LiveModels
from service.serve.models.served_model import ServedModel
from service.serve.responses import V1, V2
from service.serve.wire.oip_response import DATATYPE_OF
from service.store.artifact.repository import Version

EXTENSIONS: Final = (
    "binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics",
)  # fmt: skip
BOUND_DIFFERS: Final = "its files are not those that its stream began with, which are served; give them a new version"
PLATFORM: Final = "softstep_safetensors"
# The datatypes that have another name in Triton's configuration.
CONFIG_TYPES: Final = {"BYTES": "TYPE_STRING"}


def server() -> dict[str, Any]:
    """Return the body of GET /v2."""
    return {"name": "softstep", "version": __version__, "extensions": list(EXTENSIONS)}


def models(now: LiveModels, principal: Principal) -> dict[str, Any]:
    """Return the body of GET /v1/models: each permitted model with the version that is served by default."""
    rows = []
    for name in filter(principal.permits_model, now.list_names()):
        latest = now.find_latest(name)
        version = latest.version if latest else str(max(number for model, number in now.versions if model == name))
        rows.append({"name": name, "version": version, "state": "READY" if latest else "UNAVAILABLE"})
    return {"models": rows}


def model(now: LiveModels, served: ServedModel, *, alone: bool) -> dict[str, Any]:
    """Return the body of GET /v1/models/{name}: the served version, and the state of every version.

    Args:
        now: The models that are served.
        served: The version.
        alone: Whether TensorFlow Serving's form has the status of this version alone.
    """
    states = [_state(now, version) for (name, _), version in now.versions.items() if name == served.name]
    listed = [state for state in states if not alone or state["version"] == served.version]
    fields = describe_fields(served.artifact.row_encoder)
    return {**served.metadata(), **fields, "versions": states, "model_version_status": version_status(listed)}


def unavailable(now: LiveModels, name: str) -> dict[str, Any]:
    """Return the metadata of a model without a served version: the state and reason of every version."""
    states = [_state(now, version) for (model, _), version in now.versions.items() if model == name]
    return {
        "name": name,
        "version": states[-1]["version"],
        "state": "UNAVAILABLE",
        "ready": False,
        "versions": states,
        "model_version_status": version_status(states),
    }


def _state(now: LiveModels, version: Version) -> dict[str, Any]:
    """Return the state of one version, and why it, or a newer form of it on disk, was refused or is not served."""
    unloaded = version.name in now.unloaded
    state = "UNAVAILABLE" if unloaded else version.state
    served = now.served.get((version.name, version.version))
    differs = BOUND_DIFFERS if served is not None and served.bound_differs else ""
    reason = "unloaded" if unloaded else version.reason or differs
    return {"version": str(version.version), "state": state, "reason": reason}


def index(now: LiveModels, principal: Principal, *, ready_only: bool) -> list[dict[str, Any]]:
    """Return the body of POST /v2/repository/index: versions of permitted models, and folders that are named so."""
    rows = [{"name": version.name, **_state(now, version)} for version in now.versions.values()]
    rows += [
        {"name": folder.path, "version": "", "state": "UNAVAILABLE", "reason": folder.reason} for folder in now.unserved
    ]
    permitted = [row for row in rows if principal.permits_model(row["name"].partition("/")[0])]
    return [row for row in permitted if row["state"] == "READY" or not ready_only]


def tensors(now: LiveModels, served: ServedModel) -> dict[str, Any]:
    """Return the body of GET /v2/models/{name}: the tensors that the model takes and gives."""
    versions = [str(number) for name, number in now.served if name == served.name]
    rows = "BOOL" if served.thresholds is not None else "BYTES"
    datatype = DATATYPE_OF[served.model.dtype.name]
    return {
        "name": served.name,
        "versions": versions,
        "platform": PLATFORM,
        "inputs": [
            {"name": one.name, "datatype": one.datatype, "shape": [-1, one.width]} for one in list_inputs(served)
        ],
        "outputs": [
            {"name": "probabilities", "datatype": datatype, "shape": [-1, served.model.n_classes]},
            {"name": "labels", "datatype": rows, "shape": [-1, len(served.classes)] if rows == "BOOL" else [-1]},
        ],
    }


def config(served: ServedModel) -> dict[str, Any]:
    """Return the body of GET /v2/models/{name}/config: what Triton's clients read of a model's configuration."""
    kind = f"TYPE_{DATATYPE_OF[served.model.dtype.name]}"
    flags = served.thresholds is not None
    labels = {"name": "labels", "data_type": "TYPE_BOOL" if flags else "TYPE_STRING"}
    return {
        "name": served.name,
        "platform": PLATFORM,
        "backend": "softstep",
        "max_batch_size": served.tables.rows_max,
        "input": [
            {"name": one.name, "data_type": CONFIG_TYPES.get(one.datatype, f"TYPE_{one.datatype}"), "dims": [one.width]}
            for one in list_inputs(served)
        ],
        "output": [
            {"name": "probabilities", "data_type": kind, "dims": [served.model.n_classes]},
            # Triton writes a scalar for each row as one element that is reshaped away.
            {**labels, "dims": [len(served.classes)]} if flags else {**labels, "dims": [1], "reshape": {"shape": []}},
        ],
        "dynamic_batching": {},
    }


def statistics(wanted: Iterable[ServedModel], counted: dict[str, list[int]]) -> dict[str, Any]:
    """Return the body of GET /v2/models/stats and /v2/models/{name}/stats, from the counters of all workers."""
    return {"model_stats": [_statistics(served, counted.get(f"{served.name}/{served.version}")) for served in wanted]}


def _statistics(served: ServedModel, counters: list[int] | None) -> dict[str, Any]:
    zero = {"count": 0, "ns": 0}
    row = counters or [0] * COUNTERS
    answered = [histogram_of(row, number) for number in (V1, V2, EXPLAIN)]
    compute = {"count": row[EXECUTIONS], "ns": row[COMPUTE_NANOSECONDS]}
    return {
        "name": served.name,
        "version": served.version,
        "last_inference": row[LAST_MS],
        "inference_count": row[ROWS],
        "execution_count": row[EXECUTIONS],
        "inference_stats": {
            "success": {
                "count": sum(histogram.total for histogram in answered),
                "ns": sum(histogram.nanoseconds for histogram in answered),
            },
            "fail": {"count": row[FAILURES], "ns": 0},
            "queue": zero,
            "compute_input": zero,
            "compute_infer": compute,
            "compute_output": zero,
            "cache_hit": zero,
            "cache_miss": zero,
        },
        "batch_stats": [],
    }

"""Bodies of `/invocations`, in the forms of MLflow, SageMaker and Vertex AI."""

from typing import Any, Final

from pydantic import Field

from service.serve.api.schemas.predict_bodies import (
    PREDICT_RESPONSES,
    InputsRequest,
    PredictRequest,
    RecordsRequest,
    SplitRequest,
)
from service.serve.api.schemas.row_forms import IRIS_RECORD
from service.serve.api.schemas.schema_types import IRIS, IRIS_FEATURES, absent

PARAMS: Final = "Ignored; clients of MLflow send it."


class SplitInvocation(SplitRequest):
    """A table with the names of its columns."""

    params: Any = Field(default_factory=absent, description=PARAMS)


class RecordsInvocation(RecordsRequest):
    """A list of rows, each an object."""

    params: Any = Field(default_factory=absent, description=PARAMS)


class InputsInvocation(InputsRequest):
    """Columns by name, or rows."""

    params: Any = Field(default_factory=absent, description=PARAMS)


class InstancesInvocation(PredictRequest):
    """Rows."""

    params: Any = Field(default_factory=absent, description=PARAMS)


INVOCATION_REQUESTS: Final = {
    "one row": {"instances": [IRIS]},
    "a row by name": {"instances": [IRIS_RECORD]},
    "a row as SageMaker writes it": {"instances": [{"features": IRIS}]},
    "MLflow's table": {"dataframe_split": {"index": [0], "columns": IRIS_FEATURES, "data": [IRIS]}, "params": {}},
    "MLflow's records": {"dataframe_records": [IRIS_RECORD]},
    "columns by name": {"inputs": {name: [value] for name, value in IRIS_RECORD.items()}},
    "one array": {"inputs": [IRIS]},
}
CSV_REQUESTS: Final = {
    "without a header": "5.1,3.5,1.4,0.2\n",
    "with a header": ",".join(reversed(IRIS_FEATURES)) + "\n0.2,1.4,3.5,5.1\n",
}
JSON_LINES_REQUESTS: Final = {
    "rows": "[5.1, 3.5, 1.4, 0.2]\n[6.7, 3.0, 5.2, 2.3]\n",
    "objects": '{"features": [5.1, 3.5, 1.4, 0.2]}\n',
}
CSV_RESPONSE: Final = {"one row": "setosa,0.9992543,0.00074565754,4.2884024e-17\n"}
INVOCATION_RESPONSES: Final = {"one row": PREDICT_RESPONSES["one row"]}

"""Bodies of the calls for liveness and readiness."""

from typing import Final, Literal

from pydantic import Field

from service.serve.api.schemas.schema_types import ResponseModel, absent


class Live(ResponseModel):
    """The server runs."""

    live: Literal[True] = Field(description="Whether the server runs.")


class Alive(ResponseModel):
    """The server runs, in KServe's form."""

    status: Literal["alive"] = Field(description="Whether the server runs.")


class Ready(ResponseModel):
    """The server takes predictions."""

    ready: Literal[True] = Field(description="Whether the server takes predictions.")
    learning: Literal[False] = Field(
        default_factory=absent,
        description="False if learning is on but the data directory could not be written at the start; left out "
        "otherwise.",
    )


class ModelReady(ResponseModel):
    """A model takes predictions."""

    name: str = Field(description="The model's name.")
    ready: Literal[True] = Field(description="Whether the model takes predictions.")


LIVE: Final[dict[str, object]] = {"live": {"live": True}}
ALIVE: Final[dict[str, object]] = {"alive": {"status": "alive"}}
READY: Final[dict[str, object]] = {
    "ready": {"ready": True},
    "ready without learning": {"ready": True, "learning": False},
}
MODEL_READY: Final[dict[str, object]] = {"ready": {"name": "iris", "ready": True}}
METRICS: Final = (
    "# HELP softstep_workers_ready Workers that answer predictions.\n"
    "# TYPE softstep_workers_ready gauge\n"
    "softstep_workers_ready 1.0\n"
)

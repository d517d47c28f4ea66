"""Bodies of the model repository extension of the Open Inference Protocol v2.

Source: Triton's extension_model_repository.md.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from service.serve.api.schemas.schema_types import Requirement, ResponseModel


class RepositoryRequest(BaseModel):
    """The body of a repository call; the protocol lets clients send other members, which are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class RepositoryIndexRequest(RepositoryRequest):
    """Which versions to list."""

    ready: Annotated[bool | None, Requirement("must be true or false.")] = Field(
        default=False, description="Whether to list only the versions that are served."
    )


class LoadRequest(RepositoryRequest):
    """A model to load."""

    parameters: Annotated[
        dict[str, Any] | None, Requirement("must be empty: models are loaded from the models directory alone.")
    ] = Field(default_factory=dict, max_length=0, description="Must be empty.")


class UnloadRequest(RepositoryRequest):
    """A model to unload."""

    parameters: Annotated[dict[str, Any] | None, Requirement("must be an object.")] = Field(
        default_factory=dict, description="Ignored."
    )


class RepositoryVersion(ResponseModel):
    """One version in the models directory, or a folder with a model that cannot be a version."""

    name: str = Field(description="The model's name, or the path of the folder below the models directory.")
    version: str = Field(description="The version's number; empty for another folder.")
    state: Literal["READY", "UNAVAILABLE"] = Field(description="Whether the version is served.")
    reason: str = Field(description="Why it, or a newer artifact of it, is not served; empty otherwise.")


class RepositoryIndex(RootModel[list[RepositoryVersion]]):
    """Every version in the models directory, then other folders that hold a model."""


class ModelLoaded(ResponseModel):
    """A model that every worker has loaded."""

    name: str = Field(description="The model's name.")
    load: Literal[True] = Field(description="Whether it is loaded.")


class ModelUnloaded(ResponseModel):
    """A model that every worker has unloaded."""

    name: str = Field(description="The model's name.")
    unload: Literal[True] = Field(description="Whether it is unloaded.")


INDEX_REQUESTS: Final = {"versions that are served": {"ready": True}}
INDEX_RESPONSES: Final = {
    "one version": [{"name": "iris", "version": "1", "state": "READY", "reason": ""}],
}
LOAD_REQUESTS: Final[dict[str, dict[str, Any]]] = {"no parameters": {}}
LOAD_RESPONSES: Final = {"loaded": {"name": "iris", "load": True}}
UNLOAD_RESPONSES: Final = {"unloaded": {"name": "iris", "unload": True}}

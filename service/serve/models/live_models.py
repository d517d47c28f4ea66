"""The models that one worker serves at one moment, as one immutable object."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from service.errors import (
    LoadRefusedError,
    ModelNotFoundError,
    ModelNotNamedError,
    ModelNotReadyError,
    VersionNotFoundError,
)
from service.serve.models.endpoint import Endpoint
from service.serve.models.served_model import ServedModel
from service.store.artifact.repository import Version
from service.store.artifact.unserved_folders import UnservedFolder
from service.store.artifact.version_folders import VERSION_NUMBER

# A model's name and the number of its version.
VersionKey = tuple[str, int]


@dataclass(frozen=True)
class LiveModels:
    """The models that are served at one moment.

    Attributes:
        versions: Every version found on disk, served or refused.
        served: The ready versions of models that are not unloaded.
        fast_endpoints: The endpoint of each path of the fast path.
        endpoints: The endpoints of each version, which follow what it learns.
        reason: Why the models directory cannot be read, or None.
        unserved: Folders that hold a model but are no version.
        unloaded: Names that an operator unloaded.
    """

    versions: Mapping[VersionKey, Version] = field(default_factory=dict)
    served: Mapping[VersionKey, ServedModel] = field(default_factory=dict)
    fast_endpoints: Mapping[bytes, Endpoint] = field(default_factory=dict)
    endpoints: Mapping[VersionKey, list[Endpoint]] = field(default_factory=dict)
    reason: str | None = None
    unserved: tuple[UnservedFolder, ...] = ()
    unloaded: frozenset[str] = frozenset()

    def list_names(self) -> list[str]:
        """Return the sorted names of all models found on disk."""
        return sorted({name for name, _ in self.versions})

    def find_latest(self, name: str) -> ServedModel | None:
        """Return the largest served version of a model, which a request without a version gets, or None."""
        numbers = [version for model, version in self.served if model == name]
        return self.served[name, max(numbers)] if numbers else None

    def find_served(self, name: str, version: str | None) -> ServedModel:
        """Return the version that a request names; the latest one if `version` is None.

        Raises:
            ModelNotFoundError: No model has that name.
            VersionNotFoundError: The model has no such version.
            ModelNotReadyError: The version was refused or unloaded.
        """
        if name not in self.list_names():
            raise ModelNotFoundError("Request for unknown model: no model has that name.")
        if version is None:
            latest = self.find_latest(name)
            if latest is None:
                raise ModelNotReadyError("Model is not ready: none of its versions is loaded.")
            return latest
        key = (name, int(version) if VERSION_NUMBER.fullmatch(version) else 0)  # versions begin at 1
        if key not in self.versions:
            raise VersionNotFoundError("Request for unknown model version: the model has no such version.")
        if key not in self.served:
            raise ModelNotReadyError("Model version is not ready: it was refused or unloaded.")
        return self.served[key]

    def check_loaded(self, name: str) -> None:
        """Check that a load had an effect: the largest version of a model on disk is served, and in its newest form.

        Raises:
            LoadRefusedError: It was refused; the message has the reason.
            ModelNotFoundError: No model has that name.
            ModelNotReadyError: The model was unloaded meanwhile.
        """
        numbers = [number for model, number in self.versions if model == name]
        reason = self.versions[name, max(numbers)].reason if numbers else None
        if reason is not None:
            raise LoadRefusedError(f"Version {max(numbers)} was refused: {reason}.")
        self.find_served(name, None)

    def find_default(self, name: str | None) -> ServedModel:
        """Return the model of a request that names none: the given default, else the only model.

        Raises:
            ModelNotNamedError: There is no default, and not exactly one model.
            ModelNotFoundError: No model has the default's name.
            ModelNotReadyError: The model is not ready.
        """
        return self.find_served(self.default_name(name), None)

    def default_name(self, name: str | None) -> str:
        """Return the name of the model of a request that names none, which may be unknown if it is the given default.

        Raises:
            ModelNotNamedError: There is no default, and not exactly one model.
        """
        names = self.list_names()
        if name is None and len(names) != 1:
            raise ModelNotNamedError("Several models are served; set SOFTSTEP_DEFAULT_MODEL or name one in the path.")
        return name or names[0]

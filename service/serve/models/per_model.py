"""A cache of what a handler derives from each served model."""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from service.serve.models.live_models import VersionKey
from service.serve.models.registry import ModelRegistry
from service.serve.models.served_model import ServedModel

T = TypeVar("T")
Entries = dict[VersionKey, tuple[ServedModel, T]]


class PerModel(Generic[T]):
    """One value for each served version, derived again when another state of the version is served.

    Entries of versions that are no longer served are dropped. Used on the event loop's thread only.

    Args:
        registry: The models that are served.
        derive: Makes the value of a served state, given the value of the state before it or None.
    """

    def __init__(self, registry: ModelRegistry, derive: Callable[[ServedModel, T | None], T]) -> None:
        self._registry: Final = registry
        self._derive: Final = derive
        self._entries: Final[Entries[T]] = {}
        registry.on_change.append(self._prune)

    def value_of(self, served: ServedModel) -> T:
        """Return the value of a served state."""
        entry = self._entries.get(served.key)
        if entry is not None and entry[0] is served:
            return entry[1]
        value = self._derive(served, None if entry is None else entry[1])
        self._entries[served.key] = served, value
        return value

    def _prune(self) -> None:
        for key in self._entries.keys() - self._registry.now.served.keys():
            del self._entries[key]

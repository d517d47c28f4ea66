"""The repository of models: what can be served now, according to the folders of the models directory.

A scan examines the folders of `version_folders.py`. The signature of a version is the `stat` of its two files:

    observed                               then
    no model.json                          the version does not exist: not listed
    signature as before                    nothing is read, nothing changes
    signature new, or a load was asked     the files are read
    files valid                            READY with the new artifact
    files invalid                          the reason is reported; an artifact loaded before is still served
    signature changes during the read      as before, examined again by the next scan
    the disk or the system refuses         the reason is reported, examined again by every scan
    the root is gone, or has no version    as if the disk refused: what is served stays
    the model is unloaded                  nothing is read; the version takes no place and no memory

At most `models_max` versions are served: the largest of each model first, then the second largest of each, and so on.
A start and any later scan choose in the same way.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from service.errors import ArtifactError
from service.fields.column_blocks import FieldLimits
from service.store.artifact.artifact import Artifact
from service.store.artifact.artifact_loader import load_artifact
from service.store.artifact.field_layout import WIDEST
from service.store.artifact.unserved_folders import UnservedFolder, find_unserved
from service.store.artifact.version_folders import Key, Signature, VersionFolder, examine_folder, find_versions

MISSING_ROOT: Final = "the models directory does not exist"
Share = Callable[[Key, Artifact], Artifact]
EMPTY_ROOT: Final = "the models directory has no model left; what was served before stays"


def not_asked(_name: str) -> bool:
    """Return False: no load of any model was asked for."""
    return False


def not_shared(_key: Key, artifact: Artifact) -> Artifact:
    """Return the artifact itself: it is not shared with other processes."""
    return artifact


@dataclass(frozen=True, eq=False)
class Version:
    """One version of one model, according to the last scan.

    Attributes:
        name: The model's name.
        version: The version's number.
        artifact: The artifact to serve, or None if there is none.
        reason: The problem with the files on disk, or None; with an artifact, why a newer one was refused.
    """

    name: str
    version: int
    artifact: Artifact | None
    reason: str | None

    @property
    def state(self) -> Literal["READY", "UNAVAILABLE"]:
        """READY if there is an artifact to serve."""
        return "UNAVAILABLE" if self.artifact is None else "READY"


@dataclass(frozen=True, eq=False)
class RepositoryView:
    """The result of one scan, immutable.

    Attributes:
        versions: Every version by name and number, in that order.
        reason: Why the root could not be read, or None.
        unserved: Folders that hold a model but are no version.
    """

    versions: Mapping[Key, Version]
    reason: str | None = None
    unserved: tuple[UnservedFolder, ...] = ()

    def versions_of(self, name: str) -> tuple[Version, ...]:
        """Return all versions of a model, the smallest number first; empty if the name is unknown."""
        return tuple(version for (model, _), version in self.versions.items() if model == name)

    def default_version(self, name: str) -> Version | None:
        """Return the version that is served by default: the largest that is READY, or None."""
        return next((version for version in reversed(self.versions_of(name)) if version.state == "READY"), None)


class _ScannedVersion(NamedTuple):
    """A version as it was examined; without a signature the next scan examines it again."""

    folder: Path
    signature: Signature | None
    version: Version


class Repository:
    """The models below one root, examined again by each `scan`. One thread calls it at a time.

    Args:
        root: The models directory.
        bytes_max: Largest size of one tensor file.
        models_max: Largest number of versions that are served at one time.
        limits: The limits of fields.
        share: Returns an equal artifact that takes less memory, or the same one; each scan calls it for each version.
    """

    def __init__(
        self, root: Path, bytes_max: int, models_max: int, limits: FieldLimits = WIDEST, share: Share = not_shared
    ) -> None:
        self._root = root
        self._bytes_max = bytes_max
        self._models_max = models_max
        self._limits = limits
        self._share = share
        self._known: dict[Key, _ScannedVersion] = {}
        self._view = RepositoryView(MappingProxyType({}))

    def scan(
        self,
        unloaded: Collection[str] = frozenset(),
        is_asked: Callable[[str], bool] = not_asked,
    ) -> RepositoryView:
        """Examine the root, read what is new or changed, and drop what is gone.

        Args:
            unloaded: The models that an operator unloaded: they are listed, but not read.
            is_asked: Whether a load was asked for a model since the last scan, so that it is read again.

        Returns:
            The versions that exist now; the same object as before if nothing differs. It never raises for the content
            of the disk: a version that cannot be served has its reason, and so has a root.
        """
        try:
            found, reason = find_versions(self._root, {key: entry.folder for key, entry in self._known.items()})
        except (FileNotFoundError, NotADirectoryError):
            found, reason = {}, MISSING_ROOT
        except OSError as error:
            # A disk that fails for a moment must not unload what is served.
            return self._publish(self._known, f"the models directory cannot be read: {error.strerror}", ())
        if not found and any(entry.version.artifact for entry in self._known.values()):
            # A volume that was unmounted or not mounted yet looks like this.
            return self._publish(self._known, reason or EMPTY_ROOT, ())
        known: dict[Key, _ScannedVersion] = {}
        served = 0
        for key in _by_priority(found):
            if key[0] in unloaded:
                known[key] = self._without_artifact(key, found[key], None)
                continue
            entry = self._examine(key, found[key], full=served >= self._models_max, asked=is_asked(key[0]))
            if entry is not None:
                known[key] = entry
                served += entry.version.artifact is not None
        unserved = find_unserved(self._root, {version.folder for version in found.values()})
        return self._publish(known, reason, unserved)

    def _publish(
        self, known: dict[Key, _ScannedVersion], reason: str | None, unserved: tuple[UnservedFolder, ...]
    ) -> RepositoryView:
        self._known = known
        versions = {key: known[key].version for key in sorted(known)}
        if (versions, reason, unserved) != (self._view.versions, self._view.reason, self._view.unserved):
            self._view = RepositoryView(MappingProxyType(versions), reason, unserved)
        return self._view

    def _artifact(self, key: Key) -> Artifact | None:
        return self._known[key].version.artifact if key in self._known else None

    def _examine(self, key: Key, found: VersionFolder, *, full: bool, asked: bool) -> _ScannedVersion | None:
        known = self._known.get(key)
        if full:
            reason = f"{self._models_max} model versions are served already, which is the limit"
            return self._without_artifact(key, found, reason)
        if found.signature is None:
            return self._refuse(key, found, found.problem)
        is_same = known is not None and (known.folder, known.signature) == (found.folder, found.signature)
        if known is not None and is_same and not asked:
            return self._shared(key, known)
        entry = self._read(key, found)
        # Files that change during the read are still being written: the old entry stays until the next scan.
        return entry if examine_folder(found.folder) == found else known

    def _read(self, key: Key, found: VersionFolder) -> _ScannedVersion:
        try:
            artifact = load_artifact(found.folder, self._bytes_max, self._limits)
        except ArtifactError as error:
            # Permissions and failing disks can recover without a change of the files' signatures.
            is_transient = isinstance(error.__cause__, OSError)
            return self._refuse(key, VersionFolder(found.folder, None) if is_transient else found, str(error))
        known = self._known.get(key)
        if known is not None and known.version.reason is None and _is_same(known.version.artifact, artifact):
            return known._replace(folder=found.folder, signature=found.signature)
        return self._shared(key, _ScannedVersion(found.folder, found.signature, Version(*key, artifact, None)))

    def _shared(self, key: Key, entry: _ScannedVersion) -> _ScannedVersion:
        artifact = entry.version.artifact
        shared = None if artifact is None else self._share(key, artifact)
        return entry if shared is artifact else entry._replace(version=replace(entry.version, artifact=shared))

    def _without_artifact(self, key: Key, found: VersionFolder, reason: str | None) -> _ScannedVersion:
        """Return a version that is not read; without a signature it is read as soon as it may be served."""
        known = self._known.get(key)
        is_same = known is not None and known.version.artifact is None and known.version.reason == reason
        version = known.version if known is not None and is_same else Version(*key, None, reason)
        return _ScannedVersion(found.folder, None, version)

    def _refuse(self, key: Key, found: VersionFolder, reason: str) -> _ScannedVersion:
        known = self._known.get(key)
        if known is not None and known.version.reason == reason:
            # The same object, so that an unchanged view can be recognized by identity.
            return known._replace(folder=found.folder, signature=found.signature)
        return _ScannedVersion(found.folder, found.signature, Version(*key, self._artifact(key), reason))


def _by_priority(keys: Iterable[Key]) -> Iterator[Key]:
    """Return the largest version of each model, then the second largest of each, and so on."""
    ranks: Counter[str] = Counter()
    priorities = []
    for name, version in sorted(keys, reverse=True):
        priorities.append((ranks[name], (name, version)))
        ranks[name] += 1
    return (key for _, key in sorted(priorities))


def _is_same(known: Artifact | None, artifact: Artifact) -> bool:
    """Return whether two artifacts are equal; their manifests have the hash of the tensors."""
    return known is not None and known.manifest == artifact.manifest

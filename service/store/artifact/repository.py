"""The folders of models, and what can be served from them now.

    <root>/<name>/<version>/model.json     name ^[a-z0-9][a-z0-9._-]{0,63}$, version 1, 2, 3, … as written here
    <root>/<version>/model.json            one model without its name: it has the root's name, or "model"
    <root>/model.json                      one model without name and version: version 1

Where two of them mean the same version, the upper one counts. Everything else in the root is ignored.

How a version goes from scan to scan (its signature is what `stat` says of its two files):

    seen                                   then
    no model.json                          it does not exist (yet), or does not any more: not listed
    signature as before                    nothing is read, nothing changes
    signature new, files good              READY with the new artifact
    signature new, files bad               the reason is told; an artifact loaded before keeps serving
    signature moves while it is read       as before, looked at again by the next scan
    the disk or the system refuses         the reason is told, looked at again by every scan
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

from service.errors import ArtifactError
from service.store.artifact.artifact import MANIFEST_NAME, TENSORS_NAME, Artifact, read_artifact

MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# At most 18 digits: every version fits into a signed 64-bit integer.
VERSION_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
DEFAULT_MODEL_NAME = "model"

Key = tuple[str, int]  # a model's name and version


class FileSignature(NamedTuple):
    """What tells a file from the one that stood there before."""

    mtime_ns: int
    size: int
    inode: int


class Signature(NamedTuple):
    """The signatures of a version's two files; None for a tensor file that is missing."""

    manifest: FileSignature
    tensors: FileSignature | None


@dataclass(frozen=True, eq=False)
class Version:
    """One version of one model, as the last scan left it.

    Attributes:
        name: The model's name.
        version: The version's number.
        artifact: What is served, or None where nothing can be.
        reason: What is wrong with the files on disk, or None; beside an artifact it says why a newer one was refused.
    """

    name: str
    version: int
    artifact: Artifact | None
    reason: str | None

    @property
    def state(self) -> Literal["READY", "UNAVAILABLE"]:
        """READY where there is an artifact to serve."""
        return "UNAVAILABLE" if self.artifact is None else "READY"


@dataclass(frozen=True, eq=False)
class RepositoryView:
    """What one scan found, immutable.

    Attributes:
        versions: Every version by name and number, in that order.
        reason: Why the root could not be looked at, or None.
    """

    versions: Mapping[Key, Version]
    reason: str | None = None

    def versions_of(self, name: str) -> tuple[Version, ...]:
        """All versions of a model, the smallest number first; empty where the name is unknown."""
        return tuple(version for (model, _), version in self.versions.items() if model == name)

    def default_version(self, name: str) -> Version | None:
        """The version that is served by default: the largest that is READY, or None."""
        return next((version for version in reversed(self.versions_of(name)) if version.state == "READY"), None)


class _Found(NamedTuple):
    """A folder that holds a version; no signature where it could not be looked at, with the complaint."""

    folder: Path
    signature: Signature | None
    complaint: str = ""


class _Known(NamedTuple):
    """A version as it was examined; without a signature the next scan examines it again."""

    folder: Path
    signature: Signature | None
    version: Version


class Repository:
    """The models below one root, looked at again whenever `scan` is called. One thread calls it at a time.

    Args:
        root: The directory of models.
        bytes_max: Largest size of one tensor file.
        models_max: Largest number of versions that are served at one time.
    """

    def __init__(self, root: Path, bytes_max: int, models_max: int) -> None:
        self._root = root
        self._bytes_max = bytes_max
        self._models_max = models_max
        self._known: dict[Key, _Known] = {}
        self._view = RepositoryView(MappingProxyType({}))

    def scan(self) -> RepositoryView:
        """Looks at the root, reads what is new or changed, and drops what is gone.

        Returns:
            What there is now; the very object of the scan before where nothing differs. It never raises for what
            lies on the disk: a version that cannot be served carries its reason, and so does a root.
        """
        try:
            found, reason = self._find()
        except (FileNotFoundError, NotADirectoryError):
            found, reason = {}, "the models directory does not exist"
        except OSError as error:
            # A disk that fails for a moment must not unload what is served.
            return self._publish(self._known, f"the models directory cannot be read: {error.strerror}")
        known: dict[Key, _Known] = {}
        served = 0
        for key in self._in_turn(found):
            entry = self._examine(key, found[key], full=served >= self._models_max)
            if entry is not None:
                known[key] = entry
                served += entry.version.artifact is not None
        return self._publish(known, reason)

    def _publish(self, known: dict[Key, _Known], reason: str | None) -> RepositoryView:
        self._known = known
        versions = {key: known[key].version for key in sorted(known)}
        if versions != self._view.versions or reason != self._view.reason:
            self._view = RepositoryView(MappingProxyType(versions), reason)
        return self._view

    def _find(self) -> tuple[dict[Key, _Found], str | None]:
        """Every folder that holds a version, and the reason where a model's folder could not be read."""
        found: dict[Key, _Found] = {}
        names = _names_in(self._root)
        reason = None
        for name in filter(MODEL_NAME.fullmatch, names):
            try:
                folders = _version_folders(name, self._root / name)
            except OSError as error:
                reason = f"the folder of model {name} cannot be read: {error.strerror}"
                folders = [(key, entry.folder) for key, entry in self._known.items() if key[0] == name]
            _add(found, folders)
        own = self._root.absolute().name
        own = own if MODEL_NAME.fullmatch(own) else DEFAULT_MODEL_NAME
        _add(found, [*_version_folders(own, self._root), ((own, 1), self._root)])
        return found, reason

    def _in_turn(self, keys: Iterable[Key]) -> Iterator[Key]:
        """Served versions first, so that they keep their place, then the largest of each model, and so on down."""
        ranks: Counter[str] = Counter()
        turns = []
        for name, version in sorted(keys, reverse=True):
            turns.append((self._artifact((name, version)) is None, ranks[name], (name, version)))
            ranks[name] += 1
        return (key for _, _, key in sorted(turns))

    def _artifact(self, key: Key) -> Artifact | None:
        return self._known[key].version.artifact if key in self._known else None

    def _examine(self, key: Key, found: _Found, *, full: bool) -> _Known | None:
        known = self._known.get(key)
        if found.signature is None:
            return self._refuse(key, found, found.complaint)
        if known is not None and (known.folder, known.signature) == (found.folder, found.signature):
            return known
        if full and self._artifact(key) is None:
            reason = f"{self._models_max} model versions are served already, which is the limit"
            return self._refuse(key, _Found(found.folder, None), reason)
        entry = self._read(key, found)
        # Files that move while they are read are being written: what was known stands until the next scan.
        return entry if _look(found.folder) == found else known

    def _read(self, key: Key, found: _Found) -> _Known:
        try:
            artifact = read_artifact(found.folder, self._bytes_max)
        except ArtifactError as error:
            # Permissions and failing disks heal without a change of the files' signatures.
            transient = isinstance(error.__cause__, OSError)
            return self._refuse(key, _Found(found.folder, None) if transient else found, str(error))
        return _Known(found.folder, found.signature, Version(*key, artifact, None))

    def _refuse(self, key: Key, found: _Found, reason: str) -> _Known:
        known = self._known.get(key)
        if known is not None and known.version.reason == reason:
            # The very same record, so that an unchanged view can be told by identity.
            return known._replace(folder=found.folder, signature=found.signature)
        return _Known(found.folder, found.signature, Version(*key, self._artifact(key), reason))


def _names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _version_folders(name: str, folder: Path) -> list[tuple[Key, Path]]:
    """The entries of a model's folder that are named like a version; none where it is a file, or gone."""
    try:
        return [((name, int(entry)), folder / entry) for entry in _names_in(folder) if VERSION_NUMBER.fullmatch(entry)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _add(found: dict[Key, _Found], folders: Iterable[tuple[Key, Path]]) -> None:
    """Adds the folders that hold a version, unless one found before means the same version."""
    for key, folder in folders:
        look = None if key in found else _look(folder)
        if look is not None:
            found[key] = look


def _look(folder: Path) -> _Found | None:
    """Looks at a version's two files; None where there is no manifest."""
    try:
        manifest = _file_signature(folder / MANIFEST_NAME)
        tensors = _file_signature(folder / TENSORS_NAME)
    except OSError as error:
        return _Found(folder, None, f"its files cannot be looked at: {error.strerror}")
    return None if manifest is None else _Found(folder, Signature(manifest, tensors))


def _file_signature(path: Path) -> FileSignature | None:
    """What `stat` says of a file (of the file that a link leads to); None where there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return FileSignature(status.st_mtime_ns, status.st_size, status.st_ino)

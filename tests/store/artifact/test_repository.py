"""Scans of the repository when versions appear, change, break and disappear."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.fields.column_blocks import FieldLimits
from service.store.artifact import repository as module
from service.store.artifact.artifact import Artifact, write_artifact
from service.store.artifact.artifact_loader import load_artifact
from service.store.artifact.repository import Repository
from tests.support.artifact_files import MakeArtifact, PutArtifact, on_disk, open_repository, summarize


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list that collects the folders that are read from now on."""
    read: list[Path] = []

    def count(directory: Path, bytes_max: int, limits: FieldLimits) -> Artifact:
        read.append(directory)
        return load_artifact(directory, bytes_max, limits)

    monkeypatch.setattr(module, "load_artifact", count)
    return read


def test_the_latest_version_is_the_largest_that_is_ready(root: Path, put: PutArtifact) -> None:
    """A broken newest version leaves the one before it as the default."""
    put("iris/2")
    put("iris/10")
    (put("iris/11") / "model.safetensors").unlink()
    view = open_repository(root).scan()
    latest = view.default_version("iris")
    assert latest is not None
    assert latest.version == 10
    assert [version.version for version in view.versions_of("iris")] == [2, 10, 11]
    assert (view.default_version("unknown"), view.versions_of("unknown")) == (None, ())


def test_a_model_without_a_ready_version_has_no_latest(root: Path, put: PutArtifact) -> None:
    """A model without a ready version is listed with its reason."""
    (put("iris/1") / "model.safetensors").unlink()
    view = open_repository(root).scan()
    assert view.default_version("iris") is None
    assert summarize(view) == {("iris", 1): ("UNAVAILABLE", None, "model.safetensors is missing")}


def test_a_view_cannot_be_changed(root: Path, put: PutArtifact) -> None:
    """A view is immutable, so it can be used while the next scan runs."""
    put("iris/1")
    view = open_repository(root).scan()
    with pytest.raises(TypeError):
        view.versions["x", 1] = view.versions["iris", 1]  # type: ignore[index]
    with pytest.raises(AttributeError):
        view.versions["iris", 1].reason = "x"  # type: ignore[misc]


def test_an_unchanged_version_is_not_read_again(root: Path, put: PutArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unchanged folder costs two stat calls, and the scan returns the same view."""
    put("iris/1")
    (put("iris/2") / "model.safetensors").write_bytes(b"damaged")
    repository = open_repository(root)
    read = counted(monkeypatch)
    view = repository.scan()
    assert read == [root / "iris" / "2", root / "iris" / "1"]
    assert repository.scan() is view
    assert len(read) == 2


def test_a_new_version_is_picked_up_alone(root: Path, put: PutArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan reads only the new version."""
    put("iris/1")
    repository = open_repository(root)
    before = repository.scan()
    read = counted(monkeypatch)
    new = put("iris/2", bias=2.0)
    after = repository.scan()
    assert read == [new]
    assert after.versions["iris", 1] is before.versions["iris", 1]
    assert summarize(after)["iris", 2] == ("READY", 2.0, None)


def test_a_changed_version_is_read_again(root: Path, put: PutArtifact) -> None:
    """The new artifact replaces the old one."""
    put("iris/1")
    repository = open_repository(root)
    before = repository.scan()
    put("iris/1", bias=2.0)
    assert summarize(repository.scan()) == {("iris", 1): ("READY", 2.0, None)}
    assert summarize(before) == {("iris", 1): ("READY", 0.5, None)}


def test_a_broken_change_keeps_the_old_artifact(root: Path, put: PutArtifact) -> None:
    """The old artifact is served with a reason until the files are valid again."""
    folder = put("iris/1")
    repository = open_repository(root)
    repository.scan()
    (folder / "model.json").write_text("{")
    broken = repository.scan()
    state, bias, reason = summarize(broken)["iris", 1]
    assert (state, bias) == ("READY", 0.5)
    assert reason is not None
    assert reason.startswith("model.json is not valid JSON")
    assert repository.scan() is broken
    put("iris/1", bias=2.0)
    assert summarize(repository.scan()) == {("iris", 1): ("READY", 2.0, None)}


def test_a_refused_version_is_read_again_when_it_changes(root: Path, put: PutArtifact) -> None:
    """A repaired version is served."""
    (put("iris/1") / "model.safetensors").unlink()
    repository = open_repository(root)
    assert summarize(repository.scan())["iris", 1][0] == "UNAVAILABLE"
    put("iris/1")
    assert summarize(repository.scan()) == {("iris", 1): ("READY", 0.5, None)}


@pytest.mark.parametrize("deleted", ["iris/1/model.json", "iris/1", "iris"])
def test_a_deleted_version_disappears(root: Path, put: PutArtifact, deleted: str) -> None:
    """Removing the manifest, the version or the model unloads it; the others stay."""
    put("iris/1")
    put("digits/1")
    repository = open_repository(root)
    repository.scan()
    if deleted.endswith(".json"):
        (root / deleted).unlink()
    else:
        shutil.rmtree(root / deleted)
    assert summarize(repository.scan()) == {("digits", 1): ("READY", 0.5, None)}


@pytest.mark.parametrize("known", [False, True])
def test_files_that_move_while_they_are_read_are_left_for_the_next_scan(
    root: Path,
    put: PutArtifact,
    monkeypatch: pytest.MonkeyPatch,
    known: bool,  # noqa: FBT001
) -> None:
    """The known version stays meanwhile, and a version that is being written is not listed."""
    repository = open_repository(root)
    if known:
        put("iris/1")
        repository.scan()
    put("iris/1", bias=2.0)

    def read_while_written(directory: Path, bytes_max: int, limits: FieldLimits) -> Artifact:
        artifact = load_artifact(directory, bytes_max, limits)
        put("iris/1", bias=3.0)
        return artifact

    with monkeypatch.context() as patch:
        patch.setattr(module, "load_artifact", read_while_written)
        assert summarize(repository.scan()) == ({("iris", 1): ("READY", 0.5, None)} if known else {})
    assert summarize(repository.scan()) == {("iris", 1): ("READY", 3.0, None)}


def test_one_bad_model_leaves_the_others_alone(root: Path, put: PutArtifact) -> None:
    """One invalid folder does not affect the others."""
    for name in ("a", "b", "c", "d"):
        put(f"{name}/1")
    (root / "a" / "1" / "model.safetensors").write_bytes(b"\x80\x04.")
    (root / "b" / "1" / "model.json").write_bytes(b"[" * 100_000)
    (root / "c" / "1" / "model.json").unlink()
    (root / "c" / "1" / "model.json").mkdir()
    states = {name: state for (name, _), (state, _, _) in summarize(open_repository(root).scan()).items()}
    assert states == {"a": "UNAVAILABLE", "b": "UNAVAILABLE", "c": "UNAVAILABLE", "d": "READY"}


def test_tensors_above_the_limit_are_refused(root: Path, put: PutArtifact) -> None:
    """The repository's limit of bytes holds for each version."""
    put("iris/1")
    ((key, told_of),) = summarize(Repository(root, 10, 256).scan()).items()
    assert (key, told_of[0]) == (("iris", 1), "UNAVAILABLE")
    assert "more than the limit of 10" in str(told_of[2])


def test_versions_above_the_limit_are_refused_with_that_reason(root: Path, put: PutArtifact) -> None:
    """Each model's largest version comes first, then each one's second largest."""
    for folder in ("a/1", "a/2", "a/3", "b/1", "b/2"):
        put(folder)
    view = open_repository(root, models_max=3).scan()
    assert [key for key, version in view.versions.items() if version.state == "READY"] == [("a", 2), ("a", 3), ("b", 2)]
    assert view.versions["b", 1].reason == "3 model versions are served already, which is the limit"


FOLDERS = ("a/1", "a/2", "a/3", "b/1", "b/2", "c/1")


@on_disk
@given(st.permutations(FOLDERS), st.integers(1, 5))
def test_a_later_scan_chooses_as_a_start_does(
    tmp_path_factory: pytest.TempPathFactory, make_artifact: MakeArtifact, order: list[str], models_max: int
) -> None:
    """In whatever order versions appear, those are served that a start would serve."""
    root = tmp_path_factory.mktemp("order")
    repository = open_repository(root, models_max)
    for folder in order:
        write_artifact(root / folder, make_artifact())
        view = repository.scan()
        assert summarize(view) == summarize(open_repository(root, models_max).scan())
        assert repository.scan() is view


def test_an_unloaded_model_frees_its_places(root: Path, put: PutArtifact) -> None:
    """The places of an unloaded model are taken by others, until it is loaded again."""
    for folder in ("a/1", "b/1"):
        put(folder)
    repository = open_repository(root, models_max=1)
    full = "1 model versions are served already, which is the limit"
    assert summarize(repository.scan()) == {("a", 1): ("READY", 0.5, None), ("b", 1): ("UNAVAILABLE", None, full)}
    view = repository.scan({"a"})
    assert summarize(view) == {("a", 1): ("UNAVAILABLE", None, None), ("b", 1): ("READY", 0.5, None)}
    assert repository.scan({"a"}) is view
    assert summarize(repository.scan()) == {("a", 1): ("READY", 0.5, None), ("b", 1): ("UNAVAILABLE", None, full)}


def test_a_load_reads_the_files_again(root: Path, put: PutArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unchanged version is read again when a load is asked for, and stays the same object if it is equal."""
    put("iris/1")
    put("digits/1")
    repository = open_repository(root)
    view = repository.scan()
    read = counted(monkeypatch)
    assert repository.scan(is_asked=lambda name: name == "iris") is view
    assert read == [root / "iris" / "1"]


def test_a_change_that_keeps_size_and_time_is_noticed(root: Path, put: PutArtifact) -> None:
    """A tool that sets the time of the content, such as rsync, does not hide a change."""
    folder = put("iris/1")
    repository = open_repository(root)
    repository.scan()
    manifest = folder / "model.json"
    before = manifest.stat()
    text = manifest.read_text()
    manifest.write_text(text.replace("softmax", "softmay"))
    os.utime(manifest, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = manifest.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert repository.scan().versions["iris", 1].reason is not None


@pytest.mark.parametrize("keeps_root", [False, True])
def test_a_root_that_loses_all_its_models_unloads_nothing(root: Path, put: PutArtifact, keeps_root: bool) -> None:  # noqa: FBT001
    """A volume that is unmounted looks like a missing or an empty root, and what is served stays."""
    put("iris/1")
    repository = open_repository(root)
    repository.scan()
    aside = root.with_name("aside")
    root.rename(aside)
    if keeps_root:
        root.mkdir()
    view = repository.scan()
    assert summarize(view) == {("iris", 1): ("READY", 0.5, None)}
    assert view.reason == (module.EMPTY_ROOT if keeps_root else module.MISSING_ROOT)
    assert repository.scan() is view
    if keeps_root:
        root.rmdir()
    aside.rename(root)
    assert repository.scan().reason is None


def test_a_root_that_never_had_a_model_is_empty(root: Path) -> None:
    """An empty root at the start is no failure, and a missing one has a reason."""
    assert open_repository(root).scan().reason is None
    view = open_repository(root / "missing").scan()
    assert (dict(view.versions), view.reason) == ({}, module.MISSING_ROOT)


def test_refused_versions_take_no_place(root: Path, put: PutArtifact) -> None:
    """Only served versions count against the limit."""
    (put("a/1") / "model.safetensors").unlink()
    put("b/1")
    assert summarize(open_repository(root, models_max=1).scan())["b", 1] == ("READY", 0.5, None)


def refusing(monkeypatch: pytest.MonkeyPatch, method: str, path: Path) -> None:
    """Let one method of Path fail for one path, as a disk or missing rights do."""
    original = getattr(Path, method)

    def fail(self: Path, *arguments: object, **options: object) -> object:
        if self == path:
            raise PermissionError(13, "Permission denied", str(path))
        return original(self, *arguments, **options)

    monkeypatch.setattr(Path, method, fail)


REFUSALS = [
    ("iterdir", "", "the models directory cannot be read: Permission denied"),
    ("iterdir", "iris", "the folder of model iris cannot be read: Permission denied"),
    ("stat", "iris/1/model.json", "its files cannot be examined: Permission denied"),
    ("stat", "iris/1/model.safetensors", "its files cannot be examined: Permission denied"),
]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_disk_that_fails_for_a_moment_unloads_nothing(
    root: Path, put: PutArtifact, monkeypatch: pytest.MonkeyPatch, refusal: tuple[str, str, str]
) -> None:
    """Loaded versions stay served, and the reason is reported until the disk recovers."""
    method, place, reason = refusal
    put("iris/1")
    put("digits/1")
    repository = open_repository(root)
    repository.scan()
    with monkeypatch.context() as patch:
        refusing(patch, method, root / place)
        view = repository.scan()
        assert [(state, bias) for state, bias, _ in summarize(view).values()] == [("READY", 0.5), ("READY", 0.5)]
        assert reason in {view.reason, view.versions["iris", 1].reason}
        assert repository.scan() is view
    view = repository.scan()
    assert view.reason is None
    assert view.versions["iris", 1].reason is None


def test_a_system_error_is_retried_at_every_scan(root: Path, put: PutArtifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that the system refused is read again at every scan."""
    put("iris/1")
    repository = open_repository(root)
    opened = os.open

    def fail(path: Path, flags: int) -> int:
        if str(path).endswith("model.json"):
            raise PermissionError(13, "Permission denied")
        return opened(path, flags)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        view = repository.scan()
        assert summarize(view) == {("iris", 1): ("UNAVAILABLE", None, "model.json cannot be read: Permission denied")}
        assert repository.scan() is view
    assert summarize(repository.scan()) == {("iris", 1): ("READY", 0.5, None)}


ACTIONS = ["write", "write", "break tensors", "break manifest", "remove manifest", "remove", "scan", "scan"]
acts = st.tuples(st.sampled_from([("a", 1), ("a", 2), ("b", 1)]), st.sampled_from(ACTIONS))


@on_disk
@given(st.lists(acts, max_size=12))
def test_any_history_is_reported_as_it_happened(
    tmp_path_factory: pytest.TempPathFactory, make_artifact: MakeArtifact, history: list[tuple[tuple[str, int], str]]
) -> None:
    """After any writes, damage and removals, valid folders are served, and broken ones keep the old version."""
    root = tmp_path_factory.mktemp("history")
    repository = open_repository(root)
    disk: dict[tuple[str, int], float | None] = {}  # the bias of a good folder, None for a broken one
    serving: dict[tuple[str, int], float | None] = {}
    for step, (key, action) in enumerate([*history, (("a", 1), "scan")]):
        folder = root / key[0] / str(key[1])
        if action == "scan":
            if disk or set(serving.values()) <= {None}:  # a root without any version counts as a failed disk
                serving = {key: serving.get(key) if bias is None else bias for key, bias in disk.items()}
            assert {key: bias for key, (_, bias, _) in summarize(repository.scan()).items()} == serving
        elif action == "write":
            write_artifact(folder, make_artifact(bias=step), overwrite=True)
            disk[key] = step
        elif key in disk:
            change(folder, action)
            disk[key] = None
            if action.startswith("remove"):
                del disk[key]
        if key in disk:
            # File systems tell times apart by milliseconds only; this history runs faster than that.
            os.utime(folder / "model.json", ns=(step, step))


def change(folder: Path, action: str) -> None:
    """Break or remove a version."""
    if action == "remove":
        shutil.rmtree(folder)
    elif action == "remove manifest":
        (folder / "model.json").unlink()
    else:
        (folder / {"break tensors": "model.safetensors", "break manifest": "model.json"}[action]).write_bytes(b"{")

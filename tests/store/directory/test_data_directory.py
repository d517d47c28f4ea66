"""The layout of a data directory: mark files are listed, and hidden streams are deleted."""

from service.store.directory.ack_marks import AckMarks
from service.store.directory.bound_artifact import bind_artifact
from service.store.directory.data_directory import DataDirectory
from tests.support.artifact_files import BYTES_MAX, MakeArtifact


def test_marks_of_all_workers_are_found(data: DataDirectory) -> None:
    for slot in (1, 0):
        AckMarks(data.mark_file(slot), ()).close()
    (data.path / "marks" / ".2").touch()
    assert data.mark_files() == [data.mark_file(0), data.mark_file(1)]


def test_a_purged_streams_folder_goes(data: DataDirectory, make_artifact: MakeArtifact) -> None:
    for version in (1, 2):
        bind_artifact(data.stream_folder("iris", version), make_artifact(), BYTES_MAX)
    data.hide_stream("iris", 1)
    data.hide_stream("iris", 7)
    assert not data.stream_folder("iris", 1).path.exists()
    assert data.stream_folder("iris", 2).artifact.exists()
    data.hide_stream("iris", 2)
    streams = data.path / "streams"
    assert len(list(streams.iterdir())) == 2
    DataDirectory(data.path).delete_hidden_streams()
    assert list(streams.iterdir()) == []

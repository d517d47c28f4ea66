"""The timeline has each event once, in order, and starts again where rollbacks returned to."""

from service.learn.timeline import Run, cut_runs, runs_between, timeline_corrections
from service.store.log.events import Kind
from service.store.log.lineage import Lineage, LineageChange


def test_each_rollback_begins_a_run() -> None:
    """A run starts from the state that its rollback returned to; without rollbacks there is one run."""
    lineage = Lineage([LineageChange(10, Kind.ROLLBACK, 4), LineageChange(20, Kind.ROLLBACK, 12)])
    assert runs_between(Lineage(), 0, 7) == [Run(0, 0, 7)]
    assert runs_between(lineage, 0, 25) == [Run(0, 0, 10), Run(4, 10, 20), Run(12, 20, 25)]
    assert runs_between(lineage, 10, 20) == [Run(10, 10, 20), Run(12, 20, 20)]
    assert runs_between(lineage, 20, 25) == [Run(20, 20, 25)]
    assert runs_between(lineage, 5, 25) is None


def test_runs_are_cut_where_a_state_is_kept() -> None:
    """Runs are cut at the states that later runs start from, and where the history begins; an empty one stays."""
    runs = [Run(0, 0, 10), Run(4, 10, 20), Run(12, 20, 20)]
    assert cut_runs(runs, 15) == [
        Run(0, 0, 4), Run(4, 4, 10), Run(4, 10, 12), Run(12, 12, 15), Run(15, 15, 20), Run(12, 20, 20)
    ]  # fmt: skip


def test_removed_events_keep_the_labels_that_they_had() -> None:
    """An event of the lineage has its labels of now; one that was removed has those from before its removal."""
    lineage = Lineage(
        [
            LineageChange(10, Kind.CORRECT, 3),
            LineageChange(11, Kind.CORRECT, 8),
            LineageChange(12, Kind.ROLLBACK, 5),
            LineageChange(15, Kind.CORRECT, 4),
        ]
    )
    assert timeline_corrections(lineage, 11) == {3: 10, 8: 11}
    assert timeline_corrections(lineage, 15) == {4: 15, 8: 11}

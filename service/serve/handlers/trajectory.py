"""Answer `:trajectory`: the probabilities of one row at the keyframes, the states that are kept along the history."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from service.access.principal import Principal
from service.errors import OverloadedError, SnapshotError, UnacceptableError
from service.serve.handlers.long_work import LongWork
from service.serve.handlers.report_files import ReportFiles
from service.serve.limits.limiter import Limiters
from service.serve.metrics.counters import SHED, SHED_EXPLANATIONS
from service.serve.models.served_model import ServedModel
from service.serve.responses import HttpResponse
from service.serve.wire.json_grammar import known_fields, parse_object
from service.serve.wire.model_tables import detach_rows
from service.settings import Settings
from service.softmax.row_protocols import RowModel
from service.softmax.sparse_rows import Rows, count_rows
from service.store.artifact.model_factory import initial_parameters, restore_parameters
from service.store.directory.data_directory import DataDirectory
from service.store.states.snapshots import read_snapshot


class TrajectoryHandler:
    """Answers trajectories of one worker's models.

    Args:
        reports: The reports of their streams, which name the keyframes.
        data: The data directory, or None if the service does not learn.
        settings: The limits of bodies.
        work: Reads the keyframes and predicts, in a thread.
        limiters: The limits of rows.
    """

    def __init__(
        self,
        reports: ReportFiles,
        data: DataDirectory | None,
        settings: Settings,
        work: LongWork,
        limiters: Limiters,
    ) -> None:
        self._reports: Final = reports
        self._data: Final = data
        self._settings: Final = settings
        self._work: Final = work
        self._limiters: Final = limiters

    async def respond(self, served: ServedModel, principal: Principal, body: bytes) -> HttpResponse:
        """Return the probabilities of a row, from the artifact over the keyframes to the served state.

        Raises:
            InputError: The body does not have one row that the model accepts.
            LimitError: The sender may not send more rows now.
            OverloadedError: Others wait for too long already.
        """
        x = self._parse(served, body)
        self._limiters.take_rows(principal, 1)
        served.tables.count_values()
        report = await self._reports.report_of(served)
        seqs = [] if report is None else [seq for seq in report.keyframes if 0 < seq < served.seq]
        folder = Path() if self._data is None else self._data.stream_folder(*served.key).keyframes
        try:
            return HttpResponse(200, await self._work.start(_follow, served, folder, seqs, x))
        except OverloadedError:
            served.counters[SHED + SHED_EXPLANATIONS] += 1
            raise

    def _parse(self, served: ServedModel, body: bytes) -> Rows:
        """Return the row of a body, in the model's dtype."""
        document = parse_object(body, self._settings.json_depth_max, self._settings.rows_max)
        fields = known_fields(document, ("instances",))
        if "instances" not in fields:
            raise UnacceptableError('The body must have "instances": a list of one row.')
        X = served.tables.convert_instances(fields["instances"])
        if count_rows(X) != 1:
            raise UnacceptableError('"instances" must have one row; send a request for each row.')
        return detach_rows(X)


def _follow(served: ServedModel, folder: Path, seqs: Sequence[int], x: Rows) -> bytes:
    """Return the body of a response to a row x."""
    trajectory: dict[str, list[Any]] = {"seq": [], "probabilities": []}
    for seq, model in _states(served, folder, seqs):
        P, _ = model.classify(x)
        trajectory["seq"].append(seq)
        trajectory["probabilities"].append(P[0])
    return orjson.dumps(trajectory, None, orjson.OPT_SERIALIZE_NUMPY)


def _states(served: ServedModel, folder: Path, seqs: Sequence[int]) -> Iterator[tuple[int, RowModel]]:
    """Yield the model as it was trained, at each keyframe that is on disk, and as it is served."""
    if served.seq:
        yield 0, initial_parameters(served.artifact).build_model()
    for seq in seqs:
        try:
            snapshot = read_snapshot(folder / str(seq))
            parameters = restore_parameters(served.manifest, snapshot.arrays, snapshot.fields["clips"])
        except (SnapshotError, KeyError, ValueError):  # it was deleted because an event was forgotten
            continue
        yield seq, parameters.build_model()
    yield served.seq, served.model

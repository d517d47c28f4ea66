"""Answer GET `/weights`: the tensors of a model, as served or at any seq, as a safetensors file."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import orjson
import safetensors.numpy
from numpy.typing import NDArray

from service.access.scopes import Scope
from service.serve.handlers.past_states import PastStates, not_learned, state_pending
from service.serve.models.served_model import ServedModel
from service.serve.responses import BINARY, HttpResponse
from service.softmax.sparse_parameters import SparseParameters
from service.store.artifact.manifest import Manifest
from service.store.artifact.model_factory import restore_parameters
from service.store.states.served_state import served_sha256
from service.store.states.snapshots import Snapshot

Arrays = Mapping[str, NDArray[Any]]


class WeightsHandler:
    """Returns the weights of one worker's models.

    Args:
        past_states: Finds or makes states of the past, or None if the service does not learn.
    """

    def __init__(self, past_states: PastStates | None) -> None:
        self._past_states: Final = past_states

    async def respond(self, served: ServedModel, seq: int | None) -> HttpResponse:
        """Return the weights at a seq, or the served ones; 202 while they are being computed.

        Raises:
            SeqNotFoundError: The stream has no such event yet.
            StateForgottenError: A forgotten event was part of that state.
            StateIrreproducibleError: An earlier release made that state.
        """
        artifact = served.artifact
        if seq is None or seq == served.seq:
            learned = served.learned
            arrays = artifact.weight_tensors if learned is None else await _arrays_of(artifact.manifest, learned)
            sha256 = await asyncio.to_thread(lambda: served.weights_sha256)
            return await _file(arrays, served.seq, sha256)
        if self._past_states is None:
            raise not_learned()
        await self._past_states.check_available(served, seq)
        if seq == 0:
            return await _file(artifact.weight_tensors, 0, artifact.weights_sha256)
        snapshot = await self._past_states.find_or_start(served, seq, Scope.ADMIN)
        if snapshot is None:
            return state_pending()
        fields = snapshot.fields
        parameters = restore_parameters(artifact.manifest, snapshot.arrays, fields["clips"])
        sha256 = await asyncio.to_thread(served_sha256, parameters, fields)
        return await _file(await _arrays_of(artifact.manifest, snapshot), seq, sha256)


async def _arrays_of(manifest: Manifest, snapshot: Snapshot) -> Arrays:
    """Return the arrays of a snapshot; those of a sparse model as of any linear one."""
    parameters = restore_parameters(manifest, snapshot.arrays, snapshot.fields["clips"])
    if isinstance(parameters, SparseParameters):
        return await asyncio.to_thread(parameters.whole_arrays)
    return snapshot.arrays


async def _file(arrays: Arrays, seq: int, sha256: str) -> HttpResponse:
    """Return a safetensors file whose metadata and headers name the state."""
    # One entry: safetensors writes several in no fixed order, and equal states must be equal files.
    metadata = {"softstep": orjson.dumps({"seq": seq, "weights_sha256": sha256}).decode()}
    content = await asyncio.to_thread(safetensors.numpy.save, dict(arrays), metadata)
    headers = ((b"x-softstep-seq", b"%d" % seq), (b"x-softstep-weights-sha256", sha256.encode()))
    return HttpResponse(200, content, BINARY, headers)

"""Tensor files that do not match their manifest are refused."""

import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from service.store.artifact.artifact import read_artifact
from tests.support.artifact_files import BYTES_MAX, network_tensors, refusal, replace_tensors


def tensors(**changes: Any) -> bytes:
    """A tensor file like the fixture's, with some tensors changed, added, or (None) left out."""
    arrays = {"weight": np.zeros((2, 3), np.float32), "bias": np.zeros(3, np.float32)} | changes
    return safetensors.numpy.save({name: array for name, array in arrays.items() if array is not None})


def with_header(header: object, data: bytes = b"") -> bytes:
    """A tensor file with a header of our own making."""
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def spec(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    """One entry of such a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


class Bomb:
    """Its pickle leaves a mark when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.putenv, ("SOFTSTEP_PICKLE_RAN", "1"))


WRONG_TENSORS: list[tuple[bytes, str]] = [
    (b"", "not a whole safetensors file"),
    (pickle.dumps(Bomb()), "not a whole safetensors file"),
    (tensors()[:-1], "not a whole safetensors file"),
    (tensors() + b"\0", "not a whole safetensors file"),
    (struct.pack("<Q", 2**63) + b"{}", "not a whole safetensors file"),
    (struct.pack("<Q", 2**40) + b"{}", "not a whole safetensors file"),
    (struct.pack("<Q", 2) + b"[]", "not a whole safetensors file"),
    (with_header({}), "exactly those"),
    (tensors(bias=None), "exactly those"),
    (tensors(extra=np.zeros(1, np.float32)), "exactly those"),
    (tensors(**{"../../outside": np.zeros(1, np.float32)}), "exactly those"),
    (tensors(weight=np.zeros((3, 2), np.float32)), "has shape (3, 2), but model.json asks for (2, 3)"),
    (tensors(weight=np.zeros(6, np.float32)), "has shape (6,)"),
    (tensors(bias=np.zeros((1, 3), np.float32)), "has shape (1, 3)"),
    (tensors(bias=np.array(0, np.float32)), "has shape ()"),
    (tensors(weight=np.zeros((2, 3), np.float64)), "is float64, but model.json says float32"),
    (tensors(weight=np.zeros((2, 3), np.float16)), "is F16, but"),
    (tensors(weight=np.zeros((2, 3), np.int32)), "is I32, but"),
    (tensors(weight=np.full((2, 3), np.nan, np.float32)), "'weight' has a number that is not finite"),
    (tensors(bias=np.array([0, 0, -np.inf], np.float32)), "'bias' has a number that is not finite"),
    (with_header({"weight": spec("BF16", [2, 3], 0, 12), "bias": spec("F32", [3], 12, 24)}, b"\0" * 24), "is BF16"),
    (with_header({"weight": spec("F32", [1] * 99, 0, 4), "bias": spec("F32", [3], 4, 16)}, b"\0" * 16), "has shape"),
    (with_header({"weight": spec("F32", [0, 2**63], 0, 0), "bias": spec("F32", [3], 0, 12)}, b"\0" * 12), "has shape"),
    (
        with_header({"weight": spec("F32", [2**62, 8], 0, 0), "bias": spec("F32", [3], 0, 12)}, b"\0" * 12),
        "not a whole",
    ),
    (with_header({"weight": spec("F32", [2, 3], 0, 24), "bias": spec("F32", [3], 0, 12)}, b"\0" * 24), "not a whole"),
    (with_header({"weight": spec("F32", [2, 3], 24, 0), "bias": spec("F32", [3], 0, 12)}, b"\0" * 24), "not a whole"),
]


@pytest.mark.parametrize(("raw", "reason"), WRONG_TENSORS, ids=range(len(WRONG_TENSORS)))
def test_a_wrong_tensor_file_is_refused(folder: Path, raw: bytes, reason: str) -> None:
    """A tensor file with a matching checksum must still be exactly what the manifest says, and no code runs."""
    replace_tensors(folder, raw)
    message = refusal(folder)
    assert reason in message
    assert len(message) < 400
    assert "SOFTSTEP_PICKLE_RAN" not in os.environ


def test_a_damaged_tensor_file_is_refused(folder: Path) -> None:
    """A bit that flipped in the numbers is seen by the checksum."""
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (folder / "model.safetensors").write_bytes(raw)
    assert "tensors_sha256" in refusal(folder)


def test_metadata_of_other_writers_is_accepted(folder: Path) -> None:
    """Tensor files written by other libraries carry a metadata entry; it is ignored."""
    arrays = {"weight": np.ones((2, 3), np.float32), "bias": np.zeros(3, np.float32)}
    replace_tensors(folder, safetensors.numpy.save(arrays, metadata={"format": "pt"}))
    assert read_artifact(folder, BYTES_MAX).weights.sum() == 6


WRONG_LAYERS: list[tuple[bytes, str]] = [
    (network_tensors(c=None), "exactly those"),
    (network_tensors(i=np.ones((3, 1), np.float32)), "'i' has shape (3, 1), but model.json asks for (4, 1)"),
    (network_tensors(c=np.ones(3, np.float32)), "'h' has shape (2, 4), but model.json asks for (2, 3)"),
    (network_tensors(h=np.ones((3, 4), np.float32)), "'h' has shape (3, 4), but model.json asks for (2, 4)"),
    (network_tensors(weight=np.ones((4, 3), np.float32)), "asks for (1, 3)"),
    (
        network_tensors(c=np.ones((4, 1), np.float32)),
        "'c' has shape (4, 1), but a hidden layer's bias has 1 to 16384 numbers",
    ),
    (network_tensors(c=np.ones((), np.float32)), "'c' has shape ()"),
    (network_tensors(h=np.ones((2, 0), np.float32), c=np.ones(0, np.float32)), "'c' has shape (0,)"),
    (network_tensors(c=np.ones(16385, np.float32)), "1 to 16384 numbers"),
    (network_tensors(d=np.ones(1, np.float64)), "'d' is float64"),
    (network_tensors(i=np.full((4, 1), np.nan, np.float32)), "'i' has a number that is not finite"),
]


@pytest.mark.parametrize(("raw", "reason"), WRONG_LAYERS, ids=range(len(WRONG_LAYERS)))
def test_layers_that_do_not_fit_each_other_are_refused(layered: Path, raw: bytes, reason: str) -> None:
    """Each layer takes what the one before it gives, whose bias says how much that is."""
    assert len(read_artifact(layered, BYTES_MAX).tensors) == 6
    replace_tensors(layered, raw)
    message = refusal(layered)
    assert reason in message
    assert len(message) < 400

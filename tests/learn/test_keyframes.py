"""Keyframes are at even distances, and not too many."""

from pathlib import Path

import numpy as np

from service.learn import keyframes as keyframes_module
from service.learn.keyframes import KEYFRAMES_MAX, Keyframes
from service.store.states.state_folder import list_seqs


def test_distances_double(tmp_path: Path) -> None:
    """After any number of events there are half to all of the most keyframes; a start finds them as they were."""
    keyframes, seq = Keyframes(tmp_path, 0), 0
    while seq < 1000:
        seq = keyframes.next_seq(seq)
        keyframes.write(seq, ({}, {"a": np.zeros(3)}))
        assert list_seqs(tmp_path) == keyframes.seqs
        assert min(seq, KEYFRAMES_MAX // 2) <= len(keyframes.seqs) <= KEYFRAMES_MAX
    assert keyframes.seqs == list(range(16, 1009, 16))
    assert Keyframes(tmp_path, 1000).seqs == keyframes.seqs


def test_large_states_have_fewer(tmp_path: Path, monkeypatch: object) -> None:
    """The bytes of all keyframes together are limited."""
    monkeypatch.setattr(keyframes_module, "KEYFRAME_BYTES_MAX", 1 << 16)  # type: ignore[attr-defined]
    keyframes = Keyframes(tmp_path, 0)
    for seq in range(1, 100):
        if keyframes.next_seq(seq - 1) == seq:
            keyframes.write(seq, ({}, {"a": np.zeros(2000)}))
    assert keyframes.seqs == [32, 64, 96]

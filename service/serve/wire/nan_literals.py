"""Replace NaN, which Python's clients write for a missing number, in a text that is JSON otherwise."""

import numpy as np

from service.serve.wire.json_grammar import QUOTE

NAN = b"NaN"


def replace_nan(body: bytes) -> bytes | None:
    """Return a text with null in place of each NaN that is not in a string, or None if there is none."""
    if NAN not in body:
        return None
    plain = body
    if b"\\" in body:  # without escapes, and as long as before, so that each quote starts or ends a string
        plain = body.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    text = np.frombuffer(plain, np.uint8)
    found = ~np.logical_xor.accumulate(text == QUOTE)[:-2]
    for offset, character in enumerate(NAN):
        found &= text[offset : len(text) - 2 + offset] == character
    places = np.flatnonzero(found)
    if not places.size:
        return None
    replaced = np.frombuffer(body, np.uint8).copy()
    for offset, character in enumerate(b"nul"):
        replaced[places + offset] = character
    return np.insert(replaced, places + 3, ord("l")).tobytes()

"""Random lists of fields of the kinds that ONNX has."""

from typing import Any

from hypothesis import strategies as st

from tests.support.field_options import OPTIONS, share_values

KINDS = ("number", "boolean", "category", "vector")


@st.composite
def plain_fields(draw: st.DrawFn) -> tuple[dict[str, Any], ...]:
    """One to five fields: numbers, booleans, listed categories and vectors, some of which read one value."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
    listed = {kind: [options for options in OPTIONS[kind] if "bits" not in options] for kind in KINDS}
    fields = [
        {"name": f"{kind} {i}", "kind": kind, **draw(st.sampled_from(listed[kind]))} for i, kind in enumerate(kinds)
    ]
    if draw(st.booleans()):
        share_values(draw, fields)
    return tuple(fields)

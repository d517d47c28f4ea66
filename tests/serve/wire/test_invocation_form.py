"""Content-Type and Accept name the forms of an invocation and of its response."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import MediaTypeError
from service.serve.responses import RequestHead
from service.serve.wire.invocation_form import CSV, InvocationForm, prefers, read_invocation_form


@pytest.mark.parametrize(
    ("content_type", "form"),
    [
        (None, InvocationForm()),
        (b"", InvocationForm()),
        (b"application/json", InvocationForm(b"application/json")),
        (b"application/json; charset=latin-1", InvocationForm(b"application/json")),
        (b"Application/JSON;Format=Pandas-Split", InvocationForm(b"application/json", b"pandas-split")),
        (b"text/csv", InvocationForm(b"text/csv")),
        (b"TEXT/CSV ; charset=UTF-8", InvocationForm(b"text/csv")),
        (b"text/csv;label_size=0", InvocationForm(b"text/csv")),
        (b'text/csv; header="present"', InvocationForm(b"text/csv", header=True)),
        (b"text/csv; header = absent; charset=utf-8", InvocationForm(b"text/csv", header=False)),
        (b"application/jsonlines", InvocationForm(b"application/jsonlines")),
    ],
)
def test_the_form_is_read_from_the_content_type(content_type: bytes | None, form: InvocationForm) -> None:
    """Names and values are read without regard to case, spaces and quotes; unknown parameters are ignored."""
    assert read_invocation_form(RequestHead(content_type)) == form
    assert form.is_plain_json == (form.media not in {b"text/csv", b"application/jsonlines"} and not form.format)


@pytest.mark.parametrize(
    "content_type", [b"text/csv; header=maybe", b"text/csv; charset=latin-1", b"application/jsonlines;charset=utf-16"]
)
def test_unknown_values_of_parameters_are_refused(content_type: bytes) -> None:
    """A charset other than UTF-8, and a header that is neither present nor absent, get 415."""
    with pytest.raises(MediaTypeError):
        read_invocation_form(RequestHead(content_type))


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (b"", False),
        (b"*/*", False),
        (b"application/json", False),
        (b"text/csv", True),
        (b"Text/CSV; charset=utf-8", True),
        (b"text/*", True),
        (b"text/html, */*;q=0.8", False),
        (b"text/csv, application/json", False),
        (b"text/csv, application/json;q=0.9", True),
        (b"application/json, text/csv;q=0.9", False),
        (b"text/csv;q=0.5, */*;q=0.1", True),
        (b"text/csv;q=0", False),
        (b"text/csv;q=x", False),
        (b"text/csv;q=nan, application/json", False),
        (b"application/*;q=0.2, text/*;q=0.3", True),
    ],
)
def test_csv_is_sent_to_clients_that_prefer_it(accept: bytes, wanted: bool) -> None:  # noqa: FBT001
    """The type of the highest quality is chosen, and JSON if both have the same."""
    assert prefers(accept, CSV) is wanted


@given(text=st.binary(max_size=40) | st.text(alphabet='text/csv*;q=0.1, "', max_size=40).map(str.encode))
def test_any_header_names_a_form_or_is_refused(text: bytes) -> None:
    """No bytes of a head cause another error."""
    try:
        form = read_invocation_form(RequestHead(text, accept=text))
    except MediaTypeError:
        return
    assert isinstance(form.prefers_csv, bool)

"""The errors of rows of names and values, branches of the tree in errors.py."""

from service.errors import TooLargeError, UnacceptableError


class FieldValueError(UnacceptableError, code="invalid_value"):
    """A field of a row does not accept its value."""


class MissingValueError(UnacceptableError, code="missing_value"):
    """A row has no value for a field that needs one."""


class UnknownValueError(UnacceptableError, code="unknown_value"):
    """A row has a category or a name that its field does not know, and refuses."""


class UnknownFieldError(UnacceptableError, code="unknown_field"):
    """A row or a table has a name that is no field of the model."""


class TooManyEntriesError(TooLargeError, code="too_many_entries"):
    """A row has more entries than the limit, or the rows of a request together have."""

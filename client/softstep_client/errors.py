"""The errors that the client raises; each message is a sentence, without values of rows or the API key."""

from __future__ import annotations

from typing import Any


class SoftstepError(Exception):
    """Base of all errors of this package."""


class InputError(SoftstepError, ValueError):
    """Rows, labels or options that cannot be sent; nothing was sent."""


class APIConnectionError(SoftstepError):
    """The service gave no answer, after all retries.

    A call that writes may have been carried out or not. Repeat it with `event_id` as its `id`: it counts once.

    Attributes:
        event_id: The id of the call if it writes, else None.
    """

    def __init__(self, sentence: str, event_id: str | None = None) -> None:
        super().__init__(sentence)
        self.event_id = event_id


class APITimeoutError(APIConnectionError):
    """The service gave no answer in time, after all retries."""


class APIStatusError(SoftstepError):
    """The service refused a call, or a proxy before it did.

    Attributes:
        status: The HTTP status.
        code: The code of the error, from docs/errors.md of Softstep; None if the answer has none.
        sentence: The sentence of the service, which says what to change.
        body: The whole answer, or {} if it is no JSON object; that of `some_refused` has `events`.
        event_id: The id of the call if it writes, else None.
        request_id: The id of the request in the logs of the service, or None.
        first_row: Of a call with so many rows that it is sent in parts: the row with which the refused part begins, and
            from which the sentence counts.
    """

    def __init__(
        self,
        sentence: str,
        *,
        status: int = 0,
        code: str | None = None,
        body: dict[str, Any] | None = None,
        event_id: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.status = status
        self.code = code
        self.body: dict[str, Any] = {} if body is None else body
        self.event_id = event_id
        self.request_id = request_id
        self.first_row = 0

    def __str__(self) -> str:
        text = f"{self.status} {self.code or 'without a code'}: {self.sentence}"
        return f"{text} (Rows are counted from row {self.first_row:,} of the call.)" if self.first_row else text

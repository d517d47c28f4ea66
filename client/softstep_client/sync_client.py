"""The client for programs without asyncio; threads may share one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2

from softstep_client import inspection, learning, prediction
from softstep_client.base_client import BaseClient
from softstep_client.learning import Lesson, WriteOptions
from softstep_client.options import DEFAULT_RETRIES, DEFAULT_TIMEOUT
from softstep_client.steps import Pause
from softstep_client.transport import default_limits, failure_of, reply_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from softstep_client.answers import Explanations, ModelState, Prediction, Receipt
    from softstep_client.rows import Rows
    from softstep_client.steps import Attempt, Flow, Outcome

T = TypeVar("T")


class Softstep(BaseClient):
    """A client of a Softstep service. It keeps its connections open; close it, or use it in a `with` block.

    Rows may be a list of dicts, lists or tuples, one dict, a NumPy array [rows, features], or a DataFrame of pandas or
    polars. Labels, weights and ids may be a list, an array or a series.

    All calls raise InputError for what cannot be sent, APIConnectionError without an answer (APITimeoutError if time
    ran out), and APIStatusError for a refusal. Calls that write take an `id`; without one they make one. Whatever
    happens, a call counts once, and so does the same call repeated with its id.

    Args:
        base_url: The URL of the service; by default that in SOFTSTEP_URL, else http://localhost:8000.
        api_key: The key; by default that in SOFTSTEP_API_KEY, else none.
        timeout: The longest time without progress of one try, in seconds. Calls with `wait=True` have 10 s more.
        max_retries: How often a call is tried again after a failure that may pass.
        http_client: A client of httpx2 for other proxies, certificates or limits; it is not closed with this one.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        max_retries: int = DEFAULT_RETRIES,
        http_client: httpx2.Client | None = None,
    ) -> None:
        self._http = httpx2.Client(limits=default_limits()) if http_client is None else http_client
        super().__init__(base_url, api_key, timeout, max_retries, self._http.headers, owns_http=http_client is None)

    def predict(
        self,
        model: str,
        rows: Rows,
        *,
        version: int | str | None = None,
        min_seq: int | None = None,
        tokens: bool = False,
    ) -> Prediction:
        """Return the label and the probabilities of each row.

        Args:
            model: The name of the model.
            rows: The rows.
            version: A version of the model; by default the largest that is ready.
            min_seq: The event that the answer must have learned, such as `seq` of a receipt.
            tokens: Whether to get a token for each row, to send its label with later.
        """
        return self._run(prediction.predict(self._state, model, rows, version, min_seq, tokens=tokens))

    def explain(
        self,
        model: str,
        rows: Rows,
        *,
        labels: Iterable[Any] | None = None,
        top: int | None = None,
        version: int | str | None = None,
        min_seq: int | None = None,
        seq: int | None = None,
    ) -> Explanations:
        """Return what the answer to each row is made of.

        Args:
            model: The name of the model.
            rows: The rows.
            labels: A label for each row, to get its loss and gradient.
            top: How many features to explain, those that count most.
            version: A version of the model.
            min_seq: As for `predict`.
            seq: Explain by the state at this event, rather than by that which is served.
        """
        options = {"labels": labels, "top": top, "min_seq": min_seq, "seq": seq}
        return self._run(prediction.explain(self._state, model, rows, version, options))

    def feedback(
        self,
        model: str,
        rows: Rows | None = None,
        labels: Iterable[Any] | None = None,
        *,
        tokens: Iterable[str] | None = None,
        weights: Iterable[float] | None = None,
        version: int | str | None = None,
        id: str | None = None,
        batch: int = learning.BATCH_ROWS,
        wait: bool = False,
    ) -> Receipt:
        """Teach a model: send rows, or tokens of a prediction, with their labels.

        Args:
            model: The name of the model.
            rows: The rows.
            labels: For each row a class by name or index, a list of probabilities, or of a multi-label model names.
            tokens: Tokens in place of rows.
            weights: The importance of each row, above 0 and at most 100.
            version: A version of the model.
            id: The id of the event; further batches have it with "/2", "/3" and so on.
            batch: How many rows are one event. More rows are sent as several, one after the other.
            wait: Whether to wait until the answering worker serves what was learned.
        """
        lesson, options = Lesson(rows, tokens, labels, weights, batch), WriteOptions(version, id, None, wait)
        return self._run(learning.feedback(self._state, model, lesson, options))

    def correct(
        self,
        model: str,
        ids: Iterable[str],
        labels: Iterable[Iterable[Any]],
        *,
        version: int | str | None = None,
        id: str | None = None,
        if_seq: int | None = None,
        wait: bool = False,
    ) -> Receipt:
        """Replace the labels of events.

        Args:
            model: The name of the model.
            ids: The ids of events, at most 1,000.
            labels: For each id a list with a label for each row of that event.
            version: A version of the model.
            id: The id of this call.
            if_seq: Refuse the call if anything was learned after this event.
            wait: Whether to wait until the result is served.
        """
        body = {"ids": ids, "labels": labels}
        options = WriteOptions(version, id, if_seq, wait)
        return self._run(learning.change(self._state, model, "correct", body, options))

    def forget(
        self,
        model: str,
        ids: Iterable[str],
        *,
        version: int | str | None = None,
        id: str | None = None,
        if_seq: int | None = None,
        wait: bool = False,
    ) -> Receipt:
        """Forget events for good, as if they had never been sent; arguments are those of `correct`."""
        options = WriteOptions(version, id, if_seq, wait)
        return self._run(learning.change(self._state, model, "forget", {"ids": ids}, options))

    def rollback(
        self,
        model: str,
        seq: int,
        *,
        version: int | str | None = None,
        id: str | None = None,
        if_seq: int | None = None,
        wait: bool = False,
    ) -> Receipt:
        """Go back to the state at an event, or with 0 to the model as it was trained."""
        options = WriteOptions(version, id, if_seq, wait)
        return self._run(learning.change(self._state, model, "rollback", {"seq": seq}, options))

    def classes(
        self,
        model: str,
        add: Iterable[str],
        *,
        version: int | str | None = None,
        id: str | None = None,
        if_seq: int | None = None,
        wait: bool = False,
    ) -> Receipt:
        """Add classes by name."""
        options = WriteOptions(version, id, if_seq, wait)
        return self._run(learning.change(self._state, model, "classes", {"add": add}, options))

    def configure(
        self,
        model: str,
        *,
        paused: bool | None = None,
        shadow: bool | None = None,
        rule: str | None = None,
        constants: Mapping[str, float] | None = None,
        version: int | str | None = None,
        id: str | None = None,
        if_seq: int | None = None,
        wait: bool = False,
    ) -> Receipt:
        """Pause learning, learn without serving the result, or change the learning rule.

        Args:
            model: The name of the model.
            paused: Whether to score feedback without learning from it.
            shadow: Whether to keep serving the current weights while learning.
            rule: The name of a rule.
            constants: The constants of the rule.
            version: A version of the model.
            id: The id of this call.
            if_seq: Refuse the call if anything was learned after this event.
            wait: Whether to wait until the result is served.
        """
        body = {"paused": paused, "shadow": shadow, "rule": rule, "constants": constants}
        options = WriteOptions(version, id, if_seq, wait)
        return self._run(learning.change(self._state, model, "configure", body, options))

    def models(self) -> list[ModelState]:
        """List the models, each with its version and state."""
        return self._run(inspection.models(self._state))

    def schema(self, model: str, version: int | str | None = None) -> dict[str, Any]:
        """Return the JSON Schema of a row as an object."""
        return self._run(inspection.schema(self._state, model, version))

    def wait_ready(self, model: str | None = None, *, timeout: float = 60.0) -> None:
        """Wait until the service, or a model, takes predictions.

        Args:
            model: The name of a model; by default any.
            timeout: The longest time to wait, in seconds.

        Raises:
            APITimeoutError: It is not ready in time.
        """
        return self._run(inspection.wait_ready(self._state, model, timeout, time.monotonic))

    def close(self) -> None:
        """Close the connections."""
        if self._owns_http:
            self._http.close()

    def _run(self, flow: Flow[T]) -> T:
        """Carry out the steps of a flow and return its result."""
        outcome: Outcome = None
        try:
            while True:
                step = flow.send(outcome)
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    outcome = None
                else:
                    outcome = self._attempt(step)
        except StopIteration as end:
            result: T = end.value
            return result

    def _attempt(self, attempt: Attempt) -> Outcome:
        try:
            return reply_of(self._http.send(self._requests.build(attempt), follow_redirects=False))
        except httpx2.RequestError as error:
            return failure_of(error)

    def __enter__(self) -> Softstep:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

"""Write the responses of `:explain`, and the explaining outputs of v2 `/infer`.

    {"explanations": [{"label", "logits", "probabilities", "bias", "contributions", "sensitivities", "top",
                       "experts", "loss", "loss_gradient"}, ...],
     "features": [name, ...], "calibration": {"kind", ...}, "classes": [name, ...],
     "model_name", "model_version", "seq"}

`features` names the columns of contributions (K, N), sensitivities (C, N) and loss_gradient (N). If `top` leaves
features out, that member is missing, and each row has its own columns: the features of its `top`, in their order.
`calibration` is present if the model has one; logits, bias, contributions and experts are then those before it.
`experts` is present for a mixture: what each of its experts answers, with its weight in the answer.

A row's `top` concerns its label; for a multi-label model, its most probable class. It orders features by the size of
their contribution to that class's logit. If two classes share one logit it is the second's; the contribution to the
first's is its negative. For a network or a mixture, `top` orders features by the first-order effect on the probability:
the sensitivity times the feature's distance from the mean of its input stage, or from 0 without one.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from service.serve.handlers.explain_body import MATRICES, ExplainBody
from service.serve.models.served_model import ServedModel
from service.serve.wire.oip_request import EXPLANATIONS
from service.softmax.arrays import Doubles, Floats
from service.softmax.calibration import CalibratedModel, uncalibrated_logits
from service.softmax.explainer import Explainer
from service.softmax.explainer_factory import create_explainer
from service.softmax.explanation import Explanation
from service.softmax.sparse_model import SparseModel
from service.softmax.sparse_rows import Rows, dense_rows


class RowNumbers(NamedTuple):
    """The numbers of the explanation of one row in n columns.

    Attributes:
        logits: (K,).
        contributions: (K, n), or None if logits are no sums over features.
        sensitivities: (C, n).
        loss: The loss of its label, or None without one.
        loss_gradient: (n,), or None.
    """

    logits: Floats
    contributions: Floats | None
    sensitivities: Floats
    loss: float | None
    loss_gradient: Floats | None

    def take(self, order: NDArray[np.intp]) -> "RowNumbers":
        """Return the numbers of some of the columns, in this order."""
        C, gradient = self.contributions, self.loss_gradient
        return self._replace(
            contributions=None if C is None else C.take(order, axis=1),
            sensitivities=self.sensitivities.take(order, axis=1),
            loss_gradient=None if gradient is None else gradient.take(order),
        )


class ExplainFormat(ABC):
    """Writes the explanations of one served model; subclasses know the form of its rows.

    Args:
        served: The model.
    """

    def __init__(self, served: ServedModel) -> None:
        self._served: Final = served

    @property
    @abstractmethod
    def _bias(self) -> bytes:
        """The JSON of the bias."""

    @abstractmethod
    def _encode_rows(self, parsed: ExplainBody) -> Iterator[bytes]:
        """Yield the JSON of the explanation of each row."""

    @abstractmethod
    def compute_outputs(self, X: Rows, wanted: Collection[str]) -> tuple[Floats, NDArray[np.int64], dict[str, Floats]]:
        """Return probabilities (B, C), labels (B,), and the wanted parts of the explanation of B rows by name.

        Raises:
            UnacceptableError: As `encode_explanations`, or a number overflows the model's dtype.
        """

    def encode_explanations(self, parsed: ExplainBody) -> bytes:
        """Return the body of a response.

        Raises:
            UnacceptableError: A row has a value that is not finite, or a number that overflows float64.
        """
        served = self._served
        rows, classes = b",".join(self._encode_rows(parsed)), b",".join(served.class_json)
        once = self._list_features(parsed) + self._calibration
        return b'{"explanations":[%b],%b"classes":[%b%b' % (rows, once, classes, served.v1_tail)

    def _list_features(self, _parsed: ExplainBody) -> bytes:
        """Return the member `features`, or b"" if each row has columns of its own."""
        return b""

    @cached_property
    def _calibration(self) -> bytes:
        """The calibration between the logits and the head, or b""."""
        model = self._served.model
        calibration = model.calibration if isinstance(model, CalibratedModel | SparseModel) else None
        if calibration is None:
            return b""
        return b'"calibration":%b,' % orjson.dumps({"kind": calibration.kind, **calibration.to_dict()})

    def _find_label(self, labels: NDArray[np.int64], P: Floats, i: int) -> int:
        """Return the class that the explanation of row i concerns."""
        return int(labels[i]) if self._served.thresholds is None else int(P[i].argmax())

    def _encode_label(self, label: int, P: Floats) -> bytes:
        """Return the row's label, or the list of labels of a multi-label model."""
        names, thresholds = self._served.class_json, self._served.thresholds
        if thresholds is None:
            return names[label]
        return b"[%b]" % b",".join([names[k] for k in np.flatnonzero(thresholds <= P)])

    def _encode_row(self, label: int, P: Floats, found: RowNumbers, entries: bytes, experts: bytes = b"") -> bytes:
        """Return the JSON of a row with these entries in its `top`."""
        Z, C, S, loss, gradient = found
        taught = (
            b""
            if gradient is None
            else b',"loss":%b,"loss_gradient":%b' % (orjson.dumps(loss), encode_numbers(gradient))
        )
        return (
            b'{"label":%b,"logits":%b,"probabilities":%b,"bias":%b,"contributions":%b,"sensitivities":%b,"top":[%b]%b%b}'
            % (
                self._encode_label(label, P),
                encode_numbers(Z),
                encode_numbers(P),
                self._bias,
                b"null" if C is None else encode_numbers(C),
                encode_numbers(S),
                entries,
                experts,
                taught,
            )
        )


class DenseExplainFormat(ExplainFormat):
    """Writes the explanations of a model whose rows are dense.

    Args:
        served: The model.
        block_rows: How many rows are explained at a time.
    """

    def __init__(self, served: ServedModel, block_rows: int) -> None:
        super().__init__(served)
        self._n_features: Final = served.model.n_features
        self._block_rows: Final = block_rows

    @cached_property
    def explainer(self) -> Explainer:
        """The explainer of the model; made on first use, in the thread that needs it."""
        return create_explainer(self._served.dense_model)

    def compute_outputs(self, X: Rows, wanted: Collection[str]) -> tuple[Floats, NDArray[np.int64], dict[str, Floats]]:
        """Return the wanted parts of the explanation of X (B, N); see the base class."""
        X = dense_rows(X)
        if not MATRICES.intersection(wanted):
            model = self._served.dense_model
            P, labels = model.classify(X)
            return P, np.array(labels), {"logits": uncalibrated_logits(model, X)}
        names = ["probabilities", "labels", *(name for name in EXPLANATIONS if name in wanted)]
        parts: dict[str, list[Any]] = {name: [] for name in names}
        for i in range(0, len(X), self._block_rows):
            found = self.explainer.explain(X[i : i + self._block_rows]).round_to_dtype()
            for name, blocks in parts.items():
                blocks.append(getattr(found, name))
        P, found_labels, *more = map(np.concatenate, parts.values())
        return P, found_labels, dict(zip(names[2:], more, strict=True))

    def _list_features(self, parsed: ExplainBody) -> bytes:
        return b'"features":[%b],' % self._names if parsed.top == self._n_features else b""

    @cached_property
    def _names(self) -> bytes:
        return b",".join(map(orjson.dumps, self._served.artifact.column_names))

    @cached_property
    def _entries(self) -> list[bytes]:
        """The beginning of each feature's entry in `top`."""
        return [start_entry(name, j) for j, name in enumerate(self._served.artifact.column_names)]

    @cached_property
    def _bias(self) -> bytes:
        bias = self.explainer.bias
        return b"null" if bias is None else encode_numbers(bias)

    @cached_property
    def _experts(self) -> list[bytes]:
        """The beginning of each expert's entry in `experts`."""
        return [orjson.dumps(expert._asdict())[:-1] + b',"probabilities":' for expert in self.explainer.experts]

    def _encode_rows(self, parsed: ExplainBody) -> Iterator[bytes]:
        X, Y = dense_rows(parsed.X), parsed.Y
        for i in range(0, len(X), self._block_rows):
            block = X[i : i + self._block_rows]
            found = self.explainer.explain(block, None if Y is None else Y[i : i + self._block_rows])
            yield from self._encode_block(block, found, parsed.top)

    def _encode_block(self, X: Floats, found: Explanation, top: int) -> Iterator[bytes]:
        """Yield the JSON of each row of X (B, N)."""
        wide = dict(zip(found.over.tolist(), range(len(found.over)), strict=True))
        for i, x in enumerate(X):
            P, label = found.probabilities[i], self._find_label(found.labels, found.probabilities, i)
            source, at = (found, i) if i not in wide or found.exact is None else (found.exact, wide[i])
            numbers, entries = self._choose_columns(x, P, label, source, at, top)
            experts = b"" if found.experts is None else self._encode_experts(found.experts[i])
            yield self._encode_row(label, P, numbers, entries, experts)

    def _choose_columns(  # noqa: PLR0917  # the parts of one row
        self, x: Floats, P: Floats, label: int, found: Explanation, i: int, top: int
    ) -> tuple[RowNumbers, bytes]:
        """Return the numbers of row i in the columns that it lists, and the entries of its `top`."""
        S, D = found.sensitivities[i], found.loss_gradients
        C = None if found.contributions is None else found.contributions[i]
        part = None if C is None else part_of_label(C, label, len(P))
        weight = np.abs(part) if part is not None else _first_order(S[label], x, self.explainer.center)
        order = np.argsort(-weight, kind="stable")[:top]
        starts = self._entries
        entries = encode_top(
            [starts[j] for j in order.tolist()], None if part is None else part[order], S[label][order]
        )
        loss = None if found.losses is None else float(found.losses[i])
        numbers = RowNumbers(found.logits[i], C, S, loss, None if D is None else D[i])
        return numbers.take(order) if top < self._n_features else numbers, entries

    def _encode_experts(self, P: Floats) -> bytes:
        """Return the member `experts` with the probabilities (E, C)."""
        entries = (start + encode_numbers(row) + b"}" for start, row in zip(self._experts, P, strict=True))
        return b',"experts":[%b]' % b",".join(entries)


def start_entry(name: str, column: int) -> bytes:
    """Return the beginning of the entry in `top` of a column."""
    return b'{"feature":%b,"index":%d,"contribution":' % (orjson.dumps(name), column)


def encode_top(starts: Sequence[bytes], contributions: Floats | None, sensitivities: Floats) -> bytes:
    """Return the entries of the columns whose starts and numbers (n,) these are."""
    parts = [b"null"] * len(starts) if contributions is None else _split_numbers(contributions)
    return b",".join(
        [
            b'%b%b,"sensitivity":%b}' % (start, contribution, sensitivity)
            for start, contribution, sensitivity in zip(starts, parts, _split_numbers(sensitivities), strict=True)
        ]
    )


def part_of_label(contributions: Floats, label: int, n_classes: int) -> Floats:
    """Return what features add (N,) to a class's logit, from (K, N); the first of two classes has the negative."""
    part: Floats = contributions[min(label, len(contributions) - 1)]
    return part if label or len(contributions) == n_classes else 0 - part


def _first_order(slopes: Floats, x: Floats, centre: Doubles) -> Floats:
    """Return the size of each feature's first-order effect: its slope times its distance from the center."""
    with np.errstate(over="ignore", invalid="ignore"):
        weight: Floats = np.abs(slopes * (x - centre))
    return weight


def encode_numbers(array: NDArray[Any]) -> bytes:
    """Return an array as JSON; each number is the shortest decimal that is the same in its dtype."""
    return orjson.dumps(array, None, orjson.OPT_SERIALIZE_NUMPY)


def _split_numbers(array: Floats) -> list[bytes]:
    """Return the JSON of each number of an array (n,)."""
    return encode_numbers(array)[1:-1].split(b",") if len(array) else []

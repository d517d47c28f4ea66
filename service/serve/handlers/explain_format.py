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

from collections.abc import Collection, Iterator
from functools import cached_property
from typing import Any, Final

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


class ExplainFormat:
    """Writes the explanations of one served model.

    Args:
        served: The model.
        block_rows: How many rows are explained at a time.
    """

    def __init__(self, served: ServedModel, block_rows: int) -> None:
        self._served: Final = served
        self._n_features: Final = served.model.n_features
        self._block_rows: Final = block_rows

    @cached_property
    def explainer(self) -> Explainer:
        """The explainer of the model; made on first use, in the thread that needs it."""
        return create_explainer(self._served.dense_model)

    def encode_explanations(self, parsed: ExplainBody) -> bytes:
        """Return the body of a response.

        Raises:
            UnacceptableError: A row has a value that is not finite, or a number that overflows float64.
        """
        Y, top, served = parsed.Y, parsed.top, self._served
        rows: list[bytes] = []
        for i in range(0, len(parsed.X), self._block_rows):
            block = parsed.X[i : i + self._block_rows]
            explanation = self.explainer.explain(block, None if Y is None else Y[i : i + self._block_rows])
            rows.extend(self._encode_rows(block, explanation, top))
        names = b'"features":[%b],' % self._names if top == self._n_features else b""
        classes = b",".join(served.class_json)
        once = names + self._calibration
        return b'{"explanations":[%b],%b"classes":[%b%b' % (b",".join(rows), once, classes, served.v1_tail)

    def compute_outputs(
        self, X: Floats, wanted: Collection[str]
    ) -> tuple[Floats, NDArray[np.int64], dict[str, Floats]]:
        """Return probabilities (B, C), labels (B,), and the wanted parts of the explanation of X (B, N) by name.

        Raises:
            UnacceptableError: As `encode_explanations`, or a number overflows the model's dtype.
        """
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

    @cached_property
    def _names(self) -> bytes:
        return b",".join(map(orjson.dumps, self._served.artifact.column_names))

    @cached_property
    def _calibration(self) -> bytes:
        """The calibration between the logits and the head, or b""."""
        model = self._served.model
        if not isinstance(model, CalibratedModel):
            return b""
        return b'"calibration":%b,' % orjson.dumps({"kind": model.calibration.kind, **model.calibration.to_dict()})

    @cached_property
    def _entries(self) -> list[bytes]:
        """The beginning of each feature's entry in `top`."""
        names = self._served.artifact.column_names
        return [b'{"feature":%b,"index":%d,"contribution":' % (orjson.dumps(name), j) for j, name in enumerate(names)]

    @cached_property
    def _bias(self) -> bytes:
        bias = self.explainer.bias
        return b"null" if bias is None else _numbers(bias)

    @cached_property
    def _experts(self) -> list[bytes]:
        """The beginning of each expert's entry in `experts`."""
        return [orjson.dumps(expert._asdict())[:-1] + b',"probabilities":' for expert in self.explainer.experts]

    def _encode_rows(self, X: Floats, found: Explanation, top: int) -> Iterator[bytes]:
        """Yield the JSON of each row of X (B, N)."""
        wide = dict(zip(found.over.tolist(), range(len(found.over)), strict=True))
        for i, x in enumerate(X):
            P = found.probabilities[i]
            label = int(found.labels[i]) if self._served.thresholds is None else int(P.argmax())
            source, at = (found, i) if i not in wide or found.exact is None else (found.exact, wide[i])
            experts = b"" if found.experts is None else self._encode_experts(found.experts[i])
            yield self._encode_row(x, P, label, source, at, top, experts)

    def _encode_row(  # noqa: PLR0917  # the parts of one row
        self, x: Floats, P: Floats, label: int, found: Explanation, i: int, top: int, experts: bytes
    ) -> bytes:
        S, D = found.sensitivities[i], found.loss_gradients
        C = None if found.contributions is None else found.contributions[i]
        part = None if C is None else _part(C, label, len(P))
        weight = np.abs(part) if part is not None else _first_order(S[label], x, self.explainer.center)
        order = np.argsort(-weight, kind="stable")[:top]
        entries = self._top(order, part, S[label])
        gradient = None if D is None else D[i]
        if top < self._n_features:
            S = S.take(order, axis=1)
            C = None if C is None else C.take(order, axis=1)
            gradient = None if gradient is None else gradient.take(order)
        loss = b""
        if gradient is not None and found.losses is not None:
            loss = b',"loss":%b,"loss_gradient":%b' % (orjson.dumps(float(found.losses[i])), _numbers(gradient))
        return (
            b'{"label":%b,"logits":%b,"probabilities":%b,"bias":%b,"contributions":%b,"sensitivities":%b,"top":[%b]%b%b}'
            % (
                self._label(label, P),
                _numbers(found.logits[i]),
                _numbers(P),
                self._bias,
                b"null" if C is None else _numbers(C),
                _numbers(S),
                entries,
                experts,
                loss,
            )
        )

    def _encode_experts(self, P: Floats) -> bytes:
        """Return the member `experts` with the probabilities (E, C)."""
        entries = (start + _numbers(row) + b"}" for start, row in zip(self._experts, P, strict=True))
        return b',"experts":[%b]' % b",".join(entries)

    def _label(self, label: int, P: Floats) -> bytes:
        """Return the row's label, or the list of labels of a multi-label model."""
        names, thresholds = self._served.class_json, self._served.thresholds
        if thresholds is None:
            return names[label]
        return b"[%b]" % b",".join([names[k] for k in np.flatnonzero(thresholds <= P)])

    def _top(self, order: NDArray[np.intp], part: Floats | None, slopes: Floats) -> bytes:
        """Return the entries of the features in that order."""
        parts = [b"null"] * len(order) if part is None else _texts(part.take(order))
        entries = self._entries
        return b",".join(
            [
                b'%b%b,"sensitivity":%b}' % (entries[j], contribution, sensitivity)
                for j, contribution, sensitivity in zip(order.tolist(), parts, _texts(slopes.take(order)), strict=True)
            ]
        )


def _part(contributions: Floats, label: int, n_classes: int) -> Floats:
    """Return what features add (N,) to a class's logit, from (K, N); the first of two classes has the negative."""
    part: Floats = contributions[min(label, len(contributions) - 1)]
    return part if label or len(contributions) == n_classes else 0 - part


def _first_order(slopes: Floats, x: Floats, centre: Doubles) -> Floats:
    """Return the size of each feature's first-order effect: its slope times its distance from the center."""
    with np.errstate(over="ignore", invalid="ignore"):
        weight: Floats = np.abs(slopes * (x - centre))
    return weight


def _numbers(array: NDArray[Any]) -> bytes:
    """Return an array as JSON; each number is the shortest decimal that is the same in its dtype."""
    return orjson.dumps(array, None, orjson.OPT_SERIALIZE_NUMPY)


def _texts(array: Floats) -> list[bytes]:
    """Return the JSON of each number of an array (n,)."""
    return _numbers(array)[1:-1].split(b",")

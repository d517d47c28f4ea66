"""What a request to explain asks for, and its answer's bytes.

    {"instances": [[5.1, 3.5, 1.4, 0.2]], "labels": ["setosa"], "top": 2, "min_seq": 0}       all but instances optional

    {"explanations": [{"label", "logits", "probabilities", "bias", "contributions", "sensitivities", "top",
                       "loss", "loss_gradient"}, …],
     "features": [name, …], "calibration": {"kind", …}, "classes": [name, …], "model_name", "model_version", "seq"}

`features` names the columns of contributions (K x N), sensitivities (C x N) and loss_gradient (N). Where `top` leaves
features out there is no such field, and each row has columns of its own: the features of its `top`, in their order.
`calibration` is there where a model has one: logits, bias and contributions are those in front of it.

A row's `top` is about its label (for a multi-label model, about its most probable class): features by the size of their
contribution to that class's logit; for a network by the size of the sensitivity times the feature's distance from the
mean of its stage, or from 0 where it has none, which is what the feature does to the probability in first order. Where
two classes have one logit it is the second's, and the contribution to the first's is less what is added to it.
"""

from collections.abc import Collection, Iterator
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import TooLargeError, UnacceptableError
from service.serve.models.served_model import ServedModel
from service.serve.wire.json_grammar import check_fields, parse_object
from service.serve.wire.labels import LabelParser
from service.serve.wire.oip_request import EXPLANATIONS
from service.serve.wire.predict_body import parse_min_seq
from service.settings import Settings
from service.softmax.arrays import Doubles, Floats
from service.softmax.calibration import CalibratedModel
from service.softmax.contributions import Explainer, create_explainer, uncalibrated_logits
from service.softmax.explanation import Explanation
from service.store.log.feedback_payload import Targets

FIELDS: Final = ("instances", "labels", "top", "min_seq", "parameters", "signature_name")
# A model of more features is wide: unless it is asked for more, each row tells of that many.
WIDE_FROM: Final = 64
WIDE_TOP: Final = 10
# Numbers of matrices that stand in memory at one time, and how many may be computed for each one that the answer may
# have: `top` cuts the matrices after they are made.
BLOCK_CELLS: Final = 1 << 18
MADE_FOR_ONE: Final = 16
# What text counts beside numbers: ten characters as one. An entry of `top` has eighty, and those of its feature's name.
NUMBER_CHARACTERS: Final = 10
ENTRY_CELLS: Final = 8
MATRICES: Final = frozenset(("contributions", "sensitivities"))


# What is more than that many numbers takes longer than the event loop should (some 0.2 ms, most of it writing them).
INLINE_CELLS: Final = 4096
# What a row takes before its logits are walked back, each in the time of a prediction: so many predictions at most.
FORWARDS: Final = 3


class ExplainBody(NamedTuple):
    """A request to explain: rows X (B, N), targets Y (B, K) or None, features told of each, the seq it waits for."""

    X: Floats
    Y: Doubles | None
    top: int
    min_seq: int = 0


class ExplainFormat:
    """Reads requests to explain one served model, and writes the answers.

    Args:
        served: The model.
        settings: The limits.

    Attributes:
        n_features: N.
        deep: Whether the model is a network, whose logits are no sums over features.
        row_cells: The numbers of one row's matrices.
        inline_rows: How many rows the event loop explains itself; of a heavy model, which it shall not even pack, none.
    """

    def __init__(self, served: ServedModel, settings: Settings) -> None:
        self._served: Final = served
        self._settings: Final = settings
        self.n_features: Final = served.model.n_features
        self._labels: Final = LabelParser(served.classes, multilabel=served.thresholds is not None)
        self._usual_top: Final = self.n_features if self.n_features <= WIDE_FROM else WIDE_TOP
        model = served.model
        K, C, N = model.n_logits, model.n_classes, self.n_features
        self.deep: Final = len(model.layers) > 1
        self._sizes: Final = {"logits": K, "contributions": 0 if self.deep else K * N, "sensitivities": C * N}
        self.row_cells: Final = self._sizes["contributions"] + self._sizes["sensitivities"]
        standing = self.row_cells + K * N  # the slopes of the logits
        self._computed: Final = standing + K * sum(layer.outputs for layer in model.layers[:-1])
        self.inline_rows: Final = min(INLINE_CELLS // self.row_cells, served.inline_rows // (FORWARDS + K))
        self._step: Final = max(1, BLOCK_CELLS // standing)
        features, classes = ([len(name) for name in names] for names in (served.manifest.features, served.classes))
        self._names_length: Final = max(features), sum(features)
        label = max(classes) if served.thresholds is None else sum(classes)
        self._row_told: Final = 2 * K + C + label // NUMBER_CHARACTERS

    @cached_property
    def explainer(self) -> Explainer:
        """What computes; it is made when it is first needed, and where."""
        return create_explainer(self._served.model)

    def read(self, body: bytes) -> ExplainBody:
        """What a body asks for.

        Raises:
            MalformedError: The bytes are not JSON of our grammar.
            UnacceptableError: They are, but this model cannot explain what they say.
            TooLargeError: There are more rows, or would be more numbers in the answer, than the limit.
        """
        rows = self._served.rows
        X = rows.parse_usual(body)
        if X is not None:
            return self._checked(ExplainBody(X, None, self._usual_top))
        document = parse_object(body, self._settings.json_depth_max, self._settings.rows_max)
        check_fields(document, FIELDS)
        if "instances" not in document:
            raise UnacceptableError('The body must have "instances": a list of rows.')
        top = document.get("top", self._usual_top)
        if type(top) is not int or top < 1:
            raise UnacceptableError('"top" must be a number of features, a whole number from 1.')
        X = rows.convert_rows(document["instances"])
        Y = self._targets(document["labels"], len(X)) if "labels" in document else None
        return self._checked(ExplainBody(X, Y, min(top, self.n_features), parse_min_seq(document)))

    def check_outputs(self, rows: int, wanted: Collection[str]) -> None:
        """Raise TooLargeError where so many rows of the outputs of these names would be too many numbers."""
        computed = self._computed if MATRICES.intersection(wanted) else 0
        self._check(rows, sum(self._sizes.get(name, self._served.model.n_classes) for name in wanted), computed)

    def _checked(self, why: ExplainBody) -> ExplainBody:
        top, (longest, whole) = why.top, self._names_length
        of_each = self.row_cells // self.n_features + (why.Y is not None) + ENTRY_CELLS
        names = min(whole, longest * top) // NUMBER_CHARACTERS
        self._check(len(why.X), self._row_told + top * of_each + names, self._computed)
        return why

    def _check(self, rows: int, told: int, computed: int) -> None:
        """Raise TooLargeError where more would be told, or computed, of so many rows than the limit has it."""
        most = self._settings.answer_cells_max
        if rows * told > most:
            raise TooLargeError(
                f"An answer may tell at most {most} numbers; send fewer rows or ask for fewer features."
            )
        if rows * computed > most * MADE_FOR_ONE:
            raise TooLargeError(f"An answer may be made of at most {most * MADE_FOR_ONE} numbers; send fewer rows.")

    def _targets(self, labels: object, rows: int) -> Doubles:
        """Y (B, K) of labels as feedback has them; the sigmoid head has one logit, that of its second class."""
        kind, targets = self._labels.parse_labels(labels, rows)
        if kind == Targets.INDEX:
            Y = np.zeros((rows, self._labels.n_classes))
            Y[np.arange(rows), targets] = 1
        else:
            Y = targets.astype(np.float64)
        return np.ascontiguousarray(Y[:, 1:]) if self._served.manifest.head == "sigmoid" else Y

    def body(self, why: ExplainBody) -> bytes:
        """The answer's body.

        Raises:
            UnacceptableError: A row has a value that is not finite, or a number that overflows float64.
        """
        Y, top, served = why.Y, why.top, self._served
        rows: list[bytes] = []
        for i in range(0, len(why.X), self._step):
            block = why.X[i : i + self._step]
            found = self.explainer.explain(block, None if Y is None else Y[i : i + self._step])
            rows.extend(self._rows(block, found, top))
        names = b'"features":[%b],' % self._names if top == self.n_features else b""
        classes = b",".join(served.class_json)
        once = names + self._calibration
        return b'{"explanations":[%b],%b"classes":[%b%b' % (b",".join(rows), once, classes, served.v1_tail)

    def whole(self, X: Floats, wanted: Collection[str]) -> tuple[Floats, NDArray[np.int64], dict[str, Floats]]:
        """Probabilities (B, C), labels (B,), and the wanted parts of the explanation of X (B, N) by their names.

        Raises:
            UnacceptableError: As `body`, or a number overflows the model's dtype.
        """
        if not MATRICES.intersection(wanted):
            P, labels = self._served.model.classify(X)
            return P, np.array(labels), {"logits": uncalibrated_logits(self._served.model, X)}
        names = ["probabilities", "labels", *(name for name in EXPLANATIONS if name in wanted)]
        parts: dict[str, list[Any]] = {name: [] for name in names}
        for i in range(0, len(X), self._step):
            found = self.explainer.explain(X[i : i + self._step]).round_to_dtype()
            for name, blocks in parts.items():
                blocks.append(getattr(found, name))
        P, found_labels, *more = map(np.concatenate, parts.values())
        return P, found_labels, dict(zip(names[2:], more, strict=True))

    @cached_property
    def _names(self) -> bytes:
        return b",".join(map(orjson.dumps, self._served.manifest.features))

    @cached_property
    def _calibration(self) -> bytes:
        """What stands between the logits and the head, where something does."""
        model = self._served.model
        if not isinstance(model, CalibratedModel):
            return b""
        return b'"calibration":%b,' % orjson.dumps({"kind": model.calibration.kind, **model.calibration.to_dict()})

    @cached_property
    def _entries(self) -> list[bytes]:
        """The beginning of each feature's entry in `top`."""
        names = self._served.manifest.features
        return [b'{"feature":%b,"index":%d,"contribution":' % (orjson.dumps(name), j) for j, name in enumerate(names)]

    @cached_property
    def _bias(self) -> bytes:
        bias = self.explainer.bias
        return b"null" if bias is None else _numbers(bias)

    def _rows(self, X: Floats, found: Explanation, top: int) -> Iterator[bytes]:
        """The JSON of each row of X (B, N)."""
        wide = dict(zip(found.over.tolist(), range(len(found.over)), strict=True))
        for i, x in enumerate(X):
            P = found.probabilities[i]
            label = int(found.labels[i]) if self._served.thresholds is None else int(P.argmax())
            source, at = (found, i) if i not in wide or found.exact is None else (found.exact, wide[i])
            yield self._row(x, P, label, source, at, top)

    def _row(  # noqa: PLR0917  # what a row is told from
        self, x: Floats, P: Floats, label: int, found: Explanation, i: int, top: int
    ) -> bytes:
        S, D = found.sensitivities[i], found.loss_gradients
        C = None if found.contributions is None else found.contributions[i]
        part = None if C is None else _part(C, label, len(P))
        weight = np.abs(part) if part is not None else _first_order(S[label], x, self.explainer.center)
        order = np.argsort(-weight, kind="stable")[:top]
        entries = self._top(order, part, S[label])
        gradient = None if D is None else D[i]
        if top < self.n_features:
            S = S.take(order, axis=1)
            C = None if C is None else C.take(order, axis=1)
            gradient = None if gradient is None else gradient.take(order)
        loss = b""
        if gradient is not None and found.losses is not None:
            loss = b',"loss":%b,"loss_gradient":%b' % (orjson.dumps(float(found.losses[i])), _numbers(gradient))
        return (
            b'{"label":%b,"logits":%b,"probabilities":%b,"bias":%b,"contributions":%b,"sensitivities":%b,"top":[%b]%b}'
            % (
                self._label(label, P),
                _numbers(found.logits[i]),
                _numbers(P),
                self._bias,
                b"null" if C is None else _numbers(C),
                _numbers(S),
                entries,
                loss,
            )
        )

    def _label(self, label: int, P: Floats) -> bytes:
        """The row's label, or the list of those of a multi-label model."""
        names, thresholds = self._served.class_json, self._served.thresholds
        if thresholds is None:
            return names[label]
        return b"[%b]" % b",".join([names[k] for k in np.flatnonzero(thresholds <= P)])

    def _top(self, order: NDArray[np.intp], part: Floats | None, slopes: Floats) -> bytes:
        """The entries of the features in that order."""
        parts = [b"null"] * len(order) if part is None else _texts(part.take(order))
        entries = self._entries
        return b",".join(
            [
                b'%b%b,"sensitivity":%b}' % (entries[j], contribution, sensitivity)
                for j, contribution, sensitivity in zip(order.tolist(), parts, _texts(slopes.take(order)), strict=True)
            ]
        )


def _part(contributions: Floats, label: int, n_classes: int) -> Floats:
    """What the features add (N,) to a class's logit, of (K, N); the first of two classes with one logit has less it."""
    part: Floats = contributions[min(label, len(contributions) - 1)]
    return part if label or len(contributions) == n_classes else 0 - part


def _first_order(slopes: Floats, x: Floats, centre: Doubles) -> Floats:
    """What each feature does to a probability: its slope times its distance from the centre, without a sign."""
    with np.errstate(over="ignore", invalid="ignore"):
        weight: Floats = np.abs(slopes * (x - centre))
    return weight


def _numbers(array: NDArray[Any]) -> bytes:
    """An array as JSON: each number the shortest decimal that is the same in its dtype."""
    return orjson.dumps(array, None, orjson.OPT_SERIALIZE_NUMPY)


def _texts(array: Floats) -> list[bytes]:
    """The JSON of each number of an array (n,)."""
    return _numbers(array)[1:-1].split(b",")
